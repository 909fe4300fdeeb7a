//! The agent's lease: how long work may go on without an answer from a coordinator. Pure; `now` is an argument.
//!
//! Only an answer that was received counts as a renewal, and its validity is counted from *before* the heartbeat was
//! sent, less a margin. So the agent stops before the store can have given its databases to another. This is for
//! speed and politeness; what makes a late agent harmless is the fence in the database.

use super::ConnectionId;
use runtime::clock::Boot;
use shared::rollout::message::Renewal;
use std::collections::VecDeque;
use std::time::Duration;

/// Bounds of the time within which a heartbeat must be answered; in between a quarter of the lease.
const ANSWER_WITHIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

/// Heartbeats are not sent more often than this, whatever a coordinator asks for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// How often to send a heartbeat without a lease: coordinators end a stream on which nothing is heard for 10 s.
const IDLE_INTERVAL: Duration = Duration::from_secs(4);

/// Names no lease in a heartbeat.
const NO_LEASE: i64 = 0;

/// The lease, its heartbeats and what is known of their answers.
#[derive(Debug)]
pub(super) struct Lease {
    tally: Tally,
    current: Option<Current>,
    /// Of the last heartbeat; grows over the whole life of the process, so that answers are never mixed up.
    sequence: u64,
    next_heartbeat: Boot,
    /// Sent and not answered, oldest first.
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Current {
    id: i64,
    ttl: Duration,
    interval: Duration,
    valid_until: Boot,
}

#[derive(Debug)]
struct Pending {
    sequence: u64,
    connection: ConnectionId,
    lease: i64,
    sent: Boot,
    /// Since when nothing has been heard on the connection that could have been the answer.
    silent_since: Boot,
}

/// What a Welcome meant for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    /// The first lease, or the same as before.
    Kept,
    /// Another one: what ran under the earlier has no lease any more.
    Another,
}

/// What has come of renewals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The lease lives on.
    pub(super) renewed: u64,
    /// The store did not answer the coordinator.
    pub(super) failed: u64,
    /// Leases that ended before their time.
    pub(super) lost: u64,
}

/// What an answer to a heartbeat meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// The lease lives on.
    Renewed,
    /// The lease is gone.
    Lost,
    /// Nothing: the store did not answer the coordinator, or the answer is about an earlier lease.
    Nothing,
}

impl Lease {
    pub(super) fn none(now: Boot) -> Self {
        Self {
            tally: Tally::default(),
            current: None,
            sequence: 0,
            next_heartbeat: now + IDLE_INTERVAL,
            pending: VecDeque::new(),
        }
    }

    /// The lease to name in a Hello.
    pub(super) fn id(&self) -> Option<i64> {
        self.current.as_ref().map(|current| current.id)
    }

