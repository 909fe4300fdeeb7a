//! What an agent counts, under the names that users know.
//!
//! A database has some twenty series, all on the one agent that serves it, and none in a histogram: those are of the
//! process. An agent beside a service has one database or a few, so its histograms tell about them; with ten thousand
//! databases it is the counters that add up, to two hundred thousand series, and each scrape brings those of one agent.
//! Counters that alerts look at begin at zero: the first of all errors is an increase too.

use opentelemetry::KeyValue;
use shared::id::{DatabaseName, Direction};
use shared::plan::RowChange;
use shared::pool::{Pools, Stats};
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From a catalog change to a table of billions of rows (s).
const MIGRATION: [f64; 14] = [
    0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0,
];

/// From a free table to the end of most budgets (s).
const LOCK: [f64; 13] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Around the times that batches aim at (s).
const BATCH: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

const BATCH_ROWS: [f64; 9] = [
    1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0, 100_000.0,
];

runtime::instruments! {
    counters {
        migrations: "confiture_migration_total", "Migrations that ended on a database, by direction and outcome.";
        errors: "confiture_migration_errors_total", "Runs that ended in an error.";
        rows: "confiture_rows_total", "Rows changed in batches.";
        batch_retries: "confiture_batch_retries_total", "Batches that met a lock, a deadlock or a timeout and were tried again.";
        lock_tries: "confiture_lock_tries_total", "Tries to take a strong lock, by outcome.";
        stall_budget: "confiture_stall_budget_exhausted_total", "Times that a statement waited because applications had waited behind us for too long within a minute.";
        renewals: "confiture_lease_renewals_total", "Renewals of the agent's lease, by outcome.";
        losses: "confiture_lease_losses_total", "Times that the agent's lease ended before its work.";
        takeovers: "confiture_fence_takeovers_total", "Times that a database was taken over from another holder with its work unfinished.";
    }
    sums {
        throttled: "confiture_throttle_seconds_total", "Time that workers rested between batches, by reason.";
        stall: "confiture_application_stall_seconds_total", "Wall time in which sessions of applications waited behind ours.";
    }
    gauges {
        duty: "confiture_duty_ratio", "Share of its time that each worker of the step at work may spend in batches.";
        remaining: "confiture_work_remaining_seconds", "Estimated time left of the step at work; 0 without one.";
        connected: "confiture_coordinator_connected", "Whether a coordinator has welcomed this agent.";
        build: "confiture_build_info", "Always 1; the version is in the label.";
    }
    histograms {
        migration: "confiture_migration_duration_seconds", "Time of one migration on one database.", MIGRATION;
        lock_wait: "confiture_migration_lock_wait_seconds", "Time that one statement waited for its strong lock, over all tries.", LOCK;
        batch: "confiture_batch_duration_seconds", "Time of one batch, from its transaction's begin to its commit.", BATCH;
        batch_rows: "confiture_batch_rows", "Rows changed by one batch.", BATCH_ROWS;
    }
    observed {
        RUNNING: "confiture_migration_running_seconds", "How long the migration at work has been; 0 without one.", Gauge;
        POOL_SIZE: "confiture_connection_pool_size", "Open connections of a database's pool.", Gauge;
        POOL_ACTIVE: "confiture_connection_pool_active", "Of these, connections in use.", Gauge;
        POOL_WAITING: "confiture_connection_pool_waiting", "Requests that wait for a connection.", Gauge;
        POOL_MAX: "confiture_connection_pool_max", "Most connections that the pool may open.", Gauge;
        POOL_CREATED: "confiture_connection_pool_created_total", "Connections opened.", Counter;
        POOL_RECYCLED: "confiture_connection_pool_recycled_total", "Connections closed because they had reached their longest life.", Counter;
    }
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| Instruments::new(&runtime::telemetry::meter()));

/// How a migration ended on a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    /// At a safe point, or because somebody else took over.
    Stopped,
}

/// How a try at a lock, or all of them, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    Granted,
    Missed,
    GaveUp,
}

