//! How large the next batch is: a control law over measured times.
//!
//! The first size is the user's or the guide's; from the third batch on the size follows the time per row towards the
//! target, at most doubling or halving at once; a batch that ran into a timeout is halved.

use std::time::Duration;

/// The time one batch should take where nobody says otherwise. An application that wants a row of the batch waits as long,
/// so it is short; the fixed cost of a batch, some 2 ms, still counts little, since its commit does not wait for the disk.
pub const TARGET: Duration = Duration::from_millis(50);

/// The first size, where neither the user nor the server's size gives one: the guide's default.
pub const FIRST_ROWS: u32 = 10_000;

/// The guide's table: from this much memory (bytes) and this many cores on, begin with so many rows. Memory is counted
/// in decimal gigabytes: a machine sold with 8 GiB tells 7.6 GiB, which are 8.2 GB. What is smaller than the first row
/// begins like it.
const BY_SERVER: [(u64, u32, u32); 4] = [
    (4_000_000_000, 2, 5_000),
    (8_000_000_000, 4, 10_000),
    (16_000_000_000, 8, 25_000),
    (32_000_000_000, 16, 50_000),
];

/// Bounds of the size.
const LEAST_ROWS: u32 = 1;
const MOST_ROWS: u32 = 1_000_000;

/// Below it a measured time says nothing about rows: what a statement takes anyway is known no better.
const LEAST_TIME: Duration = Duration::from_micros(100);

/// So few rows that take no longer than [`TARGET`] are not made fewer for their time: it is mostly that of waiting for a core.
const FEW_ROWS: u32 = 16;

/// Batches at the first size before the first correction: the first ones read from a cold cache.
const WARM_UP: u32 = 2;

/// The first size on a server with this much memory and this many cores: the smaller of what the two allow by the
/// guide's table, [`FIRST_ROWS`] where neither is known.
pub fn first_rows(ram_bytes: Option<u64>, cores: Option<u32>) -> u32 {
    let by_ram = ram_bytes.map(|ram| allowed(|&(from, _, _)| ram >= from));
    let by_cores = cores.map(|cores| allowed(|&(_, from, _)| cores >= from));
    by_ram.into_iter().chain(by_cores).min().unwrap_or(FIRST_ROWS)
}

/// The rows of the last line of the table that fits.
fn allowed(fits: impl Fn(&(u64, u32, u32)) -> bool) -> u32 {
    let lines = BY_SERVER.iter().filter(|line| fits(line));
    lines.last().unwrap_or(&BY_SERVER[0]).2
}

/// The size of the next batch, and what it follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    rows: u32,
    batches: u32,
    target: Duration,
}

impl Size {
    /// Begins with this many rows (1 to 1,000,000) and steers towards batches of this time, usually [`TARGET`].
    pub fn new(first_rows: u32, target: Duration) -> Self {
        Self {
            rows: first_rows.clamp(LEAST_ROWS, MOST_ROWS),
            batches: 0,
            target,
        }
    }

    /// Rows of the next batch: the most keys it looks at.
    pub fn rows(self) -> u32 {
        self.rows
    }

    /// Steers towards another time from now on: towards a shorter one with as much of the size at once, towards a longer one
    /// by growing as ever.
    pub fn aim(&mut self, target: Duration) {
        let before = self.target.max(LEAST_TIME);
        self.target = target;
        if target < before {
            self.scale(target.max(LEAST_TIME).div_duration_f64(before));
        }
    }

    /// The rows of a full batch took this long, without what a statement takes whatever its rows: fewer of them make that no
    /// shorter. One that the end of its range cut short says nothing about the size: leave it out.
    pub fn took(&mut self, elapsed: Duration) {
        self.batches = self.batches.saturating_add(1);
        if self.batches <= WARM_UP {
            return;
        }
        let ratio = self.target.as_secs_f64() / elapsed.max(LEAST_TIME).as_secs_f64();
        // Half of the way in logarithms: one slow batch must not throw the size about.
        let factor = ratio.sqrt().clamp(0.5, 2.0);
        let before = self.rows;
        self.scale(factor);
        if elapsed <= TARGET {
            self.rows = self.rows.max(before.min(FEW_ROWS));
        }
    }

    /// A batch ran into a statement timeout, a lock timeout or a deadlock, and was rolled back: the next is half as large,
    /// at once.
    pub fn failed(&mut self) {
        self.scale(0.5);
    }

