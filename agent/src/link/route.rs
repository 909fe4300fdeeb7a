//! Which coordinator to try next, and when. Pure; randomness is an argument.

use std::time::Duration;

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// As many attempts without a Welcome may be redirects that are followed without a pause.
const FOLLOWED_AT_ONCE: u32 = 8;

/// The way to the leader.
#[derive(Debug)]
pub(super) struct Route {
    /// From the settings, in the user's order.
    coordinators: Vec<String>,
    /// Index of the next one of them.
    next: usize,
    /// Whom the last one asked named as the leader, or who was it last.
    leader: Option<String>,
    /// Attempts since the last Welcome.
    attempts: u32,
}

impl Route {
    pub(super) fn new(coordinators: Vec<String>) -> Self {
        Self {
            coordinators,
            next: 0,
            leader: None,
            attempts: 0,
        }
    }

    /// Whom to ask next, besides `relay`, to whom there is a connection already. `None`: nobody else is known, wait
    /// for what the relay will say.
    ///
    /// The leader comes first; every second time it is somebody from the settings, since a leader may be known by a
    /// URL that cannot be reached from here, or may be dead while the one who named it does not know yet.
    pub(super) fn next(&mut self, relay: Option<&str>) -> Option<String> {
        let attempt = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        let leader = self.leader.clone();
        if attempt.is_multiple_of(2) && leader.is_some() {
            return leader;
        }
        self.next_of_settings(relay).or(leader)
    }

    fn next_of_settings(&mut self, relay: Option<&str>) -> Option<String> {
        for _ in 0..self.coordinators.len() {
            let candidate = &self.coordinators[self.next % self.coordinators.len()];
            self.next = (self.next + 1) % self.coordinators.len();
            if ![relay, self.leader.as_deref()].contains(&Some(candidate.as_str())) {
                return Some(candidate.clone());
            }
        }
        None
    }

    /// A follower said who leads.
    pub(super) fn redirected(&mut self, leader: Option<String>) {
        self.leader = leader;
        // An odd number would try somebody from the settings first. The pause keeps growing, so that two followers
        // that point at each other do not make us run in circles.
        self.attempts = self.attempts.next_multiple_of(2);
    }

    /// The one at `url` welcomed us.
    pub(super) fn welcomed(&mut self, url: &str) {
        self.leader = Some(url.to_owned());
        self.attempts = 0;
    }

    /// How long to wait before the next attempt; `random` in 0..1 spreads many agents.
    pub(super) fn pause(&self, random: f64) -> Duration {
        let doublings = (self.attempts / 2).min(8);
        (FIRST_PAUSE * 2_u32.pow(doublings))
            .min(LONGEST_PAUSE)
            .mul_f64(f64::midpoint(random, 1.0))
    }

    /// Whether a redirect may be followed at once: not after many without a Welcome, since two followers may point at
    /// each other.
    pub(super) fn fresh(&self) -> bool {
        self.attempts <= FOLLOWED_AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(coordinators: &[&str]) -> Route {
        Route::new(coordinators.iter().map(|&url| url.to_owned()).collect())
    }

    #[test]
    fn without_a_leader_the_settings_are_gone_round() {
        let mut route = route(&["a", "b"]);
        let asked: Vec<_> = (0..4).filter_map(|_| route.next(None)).collect();
        assert_eq!(asked, ["a", "b", "a", "b"]);
    }

    #[test]
    fn the_leader_is_asked_first_and_others_in_between() {
        let mut route = route(&["a", "b"]);
        assert_eq!(route.next(None).unwrap(), "a");
        route.redirected(Some("c".to_owned()));
        let asked: Vec<_> = (0..4).filter_map(|_| route.next(Some("a"))).collect();
        assert_eq!(asked, ["c", "b", "c", "b"]);
    }

    #[test]
    fn with_only_the_relay_known_there_is_nobody_to_ask() {
        let mut route = route(&["a"]);
        assert_eq!(route.next(None).unwrap(), "a");
        route.redirected(None);
        assert_eq!(route.next(Some("a")), None);
    }

    #[test]
    fn a_leader_that_cannot_be_reached_is_tried_again_when_nobody_else_is_known() {
        let mut route = route(&["a"]);
        route.next(None);
        route.redirected(Some("b".to_owned()));
        let asked: Vec<_> = (0..3).filter_map(|_| route.next(Some("a"))).collect();
        assert_eq!(asked, ["b", "b", "b"]);
    }

    #[test]
    fn after_a_loss_the_last_leader_is_asked_first() {
        let mut route = route(&["a", "b"]);
        route.next(None);
        route.welcomed("b");
        let asked: Vec<_> = (0..4).filter_map(|_| route.next(None)).collect();
        assert_eq!(asked, ["b", "a", "b", "a"]);
    }

    #[test]
    fn pauses_grow_to_two_seconds_and_start_anew_after_a_welcome() {
        let mut route = route(&["a"]);
        assert_eq!(route.pause(1.0), Duration::from_millis(100));
        for _ in 0..40 {
            route.next(None);
            assert!(route.pause(0.0) >= Duration::from_millis(50));
            assert!(route.pause(1.0) <= Duration::from_secs(2));
        }
        assert_eq!(route.pause(1.0), Duration::from_secs(2));
        route.welcomed("a");
        assert_eq!(route.pause(1.0), Duration::from_millis(100));
    }
}
