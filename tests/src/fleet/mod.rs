//! Coordinators and agents over many databases, as processes of their own with settings files of their own.
//!
//! ```text
//! Coordinator::start("coordinator-a", &store)          one or more, on one store
//! Agent::start("agent-a", &[&url], &members)           any number, each with the databases it serves
//! Simulated::start(&url, size)                          many agents in this process, whose databases do not exist
//! coordinator.rollout(&migrations)                      `confiture rollout start`, to be run or started
//! ```
//! Both can be killed, frozen and started again with the same settings ([`Daemon`]).

mod agent;
mod coordinator;
mod daemon;
mod simulated;

pub use agent::{Agent, Member, members};
pub use coordinator::{Coordinator, Operator};
pub use daemon::Daemon;
pub use simulated::{Record, Simulated, Size};
