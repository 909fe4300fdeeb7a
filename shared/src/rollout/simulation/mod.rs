//! A seeded random fleet: several rollouts, planned as real ones, agents that die, freeze, join, are drained and come back,
//! leaders that are lost at any moment, each with a clock of its own as agents have,
//! messages that are lost, doubled, late and out of order. After every step the invariants must hold; once the
//! faults stop, every rollout must end, and what it calls done must be done.
//!
//! A failing seed is printed; put it into `ONE_SEED` to run that one alone. `make simulate SEEDS=1000000` runs any number
//! of others. What a simulation must reach at all is listed in `MUST_BE_SEEN`, and mistakes that it must find in
//! `planted`, so that it cannot quietly become harmless.

use crate::id::{AgentId, DatabaseName, Digest, Holder, Instance, RolloutId};
use crate::ledger::DataLoss;
use crate::retry::Retryability;
use crate::rollout::assignment::{Assignment, Setback, Skip};
use crate::rollout::book::{Book, Change, Checks};
use crate::rollout::control::Verb;
use crate::rollout::drain::{Drain, Running};
use crate::rollout::event::Verdict;
use crate::rollout::instruct::Office;
use crate::rollout::machine::Rollout;
use crate::rollout::message::{FromAgent, Hello, Holding, Located, ToAgent};
use crate::rollout::phase::{Pause, Phase};
use crate::rollout::planted::{self, Bug};
use crate::rollout::policy::{Asks, Budget, Check, Hours, Rule, Take, Unreachable};
use crate::rollout::release;
use crate::rollout::spec::Spec;
use crate::rollout::undo::{self, Wish};
use crate::rollout::waves;
use crate::rollout::work::{Aim, Finish, Identity, Look, Newer, Order, Summary};
use crate::rollout::{Course, Policy, Time, invariant, sample};
use crate::settings::duration::WithUnit;
use clock::Clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use uuid::Uuid;

mod clock;
mod store;

const ONE_SEED: Option<u64> = None;
const SEEDS: u64 = 10_000;
/// Tests that share the seeds.
const PARTS: u64 = 2;
/// Within so many seeds each mistake must be found.
const SEEDS_TO_FIND: u64 = 300;
const STEPS: u64 = 250;
const CALM_STEPS: u64 = 4_000;

/// States and outcomes that some seed must reach.
const MUST_BE_SEEN: [&str; 39] = [
    "rollout done",
    "rollout failed",
    "rollout aborted",
    "database done",
    "database done by a look",
    "database failed",
    "database aborted",
    "attempt after an error",
    "lease lost",
    "replaced",
    "stopped",
    "write refused",
    "unknown commit",
    "work given by a later leader",
    "paused by someone",
    "paused by a budget",
    "paused by the budget of a wave",
    "resumed",
    "failures retried",
    "opened again",
    "database skipped",
    "database left out",
    "second wave begun",
    "wave soaked",
    "wave approved",
    "stale leader refused",
    "database undone",
    "database not undone",
    "paused by a check",
    "checks passed",
    "checks ignored",
    "agent drained",
    "agent joined",
    "clock set back",
    "kept to its hours",
    "limit of an agent reached",
    "lease ran out",
    "stopped by its own clock",
    "worked beyond its lease",
];

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// A target database: its fence, and which bundles it has.
#[derive(Default)]
struct Target {
    /// The token, and runs without a coordinator since.
    fence: (i64, i64),
    applied: BTreeSet<Digest>,
    /// Bundles that were taken back.
    undone: BTreeSet<Digest>,
    held: bool,
}

impl Target {
    fn look(&self, bundle: &Digest, aim: &Aim) -> Look {
        let pending = Look::Pending { versions: Vec::new() };
        let up_to_date = Look::UpToDate { ahead: Vec::new() };
        match aim {
            Aim::Apply if self.applied.contains(bundle) => up_to_date,
            Aim::Apply => pending,
            Aim::Undo { .. } if self.applied.contains(bundle) => pending,
            Aim::Undo { .. } if self.undone.contains(bundle) => up_to_date,
            Aim::Undo { .. } => Look::Declined {
                why: "not applied".to_owned(),
            },
        }
    }

    fn carry_out(&mut self, order: &Order) {
        match order.aim {
            Aim::Apply => self.applied.insert(order.bundle),
            Aim::Undo { .. } => {
                self.applied.remove(&order.bundle);
                self.undone.insert(order.bundle)
            }
        };
    }
}

