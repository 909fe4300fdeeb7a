//! `contract`: the end of a `change_type`. The old column goes, with the trigger that kept it in step: a change of the
//! catalog alone.

use super::{Kind, Undo, change_type, sync};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, Transaction};
use crate::sql;
use serde::Deserialize;

/// `contract: { table, column }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// The table.
    pub table: Table,
    /// The column whose type was changed, under its own name.
    pub column: Ident,
}

impl Kind for Contract {
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
        format!("end the change of the type of {} of {}", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        table.column(&self.column)?;
        let old = change_type::old_name(&self.column);
        if table.find(&old).is_none() {
            return Err(Refusal::Input {
                what: format!(
                    "no change of the type of {} of {} waits for its end: there is no column {old}",
                    self.column,
                    table.full_name()
                ),
                advice: Some(
                    "`confiture migrate status` lists those that do; one that was made in place has none"
                        .to_owned(),
                ),
            });
        }
        let mut statements = sync::end(table, &old);
        statements.push(sql::drop_column(table, &old));
        Ok(vec![Action::Transaction(Transaction::bounded_all(statements))])
    }

    fn effect(&self, facts: &mut Facts) {
        let old = change_type::old_name(&self.column);
        if let Some(table) = facts.table_mut(&self.table) {
            table.columns.retain(|column| column.name != old);
            table.syncs.retain(|live| !live.columns.contains(&old));
        }
    }

    fn loses_data(&self) -> bool {
        true
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "the old column is gone: write a `down` with a `change_type` to the type it had",
        }
    }
}
