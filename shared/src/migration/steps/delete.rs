//! `delete`: rows that a condition finds, in batches.
//!
//! Deleting by a condition is idempotent: a row that an application inserts or changes while the step runs is deleted if
//! the batches come to its key later, and stays if they have passed it.

use super::batched::{BatchOptions, Repeatable, Rows, columns_exist};
use super::{Kind, Undo, own_rows};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::Table;
use crate::plan::{Action, Facts, Kept, Refusal, RowChange, Upper, Verdict, Verification, When};
use serde::Deserialize;

/// `delete: { table, where, batch? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// The table.
    pub table: Table,
    /// Which rows. To delete all, say `where: "true"`.
    #[serde(rename = "where")]
    pub condition: Expression,
    /// Size and pace.
    #[serde(default)]
    pub batch: BatchOptions,
}

impl Kind for Delete {
    fn check(&self) -> Result<(), Vec<String>> {
        let problems = self.batch.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        // `batch` is left out: who finds the pace wrong in the middle of a run must be able to change it.
        Canonical::new()
            .field("table", &self.table)
            .field("where", tokens(self.condition.text()))
            .finish()
    }

    fn title(&self) -> String {
        format!("delete from {}", self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn expressions(&self) -> Vec<&Expression> {
        vec![&self.condition]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        columns_exist(&self.condition, table, &self.table)?;
        own_rows::Own::new(facts, table, &self.table).chosen_once(&self.condition, "deleted")?;
        let rows = Rows {
            table,
            change: RowChange::Delete,
            condition: Some(&self.condition),
            repeatable: Repeatable::ByCondition,
            kept: Kept::NotAtAll,
            verification: Verification {
                differing: None,
                remaining: Some(self.condition.text().to_owned()),
                verdict: Verdict::Warn,
                when: When::Always,
            },
        };
        let batches = rows.batches(facts, &self.batch, |_| Ok(Upper::Open))?;
        Ok(vec![Action::Batches(Box::new(batches))])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn loses_data(&self) -> bool {
        true
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "the rows are gone",
        }
    }
}
