//! How many workers run, and how long each rests after a batch: the law of `shared::batch` over what a probe reads every
//! second on a connection of its own.

use super::vacuum::Others;
use crate::error::Error;
use crate::metrics;
use crate::probe::{self, Known, Probe};
use crate::run::Run;
use crate::story::{AUTHORS, Rest};
use shared::batch::{Company, Health, Limits, Outlook, Pace, PaceLimits, Sample, TARGET};
use shared::plan::{Batches, Refusal};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the server is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// At ten times less than their limit replicas only slow the batches down; at this many times they stop.
const LAG_STOP: u32 = 5;

/// The duty to begin with where the author says none: that beside applications; an idle server is at full speed soon.
const FIRST_DUTY: f64 = DUTY_BESIDE;

/// The most duty beside applications where the author says none: for half of the time at least they need not share.
const DUTY_BESIDE: f64 = 0.5;

/// Workers and their rests.
pub(super) struct Pacer {
    started: Instant,
    pace: Mutex<Pace>,
    /// The time of a batch, by the author's word.
    target: Option<Duration>,
    /// Who else is at work on the server.
    company: Mutex<Company>,
    /// Whom a VACUUM would meet.
    others: Mutex<Others>,
    /// By their ranges: batches that are tried again.
    retried: Mutex<BTreeMap<i32, Retried>>,
    /// Least pause after a batch.
    pause: Duration,
    /// Keys looked at by all workers.
    keys: AtomicU64,
    /// Changes with each observation, and whenever workers come or go.
    changed: watch::Sender<u64>,
}

impl Pacer {
    pub(super) fn new(batches: &Batches, most_workers: u32) -> Self {
        let pacing = &batches.pacing;
        let max_duty = pacing.max_duty.unwrap_or(1.0);
        // Who asks for all of a worker's time asks for speed, and who says how long it rests paces it already.
        let own_pace = pacing.max_duty.is_some_and(|duty| duty >= 1.0) || !pacing.pause.is_zero();
        Self {
            started: Instant::now(),
            pace: Mutex::new(Pace::new(PaceLimits {
                max_duty,
                max_duty_beside: pacing.max_duty.unwrap_or(DUTY_BESIDE),
                max_workers: most_workers,
                first_duty: pacing.max_duty.unwrap_or(FIRST_DUTY),
                first_workers: pacing.workers.unwrap_or(1),
            })),
            target: pacing.target.or(own_pace.then_some(TARGET)),
            company: Mutex::default(),
            others: Mutex::default(),
            retried: Mutex::default(),
            pause: pacing.pause,
            keys: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        }
    }

    /// How many workers may run batches.
    pub(super) fn workers(&self) -> u32 {
        self.pace().workers()
    }

    /// The time that the next batch's rows should take.
    pub(super) fn target(&self) -> Duration {
        self.target.unwrap_or_else(|| self.company().target())
    }

    /// A batch of this range did not pass, and is tried again.
    pub(super) fn tries_again(&self, range: i32, why: Retried) {
        self.retried().insert(range, why);
    }

    /// A batch of this range was committed.
    pub(super) fn passed(&self, range: i32) {
        self.retried().remove(&range);
    }

    fn retried(&self) -> MutexGuard<'_, BTreeMap<i32, Retried>> {
        self.retried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the pace is what it is. What is tried again comes first: whatever the pace allows, it does not go on.
    pub(super) fn reason(&self) -> String {
        let reason = self.pace().reason().to_string();
        let longest = (self.retried().values()).max_by_key(|why| why.tries).copied();
        let reason = longest.map_or(reason.clone(), |why| format!("{why}; {reason}"));
        let company = self.company().to_string();
        if self.target.is_some() || company.is_empty() {
            reason
        } else {
            format!("{reason}, {company}")
        }
    }

    /// What workers rest for, as metrics name it, and what the pace says.
    pub(super) fn resting_for(&self) -> (&'static str, String) {
        let word = {
            let pace = self.pace();
            self.rests_for(&pace, pace.pause(self.target.unwrap_or(TARGET), 0.5))
        };
        (word, self.reason())
    }

