//! `drop_sync`: ends the trigger by which a `backfill` kept columns right. A change of the catalog alone.

use super::{Kind, Undo, sync};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, Transaction};
use serde::Deserialize;

/// `drop_sync: { table, column }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropSync {
    /// The table.
    pub table: Table,
    /// A column that was kept right; others that the same `backfill` set go with it.
    pub column: Ident,
}

impl Kind for DropSync {
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
        format!(
            "end the trigger that keeps {} of {} right",
            self.column, self.table
        )
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        table.column(&self.column)?;
        sync::is_of_backfill(table, &self.column)?;
        let statements = sync::end(table, &self.column);
        if statements.is_empty() {
            return Err(Refusal::Input {
                what: format!(
                    "no trigger of ours keeps {} of {} right",
                    self.column,
                    table.full_name()
                ),
                advice: Some("`confiture migrate status` lists those there are".to_owned()),
            });
        }
        Ok(vec![Action::Transaction(Transaction::bounded_all(statements))])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.table_mut(&self.table) {
            table.syncs.retain(|live| !live.columns.contains(&self.column));
        }
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "rows may have been written without it since",
        }
    }
}
