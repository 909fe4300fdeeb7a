//! The scheduler: what may be done now, what is to be done next, and why the rest waits. Reads everything, changes
//! nothing.
//!
//! A database goes through a rollout by a look (which takes no lease: most often nothing is to be done), a lease, and
//! work. Looks run ahead of the work by up to `max_in_flight` databases, so that a place that becomes free is taken in
//! the very transaction that frees it. Among several databases that could be next, the one whose agent has least to do
//! comes first.

use super::assignment::Assignment;
use super::course::NextWave;
use super::decision::{Decision, Halt};
use super::fleet::{Fleet, Place};
use super::gate::{Blocked, Gate};
use super::machine::Rollout;
use super::message::Holding;
use super::phase::{Pause, Phase};
#[cfg(test)]
use super::planted::{self, Bug};
use super::policy::{Hours, Unreachable};
use super::spread::{Candidate, Choice, Limits, Loads, Purpose, spread};
use super::time::Time;
use crate::id::{AgentId, DatabaseName, RolloutId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a look's finding is good enough to grant a lease on. What is really pending is read again under the lease.
const FRESH: Duration = Duration::from_secs(10);

/// When to look again at a database that somebody else held.
const HELD_PAUSE: Duration = Duration::from_secs(5);

/// After this a look counts as lost: longer than an agent's own limits on connecting and reading together.
const LOOK_PATIENCE: Duration = Duration::from_secs(90);

/// After this a database that no agent serves is left out, where the policy says so: longer than an agent takes to be
/// started again, or to find the next leader.
const UNSERVED_PATIENCE: Duration = Duration::from_mins(2);

/// Everything the scheduler sees.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// Rollouts that have not ended, in order of their numbers.
    pub live: Vec<&'a Rollout>,
    /// Databases and agents.
    pub fleet: &'a Fleet,
    /// Agents with a stream to this coordinator.
    pub links: &'a BTreeMap<AgentId, Link>,
    /// What looks found.
    pub glances: &'a BTreeMap<DatabaseName, Glance>,
    /// Since when no agent serves databases that must not hold their wave up.
    pub unserved: &'a BTreeMap<DatabaseName, Time>,
}

/// What a connected agent knows, as far as we know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The assignments it has been given or has reported, and what it was told about each.
    pub orders: BTreeMap<Holding, Told>,
    /// Whether it takes no new work, since it was asked to end.
    pub leaving: bool,
}

/// What an agent was told about an assignment it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// To work on it.
    Work,
    /// To stop it.
    Stop,
}

/// The last look at a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// For which rollout.
    pub rollout: RolloutId,
    /// By whom.
    pub agent: AgentId,
    /// When it was asked for or, later, answered.
    pub at: Time,
    /// What came of it.
    pub found: Found,
}

/// What a look found, where the database still waits after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No answer yet to the look of this number.
    Asked(u64),
    /// Something is to be done.
    Pending,
    /// Someone who is alive and not of this store holds it.
    Held {
        /// Who, for people.
        by: String,
    },
}

/// What is to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// What changes the state.
    State,
    /// That, and what agents are to be told.
    Everything,
}

/// A snapshot at a moment, with what is often asked of it.
#[derive(Debug)]
pub struct Board<'a> {
    snapshot: Snapshot<'a>,
    now: Time,
    /// Rollouts outside their hours, and when the next begin.
    resting: BTreeMap<&'a RolloutId, Time>,
    /// Looks and work.
    loads: Loads<'a>,
}

