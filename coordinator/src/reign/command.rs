//! What a reign is asked and told, and what it answers.

use crate::inquiries::Asked;
use shared::id::{AgentId, DatabaseName, Digest, RequestId, RolloutId, SetName};
use shared::inquiry::Inquiry;
use shared::migration::Version;
use shared::rollout::book::AskError;
use shared::rollout::message::{FromAgent, Hello, ToAgent};
use shared::rollout::{Bundle, Policy, Selector, Verb, drain, forget, show, undo, view, waves};
use shared::trace::Place;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// For a reign.
pub(crate) enum Command {
    /// An agent said Hello.
    Attach(Box<Attach>),
    /// Its stream has ended.
    Detach { agent: AgentId, stream: u64 },
    /// It said something else that is not about its lease.
    Said {
        agent: AgentId,
        stream: u64,
        message: FromAgent,
    },
    /// A new rollout is wanted.
    Found {
        wish: Box<Wish>,
        reply: oneshot::Sender<Result<Founded, Refusal>>,
    },
    /// A rollout is to be taken back.
    Undo {
        /// Its id, or the beginning of it.
        id: String,
        wish: undo::Wish,
        reply: oneshot::Sender<Result<Founded, Refusal>>,
    },
    /// Something is asked of a rollout.
    Control {
        /// Its id, or the beginning of it.
        id: String,
        verb: Verb,
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<Controlled, NoControl>>,
    },
    /// An agent is to get no new work.
    Drain {
        agent: AgentId,
        by: String,
        reason: String,
        running: drain::Running,
        reply: oneshot::Sender<Result<Drained, drain::Unknown>>,
    },
    /// It is to get work again.
    Undrain {
        agent: AgentId,
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<drain::Outcome, drain::Unknown>>,
    },
    /// A database is to be taken out of the inventory.
    Forget {
        database: DatabaseName,
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<Forgot, forget::Error>>,
    },
    /// Something is asked about databases.
    Inquire {
        inquiry: u64,
        databases: Vec<DatabaseName>,
        what: Inquiry,
        /// The one that the question names.
        bundle: Option<Arc<Bundle>>,
        reply: oneshot::Sender<Asked>,
    },
    /// The store was put back or rebuilt: its leases are to count before all others.
    Recover {
        by: String,
        reason: String,
        reply: oneshot::Sender<Recovered>,
    },
}

/// An agent gets no new work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drained {
    /// As it is recorded.
    pub(crate) drain: drain::Drain,
    pub(crate) outcome: drain::Outcome,
    /// What the agent is at work on.
    pub(crate) running: Vec<DatabaseName>,
}

/// A database is not in the inventory any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forgot {
    /// As it is recorded.
    pub(crate) forgotten: forget::Forgotten,
    pub(crate) outcome: drain::Outcome,
}

/// The store has a later epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) epoch_before: i64,
    pub(crate) epoch: i64,
    /// Databases whose epoch no agent could tell.
    pub(crate) unasked: Vec<DatabaseName>,
}

/// An agent that wants to be taken.
pub(crate) struct Attach {
    /// Tells streams apart: an agent may have a new one before the end of the old one was seen.
    pub(crate) stream: u64,
    pub(crate) hello: Hello,
    /// Its living lease: renewed, or granted just now.
    pub(crate) lease: i64,
    /// How long that lives, counted from before the Hello was answered.
    pub(crate) ttl: Duration,
    pub(crate) heartbeat_interval: Duration,
    /// When something was heard on its stream last.
    pub(crate) heard: watch::Receiver<Instant>,
    /// What it is to be told; the first is a Welcome.
    pub(crate) outbound: mpsc::Sender<ToAgent>,
    pub(crate) reply: oneshot::Sender<Attached>,
}

/// What came of an [`Attach`].
pub(crate) enum Attached {
    /// It is taken; the Welcome is on its way.
    Taken {
        /// A lease it had before, to be revoked.
        earlier: Option<i64>,
    },
    /// Another process has a stream under its id, and nothing was heard of that since: it may be dead.
    Contested,
    /// Another living process serves under its id.
    IdInUse,
}

/// A rollout that is wanted; its bundle is stored and parsed.
pub(crate) struct Wish {
    pub(crate) request: RequestId,
    pub(crate) set: SetName,
    pub(crate) bundle: Digest,
    pub(crate) versions: Vec<Version>,
    pub(crate) selector: Selector,
    pub(crate) policy: Policy,
    pub(crate) created_by: String,
    pub(crate) trace: Option<Place>,
}

/// What came of a [`Wish`].
pub(crate) struct Founded {
    pub(crate) rollout: view::Rollout,
    /// Whether this request founded it, or an earlier one with the same id.
    pub(crate) by: FoundedBy,
}

/// Which request founded a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundedBy {
    This,
    Earlier,
}

/// What came of something asked of a rollout.
pub(crate) struct Controlled {
    pub(crate) rollout: view::Rollout,
    /// Whether it changed anything.
    pub(crate) changed: bool,
}

/// Why nothing is done about what was asked of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoControl {
    #[error(transparent)]
    Search(#[from] show::Error),
    #[error(transparent)]
    Impossible(#[from] AskError),
}

/// Why a rollout is not founded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "request id `{request}` was used for rollout {rollout}, which asked for something else: \
         give a new request an id of its own"
    )]
    OtherContent { request: RequestId, rollout: RolloutId },
    #[error("no database matches {selector}: {known}")]
    NoMatch { selector: Selector, known: String },
    #[error("the policy does not fit the databases:\n{}", lines(.0))]
    Waves(Vec<waves::Error>),
    #[error(transparent)]
    Search(#[from] show::Error),
    // Whoever asks says what cannot be done.
    #[error(transparent)]
    Undo(#[from] undo::Error),
}

fn lines(errors: &[waves::Error]) -> String {
    let lines: Vec<_> = errors.iter().map(|error| format!("  {error}")).collect();
    lines.join("\n")
}
