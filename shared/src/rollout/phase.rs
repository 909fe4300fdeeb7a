//! Where a rollout stands as a whole.
//!
//! ```text
//!          asked, or by itself                       abort asked, or an error that stops the rollout
//!   Paused <--------------------------> Running --------------------> Aborting   (also from Paused)
//!          resumed, or failures retried  | ^                              | ended: asked for   -> Aborted
//!                                  ended | | failures are tried again     | ended: was stopped -> Failed
//!                                        v |
//!                  nothing failed -> Done, Failed <- something failed
//! ```
//! A rollout ends when none of its databases waits or is at work, and the checks of its last wave have passed. A paused or
//! aborting one starts nothing. When it is aborted, or paused by someone, what is at work is asked to stop and may end in
//! any way; when it paused by itself (too many databases failed, a check did not pass), what is at work comes to its own end.

use super::time::Time;
use crate::id::DatabaseName;
use serde::{Deserialize, Serialize};

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// At work, or waiting for something.
    Running,
    /// Nothing starts until someone says so.
    Paused {
        /// Why.
        pause: Pause,
    },
    /// Nothing starts any more; what is at work comes to its end.
    Aborting {
        /// Why.
        why: Why,
    },
    /// Every database is done.
    Done {
        /// When.
        at: Time,
    },
    /// At least one database failed.
    Failed {
        /// When it ended.
        at: Time,
        /// Set where a failure stopped the rollout.
        why: Option<Why>,
    },
    /// Aborted by someone.
    Aborted {
        /// When it ended.
        at: Time,
        /// By whom and why.
        why: Why,
    },
}

/// Why a rollout is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// Someone asked: what is at work stops too.
    Asked {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// As many databases failed as may.
    Budget {
        /// The wave whose budget it is; `None` for that of the rollout.
        wave: Option<String>,
        /// How many failed.
        failed: usize,
        /// How many may.
        budget: usize,
    },
    /// A check did not pass, or has no answer.
    Check {
        /// After which wave.
        wave: String,
        /// Which check, where, and what came of it.
        why: String,
    },
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked { by, reason } => asked(f, "paused", by, reason),
            Self::Budget { wave, failed, budget } => {
                let databases = if *failed == 1 { "database" } else { "databases" };
                write!(f, "{failed} {databases} failed, and the failure budget")?;
                if let Some(wave) = wave {
                    write!(f, " of wave {wave}")?;
                }
                write!(f, " is {budget}")
            }
            Self::Check { wave, why } => write!(
                f,
                "after wave {wave}, {why}: `confiture rollout resume` asks again, with `--ignore-checks` it goes on without"
            ),
        }
    }
}

/// `done by ada: why`.
pub(super) fn asked(f: &mut std::fmt::Formatter<'_>, what: &str, by: &str, reason: &str) -> std::fmt::Result {
    f.write_str(what)?;
    if !by.is_empty() {
        write!(f, " by {by}")?;
    }
    if !reason.is_empty() {
        write!(f, ": {reason}")?;
    }
    Ok(())
}

/// Why a rollout does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Someone asked.
    Asked {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A failure that would happen elsewhere too, or where going on may do harm.
    Stopped {
        /// On which database.
        database: DatabaseName,
    },
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked { by, reason } => asked(f, "aborted", by, reason),
            Self::Stopped { database } => {
                write!(f, "stopped because of what happened on database {database}")
            }
        }
    }
}

impl Phase {
    /// Whether nothing will change any more.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Running | Self::Paused { .. } | Self::Aborting { .. } => false,
            Self::Done { .. } | Self::Failed { .. } | Self::Aborted { .. } => true,
        }
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::Aborting { .. } => "aborting",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Aborted { .. } => "aborted",
        }
    }
}
