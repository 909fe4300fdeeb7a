//! From what must be written to transactions: each group whole, in order, as few transactions as the store's limits
//! allow, and each only while our term lasts.

use crate::keys;
use crate::leader;
use crate::store::{Condition, LeaseId, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Transaction, Write};
use shared::id::{DatabaseName, RolloutId};
use shared::rollout::book::Change;
use shared::rollout::{Course, Effect, Fleet, Spec};
use std::collections::BTreeSet;

/// Kept free of the store's limit for one transaction: keys and framing count on the way too.
const BYTES: usize = MAX_TRANSACTION_BYTES - 64 * 1024;

/// Writes that belong together, with their conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) writes: Vec<Write>,
    /// Leases that this grants: their token is the revision of the write.
    pub(crate) grants: Vec<(RolloutId, DatabaseName)>,
}

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) transaction: Transaction,
    pub(crate) grants: Vec<(RolloutId, DatabaseName)>,
}

/// What a change of the book is in the store.
pub(crate) fn group(change: Change, fleet: &Fleet) -> Group {
    let mut group = Group::default();
    match change {
        Change::Agent(id) => {
            if let Some(agent) = fleet.agents().get(&id) {
                group.writes.push(Write::Put {
                    key: keys::agent(&id),
                    value: keys::encode(agent),
                    lease: Some(LeaseId(agent.lease)),
                });
            }
        }
        Change::Database(name) => {
            if let Some(database) = fleet.databases().get(&name) {
                group
                    .writes
                    .push(put(keys::database(&name), keys::encode(database)));
            }
        }
        Change::Drain(id) => group.writes.push(match fleet.drains().get(&id) {
            Some(drain) => put(keys::drain(&id), keys::encode(drain)),
            None => Write::Delete(keys::drain(&id)),
        }),
        Change::Goodbye(id) => group.writes.push(if fleet.goodbyes().contains(&id) {
            put(keys::goodbye(&id), Vec::new())
        } else {
            Write::Delete(keys::goodbye(&id))
        }),
        Change::Forgotten(name) => match fleet.forgotten().get(&name) {
            Some(forgotten) => group.writes.extend([
                Write::Delete(keys::database(&name)),
                put(keys::forgotten(&name), keys::encode(forgotten)),
            ]),
            None => group.writes.push(Write::Delete(keys::forgotten(&name))),
        },
        Change::Story { of, attempt } => {
            group
                .writes
                .push(put(keys::story(&of), keys::encode(attempt.as_ref())));
        }
        Change::Rollout { rollout, effects } => {
            for effect in effects {
                group.add(&rollout, effect);
            }
        }
    }
    group
}

/// The groups that found a rollout: it exists with the last of them.
pub(crate) fn founding(spec: &Spec, course: &Course) -> Vec<Group> {
    let bytes = keys::encode(spec);
    let pieces = bytes.chunks(keys::PIECE_BYTES).enumerate();
    let mut groups: Vec<_> = pieces
        .map(|(n, piece)| Group::of(put(keys::spec_piece(&spec.id, n), piece.to_vec())))
        .collect();
    groups.push(Group::of(put(keys::course(&spec.id), keys::encode(course))));
    groups
}

pub(crate) fn put(key: String, value: Vec<u8>) -> Write {
    Write::Put {
        key,
        value,
        lease: None,
    }
}

impl Group {
    pub(crate) fn of(write: Write) -> Self {
        Self {
            writes: vec![write],
            ..Self::default()
        }
    }

    fn add(&mut self, rollout: &RolloutId, effect: Effect) {
        match effect {
            Effect::Course(course) => self
                .writes
                .push(put(keys::course(rollout), keys::encode(&course))),
            Effect::Acted(number, action) => {
                let key = keys::action(rollout, number);
                self.writes.push(put(key, keys::encode(&action)));
            }
            Effect::Record(database, assignment) => {
                let key = keys::assignment(rollout, &database);
                self.writes.push(put(key, keys::encode(&assignment)));
            }
            Effect::Grant(database, work) => {
                let key = keys::lease(&database);
                self.conditions.push(Condition::Absent(key.clone()));
                let lease = keys::Lease {
                    agent: work.agent,
                    rollout: rollout.clone(),
                    holder: work.holder,
                };
                self.writes.push(Write::Put {
                    key,
                    value: keys::encode(&lease),
                    lease: Some(LeaseId(work.lease)),
                });
                self.grants.push((rollout.clone(), database));
            }
            Effect::Release { database, token } => {
                let key = keys::lease(&database);
                self.conditions.push(Condition::Created(key.clone(), token));
                self.writes.push(Write::Delete(key));
            }
            Effect::Drop(database) => self.writes.push(Write::Delete(keys::lease(&database))),
        }
    }

