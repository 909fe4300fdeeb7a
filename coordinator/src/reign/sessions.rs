//! The streams of the agents that this reign has taken.
//!
//! Another process that says Hello under the id of one that has a stream is either a mistake in the settings, or that
//! agent started again before the end of its old stream was seen. Only when the old one is heard *after* the other
//! came is it known to live, and the other told to go for good.

use shared::id::{AgentId, Digest, Instance};
use shared::rollout::Bundle;
use shared::rollout::message::ToAgent;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

/// Places in an agent's queue that only acknowledgements and stops may take: orders can wait for the next round, these
/// cannot be asked for again.
const RESERVE: usize = 64;

/// All of them, by agent.
#[derive(Default)]
pub(super) struct Sessions {
    all: BTreeMap<AgentId, Session>,
    /// Which other process said Hello under an id, and when first.
    contests: BTreeMap<AgentId, (Instance, Instant)>,
}

struct Session {
    stream: u64,
    instance: Instance,
    heard: watch::Receiver<Instant>,
    outbound: mpsc::Sender<ToAgent>,
    /// Bundles sent on this stream.
    bundles: BTreeSet<Digest>,
}

/// Whether a process can serve under an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It can.
    Free,
    /// Another has a stream, and was not heard since.
    Contested,
    /// Another does, and lives.
    Taken,
}

/// Whether something is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is.
    Yes,
    /// The agent is slow: try again later.
    Later,
    /// The stream is gone, or was ended because its queue is full.
    Gone,
}

impl Sessions {
    /// Takes a stream.
    pub(super) fn begin(
        &mut self,
        agent: AgentId,
        instance: Instance,
        stream: u64,
        heard: watch::Receiver<Instant>,
        outbound: mpsc::Sender<ToAgent>,
    ) {
        self.contests.remove(&agent);
        let session = Session {
            stream,
            instance,
            heard,
            outbound,
            bundles: BTreeSet::new(),
        };
        // Dropping the earlier one's queue ends its stream.
        self.all.insert(agent, session);
    }

    /// How it is about an agent's id, when a process asks for it.
    pub(super) fn claim(&mut self, agent: &AgentId, instance: Instance, now: Instant) -> Claim {
        let living = self
            .all
            .get(agent)
            .filter(|session| !session.outbound.is_closed());
        let Some(session) = living.filter(|session| session.instance != instance) else {
            return Claim::Free;
        };
        let contest = self.contests.entry(agent.clone()).or_insert((instance, now));
        if contest.0 != instance {
            *contest = (instance, now);
        }
        if *session.heard.borrow() > contest.1 {
            Claim::Taken
        } else {
            Claim::Contested
        }
    }

    /// Whether the agent's present stream is this one.
    pub(super) fn is_present(&self, agent: &AgentId, stream: u64) -> bool {
        self.all
            .get(agent)
            .is_some_and(|session| session.stream == stream)
    }

    /// Ends the agent's session.
    pub(super) fn end(&mut self, agent: &AgentId) {
        self.all.remove(agent);
    }