/// Says which version this is.
pub fn build(component: &'static str) {
    let version = env!("CARGO_PKG_VERSION");
    INSTRUMENTS.build.record(
        1.0,
        &[
            KeyValue::new("version", version),
            KeyValue::new("component", component),
        ],
    );
}

/// A database is served from now on: what is counted of it begins at zero.
pub(crate) fn served(database: &DatabaseName) {
    let of = [of(database)];
    for counter in [
        &INSTRUMENTS.errors,
        &INSTRUMENTS.stall_budget,
        &INSTRUMENTS.takeovers,
        &INSTRUMENTS.batch_retries,
    ] {
        counter.add(0, &of);
    }
    INSTRUMENTS.stall.add(0.0, &of);
    for direction in [Direction::Up, Direction::Down] {
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Stopped] {
            INSTRUMENTS
                .migrations
                .add(0, &ended_as(database, direction, outcome));
        }
    }
    at_work().entry(database.clone()).or_insert(None);
}

/// The databases that are served, and since when a migration is at work there.
static AT_WORK: Mutex<BTreeMap<DatabaseName, Option<Instant>>> = Mutex::new(BTreeMap::new());

fn at_work() -> MutexGuard<'static, BTreeMap<DatabaseName, Option<Instant>>> {
    // No code that can panic runs while it is locked, save for a lack of memory.
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A migration at work, until it is dropped.
#[derive(Debug)]
pub(crate) struct AtWork {
    database: DatabaseName,
    since: Instant,
}

impl AtWork {
    pub(crate) fn begin(database: &DatabaseName) -> Self {
        let since = Instant::now();
        at_work().insert(database.clone(), Some(since));
        Self {
            database: database.clone(),
            since,
        }
    }

    pub(crate) fn took(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(since) = at_work().get_mut(&self.database) {
            *since = None;
        }
    }
}

/// Reads the pools whenever somebody asks for the metrics.
pub fn observe_pools(pools: impl Fn() -> BTreeMap<DatabaseName, Pools> + Clone + Send + Sync + 'static) {
    let meter = runtime::telemetry::meter();
    let read = |number: Read| {
        let pools = pools.clone();
        move || -> Vec<(u64, KeyValue)> {
            let pools = pools();
            let numbers = pools
                .iter()
                .map(|(name, pools)| (number(&pools.transactions), of(name)));
            numbers.collect()
        }
    };
    let gauges: [(_, Read); 4] = [
        (POOL_SIZE, |stats| stats.size() as u64),
        (POOL_ACTIVE, |stats| stats.active as u64),
        (POOL_WAITING, |stats| stats.waiting as u64),
        (POOL_MAX, |stats| stats.max as u64),
    ];
    for (metric, number) in gauges {
        let read = read(number);
        meter
            .u64_observable_gauge(metric.name)
            .with_description(metric.help)
            .with_callback(move |observer| {
                for (number, of) in read() {
                    observer.observe(number, &[of]);
                }
            })
            .build();
    }
    let counters: [(_, Read); 2] = [
        (POOL_CREATED, |stats| stats.created),
        (POOL_RECYCLED, |stats| stats.recycled),
    ];
    for (metric, number) in counters {
        let read = read(number);
        meter
            .u64_observable_counter(metric.name)
            .with_description(metric.help)
            .with_callback(move |observer| {
                for (number, of) in read() {
                    observer.observe(number, &[of]);
                }
            })
            .build();
    }
}

/// The agent begins to serve.
pub(crate) fn started() {
    runtime::telemetry::meter()
        .f64_observable_gauge(RUNNING.name)
        .with_description(RUNNING.help)
        .with_callback(|observer| {
            let now: Vec<_> = at_work()
                .iter()
                .map(|(database, since)| {
                    (
                        of(database),
                        since.map_or(Duration::ZERO, |since| since.elapsed()),
                    )
                })
                .collect();
            for (of, time) in now {
                observer.observe(time.as_secs_f64(), &[of]);
            }
        })
        .build();
    INSTRUMENTS.losses.add(0, &[]);
    for outcome in ["renewed", "failed"] {
        INSTRUMENTS.renewals.add(0, &[KeyValue::new("outcome", outcome)]);
    }
    connected(false);
}

