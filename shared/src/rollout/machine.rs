//! One rollout and the only function that changes it.
//!
//! Its phases are drawn in [`super::phase`], the states of its databases in [`super::assignment`].

use super::assignment::{Assignment, Setback, Work, clipped};
use super::backoff;
use super::event::{Effect, Error, Event};
use super::phase::{Phase, Why};
use super::spec::Spec;
use super::time::Time;
use super::work::{Failure, Finish, Newer};
use crate::id::{AgentId, DatabaseName};
use crate::retry::Retryability;
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause before a database is looked at again after its work was stopped, replaced or lost: long enough not to
/// go in circles with an agent that is shutting down.
const PAUSE: Duration = Duration::from_secs(1);

/// A rollout with all its databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    spec: Spec,
    phase: Phase,
    assignments: BTreeMap<DatabaseName, Assignment>,
}

impl Rollout {
    /// A rollout as it is founded: all its databases wait.
    pub fn new(spec: Spec) -> Self {
        let assignments = spec
            .databases
            .iter()
            .map(|database| (database.clone(), Assignment::new()))
            .collect();
        Self {
            spec,
            phase: Phase::Running,
            assignments,
        }
    }

    /// A rollout as it was stored. A database without a record has never left its first state; records of databases
    /// that the rollout does not have are dropped.
    pub fn restored(spec: Spec, phase: Phase, mut records: BTreeMap<DatabaseName, Assignment>) -> Self {
        let mut rollout = Self {
            phase,
            ..Self::new(spec)
        };
        for (database, assignment) in &mut rollout.assignments {
            if let Some(record) = records.remove(database) {
                *assignment = record;
            }
        }
        rollout
    }

    /// What was asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where it stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Where its databases stand.
    pub fn assignments(&self) -> &BTreeMap<DatabaseName, Assignment> {
        &self.assignments
    }

    /// Databases at work, those whose lease is being written included.
    pub fn in_flight(&self) -> usize {
        self.assignments
            .values()
            .filter(|assignment| assignment.work().is_some())
            .count()
    }

    /// Changes the rollout by what happened; the effects are to be written in one transaction.
    ///
    /// # Errors
    /// When the event does not fit, as a late or repeated message does not; then nothing has changed.
    pub fn apply(&mut self, event: Event, now: Time) -> Result<Vec<Effect>, Error> {
        match event {
            Event::AbortRequested { by, reason } => Ok(self.abort(Why::Asked {
                by: clipped(by),
                reason: clipped(reason),
            })),
            Event::FoundUpToDate { database, agent } => self.found_up_to_date(database, agent, now),
            Event::LookFailed {
                database,
                agent,
                failure,
            } => self.look_failed(database, agent, failure, now),
            Event::Leased {
                database,
                agent,
                lease,
                holder,
            } => {
                let (failures, last) = self.waiting(&database)?;
                let last = last.cloned();
                self.may_start()?;
                let work = Work {
                    agent,
                    lease,
                    holder,
                    failures,
                    started_at: now,
                    last,
                };
                // Waiting -> Leasing: an agent that serves it is to work on it.
                let grant = [Effect::Grant(database.clone(), work.clone())];
                Ok(self.record(database, Assignment::Leasing(work), grant))
            }
            Event::Granted { database, token } => self.granted(&database, token),
            Event::Finished {
                database,
                token,
                finish,
            } => self.finished(database, token, finish, now),
            Event::LeaseLost { database } => self.lease_lost(database, now),
            Event::Abandoned { database } => self.abandoned(database, now),
            Event::Ended => self.ended(now),
        }
    }

    /// Aborting what aborts or has ended changes nothing.
    fn abort(&mut self, why: Why) -> Vec<Effect> {
        match self.phase {
            Phase::Running => {
                // Running -> Aborting: someone asked, or a failure stops the rollout.
                self.phase = Phase::Aborting { why };
                vec![Effect::Phase(self.phase.clone())]
            }
            Phase::Aborting { .. } | Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => {
                Vec::new()
            }
        }
    }

    fn found_up_to_date(
        &mut self,
        database: DatabaseName,
        agent: AgentId,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        self.waiting(&database)?;
        let summary = super::work::Summary::default();
        let done = Assignment::Done {
            agent,
            attempt: 0,
            started_at: None,
            ended_at: now,
            summary,
        };
        // Waiting -> Done: nothing was to be done.
        Ok(self.record(database, done, []))
    }

    fn look_failed(
        &mut self,
        database: DatabaseName,
        agent: AgentId,
        failure: Failure,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        let (failures, _) = self.waiting(&database)?;
        Ok(self.failed(
            database,
            Attempt {
                agent,
                failures,
                started_at: None,
            },
            failure,
            now,
            [],
        ))
    }

