//! What a coordinator counts, under the names that users know.
//!
//! Nothing is labelled with a database: of ten thousand databases the coordinator shows numbers by state, and of rollouts
//! only those that have not ended. Gauges of the fleet are read from the leader's book when somebody asks; a coordinator
//! that follows shows none of them.

use crate::seat::Seat;
use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use shared::rollout::standing::{Course, Standing};
use shared::rollout::{Time, invariant};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// From a store beside us to one that is about to be lost (s).
const STORE: [f64; 12] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

runtime::instruments! {
    counters {
        expirations: "confiture_lease_expirations_total", "Databases whose lease ended with their work unfinished.";
        store_errors: "confiture_store_errors_total", "Calls of the store that failed, by operation.";
        violations: "confiture_invariant_violations_total", "Invariants of rollouts that were found broken, by number.";
    }
    sums { }
    gauges {
        build: "confiture_build_info", "Always 1; the version is in the label.";
    }
    histograms {
        store: "confiture_store_duration_seconds", "Time of one call of the store, by operation.", STORE;
    }
    observed {
        LEADER: "confiture_leader", "Whether this coordinator leads.", Gauge;
        AGENTS: "confiture_agents", "Agents, by state; missing ones went without a goodbye, and nobody serves their databases now.", Gauge;
        DATABASES: "confiture_databases", "Databases of the fleet, by whether a connected agent reaches them.", Gauge;
        ROLLOUTS: "confiture_rollouts", "Rollouts that have not ended, by state.", Gauge;
        ROLLOUT_DATABASES: "confiture_rollout_databases", "Databases of a rollout that has not ended, by state.", Gauge;
        WAVE: "confiture_rollout_wave", "The wave at work, from 1.", Gauge;
        WAVES: "confiture_rollout_waves", "Waves in all.", Gauge;
        BLOCKED: "confiture_rollout_blocked", "Databases of a rollout that wait, by what for.", Gauge;
        MOVED: "confiture_rollout_last_progress_timestamp_seconds", "When a rollout was last seen to get anywhere, since 1970.", Gauge;
    }
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| Instruments::new(&runtime::telemetry::meter()));

/// One scrape asks for many gauges: the book is counted through once for all of them.
const FRESH: Duration = Duration::from_millis(500);

/// A call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Commit,
    Lease,
}

/// Begins to count: whatever alerts look at starts at zero. Gauges are read from what `seat` says when they are asked for.
pub(crate) fn started(seat: watch::Receiver<Seat>) {
    INSTRUMENTS.build.record(
        1.0,
        &[
            KeyValue::new("version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("component", "coordinator"),
        ],
    );
    INSTRUMENTS.expirations.add(0, &[]);
    for operation in [Operation::Read, Operation::Commit, Operation::Lease] {
        INSTRUMENTS.store_errors.add(0, &[operation.label()]);
    }
    for invariant in invariant::ALL {
        INSTRUMENTS.violations.add(0, &[number(invariant)]);
    }
    observe(Arc::new(Watched {
        seat,
        last: Mutex::new(None),
    }));
}

pub(crate) fn leases_expired(databases: u64) {
    INSTRUMENTS.expirations.add(databases, &[]);
}

pub(crate) fn violated(invariant: invariant::Invariant) {
    INSTRUMENTS.violations.add(1, &[number(invariant)]);
}

/// A call of the store has ended.
pub(crate) fn store_called<T, E>(operation: Operation, took: Duration, result: &Result<T, E>) {
    let labels = [operation.label()];
    INSTRUMENTS.store.record(took.as_secs_f64(), &labels);
    if result.is_err() {
        INSTRUMENTS.store_errors.add(1, &labels);
    }
}

impl Operation {
    fn label(self) -> KeyValue {
        KeyValue::new(
            "operation",
            match self {
                Self::Read => "read",
                Self::Commit => "commit",
                Self::Lease => "lease",
            },
        )
    }
}

fn number(invariant: invariant::Invariant) -> KeyValue {
    KeyValue::new("invariant", i64::from(invariant.number()))
}

/// What the gauges show.
struct Watched {
    seat: watch::Receiver<Seat>,
    last: Mutex<Option<(Instant, Arc<Standing>)>>,
}

impl Watched {
    fn leads(&self) -> bool {
        matches!(*self.seat.borrow(), Seat::Leading(_))
    }

    /// Of the leader alone.
    fn standing(&self) -> Option<Arc<Standing>> {
        let book = match &*self.seat.borrow() {
            Seat::Leading(reigning) => reigning.book.borrow().clone(),
            Seat::Following { .. } => return None,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, standing)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            let _ = at;
            return Some(standing.clone());
        }
        let now = Time::since_1970(runtime::unix_now());
        let standing = Arc::new(book.standing(now));
        *last = Some((Instant::now(), standing.clone()));
        Some(standing)
    }
}

