//! The harness of the whole-system tests, the demo and the benchmarks: real servers, real processes, real faults.
//!
//! | module | owns |
//! |---|---|
//! | [`postgres`] | throw-away PostgreSQL servers, their databases and roles; restart, freeze, kill |
//! | [`pgbouncer`] | a throw-away PgBouncer before such a server; restart, freeze, kill |
//! | [`etcd`] | throw-away etcds, alone or several as one; restart, freeze, kill |
//! | [`dashboards`] | what the dashboards and rules of `deploy/` ask |
//! | [`collector`] | a stand-in for a collector of spans and metrics |
//! | [`prometheus`] | a throw-away Prometheus, and what its checker says |
//! | [`process`] | any child process with its output line by line, and the `confiture` binary as one |
//! | [`fleet`] | many databases with the coordinators and agents that serve them |
//! | [`proxy`] | the way to a PostgreSQL server, and what can happen on it |
//! | [`gate`] | the way to any server, that can be shut |
//! | [`load`] | applications at work on a table, who know what each row must be |
//! | [`steps`] | every kind of step, with what it must come to |
//! | [`migrations`] | sets of migration files in a folder |
//! | [`opened()`] | a database as an agent has it |
//! | [`tls`] | a certificate authority of our own |
//! | [`wait`] | waiting for a condition, with a deadline |
//! | [`directory`], [`port`], [`reaper`] | folders, ports, and that nothing outlives us |
//!
//! Everything is stopped and removed when its value is dropped, also in a panic. What a killed test leaves behind is
//! ended by the [`reaper`]. All of it may run in many threads and many test binaries at once.

pub mod collector;
pub mod dashboards;
pub mod directory;
pub mod etcd;
pub mod fleet;
pub mod gate;
pub mod load;
pub mod migrations;
mod opened;
pub mod pgbouncer;
pub mod port;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
mod reaper;
pub mod steps;
pub mod tls;
pub mod wait;

pub use opened::{opened, opened_with};
pub use wait::eventually;
