//! Vacuums between batches: what they save, and that nothing depends on them.

use serde_json::Value;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

const SOON: Duration = Duration::from_secs(20);

const RUNNING: &str = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()";

const ROWS: i64 = 60_000;

/// From this version on a server looks whether its client is still there while it works.
const NOTICES_THE_END: i64 = 140_000;

/// A dense table with indexes that nobody else vacuums.
async fn table(name: &str, database: &Database) -> anyhow::Result<()> {
    database
        .execute(&format!(
            "CREATE TABLE {name} (k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text)
               WITH (autovacuum_enabled = off);
             INSERT INTO {name} (pad) SELECT md5(g::text) FROM generate_series(1, {ROWS}) g;
             CREATE INDEX ON {name} (pad); CREATE INDEX ON {name} (n); ANALYZE {name}"
        ))
        .await
}

async fn database() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    table("t", &database).await?;
    Ok(database)
}

fn set(table: &str, batch: &str) -> anyhow::Result<Migrations> {
    let step = format!(
        "up:\n  - backfill: {{ table: public.{table}, set: {{ n: n + 1 }}, batch: {{ size: 1000, target: 20ms, workers: 1, {batch} }} }}\n"
    );
    Migrations::write(&[
        (&format!("1_{table}.yaml"), &step),
        ("confiture.set.yaml", &format!("set: {table}\n")),
    ])
}

fn up(url: &str, set: &Migrations) -> Confiture {
    Confiture::new(["migrate", "up", "--output", "json", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", url)
}

/// How many vacuums there were in a run that did all it had to do.
fn vacuums(ended: &Ended) -> anyhow::Result<u64> {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let events = ended
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = events.into_iter().find(|event| event["event"] == "step_done");
    let done = done.ok_or_else(|| anyhow::anyhow!("no step was done: {}", ended.stderr))?;
    assert_eq!(done["rows"], ROWS);
    done["vacuums"]
        .as_u64()
        .ok_or_else(|| anyhow::anyhow!("no count of vacuums: {done}"))
}

async fn size(database: &Database, table: &str) -> anyhow::Result<i64> {
    let changed = format!("SELECT count(*) FROM {table} WHERE n = 1");
    assert_eq!(database.number(&changed).await?, ROWS);
    database
        .number(&format!("SELECT pg_total_relation_size('{table}')"))
        .await
}

/// From now on each VACUUM in it takes minutes.
async fn slow_vacuums(database: &Database) -> anyhow::Result<()> {
    let admin = database.admin().await?;
    let slow = format!("ALTER DATABASE \"{}\" SET vacuum_cost_limit = 1", database.name());
    Ok(admin.batch_execute(&slow).await?)
}

async fn running(database: &Database, count: i64) -> anyhow::Result<()> {
    eventually("the vacuum", SOON, || async move {
        Ok((database.number(RUNNING).await? == count).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_table_that_is_vacuumed_between_batches_grows_less() -> anyhow::Result<()> {
    let database = database().await?;
    table("plain", &database).await?;
    let before = database.number("SELECT pg_total_relation_size('t')").await?;

    let plain = up(database.url(), &set("plain", "max_duty: 1")?).run().await?;
    let vacuumed = up(database.url(), &set("t", "max_duty: 1, vacuum: true")?)
        .run()
        .await?;
    assert_eq!(vacuums(&plain)?, 0);
    assert!(vacuums(&vacuumed)? >= 3, "{}", vacuumed.stderr);
    let (plain, vacuumed) = (size(&database, "plain").await?, size(&database, "t").await?);
    // It grew, and by less than half of what it grows otherwise.
    assert!(
        (vacuumed - before) * 2 < plain - before,
        "from {before}: to {vacuumed} instead of {plain} bytes"
    );
    Ok(())
}

#[tokio::test]
async fn who_may_not_vacuum_is_told_once_and_the_rows_are_changed() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    let database = database().await?;
    let role = format!("guest_{}", database.name());
    let admin = database.admin().await?;
    admin
        .batch_execute(&format!(
            "CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE \"{}\" TO \"{role}\";
             GRANT SELECT, UPDATE ON public.t TO \"{role}\"",
            database.name()
        ))
        .await?;
    let url = server.url_as(&role, "x", database.name());
    let ended = up(&url, &set("t", "max_duty: 1, vacuum: 0.02")?).run().await?;
    assert_eq!(vacuums(&ended)?, 0);
    assert_eq!(
        ended.stderr.matches("may not vacuum").count(),
        1,
        "{}",
        ended.stderr
    );
    size(&database, "t").await?;
    Ok(())
}

#[tokio::test]
async fn a_vacuum_ends_with_the_run() -> anyhow::Result<()> {
    let database = database().await?;
    slow_vacuums(&database).await?;
    let set = set("t", "pause: 100ms, vacuum: true")?;
    let mut run = up(database.url(), &set).start("run")?;
    running(&database, 1).await?;
    run.interrupt()?;
    assert_eq!(run.wait(SOON).await?.code(), Some(4), "{}", run.stderr());
    running(&database, 0).await?;

    // Nobody is left to end it but the server; and it does not pass for somebody who holds the database.
    let mut killed = up(database.url(), &set).start("killed")?;
    running(&database, 1).await?;
    killed.kill();
    if database.server_version().await? >= NOTICES_THE_END {
        return running(&database, 0).await;
    }
    // Then it goes on for its minutes, and another run does its work beside it.
    let next = up(database.url(), &set).run().await?;
    vacuums(&next)?;
    running(&database, 1).await
}

#[tokio::test]
async fn a_vacuum_gives_way_to_a_change_of_the_table() -> anyhow::Result<()> {
    let database = database().await?;
    slow_vacuums(&database).await?;
    let set = set("t", "pause: 100ms, vacuum: 0.4")?;
    let mut run = up(database.url(), &set).start("run")?;
    running(&database, 1).await?;
    let alter = "SET lock_timeout = '15s'; ALTER TABLE t ADD COLUMN more int";
    database.execute(alter).await?;
    // The batches go on to their end.
    assert_eq!(
        run.wait(Duration::from_mins(1)).await?.code(),
        Some(0),
        "{}",
        run.stderr()
    );
    size(&database, "t").await?;
    Ok(())
}

#[tokio::test]
async fn a_table_is_not_vacuumed_for_nothing_beside_an_older_snapshot() -> anyhow::Result<()> {
    let database = database().await?;
    let reader = database.connect().await?;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t LIMIT 1")
        .await?;
    let ended = up(database.url(), &set("t", "pause: 100ms, vacuum: true")?)
        .run()
        .await?;
    assert_eq!(vacuums(&ended)?, 0);
    reader.batch_execute("COMMIT").await?;
    Ok(())
}
