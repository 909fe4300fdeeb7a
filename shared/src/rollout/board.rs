//! The scheduler: what may be done now, what is to be done next, and why the rest waits. Reads everything, changes
//! nothing.
//!
//! A database goes through a rollout by a look (which takes no lease: most often nothing is to be done), a lease, and
//! work. Looks run ahead of the work by up to `max_in_flight` databases, so that a place that becomes free is taken in
//! the very transaction that frees it. Among several databases that could be next, the one whose agent has least to do
//! comes first.

use super::assignment::Assignment;
use super::backoff;
use super::decision::{Decision, Halt};
use super::fleet::{Fleet, Place};
use super::gate::{Blocked, Gate};
use super::machine::Rollout;
use super::message::Holding;
use super::phase::Phase;
use super::spread::{Load, Purpose, spread};
use super::time::Time;
use crate::id::{AgentId, DatabaseName, RolloutId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a look's finding is good enough to grant a lease on. What is really pending is read again under the lease.
const FRESH: Duration = Duration::from_secs(10);

/// When to look again at a database that somebody else held.
const HELD_PAUSE: Duration = Duration::from_secs(5);

/// After this a look counts as lost: longer than an agent's own limits on connecting and reading together.
const LOOK_PATIENCE: Duration = Duration::from_secs(90);

/// Everything the scheduler sees.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Rollouts that have not ended, in order of their numbers.
    pub live: &'a [&'a Rollout],
    /// Databases and agents.
    pub fleet: &'a Fleet,
    /// Agents with a stream to this coordinator.
    pub links: &'a BTreeMap<AgentId, Link>,
    /// What looks found.
    pub glances: &'a BTreeMap<DatabaseName, Glance>,
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

/// A snapshot with what is often asked of it.
#[derive(Debug)]
pub struct Board<'a> {
    snapshot: Snapshot<'a>,
    /// For each database the first live rollout that is not finished with it.
    fronts: BTreeMap<&'a DatabaseName, &'a RolloutId>,
    /// Looks and work by agent.
    loads: BTreeMap<&'a AgentId, Load>,
}

impl<'a> Board<'a> {
    /// Puts up a snapshot.
    pub fn new(snapshot: Snapshot<'a>) -> Self {
        let mut fronts = BTreeMap::new();
        let mut loads: BTreeMap<&AgentId, Load> = BTreeMap::new();
        for rollout in snapshot.live {
            for (database, assignment) in rollout.assignments() {
                if !assignment.is_over() {
                    fronts.entry(database).or_insert(&rollout.spec().id);
                }
                if let Some(work) = assignment.work() {
                    loads.entry(&work.agent).or_default().work += 1;
                }
            }
        }
        for glance in snapshot.glances.values() {
            match glance.found {
                Found::Asked(_) | Found::Pending => loads.entry(&glance.agent).or_default().looks += 1,
                Found::Held { .. } => {}
            }
        }
        Self {
            snapshot,
            fronts,
            loads,
        }
    }

    /// Whether a waiting database may be looked at or leased, apart from the limit on databases at work.
    pub fn gate(&self, rollout: &Rollout, database: &DatabaseName, not_before: Time, now: Time) -> Gate<'a> {
        let blocked = |blocked| Gate::Blocked(blocked);
        if *rollout.phase() != Phase::Running {
            return blocked(Blocked::Aborting);
        }
        if let Some(front) = self
            .fronts
            .get(database)
            .filter(|front| ***front != rollout.spec().id)
        {
            return blocked(Blocked::Earlier((*front).clone()));
        }
        // A moment further away than any wait can be means that the clock was set back: try now.
        if not_before > now && now.until(not_before) <= backoff::LONGEST {
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
        self.agents(database)
    }

