//! Application stall: the wall time in which at least one session of others waits behind ours.

use std::collections::VecDeque;
use std::time::Duration;

/// The stall that one sliding minute may hold where nobody says otherwise.
pub const STALL_BUDGET: Duration = Duration::from_secs(1);

/// How far back the budget looks.
const WINDOW: Duration = Duration::from_mins(1);

/// What others have waited, as spells of time since any start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    budget: Duration,
    /// Begin and end, in order, apart from each other.
    spells: VecDeque<(Duration, Duration)>,
    total: Duration,
}

impl Stall {
    /// Nobody has waited yet; a minute may hold so much.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            spells: VecDeque::new(),
            total: Duration::ZERO,
        }
    }

    /// Somebody waited from the one moment to the other. What is known already is not counted twice.
    pub fn waited(&mut self, from: Duration, to: Duration) {
        let from = self.spells.back().map_or(from, |(_, end)| from.max(*end));
        if to <= from {
            return;
        }
        self.total += to.saturating_sub(from);
        match self.spells.back_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => self.spells.push_back((from, to)),
        }
    }

    /// All of it since the start.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The budget of a minute.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// What is left of the budget at this moment.
    pub fn left(&self, now: Duration) -> Duration {
        let start = now.saturating_sub(WINDOW);
        let within = |(from, to): &(Duration, Duration)| to.saturating_sub(start.max(*from));
        let used: Duration = self.spells.iter().map(within).sum();
        self.budget.saturating_sub(used)
    }

    /// Forgets what no budget counts any more.
    pub fn forget(&mut self, now: Duration) {
        let start = now.saturating_sub(WINDOW);
        while self.spells.front().is_some_and(|(_, to)| *to <= start) {
            self.spells.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_minute_later_the_budget_is_whole_again() {
        let mut stall = Stall::new(STALL_BUDGET);
        stall.waited(ms(1_000), ms(1_600));
        assert_eq!(stall.left(ms(2_000)), ms(400));
        stall.waited(ms(10_000), ms(12_000));
        assert_eq!(stall.left(ms(12_000)), Duration::ZERO);
        // Half of the first spell is out of sight.
        assert_eq!(Stall::left(&stall, ms(61_300)), Duration::ZERO);
        assert_eq!(stall.left(ms(71_500)), ms(500));
        assert_eq!(stall.left(ms(72_000)), STALL_BUDGET);
        assert_eq!(stall.total(), ms(2_600));
    }

    #[test]
    fn the_same_moments_count_once() {
        let mut stall = Stall::new(STALL_BUDGET);
        stall.waited(ms(0), ms(100));
        stall.waited(ms(50), ms(120));
        stall.waited(ms(20), ms(80));
        assert_eq!(stall.total(), ms(120));
    }

    proptest! {
        #[test]
        fn what_is_left_grows_while_nobody_waits_and_forgetting_changes_nothing(
            spells in prop::collection::vec((0_u64..20_000, 1_u64..3_000), 0..30),
            steps in prop::collection::vec(0_u64..10_000, 1..20),
        ) {
            let mut stall = Stall::new(STALL_BUDGET);
            let mut now = Duration::ZERO;
            for (gap, length) in spells {
                stall.waited(now + ms(gap), now + ms(gap + length));
                now += ms(gap + length);
            }
            let mut left = stall.left(now);
            for step in steps {
                now += ms(step);
                let mut forgotten = stall.clone();
                forgotten.forget(now);
                prop_assert_eq!(forgotten.left(now), stall.left(now));
                prop_assert!(stall.left(now) >= left);
                left = stall.left(now);
            }
            prop_assert_eq!(stall.left(now + WINDOW), STALL_BUDGET);
        }
    }
}
