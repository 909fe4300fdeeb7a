//! `drop_unique`: a unique constraint goes, with its index. A change of the catalog alone.

use super::create_index::wait_problem;
use super::{Kind, Undo};
use crate::index::{Missing, Remove, Removed, WAIT, Work};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;

/// `drop_unique: { table, name, wait? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropUnique {
    /// The table.
    pub table: Table,
    /// The constraint.
    pub name: Ident,
    /// How long dropping what a build left may wait for other sessions, in all.
    #[serde(default)]
    pub wait: Option<Milliseconds>,
    /// Whether it may be missing: it may, where a build is taken back that did not come to its end.
    #[serde(skip, default = "refused")]
    pub missing: Missing,
}

fn refused() -> Missing {
    Missing::Refused
}

impl DropUnique {
    /// What takes `add_unique` back.
    pub(super) fn taking_back(table: &Table, name: &Ident, wait: Option<Milliseconds>) -> Self {
        Self {
            table: table.clone(),
            name: name.clone(),
            wait,
            missing: Missing::Fine,
        }
    }
}

impl Kind for DropUnique {
    fn check(&self) -> Result<(), Vec<String>> {
        wait_problem(self.wait).map_or(Ok(()), |problem| Err(vec![problem]))
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("name", &self.name)
            .finish()
    }

    fn title(&self) -> String {
        format!("drop unique constraint {} of {}", self.name, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        Ok(vec![Action::Index(Work::Remove(Remove {
            name: Table {
                schema: Some(table.schema.clone()),
                name: self.name.clone(),
            },
            table: Some(table.full_name()),
            removed: Removed::Constraint,
            parts: Vec::new(),
            missing: self.missing,
            wait: self.wait.map_or(WAIT, |wait| wait.0),
        }))])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "what the constraint was is not known once it is gone: write a `down` with `add_unique`",
        }
    }
}
