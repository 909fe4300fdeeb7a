//! The table that the benchmarks of batches change, and how they run a step on it.

use std::time::{Duration, Instant};
use tests::migrations::Migrations;
use tests::postgres::{Database, Durability, Options, Server};
use tests::process::{Confiture, Process};

/// Megabytes of WAL files that lie ready: more than what is written between two checkpoints here.
const WAL_READY: u32 = 2048;

/// A server on disk with room enough that no checkpoint falls into the middle of one side. Its WAL files lie ready, as they
/// do on a server that has been at work for a while.
pub(crate) async fn server() -> anyhow::Result<Server> {
    let options = Options {
        durability: Durability::Disk,
        ..Options::default()
    }
    .setting("shared_buffers", "1GB")
    .setting("max_wal_size", "16GB")
    .setting("min_wal_size", &format!("{WAL_READY}MB"))
    .setting("checkpoint_timeout", "1h")
    .setting("autovacuum", "off");
    let server = Server::start_with(options).await?;
    let admin = server.admin("postgres").await?;
    let written = format!(
        "SELECT count(pg_logical_emit_message(false, 'bench', repeat('x', 1 << 20))) FROM generate_series(1, {WAL_READY})"
    );
    admin.execute(&written, &[]).await?;
    admin.batch_execute("CHECKPOINT").await?;
    Ok(server)
}

/// The same rows in the same order, read once, with nothing left to write from before.
pub(crate) async fn fill(server: &Server, database: &Database, rows: u32) -> anyhow::Result<()> {
    database
        .execute(&format!(
            "DROP TABLE IF EXISTS public.items;
             CREATE TABLE public.items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, net numeric(12,2) NOT NULL, name text NOT NULL, gross numeric);
             INSERT INTO public.items (net, name) SELECT g % 9973, 'item ' || g FROM generate_series(1, {rows}) g;"
        ))
        .await?;
    database.execute("VACUUM (ANALYZE) public.items").await?;
    let admin = server.admin(database.name()).await?;
    admin.batch_execute("CHECKPOINT").await?;
    Ok(())
}

/// Migrations of one set on one database, each with one step.
pub(crate) struct Steps<'a> {
    database: &'a Database,
    set: Migrations,
    count: u32,
}

impl<'a> Steps<'a> {
    /// With the ledger in place already: making it is no part of what is measured.
    pub(crate) async fn on(database: &'a Database) -> anyhow::Result<Self> {
        let steps = Self {
            database,
            set: Migrations::write(&[("0000_ledger.up.sql", "CREATE TABLE warm_up ()")])?,
            count: 0,
        };
        steps.command().succeed().await?;
        Ok(steps)
    }

    fn command(&self) -> Confiture {
        Confiture::new(["migrate", "up", "--migrations"])
            .arg(self.set.path())
            .env("DATABASE_URL", self.database.url())
    }

    fn put(&mut self, step: &str) -> anyhow::Result<()> {
        self.count += 1;
        let name = format!("{:04}_round.yaml", self.count);
        self.set.put(&name, &format!("up:\n  - {step}\n"))
    }

    /// `confiture migrate up` with one more step, from its start to its end.
    pub(crate) async fn run(&mut self, step: &str) -> anyhow::Result<Duration> {
        self.run_with(step, |command| command).await
    }

    /// The same with more said to the command.
    pub(crate) async fn run_with(
        &mut self,
        step: &str,
        more: impl FnOnce(Confiture) -> Confiture,
    ) -> anyhow::Result<Duration> {
        self.put(step)?;
        let command = more(self.command());
        let began = Instant::now();
        command.succeed().await?;
        Ok(began.elapsed())
    }

    /// The same, not waited for.
    pub(crate) fn start(&mut self, step: &str) -> anyhow::Result<Process> {
        self.put(step)?;
        self.command().start("confiture")
    }
}
