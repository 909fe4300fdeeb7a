//! What coordinator and agent tell each other about one database, as values of the core.

use crate::fence::Fence;
use crate::id::{DatabaseName, Digest, Holder, RolloutId};
use crate::ledger::DataLoss;
use crate::migration::Version;
use crate::plan::Strategies;
use crate::retry::Retryability;
use crate::trace::Place;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where a database physically is, as the server itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// `pg_control_system().system_identifier`: the same for all databases of one server.
    pub system: i64,
    /// The oid of the database in that server.
    pub database: u32,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "system identifier {}, database oid {}",
            self.system, self.database
        )
    }
}

/// What is to be made of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// All of the bundle's migrations are applied.
    #[default]
    Apply,
    /// What a rollout has applied is taken back.
    Undo {
        /// Which rollout.
        rollout: RolloutId,
        /// Whether values and rows may be lost with it.
        data_loss: DataLoss,
    },
}

/// The work of one rollout on one database, given to one agent with a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whose work it is.
    pub rollout: RolloutId,
    /// On which database.
    pub database: DatabaseName,
    /// The bundle with the migrations.
    pub bundle: Digest,
    /// What is to be made of it.
    pub aim: Aim,
    /// The lease as the database sees it.
    pub fence: Fence,
    /// Minted with the lease.
    pub holder: Holder,
    /// Counted from 1.
    pub attempt: u32,
    /// Whether it is a canary: its backfills are verified where their authors do not say otherwise.
    pub canary: bool,
    /// How its tables are to be gone about as the rollout's policy says.
    pub strategies: Strategies,
    /// The span under which the work is told.
    pub trace: Option<Place>,
}

/// What a look at a database's ledger found, before any lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The database has all of it already.
    UpToDate {
        /// Versions applied there that the set does not have.
        ahead: Vec<Version>,
    },
    /// These versions are to be run, in this order.
    Pending {
        /// In order of execution.
        versions: Vec<Version>,
    },
    /// Someone who is alive and not of this store holds it.
    Held {
        /// Who, for people.
        by: String,
    },
    /// What a rollout has applied is to stay as it is here.
    Declined {
        /// Why, for people.
        why: String,
    },
    /// It cannot be done, or not now.
    Failed(Failure),
}

/// Why work on one database ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The whole message for people: what was being done, where, why it failed, what to do. May have several lines.
    pub message: String,
    /// Whether another try makes sense.
    pub retry: Retryability,
    /// The exit code a local run would have had (see [`Exit`]).
    pub exit: Exit,
}

/// The exit codes of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// 0: done, or nothing to do.
    Done,
    /// 1: failed.
    Failed,
    /// 2: wrong usage or input.
    Usage,
    /// 3: refused by a safety rule.
    Refused,
    /// 4: stopped, or waiting ended; the same command goes on where this one stopped.
    Stopped,
}

impl Exit {
    /// The number the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Stopped => 4,
        }
    }
}

/// How far the work on one database is; sent about once a second, kept in memory only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The migration at work; `None` before the first.
    pub version: Option<Version>,
    /// Its name.
    pub migration: String,
    /// The step at work, from 1.
    pub step: u32,
    /// Steps of this migration.
    pub steps: u32,
    /// What the step does, for people.
    pub title: String,
    /// Rows changed by this step so far, over all its lives.
    pub rows: u64,
    /// Estimated rows of the table; 0 when there is nothing to count.
    pub estimated_rows: u64,
    /// Workers that run batches; 0 in a step without.
    #[serde(default)]
    pub workers: u32,
    /// Rows of a batch as it is now; 0 before the first and in a step without.
    #[serde(default)]
    pub batch_rows: u32,
    /// Batches that met a lock, a deadlock or a timeout and were tried again, as far as this process saw them.
    #[serde(default)]
    pub retries: u64,
    /// Why the batches go as fast as they do, or how far the build of an index is, for people; empty in other steps.
    #[serde(default)]
    pub pace: String,
    /// What this order has done and cost up to the step at work.
    #[serde(default)]
    pub spent: Summary,
    /// Migrations finished in this order.
    pub migrations_done: u32,
    /// Migrations this order has to do.
    pub migrations: u32,
}

impl Progress {
    /// With what is known at the end of the rows of the step that was left open; reports come only now and then.
    #[must_use]
    pub fn with_open_rows(self, open_rows: u64) -> Self {
        Self {
            rows: self.rows.max(open_rows),
            ..self
        }
    }
}

/// How the work on one database ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// All pending migrations are done.
    Done(Summary),
    /// A step failed; its transaction left nothing behind. What was done and spent before stays.
    Failed(Failure, Summary),
    /// Another holder has the fence; nothing was changed since.
    Replaced {
        /// Who, for people.
        by: String,
        /// What it holds the database with.
        newer: Newer,
        /// What was done and spent before.
        spent: Summary,
    },
    /// Asked to stop, or the lease could not be renewed: stopped between two batches or steps, to be continued.
    Stopped(Summary),
}

/// What a holder was replaced with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newer {
    /// A lease with a larger token, or of a later epoch.
    Lease,
    /// A run without a coordinator.
    Local,
}

/// What was done on one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Migrations completed.
    pub migrations: u32,
    /// Steps completed.
    pub steps: u32,
    /// Rows changed by batches.
    pub rows: u64,
    /// Rows changed by the step that was left open, over all its lives; 0 where none was.
    #[serde(default)]
    pub open_rows: u64,
    /// How long agents had the work, from each lease to its end, in milliseconds; the coordinator's clock.
    #[serde(default)]
    pub worked_ms: u64,
    /// What it cost.
    #[serde(default)]
    pub cost: Cost,
}

impl Summary {
    /// With a further attempt, and how long an agent had it.
    #[must_use]
    pub fn with(mut self, attempt: Self, worked: Duration) -> Self {
        self.migrations += attempt.migrations;
        self.steps += attempt.steps;
        self.rows += attempt.rows;
        self.open_rows = attempt.open_rows;
        self.cost += attempt.cost;
        self.worked_ms =
            (self.worked_ms).saturating_add(u64::try_from(worked.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// What an attempt did of which only its last progress is known; `self` is what those before it did.
    #[must_use]
    pub fn last_known(&self, progress: &Progress) -> Self {
        let spent = progress.spent;
        // Where no step was finished, the one at work is the one that the attempt before left open.
        let before = if spent.steps == 0 { self.open_rows } else { 0 };
        Self {
            rows: spent.rows + progress.rows.saturating_sub(before),
            open_rows: progress.rows.max(before),
            ..spent
        }
    }
}

/// What work on one database cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Batches committed.
    pub batches: u64,
    /// Batches that met a lock, a deadlock or a timeout and were tried again.
    pub retries: u64,
    /// How long locks were waited for, in their queue and outside it, in milliseconds.
    pub lock_wait_ms: u64,
    /// How long sessions of others waited behind it, in milliseconds.
    pub stall_ms: u64,
    /// WAL the whole server wrote while the batches ran.
    pub wal_bytes: u64,
    /// Rows that verification looked at.
    pub verified_rows: u64,
    /// Rows whose values it found to be others than they should, or that a condition still found.
    pub differing_rows: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.retries += other.retries;
        self.lock_wait_ms += other.lock_wait_ms;
        self.stall_ms += other.stall_ms;
        self.wal_bytes += other.wal_bytes;
        self.verified_rows += other.verified_rows;
        self.differing_rows += other.differing_rows;
    }
}