impl<'a> Board<'a> {
    /// Puts up a snapshot.
    pub fn new(snapshot: Snapshot<'a>, now: Time) -> Self {
        let mut resting = BTreeMap::new();
        let mut loads = Loads::default();
        for rollout in &snapshot.live {
            let hours = Hours::at(&rollout.spec().policy.windows, now);
            #[cfg(test)]
            let hours = if planted::chosen(Bug::HoursIgnored) {
                Hours::Open { until: None }
            } else {
                hours
            };
            if let Hours::Closed { until } = hours {
                resting.insert(&rollout.spec().id, until);
            }
            for assignment in rollout.assignments().values() {
                if let Some(work) = assignment.work() {
                    loads.agents.entry(&work.agent).or_default().work += 1;
                    if let Some(server) = work.server {
                        loads.servers.entry(server).or_default().work += 1;
                    }
                }
            }
        }
        for (database, glance) in snapshot.glances {
            match glance.found {
                Found::Asked(_) | Found::Pending => {
                    loads.agents.entry(&glance.agent).or_default().looks += 1;
                    if let Some(server) = snapshot.fleet.server(database) {
                        loads.servers.entry(server).or_default().looks += 1;
                    }
                }
                Found::Held { .. } => {}
            }
        }
        Self {
            snapshot,
            now,
            resting,
            loads,
        }
    }

