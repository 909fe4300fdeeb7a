//! `drop_column`: a column goes, with what it holds. A change of the catalog alone.

use super::{Kind, Undo, sync};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, Transaction};
use crate::sql;
use serde::Deserialize;

/// `drop_column: { table, column }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropColumn {
    /// The table.
    pub table: Table,
    /// The column to drop. Views and keys that need it make PostgreSQL refuse: nothing is dropped with it.
    pub column: Ident,
}

impl Kind for DropColumn {
    fn check(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .finish()
    }

    fn title(&self) -> String {
        format!("drop column {} of {}", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        table.column(&self.column)?;
        sync::can_go(table, &self.column)?;
        let mut statements = sync::end(table, &self.column);
        statements.push(sql::drop_column(table, &self.column));
        Ok(vec![Action::Transaction(Transaction::bounded_all(statements))])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.table_mut(&self.table) {
            table.columns.retain(|column| column.name != self.column);
            table.syncs.retain(|live| !live.columns.contains(&self.column));
        }
    }

    fn loses_data(&self) -> bool {
        true
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "the values of the column are gone",
        }
    }
}
