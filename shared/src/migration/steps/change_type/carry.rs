//! What is to be for the other column before it takes the name, and the swap itself.

use super::names::{filled, ready};
use crate::index::{Create, Definition, Missing, Published, Remove, Removed, Work};
use crate::lock::Mode;
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Action, Assignment, CheckUse, ColumnFacts, ColumnUses, ForeignKeyUse, IndexUse, Nullability, Refusal,
    TableFacts, Transaction, Withdraw,
};
use crate::sql;
use crate::sql::sync::{Sync, comparison};
use std::time::Duration;

/// Everything about the column that has the name, to be carried over to the other one.
pub(super) struct Carry<'a> {
    pub(super) table: &'a TableFacts,
    /// The column that has the name.
    pub(super) live: &'a ColumnFacts,
    /// The one that is to have it.
    pub(super) other: &'a ColumnFacts,
    /// What needs `live`.
    pub(super) uses: &'a ColumnUses,
    /// What is there already for `other`.
    pub(super) copies: &'a ColumnUses,
    /// The value of `other`, from columns of the row.
    pub(super) value: String,
    /// Whether the author wrote it.
    pub(super) custom: bool,
    /// How long each index may wait while it is built.
    pub(super) wait: Duration,
}

/// One constraint over the other column.
struct Constraint<'a> {
    relation: &'a str,
    name: &'a Ident,
    definition: &'a str,
    /// That adding it takes.
    lock: Mode,
    /// The other table of a foreign key.
    also: Option<&'a str>,
    /// Whether it is validated, where it is there.
    present: Option<bool>,
    /// Whether it is to be.
    validated: bool,
    /// Finds the rows that violate it.
    find: String,
}

impl Constraint<'_> {
    fn add(self, actions: &mut Vec<Action>) {
        let (relation, name) = (self.relation, self.name);
        if self.present.is_none() {
            let add = format!(
                "ALTER TABLE {relation} ADD CONSTRAINT {name} {} NOT VALID",
                self.definition
            );
            actions.push(Action::Transaction(Transaction {
                also: self
                    .also
                    .map(|table| (self.lock, table.to_owned()))
                    .into_iter()
                    .collect(),
                ..Transaction::bounded(add).locking(self.lock)
            }));
        }
        if self.validated && self.present != Some(true) {
            let withdraw = Withdraw {
                statement: sql::drop_constraint_if_exists(relation, name),
                find: self.find,
                done: "the constraint of the column that is to take the name is taken back: nothing is refused that was taken before",
                left: "the constraint of the column that is to take the name stays until the step is done, or undone with `confiture migrate down`",
            };
            actions.push(Action::Transaction(Transaction::long(
                sql::validate_constraint(relation, name),
                withdraw,
            )));
        }
    }
}

/// A value for `column`, which has the type of another one.
pub(super) fn assignment(of: &ColumnFacts, column: &Ident, value: &str) -> Assignment {
    Assignment {
        column: column.clone(),
        value: value.to_owned(),
        data_type: of.data_type.clone(),
        comparison: comparison(of),
    }
}

/// Whether a type, as the catalog names it, can be that of a sequence.
pub(super) fn is_integer(data_type: &str) -> bool {
    ["smallint", "integer", "bigint"].contains(&data_type)
}

