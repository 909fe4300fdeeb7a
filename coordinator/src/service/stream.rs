//! The stream of one agent.
//!
//! ```text
//!            leads: lease, ask the reign         reign ended, or began
//!   Hello --------------------------> Welcome ---------------------------> Redirect (to us again, if we lead anew)
//!      \---------------------------> Redirect ---------------------------> Redirect ..
//!         does not lead
//! ```
//! Heartbeats are answered in every state, from the store, beside everything else. An agent that is silent, or does
//! not read what it is sent, loses its stream; its lease decides about its work.

use super::heartbeat::{Beat, Heartbeats};
use super::lease::{self, Is, Living, Owner};
use super::{Context, status};
use crate::chain::chain;
use crate::reign::{Attach, Attached, Command};
use crate::seat::{Reigning, Seat};
use proto::convert::{from_agent, to_agent};
use proto::v1;
use shared::id::AgentId;
use shared::rollout::fleet::MOST_LABEL_BYTES;
use shared::rollout::message::{FromAgent, Hello, Parting, ToAgent};
use shared::rollout::release::{self, Fit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Status, Streaming};

/// A stream on which nothing came for so long is ended: two heartbeats did not come. Also what another process that
/// says Hello under the same id has to wait for.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a Hello may wait for the store and the reign; agents wait 5 s for an answer.
const HELLO: Duration = Duration::from_secs(4);

/// What an agent is to be told, before it goes onto the wire.
const QUEUE: usize = 512;

/// Versions are shown to people; a longer one is none.
const LONGEST_VERSION_BYTES: usize = 64;

/// Why a stream ends.
enum End {
    /// The agent closed it, or the connection broke.
    Closed,
    /// We say why.
    Goodbye(Parting, String),
    /// What it sent is not of this protocol.
    Protocol(Status),
}

pub(super) struct Stream {
    context: Arc<Context>,
    number: u64,
    outbox: mpsc::Sender<Result<v1::CoordinatorMessage, Status>>,
    /// The agent, once it said Hello.
    agent: Option<AgentId>,
    attachment: Option<Attachment>,
    heartbeats: Heartbeats,
    heard: watch::Sender<Instant>,
    /// The agent is ending: its lease goes with its stream.
    leaving: bool,
}

/// Taken by a reign.
struct Attachment {
    reigning: Reigning,
    /// The agent's lease.
    lease: i64,
    inbox: mpsc::Receiver<ToAgent>,
}

impl Stream {
    pub(super) fn new(
        context: Arc<Context>,
        number: u64,
        outbox: mpsc::Sender<Result<v1::CoordinatorMessage, Status>>,
    ) -> Self {
        let heartbeats = Heartbeats::new(context.clone());
        Self {
            context,
            number,
            outbox,
            agent: None,
            attachment: None,
            heartbeats,
            heard: watch::channel(Instant::now()).0,
            leaving: false,
        }
    }

    /// Serves the agent until the stream ends.
    pub(super) async fn run(mut self, mut inbound: Streaming<v1::AgentMessage>) {
        let end = match self.serve(&mut inbound).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let lease = self.attachment.as_ref().map(|attachment| attachment.lease);
        self.detach().await;
        match end {
            End::Closed => {
                if let Some(lease) = lease.filter(|_| self.leaving) {
                    lease::give_back(self.context.store.as_ref(), lease).await;
                }
            }
            End::Goodbye(parting, reason) => {
                tracing::info!(
                    agent = self.agent.as_ref().map(AgentId::as_str),
                    reason,
                    "ended an agent's stream"
                );
                // It may not read any more; then there is nobody to tell.
                let _: Result<(), End> = self.send(ToAgent::Goodbye { parting, reason }).await;
            }
            End::Protocol(status) => {
                tracing::warn!(
                    agent = self.agent.as_ref().map(AgentId::as_str),
                    error = status.message(),
                    "ended an agent's stream: it does not keep to the protocol"
                );
                let _ = self.outbox.try_send(Err(status));
            }
        }
    }

