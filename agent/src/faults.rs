//! Faults on purpose, for tests alone: at a named point a run dies, stands still or fails.
//!
//! Without the cargo feature `faults` nothing of this is compiled: [`reach`] is an `Ok` that costs nothing. With it, one
//! environment variable arms one point, once in the life of a process:
//!
//! ```text
//! CONFITURE_FAULT=after_change:exit@3        the third time a change was made the process is gone, without unwinding
//! CONFITURE_FAULT=before_commit:stall=6s     every thread stands still for six seconds, renewals and leases too
//! CONFITURE_FAULT=after_commit:stall         the same until somebody sends SIGCONT
//! CONFITURE_FAULT=after_takeover:error       as if the connection had been lost; it passes
//! CONFITURE_HOLDER_TIME=2s                   how long a holder counts as alive after it last renewed
//! ```

#[cfg(feature = "faults")]
mod armed;

#[cfg(feature = "faults")]
pub(crate) use armed::{holder_time, reach};

/// Where a run can be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The fence is taken, and that is committed.
    AfterTakeover,
    /// A step's transaction has its fence or its range, locked and checked.
    AfterFenceLock,
    /// The statements of the user have run.
    AfterChange,
    /// All is done but the COMMIT of a step's transaction.
    BeforeCommit,
    /// A COMMIT was answered, and nothing was made of that yet.
    AfterCommit,
    /// All is done, and nobody has been told.
    BeforeReport,
}

/// A run has come to a point.
#[cfg(not(feature = "faults"))]
pub(crate) fn reach(_: Point) -> std::future::Ready<Result<(), crate::error::Error>> {
    std::future::ready(Ok(()))
}

/// How long a holder counts as alive, where a test says so.
#[cfg(not(feature = "faults"))]
pub(crate) fn holder_time() -> Option<std::time::Duration> {
    None
}
