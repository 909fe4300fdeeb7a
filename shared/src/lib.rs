//! The pure core of Confiture: values in, values out.
//!
//! | module | owns |
//! |---|---|
//! | [`id`] | the ids and names that travel between all parts |
//! | [`name`] | identifiers and table names as users write them |
//! | [`fence`] | the fence: who may write, and how fences compare |
//! | [`migration`] | migration files: discovery, parsing, steps, checksums |
//! | [`ledger`] | what a database remembers, and what is to be done next |
//! | [`index`] | indexes built and dropped without making applications wait |
//! | [`plan`] | one step on one database, given its facts, as actions |
//! | [`pool`] | pools of connections: what is counted, whether that is well |
//! | [`sql`] | every SQL text we send |
//! | [`lock`] | how long and how often a strong lock is tried for |
//! | [`batch`] | how large batches are, how healthy the server is, how fast we may go |
//! | [`rollout`] | the state machine of a rollout and its scheduler |
//! | [`settings`] | the settings file: raw, checked, typed |
//! | [`survey`] | what the databases of a fleet look like: versions, shapes, drift |
//! | [`inquiry`] | what is asked about one database without changing it |
//! | [`retry`] | which errors are worth another try |
//! | [`yaml`] | YAML with line and column, for settings and migrations |
//!
//! Nothing here reads a clock, the environment, a file or the network; `now` and randomness are arguments.

pub mod batch;
pub mod fence;
pub mod id;
pub mod index;
pub mod inquiry;
pub mod ledger;
pub mod lock;
pub mod migration;
pub mod name;
pub mod plan;
pub mod pool;
pub mod retry;
pub mod rollout;
pub mod settings;
pub mod sql;
pub mod survey;
pub mod trace;
pub mod yaml;