    fn granted(&mut self, database: &DatabaseName, token: i64) -> Result<Vec<Effect>, Error> {
        let assignment = self.find(database)?;
        let Assignment::Leasing(work) = assignment else {
            return Err(state(database, assignment, "leasing"));
        };
        // Leasing -> Running: the lease is written; the store keeps the `Leasing`, see there.
        *assignment = Assignment::Running {
            work: work.clone(),
            token,
        };
        Ok(Vec::new())
    }

    fn finished(
        &mut self,
        database: DatabaseName,
        token: i64,
        finish: Finish,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        let assignment = self.find(&database)?;
        let Assignment::Running { work, token: present } = assignment else {
            return Err(state(&database, assignment, "running"));
        };
        if *present != token {
            return Err(Error::Token {
                database,
                given: token,
                present: *present,
            });
        }
        let work = work.clone();
        let release = [Effect::Release {
            database: database.clone(),
            token,
        }];
        Ok(match finish {
            Finish::Done(summary) => {
                let (attempt, started_at) = (work.attempt(), Some(work.started_at));
                // Running -> Done: all pending migrations were run.
                let done = Assignment::Done {
                    agent: work.agent,
                    attempt,
                    started_at,
                    ended_at: now,
                    summary,
                };
                self.record(database, done, release)
            }
            Finish::Failed(failure) => {
                let attempt = Attempt {
                    agent: work.agent,
                    failures: work.failures,
                    started_at: Some(work.started_at),
                };
                self.failed(database, attempt, failure, now, release)
            }
            // Nobody but this rollout has a lease, says the store: it does not remember that one.
            Finish::Replaced {
                by,
                newer: Newer::Lease,
            } => {
                let attempt = Attempt {
                    agent: work.agent,
                    failures: work.failures,
                    started_at: Some(work.started_at),
                };
                self.failed(database, attempt, forgotten_lease(&by), now, release)
            }
            Finish::Replaced {
                by,
                newer: Newer::Local,
            } => {
                let setback = Setback::Replaced {
                    agent: work.agent.clone(),
                    by: clipped(by),
                };
                self.set_back(database, work, setback, now, release)
            }
            Finish::Stopped => {
                let setback = Setback::Stopped {
                    agent: work.agent.clone(),
                };
                self.set_back(database, work, setback, now, release)
            }
        })
    }

    fn lease_lost(&mut self, database: DatabaseName, now: Time) -> Result<Vec<Effect>, Error> {
        let assignment = self.find(&database)?;
        let Some(work) = assignment.work().cloned() else {
            return Err(state(&database, assignment, "running"));
        };
        let setback = Setback::LeaseLost {
            agent: work.agent.clone(),
        };
        let dropped = [Effect::Drop(database.clone())];
        Ok(self.set_back(database, work, setback, now, dropped))
    }

    fn abandoned(&mut self, database: DatabaseName, now: Time) -> Result<Vec<Effect>, Error> {
        let Phase::Aborting { .. } = self.phase else {
            return Err(Error::Phase(self.phase.word()));
        };
        let assignment = self.find(&database)?;
        let Assignment::Waiting { failures, last, .. } = assignment else {
            return Err(state(&database, assignment, "waiting"));
        };
        let (attempt, last) = (*failures, last.take());
        let agent = last.as_ref().map(|setback| setback.agent().clone());
        let aborted = Assignment::Aborted {
            agent,
            attempt,
            started_at: None,
            ended_at: now,
            last,
        };
        // Waiting -> Aborted: the rollout aborts, nothing starts any more.
        Ok(self.record(database, aborted, []))
    }

