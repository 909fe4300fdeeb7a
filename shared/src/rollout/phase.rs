//! Where a rollout stands as a whole.
//!
//! ```text
//!            abort requested, or an error that stops the rollout
//!   Running ----------------------------------------------------> Aborting
//!      | ended: nothing failed -> Done                               | ended: asked for   -> Aborted
//!      | ended: something failed -> Failed                           | ended: was stopped -> Failed
//! ```
//! A rollout ends when none of its databases waits or is at work. An aborting one starts nothing; what is at work is
//! asked to stop and may end in any way.

use super::time::Time;
use crate::id::DatabaseName;
use serde::{Deserialize, Serialize};

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// At work, or waiting for something.
    Running,
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
            Self::Asked { by, reason } => {
                f.write_str("aborted")?;
                if !by.is_empty() {
                    write!(f, " by {by}")?;
                }
                if !reason.is_empty() {
                    write!(f, ": {reason}")?;
                }
                Ok(())
            }
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
            Self::Running | Self::Aborting { .. } => false,
            Self::Done { .. } | Self::Failed { .. } | Self::Aborted { .. } => true,
        }
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Aborting { .. } => "aborting",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Aborted { .. } => "aborted",
        }
    }
}
