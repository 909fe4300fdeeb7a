//! Where a rollout stands as a whole: its phase, and how far its waves are.

use super::phase::Phase;
use super::time::Time;
use super::transition::Transitions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where a rollout stands, apart from its databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Whether it goes on.
    #[serde(flatten)]
    pub phase: Phase,
    /// The last wave that has begun, from 0.
    pub wave: usize,
    /// Since when everything of that wave and those before it is over: the beginning of its soak.
    pub over_since: Option<Time>,
    /// Waves that someone approved, from 0.
    pub approved: BTreeSet<usize>,
    /// Whether the checks of that wave have passed, or someone goes on without them.
    #[serde(default)]
    pub checked: bool,
    /// How it came to stand there.
    #[serde(default)]
    pub transitions: Transitions,
}

impl Course {
    /// The beginning of all.
    pub fn new() -> Self {
        Self {
            phase: Phase::Running,
            wave: 0,
            over_since: None,
            approved: BTreeSet::new(),
            checked: false,
            transitions: Transitions::default(),
        }
    }
}

impl Default for Course {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the next wave has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextWave {
    /// Databases of this wave are not over.
    Unfinished {
        /// Its name.
        wave: String,
        /// How many.
        left: usize,
    },
    /// Everything is over, but not for long enough.
    Soaking {
        /// The wave that soaks.
        wave: String,
        /// Until then.
        until: Time,
    },
    /// It is asked whether all that must hold does.
    Checking {
        /// The wave that is over.
        wave: String,
    },
    /// Someone must approve.
    Approval {
        /// The wave that waits.
        wave: String,
    },
    /// It begins now.
    Due,
}

impl NextWave {
    /// Its name in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unfinished { .. } | Self::Due => "wave",
            Self::Soaking { .. } => "soak",
            Self::Checking { .. } => "checks",
            Self::Approval { .. } => "approval",
        }
    }
}

impl std::fmt::Display for NextWave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfinished { wave, left: 1 } => write!(f, "wave {wave} comes first: 1 database is left"),
            Self::Unfinished { wave, left } => {
                write!(f, "wave {wave} comes first: {left} databases are left")
            }
            Self::Soaking { wave, until } => write!(f, "wave {wave} soaks until {until}"),
            Self::Checking { wave } => write!(f, "the checks of wave {wave} are asked"),
            Self::Approval { wave } => {
                write!(f, "wave {wave} waits for approval (`confiture rollout approve`)")
            }
            Self::Due => f.write_str("its wave begins now"),
        }
    }
}
