//! How large the next batch is: a control law over measured times.
//!
//! The first size is the user's or the guide's; from the third batch on the size follows the time per row towards
//! [`TARGET`], growing at most by half or twofold at once; a batch that ran into a timeout is halved.

use std::time::Duration;

/// The time one batch should take: long enough that its fixed cost does not count, short enough that row locks and old
/// snapshots do no harm.
pub const TARGET: Duration = Duration::from_millis(500);

/// The first size, where the user gives none: the guide's default.
pub const FIRST_ROWS: u32 = 10_000;

/// Bounds of the size.
const LEAST_ROWS: u32 = 1;
const MOST_ROWS: u32 = 1_000_000;

/// Batches at the first size before the first correction: the first ones read from a cold cache.
const WARM_UP: u32 = 2;

/// The size of the next batch, and what it follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    rows: u32,
    batches: u32,
    target: Duration,
}

impl Size {
    /// Begins with this many rows.
    pub fn starting_at(rows: u32) -> Self {
        Self {
            rows: rows.clamp(LEAST_ROWS, MOST_ROWS),
            batches: 0,
            target: TARGET,
        }
    }

    /// Rows of the next batch: the most keys it looks at.
    pub fn rows(self) -> u32 {
        self.rows
    }

    /// A full batch took this long.
    pub fn took(&mut self, elapsed: Duration) {
        self.batches = self.batches.saturating_add(1);
        if self.batches <= WARM_UP {
            return;
        }
        let ratio = self.target.as_secs_f64() / elapsed.as_secs_f64().max(0.000_1);
        // Half of the way in logarithms: one slow batch must not throw the size about.
        let factor = ratio.sqrt().clamp(0.5, 2.0);
        self.scale(factor);
    }

    /// A batch ran into a timeout, a lock or a deadlock: the next is half as large, at once.
    pub fn failed(&mut self) {
        self.scale(0.5);
    }

    fn scale(&mut self, factor: f64) {
        let rows = (f64::from(self.rows) * factor).clamp(f64::from(LEAST_ROWS), f64::from(MOST_ROWS));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the bounds above"
        )]
        let rows = rows as u32;
        self.rows = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a table whose batch costs `per_row` a row, and gives the sizes.
    fn sizes(first: u32, per_row: Duration, batches: usize) -> Vec<u32> {
        let mut size = Size::starting_at(first);
        (0..batches)
            .map(|_| {
                let rows = size.rows();
                size.took(per_row * rows);
                rows
            })
            .collect()
    }

    #[test]
    fn the_size_settles_at_the_target_time() {
        for first in [10, 10_000, 500_000] {
            let last = *sizes(first, Duration::from_micros(50), 30).last().unwrap();
            assert!((9_000..=11_000).contains(&last), "from {first}: {last}");
        }
    }

    #[test]
    fn it_is_first_corrected_after_the_third_batch_and_never_more_than_doubles() {
        let sizes = sizes(100, Duration::from_micros(1), 10);
        assert_eq!(&sizes[..3], &[100, 100, 100]);
        assert!(sizes[2..].windows(2).all(|w| w[1] <= w[0] * 2), "{sizes:?}");
    }

    #[test]
    fn a_failure_halves_at_once_but_never_to_nothing() {
        let mut size = Size::starting_at(3);
        size.failed();
        assert_eq!(size.rows(), 1);
        size.failed();
        assert_eq!(size.rows(), 1);
    }
}
