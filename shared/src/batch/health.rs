//! How a server is: many readings folded into one level and the reason for it.

use super::sample::{Limits, Sample};
use super::signal::{BAD, Harm, Reading, Signal};
use std::fmt;
use std::time::Duration;

/// How a server is, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Health {
    /// What is worst; `None` when nothing is known.
    pub worst: Option<Cause>,
    /// Whether that is reason to stop, not only to slow down.
    pub critical: bool,
}

/// What a server's health follows from.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// A signal was read.
    Reading(Reading),
    /// The probe failed, for this reason: who cannot see goes slowly.
    Blind(String),
}

/// A signal's value with both its limits, in its unit.
struct Measured {
    value: f64,
    limit: f64,
    /// Above it work stops.
    stop: Option<f64>,
}

impl Health {
    /// The worst of all signals known. Counters are taken as differences to the probe before; what
    /// is read at one moment only and means little then (active sessions, waiting commits) as the mean of both.
    ///
    /// A signal that says stop comes before others, and one that hurts somebody now before one that hurts later.
    pub fn of(previous: Option<&Sample>, now: &Sample, limits: &Limits) -> Self {
        let probes = Probes {
            previous,
            now,
            limits,
        };
        let readings = Signal::ALL.into_iter().filter_map(|signal| {
            let measured = probes.measure(signal)?;
            let (value, limit) = (measured.value, measured.limit);
            let critical = measured.stop.is_some_and(|stop| value > stop);
            Some((critical, Reading { signal, value, limit }))
        });
        let rank = |(critical, reading): &(bool, Reading)| {
            let level = reading.level();
            (
                *critical,
                level > 1.0 && reading.signal.harm() == Harm::Now,
                level,
            )
        };
        let worst = readings.max_by(|a, b| {
            let ((a_stop, a_now, a), (b_stop, b_now, b)) = (rank(a), rank(b));
            (a_stop, a_now).cmp(&(b_stop, b_now)).then(a.total_cmp(&b))
        });
        Self {
            critical: worst.is_some_and(|(critical, _)| critical),
            worst: worst.map(|(_, reading)| Cause::Reading(reading)),
        }
    }

    /// The probe gave no answer in time, or a wrong one: unhealthy, but no reason to stop. `why` ends a sentence that
    /// begins with "the probe failed".
    pub fn probe_failed(why: impl Into<String>) -> Self {
        Self {
            worst: Some(Cause::Blind(why.into())),
            critical: false,
        }
    }

    /// The worst signal over its limit: from 0 to 100, above 1 unhealthy; 0 when nothing is known.
    pub fn level(&self) -> f64 {
        self.worst.as_ref().map_or(0.0, Cause::level)
    }
}

impl Cause {
    /// As [`Health::level`].
    pub fn level(&self) -> f64 {
        match self {
            Self::Reading(reading) => reading.level(),
            Self::Blind(_) => BAD,
        }
    }

    /// Whom it hurts.
    pub fn harm(&self) -> Harm {
        match self {
            Self::Reading(reading) => reading.signal.harm(),
            Self::Blind(_) => Harm::Now,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reading(reading) => reading.fmt(f),
            Self::Blind(why) => write!(f, "the probe failed: {why}"),
        }
    }
}

/// Two probes and what they are measured by.
struct Probes<'a> {
    previous: Option<&'a Sample>,
    now: &'a Sample,
    limits: &'a Limits,
}

impl Probes<'_> {
    fn measure(&self, signal: Signal) -> Option<Measured> {
        let (now, limits) = (self.now, self.limits);
        match signal {
            Signal::Probe => time(now.took, limits.probe, None),
            Signal::ReplicaLag => time(now.replica_lag, limits.replica_lag, Some(limits.replica_lag_stop)),
            Signal::ReplicaBytes => count(
                now.replica_bytes,
                limits.replica_bytes,
                Some(limits.replica_bytes_stop),
            ),
            Signal::SlotRetention => count(now.slot_bytes, limits.slot_bytes, Some(limits.slot_bytes_stop)),
            Signal::LockWait => time(now.lock_wait, limits.lock_wait, None),
            Signal::ActiveSessions => self.mean(|sample| sample.active, limits.cores?),
            Signal::CommitWaiters => self.mean(|sample| sample.commit_waiters, limits.commit_waiters),
            Signal::CommitLatency => time(now.commit_latency, limits.commit_latency, None),
            Signal::WalRate => self.wal_rate(),
            Signal::Checkpoints => count(self.growth(|sample| sample.checkpoints), 0, None),
            Signal::ArchiveFailing => count(now.archive_failing.map(u64::from), 0, Some(0)),
            Signal::ArchiveBacklog => count(
                now.archive_files,
                limits.archive_files,
                Some(limits.archive_files_stop),
            ),
            Signal::Vacuum => count(now.vacuums.map(u64::from), 0, None),
            Signal::OldestSnapshot => time(now.oldest_snapshot, limits.oldest_snapshot, None),
            Signal::PoolWaiters => count(self.lasting(|sample| sample.pool_waiters), 0, None),
            Signal::Operator => now.operator.map(|value| Measured {
                value,
                limit: 0.0,
                stop: Some(0.0),
            }),
        }
    }

    /// By how much a counter grew. One that fell was reset: nothing is known then.
    fn growth(&self, counter: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
        counter(self.now)?.checked_sub(counter(self.previous?)?)
    }

    /// The mean of both probes, or what one of them knows.
    fn mean(&self, reading: impl Fn(&Sample) -> Option<u32>, limit: u32) -> Option<Measured> {
        let now = f64::from(reading(self.now)?);
        let before = self.previous.and_then(reading).map_or(now, f64::from);
        Some(Measured {
            value: f64::midpoint(before, now),
            limit: f64::from(limit),
            stop: None,
        })
    }

    /// What both probes saw.
    fn lasting(&self, reading: impl Fn(&Sample) -> Option<u32>) -> Option<u64> {
        let (before, now) = (reading(self.previous?)?, reading(self.now)?);
        Some(before.min(now).into())
    }

    fn wal_rate(&self) -> Option<Measured> {
        let spacing = self.limits.checkpoint_spacing.as_secs_f64();
        let limit = float(self.now.max_wal_bytes?) / 2.0 / spacing;
        let value = float(self.now.wal_recent_bytes?) / spacing;
        limit.is_finite().then_some(Measured {
            value,
            limit,
            stop: None,
        })
    }
}

fn time(value: Option<Duration>, limit: Duration, stop: Option<Duration>) -> Option<Measured> {
    value.map(|value| Measured {
        value: value.as_secs_f64(),
        limit: limit.as_secs_f64(),
        stop: stop.map(|stop| stop.as_secs_f64()),
    })
}

fn count(value: Option<u64>, limit: u64, stop: Option<u64>) -> Option<Measured> {
    value.map(|value| Measured {
        value: float(value),
        limit: float(limit),
        stop: stop.map(float),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement: what is lost beyond 2^53 is not even noise"
)]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
