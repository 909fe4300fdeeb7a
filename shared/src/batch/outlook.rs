//! How fast rows are changed, and when they will all be: from what was done of late, with the spread that was seen.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What is older says little about what comes.
const WINDOW: Duration = Duration::from_mins(1);

/// Rates are taken over at least so long: single batches come in steps.
const SPAN: Duration = Duration::from_secs(5);

/// What has been done, and when.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// Time since any start, and rows done by then, at most one a second.
    seen: VecDeque<(Duration, u64)>,
}

impl Outlook {
    /// So many rows are done by `now`, the time since any start.
    pub fn observe(&mut self, now: Duration, rows: u64) {
        match self.seen.back() {
            // Another step, or a doubtful batch that was lost: what was seen is of no use.
            Some((_, before)) if *before > rows => self.seen.clear(),
            Some((at, _)) if now.saturating_sub(*at) < Duration::from_secs(1) => return,
            Some(_) | None => {}
        }
        self.seen.push_back((now, rows));
        while (self.seen.get(1)).is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Rows a second over the last minute; `None` before there is anything to tell.
    pub fn rate(&self) -> Option<f64> {
        rate(*self.seen.front()?, *self.seen.back()?)
    }

    /// How long so many more rows take: between the fastest and the slowest five seconds of the last minute. `None` before
    /// there is anything to tell.
    pub fn left(&self, rows: u64) -> Option<RangeInclusive<Duration>> {
        let rates: Vec<f64> = (self.seen.iter().enumerate())
            .filter_map(|(i, from)| {
                let to = self
                    .seen
                    .iter()
                    .skip(i)
                    .find(|(at, _)| at.saturating_sub(from.0) >= SPAN)?;
                rate(*from, *to)
            })
            .collect();
        let fastest = rates.iter().copied().reduce(f64::max)?;
        let slowest = rates.iter().copied().reduce(f64::min)?;
        let time = |rate: f64| {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let seconds = rows as f64 / rate;
            Duration::try_from_secs_f64(seconds).ok()
        };
        Some(time(fastest)?..=time(slowest)?)
    }
}

fn rate(from: (Duration, u64), to: (Duration, u64)) -> Option<f64> {
    let seconds = to.0.saturating_sub(from.0).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rows = to.1.saturating_sub(from.1) as f64;
    (seconds > 0.0).then(|| rows / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, rows: impl Fn(u64) -> u64) -> Outlook {
        let mut outlook = Outlook::default();
        for second in 0..=seconds {
            outlook.observe(Duration::from_secs(second), rows(second));
        }
        outlook
    }

    #[test]
    fn a_steady_rate_leaves_no_spread() {
        let outlook = after(20, |second| second * 100);
        assert_eq!(outlook.rate(), Some(100.0));
        let ten = Duration::from_secs(10);
        assert_eq!(outlook.left(1000), Some(ten..=ten));
    }

    #[test]
    fn what_was_seen_to_vary_is_the_spread() {
        let outlook = after(20, |second| second.min(10) * 100 + second.saturating_sub(10) * 50);
        let left = outlook.left(1000).unwrap();
        assert_eq!((left.start().as_secs(), left.end().as_secs()), (10, 20));
    }

    #[test]
    fn nothing_is_told_before_there_is_something_to_tell() {
        assert_eq!(Outlook::default().rate(), None);
        assert_eq!(after(3, |second| second).left(10), None);
        // At rest no end is in sight.
        assert_eq!(after(20, |_| 7).left(10), None);
    }

    #[test]
    fn another_step_begins_anew() {
        let mut outlook = after(20, |second| second * 100);
        outlook.observe(Duration::from_secs(21), 5);
        assert_eq!(outlook.rate(), None);
    }
}
