//! Statements outside transactions, and those that change their session.

use crate::{Pooled, SOON, expect, server};
use anyhow::ensure;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::pgbouncer::{Options, PgBouncer};
use tests::process::{Build, Confiture};

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT g, g FROM generate_series(1, 500) g;
                     CREATE TABLE other (id int)";

const BUILD: &str = "up:\n  - create_index: { table: t, columns: [n], name: t_n }\n";

const LONG: Duration = Duration::from_mins(1);

/// Valid indexes by that name, and all that are not valid.
async fn indexes(pooled: &Pooled) -> anyhow::Result<(i64, i64)> {
    let count = |what| {
        format!("SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE {what}")
    };
    let valid = count("i.indisvalid AND c.relname = 't_n'");
    let broken = count("NOT i.indisvalid");
    Ok((
        pooled.database.number(&valid).await?,
        pooled.database.number(&broken).await?,
    ))
}

/// The role's sessions that begin from now on are cut off.
async fn cut_off(pooled: &Pooled) -> anyhow::Result<()> {
    let name = pooled.database.name();
    let admin = pooled.database.admin().await?;
    let limit = format!("ALTER ROLE confiture IN DATABASE {name} SET lock_timeout = '50ms'");
    Ok(admin.batch_execute(&limit).await?)
}

