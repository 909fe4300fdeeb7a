//! Why the pace is what it is, for people.

use super::health::Cause;
use super::signal::Reading;
use std::fmt;
use std::time::Duration;

/// Why the pace is what it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Nothing is in the way, and more is not allowed or was found to be of no use.
    Full {
        /// The duty of each worker.
        duty: f64,
    },
    /// The server is well: duty grows.
    SpeedingUp {
        /// The duty of each worker.
        duty: f64,
    },
    /// The server is well with all the duty allowed: workers are added while each is worth it.
    AddingWorkers {
        /// Those there are.
        workers: u32,
    },
    /// The server is well, but no faster than this.
    Holding {
        /// What is near its limit.
        by: Cause,
    },
    /// The server is not well.
    Slowed {
        /// The duty of each worker.
        duty: f64,
        /// What is above its limit.
        by: Cause,
    },
    /// No batch may begin.
    Stopped {
        /// What was above the limit at which work stops, or has come in its place since.
        by: Cause,
        /// For how long all has been calm since.
        calm: Duration,
        /// After how much calm the work goes on.
        needed: Duration,
    },
}

impl Reason {
    /// What batches rest for, as metrics name it: a signal, `blind` where none can be read, or `duty` that is not more yet,
    /// or by the author's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::SpeedingUp { .. } | Self::AddingWorkers { .. } => "duty",
            Self::Holding { by } | Self::Slowed { by, .. } | Self::Stopped { by, .. } => match by {
                Cause::Reading(reading) => reading.signal.word(),
                Cause::Blind(_) => "blind",
            },
        }
    }

    /// The signal that it is because of, where it was read.
    pub fn reading(&self) -> Option<Reading> {
        match self {
            Self::Full { .. } | Self::SpeedingUp { .. } | Self::AddingWorkers { .. } => None,
            Self::Holding { by } | Self::Slowed { by, .. } | Self::Stopped { by, .. } => match by {
                Cause::Reading(reading) => Some(*reading),
                Cause::Blind(_) => None,
            },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { duty } if *duty >= 1.0 => f.write_str("at full speed"),
            Self::Full { duty } => write!(f, "at full speed: {} allowed", Percent(*duty)),
            Self::SpeedingUp { duty } => write!(f, "speeding up: {}", Percent(*duty)),
            Self::AddingWorkers { workers } => write!(f, "adding workers: {workers} so far"),
            Self::Holding { by } => write!(f, "holding: {by}"),
            Self::Slowed { duty, by } => write!(f, "slowed to {}: {by}", Percent(*duty)),
            Self::Stopped { by, calm, .. } if calm.is_zero() => write!(f, "stopped: {by}"),
            Self::Stopped { by, calm, needed } => write!(
                f,
                "stopped: {by}; calm for {} of {} s",
                calm.as_secs(),
                needed.as_secs()
            ),
        }
    }
}

/// A share, for people.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", self.0 * 100.0)
    }
}
