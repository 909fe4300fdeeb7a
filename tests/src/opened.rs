//! A database as an agent has it, for tests of the agent's own parts.

use agent::database::Database;
use agent::pool::Servers;
use shared::id::DatabaseName;
use shared::settings;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Sets up the pool of a database with the defaults of the settings; connects only when it is used.
pub fn opened(url: &str) -> anyhow::Result<Database> {
    opened_with(url, settings::Pool::default(), &Servers::unbounded())
}

/// The same, with a pool of one's own on these servers.
pub fn opened_with(url: &str, pool: settings::Pool, servers: &Servers) -> anyhow::Result<Database> {
    let of = settings::Database {
        name: DatabaseName::try_from("orders")?,
        url: settings::Secret::new(url),
        direct_url: None,
        labels: BTreeMap::new(),
        machine: settings::Machine::default(),
    };
    let migration = settings::Migration {
        cancel_idle_in_transaction: None,
        lock_timeout: Duration::from_secs(1),
        statement_timeout: Duration::from_secs(10),
        max_replica_lag: Duration::from_secs(2),
        throttle_query: None,
        batch_log_retention: Duration::from_hours(1),
        directory: PathBuf::new(),
        set: None,
    };
    let connection = settings::Connection { pool };
    Ok(Database::open(&of, &connection, &migration, servers)?)
}