    async fn serve(
        &mut self,
        inbound: &mut Streaming<v1::AgentMessage>,
    ) -> Result<std::convert::Infallible, End> {
        let mut seat = self.context.seat.clone();
        let stop = self.context.stop.clone();
        loop {
            let silent_at = *self.heard.borrow() + SILENCE;
            tokio::select! {
                message = inbound.message() => {
                    self.heard.send_replace(Instant::now());
                    let message = message.map_err(|_broken| End::Closed)?.ok_or(End::Closed)?;
                    let message = from_agent::from_wire(message);
                    let message = message.map_err(|error| End::Protocol(status::invalid(&error.chain())))?;
                    self.hear(message, &mut seat).await?;
                }
                answer = self.heartbeats.answer() => self.send(answer).await?,
                message = told(&mut self.attachment) => match message {
                    Some(message) => self.send(message).await?,
                    // Its reign ended, or let it go: the seat says which.
                    None => self.let_go(&mut seat).await?,
                },
                _ = seat.changed(), if self.agent.is_some() => self.reseat(&mut seat).await?,
                () = tokio::time::sleep_until(silent_at.into()) => {
                    return Err(goodbye(format!("nothing was heard for {} s", SILENCE.as_secs())));
                }
                () = stop.cancelled() => return Err(goodbye("this coordinator is stopping".to_owned())),
            }
        }
    }

    async fn hear(&mut self, message: FromAgent, seat: &mut watch::Receiver<Seat>) -> Result<(), End> {
        match message {
            FromAgent::Hello(hello) => self.greet(hello, seat).await,
            _ if self.agent.is_none() => Err(End::Protocol(Status::failed_precondition(
                "the first message must be Hello",
            ))),
            FromAgent::Heartbeat { sequence, lease } => {
                let owner = match (&self.attachment, &self.agent) {
                    (Some(attachment), _) if attachment.lease == lease => Owner::Known,
                    (None, Some(agent)) => Owner::Ask(agent.clone()),
                    (Some(_) | None, _) => Owner::Other,
                };
                match self.heartbeats.take(Beat { sequence, lease }, owner) {
                    Some(answer) => self.send(answer).await,
                    None => Ok(()),
                }
            }
            FromAgent::Progress { .. } => {
                if let (Some(attachment), Some(agent)) = (&self.attachment, &self.agent) {
                    let (agent, stream) = (agent.clone(), self.number);
                    // The next report is better than a queue of old ones.
                    let _ = attachment.reigning.inbox.try_send(Command::Said {
                        agent,
                        stream,
                        message,
                    });
                }
                Ok(())
            }
            FromAgent::Answered {
                inquiry,
                database,
                result,
            } => {
                if let Some(agent) = &self.agent {
                    let inquiries = &self.context.inquiries;
                    inquiries.answer(inquiry, agent.clone(), database, result);
                }
                Ok(())
            }
            FromAgent::Inventory(_)
            | FromAgent::Looked { .. }
            | FromAgent::Finished { .. }
            | FromAgent::Told { .. }
            | FromAgent::Leaving => {
                self.leaving |= message == FromAgent::Leaving;
                if let (Some(attachment), Some(agent)) = (&self.attachment, &self.agent) {
                    let (agent, stream) = (agent.clone(), self.number);
                    // A reign that has ended hears nothing; the agent says all again to the next.
                    let _ = attachment
                        .reigning
                        .inbox
                        .send(Command::Said {
                            agent,
                            stream,
                            message,
                        })
                        .await;
                }
                Ok(())
            }
        }
    }

    async fn greet(&mut self, hello: Hello, seat: &mut watch::Receiver<Seat>) -> Result<(), End> {
        check(&hello)?;
        self.detach().await;
        self.agent = Some(hello.agent.clone());
        let current = seat.borrow_and_update().clone();
        match current {
            Seat::Following { leader } => self.send(ToAgent::Redirect { leader }).await,
            Seat::Leading(reigning) => {
                match tokio::time::timeout(HELLO, self.attach(hello, reigning)).await {
                    Ok(attached) => attached,
                    Err(_elapsed) => Err(goodbye("the store takes too long to answer".to_owned())),
                }
            }
        }
    }