    /// The author's pause, where that is longer than what the pace asks for.
    fn rests_for(&self, pace: &Pace, own: Duration) -> &'static str {
        if own < self.pause {
            AUTHORS
        } else {
            pace.reason().word()
        }
    }

    /// A batch that looked at so many keys was committed.
    pub(super) fn looked_at(&self, keys: u32) {
        self.keys.fetch_add(u64::from(keys), Ordering::Relaxed);
    }

    /// Workers came or went, or there is work for them.
    pub(super) fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// To be waited on for the next change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Rests after a batch that took so long, for as long as the pace asks for; a change of the pace counts at once.
    pub(super) async fn rest(&self, run: &Run<'_>, batch: Duration) {
        let ended = Instant::now();
        let mut told = Duration::ZERO;
        let mut tell = |reason, asked, duty, reading| {
            let rested = ended.elapsed();
            let more = rested.saturating_sub(told);
            metrics::rested(run.database.name(), reason, more);
            let pace = self.reason();
            run.control.recorder.rested(Rest {
                took: more,
                asked,
                duty,
                reason,
                reading,
                pace,
            });
            told = rested;
        };
        let jitter: f64 = rand::random();
        let mut changes = self.changes();
        loop {
            let (pause, stopped, reason, duty, reading) = {
                let pace = self.pace();
                let own = pace.pause(batch, jitter);
                let reason = self.rests_for(&pace, own);
                // A pause that its author asked for is because of no signal.
                let reading = pace.reason().reading().filter(|_| reason != AUTHORS);
                (
                    own.max(self.pause),
                    pace.is_stopped(),
                    reason,
                    pace.duty(),
                    reading,
                )
            };
            let left = pause.saturating_sub(ended.elapsed());
            if !stopped && left.is_zero() {
                return;
            }
            // Stopped, only an observation ends it.
            let nap = if stopped { INTERVAL } else { left };
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                _ = changes.changed() => {}
            }
            tell(reason, pause, duty, reading);
        }
    }

    /// Asks the operator's query, where there is one, before the first batch: what it stops must not begin.
    ///
    /// # Errors
    /// When the query itself is wrong: asking it again would be of no use, and batches must not crawl because of it.
    pub(super) async fn ask_first(&self, run: &Run<'_>) -> Result<(), Error> {
        let query = &run.database.throttle().query;
        if query.is_none() {
            return Ok(());
        }
        let mut probe = Probe::new(run.claim.tag(), Vec::new(), query.clone());
        let why = match probe.sample(run.database, Known::default()).await {
            Ok(sample) => {
                let health = Health::of(None, &sample, &limits(run));
                self.pace().observe(&health, 0.0, self.started.elapsed());
                return Ok(());
            }
            Err(probe::Error::NoNumber) => "it gives no number and no boolean".to_owned(),
            // A syntax error, a name that is not there, a right that is missing, or a query that writes.
            Err(probe::Error::Database(error))
                if (error.sqlstate()).is_some_and(|state| state.starts_with("42") || state == "25006") =>
            {
                error.to_string()
            }
            // Whatever it is, it may pass: until then the pace is that of an unhealthy server.
            Err(_) => return Ok(()),
        };
        Err(Error::Refused(Refusal::Input {
            what: format!("the operator's query (`migration.throttle_query`) cannot be asked: {why}"),
            advice: Some(
                "correct it: one SELECT of one value, which stops the batches while it is above zero or true; or remove it"
                    .to_owned(),
            ),
        }))
    }

    /// Watches the server and steers; to be run beside the workers.
    pub(super) async fn steer(&self, run: &Run<'_>, batches: &Batches) -> Infallible {
        let limits = limits(run);
        let relations = batches.parts.iter().map(|part| part.oid).collect();
        let mut probe = Probe::new(run.claim.tag(), relations, run.database.throttle().query.clone());
        let mut wal = Window::default();
        let mut before: Option<(Sample, Instant)> = None;
        let (mut keys_before, mut observed) = (0, Instant::now());
        let mut outlook = Outlook::default();
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let known = Known {
                commit_latency: run.database.commit_latency(),
                pool_waiters: Some(run.database.pool_waiters()),
            };
            let health = match probe.sample(run.database, known).await {
                Ok(mut sample) => {
                    self.met(sample.company);
                    self.saw(Others::of(&sample, Instant::now()));
                    let now = self.started.elapsed();
                    sample.wal_recent_bytes = sample
                        .wal_bytes
                        .map(|bytes| wal.grown(now, bytes, limits.checkpoint_spacing));
                    let health = Health::of(before.as_ref().map(|(sample, _)| sample), &sample, &limits);
                    before = Some((sample, Instant::now()));
                    health
                }
                Err(error) => {
                    self.met(None);
                    self.saw(Others::default());
                    error.health()
                }
            };
            let keys = self.keys.load(Ordering::Relaxed);
            let elapsed = observed.elapsed().as_secs_f64().max(0.001);
            observed = Instant::now();
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let rate = (keys - keys_before) as f64 / elapsed;
            keys_before = keys;
            let reason = {
                let mut pace = self.pace();
                let old = std::mem::discriminant(pace.reason());
                pace.observe(&health, rate, self.started.elapsed());
                (std::mem::discriminant(pace.reason()) != old).then(|| pace.reason().to_string())
            };
            if let Some(reason) = reason {
                tracing::info!(database = %run.database.name(), reason, "the pace of batches changed");
            }
            self.notify();
            self.report(run);
            self.measure(run, &mut outlook);
        }
    }

    fn report(&self, run: &Run<'_>) {
        let (reason, workers) = (self.reason(), self.workers());
        run.report(|progress| {
            progress.pace = reason;
            progress.workers = workers;
        });
    }

    /// How fast it goes, and how long it still takes at the slowest pace of late.
    fn measure(&self, run: &Run<'_>, outlook: &mut Outlook) {
        let (rows, estimated) = {
            let progress = run.control.progress.borrow();
            (progress.rows, progress.estimated_rows)
        };
        outlook.observe(self.started.elapsed(), rows);
        let left = outlook.left(estimated.saturating_sub(rows));
        let duty = if self.is_stopped() { 0.0 } else { self.duty() };
        metrics::pace(run.database.name(), duty, left.map(|left| *left.end()));
    }

    /// Whether no batch may begin.
    pub(super) fn is_stopped(&self) -> bool {
        self.pace().is_stopped()
    }

    /// The share of its time that each worker may spend in batches.
    pub(super) fn duty(&self) -> f64 {
        self.pace().duty()
    }

    /// Whom a VACUUM meets, as they were last seen.
    pub(super) fn others(&self) -> Others {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, others: Others) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    fn company(&self) -> Company {
        *self.company.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is at work beside us, or that nobody can tell.
    fn met(&self, sessions: Option<u32>) {
        let now = self.started.elapsed();
        let there = {
            let mut company = self.company.lock().unwrap_or_else(PoisonError::into_inner);
            company.observe(sessions, now);
            company.is_there()
        };
        if self.target.is_none() {
            self.pace().beside(there, now);
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // No code that can panic runs while it is locked, save for a lack of memory.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the signals of a database are held against.
fn limits(run: &Run<'_>) -> Limits {
    let throttle = run.database.throttle();
    let limits = Limits {
        cores: throttle.machine.cores,
        replica_lag: throttle.max_replica_lag,
        replica_lag_stop: throttle.max_replica_lag * LAG_STOP,
        ..Limits::default()
    };
    match run.database.commit_latency() {
        Some(baseline) => limits.for_commits_of(baseline),
        None => limits,
    }
}

/// Why a batch is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retried {
    /// Rows of the next try.
    pub(super) rows: u32,
    /// Tries that failed.
    pub(super) tries: i64,
    /// What it met, for people.
    pub(super) by: &'static str,
}

impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, tries, by } = self;
        let times = if *tries == 1 { "time" } else { "times" };
        write!(f, "a batch, halved to {rows} rows, failed {tries} {times}: {by}")
    }
}

