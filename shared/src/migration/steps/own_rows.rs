//! What steps that work in batches may read of the rows they change themselves.
//!
//! One statement sees all rows as they were when it began. Batches do not: each computes its expressions anew, over what
//! the ones before it left. So the rows a condition finds, and the values a step sets, must not depend on how many rows
//! are done, nor on chance.

use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Facts, Refusal, TableFacts};
use std::collections::BTreeMap;

/// The table whose rows a step changes.
pub(super) struct Own<'a> {
    facts: &'a Facts,
    table: &'a TableFacts,
    /// Its name in the step.
    written: &'a Table,
}

impl<'a> Own<'a> {
    pub(super) fn new(facts: &'a Facts, table: &'a TableFacts, written: &'a Table) -> Self {
        Self {
            facts,
            table,
            written,
        }
    }

    /// Passes a condition that finds the same rows however often it is asked. `done` says what becomes of them.
    pub(super) fn chosen_once(&self, condition: &Expression, done: &str) -> Result<(), Refusal> {
        let table = self.table.full_name();
        if let Some(relation) = self.facts.read_again(condition, self.table, self.written) {
            return Err(Refusal::Unsafe {
                what: format!(
                    "`where` reads {}: each batch would ask it again of the rows that earlier batches left, and other rows than meant would be {done}",
                    self.shown(relation)
                ),
                advice: Some(format!(
                    "ask once: a `sql` step ahead puts the keys of the rows into a table of their own (`CREATE TABLE .. AS SELECT ..`), \
                     and `where` looks there; or change the rows in one `sql` step if {table} is small"
                )),
            });
        }
        if let Some(function) = condition.volatile_call(&self.facts.volatile) {
            return Err(Refusal::Unsafe {
                what: format!(
                    "`where` calls {function}(), which PostgreSQL knows as volatile: each batch and each pass over {table} would get another answer for the same row, \
                     and other rows than meant would be {done}"
                ),
                advice: Some(
                    "use columns of the row, constants and now(); or put the keys of the rows into a table of their own by a `sql` step ahead, and let `where` look there; \
                     a function of yours that gives the same row the same answer can be declared STABLE or IMMUTABLE"
                        .to_owned(),
                ),
            });
        }
        Ok(())
    }

    /// Passes new values that are not computed over rows of the table that have theirs already.
    pub(super) fn computed_once(&self, set: &BTreeMap<Ident, Expression>) -> Result<(), Refusal> {
        for (column, value) in set {
            let Some(relation) = self.facts.read_again(value, self.table, self.written) else {
                continue;
            };
            // Of the row alone, `t.w`, it is as of any other: names do not tell whose column they are.
            let read = set.keys().find(|set| value.reads(set));
            let read = match read {
                Some(read) => format!("column {read}"),
                None if value.hides_columns() || self.is_whole_row(value) => "all columns".to_owned(),
                None => continue,
            };
            return Err(Refusal::Unsafe {
                what: format!(
                    "the new value of {column} is computed from {read} of {}, and the step sets it: later batches would read what earlier ones wrote",
                    self.shown(relation)
                ),
                advice: Some(
                    "compute it once: a `sql` step ahead puts the result into a table of its own (`CREATE TABLE .. AS SELECT ..`), and `set` reads it from there; \
                     or fill a new column from the old one"
                        .to_owned(),
                ),
            });
        }
        Ok(())
    }

    fn is_whole_row(&self, value: &Expression) -> bool {
        (value.columns()).any(|name| *name == self.table.name || *name == self.written.name)
    }

    /// A relation, and what it has to do with the table.
    fn shown(&self, relation: &Table) -> String {
        let table = self.table.full_name();
        if relation.name == self.table.name || relation == self.written {
            format!("{table} itself")
        } else {
            format!("{relation}, which shows rows of {table} itself")
        }
    }
}
