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

/// The lease, its heartbeats and what is known of their answers.
#[derive(Debug)]
pub(super) struct Lease {
    current: Option<Current>,
    /// Of the last heartbeat; grows over the whole life of the process, so that answers are never mixed up.
    sequence: u64,
    /// Sent and not answered, oldest first.
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Current {
    id: i64,
    ttl: Duration,
    interval: Duration,
    valid_until: Boot,
    next_heartbeat: Boot,
}

#[derive(Debug)]
struct Pending {
    sequence: u64,
    connection: ConnectionId,
    lease: i64,
    sent: Boot,
}

/// What a Welcome meant for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    /// The first lease, or the same as before.
    Kept,
    /// Another one: what ran under the earlier has no lease any more.
    Another,
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
    pub(super) fn none() -> Self {
        Self {
            current: None,
            sequence: 0,
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
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.ttl = ttl;
            current.interval = interval;
            current.valid_until = current.valid_until.max(asked + validity(ttl));
            current.next_heartbeat = now + interval;
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
            next_heartbeat: now + interval,
        });
        granted
    }

    /// The next heartbeat, when it is due: its sequence and the lease.
    pub(super) fn heartbeat(&mut self, connection: ConnectionId, now: Boot) -> Option<(u64, i64)> {
        let current = self
            .current
            .as_mut()
            .filter(|current| current.next_heartbeat <= now)?;
        current.next_heartbeat = now + current.interval;
        self.sequence += 1;
        self.pending.push_back(Pending {
            sequence: self.sequence,
            connection,
            lease: current.id,
            sent: now,
        });
        Some((self.sequence, current.id))
    }

    /// The next heartbeat goes out at once: there is a new connection for it.
    pub(super) fn hurry(&mut self, now: Boot) {
        if let Some(current) = &mut self.current {
            current.next_heartbeat = now;
        }
    }

    /// An answer came.
    pub(super) fn answered(&mut self, connection: ConnectionId, sequence: u64, renewal: Renewal) -> Answered {
        let Some(at) = self
            .pending
            .iter()
            .position(|p| p.sequence == sequence && p.connection == connection)
        else {
            return Answered::Nothing;
        };
        let Some(Pending { lease, sent, .. }) = self.pending.remove(at) else {
            return Answered::Nothing;
        };
        let Some(current) = self.current.as_mut().filter(|current| current.id == lease) else {
            return Answered::Nothing;
        };
        match renewal {
            Renewal::Alive(ttl) => {
                current.ttl = ttl;
                // Answers may overtake each other on their way through two coordinators.
                current.valid_until = current.valid_until.max(sent + validity(ttl));
                Answered::Renewed
            }
            Renewal::Gone => Answered::Lost,
            Renewal::StoreUnavailable => Answered::Nothing,
        }
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
            .any(|p| p.connection == connection && p.sent + within <= now)
    }

    /// No answers will come on this connection.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        self.pending.retain(|p| p.connection != connection);
    }

    /// The lease is gone.
    pub(super) fn lose(&mut self) {
        self.current = None;
        self.pending.clear();
    }

    /// When this must be looked at again. Heartbeats need a connection to go out on.
    pub(super) fn wake_at(&self, connected: bool) -> Option<Boot> {
        let current = self.current.as_ref()?;
        let heartbeat = connected.then_some(current.next_heartbeat);
        let answer = self.pending.front().map(|p| p.sent + self.answer_within());
        [Some(current.valid_until), heartbeat, answer]
            .into_iter()
            .flatten()
            .min()
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
        let mut lease = Lease::none();
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
        assert_eq!(lease.heartbeat(HOME, at(105)), None);
        assert_eq!(lease.heartbeat(HOME, at(106)), Some((1, 7)));
        assert_eq!(lease.answered(HOME, 1, Renewal::Alive(TTL)), Answered::Renewed);
        assert!(!lease.expired(at(132)));
        assert!(lease.expired(at(133)));
    }

    #[test]
    fn an_answer_that_says_nothing_of_the_store_extends_nothing() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(110));
        assert_eq!(
            lease.answered(HOME, 1, Renewal::StoreUnavailable),
            Answered::Nothing
        );
        assert!(lease.expired(at(127)));
    }

    #[test]
    fn an_answer_counts_once_and_only_from_the_connection_it_was_asked_on() {
        let mut lease = granted();
        lease.heartbeat(HOME, at(110));
        assert_eq!(lease.answered(RELAY, 1, Renewal::Alive(TTL)), Answered::Nothing);
        assert_eq!(lease.answered(HOME, 1, Renewal::Alive(TTL)), Answered::Renewed);
        assert_eq!(
            lease.answered(HOME, 1, Renewal::Alive(Duration::from_mins(15))),
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
        assert_eq!(lease.answered(HOME, 1, Renewal::Gone), Answered::Nothing);
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
        let mut lease = Lease::none();
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
        assert_eq!(lease.wake_at(true), None);
    }
}
