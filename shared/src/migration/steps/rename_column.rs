//! `rename_column`: another name for a column. A change of the catalog alone; views and constraints follow by themselves.
//!
//! Applications meet the new name from one moment to the next. Where some of them still say the old one, add a new column
//! with a `backfill` that a trigger keeps right, and drop the old one later.

use super::{Kind, Undo, sync};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, TableFacts, Transaction};
use crate::sql;
use serde::Deserialize;

/// `rename_column: { table, column, to }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameColumn {
    /// The table.
    pub table: Table,
    /// The column.
    pub column: Ident,
    /// Its new name.
    pub to: Ident,
}

impl Kind for RenameColumn {
    fn check(&self) -> Result<(), Vec<String>> {
        if self.column == self.to {
            return Err(vec![format!(
                "`to` is the name that column {} has already",
                self.column
            )]);
        }
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .field("to", &self.to)
            .finish()
    }

    fn title(&self) -> String {
        format!("rename column {} of {} to {}", self.column, self.table, self.to)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        match (table.find(&self.column), table.find(&self.to)) {
            (None, Some(_)) => return Ok(Vec::new()),
            (Some(_), Some(taken)) => {
                return Err(Refusal::Input {
                    what: format!(
                        "table {} already has a column {} of type {}",
                        table.full_name(),
                        taken.name,
                        taken.data_type
                    ),
                    advice: Some("choose another name".to_owned()),
                });
            }
            (Some(_), None) => {}
            (None, None) => table.column(&self.column).map(drop)?,
        }
        sync::can_be_renamed(table, &self.column)?;
        Ok(vec![Action::Transaction(Transaction::bounded(
            sql::rename_column(table, &self.column, &self.to),
        ))])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.table_mut(&self.table) {
            self.rename_in(table);
        }
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::RenameColumn(Self {
            table: self.table.clone(),
            column: self.to.clone(),
            to: self.column.clone(),
        })))
    }
}

impl RenameColumn {
    fn rename_in(&self, table: &mut TableFacts) {
        let keys = table.parts.iter_mut().flat_map(|part| &mut part.keys).flatten();
        let names = (table.columns.iter_mut().map(|column| &mut column.name))
            .chain(keys.map(|key| &mut key.column))
            .chain(table.unique_keys.iter_mut().flat_map(|key| &mut key.columns));
        for name in names {
            if *name == self.column {
                *name = self.to.clone();
            }
        }
        if table.partition_columns.remove(&self.column) {
            table.partition_columns.insert(self.to.clone());
        }
    }
}
