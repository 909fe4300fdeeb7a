//! Moments that are stored and shown: the wall clock of whoever decides, passed in as a value.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// A moment from the time passed since 1970.
    pub fn since_1970(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment a while later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long from `self` until `later`; zero when that has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// UTC to the second, as in RFC 3339.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_second(seconds) {
            Ok(timestamp) => timestamp.fmt(f),
            // Beyond the year 9999: still a number rather than nothing.
            Err(_) => write!(f, "{} ms after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_in_utc_to_the_second() {
        assert_eq!(Time(1_790_000_000_999).to_string(), "2026-09-21T14:13:20Z");
        assert_eq!(Time(u64::MAX).to_string(), format!("{} ms after 1970", u64::MAX));
    }

    #[test]
    fn the_way_to_a_moment_that_has_passed_is_zero() {
        assert_eq!(Time(5).until(Time(3)), Duration::ZERO);
        assert_eq!(Time(5).after(Duration::from_secs(1)), Time(1005));
    }
}
