//! `backfill`: new values for columns of rows that exist, in batches, each row exactly once.
//!
//! What it may change (checked when planning):
//! - *derived*: no expression reads a column the step sets. Repeating it would do no harm; it is done once all the same;
//! - *self-referential* (`balance * 1.2`): only where the rows that are responsible are fixed at the start. That is so
//!   with a key that grows with insertion (identity, serial), where the range ends at the largest key there is, and
//!   where the author says what new rows mean (`new_rows`).

use super::{Kind, Undo};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Action, Batches, Facts, KeyColumn, Ordering, Refusal, RelationKind, Source, TableFacts, Upper,
};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// `backfill: { table, set: { column: expression, .. }, where?, new_rows?, batch? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// The table.
    pub table: Table,
    /// Columns and their new values, as SQL expressions over the row.
    #[serde(deserialize_with = "crate::yaml::unique")]
    pub set: BTreeMap<Ident, Expression>,
    /// Which rows; all when it is missing.
    #[serde(default, rename = "where")]
    pub condition: Option<Expression>,
    /// What the author says about rows inserted while the step runs.
    #[serde(default)]
    pub new_rows: Option<NewRows>,
    /// Size and pace.
    #[serde(default)]
    pub batch: BatchOptions,
}

/// What the author says about rows inserted while the step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewRows {
    /// They may be changed or not: both are right.
    Either,
    /// `where` does not hold for them.
    Excluded,
}

/// `batch: { size?, pause? }`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchOptions {
    /// Rows of the first batch; later ones follow the measured time.
    #[serde(default)]
    pub size: Option<u32>,
    /// Pause between batches.
    #[serde(default)]
    pub pause: Option<Milliseconds>,
}

/// The largest first batch a user may ask for: beyond it a batch no longer ends within its `statement_timeout`.
const MAX_SIZE: u32 = 1_000_000;

impl Kind for Backfill {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.set.is_empty() {
            problems.push("`set` names no column".to_owned());
        }
        if self.new_rows == Some(NewRows::Excluded) && self.condition.is_none() {
            problems.push("`new_rows: excluded` needs a `where` that does not hold for new rows".to_owned());
        }
        if self.batch.size.is_some_and(|size| size == 0 || size > MAX_SIZE) {
            problems.push(format!("`batch.size` must be between 1 and {MAX_SIZE}"));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        let canonical = Canonical::new().field("table", &self.table);
        let canonical = self.set.iter().fold(canonical, |canonical, (column, value)| {
            canonical.field("set", column).field("to", tokens(value.text()))
        });
        // `batch` is left out: who finds the pace wrong in the middle of a run must be able to change it.
        canonical
            .optional("where", self.condition.as_ref().map(|c| tokens(c.text())))
            .optional(
                "new_rows",
                self.new_rows.map(|new_rows| match new_rows {
                    NewRows::Either => "either",
                    NewRows::Excluded => "excluded",
                }),
            )
            .finish()
    }

    fn title(&self) -> String {
        let columns: Vec<String> = self.set.keys().map(ToString::to_string).collect();
        format!("backfill {} of {}", columns.join(", "), self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        if let RelationKind::Other(what) = table.kind {
            return Err(Refusal::Input {
                what: format!(
                    "{} is a {what}: its rows cannot be changed in batches",
                    table.full_name()
                ),
                advice: Some("name the table that holds the rows".to_owned()),
            });
        }
        for column in self.set.keys() {
            if table.column(column)?.source == Source::Generated {
                return Err(Refusal::Input {
                    what: format!(
                        "column {column} of {} is generated and cannot be set",
                        table.full_name()
                    ),
                    advice: None,
                });
            }
        }
        for expression in self.set.values().chain(&self.condition) {
            // Names in a sub-select may belong to other tables: PostgreSQL finds those that do not exist.
            if expression.has_subquery() {
                continue;
            }
            for name in expression.columns() {
                if !self.is_table_name(name, table) && !is_system_column(name) {
                    table.column(name)?;
                }
            }
        }
        let key = key_of(table)?;
        if let Some(column) = self.set.keys().find(|set| key.iter().any(|k| k.name == **set)) {
            return Err(Refusal::Unsafe {
                what: format!(
                    "{column} is part of the primary key of {}, by which the batches find their rows: a row that is changed would be met again",
                    table.full_name()
                ),
                advice: Some(
                    "fill a new column and make it the key afterwards, or change the rows in one `sql` step if the table is small"
                        .to_owned(),
                ),
            });
        }
        let upper = self.upper(table, &key)?;
        Ok(vec![Action::Batches(Batches {
            schema: table.schema.clone(),
            table: table.name.clone(),
            key,
            set: self
                .set
                .iter()
                .map(|(column, value)| (column.clone(), value.text().to_owned()))
                .collect(),
            condition: self.condition.as_ref().map(|c| c.text().to_owned()),
            upper,
            first_rows: self.batch.size,
            pause: self.batch.pause.map_or(Duration::ZERO, |pause| pause.0),
            estimated_rows: table.estimated_rows,
        })])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "the values it replaced are gone",
        }
    }
}

