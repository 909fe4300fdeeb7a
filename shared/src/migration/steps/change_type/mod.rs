//! `change_type`: another type for a column while applications read and write the table.
//!
//! ```text
//! column --try on an empty copy--> known to work --add new column and trigger--> both in step --batches--> all rows filled
//!    all rows filled --checks, indexes, foreign keys for the new column--> ready --swap the names--> changed
//!    changed --`contract`, in a later migration: drop the old column and the trigger--> done
//! changed --undo: the same for the old column, which was kept in step--> as before
//! ```
//! The swap is one transaction that changes the catalog alone. Where it stands is read from the catalog, so an interrupted
//! step goes on from there. A type that only takes more than the old one (`varchar(20)` to `text`) is changed in place.
//!
//! From the swap on the new column is the last one of the table, and the old one has its place. Applications that insert
//! rows without naming columns are understood until `contract`; from then on they must name them.

mod carry;
mod names;
mod plan;
mod rehearsal;
mod swap;
mod widening;

use super::batched::{BatchOptions, columns_exist};
use super::create_index::wait_problem;
use super::{Kind, Undo};
use crate::id::Direction;
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Nullability, Refusal};
use crate::settings::duration::Milliseconds;
use crate::sql::TypeName;
use serde::Deserialize;

use names::new_name;
pub(super) use names::old_name;

/// `change_type: { table, column, type, using?, back?, batch?, wait? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeType {
    /// The table.
    pub table: Table,
    /// The column.
    pub column: Ident,
    /// Its new type, as SQL writes it.
    #[serde(rename = "type")]
    pub data_type: TypeName,
    /// The new value, from the old one under the column's name; the old one itself where PostgreSQL takes it.
    #[serde(default)]
    pub using: Option<Expression>,
    /// The old value, from the new one under the column's name, until `contract`.
    #[serde(default)]
    pub back: Option<Expression>,
    /// Size and pace.
    #[serde(default)]
    pub batch: BatchOptions,
    /// How long each index may wait for other sessions while it is built, in all.
    #[serde(default)]
    pub wait: Option<Milliseconds>,
    /// Down where the change is taken back.
    #[serde(skip, default = "up")]
    pub direction: Direction,
}

fn up() -> Direction {
    Direction::Up
}

impl Kind for ChangeType {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.data_type.is_serial() {
            problems.push(format!(
                "`{}` is no type but a default: write the integer type that it stands for; the default stays as it is",
                self.data_type.as_str()
            ));
        }
        for (key, expression) in [("using", &self.using), ("back", &self.back)] {
            let Some(expression) = expression else { continue };
            if expression.has_subquery() {
                problems.push(format!(
                    "`{key}` reads other tables, whose changes no trigger would see: only columns of the row can be read"
                ));
            } else if !expression.reads(&self.column) {
                problems.push(format!("`{key}` does not read {}", self.column));
            }
        }
        problems.extend(self.batch.problems());
        problems.extend(wait_problem(self.wait));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        let text = |expression: &Option<Expression>| expression.as_ref().map(|e| tokens(e.text()));
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .field("type", tokens(self.data_type.as_str()))
            .optional("using", text(&self.using))
            .optional("back", text(&self.back))
            .finish()
    }

    fn title(&self) -> String {
        let (column, table) = (&self.column, &self.table);
        match self.direction {
            Direction::Up => format!(
                "change the type of {column} of {table} to {}",
                self.data_type.as_str()
            ),
            Direction::Down => format!("give {column} of {table} its old type back"),
        }
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn columns(&self) -> Vec<(&Table, Ident)> {
        [
            self.column.clone(),
            new_name(&self.column),
            old_name(&self.column),
        ]
        .into_iter()
        .map(|column| (&self.table, column))
        .collect()
    }

    fn data_types(&self) -> Vec<&TypeName> {
        vec![&self.data_type]
    }

    fn expressions(&self) -> Vec<&Expression> {
        self.using.iter().chain(&self.back).collect()
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        for expression in self.expressions() {
            columns_exist(expression, table, &self.table)?;
        }
        match self.direction {
            Direction::Up => self.plan_up(facts, table),
            Direction::Down => self.plan_down(facts, table),
        }
    }

    fn effect(&self, facts: &mut Facts) {
        let (new, old) = (new_name(&self.column), old_name(&self.column));
        for column in [&self.column, &new, &old] {
            facts.uses.remove(&(self.table.clone(), column.clone()));
        }
        let data_type = match facts.type_name(&self.data_type) {
            Ok(name) => name.to_owned(),
            Err(_) => return,
        };
        let Some(table) = facts.table_mut(&self.table) else {
            return;
        };
        match self.direction {
            Direction::Up => {
                let Some(place) = table.columns.iter().position(|c| c.name == self.column) else {
                    return;
                };
                let in_place = widening::is_in_place(&table.columns[place].data_type, &data_type);
                if in_place || table.columns[place].data_type == data_type {
                    table.columns[place].data_type = data_type;
                    return;
                }
                let mut changed = table.columns[place].clone();
                changed.data_type = data_type;
                table.columns.push(changed);
                table.columns[place].name = old;
                table.columns[place].nullability = Nullability::Nullable;
            }
            Direction::Down => {
                if let Some(place) = table.columns.iter().position(|c| c.name == old) {
                    table.columns[place].name = self.column.clone();
                    table.columns.truncate(table.columns.len() - 1);
                }
            }
        }
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::ChangeType(Self {
            direction: Direction::Down,
            ..self.clone()
        })))
    }
}
