//! `drop_index`: an index goes while applications read and write. How it goes is [`crate::index`]'s.

use super::create_index::wait_problem;
use super::{Kind, Undo};
use crate::index::{Missing, Remove, Removed, WAIT, Work, name_of_part};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, RelationKind, TableFacts};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;

/// `drop_index: { name, table?, wait? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropIndex {
    /// The index, with its schema where the connection's `search_path` does not lead to it.
    pub name: Table,
    /// The table it must belong to; the index is then looked for in that table's schema.
    #[serde(default)]
    pub table: Option<Table>,
    /// How long dropping it may wait for other sessions, in all.
    #[serde(default)]
    pub wait: Option<Milliseconds>,
    /// Whether it may be missing: it may, where a build is taken back that did not come to its end.
    #[serde(skip, default = "refused")]
    pub missing: Missing,
}

fn refused() -> Missing {
    Missing::Refused
}

impl DropIndex {
    /// What takes the build of an index back.
    pub(super) fn taking_back(table: &Table, name: &Ident, wait: Option<Milliseconds>) -> Self {
        Self {
            name: Table {
                schema: None,
                name: name.clone(),
            },
            table: Some(table.clone()),
            wait,
            missing: Missing::Fine,
        }
    }
}

impl DropIndex {
    /// The indexes of the partitions, builds of which may be at work or left.
    fn parts(&self, table: &TableFacts) -> Vec<String> {
        let partitioned = table.kind == RelationKind::Partitioned && self.missing == Missing::Fine;
        (table.parts.iter().filter(|_| partitioned))
            .map(|part| format!("{}.{}", part.schema, name_of_part(&self.name.name, &part.name)))
            .collect()
    }
}

impl Kind for DropIndex {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems: Vec<String> = wait_problem(self.wait).into_iter().collect();
        if self.table.is_some() && self.name.schema.is_some() {
            problems.push("`table` says in which schema the index is: write its name without one".to_owned());
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("name", &self.name)
            .optional("table", self.table.as_ref())
            .finish()
    }

    fn title(&self) -> String {
        format!("drop index {}", self.name)
    }

    fn tables(&self) -> Vec<&Table> {
        self.table.iter().collect()
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = self.table.as_ref().map(|table| facts.table(table)).transpose()?;
        let name = Table {
            schema: table
                .map(|table| table.schema.clone())
                .or_else(|| self.name.schema.clone()),
            name: self.name.name.clone(),
        };
        Ok(vec![Action::Index(Work::Remove(Remove {
            name,
            table: table.map(TableFacts::full_name),
            removed: Removed::Index,
            parts: table.map_or_else(Vec::new, |table| self.parts(table)),
            missing: self.missing,
            wait: self.wait.map_or(WAIT, |wait| wait.0),
        }))])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "what the index was is not known once it is gone: write a `down` with `create_index`",
        }
    }
}