/// Registers all that is read from state.
fn observe(watched: Arc<Watched>) {
    let meter = runtime::telemetry::meter();
    let gauge = |metric: runtime::telemetry::Metric, read: Read| {
        let watched = watched.clone();
        meter
            .f64_observable_gauge(metric.name)
            .with_description(metric.help)
            .with_callback(move |observer| {
                if let Some(standing) = watched.standing() {
                    read(&standing, observer);
                }
            })
            .build();
    };
    gauge(AGENTS, |standing, observer| {
        by_state(
            observer,
            &[],
            &[
                ("connected", standing.connected),
                ("draining", standing.draining),
                ("missing", standing.missing),
            ],
        );
    });
    gauge(DATABASES, |standing, observer| {
        by_state(
            observer,
            &[],
            &[
                ("reachable", standing.reachable),
                ("unreachable", standing.unreachable),
            ],
        );
    });
    gauge(ROLLOUTS, |standing, observer| {
        let counts = ["running", "paused", "aborting"].map(|state| {
            let of = standing.rollouts.iter().filter(|rollout| rollout.state == state);
            (state, of.count() as u64)
        });
        by_state(observer, &[], &counts);
    });
    gauge(ROLLOUT_DATABASES, |standing, observer| {
        for rollout in &standing.rollouts {
            let counts = &rollout.counts;
            by_state(
                observer,
                &[of(rollout)],
                &[
                    ("waiting", counts.waiting as u64),
                    ("running", counts.in_flight as u64),
                    ("done", counts.done as u64),
                    ("failed", (counts.failed + counts.forgiven) as u64),
                    ("skipped", counts.skipped as u64),
                    ("aborted", counts.aborted as u64),
                ],
            );
        }
    });
    gauge(WAVE, |standing, observer| {
        for rollout in &standing.rollouts {
            observer.observe(float(rollout.wave as u64), &[of(rollout)]);
        }
    });
    gauge(WAVES, |standing, observer| {
        for rollout in &standing.rollouts {
            observer.observe(float(rollout.waves as u64), &[of(rollout)]);
        }
    });
    gauge(BLOCKED, |standing, observer| {
        for rollout in &standing.rollouts {
            for (reason, databases) in &rollout.blocked {
                observer.observe(
                    float(*databases),
                    &[of(rollout), KeyValue::new("reason", *reason)],
                );
            }
        }
    });
    gauge(MOVED, |standing, observer| {
        for rollout in &standing.rollouts {
            let seconds = Duration::from_millis(rollout.moved.0).as_secs_f64();
            observer.observe(seconds, &[of(rollout)]);
        }
    });
    meter
        .f64_observable_gauge(LEADER.name)
        .with_description(LEADER.help)
        .with_callback(move |observer| observer.observe(f64::from(u8::from(watched.leads())), &[]))
        .build();
}

type Read = fn(&Standing, &dyn AsyncInstrument<f64>);

fn by_state(observer: &dyn AsyncInstrument<f64>, labels: &[KeyValue], counts: &[(&'static str, u64)]) {
    for (state, count) in counts {
        let mut labels = labels.to_vec();
        labels.push(KeyValue::new("state", *state));
        observer.observe(float(*count), &labels);
    }
}

fn of(rollout: &Course) -> KeyValue {
    KeyValue::new("rollout", rollout.id.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "no fleet has so many")]
fn float(count: u64) -> f64 {
    count as f64
}
