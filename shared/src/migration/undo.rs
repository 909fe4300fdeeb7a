//! How a script is taken back when no down is written: the opposite of its steps, in reverse.

use super::steps::{Change, Undo};
use super::{Script, Step};
use crate::name::{Ident, Table};

impl Script {
    /// The steps that undo the first `count` of this script's, in order of execution.
    ///
    /// A step needs none that only changes what earlier steps of the same script have made: the values and the default of
    /// a column go with the column.
    ///
    /// # Errors
    /// The index of the step that cannot be undone, and why.
    pub fn automatic_undo(&self, count: usize) -> Result<Vec<Step>, (usize, &'static str)> {
        let mut undo = Vec::new();
        for (index, step) in self.steps.iter().enumerate().take(count).rev() {
            match step.change.undo() {
                Undo::By(change) => undo.push(Step {
                    at: step.at,
                    checksum: step.checksum,
                    change: *change,
                    options: step.options.clone(),
                }),
                Undo::Nothing => {}
                Undo::Impossible { .. } if self.changes_only_added_columns(index) => {}
                Undo::Impossible { why } => return Err((index, why)),
            }
        }
        Ok(undo)
    }

    fn changes_only_added_columns(&self, index: usize) -> bool {
        let (table, columns): (&Table, Vec<&Ident>) = match &self.steps[index].change {
            Change::Backfill(backfill) => (&backfill.table, backfill.set.keys().collect()),
            Change::SetDefault(set) => (&set.table, vec![&set.column]),
            Change::DropDefault(drop) => (&drop.table, vec![&drop.column]),
            _ => return false,
        };
        columns.into_iter().all(|column| {
            self.steps[..index].iter().any(|step| {
                matches!(&step.change, Change::AddColumn(added) if added.table == *table && added.column == *column)
            })
        })
    }
}
