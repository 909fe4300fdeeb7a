//! What only some majors have. `make test-matrix` brings the servers and runs what is ignored here, each on the one it is for.

use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::Confiture;

/// A database of a server of the major that a test is for.
async fn database(major: i64) -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    let version = database.server_version().await?;
    assert_eq!(version / 10_000, major, "this is {version}");
    Ok(database)
}

fn migrate(command: &[&str], database: &Database, set: &Migrations) -> Confiture {
    Confiture::new(["migrate"].iter().chain(command))
        .arg("--migrations")
        .arg(set.path())
        .env("DATABASE_URL", database.url())
}

#[tokio::test]
#[ignore = "needs PostgreSQL 12: `make test-matrix` runs it"]
async fn on_12_it_is_refused_with_the_reason_and_left_as_it_was() -> anyhow::Result<()> {
    let database = database(12).await?;
    let set = Migrations::write(&[("1_a.up.sql", "CREATE TABLE made ()")])?;
    for command in [&["up"][..], &["up", "--dry-run"], &["down"], &["status"]] {
        let ended = migrate(command, &database, &set).run().await?;
        assert_eq!(ended.code, Some(3), "{command:?}: {}", ended.stderr);
        let reason = "the server has PostgreSQL 12; 13 or newer is needed";
        assert!(ended.stderr.contains(reason), "{command:?}: {}", ended.stderr);
    }
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'confiture'";
    assert_eq!(database.number(made).await?, 0);
    Ok(())
}

/// A key whose NOT NULL is not validated, and ten rows that have none.
const NOT_VALIDATED: &str = "
    CREATE TABLE t (k int UNIQUE, n int);
    INSERT INTO t (k) SELECT CASE WHEN g <= 50 THEN g END FROM generate_series(1, 60) g;
    ALTER TABLE t ADD CONSTRAINT k_is_there NOT NULL k NOT VALID";

#[tokio::test]
#[ignore = "needs PostgreSQL 18: `make test-matrix` runs it"]
async fn on_18_rows_that_a_not_null_has_not_met_are_not_passed_over() -> anyhow::Result<()> {
    let database = database(18).await?;
    database.execute(NOT_VALIDATED).await?;
    let set = Migrations::write(&[(
        "1_a.yaml",
        "up:\n  - backfill: { table: t, set: { n: 7 }, where: n IS NULL, batch: { size: 7 } }\n",
    )])?;
    // PostgreSQL lets nobody change them as they are.
    let refused = migrate(&["up"], &database, &set).run().await?;
    assert_eq!(refused.code, Some(1), "{}{}", refused.stdout, refused.stderr);
    let why = "violates not-null constraint";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    database.execute("DELETE FROM t WHERE k IS NULL").await?;
    migrate(&["up"], &database, &set).succeed().await?;
    let left = "SELECT count(*) FROM t WHERE n IS DISTINCT FROM 7";
    assert_eq!(database.number(left).await?, 0);
    Ok(())
}

#[tokio::test]
#[ignore = "needs PostgreSQL 18: `make test-matrix` runs it"]
async fn on_18_set_not_null_meets_the_rows_that_were_there_before() -> anyhow::Result<()> {
    let database = database(18).await?;
    database.execute(NOT_VALIDATED).await?;
    let set = Migrations::write(&[("1_a.yaml", "up:\n  - set_not_null: { table: t, column: k }\n")])?;
    let refused = migrate(&["up"], &database, &set).run().await?;
    assert_eq!(refused.code, Some(1), "{}{}", refused.stdout, refused.stderr);
    database.execute("DELETE FROM t WHERE k IS NULL").await?;
    migrate(&["up"], &database, &set).succeed().await?;
    let validated = "SELECT count(*) FROM pg_constraint WHERE conname = 'k_is_there' AND convalidated";
    assert_eq!(database.number(validated).await?, 1);
    Ok(())
}
