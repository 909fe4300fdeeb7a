//! One database on its bad days: killed processes, restarted servers, many runs at once. Rows are changed exactly once.

use rand::RngExt as _;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server, Shutdown};
use tests::process::Confiture;

const ROWS: i64 = 60_000;
const SOON: Duration = Duration::from_secs(30);

/// Adds a column and counts each row once, in batches small enough to be met in the middle.
const COUNT: &str = "
up:
  - add_column: { table: t, column: note, type: text }
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 300ms } }
  - backfill: { table: t, set: { note: \"'x' || n\" }, batch: { size: 5000 } }
  - set_not_null: { table: t, column: note }
";

async fn table(server: &Server) -> anyhow::Result<Database> {
    let database = server.fresh_database().await?;
    let create = format!(
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
         INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
    );
    database.execute(&create).await?;
    Ok(database)
}

fn up(migrations: &Migrations, database: &Database) -> Confiture {
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
}

async fn everything_once(database: &Database) -> anyhow::Result<()> {
    let wrong = "SELECT count(*) FROM t WHERE n <> 1 OR note IS DISTINCT FROM 'x1'";
    assert_eq!(database.number(wrong).await?, 0, "rows lost or changed twice");
    assert_eq!(database.number("SELECT count(*) FROM t").await?, ROWS);
    Ok(())
}

/// Waits until some batches are committed.
async fn in_the_middle(database: &Database) -> anyhow::Result<()> {
    eventually("some batches", SOON, || async {
        let sequence = database
            .number("SELECT coalesce(max(sequence), 0) FROM confiture.shard WHERE step = 2")
            .await?;
        Ok((sequence > 1).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_run_killed_inside_a_batch_is_continued_exactly_once() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let mut process = up(&migrations, &database).start("up")?;
    in_the_middle(&database).await?;
    // A row lock holds the batch that reaches the end inside its transaction.
    let holder = database.connect().await?;
    let last = format!("BEGIN; SELECT * FROM t WHERE id = {ROWS} FOR UPDATE");
    holder.batch_execute(&last).await?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '/*confiture%UPDATE%'";
    eventually("a batch that waits for the row", SOON, || async {
        Ok((database.number(waiting).await? > 0).then_some(()))
    })
    .await?;
    process.kill();
    holder.batch_execute("ROLLBACK").await?;

    up(&migrations, &database).succeed().await?;

    everything_once(&database).await
}

#[tokio::test]
async fn runs_killed_at_random_moments_end_whole() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    for _ in 0..12 {
        let mut process = up(&migrations, &database).arg("--take-over").start("up")?;
        let pause = Duration::from_millis(rand::rng().random_range(5..250));
        tokio::time::sleep(pause).await;
        process.kill();
        drop(process);
    }
    up(&migrations, &database).succeed().await?;
    everything_once(&database).await
}

#[tokio::test]
async fn an_immediate_restart_of_the_server_is_survived_by_the_same_run() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let database = table(&server).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let mut process = up(&migrations, &database).start("up")?;
    for _ in 0..2 {
        in_the_middle(&database).await?;
        server.restart(Shutdown::Immediate).await?;
    }
    let status = process.wait(Duration::from_secs(90)).await?;
    assert!(status.success(), "{}", process.stderr());
    everything_once(&database).await
}

#[tokio::test]
async fn backends_terminated_again_and_again_change_nothing_twice() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    let database = table(server).await?;
    // Pauses are not what is met here.
    let steps = COUNT.replace("300ms", "20ms");
    let migrations = Migrations::write(&[("001_count.yaml", &steps)])?;
    let mut process = up(&migrations, &database).start("up")?;
    let admin = server.admin(database.name()).await?;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/*confiture%'";
    while process.ended()?.is_none() {
        admin.number(end).await?;
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..400))).await;
    }
    let status = process.wait(SOON).await?;
    assert!(status.success(), "{}", process.stderr());
    everything_once(&database).await
}

#[tokio::test]
async fn ten_runs_at_once_do_the_work_once_and_all_succeed() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let runs = (0..10).map(|_| async { up(&migrations, &database).run().await });
    let ended = futures_util::future::try_join_all(runs).await?;
    for run in &ended {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let worked = ended
        .iter()
        .filter(|run| run.stdout.contains("1 migration applied"))
        .count();
    let idle = ended
        .iter()
        .filter(|run| run.stdout.contains("nothing to do"))
        .count();
    assert_eq!((worked, idle), (1, 9));
    everything_once(&database).await
}

#[tokio::test]
async fn a_frozen_run_is_displaced_and_ends_with_a_clear_word() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let mut frozen = up(&migrations, &database).start("frozen")?;
    in_the_middle(&database).await?;
    frozen.freeze()?;

    up(&migrations, &database).arg("--take-over").succeed().await?;
    everything_once(&database).await?;

    frozen.resume()?;
    let status = frozen.wait(SOON).await?;
    assert_eq!(status.code(), Some(4), "{}", frozen.stderr());
    assert!(frozen.stderr().contains("replaced"), "{}", frozen.stderr());
    everything_once(&database).await
}

/// Its ranges are fenced off too: they belong to a run of another set.
#[tokio::test]
async fn a_run_of_another_set_displaces_a_frozen_one_and_its_batches() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let mut frozen = up(&migrations, &database).start("frozen")?;
    in_the_middle(&database).await?;
    frozen.freeze()?;
    let open = "SELECT count(*) FROM confiture.shard s, confiture.fence f
                 WHERE s.state = 'open' AND (s.epoch, s.token, s.local)";
    assert!(
        database
            .number(&format!("{open} = (f.epoch, f.token, f.local)"))
            .await?
            > 0
    );

    let audit = Migrations::write(&[("001_audit.up.sql", "CREATE TABLE audit (id int)")])?;
    let other = up(&audit, &database).arg("--set=audit").arg("--take-over");
    other.succeed().await?;

    assert_eq!(
        database
            .number(&format!("{open} < (f.epoch, f.token, f.local)"))
            .await?,
        0
    );
    assert!(
        database
            .number(&format!("{open} = (f.epoch, f.token, f.local)"))
            .await?
            > 0
    );
    frozen.resume()?;
    let status = frozen.wait(SOON).await?;
    assert_eq!(status.code(), Some(4), "{}", frozen.stderr());
    up(&migrations, &database).succeed().await?;
    everything_once(&database).await
}

/// Nobody who waits finds a run that is complete and still held.
#[tokio::test]
async fn the_transaction_that_ends_a_run_releases_its_holder() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[
        (
            "001_count.yaml",
            "up:\n  - backfill: { table: t, set: { n: n + 1 } }\n",
        ),
        ("002_one.up.sql", "CREATE TABLE one (id int)"),
    ])?;
    up(&migrations, &database).succeed().await?;
    let together = "SELECT count(*) FROM confiture.holder h, confiture.run r
                     WHERE r.version = '2' AND h.xmin = r.xmin AND h.held_until <= r.ended_at + interval '1 s'";
    assert_eq!(database.number(together).await?, 1);
    // A renewal that was on its way then would make the next run wait for nobody.
    let session = database.connect().await?;
    let row = session
        .query_one("SELECT holder FROM confiture.holder", &[])
        .await?;
    let holder: uuid::Uuid = row.get(0);
    let renewed = session
        .execute(shared::sql::ledger::RENEW, &[&holder, &60_f64])
        .await?;
    assert_eq!(renewed, 0);
    Ok(())
}

#[tokio::test]
async fn a_displaced_run_ends_also_while_it_rests() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let rest = "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 10min } }\n";
    let migrations = Migrations::write(&[("001_rest.yaml", rest)])?;
    let mut resting = up(&migrations, &database).start("up")?;
    eventually("a batch", SOON, || async {
        let counted = database.number("SELECT count(*) FROM t WHERE n = 1").await?;
        Ok((counted > 0).then_some(()))
    })
    .await?;
    let mut other = up(&migrations, &database).arg("--take-over").start("other")?;
    let status = resting.wait(SOON).await?;
    assert_eq!(status.code(), Some(4), "{}", resting.stderr());
    assert!(resting.stderr().contains("replaced"), "{}", resting.stderr());
    other.kill();
    Ok(())
}

#[tokio::test]
async fn a_dead_holder_is_waited_for_and_then_followed() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let mut killed = up(&migrations, &database).start("killed")?;
    in_the_middle(&database).await?;
    killed.kill();

    let ended = up(&migrations, &database).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("waiting for confiture migrate up by"),
        "{}",
        ended.stderr
    );
    everything_once(&database).await
}

#[tokio::test]
async fn an_interrupt_stops_between_batches_and_the_next_run_goes_on() -> anyhow::Result<()> {
    let database = table(Server::shared().await?).await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let mut stopped = up(&migrations, &database).start("stopped")?;
    in_the_middle(&database).await?;
    stopped.interrupt()?;
    let status = stopped.wait(SOON).await?;
    assert_eq!(status.code(), Some(4), "{}", stopped.stderr());
    let ended = up(&migrations, &database).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        !ended.stderr.contains("waiting"),
        "the holder was released: {}",
        ended.stderr
    );
    everything_once(&database).await
}
