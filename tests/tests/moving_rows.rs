//! Batched changes while applications write: rows that move behind the cursor, appear, vanish or change meanwhile; and
//! ranges that several workers share.

use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Process};

fn migrate(database: &Database, set: &Migrations) -> Confiture {
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
}

fn set(step: &str) -> anyhow::Result<Migrations> {
    Migrations::write(&[("1_a.yaml", &format!("up:\n  - {step}\n"))])
}

async fn database(create: &str) -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(create).await?;
    Ok(database)
}

async fn is_sound(database: &Database) -> anyhow::Result<()> {
    Confiture::new(["ledger", "verify"])
        .env("DATABASE_URL", database.url())
        .succeed()
        .await?;
    Ok(())
}

async fn ended_well(run: &mut Process) -> anyhow::Result<()> {
    let status = run.wait(Duration::from_mins(1)).await?;
    assert!(status.success(), "{}", run.stderr());
    Ok(())
}

/// The step has changed some rows and not yet half of them.
async fn under_way(database: &Database) -> anyhow::Result<()> {
    eventually("some batches", Duration::from_secs(20), || async {
        let rows = "SELECT coalesce((SELECT sum(rows) FROM confiture.shard), 0)::bigint";
        Ok(match database.number(rows).await {
            Ok(rows) if rows > 0 => Some(()),
            // The ledger is not there yet.
            Ok(_) | Err(_) => None,
        })
    })
    .await
}

#[tokio::test]
async fn rows_that_move_to_a_partition_behind_the_cursor_are_reached() -> anyhow::Result<()> {
    for step in [
        "backfill: { table: t, set: { y: \"n * 2\" }, sync: none, batch: { size: 100, pause: 20ms } }",
        "delete: { table: t, where: \"n > 0\", batch: { size: 100, pause: 20ms } }",
    ] {
        let database = database(
            "CREATE TABLE t (k int, part int, n int, y int, PRIMARY KEY (k, part)) PARTITION BY LIST (part);
             CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (2);
             INSERT INTO t SELECT g, 1 + g / 3000, g FROM generate_series(1, 5999) g",
        )
        .await?;
        let set = set(step)?;
        let mut run = migrate(&database, &set).start("run")?;
        under_way(&database).await?;
        // From the end of the second partition to the beginning of the first.
        database
            .execute("UPDATE t SET part = 1, k = k - 9000 WHERE part = 2 AND k > 5500")
            .await?;
        ended_well(&mut run).await?;
        let left = "SELECT count(*) FILTER (WHERE y IS DISTINCT FROM n * 2) FROM t";
        assert_eq!(database.number(left).await?, 0, "{step}");
        assert!(
            database
                .number("SELECT max(pass)::bigint FROM confiture.shard")
                .await?
                > 1
        );
        is_sound(&database).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rows_that_move_to_a_block_behind_the_cursor_are_reached() -> anyhow::Result<()> {
    for step in [
        "backfill: { table: t, set: { y: \"n * 2\" }, where: \"y IS NULL\", sync: none, batch: { size: 100, pause: 20ms } }",
        "delete: { table: t, where: \"n > 0\", batch: { size: 100, pause: 20ms } }",
    ] {
        // The first blocks have room for rows that are updated.
        let database = database(
            "CREATE TABLE t (n int, y int, pad text) WITH (autovacuum_enabled = false);
             INSERT INTO t SELECT -g, 0, repeat('x', 200) FROM generate_series(1, 1000) g;
             INSERT INTO t SELECT g, NULL, repeat('x', 200) FROM generate_series(1, 6000) g; DELETE FROM t WHERE n < 0",
        )
        .await?;
        database.execute("VACUUM t").await?;
        let set = set(step)?;
        let mut run = migrate(&database, &set).start("run")?;
        under_way(&database).await?;
        database
            .execute("UPDATE t SET pad = 'moved' WHERE n > 5800")
            .await?;
        ended_well(&mut run).await?;
        let left = "SELECT count(*) FILTER (WHERE y IS DISTINCT FROM n * 2) FROM t";
        assert_eq!(database.number(left).await?, 0, "{step}");
        is_sound(&database).await?;
    }
    Ok(())
}

#[tokio::test]
async fn partitions_that_come_and_go_meanwhile_do_no_harm() -> anyhow::Result<()> {
    let database = database(
        "CREATE TABLE t (k int, part int, n int, y int, PRIMARY KEY (k, part)) PARTITION BY LIST (part);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (2);
         CREATE TABLE t_3 PARTITION OF t FOR VALUES IN (3);
         INSERT INTO t SELECT g, 1 + g / 2000, g FROM generate_series(1, 5999) g",
    )
    .await?;
    let set =
        set("backfill: { table: t, set: { y: \"n * 2\" }, sync: none, batch: { size: 100, pause: 20ms } }")?;
    let mut run = migrate(&database, &set).start("run")?;
    under_way(&database).await?;
    database
        .execute(
            "CREATE TABLE t_4 PARTITION OF t FOR VALUES IN (4); INSERT INTO t SELECT g, 4, g FROM generate_series(1, 500) g;
             DROP TABLE t_3; ALTER TABLE t_2 RENAME TO t_second",
        )
        .await?;
    ended_well(&mut run).await?;
    let right = "SELECT count(*) FROM t WHERE y = n * 2";
    assert_eq!(database.number(right).await?, 1999 + 2000 + 500);
    is_sound(&database).await
}

#[tokio::test]
async fn several_workers_share_a_table_and_split_what_is_left() -> anyhow::Result<()> {
    let database = database(
        "CREATE TABLE t (k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text);
         INSERT INTO t (pad) SELECT repeat('x', 400) FROM generate_series(1, 100000) g; ANALYZE t",
    )
    .await?;
    let set = set(
        "backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 5ms, target: 20ms, workers: 4, max_duty: 1 } }",
    )?;
    let mut run = migrate(&database, &set).start("run")?;
    under_way(&database).await?;
    database
        .execute("INSERT INTO t (pad) SELECT 'new' FROM generate_series(1, 1000)")
        .await?;
    ended_well(&mut run).await?;
    assert_eq!(
        database
            .number("SELECT count(*) FROM t WHERE n = CASE WHEN pad = 'new' THEN 0 ELSE 1 END")
            .await?,
        101_000
    );
    let shards = "SELECT count(*) FROM confiture.shard";
    assert!(database.number(shards).await? > 1);
    is_sound(&database).await
}
