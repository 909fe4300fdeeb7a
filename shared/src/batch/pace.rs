//! How fast batches may follow each other, and how many workers run them: a control law over the server's health.
//!
//! Additive increase, multiplicative decrease (AIMD), as TCP does it: the signals are late, they saturate, and others who
//! know nothing of us share the server. Duty is the share of its time that a worker spends in batches.
//!
//! ```text
//!             level < 0.7: duty grows, then workers      critical
//!   Running   0.7 to 1:    nothing grows            ------------------>   Stopped
//!             above 1:     duty halves, a worker goes  <---------------   (no batch begins)
//!                                                     30 s below 0.6
//! ```
//!
//! Duty goes first, for it costs nothing; a worker costs a connection and must show that it is worth it. Time comes in as
//! the time since any start, so that a pace can be replayed.

use super::health::{Cause, Health};
use super::reason::Reason;
use super::signal::Harm;
use std::time::Duration;

/// Below this level the pace may grow.
const GOOD: f64 = 0.7;

/// Above this level it falls.
const BAD: f64 = 1.0;

/// A stop ends after [`CALM_TIME`] below this level, some way below [`GOOD`]: work must not begin again at the very edge.
const CALM: f64 = 0.6;
const CALM_TIME: Duration = Duration::from_secs(30);

/// By how much duty grows in a second of good health, and what is left of it after one of bad health.
const GROWTH: f64 = 0.05;
const DECAY: f64 = 0.5;

/// Duty falls no lower while work is not stopped: a fiftieth harms nobody, and it shows when the server is well again.
const FLOOR: f64 = 0.02;

/// Where only the table suffers ([`Harm::Later`]) duty falls no lower than this share of the most allowed: such causes last
/// for hours (a report, a vacuum), and the same rows leave the same dead versions however slowly they are changed.
const MODERATE: f64 = 0.25;

/// No more than this much of one observation counts as time in its health: one late probe is one observation.
const STEP: Duration = Duration::from_secs(1);

/// How often the number of workers moves at most, and how long a new one is measured at full duty. Half a minute would give
/// steadier measures, but most tables are done by then; five seconds are ten batches of a worker at the usual target.
const WORKER_TIME: Duration = Duration::from_secs(5);

/// The longest time a new worker is measured, however low the duty: it takes as long as ten batches take at that duty.
const LONGEST_TRIAL: Duration = Duration::from_mins(1);

/// Readings this soon after a move still have batches of the time before in them.
const SETTLING: Duration = Duration::from_millis(1_500);

/// A worker stays when all together get this much more done with it.
const WORTH: f64 = 1.05;

/// After this time a number of workers that was of no use, or did harm, is tried again: servers change.
const RETRY: Duration = Duration::from_mins(5);

/// The newest reading's weight in the mean throughput.
const WEIGHT: f64 = 0.4;

/// How far a pause is moved at random to either side: workers that began together must not commit together for ever.
const SWING: f64 = 0.25;

/// No batch is taken to be longer: its pause stays a number.
const LONGEST_BATCH: Duration = Duration::from_hours(1);

/// What a pace may be. Values out of their bounds are moved into them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceLimits {
    /// The most duty of each worker, from 0 (then 0.001) to 1.
    pub max_duty: f64,
    /// The most duty of each worker beside applications; where it is larger, `max_duty` counts there too.
    pub max_duty_beside: f64,
    /// The most workers, at least 1.
    pub max_workers: u32,
    /// The duty to begin with.
    pub first_duty: f64,
    /// Workers to begin with.
    pub first_workers: u32,
}

/// How fast batches may follow each other, and how many workers run them.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    limits: PaceLimits,
    state: State,
    workers: u32,
    /// The last worker added, while it is measured: what was done without it (rows per second).
    trial: Option<f64>,
    ceiling: Option<Ceiling>,
    /// No worker is added beside applications: each takes one more core from them.
    company: bool,
    /// Mean of what is done (rows per second) since the last move of workers or duty.
    throughput: Option<f64>,
    /// Since when workers and duty are what they are; `None` before the first observation.
    settled: Option<Duration>,
    /// When the number of workers last moved.
    moved: Option<Duration>,
    observed: Option<Duration>,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Running {
        duty: f64,
    },
    Stopped {
        by: Cause,
        /// Since when the level has been below [`CALM`].
        calm_since: Option<Duration>,
    },
}

/// This many workers were too many.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ceiling {
    workers: u32,
    until: Duration,
}

impl PaceLimits {
    fn in_bounds(self) -> Self {
        // NaN, which `clamp` would keep, becomes the lower bound.
        let within = |value: f64, most: f64| value.max(0.001).min(most);
        let max_duty = within(self.max_duty, 1.0);
        let max_workers = self.max_workers.max(1);
        Self {
            max_duty,
            max_duty_beside: within(self.max_duty_beside, max_duty),
            max_workers,
            first_duty: within(self.first_duty, max_duty),
            first_workers: self.first_workers.clamp(1, max_workers),
        }
    }
}

