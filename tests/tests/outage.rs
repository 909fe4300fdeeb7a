//! The outage that a schema change makes when somebody forgot a transaction, and that the same change through us makes none.

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use std::time::{Duration, Instant};
use tests::migrations::Migrations;
use tests::postgres::{Database, Options, Server, Session};
use tests::process::Confiture;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::Statement;
use tokio_util::sync::CancellationToken;

/// Of each of the two tables.
const CLIENTS: i64 = 30;

/// How long a transaction that has read both tables does nothing.
const IDLE: Duration = Duration::from_secs(20);

/// The longest that a statement of a client may wait because of us.
const LONGEST: Duration = Duration::from_millis(600);

const TABLES: &str = "
    CREATE TABLE ours (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
    INSERT INTO ours SELECT generate_series(1, 3000);
    CREATE TABLE by_hand (LIKE ours INCLUDING ALL);
    INSERT INTO by_hand SELECT * FROM ours";

/// Applications that read and write a table, each of them its own rows.
struct Clients {
    sessions: JoinSet<anyhow::Result<Duration>>,
    stop: CancellationToken,
}

impl Clients {
    async fn start(database: &Database, table: &str) -> anyhow::Result<Self> {
        let (mut sessions, stop) = (JoinSet::new(), CancellationToken::new());
        for number in 1..=CLIENTS {
            let client = Client::connect(database, table, number).await?;
            sessions.spawn(client.work(stop.clone()));
        }
        Ok(Self { sessions, stop })
    }

    /// The longest time that a statement of theirs took.
    async fn finish(mut self) -> anyhow::Result<Duration> {
        self.stop.cancel();
        let mut longest = Duration::ZERO;
        while let Some(took) = self.sessions.join_next().await {
            longest = longest.max(took.context("a client panicked")??);
        }
        Ok(longest)
    }
}

struct Client {
    number: i64,
    session: Session,
    statements: [Statement; 2],
}

impl Client {
    async fn connect(database: &Database, table: &str, number: i64) -> anyhow::Result<Self> {
        let session = database.connect().await?;
        let read = format!("SELECT n FROM {table} WHERE id = $1");
        let write = format!("UPDATE {table} SET n = n + 1 WHERE id = $1");
        let statements = [session.prepare(&read).await?, session.prepare(&write).await?];
        Ok(Self {
            number,
            session,
            statements,
        })
    }

    /// The longest time that a statement took.
    async fn work(self, stop: CancellationToken) -> anyhow::Result<Duration> {
        let mut rng = StdRng::seed_from_u64(self.number.unsigned_abs());
        let mut longest = Duration::ZERO;
        while !stop.is_cancelled() {
            let id = self.number + CLIENTS * rng.random_range(0..90);
            for statement in &self.statements {
                let began = Instant::now();
                self.session.execute(statement, &[&id]).await?;
                longest = longest.max(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(20..100))).await;
        }
        Ok(longest)
    }
}

/// What clients wait for: how long each statement has waited, and whether our step, or the change by hand, is in its way,
/// itself or through others that wait.
const WAITING: &str = "
WITH RECURSIVE waits AS MATERIALIZED (
  SELECT a.pid, unnest(pg_blocking_pids(a.pid)) AS behind
    FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND a.datname = current_database()),
chain(pid, behind) AS (
  SELECT pid, behind FROM waits UNION SELECT c.pid, w.behind FROM chain c JOIN waits w ON w.pid = c.behind)
SELECT date_part('epoch', clock_timestamp() - s.query_start),
       bool_or(starts_with(b.query, '/*confiture ')), bool_or(b.query = 'ALTER TABLE by_hand ADD COLUMN c text')
  FROM chain c JOIN pg_stat_activity b ON b.pid = c.behind JOIN pg_stat_activity s ON s.pid = c.pid
 WHERE s.query ~ '^(SELECT n FROM|UPDATE)'
 GROUP BY s.pid, s.query_start";

/// The longest that statements of clients were seen to wait.
#[derive(Debug, Default)]
struct Waits {
    behind_us: Duration,
    behind_the_other: Duration,
}

/// Looks who waits for whom until it is told to stop.
fn watch(database: &Database, stop: &CancellationToken) -> JoinHandle<anyhow::Result<Waits>> {
    let (database, stop) = (database.clone(), stop.clone());
    tokio::spawn(async move {
        let session = database.admin().await?;
        let mut waits = Waits::default();
        while !stop.is_cancelled() {
            for row in session.query(WAITING, &[]).await? {
                let waited = Duration::from_secs_f64(row.get::<_, f64>(0).max(0.0));
                if row.get(1) {
                    waits.behind_us = waits.behind_us.max(waited);
                }
                if row.get(2) {
                    waits.behind_the_other = waits.behind_the_other.max(waited);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(waits)
    })
}

/// What the program says a step took.
fn step_done(events: &str) -> anyhow::Result<Value> {
    let mut events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .find(|event| event["event"] == "step_done")
        .context("no step is done")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_is_added_at_noon_beside_a_forgotten_transaction_and_nobody_waits() -> anyhow::Result<()> {
    let server = Server::start_with(Options {
        max_connections: 100,
        ..Options::default()
    })
    .await?;
    let database = server.fresh_database().await?;
    database.execute(TABLES).await?;
    let add = "up:\n  - add_column: { table: ours, column: c, type: text }\n";
    let migrations = Migrations::write(&[("1_column.yaml", add)])?;
    let ours = Clients::start(&database, "ours").await?;
    let by_hand = Clients::start(&database, "by_hand").await?;
    let stop = CancellationToken::new();
    let watched = watch(&database, &stop);

    let forgotten = database.connect().await?;
    forgotten
        .batch_execute("BEGIN; SELECT count(*) FROM ours; SELECT count(*) FROM by_hand")
        .await?;
    let raw = tokio::spawn({
        let session = database.connect().await?;
        async move {
            session
                .batch_execute("ALTER TABLE by_hand ADD COLUMN c text")
                .await
        }
    });
    let mut migration = Confiture::new(["migrate", "up", "--output", "json", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
        .start("migrate up")?;
    tokio::time::sleep(IDLE).await;
    let added = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'ours'::regclass AND attname = 'c'";
    assert_eq!(database.number(added).await?, 0);
    forgotten.batch_execute("COMMIT").await?;

    raw.await??;
    let status = migration.wait(Duration::from_secs(30)).await?;
    assert!(status.success(), "{}", migration.stderr());
    assert_eq!(database.number(added).await?, 1);
    let (ours, by_hand) = (ours.finish().await?, by_hand.finish().await?);
    stop.cancel();
    let waits = watched.await??;
    let seen =
        format!("statements took {ours:?} at most, those beside the raw change {by_hand:?}; {waits:?}");

    assert!(waits.behind_us < LONGEST, "{seen}");
    // The raw one is an outage, to the clients as to who watches; so it would have been seen behind us too.
    let outage = IDLE.saturating_sub(Duration::from_secs(5));
    assert!(by_hand > outage && waits.behind_the_other > outage, "{seen}");

    let done = step_done(&migration.stderr())?;
    let number = |key: &str| done[key].as_u64().with_context(|| format!("{key} in {done}"));
    assert!(u128::from(number("lock_wait_ms")?) > outage.as_millis(), "{done}");
    assert!(number("stall_ms")? <= 1_000, "{done}");
    Ok(())
}