pub(crate) fn migration_ended(
    database: &DatabaseName,
    direction: Direction,
    outcome: Outcome,
    took: Duration,
) {
    let labels = ended_as(database, direction, outcome);
    INSTRUMENTS.migrations.add(1, &labels);
    // Without the database.
    INSTRUMENTS.migration.record(took.as_secs_f64(), &labels[1..]);
}

pub(crate) fn failed(database: &DatabaseName) {
    INSTRUMENTS.errors.add(1, &[of(database)]);
}

pub(crate) fn lock_tried(database: &DatabaseName, outcome: Lock) {
    INSTRUMENTS
        .lock_tries
        .add(1, &[of(database), outcome_of(outcome.word())]);
}

pub(crate) fn lock_waited(outcome: Lock, waited: Duration) {
    INSTRUMENTS
        .lock_wait
        .record(waited.as_secs_f64(), &[outcome_of(outcome.word())]);
}

pub(crate) fn stalled(database: &DatabaseName, time: Duration) {
    INSTRUMENTS.stall.add(time.as_secs_f64(), &[of(database)]);
}

pub(crate) fn stall_budget_exhausted(database: &DatabaseName) {
    INSTRUMENTS.stall_budget.add(1, &[of(database)]);
}

pub(crate) fn batch(database: &DatabaseName, change: &RowChange, rows: u64, took: Duration) {
    let kind = KeyValue::new(
        "kind",
        match change {
            RowChange::Update(_) => "backfill",
            RowChange::Delete => "delete",
        },
    );
    INSTRUMENTS
        .batch
        .record(took.as_secs_f64(), std::slice::from_ref(&kind));
    #[expect(clippy::cast_precision_loss, reason = "it is sorted into buckets")]
    INSTRUMENTS
        .batch_rows
        .record(rows as f64, std::slice::from_ref(&kind));
    INSTRUMENTS.rows.add(rows, &[of(database), kind]);
}

pub(crate) fn batch_retried(database: &DatabaseName) {
    INSTRUMENTS.batch_retries.add(1, &[of(database)]);
}

pub(crate) fn rested(database: &DatabaseName, reason: &'static str, time: Duration) {
    INSTRUMENTS.throttled.add(
        time.as_secs_f64(),
        &[of(database), KeyValue::new("reason", reason)],
    );
}

/// How the step at work goes; `left` where it can be told.
pub(crate) fn pace(database: &DatabaseName, duty: f64, left: Option<Duration>) {
    let of = [of(database)];
    INSTRUMENTS.duty.record(duty, &of);
    if let Some(left) = left {
        INSTRUMENTS.remaining.record(left.as_secs_f64(), &of);
    }
}

pub(crate) fn took_over(database: &DatabaseName) {
    INSTRUMENTS.takeovers.add(1, &[of(database)]);
}

pub(crate) fn lease_renewed(times: u64, failures: u64) {
    INSTRUMENTS.renewals.add(times, &[outcome_of("renewed")]);
    INSTRUMENTS.renewals.add(failures, &[outcome_of("failed")]);
}

pub(crate) fn lease_lost(times: u64) {
    INSTRUMENTS.losses.add(times, &[]);
}

pub(crate) fn connected(is: bool) {
    INSTRUMENTS.connected.record(f64::from(u8::from(is)), &[]);
}

/// A number of a pool.
type Read = fn(&Stats) -> u64;

fn of(database: &DatabaseName) -> KeyValue {
    KeyValue::new("database", database.to_string())
}

fn outcome_of(word: &'static str) -> KeyValue {
    KeyValue::new("outcome", word)
}

fn ended_as(database: &DatabaseName, direction: Direction, outcome: Outcome) -> [KeyValue; 3] {
    let kind = match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let outcome = match outcome {
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::Stopped => "stopped",
    };
    [of(database), KeyValue::new("kind", kind), outcome_of(outcome)]
}

impl Lock {
    fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Missed => "missed",
            Self::GaveUp => "gave_up",
        }
    }
}
