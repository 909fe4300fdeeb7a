//! The gRPC handlers: decode, ask, encode.
//!
//! | module | owns |
//! |---|---|
//! | [`operator`] | the service for operators and platform tooling |
//! | [`watch`] | the stream of one watched rollout |
//! | [`create`] | what is done with a new rollout before the reign sees it |
//! | [`read`] | where reads come from |
//! | [`forward`] | reads that go on to the leader |
//! | [`fleet`] | the service for agents and databases themselves, whatever rollouts do |
//! | [`inquire`] | one question about many databases: who is asked, and the answers |
//! | [`survey`], [`plan`] | what databases look like, and what would be done |
//! | [`pools`] | how the agents' connections to databases are |
//! | [`trace`] | what happened to the databases of a rollout |
//! | [`link`] | the service for agents |
//! | [`stream`] | the stream of one agent |
//! | [`lease`] | an agent's lease: granting and renewing it |
//! | [`heartbeat`] | the heartbeats of one stream |
//! | [`status`] | errors as gRPC statuses |

mod create;
mod fleet;
mod forward;
mod heartbeat;
mod inquire;
mod lease;
mod link;
mod operator;
mod plan;
mod pools;
mod read;
mod status;
mod stream;
mod survey;
mod trace;
mod watch;

pub(crate) use fleet::Fleet;
pub(crate) use link::Link;
pub(crate) use operator::Operator;

use crate::bundles::Bundles;
use crate::inquiries::Inquiries;
use crate::mirror::Mirror;
use crate::seat::Seat;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The largest message taken: a bundle of all migrations of a large application, with room to spare.
pub(crate) const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// What all handlers share.
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bundles: Arc<Bundles>,
    pub(crate) mirror: Mirror,
    pub(crate) inquiries: Arc<Inquiries>,
    pub(crate) seat: tokio::sync::watch::Receiver<Seat>,
    /// Where others reach this coordinator.
    pub(crate) url: String,
    pub(crate) agent_lease: Duration,
    /// Owns the tasks of the agents' streams.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}