impl Backfill {
    /// The column a value is written to that some expression of the step reads, if there is one.
    fn self_reference(&self, table: &TableFacts) -> Option<&Ident> {
        let whole_row = |e: &Expression| {
            e.columns()
                .chain(e.relations())
                .any(|name| self.is_table_name(name, table))
        };
        self.set
            .keys()
            .find(|column| self.set.values().any(|e| e.reads(column) || whole_row(e)))
    }

    /// A name that stands for the whole row, or for all rows in a sub-select.
    fn is_table_name(&self, name: &Ident, table: &TableFacts) -> bool {
        *name == table.name || *name == self.table.name
    }

    fn upper(&self, table: &TableFacts, key: &[KeyColumn]) -> Result<Upper, Refusal> {
        let Some(column) = self.self_reference(table) else {
            return Ok(Upper::Open);
        };
        let refused = |advice: &str| {
            Err(Refusal::Unsafe {
                what: format!(
                    "the new value of {column} depends on a value the step itself sets, so each row must be changed exactly once, \
                     and on {} it is not certain which rows that is",
                    table.full_name()
                ),
                advice: Some(advice.to_owned()),
            })
        };
        if table.kind == RelationKind::Partitioned {
            return refused("rows can move between partitions: fill a new column from the old one instead");
        }
        let grows = key.len() == 1
            && table
                .find(&key[0].name)
                .is_some_and(|c| c.source == Source::Growing);
        match self.new_rows {
            Some(NewRows::Either | NewRows::Excluded) => Ok(Upper::AtStart),
            None if grows => Ok(Upper::AtStart),
            None => refused(
                "its key does not grow with insertion, so a row inserted meanwhile may be changed or not: \
                 if both are right say `new_rows: either`; if `where` does not hold for new rows say `new_rows: excluded`; \
                 or fill a new column from the old one",
            ),
        }
    }
}

/// A column that every table has, though no list of its columns.
fn is_system_column(name: &Ident) -> bool {
    ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"].contains(&name.as_str())
}

/// The primary key as a cursor.
fn key_of(table: &TableFacts) -> Result<Vec<KeyColumn>, Refusal> {
    if table.primary_key.is_empty() {
        return Err(Refusal::Unsafe {
            what: format!(
                "table {} has no primary key, so a batch could not say where it ended",
                table.full_name()
            ),
            advice: Some(
                "add a primary key first, or change the rows in one `sql` step if the table is small"
                    .to_owned(),
            ),
        });
    }
    table
        .primary_key
        .iter()
        .map(|name| {
            let column = table.column(name)?;
            let why = match column.ordering {
                Ordering::Exact => {
                    return Ok(KeyColumn {
                        name: column.name.clone(),
                        data_type: column.data_type.clone(),
                    });
                }
                Ordering::Float => "floating point: a value read as text may not be found again",
                Ordering::Nondeterministic => {
                    "of a nondeterministic collation: different values may count as equal"
                }
                Ordering::None => "of a type without an order",
            };
            Err(Refusal::Unsafe {
                what: format!("the primary key column {name} of {} is {why}", table.full_name()),
                advice: Some("change the rows in one `sql` step if the table is small".to_owned()),
            })
        })
        .collect()
}
