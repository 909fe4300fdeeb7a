//! `reindex` on a real server: every index becomes another relation once, whatever breaks it off, and no copy stays.

use anyhow::ensure;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server, Session};
use tests::process::{Confiture, Ended};

const SOON: Duration = Duration::from_secs(30);

const ONE: &str = "up:\n  - reindex: { index: t_n }\n";

/// The indexes of `t` and of the partitions of `p` with their oids, and whether queries use them.
const INDEXES: &str = "SELECT c.relname::text, c.oid, i.indisvalid AND i.indisready AND i.indislive
   FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
  WHERE t.relname ~ '^[tp](_|$)' AND c.relkind = 'i' ORDER BY 1";

async fn database() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int, note text);
             INSERT INTO t SELECT g, g % 500, 'note ' || g FROM generate_series(1, 2000) g;
             CREATE INDEX t_n ON t (n);
             CREATE TABLE other (id int);
             CREATE TABLE p (id int, n int) PARTITION BY RANGE (id);
             CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY LIST (n);
             CREATE TABLE p_2_1 PARTITION OF p_2 DEFAULT;
             CREATE INDEX p_n ON p (n);
             CREATE INDEX p_1_alone ON p_1 (id);
             INSERT INTO p SELECT g, g FROM generate_series(0, 19) g",
        )
        .await?;
    Ok(database)
}

