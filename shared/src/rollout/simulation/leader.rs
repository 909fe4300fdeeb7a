//! The leader, the one before it that does not know, and what they write.

use super::World;
use crate::id::Holder;
use crate::rollout::book::Change;
use crate::rollout::event::Verdict;
use crate::rollout::instruct::Office;
use crate::rollout::message::ToAgent;
use std::time::Duration;
use uuid::Uuid;

impl World {
    /// A new leader reads what is stored.
    pub(super) fn elect(&mut self) {
        for agent in self.agents.values_mut() {
            agent.stream = None;
            agent.inbox.clear();
        }
        let (book, changes) = self.store.read(self.now);
        // Its clock is another one.
        let ahead = Duration::from_millis(self.random.next() % 20_000);
        if ahead < self.ahead {
            self.seen.insert("clock set back");
        }
        (self.ahead, self.now) = (ahead, self.time.after(ahead));
        self.elections += 1;
        self.store.term = self.elections;
        self.leader = Some(book);
        // Whoever asked for the former leader is not heard.
        self.checks.clear();
        self.commit(changes);
    }

    /// A leader that was frozen goes on where it was; its term is over.
    pub(super) fn wake_stale(&mut self) {
        if self.leader.is_none() || !self.random.percent(10) {
            return;
        }
        let Some((mut book, term)) = self.stale.take() else {
            return;
        };
        let random = &mut self.random;
        let advance = book.advance(self.now, || Holder(Uuid::from_u128(random.next().into())));
        for change in advance.changes {
            if self.store.write(&change, term, book.fleet()).is_none() {
                self.seen.insert("stale leader refused");
                return;
            }
        }
    }

    /// One round of the leader: hear, decide, commit, tell.
    pub(super) fn lead(&mut self) {
        if self.leader.is_none() {
            return;
        }
        let leases = self
            .store
            .agents
            .iter()
            .map(|(id, agent)| (id.clone(), agent.lease))
            .collect();
        let mut changes = Vec::new();
        let mut acknowledge = Vec::new();
        let mut late = Vec::new();
        let mut posted = std::mem::take(&mut self.posted);
        while !posted.is_empty() {
            // In any order; some come later.
            let (id, stream, message) = posted.swap_remove(self.random.below(posted.len()));
            if self.agents[&id].stream != Some(stream) {
                continue;
            }
            if self.random.percent(20) {
                late.push((id, stream, message));
                continue;
            }
            let heard = self.leader.as_mut().unwrap().hear(&id, message, self.now);
            changes.extend(heard.changes);
            acknowledge.extend(heard.acknowledge.map(|of| (id, of)));
        }
        self.posted = late;
        let book = self.leader.as_mut().unwrap();
        book.leases(&leases);
        let random = &mut self.random;
        let advance = book.advance(self.now, || Holder(Uuid::from_u128(random.next().into())));
        assert_eq!(advance.refused, []);
        changes.extend(advance.changes);
        if !self.commit(changes) {
            return;
        }
        for (id, of) in acknowledge {
            self.agents
                .get_mut(&id)
                .unwrap()
                .inbox
                .push(ToAgent::Acknowledged(of));
        }
        if self.faults && self.random.percent(2) {
            // Dies between the commit and telling anyone.
            self.leader = None;
            return;
        }
        let book = self.leader.as_mut().unwrap();
        for instruction in book.instructions(Office { term: 1, epoch: 1 }, self.now) {
            if self.faults && self.random.percent(3) {
                continue;
            }
            book.told(&instruction, self.now);
            self.agents
                .get_mut(&instruction.agent)
                .unwrap()
                .inbox
                .push(instruction.message);
        }
    }

    /// Checks have their answers, now or later, or never.
    pub(super) fn answer_checks(&mut self) {
        let Some(book) = &mut self.leader else { return };
        self.checks.extend(book.begin_checks(self.now));
        for checks in std::mem::take(&mut self.checks) {
            if self.faults && self.random.percent(60) {
                self.checks.push(checks);
                continue;
            }
            let passes = !self.faults || self.random.percent(60);
            let verdict = if passes {
                Verdict::Passed
            } else {
                Verdict::NotPassed("it does not hold".to_owned())
            };
            let Some(book) = &mut self.leader else { return };
            let changes = book.checked(&checks.rollout, checks.wave, verdict, self.now);
            if passes && !changes.is_empty() {
                self.passed.insert((checks.rollout.clone(), checks.wave));
                self.seen.insert("checks passed");
            }
            self.commit(changes);
        }
    }

    /// Writes changes, each all or nothing. When a write is refused, or its outcome is not known, the book is thrown
    /// away; how much was written is random then.
    pub(super) fn commit(&mut self, changes: Vec<Change>) -> bool {
        for change in changes {
            let fails = self.faults && self.random.percent(1);
            let skipped = fails && self.random.percent(50);
            if !skipped && !self.write(&change) {
                self.seen.insert("write refused");
                self.leader = None;
                return false;
            }
            if fails {
                self.seen.insert("unknown commit");
                self.leader = None;
                return false;
            }
        }
        true
    }

    pub(super) fn write(&mut self, change: &Change) -> bool {
        let book = self.leader.as_mut().unwrap();
        let Some(granted) = self.store.write(change, self.elections, book.fleet()) else {
            return false;
        };
        for (rollout, database, token) in granted {
            book.granted(&rollout, &database, token, self.now);
            self.granted_in.insert(token, self.elections);
        }
        true
    }
}
