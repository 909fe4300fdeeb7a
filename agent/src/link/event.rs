//! What goes into the machine and what comes out of it.

use super::bundles::Bundle;
use super::{ConnectionId, Ending};
use shared::id::{DatabaseName, StoreId};
use shared::inquiry::{Answer, Inquiry};
use shared::rollout::message::{FromAgent, Holding, Located, ToAgent};
use shared::rollout::story::Story;
use shared::rollout::work::{Aim, Finish, Look, Order, Progress};
use std::sync::Arc;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection that [`Effect::Open`] asked for stands; Hello can be sent.
    Opened(ConnectionId),
    /// A coordinator said something.
    Received(ConnectionId, ToAgent),
    /// A connection failed or ended.
    Closed(ConnectionId),
    /// A look has ended.
    Looked(Question, Look),
    /// An order at work is this far.
    Progressed(Holding, Progress),
    /// This has happened to an order at work so far.
    Told(Holding, Story),
    /// The work on an order has ended; what has happened to it.
    Ended(Holding, Finish, Story),
    /// A database was asked where it is.
    Located(Located),
    /// A question about a database has its answer.
    Answered(Inquired, Result<Answer, String>),
    /// The process is to end.
    Shutdown,
}

/// What to do about it.
#[derive(Debug)]
pub(super) enum Effect {
    /// Connect to a URL.
    Open(ConnectionId, String),
    /// Send a message.
    Send(ConnectionId, FromAgent),
    /// Drop a connection; nothing more is expected of it.
    Close(ConnectionId),
    /// Look at a database and answer with [`Event::Looked`].
    Look {
        question: Question,
        bundle: Arc<Bundle>,
        aim: Aim,
        store: StoreId,
    },
    /// Begin an order; it ends with [`Event::Ended`].
    Start {
        order: Order,
        bundle: Arc<Bundle>,
        store: StoreId,
    },
    /// Let an order stop at its next safe point.
    Stop(Holding),
    /// Ask databases where they are; each answers with [`Event::Located`].
    Locate(Vec<DatabaseName>),
    /// Answer questions; each with [`Event::Answered`].
    Inquire(Vec<Inquired>, Option<Arc<Bundle>>),
    /// All is done; the process ends.
    End(Ending),
}

/// Who asked for a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) connection: ConnectionId,
    pub(super) look: u64,
    pub(super) database: DatabaseName,
}

/// Who asked what about a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inquired {
    pub(super) connection: ConnectionId,
    pub(super) inquiry: u64,
    pub(super) database: DatabaseName,
    pub(super) what: Inquiry,
}