    /// A coordinator named the lease in its Welcome, in answer to a Hello sent at `asked`: it was granted or renewed
    /// after that, so its validity counts from there.
    pub(super) fn granted(
        &mut self,
        id: i64,
        ttl: Duration,
        interval: Duration,
        asked: Boot,
        now: Boot,
    ) -> Granted {
        let interval = interval.clamp(SHORTEST_INTERVAL, (ttl / 3).max(SHORTEST_INTERVAL));
        self.next_heartbeat = now + interval;
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.ttl = ttl;
            current.interval = interval;
            current.valid_until = current.valid_until.max(asked + validity(ttl));
            return Granted::Kept;
        }
        let granted = if self.current.is_some() {
            Granted::Another
        } else {
            Granted::Kept
        };
        let valid_until = asked + validity(ttl);
        self.current = Some(Current {
            id,
            ttl,
            interval,
            valid_until,
        });
        granted
    }

    /// The next heartbeat, when it is due: its sequence and the lease. Without a lease it only keeps the connection.
    pub(super) fn heartbeat(&mut self, connection: ConnectionId, now: Boot) -> Option<(u64, i64)> {
        if now < self.next_heartbeat {
            return None;
        }
        let (lease, interval) = self
            .current
            .as_ref()
            .map_or((NO_LEASE, IDLE_INTERVAL), |current| {
                (current.id, current.interval)
            });
        self.next_heartbeat = now + interval;
        self.sequence += 1;
        self.pending.push_back(Pending {
            sequence: self.sequence,
            connection,
            lease,
            sent: now,
            silent_since: now,
        });
        Some((self.sequence, lease))
    }

    /// The next heartbeat goes out at once: there is a new connection for it.
    pub(super) fn hurry(&mut self, now: Boot) {
        if self.current.is_some() {
            self.next_heartbeat = now;
        }
    }

    /// An answer came. A coordinator works on one renewal at a time and leaves out heartbeats that come meanwhile, so
    /// earlier ones on the same connection will not be answered any more, and later ones have longer to wait.
    pub(super) fn answered(
        &mut self,
        connection: ConnectionId,
        sequence: u64,
        renewal: Renewal,
        now: Boot,
    ) -> Answered {
        let of = |p: &Pending| p.sequence == sequence && p.connection == connection;
        let Some(Pending { lease, sent, .. }) = self
            .pending
            .iter()
            .position(of)
            .and_then(|at| self.pending.remove(at))
        else {
            return Answered::Nothing;
        };
        self.pending
            .retain(|p| p.connection != connection || p.sequence > sequence);
        for later in self.pending.iter_mut().filter(|p| p.connection == connection) {
            later.silent_since = now;
        }
        let Some(current) = self.current.as_mut().filter(|current| current.id == lease) else {
            return Answered::Nothing;
        };
        match renewal {
            Renewal::Alive(ttl) => {
                current.ttl = ttl;
                // Answers may overtake each other on their way through two coordinators.
                current.valid_until = current.valid_until.max(sent + validity(ttl));
                self.tally.renewed += 1;
                Answered::Renewed
            }
            Renewal::Gone => Answered::Lost,
            Renewal::StoreUnavailable => {
                self.tally.failed += 1;
                Answered::Nothing
            }
        }
    }

    /// What has come of renewals since the process began.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the lease can have ended by now.
    pub(super) fn expired(&self, now: Boot) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.valid_until <= now)
    }

    /// Whether a heartbeat on this connection has waited too long for its answer: the connection is dead.
    pub(super) fn unanswered(&self, connection: ConnectionId, now: Boot) -> bool {
        let within = self.answer_within();
        self.pending
            .iter()
            .any(|p| p.connection == connection && p.silent_since + within <= now)
    }

    /// No answers will come on this connection.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        self.pending.retain(|p| p.connection != connection);
    }

    /// The lease is gone.
    pub(super) fn lose(&mut self) {
        self.current = None;
        self.tally.lost += 1;
        self.pending.clear();
    }

    /// When this must be looked at again. Heartbeats need a connection to go out on.
    pub(super) fn wake_at(&self, connected: bool) -> Option<Boot> {
        let end = self.current.as_ref().map(|current| current.valid_until);
        let heartbeat = connected.then_some(self.next_heartbeat);
        let silent_since = self.pending.iter().map(|p| p.silent_since).min();
        let answer = silent_since.map(|since| since + self.answer_within());
        [end, heartbeat, answer].into_iter().flatten().min()
    }

    fn answer_within(&self) -> Duration {
        let (least, most) = ANSWER_WITHIN;
        self.current
            .as_ref()
            .map_or(most, |current| (current.ttl / 4).clamp(least, most))
    }
}

