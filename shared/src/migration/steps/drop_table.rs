//! `drop_table`: a table goes, with its rows, its indexes and, if it is partitioned, its partitions.
//!
//! Nothing else goes with it: where views, foreign keys of other tables or functions need it, it is refused. As the
//! undo of `create_table` it drops an empty table alone, looked at under the lock that keeps writers away.

use super::{Kind, Undo};
use crate::migration::checksum::Canonical;
use crate::name::Table;
use crate::plan::{Action, Facts, Refusal, Transaction};
use crate::sql;
use serde::Deserialize;

/// `drop_table: { table }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropTable {
    /// The table.
    pub table: Table,
    /// Whether its rows may go with it.
    #[serde(skip)]
    pub rows: Rows,
}

/// Whether the rows of a table may go with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rows {
    /// The author says so.
    #[default]
    Dropped,
    /// An undo loses none.
    None,
}

impl Kind for DropTable {
    fn check(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new().field("table", &self.table).finish()
    }

    fn title(&self) -> String {
        match self.rows {
            Rows::Dropped => format!("drop table {}", self.table),
            Rows::None => format!("drop table {} if it is empty", self.table),
        }
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        let dependents: Vec<&str> = (table.dependents.iter())
            .filter(|dependent| !facts.is_gone(dependent))
            .map(|dependent| dependent.what.as_str())
            .collect();
        if !dependents.is_empty() {
            return Err(Refusal::Unsafe {
                what: format!("{} is needed by {}", table.full_name(), dependents.join(", ")),
                advice: Some(
                    "drop those first, in steps of their own: nothing is dropped along with a table"
                        .to_owned(),
                ),
            });
        }
        let mut statements = match self.rows {
            Rows::Dropped => Vec::new(),
            Rows::None => sql::refuse_rows(table),
        };
        for live in &table.syncs {
            statements.extend(sql::sync::drop_sync(&live.triggers, &live.function));
        }
        statements.push(sql::drop_table(table));
        Ok(vec![Action::Transaction(Transaction::bounded_all(statements))])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.remove_table(&self.table) {
            facts.gone.insert((table.schema, table.name, None));
        }
    }

    fn loses_data(&self) -> bool {
        self.rows == Rows::Dropped
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "the rows of the table are gone",
        }
    }
}
