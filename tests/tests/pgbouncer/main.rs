//! Behind PgBouncer, as the guide sets it up: everything works over a pool of two server connections in transaction mode,
//! and other clients of that pool never find a setting, a lock or a statement of ours in the sessions they are lent.
//!
//! | module | asks |
//! |---|---|
//! | `kinds` | every kind of step, up and down |
//! | `runs` | several runs, those that end half-way, and what is asked meanwhile |
//! | `outside` | statements outside transactions, with a direct URL and without |
//! | `modes` | the other modes of a pooler |
//! | `fleet` | an agent and a rollout |
//! | `neighbours` | nothing: the other clients of the pool |

mod fleet;
mod kinds;
mod modes;
mod neighbours;
mod outside;
mod runs;

use anyhow::ensure;
use neighbours::Neighbours;
use std::time::Duration;
use tests::migrations::Migrations;
use tests::pgbouncer::{Options, PgBouncer};
use tests::postgres::{self, Database, Server};
use tests::process::{Build, Confiture, Ended};
use tokio::sync::OnceCell;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A database, and the way to it through a pooler of its own pool.
pub(crate) struct Pooled {
    /// As the server has it.
    pub(crate) database: Database,
    /// By way of the pooler.
    pub(crate) url: String,
}

async fn server() -> anyhow::Result<&'static Server> {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let options = || postgres::Options {
        max_connections: 200,
        ..postgres::Options::default()
    };
    SERVER.get_or_try_init(|| Server::start_with(options())).await
}

/// The one pooler of those tests that do nothing to it.
async fn pgbouncer() -> anyhow::Result<&'static PgBouncer> {
    static PGBOUNCER: OnceCell<PgBouncer> = OnceCell::const_new();
    let start = async || PgBouncer::start(server().await?, Options::default()).await;
    PGBOUNCER.get_or_try_init(start).await
}

impl Pooled {
    /// A database of its own with these tables.
    pub(crate) async fn with(tables: &str) -> anyhow::Result<Self> {
        let pooled = Self::empty().await?;
        pooled.database.execute(tables).await?;
        Ok(pooled)
    }

    pub(crate) async fn empty() -> anyhow::Result<Self> {
        Self::behind(pgbouncer().await?).await
    }

    /// The same behind another pooler.
    pub(crate) async fn behind(pgbouncer: &PgBouncer) -> anyhow::Result<Self> {
        let database = server().await?.fresh_database().await?;
        let url = pgbouncer.url(server().await?, &database);
        Ok(Self { database, url })
    }

    /// A call of the program for it.
    pub(crate) fn call(&self, words: &[&str]) -> Confiture {
        Confiture::new(words).env("DATABASE_URL", &self.url)
    }

    /// The same for a set of migrations, and with points at which the environment can make it fail.
    pub(crate) fn migrate(&self, words: &[&str], migrations: &Migrations) -> Confiture {
        let words: Vec<&str> = ["migrate"].iter().chain(words).copied().collect();
        self.call(&words)
            .build(Build::Faults)
            .arg("--migrations")
            .arg(migrations.path())
            .env("CONFITURE_HOLDER_TIME", "2s")
    }

    /// Settings that know the way past the pooler too.
    pub(crate) fn settings(&self) -> String {
        format!(
            "databases:\n  - {{ name: shop, url: \"{}\", direct_url: \"{}\" }}\n",
            self.url,
            self.database.url()
        )
    }

    /// Other clients of the same pool.
    pub(crate) async fn neighbours(&self) -> anyhow::Result<Neighbours> {
        Neighbours::start(&self.url).await
    }

    /// That nothing is left in the database's sessions: what a session alone can tell, the neighbours have asked.
    pub(crate) async fn nothing_left(&self) -> anyhow::Result<()> {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let left = self.database.number(locks).await?;
        ensure!(left == 0, "{left} advisory locks are left");
        Ok(())
    }
}

pub(crate) fn expect(ended: &Ended, code: i32, word: &str) -> anyhow::Result<()> {
    let said = [ended.stdout.as_str(), ended.stderr.as_str()].concat();
    ensure!(
        ended.code == Some(code) && said.contains(word),
        "ended with {:?} instead of {code}, or without `{word}`: {said}",
        ended.code
    );
    Ok(())
}
