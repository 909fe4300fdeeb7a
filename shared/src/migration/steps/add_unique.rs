//! `add_unique`: a unique constraint. Its index is built while applications read and write, as by `create_index`; then
//! the constraint takes it over, in one short transaction.

use super::create_index::{columns_exist, wait_problem};
use super::{DropUnique, Kind, Undo};
use crate::index::{Create, Definition, Element, Published, WAIT, Work};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, RelationKind};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;

/// `add_unique: { table, name, columns, wait? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUnique {
    /// The table.
    pub table: Table,
    /// The constraint, and its index.
    pub name: Ident,
    /// The columns that together must differ from row to row.
    pub columns: Vec<Ident>,
    /// How long the build may wait for other sessions, in all.
    #[serde(default)]
    pub wait: Option<Milliseconds>,
}

impl AddUnique {
    fn definition(&self) -> Definition {
        Definition {
            unique: true,
            elements: self.columns.iter().cloned().map(Element::of).collect(),
            ..Definition::default()
        }
    }
}

impl Kind for AddUnique {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = self.definition().problems();
        problems.extend(wait_problem(self.wait));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        let canonical = Canonical::new()
            .field("table", &self.table)
            .field("name", &self.name);
        self.columns
            .iter()
            .fold(canonical, |canonical, column| canonical.field("column", column))
            .finish()
    }

    fn title(&self) -> String {
        format!("add unique constraint {} to {}", self.name, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        if table.kind == RelationKind::Partitioned {
            return Err(Refusal::Unsafe {
                what: format!(
                    "{} is partitioned: PostgreSQL cannot make an index that is built meanwhile the one of a constraint there",
                    table.full_name()
                ),
                advice: Some(
                    "a `create_index` step with `unique: true` refuses equal keys just as well, and serves ON CONFLICT too"
                        .to_owned(),
                ),
            });
        }
        let definition = self.definition();
        columns_exist(table, &definition)?;
        Ok(vec![Action::Index(Work::Create(Box::new(Create {
            schema: table.schema.clone(),
            table: table.name.clone(),
            name: self.name.clone(),
            definition,
            published: Published::Constraint,
            wait: self.wait.map_or(WAIT, |wait| wait.0),
        })))])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::DropUnique(DropUnique::taking_back(
            &self.table,
            &self.name,
            self.wait,
        ))))
    }
}
