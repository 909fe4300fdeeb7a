//! What survives a leader: a model of the store, with its conditions.

use crate::id::{AgentId, DatabaseName, Holder, RolloutId};
use crate::rollout::assignment::Assignment;
use crate::rollout::book::{Book, Change};
use crate::rollout::control::Action;
use crate::rollout::drain::Drain;
use crate::rollout::event::Effect;
use crate::rollout::fleet::{self, Fleet};
use crate::rollout::machine::Rollout;
use crate::rollout::planted::{self, Bug};
use crate::rollout::{Course, Spec, Time};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Store {
    pub(super) revision: i64,
    /// Of the leader whose writes are taken.
    pub(super) term: u64,
    specs: BTreeMap<RolloutId, Spec>,
    courses: BTreeMap<RolloutId, Course>,
    records: BTreeMap<(RolloutId, DatabaseName), Assignment>,
    actions: BTreeMap<(RolloutId, usize), Action>,
    /// Database leases: the agent's lease, the holder, the token.
    pub(super) leases: BTreeMap<DatabaseName, (i64, Holder, i64)>,
    pub(super) agents: BTreeMap<AgentId, fleet::Agent>,
    databases: BTreeMap<DatabaseName, fleet::Database>,
    drains: BTreeMap<AgentId, Drain>,
    goodbyes: BTreeSet<AgentId>,
}

impl Store {
    pub(super) fn found(&mut self, spec: Spec) {
        self.courses.insert(spec.id.clone(), Course::new());
        self.specs.insert(spec.id.clone(), spec);
    }

    /// What a new leader reads, and what it must write before anything else.
    pub(super) fn read(&self, now: Time) -> (Book, Vec<Change>) {
        let rollouts: Vec<_> = self.specs.values().map(|spec| self.rollout(spec)).collect();
        let fleet = Fleet::restored(self.agents.clone(), self.databases.clone())
            .with_drains(self.drains.clone())
            .with_goodbyes(self.goodbyes.clone());
        let mut book = Book::restored(rollouts, fleet);
        let mut changes = Vec::new();
        for ((rollout, database), record) in &self.records {
            let Some(work) = record.work() else { continue };
            match self.leases.get(database) {
                Some((_, holder, token)) if *holder == work.holder => {
                    book.granted(rollout, database, *token, now);
                }
                Some(_) | None => changes.extend(book.lost(rollout, database, now)),
            }
        }
        (book, changes)
    }

    fn rollout(&self, spec: &Spec) -> Rollout {
        let records = self
            .records
            .iter()
            .filter(|((rollout, _), _)| *rollout == spec.id);
        let records = records.map(|((_, database), record)| (database.clone(), record.clone()));
        let actions = self
            .actions
            .iter()
            .filter(|((rollout, _), _)| *rollout == spec.id);
        let actions = actions.map(|(_, action)| action.clone());
        let course = self.courses[&spec.id].clone();
        Rollout::restored(spec.clone(), course, records.collect(), actions.collect())
    }

    /// Whether the leader knows what is stored, and nothing else.
    pub(super) fn agrees_with(&self, book: &Book) -> bool {
        self.specs.values().all(|spec| {
            let stored = self.rollout(spec);
            let known = &book.rollouts()[&spec.id];
            let same = |database: &DatabaseName, assignment: &Assignment| match assignment {
                // Stored as it was when its lease was written.
                Assignment::Running { work, .. } => {
                    stored.assignments()[database] == Assignment::Leasing(work.clone())
                }
                other => stored.assignments()[database] == *other,
            };
            stored.course() == known.course()
                && stored.actions() == known.actions()
                && known
                    .assignments()
                    .iter()
                    .all(|(name, assignment)| same(name, assignment))
        }) && self.goodbyes == *book.fleet().goodbyes()
    }

    /// Writes one change of a leader of this term, all or nothing: its leases that were granted, with their tokens, or
    /// `None` when it is refused.
    pub(super) fn write(
        &mut self,
        change: &Change,
        term: u64,
        fleet: &Fleet,
    ) -> Option<Vec<(RolloutId, DatabaseName, i64)>> {
        if term != self.term && !planted::chosen(Bug::StaleTerm) {
            return None;
        }
        let mut granted = Vec::new();
        match change {
            Change::Agent(id) => {
                let agent = fleet.agents()[id].clone();
                let before = self.agents.insert(id.clone(), agent.clone());
                if let Some(before) = before.filter(|before| before.lease != agent.lease) {
                    // The earlier lease is revoked.
                    self.leases.retain(|_, (lease, _, _)| *lease != before.lease);
                }
            }
            Change::Database(name) => {
                self.databases
                    .insert(name.clone(), fleet.databases()[name].clone());
            }
            Change::Drain(id) => match fleet.drains().get(id) {
                Some(drain) => drop(self.drains.insert(id.clone(), drain.clone())),
                None => drop(self.drains.remove(id)),
            },
            Change::Goodbye(id) => {
                if fleet.goodbyes().contains(id) {
                    self.goodbyes.insert(id.clone());
                } else {
                    self.goodbyes.remove(id);
                }
            }
            // Nothing is decided by stories, and the simulation's operators forget nothing.
            Change::Story { .. } | Change::Forgotten(_) => {}
            Change::Rollout { rollout, effects } => {
                let courses = effects
                    .iter()
                    .filter(|effect| matches!(effect, Effect::Course(_)));
                let records: Vec<_> = effects.iter().filter_map(Effect::recorded).collect();
                let keys: BTreeSet<_> = records.iter().collect();
                // No store takes two values of one key in one transaction.
                assert!(courses.count() <= 1 && keys.len() == records.len(), "{effects:?}");
                if !effects.iter().all(|effect| self.allows(effect)) {
                    return None;
                }
                self.revision += 1;
                for effect in effects.iter().cloned() {
                    match effect {
                        Effect::Course(course) => {
                            self.courses.insert(rollout.clone(), course);
                        }
                        Effect::Acted(number, action) => {
                            self.actions.insert((rollout.clone(), number), action);
                        }
                        Effect::Record(database, record) => {
                            self.records.insert((rollout.clone(), database), record);
                        }
                        Effect::Grant(database, work) => {
                            granted.push((rollout.clone(), database.clone(), self.revision));
                            self.leases
                                .insert(database, (work.lease, work.holder, self.revision));
                        }
                        Effect::Release { database, .. } | Effect::Drop(database) => {
                            self.leases.remove(&database);
                        }
                    }
                }
            }
        }
        Some(granted)
    }

    fn allows(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Grant(database, work) => {
                let agent = self.agents.get(&work.agent);
                let free = !self.leases.contains_key(database) || planted::chosen(Bug::AssignedTwice);
                free && agent.is_some_and(|agent| agent.lease == work.lease)
            }
            Effect::Release { database, token } => {
                let lease = self.leases.get(database);
                lease.is_some_and(|(_, _, held)| held == token)
            }
            Effect::Course(_) | Effect::Acted(..) | Effect::Record(..) | Effect::Drop(_) => true,
        }
    }
}