impl Carry<'_> {
    /// Reads what the catalog printed.
    pub(super) fn understood<T>(&self, read: Result<T, String>) -> Result<T, Refusal> {
        read.map_err(|why| Refusal::Unsafe {
            what: format!(
                "{} of {} cannot get another type: {why}",
                self.live.name,
                self.table.full_name()
            ),
            advice: Some("drop that in a step before, and create it again in a step after".to_owned()),
        })
    }

    pub(super) fn relation(&self) -> String {
        self.table.full_name()
    }

    fn ready(&self, what: &Ident) -> Ident {
        ready(self.table, &self.other.name, what)
    }

    /// Foreign keys of other tables may have the name of one of this table.
    fn ready_key(&self, key: &ForeignKeyUse) -> Ident {
        if key.relation == self.relation() {
            return self.ready(&key.name);
        }
        let told_apart = Ident::exact(crate::id::Digest::of(key.relation.as_bytes()).short());
        ready(
            self.table,
            &told_apart.expect("hexadecimal digits are a name"),
            &key.name,
        )
    }

    pub(super) fn indexes(&self) -> impl Iterator<Item = (&IndexUse, Ident)> {
        self.uses
            .indexes
            .iter()
            .map(|index| (index, self.ready(&index.name)))
    }

    pub(super) fn checks(&self) -> impl Iterator<Item = (&CheckUse, Ident)> {
        self.uses
            .checks
            .iter()
            .map(|check| (check, self.ready(&check.name)))
    }

    pub(super) fn foreign_keys(&self) -> impl Iterator<Item = (&ForeignKeyUse, Ident)> {
        (self.uses.foreign_keys.iter()).map(|key| (key, self.ready_key(key)))
    }

    /// The trigger that gives `other` its value whenever the row is written.
    pub(super) fn keep_in_step(&self) -> Vec<String> {
        self.sync(&[self.own_value()], &[self.live]).create()
    }

    pub(super) fn own_value(&self) -> Assignment {
        assignment(self.other, &self.other.name, &self.value)
    }

    /// Whether the rows were filled and verified: only then the constraint was added that says so.
    pub(super) fn is_filled(&self) -> bool {
        let name = filled(self.table, &self.other.name);
        self.copies.checks.iter().any(|check| check.name == name)
    }

    /// `reads` is the column under its name; others that the value reads come with it.
    pub(super) fn sync<'s>(&'s self, set: &'s [Assignment], reads: &[&'s ColumnFacts]) -> Sync<'s> {
        let value = Expression::parse(&set[0].value).ok();
        let further = (self.table.columns.iter()).filter(|column| {
            column.name != self.live.name
                && column.name != set[0].column
                && value.as_ref().is_some_and(|value| value.reads(&column.name))
        });
        Sync {
            table: &self.table.name,
            relations: vec![self.relation()],
            set,
            condition: None,
            reads: reads.iter().copied().chain(further).collect(),
            retyped: Some(&self.live.name),
            first: None,
        }
    }

    /// What is left to do before the names can be swapped.
    pub(super) fn prepare(&self) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        self.fill(&mut actions);
        for (check, name) in self.checks() {
            let expression = self.understood(check.over(&self.live.name, &self.other.name))?;
            let present = self.copies.checks.iter().find(|copy| copy.name == name);
            let definition = format!("CHECK ({}\n)", expression.text());
            Constraint {
                relation: &self.relation(),
                name: &name,
                definition: &definition,
                lock: Mode::AccessExclusive,
                also: None,
                present: present.map(|copy| copy.validated),
                validated: check.validated,
                find: sql::rows_against_check(self.table, expression.text()),
            }
            .add(&mut actions);
        }
        let (others, own): (Vec<_>, Vec<_>) =
            (self.foreign_keys()).partition(|(key, _)| key.references == self.relation());
        self.add_keys(&mut actions, &own);
        for (index, name) in self.indexes() {
            if self
                .copies
                .indexes
                .iter()
                .any(|copy| copy.name == name && copy.valid)
            {
                continue;
            }
            let definition = self.understood(index.over(&self.live.name, &self.other.name))?;
            actions.push(Action::Index(Work::Create(Box::new(
                self.create(name, definition),
            ))));
        }
        // These need an index over the other column.
        self.add_keys(&mut actions, &others);
        Ok(actions)
    }

    fn create(&self, name: Ident, definition: Definition) -> Create {
        Create {
            schema: self.table.schema.clone(),
            table: self.table.name.clone(),
            name,
            definition,
            published: Published::Index,
            wait: self.wait,
        }
    }

    /// No row without a value, where there is to be one.
    fn fill(&self, actions: &mut Vec<Action>) {
        let (live, other) = (self.live, &self.other.name);
        let name = filled(self.table, other);
        let present = self.copies.checks.iter().find(|check| check.name == name);
        let condition = match (live.nullability, self.custom) {
            (Nullability::NotNull, _) => format!("{other} IS NOT NULL"),
            (Nullability::Nullable, false) => format!("{other} IS NOT NULL OR {} IS NULL", live.name),
            (Nullability::Nullable, true) => format!("{other} IS NOT NULL OR ({}\n) IS NULL", self.value),
        };
        Constraint {
            relation: &self.relation(),
            name: &name,
            definition: &format!("CHECK ({condition}\n)"),
            lock: Mode::AccessExclusive,
            also: None,
            present: present.map(|check| check.validated),
            validated: true,
            find: sql::rows_against_check(self.table, &condition),
        }
        .add(actions);
    }

    fn add_keys(&self, actions: &mut Vec<Action>, keys: &[(&ForeignKeyUse, Ident)]) {
        for (key, name) in keys {
            let definition = key.over(&self.relation(), &self.live.name, &self.other.name);
            let present = self.copies.foreign_keys.iter().find(|copy| copy.name == *name);
            Constraint {
                relation: &key.relation,
                name,
                definition: &definition,
                lock: Mode::ShareRowExclusive,
                also: [&*key.relation, &*key.references]
                    .into_iter()
                    .find(|table| *table != self.relation()),
                present: present.map(|copy| copy.validated),
                validated: key.validated,
                find: sql::rows_without_counterpart(
                    &key.relation,
                    &key.columns,
                    &key.references,
                    &key.referenced,
                ),
            }
            .add(actions);
        }
    }

    /// Ends builds of indexes for the other column.
    pub(super) fn end_builds(&self) -> Vec<Action> {
        self.indexes()
            .map(|(_, name)| {
                Action::Index(Work::Remove(Remove {
                    name: Table {
                        schema: Some(self.table.schema.clone()),
                        name,
                    },
                    table: Some(self.relation()),
                    removed: Removed::Index,
                    parts: Vec::new(),
                    missing: Missing::Fine,
                    wait: self.wait,
                }))
            })
            .collect()
    }

    /// Drops the other column and what needs it.
    pub(super) fn drop_other(&self) -> Vec<String> {
        (self.copies.foreign_keys.iter())
            .map(|key| sql::drop_constraint(&key.relation, &key.name))
            .chain([sql::drop_column(self.table, &self.other.name)])
            .collect()
    }
}
