//! What agent and coordinator say to each other on their stream, as values of the core (the wire form is `proto`'s).
//!
//! ```text
//! agent                                        coordinator
//!   Hello ------------------------------------->  leads: Welcome        does not lead: Redirect (heartbeats go on)
//!   Inventory, Heartbeat ---------------------->  HeartbeatAnswer
//!         <------------------------------------  Bundle, Look
//!   Looked ------------------------------------>  lease, commit
//!         <------------------------------------  Assign
//!   Progress, Finished ------------------------>  commit, Acknowledged
//!         <------------------------------------  Inquire (an operator asks, or a check)
//!   Answered ---------------------------------->  to whoever asked
//!   Leaving ----------------------------------->  no new work
//! ```
//! Every message may be lost with its stream, and be repeated after the next Hello.

use super::bundle::Bundle;
use super::story::Story;
use super::work::{Aim, Finish, Identity, Look, Order, Progress};
use crate::id::{AgentId, DatabaseName, Digest, Instance, RolloutId, StoreId};
use crate::inquiry::{Answer, Inquiry};
use std::collections::BTreeMap;
use std::time::Duration;

/// From an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    /// The first on every stream; again after the lease was lost.
    Hello(Hello),
    /// Asks for the lease to be renewed.
    Heartbeat {
        /// Repeated in the answer.
        sequence: u64,
        /// The lease of the last Welcome.
        lease: i64,
    },
    /// Where its databases are; sent after every Welcome, and whenever it changes.
    Inventory(Vec<Located>),
    /// The answer to a [`ToAgent::Look`].
    Looked {
        /// Of the question.
        look: u64,
        /// Of the question.
        database: DatabaseName,
        /// What was found.
        result: Look,
    },
    /// How far it is, about once a second.
    Progress {
        /// Which assignment.
        of: Holding,
        /// How far.
        progress: Progress,
    },
    /// How it ended; repeated after every Welcome until it is acknowledged.
    Finished {
        /// Which assignment.
        of: Holding,
        /// How it ended.
        finish: Finish,
    },
    /// The answer about one database to a [`ToAgent::Inquire`].
    Answered {
        /// Of the question.
        inquiry: u64,
        /// Which database.
        database: DatabaseName,
        /// The answer, or why there is none, for people.
        result: Result<Answer, String>,
    },
    /// What has happened to an assignment, as far as it has come. Comes now and then while it is at work, and before its end.
    Told {
        /// Which.
        of: Holding,
        /// The whole story.
        story: Story,
    },
    /// It was asked to end: it takes no new work, and gives its lease back when its stream ends.
    Leaving,
}

/// Who an agent is and what it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its name.
    pub agent: AgentId,
    /// One life of its process.
    pub instance: Instance,
    /// The version of its program.
    pub version: String,
    /// The databases it serves, with their labels.
    pub databases: BTreeMap<DatabaseName, BTreeMap<String, String>>,
    /// The lease from an earlier Welcome.
    pub lease: Option<i64>,
    /// What it works on, or has finished without an acknowledgement.
    pub held: Vec<Holding>,
}

/// An assignment by the names both sides have for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// Whose work.
    pub rollout: RolloutId,
    /// On which database.
    pub database: DatabaseName,
    /// The lease's token: another token is another assignment.
    pub token: i64,
}

impl Holding {
    /// The assignment that an order is for.
    pub fn of(order: &Order) -> Self {
        Self {
            rollout: order.rollout.clone(),
            database: order.database.clone(),
            token: order.fence.token,
        }
    }
}

/// Where one database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Which.
    pub database: DatabaseName,
    /// Its identity, or why it could not be asked, for people.
    pub identity: Result<Identity, String>,
    /// Epoch of the fence in force there, where there is one and it is known.
    pub epoch: Option<i64>,
}

impl Located {
    /// One that could not be asked.
    pub fn lost(database: DatabaseName, problem: String) -> Self {
        Self {
            database,
            identity: Err(problem),
            epoch: None,
        }
    }
}

/// From a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent {
    /// The coordinator leads and takes the agent.
    Welcome(Welcome),
    /// It does not lead. Sent again when the leader changes.
    Redirect {
        /// The leader's URL, when there is one. Its own when it has just become the leader.
        leader: Option<String>,
    },
    /// The answer to a heartbeat.
    HeartbeatAnswer {
        /// Of the heartbeat.
        sequence: u64,
        /// What became of the lease.
        renewal: Renewal,
    },
    /// Comes once per stream before the first look or order that needs it.
    Bundle {
        /// What it is known by.
        digest: Digest,
        /// The files.
        bundle: Bundle,
    },
    /// What does this database need?
    Look {
        /// The leader's term.
        term: i64,
        /// Repeated in the answer.
        look: u64,
        /// Which database.
        database: DatabaseName,
        /// Which migrations.
        bundle: Digest,
        /// What is to be made of it.
        aim: Aim,
    },
    /// Work. The same token again is the same work.
    Assign {
        /// The leader's term.
        term: i64,
        /// What to do.
        order: Order,
    },
    /// Stop at the next safe point, between two batches or steps.
    Stop {
        /// The leader's term.
        term: i64,
        /// What to stop.
        of: Holding,
        /// Why, for people.
        reason: String,
    },
    /// A question about these databases. Each is answered for itself.
    Inquire {
        /// Repeated in the answers.
        inquiry: u64,
        /// Which databases.
        databases: Vec<DatabaseName>,
        /// What is asked.
        what: Inquiry,
    },
    /// A [`FromAgent::Finished`] is recorded (or is of no interest any more) and need not be repeated.
    Acknowledged(Holding),
    /// The coordinator closes the stream.
    Goodbye {
        /// Whether the agent may come back.
        parting: Parting,
        /// Why, for people.
        reason: String,
    },
}

/// Whether an agent may come back after a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It may, here or elsewhere.
    ForNow,
    /// Another living process serves under its id: it ends.
    IdInUse,
}

/// What an agent needs to know to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The leader's term; commands with a smaller one than the largest seen are refused.
    pub term: i64,
    /// The agent's lease.
    pub lease: i64,
    /// How long it lives, counted from before the Hello was sent.
    pub ttl: Duration,
    /// How often to send a heartbeat.
    pub heartbeat_interval: Duration,
    /// The store's id, part of every fence.
    pub store: StoreId,
    /// The store's epoch.
    pub epoch: i64,
    /// The version of the coordinator's program; empty when it does not say.
    pub version: String,
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Renewed; it lives this long, counted from before the heartbeat was sent.
    Alive(Duration),
    /// It is gone: stop at the next safe point and say Hello again without a lease.
    Gone,
    /// The store does not answer; neither renewed nor lost.
    StoreUnavailable,
}
