//! Time: how long since the machine started, suspends included, and the date.
//!
//! Leases are counted with [`Boot`]. `std::time::Instant` stands still while a machine is suspended, so a holder that
//! slept would believe in a lease that ended long ago.

use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The clock that counts suspends too. On Apple's systems the monotonic clock already does.
#[cfg(not(target_vendor = "apple"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(target_vendor = "apple")]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// How long [`sleep_until`] sleeps at most before it looks at the clock again: timers stand still during a suspend.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// An instant, counted from the start of the machine, suspends included. Never goes back; means nothing to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(Duration);

impl Boot {
    /// The present instant.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(CLOCK);
        // Neither part is negative: the clock starts at zero with the machine.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanoseconds))
    }

    /// An instant this long after the start of the machine, for tests and simulations.
    pub const fn from_start(since: Duration) -> Self {
        Self(since)
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This much earlier, or the start of the machine.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl Add<Duration> for Boot {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// Sleeps until an instant has come; after a suspend it notices within a second.
///
/// # Cancel safety
/// Dropping it only ends the sleep.
pub async fn sleep_until(instant: Boot) {
    loop {
        let left = instant.saturating_since(Boot::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_NAP)).await;
    }
}

/// The time since the beginning of 1970 by this machine's clock, which an operator may set wrong.
pub fn unix_now() -> Duration {
    // A clock set before 1970 is as good as 1970: whoever compares it with another will see it is old.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whole seconds since 1970-01-01 UTC.
pub fn unix_seconds() -> i64 {
    i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward_only() {
        let first = Boot::now();
        let second = Boot::now();
        assert!(first <= second);
        assert_eq!(
            first.saturating_since(first + Duration::from_secs(1)),
            Duration::ZERO
        );
        assert_eq!(
            (first + Duration::from_secs(3)).saturating_sub(Duration::from_secs(3)),
            first
        );
    }

    #[tokio::test]
    async fn sleeping_ends_at_the_instant_and_not_before() {
        let until = Boot::now() + Duration::from_millis(30);
        sleep_until(until).await;
        assert!(Boot::now() >= until);
        sleep_until(until).await;
    }

    #[test]
    fn the_date_is_after_this_was_written() {
        assert!(unix_now() > Duration::from_secs(1_700_000_000));
    }
}