/// An agent's process.
struct Process {
    instance: u128,
    lease: Option<i64>,
    /// The stream it has, if any; messages of earlier streams are lost.
    stream: Option<u64>,
    frozen: bool,
    inbox: Vec<ToAgent>,
    work: BTreeMap<Holding, Job>,
    clock: Clock,
    /// When its lease was renewed last, by its own clock and in truth.
    renewed: (Time, Time),
}

impl Process {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            renewed: (Time(0), Time(0)),
            instance: 0,
            lease: None,
            stream: None,
            frozen: false,
            inbox: Vec::new(),
            work: BTreeMap::new(),
        }
    }
}

/// An assignment in an agent.
enum Job {
    Working { order: Order, stop: bool },
    Finished(Finish),
}

struct World {
    seed: u64,
    random: Random,
    /// What no leader knows exactly.
    time: Time,
    /// By the leader's clock.
    now: Time,
    /// How far the leader's clock goes ahead.
    ahead: Duration,
    store: Store,
    targets: BTreeMap<DatabaseName, Target>,
    agents: BTreeMap<AgentId, Process>,
    served: BTreeMap<AgentId, Vec<DatabaseName>>,
    leader: Option<Book>,
    /// A leader that lost its office without knowing, and its term.
    stale: Option<(Book, u64)>,
    /// On their way to the leader, with the stream they were sent on.
    posted: Vec<(AgentId, u64, FromAgent)>,
    streams: u64,
    /// Checks that someone is asking.
    checks: Vec<Checks>,
    /// Leaders so far, and in whose time each token was granted.
    elections: u64,
    granted_in: BTreeMap<i64, u64>,
    faults: bool,
    /// Waves whose checks passed, or were to be ignored.
    passed: BTreeSet<(RolloutId, usize)>,
    seen: BTreeSet<&'static str>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let names: Vec<_> = (0..2 + random.below(8))
            .map(|n| sample::database(&format!("db{n}")))
            .collect();
        let mut served: BTreeMap<AgentId, Vec<DatabaseName>> = BTreeMap::new();
        for name in &names {
            // One or two agents for each database, of three.
            for _ in 0..=random.below(2) {
                let theirs = served
                    .entry(sample::agent(&format!("agent{}", random.below(3))))
                    .or_default();
                if !theirs.contains(name) {
                    theirs.push(name.clone());
                }
            }
        }
        let process = |id: &AgentId| (id.clone(), Process::new(Clock::draw(seed, id)));
        Self {
            seed,
            random,
            time: Time(1_000_000),
            now: Time(1_000_000),
            ahead: Duration::ZERO,
            store: Store::default(),
            targets: names.into_iter().map(|name| (name, Target::default())).collect(),
            agents: served.keys().map(process).collect(),
            served,
            leader: None,
            stale: None,
            posted: Vec::new(),
            streams: 0,
            checks: Vec::new(),
            elections: 0,
            granted_in: BTreeMap::new(),
            faults: true,
            passed: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        let passed = Duration::from_millis(self.random.next() % 700);
        (self.time, self.now) = (self.time.after(passed), self.time.after(passed + self.ahead));
        if self.faults {
            self.fault();
        }
        self.expire_old();
        for id in self.served.keys().cloned().collect::<Vec<_>>() {
            if !self.agents[&id].frozen && self.random.percent(70) {
                self.live(&id);
            }
        }
        if self.leader.is_none() && (!self.faults || self.random.percent(50)) {
            self.elect();
        }
        self.wake_stale();
        if !self.faults {
            self.settle();
        }
        let before = self.standing();
        self.lead();
        self.check_transitions(&before);
        self.check_agents(&before);
        self.answer_checks();
        let book = self.leader.clone().unwrap_or_default();
        let mut all: Vec<&Rollout> = book.rollouts().values().map(AsRef::as_ref).collect();
        all.sort_by_key(|rollout| rollout.spec().number);
        assert_eq!(invariant::violations(&all), []);
        if self.random.percent(10) {
            self.check_store();
        }
        self.seen.extend(all.iter().flat_map(|rollout| reached(rollout)));
    }

    fn check_store(&self) {
        let agrees = self
            .leader
            .as_ref()
            .is_none_or(|book| self.store.agrees_with(book));
        assert!(agrees, "the leader and the store disagree");
    }

    /// All rollouts as the leader sees them.
    fn standing(&self) -> BTreeMap<RolloutId, Arc<Rollout>> {
        self.leader
            .as_ref()
            .map(|book| book.rollouts().clone())
            .unwrap_or_default()
    }

