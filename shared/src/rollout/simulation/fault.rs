//! What goes wrong, and how agents come and go.

use super::agent::{Process, Target};
use super::clock::Clock;
use super::{World, clock};
use crate::id::{AgentId, DatabaseName};
use crate::rollout::drain::{Drain, Running};
use crate::rollout::machine::Rollout;
use crate::rollout::policy::Unreachable;
use crate::rollout::sample;

impl World {
    pub(super) fn fault(&mut self) {
        let ids: Vec<_> = self.served.keys().cloned().collect();
        let id = ids[self.random.below(ids.len())].clone();
        match self.random.below(40) {
            0 => {
                let term = self.elections;
                self.stale = self.leader.take().map(|book| (book, term));
            }
            1 => self.expire(&id),
            2 => self.cut(&id),
            3 => self.kill(&id),
            4 | 5 => {
                let agent = self.agents.get_mut(&id).unwrap();
                agent.frozen = !agent.frozen;
            }
            6 => {
                let names: Vec<_> = self.targets.keys().cloned().collect();
                let at = self.random.below(names.len());
                let target = self.targets.get_mut(&names[at]).unwrap();
                target.held = !target.held;
            }
            7 => self.request(),
            13 => self.drain(&id),
            14 => self.join(),
            10 => {
                let of = self.agents[&id].work.keys().next().cloned();
                if let Some(of) = of {
                    // `migrate up --take-over`, without a coordinator.
                    self.targets.get_mut(&of.database).unwrap().fence.1 += 1;
                }
            }
            8 | 11 => self.operate(),
            12 => self.undo(),
            9 if !self.posted.is_empty() => {
                let at = self.random.below(self.posted.len());
                let copy = self.posted[at].clone();
                self.posted.push(copy);
            }
            _ => {}
        }
    }

    /// Leases that nobody has renewed for long end.
    pub(super) fn expire_old(&mut self) {
        let old = |agent: &Process| agent.renewed.1.until(self.time) >= clock::LEASE;
        let old: Vec<_> = (self.agents.iter())
            .filter(|(id, agent)| self.store.agents.contains_key(*id) && old(agent))
            .map(|(id, _)| id.clone())
            .collect();
        for id in old {
            self.expire(&id);
            self.seen.insert("lease ran out");
        }
    }

    /// An agent's lease ends in the store, with all its keys.
    pub(super) fn expire(&mut self, id: &AgentId) {
        if let Some(agent) = self.store.agents.remove(id) {
            self.store.leases.retain(|_, (lease, _, _)| *lease != agent.lease);
        }
    }

    pub(super) fn cut(&mut self, id: &AgentId) {
        let agent = self.agents.get_mut(id).unwrap();
        agent.stream = None;
        agent.inbox.clear();
        if let Some(book) = &mut self.leader {
            book.detach(id, self.now);
        }
    }

    pub(super) fn kill(&mut self, id: &AgentId) {
        self.cut(id);
        let agent = self.agents.get_mut(id).unwrap();
        agent.instance += 1;
        agent.lease = None;
        agent.frozen = false;
        agent.work.clear();
    }

    /// An agent gets no new work, or gets some again.
    pub(super) fn drain(&mut self, id: &AgentId) {
        let Some(book) = &mut self.leader else { return };
        let changed = if book.fleet().drains().contains_key(id) {
            book.undrain(id).map(|(_, changes)| changes)
        } else {
            let drain = Drain {
                by: "ada".to_owned(),
                reason: String::new(),
                at: self.now,
                running: if self.random.percent(50) {
                    Running::Stops
                } else {
                    Running::Finishes
                },
            };
            self.seen.insert("agent drained");
            book.drain(id, drain).map(|(_, changes)| changes)
        };
        self.commit(changed.unwrap_or_default());
    }

    /// Another agent comes, with a database of its own and some of the others'.
    pub(super) fn join(&mut self) {
        let number = self.agents.len();
        if number >= 6 {
            return;
        }
        let mut names: Vec<_> = (self.targets.keys())
            .filter(|_| self.random.percent(40))
            .cloned()
            .collect();
        let own = sample::database(&format!("own{number}"));
        names.push(own.clone());
        self.targets.insert(own, Target::default());
        let id = sample::agent(&format!("late{number}"));
        let clock = Clock::draw(self.seed, &id);
        self.agents.insert(id.clone(), Process::new(clock));
        self.served.insert(id, names);
        self.seen.insert("agent joined");
    }

    /// An agent that is gone for good, if others serve all its databases, or they can be left out; its lease runs out.
    pub(super) fn bury(&mut self, id: &AgentId) {
        let others = |name: &DatabaseName| {
            self.served
                .iter()
                .any(|(other, names)| other != id && names.contains(name))
        };
        let left_out = |rollout: &&Rollout| rollout.spec().policy.unreachable == Unreachable::Skip;
        let book = self.leader.as_ref();
        let nobody_waits = book.is_some_and(|book| book.live().iter().all(left_out)) && self.served.len() > 1;
        if nobody_waits || self.served[id].iter().all(others) {
            self.kill(id);
            self.expire(id);
            self.served.remove(id);
        }
    }
}
