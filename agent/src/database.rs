//! One target database: its pools and what is known of it.

use crate::connect::Use;
use crate::error::Error;
use crate::pool::{Pool, PoolError, Servers, Trouble};
use crate::session::Session;
use deadpool::managed::TimeoutType;
use shared::id::DatabaseName;
use shared::retry::{self, Retryability};
use shared::rollout::work::Identity;
use shared::settings;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// One target database. Opens connections only when it is used.
pub struct Database {
    name: DatabaseName,
    labels: BTreeMap<String, String>,
    pool: Arc<Pool>,
    address: String,
    /// For statements that cannot run in a transaction: past a pooler where a direct URL is given.
    outside: Arc<Pool>,
    limits: Limits,
    kept: Kept,
    /// Whether the last look found a ledger: saves looking again.
    has_ledger: AtomicBool,
    /// Pieces of work at the moment.
    at_work: AtomicUsize,
    /// Whether it was found to have something to do, and that is not over.
    wanted: Arc<AtomicBool>,
    throttle: Throttle,
    batch_log_retention: Duration,
    /// How long the last small durable commit took; 0 before the first.
    commit_micros: AtomicU64,
}

/// A piece of work on a database.
pub(crate) struct AtWork<'a>(&'a Database);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
        self.0.wanted.store(false, Ordering::Relaxed);
    }
}

/// How long statements and waiting for locks may take, unless a migration says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) lock: Duration,
    pub(crate) statement: Duration,
    /// Most connections of the pool.
    pub(crate) connections: usize,
}

/// What the pace of batches follows, beside what the server itself tells.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    pub(crate) max_replica_lag: Duration,
    /// The operator's query.
    pub(crate) query: Option<String>,
    pub(crate) machine: settings::Machine,
}

/// The cores of the server's machine, where it is ours.
fn cores_of(address: &str) -> Option<u32> {
    let local = ["/", "localhost:", "127.", "[::1]", "::1"];
    if !local.iter().any(|host| address.starts_with(host)) {
        return None;
    }
    let cores = std::thread::available_parallelism().ok()?;
    u32::try_from(cores.get()).ok()
}

/// Which idle connections are kept open.
#[derive(Debug, Clone, Copy)]
struct Kept {
    least: usize,
    idle: Duration,
    lifetime: Duration,
}

/// Passes a server that we work on; `version` as in `server_version_num`.
fn supported(version: i32) -> Result<(), Error> {
    if version < 130_000 {
        return Err(Error::ServerOld(version / 10_000));
    }
    Ok(())
}

impl Database {
    /// Sets the pools up; opens no connection yet.
    ///
    /// # Errors
    /// When the URL or a certificate it names is not usable.
    pub fn open(
        settings: &settings::Database,
        connection: &settings::Connection,
        migration: &settings::Migration,
        servers: &Servers,
    ) -> Result<Self, Error> {
        let wanted = Arc::new(AtomicBool::new(false));
        let (pool, address) = servers.pool(&settings.url, Use::Transactions, &connection.pool, &wanted)?;
        let direct = settings.direct_url.as_ref().unwrap_or(&settings.url);
        let (outside, _) = servers.pool(direct, Use::Outside, &connection.pool, &wanted)?;
        Ok(Self {
            name: settings.name.clone(),
            labels: settings.labels.clone(),
            pool,
            outside,
            limits: Limits {
                lock: migration.lock_timeout,
                statement: migration.statement_timeout,
                connections: connection.pool.max_size,
            },
            kept: Kept {
                least: connection.pool.min_size,
                idle: connection.pool.max_idle_time,
                lifetime: connection.pool.max_lifetime,
            },
            throttle: Throttle {
                max_replica_lag: migration.max_replica_lag,
                query: migration.throttle_query.clone(),
                machine: settings::Machine {
                    cores: settings.machine.cores.or_else(|| cores_of(&address)),
                    ..settings.machine
                },
            },
            batch_log_retention: migration.batch_log_retention,
            commit_micros: AtomicU64::new(0),
            address,
            has_ledger: AtomicBool::new(false),
            at_work: AtomicUsize::new(0),
            wanted,
        })
    }

    /// The fleet's name for it.
    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// What selectors match.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Host, port and database, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where the database physically is.
    ///
    /// # Errors
    /// When it cannot be reached, or is older than PostgreSQL 13.
    pub async fn identity(&self) -> Result<Identity, Error> {
        let session = self.session().await?;
        Self::identity_by(&session).await
    }

    /// The same, over a connection that is there.
    pub(crate) async fn identity_by(session: &Session) -> Result<Identity, Error> {
        let row = session
            .client()
            .query_typed(shared::sql::ledger::IDENTITY, &[])
            .await;
        let row = row.map_err(Error::statement("asking for the server's identity"))?;
        let row = row
            .first()
            .ok_or(Error::Broken("the server does not know its own database"))?;
        supported(row.get(2))?;
        Ok(Identity {
            system: row.get(0),
            database: row.get(1),
        })
    }

    /// There is something to do here, soon: idle connections are worth keeping.
    pub(crate) fn expect_work(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// While the guard lives the database has work, and its least number of connections is kept open.
    pub(crate) fn at_work(&self) -> AtWork<'_> {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(self)
    }

