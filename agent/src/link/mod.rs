//! The agent's side of the stream between agent and coordinators.
//!
//! ```text
//!   coordinators <──stream── connection ──events──> loop (this file) ──effects──> tasks ──> worker ──> databases
//!                                                    │      ^
//!                                               event, now  effects
//!                                                    v      │
//!                                                  state (pure): links, route, lease, orders, inventory, bundles
//! ```
//! Everything that is decided is decided by the pure machine in `state`; everything that happens, happens in `tasks`
//! and `connection`. Work in progress does not depend on a connection, only on the lease: it goes on while the lease
//! can still be alive by our own clock, through reconnects and the death of coordinators.

mod bundles;
mod connection;
mod event;
mod inventory;
mod lease;
mod links;
mod orders;
mod route;
mod state;
mod tasks;
mod worker;

#[cfg(test)]
mod tests;

use crate::metrics;
use event::{Effect, Event};
use lease::Tally;
use runtime::clock::{Boot, sleep_until};
use runtime::telemetry::http::Unready;
use shared::id::{AgentId, Instance};
use state::{Identity, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use worker::{Databases, Worker};

/// Events waiting for the loop; who reports waits while it is full.
const EVENTS: usize = 256;

/// The same trouble with a coordinator is logged again after this long.
const LOG_AGAIN: Duration = Duration::from_secs(30);

/// One connection in the life of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ConnectionId(u64);

/// Who the agent is and whom it serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name; unique in the fleet.
    pub id: AgentId,
    /// URLs of coordinators, at least one, tried in this order.
    pub coordinators: Vec<String>,
}

/// Where this agent stands with the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No coordinator has welcomed it (yet, or any more).
    Seeking,
    /// It takes work.
    Welcomed,
}

/// Says why this agent takes no work at the moment; nothing where it does.
pub fn unready(standing: watch::Receiver<Standing>, settings: &Settings) -> Unready {
    let tried = settings.coordinators.join(", ");
    Arc::new(move || match *standing.borrow() {
        Standing::Welcomed => Vec::new(),
        Standing::Seeking => vec![format!("no coordinator has welcomed this agent; tried: {tried}")],
    })
}

/// How the link ends on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The process was asked to end.
    Shutdown,
    /// Another living process has our agent id.
    IdInUse,
}

/// Why an agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another living process has the same agent id.
    #[error("another process serves as agent `{id}`: give each agent its own `agent.id`")]
    IdInUse {
        /// The id.
        id: AgentId,
    },
}

/// Serves until `stop` is cancelled: then orders come to a safe point (at most 30 s) and their ends are reported. Where it
/// stands meanwhile is told by `standing`.
///
/// # Errors
/// When another living process serves under the same id.
pub async fn serve(
    settings: Settings,
    worker: Arc<dyn Worker>,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let instance = Instance(uuid::Uuid::new_v4());
    let identity = Identity {
        agent: settings.id.clone(),
        instance,
        databases: worker.databases(),
    };
    tracing::info!(agent = %settings.id, %instance, databases = identity.databases.len(), "agent started");
    let (sender, mut events) = mpsc::channel(EVENTS);
    let mut tasks = Tasks::new(worker, sender);
    let mut state = State::new(identity, settings.coordinators, rand::random(), Boot::now());
    let mut troubles = Troubles::default();
    let mut counted = Tally::default();
    metrics::started();
    let mut effects = state.tick(Boot::now());
    let mut stopping = false;
    let ending = loop {
        if let Some(ending) = carry_out(effects, &mut tasks) {
            break ending;
        }
        counted = publish(&state, counted, &standing);
        let wake_at = state.wake_at();
        effects = tokio::select! {
            Some(event) = events.recv() => state.on(event, Boot::now()),
            ended = tasks.ended() => {
                if let Some(problem) = ended.problem {
                    troubles.log(&problem, Boot::now());
                }
                state.on(ended.event, Boot::now())
            }
            () = wake(wake_at) => state.tick(Boot::now()),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                state.on(Event::Shutdown, Boot::now())
            }
        };
    };
    for of in state.running() {
        tracing::warn!(
            rollout = %of.rollout,
            database = %of.database,
            "did not come to a safe point in time; whoever works on it next goes on from its last commit"
        );
    }
    tasks.shut_down().await;
    match ending {
        Ending::Shutdown => Ok(()),
        Ending::IdInUse => Err(Error::IdInUse { id: settings.id }),
    }
}

/// Tells how it stands and what came of renewals since the last time.
fn publish(state: &State, before: Tally, standing: &watch::Sender<Standing>) -> Tally {
    let now = state.tally();
    metrics::lease_renewed(now.renewed - before.renewed, now.failed - before.failed);
    metrics::lease_lost(now.lost - before.lost);
    standing.send_if_modified(|standing| {
        let changed = *standing != state.standing();
        *standing = state.standing();
        changed
    });
    metrics::connected(state.standing() == Standing::Welcomed);
    now
}

async fn wake(at: Option<Boot>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Does what the machine decided, in order. Returns how to end when it said so.
fn carry_out(effects: Vec<Effect>, tasks: &mut Tasks) -> Option<Ending> {
    let mut ending = None;
    for effect in effects {
        match effect {
            Effect::Open(id, url) => tasks.open(id, url),
            Effect::Send(id, message) => tasks.send(id, message),
            Effect::Close(id) => tasks.close(id),
            Effect::Look {
                question,
                bundle,
                aim,
                store,
            } => tasks.look(question, bundle, aim, store),
            Effect::Start { order, bundle, store } => tasks.start(order, bundle, store),
            Effect::Stop(of) => tasks.stop(&of),
            Effect::Locate(databases) => tasks.locate(databases),
            Effect::Inquire(questions, bundle) => tasks.inquire(questions, bundle.as_ref()),
            Effect::End(how) => ending = Some(how),
        }
    }
    ending
}

/// Troubles with coordinators, so that a coordinator that is away for an hour does not fill the log.
#[derive(Default)]
struct Troubles {
    logged: BTreeMap<String, Boot>,
}

impl Troubles {
    fn log(&mut self, problem: &connection::Error, now: Boot) {
        let text = chain(problem);
        self.logged.retain(|_, at| now < *at + LOG_AGAIN);
        if self.logged.insert(text.clone(), now).is_none() {
            tracing::warn!("{text}; trying again");
        } else {
            tracing::debug!("{text}; trying again");
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
