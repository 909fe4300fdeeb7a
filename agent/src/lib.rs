//! What works on the databases: pools, ledger, fence, plans and their execution.
//!
//! | module | owns |
//! |---|---|
//! | [`connect`], `tls`, [`pool`], [`database`], `session` | connections and what may go back to a pool |
//! | `pooler` | whether a pooler is on the way to a server, and what then cannot be done |
//! | `ledger`, `holder`, `claim` | the ledger's reading and writing, the fence, the holder |
//! | `history` | what the ledger says is to be done, and what contradicts it |
//! | `facts`, `step`, `run` | one step: facts, plan, actions, records; one run: step after step |
//! | [`probe`] | how a server is, for the pace of batches |
//! | [`work`] | an order of a coordinator |
//! | `inquiry`, `survey`, `check` | what a coordinator asks: what a database looks like, what would be done, what holds |
//! | [`link`] | the stream to the coordinators: leases, orders, looks |
//! | [`local`] | one database without a coordinator |
//! | [`audit`] | the ledger for those who operate it: show, verify, accept a new identity |
//! | [`locks`] | who waits for whom, for those who operate it |
//! | [`room`] | how many connections a server has room for |
//! | [`indexes`] | indexes for those who operate a database: builds at work, repairs |
//! | [`metrics`] | what is counted, under the names that users know |
//! | [`story`] | what happens to a run, for spans and its rollout's flight recorder |
//! | [`error`], `user_error` | what is said when it fails |
//! | `faults`, `planted` | nothing; in tests, faults at named points, and mistakes that tests must notice |

pub mod audit;
mod backoff;
mod check;
mod claim;
pub mod connect;
pub mod database;
pub mod error;
mod facts;
mod faults;
mod history;
mod holder;
pub mod indexes;
mod inquiry;
mod ledger;
pub mod link;
pub mod local;
pub mod locks;
pub mod metrics;
#[cfg(feature = "planted-bugs")]
mod planted;
pub mod pool;
mod pooler;
pub mod probe;
pub mod room;
mod run;
mod session;
mod step;
pub mod story;
mod survey;
mod tls;
mod user_error;
pub mod work;

pub use ledger::Living;
pub use run::Overrides;
