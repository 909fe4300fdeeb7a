//! How a rollout may go about its work.

use serde::{Deserialize, Serialize};

/// The limits of one rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Databases at work at the same time; at least 1.
    pub max_in_flight: u32,
    /// Attempts per database that count, the first included; at least 1.
    pub max_attempts: u32,
}

/// A limit beyond what makes sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {given}, but at most {most} is possible")]
pub struct Error {
    /// The limit's name.
    pub what: &'static str,
    /// What was asked for.
    pub given: u32,
    /// The largest possible.
    pub most: u32,
}

impl Policy {
    /// Eight databases at a time: two cores' worth of servers stay responsive, and a fleet still moves.
    pub const DEFAULT_MAX_IN_FLIGHT: u32 = 8;
    /// With pauses of 1, 2, 4, 8, 16, 30 and 30 s between them, a server's restart or failover is survived.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 8;
    /// Beyond this a typing error is likelier than an intention.
    pub const MOST_IN_FLIGHT: u32 = 10_000;
    /// Likewise; at 30 s between attempts this is eight hours.
    pub const MOST_ATTEMPTS: u32 = 1_000;

    /// A policy from its numbers, where 0 stands for the default.
    ///
    /// # Errors
    /// When a number is beyond its bound.
    pub fn new(max_in_flight: u32, max_attempts: u32) -> Result<Self, Error> {
        Ok(Self {
            max_in_flight: limit(
                "max_in_flight",
                max_in_flight,
                Self::DEFAULT_MAX_IN_FLIGHT,
                Self::MOST_IN_FLIGHT,
            )?,
            max_attempts: limit(
                "max_attempts",
                max_attempts,
                Self::DEFAULT_MAX_ATTEMPTS,
                Self::MOST_ATTEMPTS,
            )?,
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_in_flight: Self::DEFAULT_MAX_IN_FLIGHT,
            max_attempts: Self::DEFAULT_MAX_ATTEMPTS,
        }
    }
}

fn limit(what: &'static str, given: u32, default: u32, most: u32) -> Result<u32, Error> {
    match given {
        0 => Ok(default),
        given if given > most => Err(Error { what, given, most }),
        given => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_stands_for_the_default_and_nonsense_is_refused() {
        assert_eq!(Policy::new(0, 0), Ok(Policy::default()));
        assert_eq!(
            Policy::new(1, 2),
            Ok(Policy {
                max_in_flight: 1,
                max_attempts: 2
            })
        );
        assert!(Policy::new(10_001, 0).is_err());
    }
}