    /// Whether a waiting database may be looked at or leased, apart from the limit on databases at work.
    pub fn gate(&self, rollout: &Rollout, database: &DatabaseName, not_before: Time) -> Gate<'a> {
        let blocked = |blocked| Gate::Blocked(blocked);
        match rollout.phase() {
            Phase::Running => {}
            #[cfg(test)]
            Phase::Paused { .. } if planted::chosen(Bug::PauseIgnored) => {}
            Phase::Paused { pause } => return blocked(Blocked::Paused(pause.clone())),
            Phase::Aborting { .. } | Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => {
                return blocked(Blocked::Aborting);
            }
        }
        if !rollout.has_begun(database) {
            let wave = rollout.wave_of(database).map(|wave| wave.name.clone());
            return blocked(Blocked::Wave(wave.unwrap_or_default()));
        }
        let number = rollout.spec().number;
        let mut earlier = (self.snapshot.live.iter()).take_while(|earlier| earlier.spec().number < number);
        let front = earlier.find(|earlier| earlier.keeps_turn_of(database));
        #[cfg(test)]
        let front = front.filter(|_| !planted::chosen(Bug::AssignedTwice));
        let front = front.map(|front| &front.spec().id);
        if let Some(front) = front.or_else(|| self.undone(rollout)) {
            return blocked(Blocked::Earlier(front.clone()));
        }
        if let Some(until) = self.resting.get(&rollout.spec().id) {
            return blocked(Blocked::Hours { until: *until });
        }
        // A moment further away than any wait can be means that the clock was set back: try now.
        if not_before > self.now && self.now.until(not_before) <= rollout.longest_wait() {
            let failures = rollout
                .assignments()
                .get(database)
                .map_or(0, Assignment::failures);
            let of = rollout.spec().policy.max_attempts;
            return blocked(Blocked::Backoff {
                until: not_before,
                attempt: failures + 1,
                of,
            });
        }
        if let Some(conflict) = self.snapshot.fleet.conflict(database) {
            return blocked(Blocked::Conflict(conflict.clone()));
        }
        match self.agents(database) {
            Gate::Blocked(Blocked::NoAgent { known, .. }) => {
                let left_out = match rollout.spec().policy.unreachable {
                    Unreachable::Wait => None,
                    Unreachable::Skip => {
                        let since = self.snapshot.unserved.get(database).copied();
                        Some(since.unwrap_or(self.now).after(UNSERVED_PATIENCE))
                    }
                };
                blocked(Blocked::NoAgent { known, left_out })
            }
            gate => gate,
        }
    }

    /// The rollout that one takes back, while that lives: nothing of it may be at work any more.
    fn undone(&self, rollout: &Rollout) -> Option<&'a RolloutId> {
        let undone = rollout.spec().undoes()?;
        #[cfg(test)]
        if planted::chosen(Bug::UndoneTooEarly) {
            return None;
        }
        let mut live = self.snapshot.live.iter().map(|live| &live.spec().id);
        live.find(|live| *live == undone)
    }

    /// Who could work on a database.
    fn agents(&self, database: &DatabaseName) -> Gate<'a> {
        let mut ready = Vec::new();
        let mut unlocated = None;
        let mut draining = Vec::new();
        for (agent, claim) in self.snapshot.fleet.claims(database) {
            let link = self.snapshot.links.get(agent);
            if link.is_none_or(|link| link.leaving) {
                continue;
            }
            let drained = self.snapshot.fleet.drains().contains_key(agent);
            #[cfg(test)]
            let drained = drained && !planted::chosen(Bug::DrainIgnored);
            if drained {
                draining.push(agent.clone());
                continue;
            }
            match claim.place {
                Place::Known(_) | Place::Unreachable { .. } => ready.push(agent),
                Place::Unasked => unlocated = Some(agent.clone()),
            }
        }
        if !ready.is_empty() {
            return Gate::Open(ready);
        }
        if unlocated.is_none() && !draining.is_empty() {
            return Gate::Blocked(Blocked::Draining(draining));
        }
        let known = self.snapshot.fleet.databases().get(database);
        let known = known
            .into_iter()
            .flat_map(|database| database.claims.keys().cloned())
            .collect();
        let left_out = None;
        Gate::Blocked(unlocated.map_or(Blocked::NoAgent { known, left_out }, Blocked::Unlocated))
    }

    /// Why a waiting database waits.
    pub fn blocked(&self, rollout: &Rollout, database: &DatabaseName) -> Option<Blocked> {
        let not_before = match rollout.assignments().get(database)? {
            Assignment::Waiting { not_before, .. } => *not_before,
            Assignment::Leasing(_)
            | Assignment::Running { .. }
            | Assignment::Done { .. }
            | Assignment::Failed { .. }
            | Assignment::Skipped { .. }
            | Assignment::Aborted { .. } => return None,
        };
        let agents = match self.gate(rollout, database, not_before) {
            Gate::Open(agents) => agents,
            Gate::Blocked(blocked) => return Some(blocked),
        };
        Some(match self.glance(rollout, database) {
            Some(Glance {
                found: Found::Asked(_),
                agent,
                ..
            }) => Blocked::Looking(agent.clone()),
            Some(Glance {
                found: Found::Held { by },
                at,
                ..
            }) => Blocked::Held {
                by: by.clone(),
                until: at.after(HELD_PAUSE),
            },
            Some(Glance {
                found: Found::Pending,
                ..
            })
            | None => self.limit(rollout, database, &agents),
        })
    }

    /// The limit that a database waits for which could be next.
    fn limit(&self, rollout: &Rollout, database: &DatabaseName, agents: &[&AgentId]) -> Blocked {
        let limits = limits(rollout);
        if rollout.in_flight() < limits.all {
            let server = self.snapshot.fleet.server(database);
            if let Some(server) = server
                && let Some(load) = self.loads.servers.get(&server)
                && !load.has_room(limits.per_server, Purpose::Lease)
            {
                let limit = limits.per_server;
                return Blocked::ServerLimit { server, limit };
            }
            let busy = |agent: &&AgentId| {
                let load = self.loads.agents.get(*agent);
                load.is_some_and(|load| !load.has_room(limits.per_agent, Purpose::Lease))
            };
            if agents.iter().all(busy) {
                return Blocked::AgentLimit(limits.per_agent);
            }
        }
        if limits.all < usize::try_from(rollout.spec().policy.max_in_flight).unwrap_or(usize::MAX) {
            Blocked::RampUp(limits.all)
        } else {
            Blocked::Limit(limits.all)
        }
    }

    /// The look at a database, if it was for this rollout.
    fn glance(&self, rollout: &Rollout, database: &DatabaseName) -> Option<&'a Glance> {
        self.snapshot
            .glances
            .get(database)
            .filter(|glance| glance.rollout == rollout.spec().id)
    }

    /// All that is to be done now. Doing it and asking again gives nothing new, until something happens.
    pub fn decide(&self) -> Vec<Decision> {
        // First what is decided already: an agent that waits for work should not wait behind looks.
        let mut decisions = self.tell();
        self.decide_on(Scope::Everything, &mut decisions);
        decisions
    }

    /// All that is to be changed now: what is to be done but what agents are to be told.
    pub fn changes(&self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.decide_on(Scope::State, &mut decisions);
        decisions
    }

    fn decide_on(&self, scope: Scope, decisions: &mut Vec<Decision>) {
        let mut loads = self.loads.clone();
        for rollout in &self.snapshot.live {
            self.losses(rollout, decisions);
            match rollout.phase() {
                Phase::Running => {
                    self.advances(rollout, scope, &mut loads, decisions);
                    self.waves(rollout, decisions);
                }
                #[cfg(test)]
                Phase::Paused { .. } if planted::chosen(Bug::PauseIgnored) => {
                    self.advances(rollout, scope, &mut loads, decisions);
                }
                Phase::Paused { .. } => {}
                Phase::Aborting { .. } => abandons(rollout, decisions),
                Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => continue,
            }
            if rollout.may_end() {
                decisions.push(Decision::End {
                    rollout: rollout.spec().id.clone(),
                });
            }
        }
    }

    /// Work whose agent's lease is gone.
    fn losses(&self, rollout: &Rollout, decisions: &mut Vec<Decision>) {
        for (database, assignment) in rollout.assignments() {
            let Some(work) = assignment.work() else { continue };
            let lives = self
                .snapshot
                .fleet
                .agents()
                .get(&work.agent)
                .is_some_and(|agent| agent.lease == work.lease);
            if !lives {
                let rollout = rollout.spec().id.clone();
                decisions.push(Decision::Lose {
                    rollout,
                    database: database.clone(),
                });
            }
        }
    }

    /// Leases and looks of one rollout. Databases that nobody has looked at are gone over only where one of them can be
    /// next: there may be thousands.
    fn advances(
        &self,
        rollout: &'a Rollout,
        scope: Scope,
        loads: &mut Loads<'a>,
        decisions: &mut Vec<Decision>,
    ) {
        let limits = limits(rollout);
        let free = Limits {
            all: limits.all.saturating_sub(rollout.in_flight()),
            ..limits
        };
        let id = &rollout.spec().id;
        let mut ready = Vec::new();
        let mut unseen = Vec::new();
        let mut ahead: usize = 0;
        let waiting = || {
            let assignments = rollout.assignments().iter();
            assignments.filter_map(|(database, assignment)| {
                let Assignment::Waiting { not_before, .. } = assignment else {
                    return None;
                };
                Some((database, *not_before))
            })
        };
        let candidate = |database, agents| Candidate {
            database,
            server: self.snapshot.fleet.server(database),
            agents,
        };
        for (database, not_before) in waiting() {
            let glance = self.glance(rollout, database);
            if glance.is_none() && !self.is_given_up(database) {
                continue;
            }
            let agents = match self.gate(rollout, database, not_before) {
                Gate::Open(agents) => agents,
                Gate::Blocked(Blocked::NoAgent { .. }) if self.is_given_up(database) => {
                    decisions.push(Decision::LeaveOut {
                        rollout: id.clone(),
                        database: database.clone(),
                    });
                    continue;
                }
                Gate::Blocked(_) => continue,
            };
            let Some(glance) = glance else { continue };
            let server = self.snapshot.fleet.server(database);
            let age = glance.at.until(self.now);
            let has_place = free.all > 0 && loads.have_room(&glance.agent, server, free, Purpose::Lease);
            match &glance.found {
                Found::Asked(_) if age < LOOK_PATIENCE => ahead += 1,
                Found::Pending if !has_place => ahead += 1,
                Found::Pending if age < FRESH && agents.contains(&&glance.agent) => {
                    ready.push(candidate(database, vec![&glance.agent]));
                }
                Found::Held { .. } if age < HELD_PAUSE => {}
                Found::Held { .. } => unseen.push(candidate(database, agents)),
                Found::Asked(_) | Found::Pending => {
                    loads.forget_look(&glance.agent, server);
                    unseen.push(candidate(database, agents));
                }
            }
        }
        let leases = spread(&ready, free, loads, Purpose::Lease);
        ahead += ready.len() - leases.len();
        let looks = match scope {
            Scope::State => 0,
            Scope::Everything => limits.all.saturating_sub(ahead),
        };
        if looks > 0 {
            let unknown = waiting().filter(|(database, _)| self.glance(rollout, database).is_none());
            unseen.extend(unknown.filter_map(|(database, not_before)| {
                match self.gate(rollout, database, not_before) {
                    Gate::Open(agents) => Some(candidate(database, agents)),
                    Gate::Blocked(_) => None,
                }
            }));
            unseen.sort_by_key(|candidate| candidate.database);
        }
        let looks = Limits { all: looks, ..limits };
        let looks = spread(&unseen, looks, loads, Purpose::Look);
        let lease = |choice: Choice| Decision::Lease {
            rollout: id.clone(),
            database: choice.database,
            server: choice.server,
            agent: choice.agent,
        };
        let look = |choice: Choice| Decision::Look {
            rollout: id.clone(),
            database: choice.database,
            agent: choice.agent,
        };
        decisions.extend(leases.into_iter().map(lease));
        decisions.extend(looks.into_iter().map(look));
    }

    /// Whether a database that no agent serves is waited for no longer.
    fn is_given_up(&self, database: &DatabaseName) -> bool {
        let since = self.snapshot.unserved.get(database);
        since.is_some_and(|since| since.until(self.now) >= UNSERVED_PATIENCE)
    }

    /// Waiting databases that no agent serves, and that must not hold their wave up.
    pub fn unserved(&self) -> BTreeSet<DatabaseName> {
        let skips = |rollout: &&&'a Rollout| rollout.spec().policy.unreachable == Unreachable::Skip;
        let waiting = |rollout: &&'a Rollout| {
            let rollout: &'a Rollout = rollout;
            let assignments = rollout.assignments().iter();
            assignments.filter_map(move |(database, assignment)| match assignment {
                Assignment::Waiting { not_before, .. } => Some((rollout, database, *not_before)),
                _ => None,
            })
        };
        let waiting = self.snapshot.live.iter().filter(skips).flat_map(waiting);
        waiting
            .filter(|(rollout, database, not_before)| {
                let gate = self.gate(rollout, database, *not_before);
                matches!(gate, Gate::Blocked(Blocked::NoAgent { .. }))
            })
            .map(|(_, database, _)| database.clone())
            .collect()
    }

    /// What agents have to be told so that they know what the state says.
    fn tell(&self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut current = BTreeMap::new();
        for rollout in &self.snapshot.live {
            let halt = self.halt(rollout);
            for (database, assignment) in rollout.assignments() {
                if let Assignment::Running { work, token } = assignment {
                    let id = rollout.spec().id.clone();
                    let holding = Holding {
                        rollout: id,
                        database: database.clone(),
                        token: *token,
                    };
                    current.insert(holding, (&work.agent, halt.clone()));
                }
            }
        }
        for (agent, link) in self.snapshot.links {
            for (holding, told) in &link.orders {
                let whose = current.get(holding).map(|(whose, _)| *whose);
                if *told == Told::Work && whose != Some(agent) {
                    decisions.push(Decision::Stop {
                        agent: agent.clone(),
                        holding: holding.clone(),
                        why: Halt::Stale,
                    });
                }
            }
        }
        for (holding, (agent, stop)) in current {
            let Some(link) = self.snapshot.links.get(agent) else {
                continue;
            };
            let agent = agent.clone();
            match (link.orders.get(&holding), stop) {
                (Some(Told::Work) | None, Some(why)) => {
                    decisions.push(Decision::Stop { agent, holding, why });
                }
                (None, None) => decisions.push(Decision::Assign { agent, holding }),
                (Some(Told::Stop), _) | (Some(Told::Work), None) => {}
            }
        }
        decisions
    }

    /// Why a rollout's work is to stop, if it is.
    fn halt(&self, rollout: &Rollout) -> Option<Halt> {
        match rollout.phase() {
            Phase::Aborting { why } => Some(Halt::Aborting(why.clone())),
            Phase::Paused {
                pause: pause @ Pause::Asked { .. },
            } => Some(Halt::Paused(pause.clone())),
            // What began before too many failed comes to its own end, within the hours.
            Phase::Running | Phase::Paused { .. } => {
                let until = self.resting.get(&rollout.spec().id);
                until.map(|until| Halt::Hours { until: *until })
            }
            Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => None,
        }
    }

    /// The end of a wave, and the beginning of the next.
    fn waves(&self, rollout: &Rollout, decisions: &mut Vec<Decision>) {
        if rollout.may_end() {
            return;
        }
        let id = rollout.spec().id.clone();
        match rollout.next_wave(self.now) {
            Some(NextWave::Unfinished { left: 0, .. }) => decisions.push(Decision::WaveOver { rollout: id }),
            Some(NextWave::Due) => decisions.push(Decision::BeginWave { rollout: id }),
            Some(
                NextWave::Unfinished { .. }
                | NextWave::Soaking { .. }
                | NextWave::Checking { .. }
                | NextWave::Approval { .. },
            )
            | None => {}
        }
    }

    /// When there will be something to decide though nothing has happened.
    pub fn next_wake(&self) -> Option<Time> {
        let waits = self
            .snapshot
            .live
            .iter()
            .flat_map(|rollout| rollout.assignments().values())
            .filter_map(|a| match a {
                Assignment::Waiting { not_before, .. } => Some(*not_before),
                Assignment::Leasing(_)
                | Assignment::Running { .. }
                | Assignment::Done { .. }
                | Assignment::Failed { .. }
                | Assignment::Skipped { .. }
                | Assignment::Aborted { .. } => None,
            });
        let turns = self.snapshot.live.iter().flat_map(|rollout| {
            let soaked = match rollout.next_wave(self.now) {
                Some(NextWave::Soaking { until, .. }) => Some(until),
                _ => None,
            };
            let turn = match Hours::at(&rollout.spec().policy.windows, self.now) {
                Hours::Open { until } => until,
                Hours::Closed { until } => Some(until),
            };
            soaked.into_iter().chain(turn)
        });
        let given_up = self
            .snapshot
            .unserved
            .values()
            .map(|since| since.after(UNSERVED_PATIENCE));
        let looks = self
            .snapshot
            .glances
            .values()
            .filter_map(|glance| match glance.found {
                Found::Asked(_) => Some(glance.at.after(LOOK_PATIENCE)),
                Found::Held { .. } => Some(glance.at.after(HELD_PAUSE)),
                // Grows stale only where no place is free, and becoming free is an event.
                Found::Pending => None,
            });
        let all = waits.chain(looks).chain(turns).chain(given_up);
        all.filter(|time| *time > self.now).min()
    }
}

/// How many databases of a rollout may be at work now.
fn limits(rollout: &Rollout) -> Limits {
    let policy = &rollout.spec().policy;
    let of = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    let per_server = of(policy.max_per_server);
    #[cfg(test)]
    let per_server = if planted::chosen(Bug::ServerLimitIgnored) {
        usize::MAX
    } else {
        per_server
    };
    let per_agent = policy.max_per_agent.map_or(usize::MAX, of);
    #[cfg(test)]
    let per_agent = if planted::chosen(Bug::AgentLimitIgnored) {
        usize::MAX
    } else {
        per_agent
    };
    Limits {
        all: rollout.most_in_flight(),
        per_server,
        per_agent,
    }
}

/// Databases of an aborting rollout that still wait.
fn abandons(rollout: &Rollout, decisions: &mut Vec<Decision>) {
    for (database, assignment) in rollout.assignments() {
        if let Assignment::Waiting { .. } = assignment {
            decisions.push(Decision::Abandon {
                rollout: rollout.spec().id.clone(),
                database: database.clone(),
            });
        }
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
