//! The signals of a server's health, and how a reading of one is told.

use std::fmt;
use std::time::Duration;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The probe's own time (s).
    Probe,
    /// Replay lag of the slowest replica (s).
    ReplicaLag,
    /// WAL that the slowest replica has not replayed (bytes).
    ReplicaBytes,
    /// WAL that a replication slot keeps (bytes).
    SlotRetention,
    /// The longest wait for a lock of ours (s).
    LockWait,
    /// Computing sessions of others, against cores.
    ActiveSessions,
    /// Sessions of others that wait for their commit.
    CommitWaiters,
    /// Time of a small durable commit (s).
    CommitLatency,
    /// WAL written (bytes per second).
    WalRate,
    /// Checkpoints forced since the probe before.
    Checkpoints,
    /// Archiving of WAL fails: 1 or 0.
    ArchiveFailing,
    /// WAL files that wait for the archive.
    ArchiveBacklog,
    /// Vacuums of the tables at work.
    Vacuum,
    /// Age of the oldest snapshot of others (s).
    OldestSnapshot,
    /// Who waits for a connection of our pool, at this probe and the one before.
    PoolWaiters,
    /// The answer of the operator's query.
    Operator,
}

/// Whom a signal above its limit hurts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// The table: row versions that nobody can remove yet. It grows with the rows changed, and going slowly for hours
    /// helps it no more than going at a moderate pace.
    Later,
    /// Sessions, replicas or disks, at this moment.
    Now,
}

/// One signal, read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Which.
    pub signal: Signal,
    /// In the signal's unit.
    pub value: f64,
    /// In the same unit; zero where none is tolerated.
    pub limit: f64,
}

/// The level of anything above a limit of zero, of an answer that is no number, and of no answer.
pub(super) const BAD: f64 = 2.0;

/// No level is larger: it stays a number that can be shown and compared.
const MOST: f64 = 100.0;

impl Signal {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Probe,
        Self::ReplicaLag,
        Self::ReplicaBytes,
        Self::SlotRetention,
        Self::LockWait,
        Self::ActiveSessions,
        Self::CommitWaiters,
        Self::CommitLatency,
        Self::WalRate,
        Self::Checkpoints,
        Self::ArchiveFailing,
        Self::ArchiveBacklog,
        Self::Vacuum,
        Self::OldestSnapshot,
        Self::PoolWaiters,
        Self::Operator,
    ];

    /// Its name in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::ReplicaLag => "replica_lag",
            Self::ReplicaBytes => "replica_bytes",
            Self::SlotRetention => "slot_retention",
            Self::LockWait => "lock_wait",
            Self::ActiveSessions => "active_sessions",
            Self::CommitWaiters => "commit_waiters",
            Self::CommitLatency => "commit_latency",
            Self::WalRate => "wal_rate",
            Self::Checkpoints => "checkpoints",
            Self::ArchiveFailing => "archive_failing",
            Self::ArchiveBacklog => "archive_backlog",
            Self::Vacuum => "vacuum",
            Self::OldestSnapshot => "oldest_snapshot",
            Self::PoolWaiters => "pool_waiters",
            Self::Operator => "operator_query",
        }
    }

    /// What its values are counted in, as UCUM writes it; `1` for plain numbers.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Probe | Self::ReplicaLag | Self::LockWait | Self::CommitLatency | Self::OldestSnapshot => {
                "s"
            }
            Self::ReplicaBytes | Self::SlotRetention => "By",
            Self::WalRate => "By/s",
            Self::ActiveSessions
            | Self::CommitWaiters
            | Self::Checkpoints
            | Self::ArchiveFailing
            | Self::ArchiveBacklog
            | Self::Vacuum
            | Self::PoolWaiters
            | Self::Operator => "1",
        }
    }

    /// Whom it hurts above its limit.
    pub fn harm(self) -> Harm {
        match self {
            Self::Vacuum | Self::OldestSnapshot => Harm::Later,
            Self::Probe
            | Self::ReplicaLag
            | Self::ReplicaBytes
            | Self::SlotRetention
            | Self::LockWait
            | Self::ActiveSessions
            | Self::CommitWaiters
            | Self::CommitLatency
            | Self::WalRate
            | Self::Checkpoints
            | Self::ArchiveFailing
            | Self::ArchiveBacklog
            | Self::PoolWaiters
            | Self::Operator => Harm::Now,
        }
    }
}

impl Reading {
    /// Value over limit, from 0 to 100.
    pub fn level(&self) -> f64 {
        if self.value.is_nan() {
            BAD
        } else if self.limit > 0.0 {
            (self.value / self.limit).clamp(0.0, MOST)
        } else if self.value > 0.0 {
            BAD
        } else {
            0.0
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, limit) = (self.value, self.limit);
        let (time, size, count) = (Seconds, Bytes, Number);
        match self.signal {
            Signal::Probe => write!(f, "the probe took {}, limit {}", time(value), time(limit)),
            Signal::ReplicaLag => write!(f, "replica lag {}, limit {}", time(value), time(limit)),
            Signal::ReplicaBytes => write!(f, "replica behind by {}, limit {}", size(value), size(limit)),
            Signal::SlotRetention => write!(
                f,
                "WAL kept for a replication slot {}, limit {}",
                size(value),
                size(limit)
            ),
            Signal::LockWait => write!(f, "lock wait behind us {}, limit {}", time(value), time(limit)),
            Signal::ActiveSessions => {
                write!(f, "active sessions {} of {} cores", count(value), count(limit))
            }
            Signal::CommitWaiters => write!(
                f,
                "sessions waiting for WAL {}, limit {}",
                count(value),
                count(limit)
            ),
            Signal::CommitLatency => write!(f, "commit latency {}, limit {}", time(value), time(limit)),
            Signal::WalRate => write!(f, "WAL {}/s, limit {}/s", size(value), size(limit)),
            Signal::Checkpoints => f.write_str("a checkpoint was forced"),
            Signal::ArchiveFailing => f.write_str("WAL archiving fails"),
            Signal::ArchiveBacklog => {
                write!(f, "WAL files to archive {}, limit {}", count(value), count(limit))
            }
            Signal::Vacuum => f.write_str("a vacuum of the table is running"),
            Signal::OldestSnapshot => write!(f, "oldest snapshot {}, limit {}", time(value), time(limit)),
            Signal::PoolWaiters => write!(f, "waiting for a pool connection: {}", count(value)),
            Signal::Operator => write!(f, "the operator's query says {}", count(value)),
        }
    }
}

/// A time in seconds, for people.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minute = Duration::from_mins(1).as_secs_f64();
        match self.0 {
            short if short < 1.0 => write!(f, "{} ms", Number((short * 1e3).round())),
            middle if middle < 5.0 * minute => write!(f, "{} s", Number(middle)),
            long => write!(f, "{} min", Number(long / minute)),
        }
    }
}

/// A size in bytes, for people.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, f64); 3] = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1024.0)];
        match UNITS.iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) => write!(f, "{} {name}", Number(self.0 / unit)),
            None => write!(f, "{} B", Number(self.0.round())),
        }
    }
}

/// A number with one place after the point where it has one.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0).round() / 10.0;
        write!(f, "{tenths}")
    }
}
