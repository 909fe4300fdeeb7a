//! Rows deleted in batches: exactly those that match, on any table with a key, whatever is killed.

use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::Confiture;

const STEP: &str = "up:\n  - delete: { table: t, where: \"n % 2 = 0\", batch: { size: 200, pause: 50ms } }\n";

fn migrate(words: &[&str], database: &Database, set: &Migrations) -> Confiture {
    let words = ["migrate"].iter().chain(words).chain(&["--migrations"]);
    Confiture::new(words)
        .arg(set.path())
        .env("DATABASE_URL", database.url())
}

async fn table(create: &str) -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(create).await?;
    database
        .execute("INSERT INTO t SELECT g, g FROM generate_series(1, 6000) g")
        .await?;
    Ok(database)
}

/// All odd ones are there, and no even one.
async fn exactly_the_matching_ones_are_gone(database: &Database) -> anyhow::Result<()> {
    let odd = "SELECT count(DISTINCT n) FROM t WHERE n % 2 = 1";
    assert_eq!(database.number(odd).await?, 3_000);
    assert_eq!(database.number("SELECT count(*) FROM t").await?, 3_000);
    Ok(())
}

#[tokio::test]
async fn exactly_the_matching_rows_go_although_the_run_is_killed() -> anyhow::Result<()> {
    let database = table("CREATE TABLE t (id bigint PRIMARY KEY, n int)").await?;
    let set = Migrations::write(&[("1_old.yaml", STEP)])?;
    let mut killed = migrate(&["up"], &database, &set).start("killed")?;
    eventually("some batches", Duration::from_secs(20), || async {
        Ok((database.number("SELECT count(*) FROM t").await? < 5_500).then_some(()))
    })
    .await?;
    killed.kill();
    let done = migrate(&["up", "--take-over"], &database, &set).succeed().await?;
    assert!(done.contains("1 migration applied"), "{done}");
    exactly_the_matching_ones_are_gone(&database).await?;
    let counted = "SELECT rows FROM confiture.step WHERE state = 'done'";
    assert_eq!(database.number(counted).await?, 3_000);

    let refused = migrate(&["down"], &database, &set).run().await?;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("the rows are gone"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn no_row_of_another_partition_goes() -> anyhow::Result<()> {
    let database = table(
        "CREATE TABLE t (id bigint, n int, PRIMARY KEY (id, n)) PARTITION BY HASH (n);
         CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER 0);
         CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER 1);
         CREATE TABLE t2 PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER 2)",
    )
    .await?;
    let set = Migrations::write(&[("1_old.yaml", STEP)])?;
    migrate(&["up"], &database, &set).succeed().await?;
    exactly_the_matching_ones_are_gone(&database).await
}

#[tokio::test]
async fn what_it_needs_is_said() -> anyhow::Result<()> {
    let database = table("CREATE TABLE t (id bigint, n int)").await?;
    for (step, code, words) in [
        ("delete: { table: t }", 2, "the key `where` is missing"),
        ("delete: { table: t, where: \"m = 1\" }", 2, "has no column \"m\""),
    ] {
        let set = Migrations::write(&[("1_old.yaml", &format!("up:\n  - {step}\n"))])?;
        let ended = migrate(&["up"], &database, &set).run().await?;
        assert_eq!(ended.code, Some(code), "{step}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{step}: {}", ended.stderr);
    }
    assert_eq!(database.number("SELECT count(*) FROM t").await?, 6_000);
    Ok(())
}
