//! `rename_table`: another name for a table, in the same schema. A change of the catalog alone; indexes, constraints and
//! sequences keep their names, views and foreign keys follow by themselves.
//!
//! Applications meet the new name from one moment to the next: those that still say the old one fail.

use super::{Kind, Undo};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Lookup, Refusal, Transaction};
use crate::sql;
use serde::Deserialize;

/// `rename_table: { table, to }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct RenameTable {
    /// The table.
    pub table: Table,
    /// Its new name, with the schema of `table` as it is written.
    pub to: Table,
}

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    table: Table,
    to: Table,
}

/// The new name names another schema.
#[derive(Debug, thiserror::Error)]
#[error(
    "`to` names the schema {schema}, and `table` does not name the same: a rename keeps the schema; write `to` without one, or use a `sql` step with SET SCHEMA"
)]
struct OtherSchema {
    schema: Ident,
}

impl TryFrom<Written> for RenameTable {
    type Error = OtherSchema;
    fn try_from(written: Written) -> Result<Self, OtherSchema> {
        let Written { table, to } = written;
        match to.schema {
            Some(schema) if table.schema.as_ref() != Some(&schema) => Err(OtherSchema { schema }),
            Some(_) | None => Ok(Self {
                to: Table {
                    schema: table.schema.clone(),
                    name: to.name,
                },
                table,
            }),
        }
    }
}

impl Kind for RenameTable {
    fn check(&self) -> Result<(), Vec<String>> {
        if self.table == self.to {
            return Err(vec![format!(
                "`to` is the name that table {} has already",
                self.table
            )]);
        }
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("to", &self.to)
            .finish()
    }

    fn title(&self) -> String {
        format!("rename table {} to {}", self.table, self.to.name)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table, &self.to]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let target = facts.find(&self.to);
        let table = match (facts.find(&self.table), target) {
            (None, Some(renamed)) => {
                renamed.must_be_a_table()?;
                return Ok(Vec::new());
            }
            (Some(_), _) | (None, None) => facts.table(&self.table)?,
        };
        table.must_be_a_table()?;
        // Without a schema written, the search path may lead to one of the same name elsewhere.
        if let Some(taken) = target.filter(|taken| taken.schema == table.schema) {
            return Err(Refusal::Input {
                what: format!("there is a relation {} already", taken.full_name()),
                advice: Some("choose another name".to_owned()),
            });
        }
        Ok(vec![Action::Transaction(Transaction::bounded(
            sql::rename_table(table, &self.to.name),
        ))])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(mut table) = facts.remove_table(&self.table) {
            table.name = self.to.name.clone();
            // The rows of an ordinary table are its own.
            for part in table.parts.iter_mut().filter(|part| part.name == self.table.name) {
                part.name = self.to.name.clone();
            }
            let lookup = Lookup::Found(Box::new(table));
            facts.tables.insert(self.to.clone(), lookup);
        }
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::RenameTable(Self {
            table: self.to.clone(),
            to: self.table.clone(),
        })))
    }
}