    fn ended(&mut self, now: Time) -> Result<Vec<Effect>, Error> {
        let unfinished = self
            .assignments
            .values()
            .filter(|assignment| !assignment.is_over())
            .count();
        if unfinished > 0 {
            return Err(Error::Unfinished(unfinished));
        }
        let failed = self
            .assignments
            .values()
            .any(|assignment| matches!(assignment, Assignment::Failed { .. }));
        self.phase = match &self.phase {
            // Running -> Failed, Running -> Done: nothing is left to do.
            Phase::Running if failed => Phase::Failed { at: now, why: None },
            Phase::Running => Phase::Done { at: now },
            // Aborting -> Aborted, Aborting -> Failed: what was at work has ended.
            Phase::Aborting {
                why: why @ Why::Asked { .. },
            } => Phase::Aborted {
                at: now,
                why: why.clone(),
            },
            Phase::Aborting {
                why: why @ Why::Stopped { .. },
            } => Phase::Failed {
                at: now,
                why: Some(why.clone()),
            },
            ended @ (Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. }) => {
                return Err(Error::Phase(ended.word()));
            }
        };
        Ok(vec![Effect::Phase(self.phase.clone())])
    }

    /// After an error, by a look or by work.
    fn failed<const N: usize>(
        &mut self,
        database: DatabaseName,
        attempt: Attempt,
        failure: Failure,
        now: Time,
        effects: [Effect; N],
    ) -> Vec<Effect> {
        let failure = Failure {
            message: clipped(failure.message),
            ..failure
        };
        let Attempt {
            agent,
            failures,
            started_at,
        } = attempt;
        let failures = failures.saturating_add(1);
        let again = match failure.retry {
            Retryability::Retry => failures < self.spec.policy.max_attempts,
            Retryability::GiveUp | Retryability::StopRollout => false,
        };
        let stops = failure.retry == Retryability::StopRollout;
        let next = match self.phase {
            Phase::Running if again => {
                let wait = backoff::after(failures, backoff::seed(&self.spec.id, &database, failures));
                // -> Waiting: the error may pass, and attempts are left.
                let last = Some(Setback::Failed { agent, failure });
                Assignment::Waiting {
                    failures,
                    not_before: now.after(wait),
                    last,
                }
            }
            Phase::Aborting { .. } if again => {
                let last = Some(Setback::Failed {
                    agent: agent.clone(),
                    failure,
                });
                // -> Aborted: it would be tried again, but the rollout aborts.
                Assignment::Aborted {
                    agent: Some(agent),
                    attempt: failures,
                    started_at,
                    ended_at: now,
                    last,
                }
            }
            // -> Failed: the error will not pass, or attempts are spent.
            Phase::Running
            | Phase::Aborting { .. }
            | Phase::Done { .. }
            | Phase::Failed { .. }
            | Phase::Aborted { .. } => Assignment::Failed {
                agent,
                attempt: failures,
                started_at,
                ended_at: now,
                failure,
            },
        };
        let mut effects = self.record(database.clone(), next, effects);
        if stops {
            effects.extend(self.abort(Why::Stopped { database }));
        }
        effects
    }

    /// After an attempt that came to nothing and does not count.
    fn set_back(
        &mut self,
        database: DatabaseName,
        work: Work,
        setback: Setback,
        now: Time,
        effects: [Effect; 1],
    ) -> Vec<Effect> {
        let last = Some(setback);
        let next = match self.phase {
            // -> Waiting: to be looked at again.
            Phase::Running => Assignment::Waiting {
                failures: work.failures,
                not_before: now.after(PAUSE),
                last,
            },
            // -> Aborted: the rollout aborts (an ended one has nothing at work, invariant 3).
            Phase::Aborting { .. } | Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => {
                let (attempt, started_at) = (work.attempt(), Some(work.started_at));
                Assignment::Aborted {
                    agent: Some(work.agent),
                    attempt,
                    started_at,
                    ended_at: now,
                    last,
                }
            }
        };
        self.record(database, next, effects)
    }

    fn record<const N: usize>(
        &mut self,
        database: DatabaseName,
        next: Assignment,
        effects: [Effect; N],
    ) -> Vec<Effect> {
        self.assignments.insert(database.clone(), next.clone());
        [Effect::Record(database, next)]
            .into_iter()
            .chain(effects)
            .collect()
    }

    fn find(&mut self, database: &DatabaseName) -> Result<&mut Assignment, Error> {
        self.assignments
            .get_mut(database)
            .ok_or_else(|| Error::NotIncluded(database.clone()))
    }

    /// A waiting database's failures and last setback.
    fn waiting(&self, database: &DatabaseName) -> Result<(u32, Option<&Setback>), Error> {
        match self.assignments.get(database) {
            Some(Assignment::Waiting { failures, last, .. }) => Ok((*failures, last.as_ref())),
            Some(other) => Err(state(database, other, "waiting")),
            None => Err(Error::NotIncluded(database.clone())),
        }
    }

    fn may_start(&self) -> Result<(), Error> {
        let Phase::Running = self.phase else {
            return Err(Error::Phase(self.phase.word()));
        };
        let limit = self.spec.policy.max_in_flight;
        if self.in_flight() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Err(Error::Limit(limit));
        }
        Ok(())
    }
}

/// An attempt that met an error.
struct Attempt {
    agent: AgentId,
    failures: u32,
    started_at: Option<Time>,
}

fn forgotten_lease(by: &str) -> Failure {
    Failure {
        message: format!(
            "another or a restored store has led this database: {by} holds it with a later lease than any this store knows of; nothing was changed\n  help: if this store was put back from an older copy, make it the newer one with `confiture coordinator recover --reason TEXT`, then start the rollout again"
        ),
        retry: Retryability::StopRollout,
        exit: super::work::Exit::Refused,
    }
}

fn state(database: &DatabaseName, assignment: &Assignment, needed: &'static str) -> Error {
    Error::State {
        database: database.clone(),
        state: assignment.word(),
        needed,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