    /// What no single state shows: how a round may change it. Nothing is asked by anyone in it.
    fn check_transitions(&mut self, before: &BTreeMap<RolloutId, Arc<Rollout>>) {
        for (id, after) in self.standing() {
            let Some(before) = before.get(&id) else { continue };
            let fresh = after.assignments().iter().filter(|(database, assignment)| {
                assignment.work().is_some() && before.assignments()[*database].work().is_none()
            });
            let fresh = fresh.count();
            let goes_on = matches!(before.phase(), Phase::Running);
            assert!(
                fresh == 0 || goes_on,
                "{id} is {} and begins",
                before.phase().word()
            );
            if fresh > 0 {
                self.check_limits(&id, &after);
            }
            self.check_checks(&id, before, &after);
            let Course { wave, .. } = *after.course();
            let Course { wave: had, .. } = *before.course();
            if wave == had {
                continue;
            }
            self.seen.insert("second wave begun");
            let spec = after.spec();
            for database in spec.waves.iter().take(wave).flat_map(|wave| &wave.databases) {
                assert!(
                    after.assignments()[database].is_over(),
                    "{id}: wave {wave} begins before {database} is over"
                );
            }
            for passed in had..wave {
                let soak = spec.waves[passed].soak;
                let over = before.course().over_since.filter(|_| passed == had);
                assert!(
                    soak.is_zero() || over.is_some_and(|over| over.after(soak) <= self.now),
                    "{id}: wave {passed} has not soaked"
                );
                if !soak.is_zero() {
                    self.seen.insert("wave soaked");
                }
                if spec.waves[passed + 1].approval {
                    let approved = after.course().approved.contains(&(passed + 1));
                    assert!(approved, "{id}: nobody approved wave {}", passed + 1);
                    self.seen.insert("wave approved");
                }
            }
        }
    }

    /// Where a rollout has just begun databases: within its hours, and no more than may be at work so early in a wave.
    fn check_limits(&mut self, id: &RolloutId, rollout: &Rollout) {
        let policy = &rollout.spec().policy;
        let open = matches!(Hours::at(&policy.windows, self.now), Hours::Open { .. });
        assert!(open, "{id} begins outside of its hours");
        if !policy.windows.is_empty() {
            self.seen.insert("kept to its hours");
        }
        let is_done = |name: &&DatabaseName| matches!(rollout.assignments()[*name], Assignment::Done { .. });
        let wave = rollout.wave().unwrap();
        let room = 1 + wave.databases.iter().filter(is_done).count();
        let at_work = rollout
            .assignments()
            .values()
            .filter(|of| of.work().is_some())
            .count();
        assert!(
            !policy.ramp_up || at_work <= room,
            "{id} ramps up to {at_work}, with room for {room}"
        );
    }

    /// Nobody gets more than may be at work by one agent, and a drained agent gets nothing.
    fn check_agents(&mut self, before: &BTreeMap<RolloutId, Arc<Rollout>>) {
        let Some(book) = &self.leader else { return };
        let mut at_work: BTreeMap<&AgentId, usize> = BTreeMap::new();
        // The loosest limit of those that have just given it something: the last of them was within its own.
        let mut limits: BTreeMap<&AgentId, usize> = BTreeMap::new();
        for (id, after) in book.rollouts() {
            let limit = after.spec().policy.max_per_agent;
            let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
            for (database, assignment) in after.assignments() {
                let Some(work) = assignment.work() else { continue };
                *at_work.entry(&work.agent).or_default() += 1;
                let earlier = before
                    .get(id)
                    .and_then(|before| before.assignments()[database].work());
                if earlier.is_some_and(|earlier| earlier.holder == work.holder) || !before.contains_key(id) {
                    continue;
                }
                let drained = book.fleet().drains().contains_key(&work.agent);
                assert!(!drained, "{id}: {} is drained, and begins {database}", work.agent);
                let loosest = limits.entry(&work.agent).or_default();
                *loosest = limit.max(*loosest);
            }
        }
        for (agent, limit) in limits {
            assert!(
                at_work[agent] <= limit,
                "{agent} is at work on {}, of {limit}",
                at_work[agent]
            );
            if at_work[agent] == limit {
                self.seen.insert("limit of an agent reached");
            }
        }
    }