impl Pace {
    /// Begins at the first duty and workers.
    pub fn new(limits: PaceLimits) -> Self {
        let limits = limits.in_bounds();
        let (duty, workers) = (limits.first_duty, limits.first_workers);
        Self {
            limits,
            state: State::Running { duty },
            workers,
            trial: None,
            ceiling: None,
            company: false,
            throughput: None,
            settled: None,
            moved: None,
            observed: None,
            reason: Reason::SpeedingUp { duty },
        }
    }

    /// Takes the health of the server and what all workers together get done, as means since the observation before. To be
    /// called about once a second; `now` is the time since any start and must not go back.
    pub fn observe(&mut self, health: &Health, rows_per_second: f64, now: Duration) {
        let elapsed = (self.observed).map_or(STEP, |before| now.saturating_sub(before).min(STEP));
        self.observed = Some(now);
        self.reason = match &health.worst {
            Some(cause) if health.critical => self.stop(cause, now),
            worst => match &self.state {
                State::Stopped { by, calm_since } => {
                    let (by, calm_since) = (by.clone(), *calm_since);
                    self.wait_for_calm(health, by, calm_since, now)
                }
                State::Running { duty } => {
                    let duty = *duty;
                    match worst {
                        Some(cause) if cause.level() > BAD => self.slow_down(duty, cause, elapsed, now),
                        Some(cause) if cause.level() >= GOOD => self.hold(cause, rows_per_second, now),
                        Some(_) | None => self.speed_up(duty, elapsed, rows_per_second, now),
                    }
                }
            },
        };
    }

    /// Whether applications are at work: beside them no more workers run than it began with, and each rests for a part of
    /// its time.
    pub fn beside(&mut self, company: bool, now: Duration) {
        self.company = company;
        let most = self.most_duty();
        if let State::Running { duty } = &mut self.state
            && *duty > most
        {
            *duty = most;
            self.disturbed(now);
        }
        if self.workers > self.most_workers(now) {
            self.workers = self.most_workers(now);
            self.moved = Some(now);
            self.disturbed(now);
        }
    }

    /// How many workers may run batches: at least 1, also while stopped.
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// The share of its time that each worker may spend in batches; 0 while stopped.
    pub fn duty(&self) -> f64 {
        match self.state {
            State::Running { duty } => duty,
            State::Stopped { .. } => 0.0,
        }
    }

