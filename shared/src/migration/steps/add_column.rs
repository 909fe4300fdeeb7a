//! `add_column`: a new column, nullable or with a default.
//!
//! Without a default, and with one that is the same for all rows (a constant, `now()`), it is a change of the catalog
//! alone. A default that differs from row to row (`gen_random_uuid()`) would make PostgreSQL rewrite the table under an
//! exclusive lock, so the rows that exist get theirs in batches:
//! ```text
//! absent --add it, set its default--> new rows have theirs --batches--> all rows --as set_not_null--> NOT NULL
//! ```

use super::batched::{BatchOptions, Repeatable, Rows};
use super::{DropColumn, Kind, SetNotNull, Undo};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Action, Assignment, ColumnFacts, Comparison, Facts, Kept, Nullability, Ordering, Refusal, RowChange,
    Source, Stage, TableFacts, Transaction, Upper, Verdict, Verification, When,
};
use crate::sql;
use serde::Deserialize;

/// `add_column: { table, column, type, default?, not_null?, batch? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddColumn {
    /// The table.
    pub table: Table,
    /// The new column.
    pub column: Ident,
    /// Its type, as SQL writes it.
    #[serde(rename = "type")]
    pub data_type: sql::TypeName,
    /// For rows that exist and rows that do not give a value: an expression without columns.
    #[serde(default)]
    pub default: Option<Expression>,
    /// Refuse NULL; needs a default, since the rows that exist would have none.
    #[serde(default)]
    pub not_null: bool,
    /// Size and pace, where the default differs from row to row.
    #[serde(default)]
    pub batch: BatchOptions,
}

impl Kind for AddColumn {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        match &self.default {
            Some(default) if default.has_subquery() || default.columns().next().is_some() => {
                problems.push(format!(
                    "the default `{}` reads columns or tables: add the column without a default and fill it with a `backfill` step",
                    default.text()
                ));
            }
            None if self.not_null => problems.push(
                "`not_null` needs a `default`: rows that exist would have no value; or add the column nullable, `backfill` it, then `set_not_null`"
                    .to_owned(),
            ),
            _ => {}
        }
        if self.data_type.is_serial() {
            problems.push(format!(
                "`{}` is no constant default: PostgreSQL would rewrite the table under an exclusive lock; add an integer column, and its sequence with a `sql` step",
                self.data_type.as_str()
            ));
        }
        problems.extend(self.batch.problems());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .field("type", tokens(self.data_type.as_str()))
            .optional(
                "default",
                self.default.as_ref().map(|default| tokens(default.text())),
            )
            .optional("not_null", self.not_null.then_some(true))
            .finish()
    }

    fn title(&self) -> String {
        format!("add column {} to {}", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn expressions(&self) -> Vec<&Expression> {
        self.default.iter().collect()
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        let differing =
            (self.default.as_ref()).filter(|default| default.volatile_call(&facts.volatile).is_some());
        if let Some(default) = differing {
            return self.plan_in_batches(facts, table, default);
        }
        self.must_be_new(table)?;
        let default = self.default.as_ref().map(Expression::text);
        Ok(vec![Action::Transaction(Transaction::bounded(sql::add_column(
            table,
            &self.column,
            &self.data_type,
            default,
            self.nullability(),
        )))])
    }

    fn effect(&self, facts: &mut Facts) {
        self.add_to(facts, self.nullability());
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::DropColumn(DropColumn {
            table: self.table.clone(),
            column: self.column.clone(),
        })))
    }
}

impl AddColumn {
    fn must_be_new(&self, table: &TableFacts) -> Result<(), Refusal> {
        if let Some(column) = table.find(&self.column) {
            return Err(Refusal::Input {
                what: format!(
                    "table {} already has a column {} of type {}",
                    table.full_name(),
                    column.name,
                    column.data_type
                ),
                advice: Some(
                    "choose another name, or remove the step if the column is the one you want".to_owned(),
                ),
            });
        }
        Ok(())
    }

    fn plan_in_batches(
        &self,
        facts: &Facts,
        table: &TableFacts,
        default: &Expression,
    ) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        let mut after = facts.clone();
        // Once begun, the column is there because we added it.
        if facts.stage == Stage::New || table.find(&self.column).is_none() {
            self.must_be_new(table)?;
            let nullable = Nullability::Nullable;
            actions.push(Action::Transaction(Transaction::bounded_all(vec![
                sql::add_column(table, &self.column, &self.data_type, None, nullable),
                sql::set_default(table, &self.column, default.text()),
            ])));
            self.add_to(&mut after, nullable);
        }
        let table = after.table(&self.table)?;
        let unset =
            Expression::parse(&format!("{} IS NULL", self.column)).map_err(|error| Refusal::Input {
                what: error.to_string(),
                advice: None,
            })?;
        let rows = Rows {
            table,
            change: RowChange::Update(vec![Assignment {
                column: self.column.clone(),
                value: default.text().to_owned(),
                data_type: self.data_type.as_str().to_owned(),
                comparison: Comparison::AsText,
            }]),
            condition: Some(&unset),
            repeatable: Repeatable::ByCondition,
            kept: Kept::ByDefault,
            verification: Verification {
                differing: None,
                remaining: Some(unset.text().to_owned()),
                verdict: Verdict::Warn,
                when: When::Always,
            },
        };
        let batches = rows.batches(&after, &self.batch, |_| Ok(Upper::Open))?;
        actions.push(Action::Batches(Box::new(batches)));
        if self.not_null {
            let set = SetNotNull {
                table: self.table.clone(),
                column: self.column.clone(),
            };
            actions.extend(set.plan(&after)?);
        }
        Ok(actions)
    }

    fn add_to(&self, facts: &mut Facts, nullability: Nullability) {
        if let Some(table) = facts.table_mut(&self.table) {
            table.columns.push(ColumnFacts {
                name: self.column.clone(),
                data_type: self.data_type.as_str().to_owned(),
                collation: None,
                nullability,
                source: Source::Plain,
                ordering: Ordering::Exact,
            });
        }
    }

    fn nullability(&self) -> Nullability {
        if self.not_null {
            Nullability::NotNull
        } else {
            Nullability::Nullable
        }
    }
}
