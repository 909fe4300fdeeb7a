//! One target database: its pools and what is known of it.

mod sessions;

use crate::connect::Use;
use crate::error::Error;
use crate::pool::{Pool, Pools, Servers, Work};
use crate::session::Session;
use shared::id::DatabaseName;
use shared::rollout::work::Identity;
use shared::settings;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// How often the pools are looked through: times to live are given in seconds.
const KEEP: Duration = Duration::from_secs(1);

/// After a connection could not be opened for nobody, this long none is tried: a server without room has other use for it.
const WARM_AGAIN: Duration = Duration::from_secs(10);

/// One target database. Opens connections only when it is used.
pub struct Database {
    name: DatabaseName,
    labels: BTreeMap<String, String>,
    pool: Pool,
    address: String,
    /// For statements that cannot run in a transaction: past a pooler where a direct URL is given.
    outside: Pool,
    outside_address: String,
    limits: Limits,
    /// Whether the last look found a ledger: saves looking again.
    has_ledger: AtomicBool,
    /// Whether it was said that there is a pooler.
    told_of_pooler: AtomicBool,
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
pub struct AtWork<'a>(&'a Database);

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
    /// From when on sessions that are idle in a transaction and in the way are ended.
    pub(crate) cancel_idle: Option<Duration>,
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
        let (outside, outside_address) = servers.pool(direct, Use::Outside, &connection.pool, &wanted)?;
        Ok(Self {
            name: settings.name.clone(),
            labels: settings.labels.clone(),
            pool,
            outside,
            outside_address,
            limits: Limits {
                lock: migration.lock_timeout,
                statement: migration.statement_timeout,
                cancel_idle: migration.cancel_idle_in_transaction,
                connections: connection.pool.max_size,
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
            told_of_pooler: AtomicBool::new(false),
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
    pub fn at_work(&self) -> AtWork<'_> {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(self)
    }

    /// Keeps the pools as the settings say, for ever: closes connections that have been idle or open for too long, and
    /// holds the least number open while there is work.
    ///
    /// # Cancel safety
    /// It can be dropped at any time.
    pub async fn keep(&self) -> Infallible {
        let mut ticks = tokio::time::interval(KEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warm_from = Instant::now();
        let mut before = Work::None;
        loop {
            ticks.tick().await;
            let work = match self.at_work.load(Ordering::Relaxed) {
                0 => Work::None,
                _ => Work::Some,
            };
            self.pool.close_spent(work);
            self.outside.close_spent(Work::None);
            // Work of a moment is over before a further connection would be of use.
            let goes_on = std::mem::replace(&mut before, work) == Work::Some;
            if !goes_on || Instant::now() < warm_from {
                continue;
            }
            if let Err(error) = self.pool.warm(work).await {
                // The work itself meets it, and says what to do.
                tracing::debug!(database = %self.name, %error, "cannot keep connections open");
                warm_from = Instant::now() + WARM_AGAIN;
            }
        }
    }

    /// The pools at this moment; asks nobody.
    pub fn pools(&self) -> Pools {
        Pools {
            transactions: self.pool.stats(),
            outside: self.outside.stats(),
            places: self.pool.places(),
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

    /// Whether a connection can be had without opening one.
    pub(crate) fn has_idle_connection(&self) -> bool {
        self.pool.has_idle()
    }

    /// Who waits for a connection of the pool.
    pub(crate) fn pool_waiters(&self) -> u32 {
        u32::try_from(self.pool.waiting()).unwrap_or(u32::MAX)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
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