    fn scale(&mut self, factor: f64) {
        let rows = (f64::from(self.rows) * factor).clamp(f64::from(LEAST_ROWS), f64::from(MOST_ROWS));
        // Rounded, not cut: a size of a few rows could only fall otherwise.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the bounds above"
        )]
        let rows = rows.round() as u32;
        self.rows = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    /// Runs a table whose batch costs `per_row` a row, and gives the sizes.
    fn sizes(first: u32, per_row: Duration, target: Duration, batches: usize) -> Vec<u32> {
        let mut size = Size::new(first, target);
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
            for (target, rows) in [(TARGET, 1_000), (Duration::from_millis(100), 2_000)] {
                let last = *sizes(first, Duration::from_micros(50), target, 30)
                    .last()
                    .unwrap();
                let near = rows * 9 / 10..=rows * 11 / 10;
                assert!(near.contains(&last), "from {first} for {target:?}: {last}");
            }
        }
    }

    #[test]
    fn it_is_first_corrected_after_the_third_batch_and_never_more_than_doubles() {
        let sizes = sizes(100, Duration::from_micros(1), TARGET, 10);
        assert_eq!(&sizes[..3], &[100, 100, 100]);
        assert_eq!(sizes[3], 200);
        assert!(sizes[2..].windows(2).all(|w| w[1] <= w[0] * 2), "{sizes:?}");
    }

    #[test]
    fn a_shorter_target_moves_the_size_with_it_at_once_and_a_longer_one_by_and_by() {
        let mut size = Size::new(10_000, TARGET);
        size.aim(Duration::from_millis(5));
        assert_eq!(size.rows(), 1_000);
        size.aim(Duration::from_millis(5));
        assert_eq!(size.rows(), 1_000);
        size.aim(TARGET);
        assert_eq!(size.rows(), 1_000);
        for _ in 0..=WARM_UP {
            size.took(Duration::from_millis(5));
        }
        assert_eq!(size.rows(), 2_000);
    }

    #[test]
    fn a_few_rows_are_made_fewer_only_where_they_take_long() {
        let last = |per_row: u64| {
            *sizes(200, Duration::from_millis(per_row), Duration::from_millis(1), 40)
                .last()
                .unwrap()
        };
        assert_eq!(last(1), FEW_ROWS);
        assert_eq!(last(100), 1);
    }

    #[test]
    fn a_failure_halves_at_once_but_never_to_nothing() {
        let mut size = Size::new(3, TARGET);
        size.failed();
        assert_eq!(size.rows(), 2);
        size.failed();
        size.failed();
        assert_eq!(size.rows(), 1);
    }

    #[test]
    fn the_first_size_is_the_guides_for_the_weaker_of_memory_and_cores() {
        for (ram, cores, rows) in [
            (None, None, 10_000),
            (Some(4 * GIB), Some(2), 5_000),
            (Some(8 * GIB), Some(4), 10_000),
            (Some(16 * GIB), Some(8), 25_000),
            (Some(32 * GIB), Some(16), 50_000),
            (Some(256 * GIB), Some(128), 50_000),
            (Some(GIB), Some(1), 5_000),
            (Some(32 * GIB), Some(4), 10_000),
            (Some(7 * GIB), Some(64), 5_000),
            // Sold as 8 GiB; the kernel keeps the rest.
            (Some(7_980_000 * 1024), None, 10_000),
            (None, Some(8), 25_000),
        ] {
            assert_eq!(first_rows(ram, cores), rows, "{ram:?}, {cores:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_the_size_stays_in_its_bounds_and_at_most_doubles(
            first: u32,
            target_ms in 0_u64..100_000,
            events in prop::collection::vec(prop::option::of(any::<u32>()), 0..100),
        ) {
            let mut size = Size::new(first, Duration::from_millis(target_ms));
            for event in events {
                let before = size.rows();
                match event {
                    Some(elapsed) => size.took(Duration::from_micros(elapsed.into())),
                    None => size.failed(),
                }
                prop_assert!((LEAST_ROWS..=MOST_ROWS).contains(&size.rows()));
                prop_assert!(size.rows() <= before * 2);
                prop_assert!(event.is_some() || size.rows() <= before.div_ceil(2));
            }
        }
    }
}
