//! What goes out, once it is written: answers, and what agents do not know yet.

use super::command::{
    Attached, Controlled, Drained, Forgot, Founded, FoundedBy, NoControl, Recovered, Refusal,
};
use super::sessions::Sent;
use super::{BUNDLE_AGAIN, Reign};
use crate::chain::chain;
use shared::id::{AgentId, Digest, RolloutId};
use shared::rollout::message::{Holding, ToAgent, Welcome};
use shared::rollout::{Time, drain, forget, instruct, show};
use tokio::sync::oneshot;

/// To be said after the commit.
pub(super) enum Answer {
    Welcome(AgentId, Welcome),
    Attached(oneshot::Sender<Attached>, Attached),
    Acknowledge(AgentId, Holding),
    Founded(RolloutId, FoundedBy, oneshot::Sender<Result<Founded, Refusal>>),
    Drained(oneshot::Sender<Result<Drained, drain::Unknown>>, Drained),
    Undrained(
        oneshot::Sender<Result<drain::Outcome, drain::Unknown>>,
        drain::Outcome,
    ),
    Forgot(oneshot::Sender<Result<Forgot, forget::Error>>, Forgot),
    Recovered(oneshot::Sender<Recovered>, Recovered),
    Controlled(RolloutId, bool, oneshot::Sender<Result<Controlled, NoControl>>),
}

impl Reign {
    /// Answers that waited for the commit. Whoever asked may have gone.
    pub(super) fn answer(&mut self, answers: Vec<Answer>, now: Time) {
        for answer in answers {
            match answer {
                Answer::Welcome(agent, welcome) => self.say(&agent, ToAgent::Welcome(welcome), now),
                Answer::Attached(reply, attached) => drop(reply.send(attached)),
                Answer::Drained(reply, drained) => drop(reply.send(Ok(drained))),
                Answer::Undrained(reply, outcome) => drop(reply.send(Ok(outcome))),
                Answer::Forgot(reply, forgot) => drop(reply.send(Ok(forgot))),
                Answer::Recovered(reply, recovered) => drop(reply.send(recovered)),
                Answer::Acknowledge(agent, of) => self.say(&agent, ToAgent::Acknowledged(of), now),
                Answer::Founded(id, by, reply) => {
                    if let Some(rollout) = self.book.rollouts().get(&id) {
                        let rollout = show::show_rollout(rollout, now);
                        drop(reply.send(Ok(Founded { rollout, by })));
                    }
                }
                Answer::Controlled(id, changed, reply) => {
                    if let Some(rollout) = self.book.rollouts().get(&id) {
                        let rollout = show::show_rollout(rollout, now);
                        drop(reply.send(Ok(Controlled { rollout, changed })));
                    }
                }
            }
        }
    }

    fn say(&mut self, agent: &AgentId, message: ToAgent, now: Time) {
        match self.sessions.say(agent, message) {
            Sent::Yes => {}
            Sent::Later | Sent::Gone => self.book.detach(agent, now),
        }
    }

    /// Tells agents what the book says and they do not know yet. How much was told.
    pub(super) fn instruct(&mut self, now: Time) -> usize {
        let office = instruct::Office {
            term: self.term,
            epoch: self.identity.epoch,
        };
        self.slow = false;
        let mut told = 0;
        for instruction in self.book.instructions(office, now) {
            let agent = &instruction.agent;
            let needed = instruction
                .needs
                .filter(|digest| !self.sessions.has_bundle(agent, *digest));
            let kept = needed.map(|digest| (digest, self.bundles.kept(digest)));
            let bundle = match &kept {
                None => None,
                Some((digest, Some(bundle))) => Some((*digest, bundle.as_ref())),
                Some((digest, None)) => {
                    self.fetch(*digest);
                    continue;
                }
            };
            match self.sessions.instruct(agent, bundle, instruction.message.clone()) {
                Sent::Yes => {
                    self.book.told(&instruction, now);
                    told += 1;
                }
                Sent::Later => self.slow = true,
                // The end of its stream is on its way to us.
                Sent::Gone => {}
            }
        }
        told
    }

    /// Begins to read a bundle; what needs it is said once it is here.
    fn fetch(&mut self, digest: Digest) {
        if !self.fetching.insert(digest) {
            return;
        }
        let bundles = self.bundles.clone();
        self.fetches.spawn(async move {
            if let Err(error) = bundles.fetch(digest).await {
                tracing::error!(error = chain(&error), "a bundle cannot be read; trying again");
                tokio::time::sleep(BUNDLE_AGAIN).await;
            }
            digest
        });
    }
}
