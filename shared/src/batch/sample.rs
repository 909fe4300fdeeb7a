//! What one probe of a server read, and where health ends.

use std::time::Duration;

/// One probe's readings. `None`: PostgreSQL does not tell (privileges, version), or nobody asked. What is not known is
/// not judged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// How long the probe took, from the question to the answer.
    pub took: Option<Duration>,
    /// The longest time a replica needs to replay what is committed; zero without replicas.
    pub replica_lag: Option<Duration>,
    /// The most WAL a replica has still to replay. The lag in time can stand still while a replica does (the server keeps
    /// a bounded number of samples for it); this does not.
    pub replica_bytes: Option<u64>,
    /// The most WAL that a replication slot keeps from being removed.
    pub slot_bytes: Option<u64>,
    /// How long a session of others has waited for a lock that one of ours holds; zero when none waits.
    pub lock_wait: Option<Duration>,
    /// Sessions of others, on the whole server, that compute at this moment: active and waiting for nothing.
    pub active: Option<u32>,
    /// Sessions of others, on the whole server, that were at work within the last second, and those whose state may not be
    /// seen.
    pub company: Option<u32>,
    /// Sessions of others that wait for WAL to reach the disk or a synchronous replica.
    pub commit_waiters: Option<u32>,
    /// How long a small durable commit took.
    pub commit_latency: Option<Duration>,
    /// WAL written since the server was made: cumulative.
    pub wal_bytes: Option<u64>,
    /// WAL written in the last [`Limits::checkpoint_spacing`]: a burst is no rate.
    pub wal_recent_bytes: Option<u64>,
    /// The server's `max_wal_size`.
    pub max_wal_bytes: Option<u64>,
    /// Checkpoints that did not come by time: cumulative.
    pub checkpoints: Option<u64>,
    /// Whether the last try to archive a WAL file failed; `false` where none are archived.
    pub archive_failing: Option<bool>,
    /// WAL files that wait for the archive.
    pub archive_files: Option<u64>,
    /// Vacuums of others that run on the tables at work.
    pub vacuums: Option<u32>,
    /// The age of the oldest transaction of others in this database that keeps dead rows from being removed.
    pub oldest_snapshot: Option<Duration>,
    /// Who waits for a connection of our own pool.
    pub pool_waiters: Option<u32>,
    /// What the operator's query answered.
    pub operator: Option<f64>,
}

/// Where health ends. At a limit a signal's level is 1; from 0.7 on the pace no longer grows. Above a `_stop` work stops at
/// once. A limit at its type's maximum switches its signal off, as does a reading left out of the [`Sample`].
///
/// The numbers come from what was measured and read when this was designed; a source named here is where others use it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// A slow probe tells of a server in trouble; default 1 s, half of its own limit.
    pub probe: Duration,
    /// `pg_stat_replication.replay_lag`; default 2 s: what a reader of a replica takes for a hiccup.
    pub replica_lag: Duration,
    /// Default 10 s.
    pub replica_lag_stop: Duration,
    /// Bytes behind `pg_stat_replication.replay_lsn`; default 1 GiB, twenty seconds of a busy server's WAL: catches the
    /// replica that stands still, not the one that is late.
    pub replica_bytes: u64,
    /// Default 5 GiB.
    pub replica_bytes_stop: u64,
    /// Bytes behind `pg_replication_slots.restart_lsn`; default 5 GiB: the disk they fill is the primary's.
    pub slot_bytes: u64,
    /// Default 20 GiB.
    pub slot_bytes_stop: u64,
    /// Wait of a session whose `pg_blocking_pids` name ours; default 1 s, `deadlock_timeout`'s default: what PostgreSQL
    /// itself finds worth a look.
    pub lock_wait: Duration,
    /// The server's cores: as many sessions of others may compute, averaged over two probes. PostgreSQL does not know
    /// them; `None`, the default, leaves the signal out.
    pub cores: Option<u32>,
    /// Sessions in the waits `WALWrite`, `WALSync`, `SyncRep`, averaged over two probes; default 3.
    pub commit_waiters: u32,
    /// Default 100 ms; five times the server's own where that was measured, see [`Limits::for_commits_of`].
    pub commit_latency: Duration,
    /// The WAL rate may fill half of `max_wal_size` (about where a checkpoint is forced) once in this time; default 30 s,
    /// the default of `checkpoint_warning`: what PostgreSQL itself calls too frequent. `checkpoint_timeout` instead would
    /// force no checkpoint ever, and allow 1.8 MB/s by PostgreSQL's defaults. Zero switches the signal off.
    pub checkpoint_spacing: Duration,
    /// Files with the status `.ready`; default 42, as in GitLab's health indicator for batched migrations.
    pub archive_files: u64,
    /// Default 256, 4 GiB in files of the usual size.
    pub archive_files_stop: u64,
    /// Age of the oldest `backend_xmin` or `backend_xid`; default 15 min: until it ends, vacuum cannot remove a row version
    /// that we leave behind.
    pub oldest_snapshot: Duration,
}

const GIB: u64 = 1 << 30;

impl Default for Limits {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(1),
            replica_lag: Duration::from_secs(2),
            replica_lag_stop: Duration::from_secs(10),
            replica_bytes: GIB,
            replica_bytes_stop: 5 * GIB,
            slot_bytes: 5 * GIB,
            slot_bytes_stop: 20 * GIB,
            lock_wait: Duration::from_secs(1),
            cores: None,
            commit_waiters: 3,
            commit_latency: Duration::from_millis(100),
            checkpoint_spacing: Duration::from_secs(30),
            archive_files: 42,
            archive_files_stop: 256,
            oldest_snapshot: Duration::from_mins(15),
        }
    }
}

/// Commits slower than this times the server's own have a reason that we may be.
const COMMIT_FACTOR: u32 = 5;

/// Below it a commit is fast, whatever it was before: on a disk with a cache of its own five times nothing is nothing.
const FAST_COMMIT: Duration = Duration::from_millis(20);

impl Limits {
    /// With the limit of commit latency that follows from a commit's time before the work began.
    #[must_use]
    pub fn for_commits_of(mut self, baseline: Duration) -> Self {
        self.commit_latency = baseline.saturating_mul(COMMIT_FACTOR).max(FAST_COMMIT);
        self
    }
}