    /// Says something that must not be left out. A queue that is full even for that ends the session: the agent comes
    /// back and asks again.
    pub(super) fn say(&mut self, agent: &AgentId, message: ToAgent) -> Sent {
        let Some(session) = self.all.get(agent) else {
            return Sent::Gone;
        };
        match session.outbound.try_send(message) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(_)) => {
                tracing::warn!(%agent, "does not read what it is told; its stream is ended");
                self.end(agent);
                Sent::Gone
            }
            Err(TrySendError::Closed(_)) => Sent::Gone,
        }
    }

    /// Says something that can be said later, with the bundle it needs before it.
    pub(super) fn instruct(
        &mut self,
        agent: &AgentId,
        bundle: Option<(Digest, &Bundle)>,
        message: ToAgent,
    ) -> Sent {
        let Some(session) = self.all.get_mut(agent) else {
            return Sent::Gone;
        };
        if session.outbound.capacity() < RESERVE {
            return Sent::Later;
        }
        if let Some((digest, bundle)) = bundle
            && !session.bundles.contains(&digest)
        {
            match session.outbound.try_send(ToAgent::Bundle {
                digest,
                bundle: bundle.clone(),
            }) {
                Ok(()) => session.bundles.insert(digest),
                Err(TrySendError::Full(_)) => return Sent::Later,
                Err(TrySendError::Closed(_)) => return Sent::Gone,
            };
        }
        match session.outbound.try_send(message) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(_)) => Sent::Later,
            Err(TrySendError::Closed(_)) => Sent::Gone,
        }
    }

    /// Whether the bundle has been sent on the agent's present stream.
    pub(super) fn has_bundle(&self, agent: &AgentId, digest: Digest) -> bool {
        self.all
            .get(agent)
            .is_some_and(|session| session.bundles.contains(&digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::SetName;

    fn agent() -> AgentId {
        AgentId::try_from("x").unwrap()
    }

    fn instance(number: u128) -> Instance {
        Instance(uuid::Uuid::from_u128(number))
    }

    fn begin(
        sessions: &mut Sessions,
        stream: u64,
        outbound: mpsc::Sender<ToAgent>,
    ) -> watch::Sender<Instant> {
        let (sender, heard) = watch::channel(Instant::now());
        sessions.begin(agent(), instance(1), stream, heard, outbound);
        sender
    }

    fn goodbye() -> ToAgent {
        ToAgent::Redirect { leader: None }
    }

    #[test]
    fn a_bundle_goes_once_before_the_first_message_that_needs_it() {
        let (outbound, mut inbound) = mpsc::channel(RESERVE + 8);
        let mut sessions = Sessions::default();
        begin(&mut sessions, 1, outbound);
        let bundle = Bundle {
            set: SetName::default_set(),
            files: Vec::new(),
        };
        let digest = bundle.digest();
        for _ in 0..2 {
            assert_eq!(
                sessions.instruct(&agent(), Some((digest, &bundle)), goodbye()),
                Sent::Yes
            );
        }
        assert!(sessions.has_bundle(&agent(), digest));
        assert!(matches!(inbound.try_recv(), Ok(ToAgent::Bundle { .. })));
        assert_eq!(inbound.try_recv().unwrap(), goodbye());
        assert_eq!(inbound.try_recv().unwrap(), goodbye());
        assert!(inbound.try_recv().is_err());
    }

    #[test]
    fn a_slow_agent_waits_for_orders_and_is_let_go_when_nothing_fits() {
        let (outbound, _inbound) = mpsc::channel(RESERVE);
        let mut sessions = Sessions::default();
        begin(&mut sessions, 1, outbound);
        assert_eq!(sessions.say(&agent(), goodbye()), Sent::Yes);
        assert_eq!(sessions.instruct(&agent(), None, goodbye()), Sent::Later);
        for _ in 1..RESERVE {
            assert_eq!(sessions.say(&agent(), goodbye()), Sent::Yes);
        }
        assert_eq!(sessions.say(&agent(), goodbye()), Sent::Gone);
        assert!(!sessions.is_present(&agent(), 1));
    }

    #[test]
    fn a_new_stream_replaces_the_old_one_and_ends_it() {
        let (first, mut inbound) = mpsc::channel(RESERVE);
        let (second, _kept) = mpsc::channel(RESERVE);
        let mut sessions = Sessions::default();
        begin(&mut sessions, 1, first);
        begin(&mut sessions, 2, second);
        assert!(!sessions.is_present(&agent(), 1));
        assert!(sessions.is_present(&agent(), 2));
        assert_eq!(inbound.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn an_id_is_taken_only_by_one_that_is_heard_after_the_other_came() {
        let (outbound, inbound) = mpsc::channel(RESERVE);
        let mut sessions = Sessions::default();
        let heard = begin(&mut sessions, 1, outbound);
        let later = |seconds| Instant::now() + std::time::Duration::from_secs(seconds);
        assert_eq!(
            sessions.claim(&agent(), instance(1), later(0)),
            Claim::Free,
            "it only reconnects"
        );
        assert_eq!(sessions.claim(&agent(), instance(2), later(1)), Claim::Contested);
        assert_eq!(sessions.claim(&agent(), instance(2), later(2)), Claim::Contested);
        heard.send_replace(later(3));
        assert_eq!(sessions.claim(&agent(), instance(2), later(4)), Claim::Taken);
        assert_eq!(sessions.claim(&agent(), instance(3), later(4)), Claim::Contested);
        drop(inbound);
        assert_eq!(
            sessions.claim(&agent(), instance(2), later(5)),
            Claim::Free,
            "its stream has ended"
        );
    }
}
