//! Where a batch ends, computed: in a key of whole numbers with few gaps, so many numbers hold almost as many rows. To look
//! for an end reads all keys of the batch, which is a fifth of the work of a delete.

/// Among so many numbers for each row an end is looked for.
const MOST_PER_ROW: u64 = 2;

/// Fewer rows than this part of what a batch may have: they are few, or the condition leaves most of them out.
const THIN: u64 = 4;

/// After so many computed ends the next is looked for: the gaps may be others by now.
const COMPUTED: u32 = 15;

/// The gaps of a key of whole numbers, as the last look for an end met them. A hint: no batch is ever larger for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gaps {
    /// Ends that may still be computed.
    left: u32,
    /// The largest key, as last seen: where a range without an upper end is not at its end yet.
    largest: Option<i64>,
}

/// Where a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has to be looked for.
    Unknown,
    /// At this key or before it.
    At(i64),
    /// The whole rest of the range has no more rows than the batch.
    Rest,
}

impl Gaps {
    /// The end of a batch of at most so many rows after `from`, in a range up to `upper`, or in one that is open there.
    pub fn end(&mut self, from: i64, upper: Option<i64>, rows: u32) -> End {
        let Some(left) = self.left.checked_sub(1) else {
            return End::Unknown;
        };
        let end = from.checked_add(i64::from(rows));
        let end = match (end, upper.or(self.largest)) {
            (Some(end), Some(last)) if end < last => End::At(end),
            // Behind the largest key there may be new ones.
            _ if upper.is_none() => return End::Unknown,
            _ => End::Rest,
        };
        self.left = left;
        end
    }

    /// Whether ends may be computed now.
    pub fn are_few(&self) -> bool {
        self.left > 0
    }

    /// The largest key there is.
    pub fn reach(&mut self, largest: i64) {
        self.largest = Some(largest);
    }

    /// A batch of at most so many rows, whose end was computed, changed so many. Whether that is far fewer; then the next
    /// end is looked for.
    pub fn met(&mut self, changed: u64, rows: u32) -> bool {
        let is_thin = changed < u64::from(rows) / THIN;
        if is_thin {
            self.left = 0;
        }
        is_thin
    }

    /// A look found so many rows after `from` and up to `end`.
    pub fn found(&mut self, from: i64, end: i64, rows: u32) {
        let has_few = from.abs_diff(end) <= u64::from(rows) * MOST_PER_ROW;
        self.left = if has_few { COMPUTED } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_is_looked_for() {
        assert_eq!(Gaps::default().end(0, Some(1_000), 10), End::Unknown);
    }

    #[test]
    fn ends_are_computed_for_a_while_where_gaps_are_few() {
        let mut gaps = Gaps::default();
        gaps.found(100, 120, 10);
        for _ in 0..COMPUTED {
            assert_eq!(gaps.end(120, Some(1_000), 50), End::At(170));
        }
        assert_eq!(gaps.end(120, Some(1_000), 50), End::Unknown);
    }

    #[test]
    fn ends_are_looked_for_where_gaps_are_many() {
        let mut gaps = Gaps::default();
        gaps.found(100, 120, 10);
        gaps.found(120, 141, 10);
        assert_eq!(gaps.end(141, Some(1_000), 50), End::Unknown);
    }

    #[test]
    fn after_a_batch_with_next_to_no_rows_the_end_is_looked_for() {
        let mut gaps = Gaps::default();
        gaps.found(0, 100, 100);
        assert!(!gaps.met(25, 100));
        assert_eq!(gaps.end(100, Some(1_000), 50), End::At(150));
        assert!(gaps.met(24, 100));
        assert_eq!(gaps.end(150, Some(1_000), 50), End::Unknown);
    }

    #[test]
    fn in_an_open_range_ends_are_computed_up_to_the_largest_key() {
        let mut gaps = Gaps::default();
        gaps.found(0, 10, 10);
        assert_eq!(gaps.end(10, None, 50), End::Unknown);
        gaps.reach(100);
        assert_eq!(gaps.end(10, None, 50), End::At(60));
        assert_eq!(gaps.end(49, None, 50), End::At(99));
        for from in [50, 100, 1_000, i64::MAX] {
            assert_eq!(gaps.end(from, None, 50), End::Unknown, "{from}");
        }
        // It says nothing of a range that has an end.
        assert_eq!(gaps.end(60, Some(1_000), 50), End::At(110));
    }

    #[test]
    fn a_batch_that_reaches_the_upper_end_is_the_rest() {
        let mut gaps = Gaps::default();
        gaps.found(-5, 5, 10);
        assert_eq!(gaps.end(940, Some(991), 50), End::At(990));
        assert_eq!(gaps.end(940, Some(990), 50), End::Rest);
        assert_eq!(gaps.end(i64::MAX - 5, Some(i64::MAX), 50), End::Rest);
        // Keys at both ends of their type are far apart, not near by overflow.
        gaps.found(i64::MIN, i64::MAX, 10);
        assert_eq!(gaps.end(0, Some(1_000), 50), End::Unknown);
    }
}
