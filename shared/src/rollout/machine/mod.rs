//! One rollout and the only function that changes it.
//!
//! Its phases are drawn in [`crate::rollout::phase`], the states of its databases in [`crate::rollout::assignment`].

mod asked;

use crate::id::{AgentId, DatabaseName};
use crate::retry::Retryability;
use crate::rollout::assignment::{Assignment, Setback, Skip, Work, clipped, clipped_to};
use crate::rollout::backoff;
use crate::rollout::control::Action;
use crate::rollout::course::{Course, NextWave};
use crate::rollout::event::{Effect, Error, Event, Verdict};
use crate::rollout::phase::{Pause, Phase, Why};
#[cfg(test)]
use crate::rollout::planted::{self, Bug};
use crate::rollout::policy::Hours;
use crate::rollout::spec::Spec;
use crate::rollout::tally::{Counts, Tally};
use crate::rollout::time::Time;
use crate::rollout::transition::Before;
use crate::rollout::waves::Wave;
use crate::rollout::work::{Failure, Finish, Newer, Progress, Summary};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The pause before a database is looked at again after its work was stopped, replaced or lost: long enough not to
/// go in circles with an agent that is shutting down.
const PAUSE: Duration = Duration::from_secs(1);

/// A rollout with all its databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Never changes, and is shared by all copies of the rollout: one is made whenever it changes while it is read.
    spec: Arc<Spec>,
    course: Course,
    assignments: BTreeMap<DatabaseName, Assignment>,
    actions: Vec<Action>,
    /// The wave of each database; likewise.
    waves: Arc<BTreeMap<DatabaseName, usize>>,
    tally: Tally,
}

impl Rollout {
    /// A rollout as it is founded: all its databases wait.
    pub fn new(spec: Spec) -> Self {
        Self::restored(spec, Course::new(), BTreeMap::new(), Vec::new())
    }

    /// A rollout as it was stored. A database without a record has never left its first state; records of databases
    /// that the rollout does not have are dropped.
    pub fn restored(
        spec: Spec,
        course: Course,
        mut records: BTreeMap<DatabaseName, Assignment>,
        actions: Vec<Action>,
    ) -> Self {
        let mut tally = Tally::new(spec.waves.len());
        let mut assignments = BTreeMap::new();
        let mut waves = BTreeMap::new();
        for (wave, of) in spec.waves.iter().enumerate() {
            for database in &of.databases {
                let assignment = records.remove(database).unwrap_or_default();
                tally.add(wave, &assignment);
                assignments.insert(database.clone(), assignment);
                waves.insert(database.clone(), wave);
            }
        }
        Self {
            spec: Arc::new(spec),
            course,
            assignments,
            actions,
            waves: Arc::new(waves),
            tally,
        }
    }

    /// What was asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where it stands.
    pub fn phase(&self) -> &Phase {
        &self.course.phase
    }

    /// Where it stands, with its waves.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// Where its databases stand.
    pub fn assignments(&self) -> &BTreeMap<DatabaseName, Assignment> {
        &self.assignments
    }

    /// What was asked of it and changed it, oldest first.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// Whether a database has its turn here, so that later rollouts have to wait for it.
    pub(super) fn keeps_turn_of(&self, database: &DatabaseName) -> bool {
        self.assignments.get(database).is_some_and(Assignment::keeps_turn)
    }

    /// Whether what is counted as it changes is what counting gives, of the databases that the rollout was founded with.
    pub(super) fn is_counted(&self) -> bool {
        let mut tally = Tally::new(self.spec.waves.len());
        let both = || self.assignments.iter().zip(self.waves.iter());
        both().for_each(|((_, assignment), (_, wave))| tally.add(*wave, assignment));
        let same =
            self.assignments.len() == self.waves.len() && both().all(|((one, _), (other, _))| one == other);
        same && tally == self.tally
    }

    /// How many databases are where.
    pub fn counts(&self) -> &Counts {
        self.tally.all()
    }

    /// How many databases of a wave, from 0, are where.
    pub fn counts_of(&self, wave: usize) -> &Counts {
        self.tally.wave(wave)
    }

