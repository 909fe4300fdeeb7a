//! What a statement takes whatever its rows: the way to the server and back, and what a server does for any statement.
//!
//! The statement that moves a range's cursor writes two rows, so most of its time is that. The shortest of many is believed,
//! since all that comes between makes a time longer, never shorter; and less and less so, since a way may grow.

use std::time::Duration;

/// Each time lets what is believed grow by one part in so many: some forty double it.
const FORGETS: u32 = 64;

/// What a statement of a batch takes whatever its rows, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overhead(Option<Duration>);

impl Overhead {
    /// A statement with next to nothing to do took so long.
    pub fn met(&mut self, elapsed: Duration) {
        let believed = self.0.map(|least| least + least / FORGETS);
        self.0 = Some(believed.map_or(elapsed, |believed| believed.min(elapsed)));
    }

    /// What the rows of a statement took that took so long in all.
    pub fn without(self, elapsed: Duration) -> Duration {
        elapsed.saturating_sub(self.0.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn after(micros: impl IntoIterator<Item = u64>) -> Duration {
        let mut overhead = Overhead::default();
        for micros in micros {
            overhead.met(Duration::from_micros(micros));
        }
        LONG.saturating_sub(overhead.without(LONG))
    }

    #[test]
    fn the_shortest_of_late_counts() {
        assert_eq!(after([]), Duration::ZERO);
        assert_eq!(after([900, 300, 5_000]), Duration::from_nanos(304_687));
        assert_eq!(Overhead::default().without(LONG), LONG);
    }

    #[test]
    fn a_way_that_grew_longer_is_believed_by_and_by() {
        let grew = |times: usize| after([100].into_iter().chain(std::iter::repeat_n(10_000, times)));
        assert!(grew(10) < Duration::from_micros(120), "{:?}", grew(10));
        assert!(grew(45) > Duration::from_micros(200), "{:?}", grew(45));
        assert_eq!(grew(400), Duration::from_millis(10));
    }

    #[test]
    fn what_took_less_had_no_rows_to_speak_of() {
        let mut overhead = Overhead::default();
        overhead.met(Duration::from_micros(300));
        assert_eq!(overhead.without(Duration::from_micros(200)), Duration::ZERO);
    }
}
