//! How long the next try stands in the lock queue, and how long the pause after it is.

use std::time::Duration;

/// The first try: most transactions of applications are over by then.
pub const SHORTEST_TRY: Duration = Duration::from_millis(50);

/// No try stands in the queue for longer: applications that arrive meanwhile wait behind it.
pub const LONGEST_TRY: Duration = Duration::from_millis(500);

/// How much longer each try is than the one before.
const GROWTH: f64 = 1.5;

/// The most of its time that is spent in the queue.
const SHARE: f64 = 0.1;

/// The longest pause is drawn from 0 to this; the first one from 0 to [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A try must end before PostgreSQL looks for deadlocks: of two who wait for each other it is we who give way.
const OF_DEADLOCK_TIMEOUT: f64 = 0.8;

/// The tries of one transaction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tries {
    done: u32,
    longest: Duration,
}

impl Tries {
    /// On a server with this `deadlock_timeout`; `most` is the budget for all tries.
    pub fn new(deadlock_timeout: Duration, most: Duration) -> Self {
        let longest = LONGEST_TRY.min(deadlock_timeout.mul_f64(OF_DEADLOCK_TIMEOUT));
        Self {
            done: 0,
            longest: longest.min(most).max(Duration::from_millis(1)),
        }
    }

    /// How many there were.
    pub fn count(self) -> u32 {
        self.done
    }

    /// How long the next one may stand in the queue, with so much of the stall budget left. `None`: what is left is not worth
    /// a try; it grows again while nobody waits.
    pub fn next(self, stall_left: Duration) -> Option<Duration> {
        let grown = self
            .longest
            .min(SHORTEST_TRY.mul_f64(GROWTH.powi(i32::try_from(self.done.min(20)).unwrap_or_default())));
        let allowed = grown.min(stall_left);
        (allowed >= SHORTEST_TRY.min(self.longest)).then_some(allowed)
    }

    /// A try of this length found the lock taken. Gives the pause after it: full jitter by a random number from 0 to 1, but
    /// never so short that more than a tenth of the time is spent in the queue.
    pub fn failed(&mut self, stood: Duration, random: f64) -> Duration {
        let most = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(self.done.min(16)))
            .min(LONGEST_PAUSE);
        self.done = self.done.saturating_add(1);
        let least = stood.mul_f64((1.0 - SHARE) / SHARE);
        most.mul_f64(random.clamp(0.0, 1.0)).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tries_grow_from_50_to_500_ms() {
        let mut tries = Tries::new(SECOND, 30 * SECOND);
        let mut seen = Vec::new();
        for _ in 0..8 {
            let length = tries.next(SECOND).unwrap();
            seen.push(length.as_millis());
            tries.failed(length, 0.5);
        }
        assert_eq!(seen, [50, 75, 112, 168, 253, 379, 500, 500]);
        assert_eq!(tries.count(), 8);
    }

    #[test]
    fn a_try_never_lasts_longer_than_what_is_left_of_any_budget() {
        let mut tries = Tries::new(SECOND, 30 * SECOND);
        for _ in 0..10 {
            tries.failed(SECOND, 0.0);
        }
        assert_eq!(
            tries.next(Duration::from_millis(120)),
            Some(Duration::from_millis(120))
        );
        assert_eq!(tries.next(Duration::from_millis(49)), None);
        // A server that looks for deadlocks early, and a budget below the shortest try.
        assert_eq!(
            Tries::new(Duration::from_millis(100), SECOND).next(SECOND),
            Some(SHORTEST_TRY)
        );
        let short = Tries::new(Duration::from_millis(10), SECOND).next(SECOND);
        assert_eq!(short, Some(Duration::from_millis(8)));
        let poor = Tries::new(SECOND, Duration::from_millis(20)).next(SECOND);
        assert_eq!(poor, Some(Duration::from_millis(20)));
    }

    proptest! {
        #[test]
        fn no_more_than_a_tenth_of_the_time_is_spent_in_the_queue(randoms in prop::collection::vec(0.0..1.0_f64, 1..40)) {
            let mut tries = Tries::new(SECOND, 30 * SECOND);
            let (mut stood, mut paused) = (Duration::ZERO, Duration::ZERO);
            for random in randoms {
                let length = tries.next(SECOND).unwrap();
                prop_assert!((SHORTEST_TRY..=LONGEST_TRY).contains(&length));
                stood += length;
                paused += tries.failed(length, random);
                prop_assert!(stood.as_secs_f64() <= 0.101 * (stood + paused).as_secs_f64());
            }
        }
    }
}
