//! The settings: raw layers in, one typed value out.
//!
//! ```text
//! file (confiture.yaml) < environment (CONFITURE_*) < flags      each key with its place
//!            |
//!            v  validate: every key, every relation, all problems at once
//!        Settings --(Lookups)--> Coordinator, Databases          secrets, only where they are needed
//! ```
//! A key's environment variable is its path: `migration.lock_timeout` is `CONFITURE_MIGRATION_LOCK_TIMEOUT`. Relative
//! paths are resolved against the folder of the file they stand in; those from the environment and from flags are left
//! to the working directory.
//!
//! Reads no file and no environment: the caller passes both in.

mod database;
pub mod duration;
mod raw;
mod reader;
pub mod secret;
mod store_url;
#[cfg(test)]
mod tests;
mod validate;

use crate::id::{AgentId, DatabaseName, SetName};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use raw::{File, Flag};
pub use secret::{Lookups, Secret, masked};
pub use store_url::{Etcd, EtcdTls, Identity, Login, StoreUrl};
pub use validate::{Settings, Sources};

/// What `confiture coordinator` needs (`coordinator:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// Where gRPC is served; default `127.0.0.1:7070`.
    pub listen: SocketAddr,
    /// The URL under which agents and other coordinators reach this one; default `http://LISTEN`.
    pub advertise: String,
    /// Where the intent is kept; default `file:./confiture.redb`.
    pub store: StoreUrl,
    /// How long a leader that has died is still taken for alive; whole seconds, default 8 s.
    pub leader_lease: Duration,
    /// How long an agent that has died is still taken for alive; whole seconds, default 30 s.
    pub agent_lease: Duration,
}

/// What `confiture agent` needs besides the databases (`agent:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The agent's name; default the host's.
    pub id: AgentId,
    /// URLs of the coordinators, tried in turn; default `http://127.0.0.1:7070`.
    pub coordinators: Vec<String>,
    /// Connections to one database server over all its databases; default 20.
    pub connections_per_server: usize,
}

/// One database with its secrets fetched (`databases:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The fleet's name for it.
    pub name: DatabaseName,
    /// Its PostgreSQL URL.
    pub url: Secret,
    /// A URL past any pooler, for statements that cannot run in a transaction.
    pub direct_url: Option<Secret>,
    /// What selectors choose by.
    pub labels: BTreeMap<String, String>,
    /// The machine its server runs on.
    pub machine: Machine,
}

/// A server's machine, as far as the operator says: PostgreSQL does not know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its cores.
    pub cores: Option<u32>,
    /// Its memory, in bytes.
    pub memory_bytes: Option<u64>,
}

/// How databases are connected to (`connection:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The pool of each database.
    pub pool: Pool,
}

/// One database's pool of connections (`connection.pool:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Kept open while the database has work; default 2.
    pub min_size: usize,
    /// Upper bound, at least 2; default 10.
    pub max_size: usize,
    /// Idle connections above `min_size` are closed after it; default 300 s.
    pub max_idle_time: Duration,
    /// A connection is replaced after it; default 3600 s.
    pub max_lifetime: Duration,
    /// How long to wait for a free connection; default 30 s.
    pub wait_timeout: Duration,
    /// How long making a connection may take; default 10 s.
    pub create_timeout: Duration,
    /// How long checking a used connection may take; default 5 s.
    pub recycle_timeout: Duration,
}

/// How migrations run unless they say otherwise themselves (`migration:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Budget for waiting for locks, over all attempts; default 30 s.
    pub lock_timeout: Duration,
    /// The longest single statement; zero switches the limit off; default 300 s.
    pub statement_timeout: Duration,
    /// Sessions that stand in the way of a lock, idle in their transaction for longer than this, are ended; by default none.
    pub cancel_idle_in_transaction: Option<Duration>,
    /// Replicas may be this late before batches are slowed down; default 2 s. At five times as much they stop.
    pub max_replica_lag: Duration,
    /// A query of the operator's: while it gives a number above zero, or true, no batch begins.
    pub throttle_query: Option<String>,
    /// How long the evidence of each batch is kept after its step is done; default 30 days; zero keeps it for ever.
    pub batch_log_retention: Duration,
    /// The folder with the migration files; default `db/migrations`.
    pub directory: PathBuf,
    /// The set's name, where the files are not to name it.
    pub set: Option<SetName>,
}

/// What can be seen from outside (`observability:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observability {
    /// The metrics endpoint.
    pub prometheus: Prometheus,
    /// Where metrics and traces are sent.
    pub otlp: Otlp,
    /// Whether errors repeat what PostgreSQL says in detail, values of rows included; default no.
    pub error_details: bool,
}

/// Where metrics and traces are sent (`observability.otlp:`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Otlp {
    /// The URL of a collector that takes OTLP over gRPC, such as `http://127.0.0.1:4317`; nothing is sent without one.
    pub endpoint: Option<String>,
    /// The authorities (PEM) that a collector at `https://` is trusted by; default those that the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// The metrics endpoint (`observability.prometheus:`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prometheus {
    /// Whether it is served; default no.
    pub enabled: bool,
    /// The address it is served on; default `0.0.0.0`.
    pub address: IpAddr,
    /// Its port; default 9090.
    pub port: u16,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            min_size: 2,
            max_size: 10,
            max_idle_time: Duration::from_mins(5),
            max_lifetime: Duration::from_hours(1),
            wait_timeout: Duration::from_secs(30),
            create_timeout: Duration::from_secs(10),
            recycle_timeout: Duration::from_secs(5),
        }
    }
}
