//! The streams of the agents that this reign has taken.

use shared::id::{AgentId, Digest};
use shared::rollout::Bundle;
use shared::rollout::message::ToAgent;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Places in an agent's queue that only acknowledgements and stops may take: orders can wait for the next round, these
/// cannot be asked for again.
const RESERVE: usize = 64;

/// All of them, by agent.
#[derive(Default)]
pub(super) struct Sessions(BTreeMap<AgentId, Session>);

struct Session {
    stream: u64,
    outbound: mpsc::Sender<ToAgent>,
    /// Bundles sent on this stream.
    bundles: BTreeSet<Digest>,
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
    pub(super) fn begin(&mut self, agent: AgentId, stream: u64, outbound: mpsc::Sender<ToAgent>) {
        let session = Session {
            stream,
            outbound,
            bundles: BTreeSet::new(),
        };
        // Dropping the earlier one's queue ends its stream.
        self.0.insert(agent, session);
    }

    /// Whether the agent's present stream is this one.
    pub(super) fn is_present(&self, agent: &AgentId, stream: u64) -> bool {
        self.0.get(agent).is_some_and(|session| session.stream == stream)
    }

    /// Whether the agent has a stream whose other end reads it.
    pub(super) fn is_alive(&self, agent: &AgentId) -> bool {
        self.0
            .get(agent)
            .is_some_and(|session| !session.outbound.is_closed())
    }

    /// Ends the agent's session.
    pub(super) fn end(&mut self, agent: &AgentId) {
        self.0.remove(agent);
    }

    /// Says something that must not be left out. A queue that is full even for that ends the session: the agent comes
    /// back and asks again.
    pub(super) fn say(&mut self, agent: &AgentId, message: ToAgent) -> Sent {
        let Some(session) = self.0.get(agent) else {
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
        let Some(session) = self.0.get_mut(agent) else {
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
        self.0
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

    fn goodbye() -> ToAgent {
        ToAgent::Redirect { leader: None }
    }

    #[test]
    fn a_bundle_goes_once_before_the_first_message_that_needs_it() {
        let (outbound, mut inbound) = mpsc::channel(RESERVE + 8);
        let mut sessions = Sessions::default();
        sessions.begin(agent(), 1, outbound);
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
        sessions.begin(agent(), 1, outbound);
        assert_eq!(sessions.say(&agent(), goodbye()), Sent::Yes);
        assert_eq!(sessions.instruct(&agent(), None, goodbye()), Sent::Later);
        for _ in 1..RESERVE {
            assert_eq!(sessions.say(&agent(), goodbye()), Sent::Yes);
        }
        assert!(sessions.is_alive(&agent()));
        assert_eq!(sessions.say(&agent(), goodbye()), Sent::Gone);
        assert!(!sessions.is_alive(&agent()));
    }

    #[test]
    fn a_new_stream_replaces_the_old_one_and_ends_it() {
        let (first, mut inbound) = mpsc::channel(RESERVE);
        let (second, _kept) = mpsc::channel(RESERVE);
        let mut sessions = Sessions::default();
        sessions.begin(agent(), 1, first);
        sessions.begin(agent(), 2, second);
        assert!(!sessions.is_present(&agent(), 1));
        assert!(sessions.is_present(&agent(), 2));
        assert_eq!(inbound.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