/// How much a counter has grown of late.
#[derive(Default)]
struct Window {
    readings: VecDeque<(Duration, u64)>,
}

impl Window {
    /// Since the last reading that is at least so old, or since the first.
    fn grown(&mut self, now: Duration, counter: u64, age: Duration) -> u64 {
        self.readings.push_back((now, counter));
        while self
            .readings
            .get(1)
            .is_some_and(|(at, _)| now.saturating_sub(*at) >= age)
        {
            self.readings.pop_front();
        }
        let first = self.readings.front().map_or(counter, |(_, counter)| *counter);
        // A counter that fell was reset.
        counter.saturating_sub(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tries_again_says_why() {
        let why = Retried {
            rows: 312,
            tries: 3,
            by: "it waits for a lock that others hold",
        };
        assert_eq!(
            why.to_string(),
            "a batch, halved to 312 rows, failed 3 times: it waits for a lock that others hold"
        );
    }

    #[test]
    fn a_window_forgets_what_is_older() {
        let mut window = Window::default();
        let age = Duration::from_secs(30);
        let grown: Vec<u64> = (0..40)
            .map(|second| window.grown(Duration::from_secs(second), second * 10, age))
            .collect();
        assert_eq!((grown[0], grown[5], grown[30], grown[39]), (0, 50, 300, 300));
    }
}
