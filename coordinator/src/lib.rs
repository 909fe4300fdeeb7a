//! The coordinator: rollouts, leases, leader election, and the streams of the agents.
//!
//! ```text
//!   operators ---> service::operator --+                     +--> reign: hear, decide, commit, tell (only the leader)
//!   agents ------> service::link ------+--> seat: who leads -+
//!                                                            +--> mirror: reads from the store (all others)
//!                                      store  <--- leader (election), reign, bundles, mirror
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`serve`](mod@serve) | from the settings to a serving process, and its orderly end |
//! | [`store`] | where intent is kept: etcd, or one file |
//! | [`leader`] | the election |
//! | `seat` | what this coordinator is, for everyone who must know |
//! | `office` | begins and ends a reign as the election goes |
//! | `reign` | the leader's loop around the pure [`shared::rollout::Book`] |
//! | `keys`, `load`, `pack` | how the book is kept in the store |
//! | `bundles` | the files of rollouts, by content, in pieces |
//! | [`metrics`] | what is counted, under the names that users know |
//! | `mirror` | the book as one who does not lead reads it |
//! | `inquiries` | what agents say of databases when they are asked |
//! | `service` | the gRPC handlers |
//! | `traces` | the spans of rollouts |

mod bundles;
mod chain;
mod inquiries;
mod keys;
pub mod leader;
mod load;
pub mod metrics;
mod mirror;
mod office;
mod pack;
mod reign;
mod seat;
pub mod serve;
mod service;
pub mod store;
mod traces;

pub use serve::serve;
