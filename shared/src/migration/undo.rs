//! How a script is taken back when no down is written: the opposite of its steps, in reverse.

use super::steps::{Change, Undo};
use super::{Script, Step};

impl Script {
    /// The steps that undo the first `count` of this script's, in order of execution.
    ///
    /// A backfill needs none where every column it sets was added by an earlier step of the same script: the column
    /// goes, and the values with it.
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
                }),
                Undo::Nothing => {}
                Undo::Impossible { .. } if self.fills_only_added_columns(index) => {}
                Undo::Impossible { why } => return Err((index, why)),
            }
        }
        Ok(undo)
    }

    fn fills_only_added_columns(&self, index: usize) -> bool {
        let Change::Backfill(backfill) = &self.steps[index].change else {
            return false;
        };
        backfill.set.keys().all(|column| {
            self.steps[..index].iter().any(|step| {
                let Change::AddColumn(added) = &step.change else {
                    return false;
                };
                added.table == backfill.table && added.column == *column
            })
        })
    }
}