    /// Who could work on a database.
    fn agents(&self, database: &DatabaseName) -> Gate<'a> {
        let mut ready = Vec::new();
        let mut unlocated = None;
        for (agent, claim) in self.snapshot.fleet.claims(database) {
            let link = self.snapshot.links.get(agent);
            if link.is_none_or(|link| link.leaving) {
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
        let known = self.snapshot.fleet.databases().get(database);
        let known = known
            .into_iter()
            .flat_map(|database| database.claims.keys().cloned())
            .collect();
        Gate::Blocked(unlocated.map_or(Blocked::NoAgent { known }, Blocked::Unlocated))
    }

    /// Why a waiting database waits.
    pub fn blocked(&self, rollout: &Rollout, database: &DatabaseName, now: Time) -> Option<Blocked> {
        let not_before = match rollout.assignments().get(database)? {
            Assignment::Waiting { not_before, .. } => *not_before,
            Assignment::Leasing(_)
            | Assignment::Running { .. }
            | Assignment::Done { .. }
            | Assignment::Failed { .. }
            | Assignment::Aborted { .. } => return None,
        };
        if let Gate::Blocked(blocked) = self.gate(rollout, database, not_before, now) {
            return Some(blocked);
        }
        let limit = Blocked::Limit(rollout.spec().policy.max_in_flight);
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
            | None => limit,
        })
    }

    /// The look at a database, if it was for this rollout.
    fn glance(&self, rollout: &Rollout, database: &DatabaseName) -> Option<&'a Glance> {
        self.snapshot
            .glances
            .get(database)
            .filter(|glance| glance.rollout == rollout.spec().id)
    }

    /// All that is to be done now. Doing it and asking again gives nothing new, until something happens.
    pub fn decide(&self, now: Time) -> Vec<Decision> {
        let mut decisions = Vec::new();
        // First what is decided already: an agent that waits for work should not wait behind looks.
        self.tell(&mut decisions);
        let mut loads = self.loads.clone();
        for rollout in self.snapshot.live {
            self.losses(rollout, &mut decisions);
            match rollout.phase() {
                Phase::Running => self.advances(rollout, &mut loads, now, &mut decisions),
                Phase::Aborting { .. } => abandons(rollout, &mut decisions),
                Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => continue,
            }
            if rollout.assignments().values().all(Assignment::is_over) {
                decisions.push(Decision::End {
                    rollout: rollout.spec().id.clone(),
                });
            }
        }
        decisions
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

    /// Leases and looks of one rollout.
    fn advances(
        &self,
        rollout: &'a Rollout,
        loads: &mut BTreeMap<&'a AgentId, Load>,
        now: Time,
        decisions: &mut Vec<Decision>,
    ) {
        let limit = usize::try_from(rollout.spec().policy.max_in_flight).unwrap_or(usize::MAX);
        let free = limit.saturating_sub(rollout.in_flight());
        let mut ready = Vec::new();
        let mut unseen = Vec::new();
        let mut ahead: usize = 0;
        for (database, assignment) in rollout.assignments() {
            let Assignment::Waiting { not_before, .. } = assignment else {
                continue;
            };
            let Gate::Open(agents) = self.gate(rollout, database, *not_before, now) else {
                continue;
            };
            let Some(glance) = self.glance(rollout, database) else {
                unseen.push((database, agents));
                continue;
            };
            let age = glance.at.until(now);
            match &glance.found {
                Found::Asked(_) if age < LOOK_PATIENCE => ahead += 1,
                Found::Pending if free == 0 => ahead += 1,
                Found::Pending if age < FRESH && agents.contains(&&glance.agent) => {
                    ready.push((database, vec![&glance.agent]));
                }
                Found::Held { .. } if age < HELD_PAUSE => {}
                Found::Asked(_) | Found::Pending | Found::Held { .. } => unseen.push((database, agents)),
            }
        }
        let id = &rollout.spec().id;
        let leases = spread(&ready, free, loads, Purpose::Lease);
        ahead += ready.len() - leases.len();
        let looks = spread(&unseen, limit.saturating_sub(ahead), loads, Purpose::Look);
        let lease = |(database, agent)| Decision::Lease {
            rollout: id.clone(),
            database,
            agent,
        };
        let look = |(database, agent)| Decision::Look {
            rollout: id.clone(),
            database,
            agent,
        };
        decisions.extend(leases.into_iter().map(lease));
        decisions.extend(looks.into_iter().map(look));
    }

    /// What agents have to be told so that they know what the state says.
    fn tell(&self, decisions: &mut Vec<Decision>) {
        let mut current = BTreeMap::new();
        for rollout in self.snapshot.live {
            for (database, assignment) in rollout.assignments() {
                if let Assignment::Running { work, token } = assignment {
                    let id = rollout.spec().id.clone();
                    let holding = Holding {
                        rollout: id,
                        database: database.clone(),
                        token: *token,
                    };
                    current.insert(holding, (&work.agent, halt(rollout)));
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
    }

    /// When there will be something to decide though nothing has happened.
    pub fn next_wake(&self, now: Time) -> Option<Time> {
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
                | Assignment::Aborted { .. } => None,
            });
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
        waits.chain(looks).filter(|time| *time > now).min()
    }
}

/// Why work of a rollout is to stop, if it is.
fn halt(rollout: &Rollout) -> Option<Halt> {
    match rollout.phase() {
        Phase::Aborting { why } => Some(Halt::Aborting(why.clone())),
        Phase::Running | Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => None,
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
