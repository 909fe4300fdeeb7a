//! `add_check`: a check constraint without a long exclusive lock.
//!
//! ```text
//! absent --ADD .. NOT VALID--> checked for new rows --VALIDATE--> checked for all rows
//! ```
//! Each arrow is a transaction; the scan happens in VALIDATE, under a lock that blocks neither reads nor writes. A
//! partitioned table is validated partition by partition, each in a transaction of its own, so that an interrupted step
//! goes on with the next one; VALIDATE of the table itself then finds nothing left to scan (measured: 0.3 ms against
//! 72 ms on 2,000,000 rows).

use super::batched::columns_exist;
use super::{DropConstraint, Kind, Undo};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Action, CheckFacts, Facts, Refusal, RelationKind, Stage, Storage, TableFacts, Transaction, Withdraw,
};
use crate::sql;
use serde::Deserialize;

/// `add_check: { table, name, check }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddCheck {
    /// The table.
    pub table: Table,
    /// The constraint's name.
    pub name: Ident,
    /// What must not be false for any row.
    pub check: Expression,
}

impl Kind for AddCheck {
    fn check(&self) -> Result<(), Vec<String>> {
        if self.check.has_subquery() {
            return Err(vec![format!(
                "the check `{}` holds a sub-select: PostgreSQL checks a row by its own columns alone",
                self.check.text()
            )]);
        }
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("name", &self.name)
            .field("check", tokens(self.check.text()))
            .finish()
    }

    fn title(&self) -> String {
        format!("add check {} to {}", self.name, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        columns_exist(&self.check, table, &self.table)?;
        // Once begun, the constraint is there because we added it.
        if facts.stage == Stage::New {
            table.constraint_is_new(&self.name)?;
        }
        let present = table.check(&self.name);
        let mut actions = Vec::new();
        if present.is_none() {
            actions.push(Action::Transaction(Transaction::bounded(sql::add_check(
                table,
                &self.name,
                self.check.text(),
            ))));
        }
        if !present.is_some_and(|check| check.validated) {
            let validate = |relation: String| {
                let statement = sql::validate_constraint(&relation, &self.name);
                Action::Transaction(Transaction::long(statement, self.withdraw(table)))
            };
            actions.extend(self.unvalidated_partitions(table, present).map(validate));
            actions.push(validate(table.full_name()));
        }
        Ok(actions)
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.table_mut(&self.table) {
            table.checks.push(CheckFacts {
                name: self.name.clone(),
                definition: format!("CHECK ({})", self.check.text()),
                validated: true,
            });
        }
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::DropConstraint(DropConstraint::undoing(
            &self.table,
            &self.name,
        ))))
    }
}

impl AddCheck {
    /// Partitions on other servers hold no rows that could be looked at here.
    fn unvalidated_partitions(
        &self,
        table: &TableFacts,
        present: Option<&CheckFacts>,
    ) -> impl Iterator<Item = String> {
        let is_new = present.is_none();
        let parts = match table.kind {
            RelationKind::Partitioned => table.parts.as_slice(),
            RelationKind::Table | RelationKind::Other(_) => &[],
        };
        parts
            .iter()
            .filter(move |part| {
                part.storage == Storage::Local && (is_new || part.unvalidated_checks.contains(&self.name))
            })
            .map(crate::plan::PartFacts::full_name)
    }

    fn withdraw(&self, table: &TableFacts) -> Withdraw {
        Withdraw {
            statement: sql::drop_constraint_if_exists(&table.full_name(), &self.name),
            find: sql::rows_against_check(table, self.check.text()),
            done: "the constraint is taken back: new rows are not checked, as before",
            left: "the constraint stays, and new rows obey it, until the step is done, or undone with `confiture migrate down`",
        }
    }
}
