//! What operators may ask of a rollout, and the record of it.

use super::time::Time;
use crate::id::{DatabaseName, RolloutId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What someone asks of a rollout. Each may be asked again: what is so already changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Begin nothing; what is at work stops at its next safe point and keeps what it has done.
    Pause,
    /// Go on; failures so far do not count any more, and checks that did not pass are asked again.
    Resume,
    /// The same, whatever the checks of the wave that is over say.
    IgnoreChecks,
    /// Begin nothing any more; what is at work stops at its next safe point.
    Abort,
    /// Try databases again that failed.
    Retry {
        /// Which; all that failed, where there are none.
        databases: BTreeSet<DatabaseName>,
    },
    /// Leave databases out.
    Skip {
        /// Which; never empty.
        databases: BTreeSet<DatabaseName>,
    },
    /// Let a wave begin that waits for it, now or when its turn comes.
    Approve {
        /// Its name; the next wave that waits for it, where there is none.
        wave: Option<String>,
    },
    /// Another rollout takes it back. Recorded when that is founded, never asked for.
    Undo {
        /// Which.
        rollout: RolloutId,
    },
}

/// Something that was asked and changed the rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What.
    pub verb: Verb,
    /// Who asked.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
    /// When.
    pub at: Time,
}

impl Action {
    /// ` by ada@host: lunch`, as far as it is known.
    pub fn author(&self) -> String {
        let part = |before: &str, text: &str| match text {
            "" => String::new(),
            text => format!("{before}{text}"),
        };
        part(" by ", &self.by) + &part(": ", &self.reason)
    }
}

impl Verb {
    /// As on the command line.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::IgnoreChecks => "resume --ignore-checks",
            Self::Abort => "abort",
            Self::Retry { .. } => "retry",
            Self::Skip { .. } => "skip",
            Self::Approve { .. } => "approve",
            Self::Undo { .. } => "undo",
        }
    }
}

/// With what it was done to, for people.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::Pause | Self::Resume | Self::IgnoreChecks | Self::Abort => Ok(()),
            Self::Retry { databases } | Self::Skip { databases } => {
                let names: Vec<_> = databases.iter().map(DatabaseName::as_str).collect();
                write!(f, " {}", names.join(", "))
            }
            Self::Approve { wave } => write!(f, " {}", wave.as_deref().unwrap_or_default()),
            Self::Undo { rollout } => write!(f, ", by rollout {rollout}"),
        }
    }
}