fn up(migrations: &Migrations, database: &Database) -> Confiture {
    Confiture::new(["migrate", "up", "--take-over", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
}

async fn migrate(database: &Database, steps: &str) -> anyhow::Result<Ended> {
    up(&Migrations::write(&[("1_a.yaml", steps)])?, database)
        .run()
        .await
}

fn expect(ended: &Ended, code: i32, words: &[&str]) -> anyhow::Result<()> {
    let said = [ended.stdout.as_str(), &ended.stderr].concat();
    ensure!(ended.code == Some(code), "{:?}: {said}", ended.code);
    for word in words {
        ensure!(said.contains(word), "`{word}` is not in: {said}");
    }
    Ok(())
}

async fn indexes(database: &Database) -> anyhow::Result<Vec<(String, u32)>> {
    let rows = database.connect().await?.query(INDEXES, &[]).await?;
    let mut indexes = Vec::new();
    for row in &rows {
        let name: String = row.get(0);
        ensure!(row.get::<_, bool>(2), "{name} is not valid");
        indexes.push((name, row.get(1)));
    }
    Ok(indexes)
}

/// The names of the indexes that became another relation; no index came or went.
fn rebuilt(before: &[(String, u32)], after: &[(String, u32)]) -> anyhow::Result<Vec<String>> {
    let names = |indexes: &[(String, u32)]| indexes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    ensure!(names(before) == names(after), "{before:?} became {after:?}");
    let pairs = before.iter().zip(after);
    Ok(pairs
        .filter(|(before, after)| before.1 != after.1)
        .map(|(before, _)| before.0.clone())
        .collect())
}

/// A session with an old snapshot, which a rebuild waits for.
async fn old_snapshot(database: &Database) -> anyhow::Result<Session> {
    let session = database.connect().await?;
    session
        .batch_execute("SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other")
        .await?;
    Ok(session)
}

async fn at_work(database: &Database, phase: &str, count: i64) -> anyhow::Result<()> {
    let query = format!(
        "SELECT count(*) FROM pg_stat_progress_create_index
          WHERE datname = current_database() AND command = 'REINDEX CONCURRENTLY' AND phase LIKE '{phase}'"
    );
    eventually("the phase of a rebuild", SOON, || async {
        Ok((database.number(&query).await? == count).then_some(()))
    })
    .await
}

/// Ends the backends that rebuild an index.
async fn end_all(database: &Database) -> anyhow::Result<()> {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_progress_create_index WHERE datname = current_database()";
    ensure!(database.number(end).await? == 1);
    at_work(database, "%", 0).await
}

async fn ledger_is_right(database: &Database) -> anyhow::Result<()> {
    Confiture::new(["ledger", "verify"])
        .env("DATABASE_URL", database.url())
        .succeed()
        .await
        .map(drop)
}

#[tokio::test]
async fn an_index_a_table_and_what_is_partitioned_are_rebuilt_and_nothing_else() -> anyhow::Result<()> {
    for (step, names) in [
        ("{ index: public.t_n }", &["t_n"][..]),
        ("{ table: t }", &["t_n", "t_pkey"]),
        ("{ index: p_n }", &["p_1_n_idx", "p_2_1_n_idx"]),
        ("{ table: p }", &["p_1_alone", "p_1_n_idx", "p_2_1_n_idx"]),
        ("{ table: other }", &[]),
    ] {
        let database = database().await?;
        let before = indexes(&database).await?;
        let set = Migrations::write(&[("1_a.yaml", &format!("up:\n  - reindex: {step}\n"))])?;
        expect(&up(&set, &database).run().await?, 0, &["1 migration applied"])?;
        let after = indexes(&database).await?;
        assert_eq!(rebuilt(&before, &after)?, names, "{step}");
        // It is taken back by doing nothing.
        let down = Confiture::new(["migrate", "down", "--migrations"]).arg(set.path());
        down.env("DATABASE_URL", database.url()).succeed().await?;
        assert_eq!(indexes(&database).await?, after, "{step}");
        ledger_is_right(&database).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rebuild_whose_process_was_killed_is_adopted_and_not_repeated() -> anyhow::Result<()> {
    let database = database().await?;
    let before = indexes(&database).await?;
    let set = Migrations::write(&[("1_a.yaml", ONE)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    at_work(&database, "waiting for old snapshots", 1).await?;
    let copy = database.number("SELECT 't_n_ccnew'::regclass::oid::int8").await?;
    killed.kill();
    let mut next = up(&set, &database).start("next")?;
    next.wait_for_line("it is adopted", SOON).await?;
    reader.batch_execute("COMMIT").await?;
    let status = next.wait(SOON).await?;
    assert!(status.success(), "{}", next.stderr());
    let after = indexes(&database).await?;
    assert_eq!(rebuilt(&before, &after)?, ["t_n"]);
    let built = database.number("SELECT 't_n'::regclass::oid::int8").await?;
    assert_eq!(built, copy, "it was rebuilt a second time");
    ledger_is_right(&database).await
}

#[tokio::test]
async fn what_a_killed_rebuild_left_is_dropped_and_what_others_left_stays() -> anyhow::Result<()> {
    let database = database().await?;
    // Somebody's own try, broken off before.
    let reader = old_snapshot(&database).await?;
    let own = database.connect().await?;
    let own = tokio::spawn(async move { own.batch_execute("REINDEX INDEX CONCURRENTLY t_n").await });
    at_work(&database, "waiting for old snapshots", 1).await?;
    end_all(&database).await?;
    own.await?.unwrap_err();
    let copies = "SELECT count(*) FROM pg_class WHERE relname LIKE 't\\_n\\_cc%'";
    assert_eq!(database.number(copies).await?, 1);
    let set = Migrations::write(&[("1_a.yaml", ONE)])?;
    let mut killed = up(&set, &database).start("killed")?;
    at_work(&database, "waiting for old snapshots", 1).await?;
    killed.kill();
    end_all(&database).await?;
    reader.batch_execute("COMMIT").await?;
    assert_eq!(database.number(copies).await?, 2);

    expect(&up(&set, &database).run().await?, 0, &["1 migration applied"])?;
    assert_eq!(database.number(copies).await?, 1, "that of the other stays");
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname = 't_n_ccnew'")
            .await?,
        1
    );
    ledger_is_right(&database).await
}

/// After the two have changed places, the old one waits for its last readers: the new one is there already.
#[tokio::test]
async fn a_rebuild_that_was_broken_off_at_its_end_is_not_begun_again() -> anyhow::Result<()> {
    let database = database().await?;
    let before = indexes(&database).await?;
    let set = Migrations::write(&[("1_a.yaml", ONE)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    at_work(&database, "waiting for old snapshots", 1).await?;
    // Who reads the table now is not waited for before the places are changed, but before the old one goes.
    let late = database.connect().await?;
    late.batch_execute("BEGIN; SELECT count(*) FROM t WHERE n = 1")
        .await?;
    reader.batch_execute("COMMIT").await?;
    at_work(&database, "waiting for readers%", 1).await?;
    let built = database.number("SELECT 't_n'::regclass::oid::int8").await?;
    killed.kill();
    end_all(&database).await?;
    late.batch_execute("COMMIT").await?;
    let old = "SELECT count(*) FROM pg_class WHERE relname = 't_n_ccold'";
    assert_eq!(database.number(old).await?, 1);

    expect(&up(&set, &database).run().await?, 0, &["1 migration applied"])?;
    assert_eq!(rebuilt(&before, &indexes(&database).await?)?, ["t_n"]);
    assert_eq!(database.number("SELECT 't_n'::regclass::oid::int8").await?, built);
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_rebuild_that_waits_too_long_is_given_up_and_leaves_nothing() -> anyhow::Result<()> {
    let database = database().await?;
    let before = indexes(&database).await?;
    let reader = old_snapshot(&database).await?;
    let set = Migrations::write(&[("1_a.yaml", "up:\n  - reindex: { table: t, wait: 2s }\n")])?;
    let ended = up(&set, &database).run().await?;
    expect(
        &ended,
        1,
        &[
            "rebuilding index \"public\".\"t_n\"",
            "application \"report\"",
            "nothing is left behind",
        ],
    )?;
    assert_eq!(indexes(&database).await?, before);
    reader.batch_execute("COMMIT").await?;
    expect(&up(&set, &database).run().await?, 0, &[])?;
    assert_eq!(rebuilt(&before, &indexes(&database).await?)?, ["t_n", "t_pkey"]);
    ledger_is_right(&database).await
}

#[tokio::test]
async fn what_cannot_be_rebuilt_is_refused_before_anything_is_begun() -> anyhow::Result<()> {
    let database = database().await?;
    database
        .execute("CREATE TABLE x (r int4range, EXCLUDE USING gist (r WITH &&)); CREATE INDEX x_r ON x (r); CREATE VIEW v AS SELECT 1")
        .await?;
    for (step, code, word) in [
        ("{ index: nowhere }", 2, "does not exist"),
        ("{ table: nowhere }", 2, "does not exist"),
        ("{ index: t }", 2, "is no index"),
        ("{ table: v }", 2, "is a view"),
        ("{ index: x_r_excl }", 3, "enforces an exclusion constraint"),
        ("{ table: x }", 3, "rebuild the other indexes"),
        ("{ index: pg_class_oid_index }", 3, "system catalogs"),
    ] {
        let ended = migrate(&database, &format!("up:\n  - reindex: {step}\n")).await?;
        expect(&ended, code, &[word])?;
        let begun = "SELECT count(*) FROM confiture.step";
        assert_eq!(database.number(begun).await?, 0, "{step}");
    }
    Ok(())
}

#[tokio::test]
async fn equal_keys_under_a_broken_unique_index_are_told_without_their_values() -> anyhow::Result<()> {
    let database = database().await?;
    let session = database.connect().await?;
    // An index that was built invalid: as good as one that a change of collations has broken.
    session
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY t_note ON t ((n % 3)) WHERE n < 100")
        .await
        .unwrap_err();
    let ended = migrate(&database, "up:\n  - reindex: { index: t_note }\n").await?;
    expect(
        &ended,
        1,
        &[
            "cannot be rebuilt",
            "HAVING count(*) > 1",
            "nothing is left behind",
        ],
    )?;
    let find = ended.stderr.split("find them with: ").nth(1).unwrap_or_default();
    let rows = session
        .simple_query(find.lines().next().unwrap_or_default())
        .await?;
    let rows = rows
        .iter()
        .filter(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 3);
    Ok(())
}