/// How long a lease may be trusted: its time to live less a margin for clocks that run apart and for the way to the
/// databases (a second, or a tenth of it where that is more).
fn validity(ttl: Duration) -> Duration {
    ttl.saturating_sub((ttl / 10).max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: ConnectionId = ConnectionId(1);
    const RELAY: ConnectionId = ConnectionId(2);
    const TTL: Duration = Duration::from_secs(30);
    const INTERVAL: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    fn granted() -> Lease {
        let mut lease = Lease::none(at(100));
        assert_eq!(lease.granted(7, TTL, INTERVAL, at(100), at(101)), Granted::Kept);
        lease
    }

    #[test]
    fn a_new_lease_is_valid_from_before_it_was_asked_for_less_a_margin() {
        let lease = granted();
        assert!(!lease.expired(at(126)));
        assert!(lease.expired(at(127)));
    }

    #[test]
    fn an_answer_extends_the_validity_from_the_moment_its_heartbeat_was_sent() {
        let mut lease = granted();
        assert_eq!(lease.heartbeat(HOME, at(105)), None, "the Welcome came at 101");
        assert_eq!(lease.heartbeat(HOME, at(106)), Some((1, 7)));
        assert_eq!(
            lease.answered(HOME, 1, Renewal::Alive(TTL), at(112)),
            Answered::Renewed
        );
        assert!(!lease.expired(at(132)));
        assert!(lease.expired(at(133)));
    }

    #[test]
    fn an_answer_that_says_nothing_of_the_store_extends_nothing() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(110));
        assert_eq!(
            lease.answered(HOME, 1, Renewal::StoreUnavailable, at(112)),
            Answered::Nothing
        );
        assert!(lease.expired(at(127)));
    }

    #[test]
    fn an_answer_counts_once_and_only_from_the_connection_it_was_asked_on() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(110));
        assert_eq!(
            lease.answered(RELAY, 1, Renewal::Alive(TTL), at(112)),
            Answered::Nothing
        );
        assert_eq!(
            lease.answered(HOME, 1, Renewal::Alive(TTL), at(112)),
            Answered::Renewed
        );
        assert_eq!(
            lease.answered(HOME, 1, Renewal::Alive(Duration::from_mins(15)), at(112)),
            Answered::Nothing
        );
        assert!(lease.expired(at(137)));
    }

    #[test]
    fn a_late_answer_about_an_earlier_lease_does_not_end_the_new_one() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(110));
        assert_eq!(
            lease.granted(8, TTL, INTERVAL, at(111), at(111)),
            Granted::Another
        );
        assert_eq!(lease.answered(HOME, 1, Renewal::Gone, at(112)), Answered::Nothing);
        assert_eq!(lease.id(), Some(8));
    }

    #[test]
    fn the_same_lease_named_again_is_renewed_from_the_hello_on() {
        let mut lease = granted();
        assert_eq!(lease.granted(7, TTL, INTERVAL, at(120), at(124)), Granted::Kept);
        assert!(!lease.expired(at(146)));
        assert!(lease.expired(at(147)));
    }

    #[test]
    fn a_new_connection_carries_a_heartbeat_at_once() {
        let mut lease = granted();
        assert_eq!(lease.heartbeat(RELAY, at(102)), None);
        lease.hurry(at(102));
        assert_eq!(lease.heartbeat(RELAY, at(102)), Some((1, 7)));
    }

    #[test]
    fn a_heartbeat_without_an_answer_tells_that_the_connection_is_dead() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(106));
        assert!(!lease.unanswered(HOME, at(113)));
        assert!(lease.unanswered(HOME, at(114)));
        assert!(!lease.unanswered(RELAY, at(114)));
        lease.disconnected(HOME);
        assert!(!lease.unanswered(HOME, at(114)));
    }

    #[test]
    fn a_lease_too_short_for_its_margin_is_never_valid() {
        let mut lease = Lease::none(at(100));
        lease.granted(7, Duration::from_secs(1), INTERVAL, at(100), at(100));
        assert!(lease.expired(at(100)));
    }

    #[test]
    fn it_wakes_for_the_first_of_heartbeat_answer_and_end() {
        let mut lease = granted();
        assert_eq!(lease.wake_at(true), Some(at(106)));
        assert_eq!(lease.wake_at(false), Some(at(127)));
        lease.heartbeat(HOME, at(106));
        assert_eq!(lease.wake_at(true), Some(at(111)));
        lease.lose();
        assert_eq!(lease.wake_at(false), None);
    }

    #[test]
    fn a_heartbeat_that_was_left_out_while_another_was_worked_on_is_no_sign_of_death() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(106));
        lease.heartbeat(HOME, at(111));
        let renewal = Renewal::StoreUnavailable;
        assert_eq!(lease.answered(HOME, 1, renewal, at(112)), Answered::Nothing);
        assert!(!lease.unanswered(HOME, at(119)), "it has been heard of at 112");
        assert!(lease.unanswered(HOME, at(120)));
        lease.heartbeat(HOME, at(116));
        lease.answered(HOME, 3, renewal, at(117));
        assert!(
            !lease.unanswered(HOME, at(999)),
            "the second will never be answered"
        );
    }

    #[test]
    fn without_a_lease_heartbeats_only_keep_the_connection() {
        let mut lease = Lease::none(at(100));
        assert_eq!(lease.heartbeat(RELAY, at(103)), None);
        assert_eq!(lease.heartbeat(RELAY, at(104)), Some((1, 0)));
        assert_eq!(
            lease.answered(RELAY, 1, Renewal::Gone, at(105)),
            Answered::Nothing
        );
        assert_eq!(lease.heartbeat(RELAY, at(108)), Some((2, 0)));
    }
}