    /// Databases at work, those whose lease is being written included.
    pub fn in_flight(&self) -> usize {
        self.tally.all().in_flight
    }

    /// Databases at work by server, where that is known.
    pub fn servers(&self) -> &BTreeMap<i64, usize> {
        self.tally.servers()
    }

    /// The last wave that has begun.
    pub fn wave(&self) -> Option<&Wave> {
        self.spec.waves.get(self.course.wave)
    }

    /// The wave of a database.
    pub fn wave_of(&self, database: &DatabaseName) -> Option<&Wave> {
        self.spec.waves.get(*self.waves.get(database)?)
    }

    /// Whether a database is of the first of several waves.
    pub fn is_canary(&self, database: &DatabaseName) -> bool {
        let first = self.waves.get(database) == Some(&0);
        first && self.spec.waves.len() > 1 && self.spec.undoes().is_none()
    }

    /// Whether a database's wave has begun.
    pub fn has_begun(&self, database: &DatabaseName) -> bool {
        let last = self.course.wave;
        #[cfg(test)]
        let last = last + usize::from(planted::chosen(Bug::WaveTooEarly));
        if last + 1 >= self.spec.waves.len() {
            return true;
        }
        self.waves.get(database).is_some_and(|wave| *wave <= last)
    }

    /// The longest time for which a database waits before it is tried again.
    pub fn longest_wait(&self) -> Duration {
        self.spec.policy.backoff().longest.max(PAUSE)
    }

    /// How many databases may be at work now.
    pub fn most_in_flight(&self) -> usize {
        let most = usize::try_from(self.spec.policy.max_in_flight).unwrap_or(usize::MAX);
        let ramps_up = self.spec.policy.ramp_up;
        #[cfg(test)]
        let ramps_up = ramps_up && !planted::chosen(Bug::RampUpIgnored);
        if !ramps_up {
            return most;
        }
        // Each that is done makes room for one more: twice as many after each round.
        most.min(1 + self.tally.wave(self.course.wave).done)
    }

    /// Whether the checks of the last wave that has begun have not passed yet.
    pub fn needs_checks(&self) -> bool {
        #[cfg(test)]
        if planted::chosen(Bug::ChecksIgnored) {
            return false;
        }
        !self.course.checked && self.wave().is_some_and(|wave| !wave.checks.is_empty())
    }

    /// Whether nothing is left to do but to say how it ended.
    pub fn may_end(&self) -> bool {
        let aborting = matches!(self.course.phase, Phase::Aborting { .. });
        self.tally.all().unfinished() == 0 && (aborting || !self.needs_checks())
    }

    /// Why the next wave has not begun; `None` where none is left, and nothing is to be checked.
    pub fn next_wave(&self, now: Time) -> Option<NextWave> {
        let Course { wave, over_since, .. } = self.course;
        let next = self.spec.waves.get(wave + 1);
        if next.is_none() && !self.needs_checks() {
            return None;
        }
        let name = |wave: &Wave| wave.name.clone();
        let current = self.wave().map(name).unwrap_or_default();
        let left = self.tally.unfinished_up_to(wave);
        let (0, Some(since)) = (left, over_since) else {
            return Some(NextWave::Unfinished { wave: current, left });
        };
        let until = since.after(self.spec.waves[wave].soak);
        if until > now {
            return Some(NextWave::Soaking { wave: current, until });
        }
        if self.needs_checks() {
            return Some(NextWave::Checking { wave: current });
        }
        Some(match next? {
            next if next.approval && !self.course.approved.contains(&(wave + 1)) => {
                NextWave::Approval { wave: name(next) }
            }
            _ => NextWave::Due,
        })
    }

    /// Changes the rollout by what happened; the effects are to be written in one transaction.
    ///
    /// # Errors
    /// When the event does not fit, as a late or repeated message does not; then nothing has changed.
    pub fn apply(&mut self, event: Event, now: Time) -> Result<Vec<Effect>, Error> {
        let before = Before::of(&self.course);
        let mut effects = self.change(event, now)?;
        if self.course.note(&before, now) {
            for effect in &mut effects {
                if let Effect::Course(course) = effect {
                    course.clone_from(&self.course);
                }
            }
        }
        Ok(effects)
    }

