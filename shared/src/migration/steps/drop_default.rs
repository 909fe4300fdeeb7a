//! `drop_default`: new rows that give no value get NULL. A change of the catalog alone: rows that exist stay as they are.

use super::{Kind, SetDefault, Undo, set_default};
use crate::migration::checksum::Canonical;
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, Source, Transaction};
use crate::sql;
use serde::Deserialize;

/// `drop_default: { table, column, previous? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropDefault {
    /// The table.
    pub table: Table,
    /// The column.
    pub column: Ident,
    /// What an undo sets again: the default until now.
    #[serde(default)]
    pub previous: Option<Expression>,
}

impl Kind for DropDefault {
    fn check(&self) -> Result<(), Vec<String>> {
        match self.previous.as_ref().and_then(set_default::problem) {
            Some(problem) => Err(vec![problem]),
            None => Ok(()),
        }
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .finish()
    }

    fn title(&self) -> String {
        format!("drop the default of column {} of {}", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        set_default::can_have(table, &self.column)?;
        Ok(vec![Action::Transaction(Transaction::bounded(
            sql::drop_default(table, &self.column),
        ))])
    }

    fn effect(&self, facts: &mut Facts) {
        facts.set_source(&self.table, &self.column, Source::Plain);
    }

    fn undo(&self) -> Undo {
        let Some(previous) = &self.previous else {
            return Undo::Impossible {
                why: set_default::UNKNOWN,
            };
        };
        Undo::By(Box::new(super::Change::SetDefault(SetDefault {
            table: self.table.clone(),
            column: self.column.clone(),
            default: previous.clone(),
            previous: None,
        })))
    }
}
