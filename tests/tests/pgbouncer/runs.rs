//! Runs over a pool of two: several at once, those that end half-way, and what is asked meanwhile.

use crate::{Pooled, SOON, expect, server};
use anyhow::ensure;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::pgbouncer::{Options, PgBouncer};
use tests::postgres::Session;
use tests::process::{Build, Process};

const ROWS: i64 = 3_000;

const TABLE: &str =
    "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
                     INSERT INTO t (n) SELECT 0 FROM generate_series(1, 3000)";

/// Takes some seconds, in as many transactions as the pool has connections.
const SLOW: &str = "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 50, target: 20ms, pause: 60ms, workers: 2 } }\n";

const LONG: Duration = Duration::from_mins(1);

async fn slow() -> anyhow::Result<(Pooled, Migrations)> {
    Build::Faults.make().await?;
    Ok((
        Pooled::with(TABLE).await?,
        Migrations::write(&[("1_it.yaml", SLOW)])?,
    ))
}

/// Waits until a run has changed rows, and tells how many are changed.
async fn is_at_work(pooled: &Pooled) -> anyhow::Result<i64> {
    has_changed_more_than(0, pooled).await
}

async fn has_changed_more_than(rows: i64, pooled: &Pooled) -> anyhow::Result<i64> {
    let query = "SELECT count(*) FROM t WHERE n > 0";
    eventually("a run to change rows", SOON, || async {
        let changed = pooled.database.number(query).await?;
        Ok((changed > rows).then_some(changed))
    })
    .await
}

async fn is_done_once(pooled: &Pooled) -> anyhow::Result<()> {
    let right = pooled
        .database
        .number("SELECT count(*) FROM t WHERE n = 1")
        .await?;
    ensure!(right == ROWS, "{right} of {ROWS} rows were changed once");
    pooled.nothing_left().await
}

fn said(process: &Process) -> String {
    process.stdout() + &process.stderr()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_beside_a_run_is_answered() -> anyhow::Result<()> {
    let (pooled, migrations) = slow().await?;
    let neighbours = pooled.neighbours().await?;
    let mut run = pooled.migrate(&["up"], &migrations).start("the run")?;
    is_at_work(&pooled).await?;
    for words in [
        &["locks"][..],
        &["index", "progress"],
        &["index", "repair"],
        &["ledger", "show"],
        &["ledger", "verify"],
    ] {
        pooled.call(words).build(Build::Faults).succeed().await?;
    }
    pooled.migrate(&["status"], &migrations).succeed().await?;
    pooled
        .migrate(&["up", "--dry-run"], &migrations)
        .succeed()
        .await?;
    ensure!(run.wait(LONG).await?.success(), "{}", said(&run));
    neighbours.saw_nothing().await?;
    is_done_once(&pooled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_at_once_one_works_and_one_finds_nothing_to_do() -> anyhow::Result<()> {
    let (pooled, migrations) = slow().await?;
    let up = pooled.migrate(&["up"], &migrations);
    let (one, other) = tokio::try_join!(up.run(), up.run())?;
    expect(&one, 0, "")?;
    expect(&other, 0, "")?;
    let both = [one.stdout, other.stdout].concat();
    ensure!(
        both.contains("1 migration applied") && both.contains("nothing to do"),
        "{both}"
    );
    is_done_once(&pooled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_interrupted_or_killed_is_followed_by_the_next() -> anyhow::Result<()> {
    let (pooled, migrations) = slow().await?;
    let neighbours = pooled.neighbours().await?;
    let up = pooled.migrate(&["up"], &migrations);
    let mut first = up.start("the first run")?;
    is_at_work(&pooled).await?;
    first.interrupt()?;
    let status = first.wait(LONG).await?;
    ensure!(status.code() == Some(4), "{status}: {}", said(&first));
    let changed = is_at_work(&pooled).await?;
    let mut second = up.start("the second run")?;
    has_changed_more_than(changed, &pooled).await?;
    second.kill();
    expect(&up.run().await?, 0, "1 migration applied")?;
    neighbours.saw_nothing().await?;
    is_done_once(&pooled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_stands_still_in_a_transaction_is_replaced() -> anyhow::Result<()> {
    let (pooled, migrations) = slow().await?;
    let up = pooled.migrate(&["up"], &migrations);
    let mut asleep = up
        .clone()
        .env("CONFITURE_FAULT", "before_commit:stall@4")
        .start("the sleeper")?;
    asleep.wait_for_line("a fault on purpose", SOON).await?;
    let other = up.clone().arg("--take-over").run().await?;
    expect(&other, 0, "1 migration applied")?;
    asleep.resume()?;
    let status = asleep.wait(LONG).await?;
    ensure!(
        status.code() == Some(4) && said(&asleep).contains("replaced"),
        "{status}: {}",
        said(&asleep)
    );
    is_done_once(&pooled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_says_why_it_waits_where_applications_hold_all_connections() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    // Behind it the pool has no reserve.
    let pgbouncer = PgBouncer::start(
        server().await?,
        Options {
            reserve: 0,
            ..Options::default()
        },
    )
    .await?;
    let pooled = Pooled::behind(&pgbouncer).await?;
    pooled.database.execute(TABLE).await?;
    let migrations = Migrations::write(&[("1_it.yaml", SLOW)])?;
    let (one, other) = (
        Session::open(&pooled.url).await?,
        Session::open(&pooled.url).await?,
    );
    for application in [&one, &other] {
        application.batch_execute("BEGIN; SELECT 1").await?;
    }
    let mut run = pooled.migrate(&["up"], &migrations).start("the run")?;
    run.wait_for_line("default_pool_size", SOON).await?;
    one.batch_execute("COMMIT").await?;
    ensure!(run.wait(LONG).await?.success(), "{}", said(&run));
    is_done_once(&pooled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_its_pooler() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let mut pgbouncer = PgBouncer::start(server().await?, Options::default()).await?;
    let pooled = Pooled::behind(&pgbouncer).await?;
    pooled.database.execute(TABLE).await?;
    let migrations = Migrations::write(&[("1_it.yaml", SLOW)])?;
    let mut run = pooled.migrate(&["up"], &migrations).start("the run")?;
    is_at_work(&pooled).await?;
    pgbouncer.kill()?;
    pgbouncer.resume().await?;
    ensure!(run.wait(LONG).await?.success(), "{}", said(&run));
    is_done_once(&pooled).await
}
