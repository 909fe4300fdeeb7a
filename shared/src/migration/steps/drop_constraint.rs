//! `drop_constraint`: a check or a foreign key goes. A change of the catalog alone.
//!
//! It is also how `add_check` and `add_foreign_key` are undone, whole or half done: a foreign key of a partitioned table
//! that was interrupted stands on partitions alone, and is dropped there one by one.

use super::{Kind, Undo};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, TableFacts, Transaction};
use crate::sql;
use serde::Deserialize;

/// `drop_constraint: { table, name }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropConstraint {
    /// The table.
    pub table: Table,
    /// The constraint's name.
    pub name: Ident,
    /// What a name means that is not there.
    #[serde(skip)]
    pub missing: Missing,
}

/// What a constraint means that is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missing {
    /// The step names a wrong one.
    #[default]
    Refused,
    /// The step that added it took it back itself, since rows violate it.
    Done,
}

impl DropConstraint {
    /// The step that undoes one which adds a constraint.
    pub(super) fn undoing(table: &Table, name: &Ident) -> Self {
        Self {
            table: table.clone(),
            name: name.clone(),
            missing: Missing::Done,
        }
    }

    /// The relations that have it, by their full names.
    fn relations(&self, table: &TableFacts) -> Vec<String> {
        if table.check(&self.name).is_some() || table.foreign_key(&self.name).is_some() {
            return vec![table.full_name()];
        }
        (table.parts.iter())
            .filter(|part| part.foreign_key(&self.name).is_some())
            .map(crate::plan::PartFacts::full_name)
            .collect()
    }
}

impl Kind for DropConstraint {
    fn check(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("name", &self.name)
            .finish()
    }

    fn title(&self) -> String {
        format!("drop constraint {} of {}", self.name, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        let relations = self.relations(table);
        if relations.is_empty() && self.missing == Missing::Refused {
            let names: Vec<String> = (table.checks.iter().map(|check| &check.name))
                .chain(table.foreign_keys.iter().map(|key| &key.name))
                .map(ToString::to_string)
                .collect();
            return Err(Refusal::Input {
                what: format!(
                    "table {} has no check and no foreign key {}",
                    table.full_name(),
                    self.name
                ),
                advice: (!names.is_empty()).then(|| format!("it has {}", names.join(", "))),
            });
        }
        Ok(relations
            .iter()
            .map(|relation| {
                Action::Transaction(Transaction::bounded(sql::drop_constraint(relation, &self.name)))
            })
            .collect())
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.table_mut(&self.table) {
            let key = (table.schema.clone(), table.name.clone(), Some(self.name.clone()));
            table.checks.retain(|check| check.name != self.name);
            table.foreign_keys.retain(|key| key.name != self.name);
            for part in &mut table.parts {
                part.foreign_keys.retain(|key| key.name != self.name);
            }
            facts.gone.insert(key);
        }
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "the step does not say what the constraint was; write a `down` that adds it",
        }
    }
}
