//! Growing, jittered pauses between tries.

use rand::RngExt as _;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// A sequence of pauses: each up to twice as long as the one before, with full jitter above a quarter.
pub(crate) struct Backoff {
    since: Instant,
    bound: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            bound: FIRST,
        }
    }

    /// Time since the first trouble.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.bound.mul_f64(rand::rng().random_range(0.25..=1.0));
        self.bound = (self.bound * 2).min(LONGEST);
        pause
    }
}