    /// Asks the reign to take the agent.
    async fn attach(&mut self, hello: Hello, reigning: Reigning) -> Result<(), End> {
        let store = self.context.store.clone();
        let own = lease::own(&reigning.book.borrow(), &hello);
        let living = lease::obtain(store.as_ref(), own, self.context.agent_lease).await;
        let living = living.map_err(|error| goodbye(chain(&error)))?;
        let Living { id: lease, ttl, is } = living;
        let (outbound, inbox) = mpsc::channel(QUEUE);
        let (reply, answer) = oneshot::channel();
        let attach = Attach {
            stream: self.number,
            hello,
            lease,
            ttl,
            heartbeat_interval: lease::heartbeat_interval(self.context.agent_lease),
            heard: self.heard.subscribe(),
            outbound,
            reply,
        };
        let attached = match reigning.inbox.send(Command::Attach(Box::new(attach))).await {
            Ok(()) => answer.await.ok(),
            Err(_ended) => None,
        };
        match attached {
            Some(Attached::Taken { earlier }) => {
                self.attachment = Some(Attachment {
                    reigning,
                    lease,
                    inbox,
                });
                if let Some(earlier) = earlier {
                    lease::give_back(store.as_ref(), earlier).await;
                }
                Ok(())
            }
            Some(refused @ (Attached::Contested | Attached::IdInUse)) => {
                if is == Is::Granted {
                    lease::give_back(store.as_ref(), lease).await;
                }
                let (parting, reason) = match refused {
                    Attached::IdInUse => (
                        Parting::IdInUse,
                        "another living process serves under this agent id",
                    ),
                    Attached::Contested | Attached::Taken { .. } => (
                        Parting::ForNow,
                        "another process had this agent id a moment ago; try again",
                    ),
                };
                Err(End::Goodbye(parting, reason.to_owned()))
            }
            None => Err(goodbye("the leadership moved".to_owned())),
        }
    }

    /// The reign dropped its end of our queue.
    async fn let_go(&mut self, seat: &mut watch::Receiver<Seat>) -> Result<(), End> {
        let attachment = self.attachment.take();
        let current = seat.borrow_and_update().clone();
        let same = match (&current, &attachment) {
            (Seat::Leading(now), Some(before)) => now.number == before.reigning.number,
            (Seat::Leading(_), None) | (Seat::Following { .. }, _) => false,
        };
        if same && attachment.is_some_and(|attachment| !attachment.reigning.inbox.is_closed()) {
            // It reigns on without us: another stream of this agent took our place, or we were too slow.
            return Err(goodbye(
                "another stream of this agent took over, or this one was too slow".to_owned(),
            ));
        }
        self.redirect(current).await
    }

    /// Somebody else leads, or we do anew.
    async fn reseat(&mut self, seat: &mut watch::Receiver<Seat>) -> Result<(), End> {
        let current = seat.borrow_and_update().clone();
        if let (Seat::Leading(now), Some(attachment)) = (&current, &self.attachment)
            && now.number == attachment.reigning.number
        {
            return Ok(());
        }
        self.attachment = None;
        self.redirect(current).await
    }

    async fn redirect(&mut self, seat: Seat) -> Result<(), End> {
        let leader = match seat {
            Seat::Following { leader } => leader,
            Seat::Leading(_) => Some(self.context.url.clone()),
        };
        self.send(ToAgent::Redirect { leader }).await
    }

    /// Tells the reign that this stream is over.
    async fn detach(&mut self) {
        if let (Some(attachment), Some(agent)) = (self.attachment.take(), self.agent.clone()) {
            // A reign that has ended knows nothing of us.
            let _ = attachment
                .reigning
                .inbox
                .send(Command::Detach {
                    agent,
                    stream: self.number,
                })
                .await;
        }
    }

    /// Puts a message on the wire. An agent that does not read for long is not there.
    async fn send(&mut self, message: ToAgent) -> Result<(), End> {
        let sent = self.outbox.send(Ok(to_agent::to_wire(message)));
        match tokio::time::timeout(SILENCE, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Closed),
        }
    }
}

fn goodbye(reason: String) -> End {
    End::Goodbye(Parting::ForNow, reason)
}

/// What the reign says; never, when there is none.
async fn told(attachment: &mut Option<Attachment>) -> Option<ToAgent> {
    match attachment {
        Some(attachment) => attachment.inbox.recv().await,
        None => std::future::pending().await,
    }
}

/// What a Hello says is kept in the store, within its limits.
fn check(hello: &Hello) -> Result<(), End> {
    if hello.version.len() > LONGEST_VERSION_BYTES {
        return Err(End::Protocol(Status::invalid_argument("the version is too long")));
    }
    if release::fit(&hello.version, release::OURS) == Fit::Apart
        && let Some(note) = release::note(&hello.version, release::OURS)
    {
        tracing::warn!(agent = %hello.agent, "refused: {note}");
        return Err(goodbye(note));
    }
    for (database, labels) in &hello.databases {
        let length: usize = labels
            .iter()
            .map(|(label, value)| label.len() + value.len())
            .sum();
        if length > MOST_LABEL_BYTES {
            return Err(goodbye(format!(
                "the labels of database {database} are {length} bytes long, at most {MOST_LABEL_BYTES} can be kept: \
                 shorten them in the agent's settings"
            )));
        }
    }
    Ok(())
}