    /// Neither a wave nor an end comes before the checks of the wave before have passed.
    fn check_checks(&self, id: &RolloutId, before: &Rollout, after: &Rollout) {
        let went_on = after.course().wave > before.course().wave;
        let ended = matches!(after.phase(), Phase::Done { .. }) && !before.phase().is_ended();
        if !went_on && !ended {
            return;
        }
        let last = after.course().wave - usize::from(!ended);
        for wave in before.course().wave..=last {
            let free = after.spec().waves[wave].checks.is_empty();
            assert!(
                free || self.passed.contains(&(id.clone(), wave)),
                "{id}: the checks of wave {wave} have not passed"
            );
        }
    }

    /// Checks have their answers, now or later, or never.
    fn answer_checks(&mut self) {
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

    /// A leader that was frozen goes on where it was; its term is over.
    fn wake_stale(&mut self) {
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

    /// Someone looks after rollouts that wait for it.
    fn settle(&mut self) {
        let Some(book) = &self.leader else { return };
        let mut asks = Vec::new();
        for rollout in book.live() {
            let id = rollout.spec().id.clone();
            let next = rollout.course().wave + 1;
            if let Phase::Paused { .. } = rollout.phase() {
                asks.push((id, Verb::Resume));
            } else if rollout.spec().waves.get(next).is_some_and(|wave| wave.approval) {
                asks.push((id, Verb::Approve { wave: None }));
            }
        }
        let drained: Vec<_> = book.fleet().drains().keys().cloned().collect();
        for (id, verb) in asks {
            self.ask(&id, verb);
        }
        for id in drained {
            if self.leader.is_some() {
                self.drain(&id);
            }
        }
    }

    fn ask(&mut self, id: &RolloutId, verb: Verb) {
        let Some(book) = &mut self.leader else { return };
        let ended = book.rollouts()[id].phase().is_ended();
        let wave = book.rollouts()[id].course().wave;
        let ignores = verb == Verb::IgnoreChecks;
        let seen = match &verb {
            Verb::Resume => "resumed",
            Verb::Retry { .. } if ended => "opened again",
            Verb::Retry { .. } => "failures retried",
            Verb::Skip { .. } => "database skipped",
            _ => "asked",
        };
        if let Ok(changes) = book.ask(id, verb, "ada".to_owned(), String::new(), self.now) {
            if !changes.is_empty() {
                self.seen.insert(seen);
            }
            if ignores && book.rollouts()[id].course().checked {
                self.passed.insert((id.clone(), wave));
                self.seen.insert("checks ignored");
            }
            self.commit(changes);
        }
    }

    /// Someone asks something of a rollout.
    fn operate(&mut self) {
        let Some(book) = &self.leader else { return };
        let rollouts: Vec<_> = book.rollouts().keys().cloned().collect();
        if rollouts.is_empty() {
            return;
        }
        let id = rollouts[self.random.below(rollouts.len())].clone();
        let databases: Vec<_> = book.rollouts()[&id].assignments().keys().cloned().collect();
        let one = BTreeSet::from([databases[self.random.below(databases.len())].clone()]);
        let verb = match self.random.below(24) {
            0 => Verb::Abort,
            1..=4 => Verb::Pause,
            5..=8 => Verb::Resume,
            9..=14 => Verb::Retry {
                databases: BTreeSet::new(),
            },
            15 | 16 => Verb::Retry { databases: one },
            17 | 18 => Verb::Skip { databases: one },
            19 => Verb::IgnoreChecks,
            20 => Verb::Approve { wave: None },
            _ => Verb::Approve {
                wave: Some(format!("w{}", self.random.below(3))),
            },
        };
        self.ask(&id, verb);
    }

    fn fault(&mut self) {
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
    fn expire_old(&mut self) {
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

    /// By its own clock an agent knows how long its lease is valid, whoever it can reach; where that clock is slow, the
    /// lease may have ended before.
    fn heed_clock(&mut self, id: &AgentId, lives: bool) {
        let agent = self.agents.get_mut(id).unwrap();
        let now = agent.clock.at(self.time);
        let valid = agent.renewed.0.until(now) < clock::VALID;
        if agent.stream.is_some() && lives {
            agent.renewed = (now, self.time);
        }
        for job in agent.work.values_mut() {
            match job {
                Job::Working {
                    stop: stop @ false, ..
                } if !valid => {
                    *stop = true;
                    self.seen.insert("stopped by its own clock");
                }
                Job::Working { stop: false, .. } if !lives => {
                    self.seen.insert("worked beyond its lease");
                }
                Job::Working { .. } | Job::Finished(_) => {}
            }
        }
    }

    /// An agent's lease ends in the store, with all its keys.
    fn expire(&mut self, id: &AgentId) {
        if let Some(agent) = self.store.agents.remove(id) {
            self.store.leases.retain(|_, (lease, _, _)| *lease != agent.lease);
        }
    }

    fn cut(&mut self, id: &AgentId) {
        let agent = self.agents.get_mut(id).unwrap();
        agent.stream = None;
        agent.inbox.clear();
        if let Some(book) = &mut self.leader {
            book.detach(id, self.now);
        }
    }

    fn kill(&mut self, id: &AgentId) {
        self.cut(id);
        let agent = self.agents.get_mut(id).unwrap();
        agent.instance += 1;
        agent.lease = None;
        agent.frozen = false;
        agent.work.clear();
    }

    /// An agent gets no new work, or gets some again.
    fn drain(&mut self, id: &AgentId) {
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
    fn join(&mut self) {
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

    /// A new rollout over a random part of the fleet.
    fn request(&mut self) {
        let Some(book) = &self.leader else { return };
        let number = book.next_number();
        if number > 4 {
            return;
        }
        let chosen: BTreeMap<_, _> = (self.targets.keys().enumerate())
            .filter(|_| self.random.percent(60))
            .map(|(place, name)| {
                let tier = if place % 2 == 0 { "gold" } else { "bronze" };
                (
                    name.clone(),
                    BTreeMap::from([("tier".to_owned(), tier.to_owned())]),
                )
            })
            .collect();
        if chosen.is_empty() {
            return;
        }
        let mut policy = self.policy();
        policy.waves = (0..self.random.below(3))
            .map(|place| some_rule(&mut self.random, place, &chosen))
            .collect();
        policy.checks = some_checks(&mut self.random);
        // A rule that takes nothing is refused.
        let Ok(waves) = waves::plan(&policy, &chosen, &self.random.next().to_string()) else {
            return;
        };
        let spec = Spec {
            waves,
            ..sample::spec(number, &[], policy)
        };
        self.store.found(spec.clone());
        if let Some(book) = &mut self.leader {
            book.found(spec);
        }
    }

    /// A rollout is taken back.
    fn undo(&mut self) {
        let Some(book) = &mut self.leader else { return };
        let rollouts: Vec<_> = book.rollouts().keys().cloned().collect();
        if rollouts.is_empty() || book.next_number() > 7 {
            return;
        }
        let of = rollouts[self.random.below(rollouts.len())].clone();
        if book.undo_under_way(&of).is_some() {
            return;
        }
        let number = book.next_number();
        let wish = Wish {
            request: sample::spec(number, &[], Policy::default()).request,
            data_loss: DataLoss::Refused,
            hours: undo::Hours::Kept,
            by: "ada".to_owned(),
            reason: String::new(),
            trace: None,
        };
        let id = sample::spec(number, &[], Policy::default()).id;
        let Ok(spec) = book.undo(&book.rollouts()[&of], wish, id, self.now) else {
            return;
        };
        let aborted = book.ask(&of, Verb::Abort, "ada".to_owned(), String::new(), self.now);
        if self.commit(aborted.unwrap_or_default()) {
            self.store.found(spec.clone());
            self.leader.as_mut().unwrap().found(spec);
        }
    }

    fn policy(&mut self) -> Policy {
        let random = &mut self.random;
        let mut some = |most| u32::try_from(1 + random.below(most)).unwrap();
        let (max_in_flight, max_per_server, budget) = (some(3), some(2), some(3));
        // Closed for one minute in the middle of the run.
        let windows = r#"[
            { "from": "00:16", "to": "00:17", "zone": "UTC" },
            { "from": "00:18", "to": "00:16", "zone": "UTC" }
        ]"#;
        let windows = if random.percent(20) { windows } else { "[]" };
        Policy {
            max_in_flight,
            max_per_server,
            max_per_agent: random.percent(20).then_some(1),
            max_attempts: 3,
            max_retry_delay: WithUnit(Duration::from_secs(4)),
            failure_budget: if random.percent(30) {
                Budget::Percent(20 * budget)
            } else {
                Budget::Count(budget)
            },
            ramp_up: random.percent(20),
            unreachable: if random.percent(30) {
                Unreachable::Skip
            } else {
                Unreachable::Wait
            },
            windows: serde_json::from_str(windows).unwrap(),
            waves: Vec::new(),
            checks: Vec::new(),
            ..Policy::default()
        }
    }

    /// A new leader reads what is stored.
    fn elect(&mut self) {
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

    /// What an agent does when it gets some time.
    fn live(&mut self, id: &AgentId) {
        if self.leader.is_some() && self.agents[id].stream.is_none() && self.random.percent(50) {
            self.greet(id);
        }
        let lease = self.agents[id].lease;
        let lives = self
            .store
            .agents
            .get(id)
            .is_some_and(|agent| Some(agent.lease) == lease);
        self.heed_clock(id, lives);
        let agent = self.agents.get_mut(id).unwrap();
        if agent.stream.is_some() && !lives {
            // The answer to its heartbeat: the lease is gone. It stops and says Hello again.
            agent.lease = None;
            agent.stream = None;
            for job in agent.work.values_mut() {
                if let Job::Working { stop, .. } = job {
                    *stop = true;
                }
            }
        }
        for message in std::mem::take(&mut agent.inbox) {
            self.obey(id, message);
        }
        self.labour(id);
    }

    fn greet(&mut self, id: &AgentId) {
        self.streams += 1;
        let stream = self.streams;
        let agent = &self.agents[id];
        let known = self.store.agents.get(id).map(|stored| stored.lease);
        let lease = match agent.lease {
            Some(lease) if known == Some(lease) => lease,
            Some(_) | None => {
                self.store.revision += 1;
                self.store.revision
            }
        };
        let hello = Hello {
            agent: id.clone(),
            instance: Instance(Uuid::from_u128(agent.instance)),
            version: if stream.is_multiple_of(4) {
                "0.0.1"
            } else {
                release::OURS
            }
            .to_owned(),
            databases: self.served[id]
                .iter()
                .map(|name| (name.clone(), BTreeMap::new()))
                .collect(),
            lease: agent.lease,
            held: agent.work.keys().cloned().collect(),
        };
        let changes = self.leader.as_mut().unwrap().attach(&hello, lease, self.now);
        if !self.commit(changes) {
            return;
        }
        let agent = self.agents.get_mut(id).unwrap();
        agent.lease = Some(lease);
        agent.renewed = (agent.clock.at(self.time), self.time);
        agent.stream = Some(stream);
        agent.inbox.clear();
        let located = self.served[id].iter().map(|name| {
            let oid = u32::try_from(self.targets.keys().position(|other| other == name).unwrap()).unwrap();
            Located {
                database: name.clone(),
                identity: Ok(Identity {
                    system: i64::from(oid % 2),
                    database: oid,
                }),
                epoch: None,
            }
        });
        self.posted
            .push((id.clone(), stream, FromAgent::Inventory(located.collect())));
        let finished = agent.work.iter().filter_map(|(of, job)| match job {
            Job::Finished(finish) => Some(FromAgent::Finished {
                of: of.clone(),
                finish: finish.clone(),
            }),
            Job::Working { .. } => None,
        });
        self.posted
            .extend(finished.map(|message| (id.clone(), stream, message)));
    }

    fn obey(&mut self, id: &AgentId, message: ToAgent) {
        let agent = self.agents.get_mut(id).unwrap();
        let Some(stream) = agent.stream else { return };
        let answer = match message {
            ToAgent::Look {
                look,
                database,
                bundle,
                aim,
                ..
            } => {
                let target = &self.targets[&database];
                let result = match self.random.below(10) {
                    0 if self.faults => Look::Failed(sample::failure(Retryability::Retry)),
                    _ if target.held && self.faults => Look::Held {
                        by: "someone".to_owned(),
                    },
                    _ => target.look(&bundle, &aim),
                };
                FromAgent::Looked {
                    look,
                    database,
                    result,
                }
            }
            ToAgent::Assign { order, .. } => {
                let of = Holding::of(&order);
                if self.granted_in[&of.token] != self.elections {
                    self.seen.insert("work given by a later leader");
                }
                agent
                    .work
                    .entry(of)
                    .or_insert(Job::Working { order, stop: false });
                return;
            }
            ToAgent::Stop { of, .. } => match agent.work.get_mut(&of) {
                Some(Job::Working { stop, .. }) => {
                    *stop = true;
                    return;
                }
                Some(Job::Finished(finish)) => FromAgent::Finished {
                    of,
                    finish: finish.clone(),
                },
                None => FromAgent::Finished {
                    of,
                    finish: Finish::Stopped(Summary::default()),
                },
            },
            ToAgent::Acknowledged(of) => {
                agent.work.remove(&of);
                return;
            }
            other => panic!("{other:?}"),
        };
        self.posted.push((id.clone(), stream, answer));
    }

    /// Each job takes the fence and, some time, ends.
    fn labour(&mut self, id: &AgentId) {
        let agent = self.agents.get_mut(id).unwrap();
        for (of, job) in &mut agent.work {
            let Job::Working { order, stop } = job else {
                continue;
            };
            let target = self.targets.get_mut(&of.database).unwrap();
            let finish = if target.fence > (of.token, 0) {
                Finish::Replaced {
                    by: "a later one".to_owned(),
                    newer: if target.fence.0 > of.token {
                        Newer::Lease
                    } else {
                        Newer::Local
                    },
                    spent: Summary::default(),
                }
            } else {
                target.fence = (of.token, 0);
                match self.random.below(12) {
                    _ if *stop || self.faults && self.random.percent(1) => {
                        Finish::Stopped(Summary::default())
                    }
                    0 if self.faults => {
                        Finish::Failed(sample::failure(Retryability::Retry), Summary::default())
                    }
                    1 if self.faults && self.random.percent(10) => {
                        Finish::Failed(sample::failure(Retryability::GiveUp), Summary::default())
                    }
                    2 if self.faults && self.random.percent(3) => {
                        Finish::Failed(sample::failure(Retryability::StopRollout), Summary::default())
                    }
                    3..=6 => {
                        target.carry_out(order);
                        Finish::Done(Summary::default())
                    }
                    _ => continue,
                }
            };
            *job = Job::Finished(finish.clone());
            if let Some(stream) = agent.stream {
                self.posted.push((
                    id.clone(),
                    stream,
                    FromAgent::Finished {
                        of: of.clone(),
                        finish,
                    },
                ));
            }
        }
    }

    /// One round of the leader: hear, decide, commit, tell.
    fn lead(&mut self) {
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

    /// Writes changes, each all or nothing. When a write is refused, or its outcome is not known, the book is thrown
    /// away; how much was written is random then.
    fn commit(&mut self, changes: Vec<Change>) -> bool {
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

    fn write(&mut self, change: &Change) -> bool {
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

    /// An agent that is gone for good, if others serve all its databases, or they can be left out; its lease runs out.
    fn bury(&mut self, id: &AgentId) {
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

    /// The faults stop; everything must come to its end.
    fn calm(&mut self) {
        self.faults = false;
        for agent in self.agents.values_mut() {
            agent.frozen = false;
        }
        for id in self.served.keys().cloned().collect::<Vec<_>>() {
            if self.random.percent(50) {
                self.bury(&id);
            }
        }
        for _ in 0..CALM_STEPS {
            let ended = |book: &Book| book.live().is_empty();
            if self.leader.as_ref().is_some_and(ended) {
                return;
            }
            self.step();
        }
        let book = self.leader.as_ref().unwrap();
        panic!("not ended: {:#?}\nglances and links: {:#?}", book.live(), book);
    }

    fn check_ends(&self) {
        self.check_store();
        for rollout in self.leader.as_ref().unwrap().rollouts().values() {
            for (database, assignment) in rollout.assignments() {
                if let Assignment::Done { .. } = assignment {
                    let (target, bundle) = (&self.targets[database], rollout.spec().bundle);
                    let undone = target.undone.contains(&bundle);
                    let done = target.applied.contains(&bundle) && rollout.spec().undoes().is_none();
                    assert!(done || undone, "{database} is not done");
                }
            }
        }
        assert!(
            self.store.leases.is_empty(),
            "a lease outlived all rollouts: {:?}",
            self.store.leases
        );
    }
}

/// A wave of any kind.
fn some_rule(
    random: &mut Random,
    place: usize,
    chosen: &BTreeMap<DatabaseName, BTreeMap<String, String>>,
) -> Rule {
    let mut some = |most| u32::try_from(1 + random.below(most)).unwrap();
    let take = match some(4) {
        1 => Take::Count(some(3)),
        2 => Take::Percent(some(60)),
        3 => Take::Databases(
            chosen
                .keys()
                .take(usize::try_from(some(2)).unwrap())
                .cloned()
                .collect(),
        ),
        _ => Take::Labels(BTreeMap::from([("tier".to_owned(), "gold".to_owned())])),
    };
    let budgets = [None, None, Some(Budget::Count(2)), Some(Budget::Percent(50))];
    Rule {
        name: Some(format!("w{place}")),
        take,
        soak: Duration::from_secs(random.next() % 3 * 4),
        approval: random.percent(20),
        failure_budget: budgets[random.below(budgets.len())],
        checks: some_checks(random),
    }
}

/// Some waves have checks.
fn some_checks(random: &mut Random) -> Vec<Check> {
    let check = Check {
        name: "whole".to_owned(),
        asks: Asks::Sql("SELECT true".to_owned()),
    };
    if random.percent(25) {
        vec![check]
    } else {
        Vec::new()
    }
}

/// What a rollout shows of [`MUST_BE_SEEN`].
fn reached(rollout: &Rollout) -> Vec<&'static str> {
    let phase = match rollout.phase() {
        Phase::Done { .. } => Some("rollout done"),
        Phase::Failed { .. } => Some("rollout failed"),
        Phase::Aborted { .. } => Some("rollout aborted"),
        Phase::Paused {
            pause: Pause::Asked { .. },
        } => Some("paused by someone"),
        Phase::Paused {
            pause: Pause::Budget { wave: None, .. },
        } => Some("paused by a budget"),
        Phase::Paused {
            pause: Pause::Budget { wave: Some(_), .. },
        } => Some("paused by the budget of a wave"),
        Phase::Paused {
            pause: Pause::Check { .. },
        } => Some("paused by a check"),
        Phase::Running | Phase::Aborting { .. } => None,
    };
    let databases = rollout
        .assignments()
        .values()
        .filter_map(|assignment| match assignment {
            Assignment::Waiting {
                last: Some(Setback::LeaseLost { .. }),
                ..
            } => Some("lease lost"),
            Assignment::Waiting {
                last: Some(Setback::Replaced { .. }),
                ..
            } => Some("replaced"),
            Assignment::Waiting {
                last: Some(Setback::Stopped { .. }),
                ..
            } => Some("stopped"),
            Assignment::Waiting { .. } => None,
            Assignment::Leasing(work) | Assignment::Running { work, .. } => {
                (work.attempt() > 1).then_some("attempt after an error")
            }
            Assignment::Done { attempt: 1.., .. } if rollout.spec().undoes().is_some() => {
                Some("database undone")
            }
            Assignment::Done { attempt: 0, .. } => Some("database done by a look"),
            Assignment::Done { .. } => Some("database done"),
            Assignment::Failed { .. } => Some("database failed"),
            Assignment::Skipped {
                skip: Skip::Unreachable,
                ..
            } => Some("database left out"),
            Assignment::Skipped {
                skip: Skip::Declined { .. },
                ..
            } => Some("database not undone"),
            Assignment::Skipped { .. } => Some("database skipped"),
            Assignment::Aborted { .. } => Some("database aborted"),
        });
    phase.into_iter().chain(databases).collect()
}

fn simulate(seed: u64) -> BTreeSet<&'static str> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm();
    world.check_ends();
    world.seen
}

/// A number that the build was given.
fn given(text: Option<&str>) -> Option<u64> {
    text.map(|text| text.parse().expect("a number of seeds"))
}

/// One part of all seeds: tests run beside each other.
fn simulate_part(part: u64) {
    let from = given(option_env!("SIMULATION_FROM")).unwrap_or(0);
    let seeds = given(option_env!("SIMULATION_SEEDS")).unwrap_or(SEEDS);
    let seeds = ONE_SEED.map_or(from..from + seeds, |seed| seed..seed + 1);
    let mut seen = BTreeSet::new();
    for seed in seeds.filter(|seed| seed % PARTS == part) {
        let reached = std::panic::catch_unwind(|| simulate(seed));
        seen.extend(reached.unwrap_or_else(|_| panic!("seed {seed} failed, see above")));
    }
    let missed: Vec<_> = MUST_BE_SEEN
        .into_iter()
        .filter(|what| !seen.contains(what))
        .collect();
    assert!(ONE_SEED.is_some() || missed.is_empty(), "never seen: {missed:?}");
}

#[test]
fn every_rollout_ends_and_no_invariant_breaks_whatever_happens_1() {
    simulate_part(0);
}

#[test]
fn every_rollout_ends_and_no_invariant_breaks_whatever_happens_2() {
    simulate_part(1);
}

#[test]
fn mistakes_on_purpose_are_found() {
    let bugs = [
        Bug::BudgetOffByOne,
        Bug::WaveTooEarly,
        Bug::AssignedTwice,
        Bug::StaleTerm,
        Bug::PauseIgnored,
        Bug::ServerLimitIgnored,
        Bug::UndoneTooEarly,
        Bug::ChecksIgnored,
        Bug::HoursIgnored,
        Bug::RampUpIgnored,
        Bug::AgentLimitIgnored,
        Bug::DrainIgnored,
    ];
    for bug in bugs {
        let finds = |seed| planted::with(bug, || std::panic::catch_unwind(|| simulate(seed)).is_err());
        assert!((0..SEEDS_TO_FIND).any(finds), "{bug:?} was not found");
    }
}