    /// Closes connections that have been idle for long, beyond the least number while there is work, and old ones. To be
    /// called now and then.
    pub fn tend(&self) {
        let least = match self.at_work.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.kept.least,
        };
        for pool in [&self.pool, &self.outside] {
            let mut kept = 0;
            pool.retain(|_, metrics| {
                let stays = metrics.age() < self.kept.lifetime
                    && (kept < least || metrics.last_used() < self.kept.idle);
                kept += usize::from(stays);
                stays
            });
        }
    }

    pub(crate) fn has_ledger(&self) -> bool {
        self.has_ledger.load(Ordering::Relaxed)
    }

    pub(crate) fn saw_ledger(&self, there: bool) {
        self.has_ledger.store(there, Ordering::Relaxed);
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// How long the evidence of batches is kept after their step.
    pub(crate) fn batch_log_retention(&self) -> Duration {
        self.batch_log_retention
    }

    /// A small durable commit took so long.
    pub(crate) fn committed_in(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.store(micros, Ordering::Relaxed);
    }

    /// How long the last small durable commit took; `None` before the first.
    pub(crate) fn commit_latency(&self) -> Option<Duration> {
        let micros = self.commit_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Who waits for a connection of the pool.
    pub(crate) fn pool_waiters(&self) -> u32 {
        u32::try_from(self.pool.status().waiting).unwrap_or(u32::MAX)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) async fn session(&self) -> Result<Session, Error> {
        self.take(&self.pool).await
    }

    /// A connection for statements that cannot run in a transaction, without limits that would cut them off. Behind a
    /// pooler, which takes no such options, it has those of its role.
    pub(crate) async fn direct_session(&self) -> Result<Session, Error> {
        match self.outside.get().await {
            Err(PoolError::Backend(Trouble::Postgres(error)))
                if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) =>
            {
                self.session().await
            }
            taken => taken.map(Session::new).map_err(|error| self.connect_error(error)),
        }
    }

    /// The same, but opened with `options` as libpq has them, and closed after use: for settings that no transaction can
    /// hold. It takes the place of a connection of the pool.
    pub(crate) async fn direct_session_with(&self, options: &str) -> Result<Session, Error> {
        let pool = &self.outside;
        let mut object = pool.get().await.map_err(|error| self.connect_error(error))?;
        let reopened = pool.manager().reopen(&mut object, options).await;
        reopened.map_err(|trouble| self.connect_error(PoolError::Backend(trouble)))?;
        Ok(Session::used_once(object))
    }

    async fn take(&self, pool: &Pool) -> Result<Session, Error> {
        pool.get()
            .await
            .map(Session::new)
            .map_err(|error| self.connect_error(error))
    }

    fn connect_error(&self, error: PoolError) -> Error {
        let (why, advice, retry) = match error {
            PoolError::Timeout(kind) => (
                match kind {
                    TimeoutType::Wait => "all connections of the pool stayed in use",
                    TimeoutType::Create => "the server did not answer in time",
                    TimeoutType::Recycle => "a pooled connection did not answer in time",
                }
                .to_owned(),
                None,
                Retryability::Retry,
            ),
            PoolError::Backend(Trouble::Postgres(error)) => self.backend_error(&error),
            PoolError::Backend(silent @ Trouble::Silent) => (silent.to_string(), None, Retryability::Retry),
            PoolError::Backend(full @ Trouble::Full(_)) => (
                full.to_string(),
                Some(
                    "raise agent.connections_per_server, or give fewer databases of it work at once"
                        .to_owned(),
                ),
                Retryability::Retry,
            ),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                ("the pool is closed".to_owned(), None, Retryability::GiveUp)
            }
        };
        Error::Connect {
            address: self.address.clone(),
            why,
            advice,
            retry,
        }
    }

    fn backend_error(&self, error: &tokio_postgres::Error) -> (String, Option<String>, Retryability) {
        if let Some(error) = error.as_db_error() {
            let code = error.code().code();
            let advice = match code {
                "28P01" | "28000" => Some("check user and password in the URL, and the server's pg_hba.conf"),
                "3D000" => Some("check the database's name in the URL"),
                "53300" => Some(
                    "the server has no connection left: lower connection.pool.max_size, or raise max_connections",
                ),
                _ => None,
            };
            return (
                error.message().to_owned(),
                advice.map(str::to_owned),
                retry::of_sqlstate(code),
            );
        }
        let source = std::error::Error::source(error).map(ToString::to_string);
        let why = source.unwrap_or_else(|| error.to_string());
        // The client's own refusals have no type to tell them by; the test of this file pins their words.
        if why.contains("password missing") {
            let advice = "the server asks for a password: give it in the URL, or keep the URL in `url_env` or `url_file`";
            return (why, Some(advice.to_owned()), Retryability::GiveUp);
        }
        if why.contains("does not support TLS") {
            let advice = "the server has no TLS: let it have a certificate, or say `sslmode=disable` in the URL if the way to it is safe";
            return (why, Some(advice.to_owned()), Retryability::GiveUp);
        }
        (
            why,
            Some(format!("is a PostgreSQL server listening at {}?", self.address)),
            Retryability::Retry,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::rollout::work::Exit;

    #[test]
    fn servers_before_13_are_refused_with_their_version() {
        assert!(supported(130_000).is_ok() && supported(180_001).is_ok());
        let old = supported(120_022).unwrap_err();
        assert_eq!(
            old.to_string(),
            "the server has PostgreSQL 12; 13 or newer is needed"
        );
        assert_eq!(old.exit(), Exit::Refused);
    }
}
