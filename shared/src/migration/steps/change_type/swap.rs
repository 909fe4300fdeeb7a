//! The swap of the names: one transaction that changes the catalog alone.

use super::carry::{Carry, assignment, is_integer};
use super::names::{filled, new_name};
use crate::lock::Mode;
use crate::name::Ident;
use crate::plan::{ColumnFacts, IndexRole, Nullability, SequenceUse, Transaction};
use crate::sql::sync::{Sync, drop_sync};
use crate::sql::{self, literal};

/// What becomes of the column that had the name.
pub(super) enum After<'a> {
    /// It stays under another name, kept right by this value out of the one that has the name then.
    Kept { name: &'a Ident, value: &'a str },
    /// It goes.
    Dropped,
}

impl Carry<'_> {
    /// The swap: `name` leads to the other column from then on.
    pub(super) fn swap(&self, name: &Ident, after: &After<'_>) -> Transaction {
        let retired = match after {
            After::Kept { name, .. } => (*name).clone(),
            After::Dropped => new_name(name),
        };
        let mut statements = self.retire(name);
        statements.push(sql::rename_column(self.table, name, &retired));
        statements.push(sql::rename_column(self.table, &self.other.name, name));
        self.value_moves(&mut statements, name, &retired);
        self.take_over(&mut statements);
        self.further(&mut statements, name);
        match after {
            After::Kept { name: old, value } => {
                let changed = ColumnFacts {
                    name: name.clone(),
                    ..self.other.clone()
                };
                let set = [assignment(self.live, old, value)];
                let sync = Sync {
                    first: Some(self.take_what_is_given(name, old)),
                    ..self.sync(&set, &[&changed])
                };
                statements.extend(sync.create());
            }
            After::Dropped => statements.push(sql::drop_column(self.table, &retired)),
        }
        Transaction {
            also: self.neighbours(Mode::AccessExclusive),
            ..Transaction::bounded_all(statements)
        }
    }

    /// The other tables of its foreign keys, which are locked too.
    fn neighbours(&self, mode: Mode) -> Vec<(Mode, String)> {
        let own = self.relation();
        (self.uses.foreign_keys.iter())
            .flat_map(|key| [&key.relation, &key.references])
            .filter(|relation| **relation != own)
            .map(|relation| (mode, relation.clone()))
            .collect()
    }

    /// An application that inserts rows without naming columns gives its value to the old one, which has its place.
    fn take_what_is_given(&self, name: &Ident, old: &Ident) -> String {
        let columns: Vec<String> = (self.table.columns.iter())
            .filter(|column| column.name != self.other.name)
            .map(|column| {
                let from = if column.name == *name { old } else { &column.name };
                format!("NEW.{from} AS {}", column.name)
            })
            .collect();
        format!(
            "IF NEW.{old} IS NOT NULL THEN NEW.{name} := (SELECT ({}\n) FROM (SELECT {}) AS {}); END IF;",
            self.value,
            columns.join(", "),
            self.table.name
        )
    }

    /// Drops the trigger, and what is over the column that has the name.
    fn retire(&self, name: &Ident) -> Vec<String> {
        let table = self.relation();
        let sync = (self.table.syncs.iter()).find(|sync| sync.columns.contains(&self.other.name));
        let sync = match sync {
            Some(live) => drop_sync(&live.triggers, &live.function),
            None => self.sync(&[self.own_value()], &[self.live]).end(),
        };
        let keys = (self.uses.foreign_keys.iter()).map(|key| sql::drop_constraint(&key.relation, &key.name));
        let indexes = self.uses.indexes.iter().map(|index| match &index.constraint {
            Some(_) => sql::drop_constraint(&table, &index.name),
            None => sql::index::drop_at_once(&format!("{}.{}", self.table.schema, index.name)),
        });
        let checks = (self.uses.checks.iter()).map(|check| sql::drop_constraint(&table, &check.name));
        // That of an identity goes with it.
        let is_bound = self.live.nullability == Nullability::NotNull && self.uses.identity.is_none();
        let not_null = is_bound.then(|| sql::drop_not_null(self.table, name));
        let free = sql::must_be_free(&table, name);
        (sync
            .into_iter()
            .chain(keys)
            .chain(indexes)
            .chain(checks)
            .chain(not_null))
        .chain([free])
        .collect()
    }

    /// Names what stood ready over the column that has the name now.
    fn take_over(&self, statements: &mut Vec<String>) {
        let table = self.relation();
        statements.push(sql::drop_constraint(
            &table,
            &filled(self.table, &self.other.name),
        ));
        for (index, ready) in self.indexes() {
            statements.push(match &index.constraint {
                Some(constraint) => format!(
                    "ALTER TABLE {table} ADD CONSTRAINT {} {} USING INDEX {ready}{}",
                    index.name, constraint.kind, constraint.deferrable
                ),
                None => sql::index::rename(&format!("{}.{ready}", self.table.schema), &index.name),
            });
            statements.extend(index.roles.iter().map(|role| match role {
                IndexRole::Clustered => format!("ALTER TABLE {table} CLUSTER ON {}", index.name),
                IndexRole::ReplicaIdentity => {
                    format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {}", index.name)
                }
            }));
        }
        let checks = self.checks().map(|(check, ready)| (&table, ready, &check.name));
        let keys = self
            .foreign_keys()
            .map(|(key, ready)| (&key.relation, ready, &key.name));
        statements.extend(checks.chain(keys).map(|(relation, ready, name)| {
            format!("ALTER TABLE {relation} RENAME CONSTRAINT {ready} TO {name}")
        }));
    }

    /// Default, sequence, identity and NOT NULL, after the swap of the names.
    fn value_moves(&self, statements: &mut Vec<String>, name: &Ident, retired: &Ident) {
        let alter = |what: String| format!("ALTER TABLE {} ALTER COLUMN {what}", self.relation());
        if let Some(default) = &self.uses.default {
            statements.push(alter(format!("{name} SET DEFAULT ({default}\n)")));
            statements.push(alter(format!("{retired} DROP DEFAULT")));
        }
        if self.live.nullability == Nullability::NotNull {
            statements.push(alter(format!("{name} SET NOT NULL")));
        }
        let Some(sequence) = &self.uses.sequence else {
            return;
        };
        if let Some(identity) = self.uses.identity {
            statements.push(self.identity_moves(name, retired, identity, sequence));
            return;
        }
        let data_type = &self.other.data_type;
        if is_integer(data_type) && *data_type != sequence.data_type {
            statements.push(format!("ALTER SEQUENCE {} AS {data_type}", sequence.name));
        }
        statements.push(format!(
            "ALTER SEQUENCE {} OWNED BY {}.{name}",
            sequence.name,
            self.relation()
        ));
    }

    /// An identity cannot be moved: the sequence is made again, and goes on where it was. The first statement keeps others
    /// from taking values meanwhile.
    fn identity_moves(
        &self,
        name: &Ident,
        retired: &Ident,
        identity: sql::Identity,
        sequence: &SequenceUse,
    ) -> String {
        let table = self.relation();
        let SequenceUse {
            name: own, options, ..
        } = sequence;
        let kept = match self.live.nullability {
            Nullability::NotNull => format!("ALTER TABLE {table} ALTER COLUMN {retired} DROP NOT NULL;"),
            Nullability::Nullable => String::new(),
        };
        let body = format!(
            "DECLARE l pg_catalog.int8; c pg_catalog.bool; BEGIN\n\
             ALTER SEQUENCE {own} {options};\n\
             SELECT last_value, is_called INTO l, c FROM {own};\n\
             ALTER TABLE {table} ALTER COLUMN {retired} DROP IDENTITY; {kept}\n\
             ALTER TABLE {table} ALTER COLUMN {name} ADD {} (SEQUENCE NAME {own} {options});\n\
             PERFORM pg_catalog.setval({}, l, c);\nEND",
            identity.as_sql(),
            literal(own),
        );
        format!("DO LANGUAGE plpgsql {}", literal(&body))
    }

    /// What people said about the column.
    fn further(&self, statements: &mut Vec<String>, name: &Ident) {
        if let Some(comment) = &self.uses.comment {
            statements.push(format!(
                "COMMENT ON COLUMN {}.{name} IS {}",
                self.relation(),
                literal(comment)
            ));
        }
        if let Some(statistics) = self.uses.statistics {
            statements.push(format!(
                "ALTER TABLE {} ALTER COLUMN {name} SET STATISTICS {statistics}",
                self.relation()
            ));
        }
    }
}