    fn operations(&self) -> usize {
        self.conditions.len() + self.writes.len()
    }

    fn bytes(&self) -> usize {
        self.writes.iter().map(written_bytes).sum()
    }
}

fn written_bytes(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Delete(key) => key.len(),
    }
}

fn written_key(write: &Write) -> &String {
    match write {
        Write::Put { key, .. } | Write::Delete(key) => key,
    }
}

/// Packs groups into transactions, in order, all under a term.
pub(crate) fn pack(term: i64, groups: Vec<Group>) -> Vec<Packed> {
    let mut all = Vec::new();
    let mut current = Packer::new(term);
    for group in groups.into_iter().filter(|group| !group.writes.is_empty()) {
        if !current.has_room_for(&group) {
            all.push(std::mem::replace(&mut current, Packer::new(term)).packed);
        }
        current.take(group);
    }
    all.push(current.packed);
    all.retain(|packed| !packed.transaction.writes.is_empty());
    all
}

struct Packer {
    packed: Packed,
    keys: BTreeSet<String>,
    bytes: usize,
}

impl Packer {
    fn new(term: i64) -> Self {
        let mut packed = Packed::default();
        let ours = Condition::Created(leader::KEY.to_owned(), term);
        packed.transaction.conditions.push(ours);
        Self {
            packed,
            keys: BTreeSet::new(),
            bytes: 0,
        }
    }

    fn has_room_for(&self, group: &Group) -> bool {
        let transaction = &self.packed.transaction;
        let operations = transaction.conditions.len() + transaction.writes.len() + group.operations();
        operations <= MAX_OPERATIONS
            && self.bytes + group.bytes() <= BYTES
            // A key is written once in a transaction: what comes later must not change what came before.
            && group.writes.iter().all(|write| !self.keys.contains(written_key(write)))
    }

    fn take(&mut self, group: Group) {
        self.bytes += group.bytes();
        self.keys
            .extend(group.writes.iter().map(|write| written_key(write).clone()));
        self.packed.transaction.conditions.extend(group.conditions);
        self.packed.transaction.writes.extend(group.writes);
        self.packed.grants.extend(group.grants);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, bytes: usize) -> Group {
        Group::of(put(key.to_owned(), vec![0; bytes]))
    }

    fn sizes(groups: Vec<Group>) -> Vec<usize> {
        pack(7, groups)
            .iter()
            .map(|packed| packed.transaction.writes.len())
            .collect()
    }

    #[test]
    fn every_transaction_is_under_the_term_and_within_the_limits() {
        let groups: Vec<_> = (0..250).map(|n| write(&format!("k{n}"), 1)).collect();
        let packed = pack(7, groups);
        assert_eq!(packed.len(), 3);
        for one in &packed {
            let transaction = &one.transaction;
            assert_eq!(
                transaction.conditions,
                [Condition::Created("leader".to_owned(), 7)]
            );
            assert!(transaction.conditions.len() + transaction.writes.len() <= MAX_OPERATIONS);
        }
    }

    #[test]
    fn heavy_values_are_spread_over_transactions() {
        let groups = (0..40)
            .map(|n| write(&format!("k{n}"), keys::PIECE_BYTES))
            .collect();
        assert_eq!(sizes(groups), [15, 15, 10]);
    }

    #[test]
    fn a_key_written_again_begins_another_transaction_so_that_order_is_kept() {
        assert_eq!(
            sizes(vec![write("a", 1), write("b", 1), write("a", 2), write("c", 1)]),
            [2, 2]
        );
    }

    #[test]
    fn a_group_is_never_split() {
        let big = Group {
            writes: (0..60).map(|n| put(format!("g{n}"), Vec::new())).collect(),
            ..Group::default()
        };
        let other = Group {
            writes: (0..60).map(|n| put(format!("h{n}"), Vec::new())).collect(),
            ..Group::default()
        };
        assert_eq!(sizes(vec![big, other]), [60, 60]);
    }

    #[test]
    fn nothing_to_write_is_no_transaction() {
        assert!(pack(7, vec![Group::default()]).is_empty());
    }
}