    fn change(&mut self, event: Event, now: Time) -> Result<Vec<Effect>, Error> {
        match event {
            Event::Asked { verb, by, reason } => self.asked(Action {
                verb,
                by: clipped_to(LONGEST_NOTE_BYTES, by),
                reason: clipped_to(LONGEST_NOTE_BYTES, reason),
                at: now,
            }),
            Event::WaveOver => self.wave_over(now),
            Event::Checked { wave, verdict } => self.checked(wave, verdict, now),
            Event::WaveBegun => self.wave_begun(now),
            Event::LeftOut { database } => self.left_out(database, now),
            Event::FoundUpToDate { database, agent } => self.found_up_to_date(database, agent, now),
            Event::Declined { database, agent, why } => self.declined(database, agent, why, now),
            Event::LookFailed {
                database,
                agent,
                failure,
            } => self.look_failed(database, agent, failure, now),
            Event::Leased {
                database,
                agent,
                lease,
                server,
                holder,
            } => {
                let (failures, last) = self.waiting(&database)?;
                let last = last.cloned();
                let spent = self.spent_on(&database);
                self.may_start(&database, server, now)?;
                let work = Work {
                    agent,
                    lease,
                    server,
                    holder,
                    failures,
                    started_at: now,
                    last,
                    spent,
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
                progress,
            } => self.finished(database, token, finish, progress, now),
            Event::LeaseLost { database, progress } => self.lease_lost(database, progress.as_ref(), now),
            Event::Abandoned { database } => self.abandoned(database, now),
            Event::Ended => self.ended(now),
        }
    }

    /// Aborting what aborts or has ended changes nothing.
    fn abort(&mut self, why: Why) -> Vec<Effect> {
        match self.course.phase {
            Phase::Running | Phase::Paused { .. } => {
                // Running, Paused -> Aborting: someone asked, or a failure stops the rollout.
                self.go(Phase::Aborting { why })
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
        let summary = self.spent_on(&database);
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

    fn declined(
        &mut self,
        database: DatabaseName,
        agent: AgentId,
        why: String,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        let (attempt, last) = self.waiting(&database)?;
        let skipped = Assignment::Skipped {
            skip: Skip::Declined { why: clipped(why) },
            agent: Some(agent),
            attempt,
            ended_at: now,
            last: last.cloned(),
            spent: self.spent_on(&database),
        };
        // Waiting -> Skipped: it is to stay as it is.
        Ok(self.record(database, skipped, []))
    }

    fn look_failed(
        &mut self,
        database: DatabaseName,
        agent: AgentId,
        failure: Failure,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        let (failures, _) = self.waiting(&database)?;
        if let Phase::Paused { .. } = self.course.phase {
            // Nothing was begun, so nothing has failed: it is looked at again when the rollout goes on.
            return Err(Error::Phase(self.course.phase.word()));
        }
        let spent = self.spent_on(&database);
        Ok(self.failed(
            database,
            Attempt {
                agent,
                failures,
                started_at: None,
                spent,
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
        let work = work.clone();
        // Leasing -> Running: the lease is written; the store keeps the `Leasing`, see there.
        self.set(database.clone(), Assignment::Running { work, token });
        Ok(Vec::new())
    }

    fn finished(
        &mut self,
        database: DatabaseName,
        token: i64,
        finish: Finish,
        progress: Option<Progress>,
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
        let mut work = work.clone();
        let worked = work.started_at.until(now);
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
                    summary: work.spent.with(summary, worked),
                };
                self.record(database, done, release)
            }
            Finish::Failed(failure, attempt) => {
                let attempt = Attempt::of(work, attempt, worked);
                self.failed(database, attempt, failure, now, release)
            }
            // Nobody but this rollout has a lease, says the store: it does not remember that one.
            Finish::Replaced {
                by,
                newer: Newer::Lease,
                spent,
            } => {
                let attempt = Attempt::of(work, spent, worked);
                self.failed(database, attempt, forgotten_lease(&by), now, release)
            }
            Finish::Replaced {
                by,
                newer: Newer::Local,
                spent,
            } => {
                work.spent = work.spent.with(spent, worked);
                let setback = Setback::Replaced {
                    agent: work.agent.clone(),
                    by: clipped(by),
                };
                self.set_back(database, work, setback, now, release)
            }
            Finish::Stopped(spent) => {
                work.spent = work.spent.with(spent, worked);
                let setback = Setback::Stopped {
                    agent: work.agent.clone(),
                    reached: progress.map(|progress| Box::new(progress.with_open_rows(spent.open_rows))),
                };
                self.set_back(database, work, setback, now, release)
            }
        })
    }

    fn lease_lost(
        &mut self,
        database: DatabaseName,
        progress: Option<&Progress>,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        let assignment = self.find(&database)?;
        let Some(mut work) = assignment.work().cloned() else {
            return Err(state(&database, assignment, "running"));
        };
        let known = progress.map(|progress| work.spent.last_known(progress));
        let nothing = Summary {
            open_rows: work.spent.open_rows,
            ..Summary::default()
        };
        work.spent = (work.spent).with(known.unwrap_or(nothing), work.started_at.until(now));
        let setback = Setback::LeaseLost {
            agent: work.agent.clone(),
            reached: progress.cloned().map(Box::new),
        };
        let dropped = [Effect::Drop(database.clone())];
        Ok(self.set_back(database, work, setback, now, dropped))
    }

    fn abandoned(&mut self, database: DatabaseName, now: Time) -> Result<Vec<Effect>, Error> {
        let Phase::Aborting { .. } = self.course.phase else {
            return Err(Error::Phase(self.course.phase.word()));
        };
        let assignment = self.find(&database)?;
        let Assignment::Waiting { failures, last, .. } = assignment else {
            return Err(state(&database, assignment, "waiting"));
        };
        let (attempt, last) = (*failures, last.clone());
        let spent = assignment.spent();
        let agent = last.as_ref().map(|setback| setback.agent().clone());
        let aborted = Assignment::Aborted {
            agent,
            attempt,
            started_at: None,
            ended_at: now,
            last,
            spent,
        };
        // Waiting -> Aborted: the rollout aborts, nothing starts any more.
        Ok(self.record(database, aborted, []))
    }

    fn ended(&mut self, now: Time) -> Result<Vec<Effect>, Error> {
        let Counts { failed, forgiven, .. } = *self.tally.all();
        match self.tally.all().unfinished() {
            0 => {}
            unfinished => return Err(Error::Unfinished(unfinished)),
        }
        if !self.may_end()
            && let Some(wait) = self.next_wave(now)
        {
            return Err(Error::NotYet(wait));
        }
        let next = match &self.course.phase {
            // Running, Paused -> Failed, Done: nothing is left to do.
            Phase::Running | Phase::Paused { .. } if failed + forgiven > 0 => {
                Phase::Failed { at: now, why: None }
            }
            Phase::Running | Phase::Paused { .. } => Phase::Done { at: now },
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
        Ok(self.go(next))
    }

    fn wave_over(&mut self, now: Time) -> Result<Vec<Effect>, Error> {
        match self.tally.unfinished_up_to(self.course.wave) {
            0 => {}
            unfinished => return Err(Error::Unfinished(unfinished)),
        }
        self.course.over_since.get_or_insert(now);
        Ok(vec![Effect::Course(self.course.clone())])
    }

    fn checked(&mut self, wave: usize, verdict: Verdict, now: Time) -> Result<Vec<Effect>, Error> {
        let Phase::Running = self.course.phase else {
            return Err(Error::Phase(self.course.phase.word()));
        };
        let Some(NextWave::Checking { wave: name }) = self.next_wave(now) else {
            return Err(Error::NotChecking);
        };
        if wave != self.course.wave {
            return Err(Error::NotChecking);
        }
        Ok(match verdict {
            Verdict::Passed => {
                self.course.checked = true;
                vec![Effect::Course(self.course.clone())]
            }
            // Running -> Paused: someone has to look at it.
            Verdict::NotPassed(why) => self.go(Phase::Paused {
                pause: Pause::Check {
                    wave: name,
                    why: clipped_to(LONGEST_NOTE_BYTES, why),
                },
            }),
        })
    }

    fn wave_begun(&mut self, now: Time) -> Result<Vec<Effect>, Error> {
        let Phase::Running = self.course.phase else {
            return Err(Error::Phase(self.course.phase.word()));
        };
        match self.next_wave(now) {
            Some(NextWave::Due) => {}
            Some(wait) => return Err(Error::NotYet(wait)),
            None => return Err(Error::Phase("in its last wave")),
        }
        self.course.wave += 1;
        self.course.over_since = None;
        self.course.checked = false;
        Ok(vec![Effect::Course(self.course.clone())])
    }

    fn left_out(&mut self, database: DatabaseName, now: Time) -> Result<Vec<Effect>, Error> {
        let Phase::Running = self.course.phase else {
            return Err(Error::Phase(self.course.phase.word()));
        };
        let (attempt, last) = self.waiting(&database)?;
        let skipped = Assignment::Skipped {
            skip: Skip::Unreachable,
            agent: last.map(|last| last.agent().clone()),
            attempt,
            ended_at: now,
            last: last.cloned(),
            spent: self.spent_on(&database),
        };
        // Waiting -> Skipped: no agent serves it.
        Ok(self.record(database, skipped, []))
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
            spent,
        } = attempt;
        let failures = failures.saturating_add(1);
        let again = match failure.retry {
            Retryability::Retry => failures < self.spec.policy.max_attempts,
            Retryability::GiveUp | Retryability::StopRollout => false,
        };
        let stops = failure.retry == Retryability::StopRollout;
        let next = match self.course.phase {
            Phase::Running | Phase::Paused { .. } if again => {
                let seed = backoff::seed(&self.spec.id, &database, failures);
                let wait = self.spec.policy.backoff().after(failures, seed);
                // -> Waiting: the error may pass, and attempts are left.
                let last = Some(Setback::Failed { agent, failure });
                Assignment::Waiting {
                    failures,
                    not_before: now.after(wait),
                    last,
                    spent,
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
                    spent,
                }
            }
            // -> Failed: the error will not pass, or attempts are spent.
            Phase::Running
            | Phase::Paused { .. }
            | Phase::Aborting { .. }
            | Phase::Done { .. }
            | Phase::Failed { .. }
            | Phase::Aborted { .. } => Assignment::Failed {
                agent,
                attempt: failures,
                started_at,
                ended_at: now,
                failure,
                forgiven: false,
                spent,
            },
        };
        let mut effects = self.record(database.clone(), next, effects);
        if stops {
            effects.extend(self.abort(Why::Stopped { database }));
        } else {
            effects.extend(self.pause_when_spent());
        }
        effects
    }

    /// After everything that lets a database fail, or wait.
    fn pause_when_spent(&mut self) -> Vec<Effect> {
        match (&self.course.phase, self.spent()) {
            // Running -> Paused: as many failed as may.
            (Phase::Running, Some(pause)) => self.go(Phase::Paused { pause }),
            _ => Vec::new(),
        }
    }

    /// The failure budget that is spent, if one is, while databases wait that could fail too.
    fn spent(&self) -> Option<Pause> {
        if self.tally.all().waiting == 0 {
            return None;
        }
        let budget = self.spec.policy.failure_budget.of(self.assignments.len());
        let failed = self.tally.all().failed;
        #[cfg(test)]
        let budget = budget + usize::from(planted::chosen(Bug::BudgetOffByOne));
        if failed >= budget {
            return Some(Pause::Budget {
                wave: None,
                failed,
                budget,
            });
        }
        self.spec.waves.iter().enumerate().find_map(|(place, wave)| {
            let (failed, budget) = (self.tally.wave(place).failed, wave.failure_budget?);
            (failed >= budget).then(|| Pause::Budget {
                wave: Some(wave.name.clone()),
                failed,
                budget,
            })
        })
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
        let next = match self.course.phase {
            // -> Waiting: to be looked at again.
            Phase::Running | Phase::Paused { .. } => Assignment::Waiting {
                failures: work.failures,
                not_before: now.after(PAUSE),
                last,
                spent: work.spent,
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
                    spent: work.spent,
                }
            }
        };
        let mut effects = self.record(database, next, effects);
        effects.extend(self.pause_when_spent());
        effects
    }

    fn record<const N: usize>(
        &mut self,
        database: DatabaseName,
        next: Assignment,
        effects: [Effect; N],
    ) -> Vec<Effect> {
        self.set(database.clone(), next.clone());
        [Effect::Record(database, next)]
            .into_iter()
            .chain(effects)
            .collect()
    }

    /// The only place where a database's state changes.
    fn set(&mut self, database: DatabaseName, next: Assignment) {
        let Some(wave) = self.waves.get(&database).copied() else {
            return;
        };
        self.tally.add(wave, &next);
        if let Some(before) = self.assignments.insert(database, next) {
            self.tally.remove(wave, &before);
        }
    }

    /// The only place where the phase changes.
    fn go(&mut self, phase: Phase) -> Vec<Effect> {
        self.course.phase = phase;
        vec![Effect::Course(self.course.clone())]
    }

    fn find(&mut self, database: &DatabaseName) -> Result<&mut Assignment, Error> {
        self.assignments
            .get_mut(database)
            .ok_or_else(|| Error::NotIncluded(database.clone()))
    }

    /// What the attempts on a database that have ended did and cost.
    fn spent_on(&self, database: &DatabaseName) -> Summary {
        self.assignments
            .get(database)
            .map(Assignment::spent)
            .unwrap_or_default()
    }

    /// A waiting database's failures and last setback.
    fn waiting(&self, database: &DatabaseName) -> Result<(u32, Option<&Setback>), Error> {
        match self.assignments.get(database) {
            Some(Assignment::Waiting { failures, last, .. }) => Ok((*failures, last.as_ref())),
            Some(other) => Err(state(database, other, "waiting")),
            None => Err(Error::NotIncluded(database.clone())),
        }
    }

    fn may_start(&self, database: &DatabaseName, server: Option<i64>, now: Time) -> Result<(), Error> {
        match self.course.phase {
            Phase::Running => {}
            #[cfg(test)]
            Phase::Paused { .. } if planted::chosen(Bug::PauseIgnored) => {}
            _ => return Err(Error::Phase(self.course.phase.word())),
        }
        if !self.has_begun(database) {
            let wave = self.wave_of(database).map(|wave| wave.name.clone());
            return Err(Error::Wave(wave.unwrap_or_default()));
        }
        let limit = self.most_in_flight();
        if self.in_flight() >= limit {
            return Err(Error::Limit(limit));
        }
        let limit = usize::try_from(self.spec.policy.max_per_server).unwrap_or(usize::MAX);
        #[cfg(test)]
        let limit = if planted::chosen(Bug::ServerLimitIgnored) {
            usize::MAX
        } else {
            limit
        };
        let there = server.and_then(|server| self.servers().get(&server)).copied();
        if there.is_some_and(|there| there >= limit) {
            return Err(Error::ServerLimit(limit));
        }
        match Hours::at(&self.spec.policy.windows, now) {
            Hours::Open { .. } => Ok(()),
            #[cfg(test)]
            Hours::Closed { .. } if planted::chosen(Bug::HoursIgnored) => Ok(()),
            Hours::Closed { .. } => Err(Error::Hours),
        }
    }
}

/// What operators write is kept up to this size; in bytes.
const LONGEST_NOTE_BYTES: usize = 1024;

/// An attempt that met an error.
struct Attempt {
    agent: AgentId,
    failures: u32,
    started_at: Option<Time>,
    /// With those before it.
    spent: Summary,
}

impl Attempt {
    fn of(work: Work, spent: Summary, worked: Duration) -> Self {
        Self {
            agent: work.agent,
            failures: work.failures,
            started_at: Some(work.started_at),
            spent: work.spent.with(spent, worked),
        }
    }
}

fn forgotten_lease(by: &str) -> Failure {
    Failure {
        message: format!(
            "another or a restored store has led this database: {by} holds it with a later lease than any this store knows of; nothing was changed\n  help: if this store was put back from an older copy, make it the newer one with `confiture coordinator recover --reason TEXT`, then start the rollout again"
        ),
        retry: Retryability::StopRollout,
        exit: crate::rollout::work::Exit::Refused,
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
mod tests;
