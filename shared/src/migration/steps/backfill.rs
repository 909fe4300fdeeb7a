//! `backfill`: new values for columns of rows that exist, in batches, each row exactly once.
//!
//! What it may change (checked when planning):
//! - *derived*: no expression reads a column the step sets. Repeating it would do no harm; it is done once all the same;
//! - *self-referential* (`balance * 1.2`): only where the rows that are responsible are fixed at the start. That is so
//!   with a key that grows with insertion (identity, serial), where the range ends at the largest key there is, and
//!   where the author says what new rows mean (`new_rows`).

use super::batched::{BatchOptions, Repeatable, Rows, columns_exist, is_table_name};
use super::sync::{self, Sync};
use super::{Kind, Undo, own_rows};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Action, Assignment, Facts, Kept, KeyColumn, Refusal, RelationKind, RowChange, Source, TableFacts, Upper,
    Verdict, Verification, When,
};
use crate::sql::batch::differs;
use crate::sql::sync::{as_if_empty, comparison};
use serde::Deserialize;
use std::collections::BTreeMap;

/// `backfill: { table, set: { column: expression, .. }, where?, new_rows?, sync?, batch? }`
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
    /// Whether a trigger keeps the columns right; by default where a later step refuses NULL or the values are made of
    /// columns that applications write.
    #[serde(default)]
    pub sync: Option<Sync>,
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

impl Kind for Backfill {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.set.is_empty() {
            problems.push("`set` names no column".to_owned());
        }
        if self.new_rows == Some(NewRows::Excluded) && self.condition.is_none() {
            problems.push("`new_rows: excluded` needs a `where` that does not hold for new rows".to_owned());
        }
        problems.extend(self.batch.problems());
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
            .optional(
                "sync",
                self.sync.map(|sync| match sync {
                    Sync::Trigger => "trigger",
                    Sync::None => "none",
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

    fn expressions(&self) -> Vec<&Expression> {
        self.set.values().chain(&self.condition).collect()
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        for expression in self.expressions() {
            columns_exist(expression, table, &self.table)?;
        }
        let own = own_rows::Own::new(facts, table, &self.table);
        if let Some(condition) = &self.condition {
            own.chosen_once(condition, "changed")?;
        }
        own.computed_once(&self.set)?;
        let set = (self.set.iter())
            .map(|(column, value)| assignment(table, column, value))
            .collect::<Result<Vec<_>, Refusal>>()?;
        let (trigger, kept) = match sync::decide(self, facts, table, &set)? {
            sync::Decision::Without => (None, Kept::ByApplications),
            sync::Decision::Live => (None, Kept::ByTrigger),
            sync::Decision::Create(transaction) => (Some(transaction), Kept::ByTrigger),
        };
        let repeatable = self.repeatable(facts, table)?;
        let verification = self.verification(table, &set, repeatable, kept);
        let rows = Rows {
            table,
            change: RowChange::Update(set),
            condition: self.condition.as_ref(),
            repeatable,
            kept,
            verification,
        };
        let batches = rows.batches(facts, &self.batch, |key| self.upper(table, key))?;
        let trigger = trigger.map(Action::Transaction);
        Ok(trigger
            .into_iter()
            .chain([Action::Batches(Box::new(batches))])
            .collect())
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
                .chain(e.relations().map(|relation| &relation.name))
                .any(|name| is_table_name(name, table, &self.table))
        };
        self.set
            .keys()
            .find(|column| self.set.values().any(|e| e.reads(column) || whole_row(e)))
    }

    fn repeatable(&self, facts: &Facts, table: &TableFacts) -> Result<Repeatable, Refusal> {
        let by_condition = (self.condition.as_ref()).is_some_and(|c| self.set.keys().any(|set| c.reads(set)));
        if let Some(column) = self.self_reference(table) {
            return if table.kind == RelationKind::Partitioned {
                let advice = "rows can move between partitions: fill a new column from the old one instead";
                Err(uncertain(table, column, advice))
            } else if table.parts.len() > 1 {
                let advice =
                    "its children have keys of their own: fill a new column from the old one instead";
                Err(uncertain(table, column, advice))
            } else {
                Ok(Repeatable::Never)
            };
        }
        let changes = (self.set.values()).any(|value| value.changes_by_itself(&facts.volatile));
        Ok(match (changes, by_condition) {
            (false, _) => Repeatable::Seen,
            (true, true) => Repeatable::ByCondition,
            (true, false) => Repeatable::Unseen,
        })
    }

    /// Values that can be computed again are compared; a condition that reads what the step sets must find no row any more.
    fn verification(
        &self,
        table: &TableFacts,
        set: &[Assignment],
        repeatable: Repeatable,
        kept: Kept,
    ) -> Verification {
        let reads_set = |condition: &&Expression| self.set.keys().any(|set| condition.reads(set));
        let by_set = self.condition.as_ref().filter(reads_set);
        let differing = (repeatable == Repeatable::Seen).then(|| {
            let differs: Vec<String> = set.iter().map(differs).collect();
            let differs = differs.join(" OR ");
            match &self.condition {
                None => differs,
                Some(condition) => {
                    let row = as_if_empty(&table.name, set, &sync::reads(self, table));
                    format!(
                        "({differs}) AND EXISTS (SELECT FROM {row} WHERE ({}\n))",
                        condition.text()
                    )
                }
            }
        });
        Verification {
            differing,
            remaining: by_set.map(|condition| condition.text().to_owned()),
            // Who knows the column may have written another value before.
            verdict: if kept == Kept::ByTrigger && by_set.is_none() {
                Verdict::Fail
            } else {
                Verdict::Warn
            },
            when: When::OnCanaries,
        }
    }

    fn upper(&self, table: &TableFacts, key: &[KeyColumn]) -> Result<Upper, Refusal> {
        let Some(column) = self.self_reference(table) else {
            return Ok(Upper::Open);
        };
        let grows = key.len() == 1
            && table
                .find(&key[0].name)
                .is_some_and(|c| c.source == Source::Growing);
        if grows || self.new_rows.is_some() {
            return Ok(Upper::AtStart);
        }
        let advice = "its key does not grow with insertion, so a row inserted meanwhile may be changed or not: \
                      if both are right say `new_rows: either`; if `where` does not hold for new rows say `new_rows: excluded`; \
                      or fill a new column from the old one";
        Err(uncertain(table, column, advice))
    }
}

/// A column's new value, as the batches compare and write it.
fn assignment(table: &TableFacts, column: &Ident, value: &Expression) -> Result<Assignment, Refusal> {
    let found = table.column(column)?;
    if found.source == Source::Generated {
        return Err(Refusal::Input {
            what: format!(
                "column {column} of {} is generated and cannot be set",
                table.full_name()
            ),
            advice: None,
        });
    }
    Ok(Assignment {
        column: column.clone(),
        value: value.text().to_owned(),
        data_type: found.data_type.clone(),
        comparison: comparison(found),
    })
}

fn uncertain(table: &TableFacts, column: &Ident, advice: &str) -> Refusal {
    Refusal::Unsafe {
        what: format!(
            "the new value of {column} depends on a value the step itself sets, so each row must be changed exactly once, \
             and on {} it is not certain which rows that is",
            table.full_name()
        ),
        advice: Some(advice.to_owned()),
    }
}