/// A call with settings that know the way past the pooler.
fn with_direct_url(pooled: &Pooled, words: &[&str], migrations: &Migrations) -> anyhow::Result<Confiture> {
    migrations.put("settings/confiture.yaml", &pooled.settings())?;
    Ok(Confiture::new(words)
        .build(Build::Faults)
        .arg("--migrations")
        .arg(migrations.path())
        .arg("--config")
        .arg(migrations.path().join("settings/confiture.yaml")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_not_built_where_it_would_be_cut_off_and_built_past_the_pooler() -> anyhow::Result<()> {
    let pooled = Pooled::with(TABLE).await?;
    cut_off(&pooled).await?;
    let migrations = Migrations::write(&[("1_it.yaml", BUILD)])?;
    let refused = pooled.migrate(&["up"], &migrations).run().await?;
    expect(&refused, 3, "direct_url")?;
    assert_eq!(indexes(&pooled).await?, (0, 0));
    let past = with_direct_url(&pooled, &["migrate", "up"], &migrations)?
        .run()
        .await?;
    expect(&past, 0, "1 migration applied")?;
    assert_eq!(indexes(&pooled).await?, (1, 0));
    pooled.nothing_left().await
}

/// A session with an old snapshot, which a concurrent build waits for in its last phase.
const OLD_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other";

async fn builds(pooled: &Pooled) -> anyhow::Result<i64> {
    let query = "SELECT count(*) FROM pg_stat_progress_create_index
                  WHERE datname = current_database() AND phase = 'waiting for old snapshots'";
    pooled.database.number(query).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_whose_run_was_killed_behind_the_pooler_is_adopted() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let pooled = Pooled::with(TABLE).await?;
    let neighbours = pooled.neighbours().await?;
    let migrations = Migrations::write(&[("1_it.yaml", BUILD)])?;
    let old = pooled.database.connect().await?;
    old.batch_execute(OLD_SNAPSHOT).await?;
    let up = pooled.migrate(&["up"], &migrations);
    let mut first = up.start("the first run")?;
    eventually("the build to wait", SOON, || async {
        Ok((builds(&pooled).await? == 1).then_some(()))
    })
    .await?;
    first.kill();
    let second = up.start("the second run")?;
    second.wait_for_line("it is adopted", LONG).await?;
    ensure!(builds(&pooled).await? == 1, "there is not the one build");
    old.batch_execute("COMMIT").await?;
    let mut second = second;
    let status = second.wait(LONG).await?;
    ensure!(status.success(), "{}", second.stderr());
    assert_eq!(indexes(&pooled).await?, (1, 0));
    neighbours.saw_nothing().await?;
    pooled.nothing_left().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_is_interrupted_ends_although_nobody_knows_its_session() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let pooled = Pooled::with(TABLE).await?;
    let direct = pooled.database.connect().await?;
    direct.batch_execute("INSERT INTO t VALUES (501, 1)").await?;
    let failed = direct
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY t_n ON t (n)")
        .await;
    ensure!(failed.is_err(), "the index is unique");
    direct.batch_execute("DELETE FROM t WHERE id = 501").await?;
    let neighbours = pooled.neighbours().await?;
    direct.batch_execute(OLD_SNAPSHOT).await?;
    let mut repair = pooled
        .call(&["index", "repair", "--yes"])
        .build(Build::Faults)
        .start("the repair")?;
    eventually("the repair to wait", SOON, || async {
        Ok((builds(&pooled).await? == 1).then_some(()))
    })
    .await?;
    repair.interrupt()?;
    let status = repair.wait(SOON).await?;
    ensure!(status.code() == Some(4), "{status}: {}", repair.stderr());
    neighbours.saw_nothing().await?;
    pooled.nothing_left().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_of_any_type_prepares_nothing() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let types = "CREATE TYPE state AS ENUM ('new'); CREATE DOMAIN answer AS boolean";
    for (query, code, word) in [
        ("SELECT true::answer", 0, "1 migration applied"),
        ("SELECT false::answer", 1, "does not hold: SELECT false::answer"),
        ("SELECT 'new'::state", 1, "must give a boolean"),
        ("SELECT true AS a, true AS a", 1, "one row with one boolean"),
        (
            "SELECT g > 0 FROM generate_series(1, 2) g",
            1,
            "one row with one boolean",
        ),
        ("SELECT nothing", 1, "column \"nothing\" does not exist"),
    ] {
        let pooled = Pooled::with(types).await?;
        let file = format!("up:\n  - assert: {{ query: \"{query}\" }}\n");
        let migrations = Migrations::write(&[("1_it.yaml", &file)])?;
        let ended = pooled.migrate(&["up"], &migrations).run().await?;
        expect(&ended, code, word)?;
        // They look at sessions that were lent to nobody else since.
        pooled.neighbours().await?.saw_nothing().await?;
    }
    Ok(())
}

/// A first migration, and one that sets something for the rest of its session.
const SETS: [(&str, &str); 2] = [
    ("1_first.up.sql", "CREATE TABLE first (id int);\n"),
    (
        "2_sets.up.sql",
        "SET search_path = public;\nSET lock_timeout = '7s';\nSELECT pg_advisory_lock(42);\nCREATE TABLE second (id int);\n",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_change_their_session_run_past_the_pooler_or_not_at_all() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let pooled = Pooled::empty().await?;
    let neighbours = pooled.neighbours().await?;
    let migrations = Migrations::write(&SETS)?;
    for words in [&["up"][..], &["up", "--dry-run"]] {
        let refused = pooled.migrate(words, &migrations).run().await?;
        expect(&refused, 3, "direct_url")?;
        expect(&refused, 3, "2_sets.up.sql")?;
    }
    // One that leaves out what we ask of a session of our own.
    let options = Options {
        ignored: "options",
        ..Options::default()
    };
    let other = PgBouncer::start(server().await?, options).await?;
    let url = other.url(server().await?, &pooled.database);
    let other_way = Pooled {
        database: pooled.database.clone(),
        url,
    };
    let refused = other_way.migrate(&["up"], &migrations).run().await?;
    expect(&refused, 3, "direct_url")?;
    let made = "SELECT count(*) FROM pg_tables WHERE tablename IN ('first', 'second', 'fence')";
    assert_eq!(pooled.database.number(made).await?, 0, "nothing was changed");
    let past = with_direct_url(&pooled, &["migrate", "up"], &migrations)?
        .run()
        .await?;
    expect(&past, 0, "2 migrations applied")?;
    neighbours.saw_nothing().await?;
    pooled.nothing_left().await
}

/// Dense rows that nobody else vacuums.
const DENSE: &str =
    "CREATE TABLE t (k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text)
                       WITH (autovacuum_enabled = off);
                     INSERT INTO t (pad) SELECT md5(g::text) FROM generate_series(1, 30000) g;
                     CREATE INDEX ON t (pad); CREATE INDEX ON t (n); ANALYZE t";

const VACUUMED: &str = "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 1000, target: 20ms, workers: 1, vacuum: true } }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vacuums_between_batches_run_past_the_pooler_only() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let vacuums = "SELECT vacuum_count::bigint FROM pg_stat_user_tables WHERE relname = 't'";
    let pooled = Pooled::with(DENSE).await?;
    let neighbours = pooled.neighbours().await?;
    let migrations = Migrations::write(&[("1_it.yaml", VACUUMED)])?;
    let without = pooled.migrate(&["up"], &migrations).run().await?;
    expect(
        &without,
        0,
        "so its settings would be those of others: set `direct_url`",
    )?;
    assert_eq!(pooled.database.number(vacuums).await?, 0);
    neighbours.saw_nothing().await?;

    let pooled = Pooled::with(DENSE).await?;
    let neighbours = pooled.neighbours().await?;
    let past = with_direct_url(&pooled, &["migrate", "up"], &migrations)?
        .run()
        .await?;
    expect(&past, 0, "1 migration applied")?;
    eventually("a vacuum to be counted", SOON, || async {
        Ok((pooled.database.number(vacuums).await? > 0).then_some(()))
    })
    .await?;
    neighbours.saw_nothing().await?;
    pooled.nothing_left().await
}