    /// Whether no batch may begin. To be asked before each.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped { .. })
    }

    /// Why it is so.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// How long after the end of a batch its worker may begin the next, so that on average it keeps to the duty; `jitter`
    /// is a random number from 0 to 1, one for each pause. A pause may be long (49 times the batch): ask again after each
    /// observation, with the same jitter, and go on as soon as the time since the batch's end is enough. While stopped
    /// it is the time that the calm takes at least.
    pub fn pause(&self, batch: Duration, jitter: f64) -> Duration {
        let duty = match self.state {
            State::Running { duty } => duty,
            State::Stopped { .. } => return CALM_TIME,
        };
        let jitter = if jitter.is_nan() {
            0.5
        } else {
            jitter.clamp(0.0, 1.0)
        };
        let swing = 1.0 + SWING * (2.0 * jitter - 1.0);
        batch.min(LONGEST_BATCH).mul_f64((1.0 - duty) / duty * swing)
    }

    /// Critical: at once, and afterwards from the bottom again.
    fn stop(&mut self, cause: &Cause, now: Duration) -> Reason {
        self.state = State::Stopped {
            by: cause.clone(),
            calm_since: None,
        };
        self.workers = 1;
        self.moved = Some(now);
        self.disturbed(now);
        stopped(cause.clone(), Duration::ZERO)
    }

    /// Stopped, and not critical any more.
    fn wait_for_calm(
        &mut self,
        health: &Health,
        by: Cause,
        calm_since: Option<Duration>,
        now: Duration,
    ) -> Reason {
        if let Some(cause) = &health.worst
            && cause.level() >= CALM
        {
            // What keeps us stopped now is what there is to be told.
            self.state = State::Stopped {
                by: cause.clone(),
                calm_since: None,
            };
            return stopped(cause.clone(), Duration::ZERO);
        }
        let since = calm_since.unwrap_or(now);
        let calm = now.saturating_sub(since);
        if calm < CALM_TIME {
            self.state = State::Stopped {
                by: by.clone(),
                calm_since: Some(since),
            };
            return stopped(by, calm);
        }
        let duty = FLOOR.min(self.limits.max_duty);
        self.state = State::Running { duty };
        self.disturbed(now);
        Reason::SpeedingUp { duty }
    }

    /// Above the limit.
    fn slow_down(&mut self, duty: f64, by: &Cause, elapsed: Duration, now: Duration) -> Reason {
        let floor = match by.harm() {
            Harm::Now => FLOOR,
            Harm::Later => MODERATE * self.limits.max_duty,
        };
        // Never more than it was: another cause may have brought it below this one's floor.
        let duty = (duty * DECAY.powf(elapsed.as_secs_f64())).max(floor).min(duty);
        self.state = State::Running { duty };
        if self.trial.is_some() {
            // The worker that was just added may well be the reason.
            self.ceiling = Some(Ceiling {
                workers: self.workers,
                until: now + RETRY,
            });
        }
        if self.workers > 1 && self.since_move(now) >= WORKER_TIME {
            self.workers -= 1;
            self.moved = Some(now);
        }
        self.disturbed(now);
        Reason::Slowed { duty, by: by.clone() }
    }

    /// Near the limit: nothing grows, but what was begun is judged.
    fn hold(&mut self, by: &Cause, rows_per_second: f64, now: Duration) -> Reason {
        self.measure(rows_per_second, now);
        self.judge(now);
        if self.is_full(now) {
            Reason::Full { duty: self.duty() }
        } else {
            Reason::Holding { by: by.clone() }
        }
    }

    /// The server is well.
    fn speed_up(&mut self, duty: f64, elapsed: Duration, rows_per_second: f64, now: Duration) -> Reason {
        let most = self.most_duty();
        if duty < most {
            let duty = (duty + GROWTH * elapsed.as_secs_f64()).min(most);
            self.state = State::Running { duty };
            self.disturbed(now);
            return Reason::SpeedingUp { duty };
        }
        self.measure(rows_per_second, now);
        self.judge(now);
        self.add_worker(now);
        if self.is_full(now) {
            Reason::Full { duty }
        } else {
            Reason::AddingWorkers {
                workers: self.workers,
            }
        }
    }

    /// Duty or workers are not what they were, so throughput begins anew, and a worker on trial stays unjudged.
    fn disturbed(&mut self, now: Duration) {
        self.trial = None;
        self.throughput = None;
        self.settled = Some(now);
    }

    fn measure(&mut self, rows_per_second: f64, now: Duration) {
        let since = *self.settled.get_or_insert(now);
        if now.saturating_sub(since) >= SETTLING && rows_per_second.is_finite() {
            let before = self.throughput.unwrap_or(rows_per_second);
            self.throughput = Some(before + WEIGHT * (rows_per_second - before));
        }
    }

    /// What is done by as many workers as there are, once it was measured for long enough.
    fn measured(&self, now: Duration) -> Option<f64> {
        let needed = WORKER_TIME.div_f64(self.most_duty()).min(LONGEST_TRIAL);
        let settled = self
            .settled
            .is_some_and(|since| now.saturating_sub(since) >= needed);
        self.throughput.filter(|_| settled)
    }

    /// Sends the worker on trial away if it was of no use.
    fn judge(&mut self, now: Duration) {
        let (Some(before), Some(with)) = (self.trial, self.measured(now)) else {
            return;
        };
        self.trial = None;
        if with <= before * WORTH {
            self.ceiling = Some(Ceiling {
                workers: self.workers,
                until: now + RETRY,
            });
            self.workers = self.workers.saturating_sub(1).max(1);
            self.moved = Some(now);
            self.disturbed(now);
        }
    }

    fn add_worker(&mut self, now: Duration) {
        if let Some(without) = self.measured(now)
            && self.workers < self.most_workers(now)
            && self.since_move(now) >= WORKER_TIME
        {
            self.workers += 1;
            self.moved = Some(now);
            self.disturbed(now);
            self.trial = Some(without);
        }
    }

    fn since_move(&self, now: Duration) -> Duration {
        self.moved
            .map_or(Duration::MAX, |moved| now.saturating_sub(moved))
    }

    fn most_workers(&self, now: Duration) -> u32 {
        let most = if self.company {
            self.limits.first_workers
        } else {
            self.limits.max_workers
        };
        match self.ceiling {
            Some(ceiling) if now < ceiling.until => most.min(ceiling.workers.max(2) - 1),
            Some(_) | None => most,
        }
    }

    fn is_full(&self, now: Duration) -> bool {
        self.duty() >= self.most_duty() && self.workers >= self.most_workers(now)
    }

    fn most_duty(&self) -> f64 {
        if self.company {
            self.limits.max_duty_beside
        } else {
            self.limits.max_duty
        }
    }
}

fn stopped(by: Cause, calm: Duration) -> Reason {
    Reason::Stopped {
        by,
        calm,
        needed: CALM_TIME,
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "pace_simulation.rs"]
mod simulation;
