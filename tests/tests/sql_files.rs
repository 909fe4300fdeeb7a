//! SQL files of every sort on a real server: hidden COMMITs, dumps, statements that no transaction takes.

use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

async fn database() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT g, g % 7 FROM generate_series(1, 500) g")
        .await?;
    Ok(database)
}

async fn up(database: &Database, files: &[(&str, &str)]) -> anyhow::Result<Ended> {
    let migrations = Migrations::write(files)?;
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
        .run()
        .await
}

fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}\n{}", ended.stdout, ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_commit_that_nobody_read_is_noticed() -> anyhow::Result<()> {
    let database = database().await?;
    let file = "-- confiture: parse=off\nCREATE TABLE a ();\nCOMMIT;\nCREATE TABLE b ();\n";
    let ended = up(&database, &[("1_a.up.sql", file)]).await?;
    assert_ended(
        &ended,
        1,
        &["the statements ended the transaction they run in", "take COMMIT"],
    );
    Ok(())
}

#[tokio::test]
async fn what_the_parser_cannot_read_runs_unread_in_one_transaction() -> anyhow::Result<()> {
    let database = database().await?;
    let body = "CREATE TABLE a ();\nCREATE TABLE left_behind ();\nSELECT 1 / 0;\n";
    let ended = up(
        &database,
        &[("1_a.up.sql", &format!("-- confiture: parse=off\n{body}"))],
    )
    .await?;
    assert_ended(&ended, 1, &["division by zero"]);
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('a', 'left_behind')";
    assert_eq!(database.number(tables).await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_head_of_a_dump_is_taken_and_leaves_nothing_in_the_next_step() -> anyhow::Result<()> {
    let database = database().await?;
    let dump = "SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;

CREATE TABLE public.dumped (
    id integer NOT NULL,
    note text DEFAULT 'a;b'::text
);
ALTER TABLE ONLY public.dumped ADD CONSTRAINT dumped_pkey PRIMARY KEY (id);
";
    let ended = up(
        &database,
        &[("1_dump.up.sql", dump), ("2_next.up.sql", "CREATE TABLE next ()")],
    )
    .await?;
    assert_ended(&ended, 0, &[]);
    let public = "SELECT count(*) FROM pg_class WHERE relname IN ('dumped', 'next') AND relnamespace = 'public'::regnamespace";
    assert_eq!(database.number(public).await?, 2);
    Ok(())
}

#[tokio::test]
async fn with_transaction_off_each_statement_is_a_step_that_is_gone_on_from() -> anyhow::Result<()> {
    let database = database().await?;
    let file = |third: &str| {
        format!(
            "-- confiture: transaction=off\nALTER TABLE t ADD COLUMN a int;\nCREATE INDEX CONCURRENTLY t_n ON t (n);\n{third};\nVACUUM t;\n"
        )
    };
    let ended = up(&database, &[("1_a.up.sql", &file("SELECT 1 / 0"))]).await?;
    assert_ended(&ended, 1, &["step 3 of 4", "division by zero", "1_a.up.sql:4:1"]);
    let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('t_n') AND indisvalid";
    assert_eq!(database.number(valid).await?, 1);
    let ended = up(&database, &[("1_a.up.sql", &file("SELECT 1"))]).await?;
    assert_ended(&ended, 0, &[]);
    assert!(
        ended.stdout.contains("1 migration applied (2 steps"),
        "{}",
        ended.stdout
    );
    let done = "SELECT count(*) FROM confiture.step WHERE state = 'done'";
    assert_eq!(database.number(done).await?, 4);
    Ok(())
}

/// The same states as of the steps in YAML: a file may be run over what is there, and is told what is something else.
#[tokio::test]
async fn statements_about_indexes_go_the_way_of_the_steps() -> anyhow::Result<()> {
    let database = database().await?;
    database
        .execute(
            "CREATE TABLE p (id int, n int) PARTITION BY LIST (n); CREATE TABLE p_1 PARTITION OF p DEFAULT;
             CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE INDEX there ON t (n); CREATE INDEX old ON t (n)",
        )
        .await?;
    let file = "-- confiture: transaction=off
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS fresh ON t USING btree (id DESC NULLS LAST, (n + 1) int4_ops) INCLUDE (n)
  WITH (fillfactor = 70) WHERE n > 5 -- some
  ;
CREATE INDEX CONCURRENTLY there ON public.t (n);
CREATE INDEX CONCURRENTLY p_n ON p (n);
CREATE INDEX CONCURRENTLY m_a ON m (a);
DROP INDEX CONCURRENTLY old;
DROP INDEX CONCURRENTLY IF EXISTS nowhere;
REINDEX INDEX CONCURRENTLY there;
REINDEX TABLE CONCURRENTLY t;
REINDEX TABLE CONCURRENTLY m;
";
    let ended = up(&database, &[("1_a.up.sql", file)]).await?;
    assert_ended(&ended, 0, &[]);
    assert!(
        ended.stdout.contains("1 migration applied (9 steps"),
        "{}",
        ended.stdout
    );
    let there = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                  WHERE c.relname IN ('fresh', 'there', 'p_n', 'p_n_p_1', 'm_a', 'old') AND i.indisvalid";
    assert_eq!(database.number(there).await?, 5);
    let row = database
        .connect()
        .await?
        .query_one("SELECT pg_get_indexdef('fresh'::regclass)", &[])
        .await?;
    assert_eq!(
        row.get::<_, &str>(0),
        "CREATE UNIQUE INDEX fresh ON public.t USING btree (id DESC NULLS LAST, ((n + 1))) INCLUDE (n) WITH (fillfactor='70') WHERE (n > 5)"
    );
    for (number, statement, code, word) in [
        (
            2,
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS there ON t (n DESC)",
            3,
            "with another definition",
        ),
        (
            3,
            "CREATE INDEX CONCURRENTLY only_p ON ONLY p (id)",
            3,
            "remove ONLY",
        ),
        (4, "DROP INDEX CONCURRENTLY nowhere", 2, "does not exist"),
        (
            5,
            "CREATE UNIQUE INDEX CONCURRENTLY twice ON t ((n % 2))",
            1,
            "find them with",
        ),
    ] {
        let files = [
            ("1_a.up.sql".to_owned(), file.to_owned()),
            (
                format!("{number}_a.up.sql"),
                format!("-- confiture: transaction=off\n{statement};\n"),
            ),
        ];
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_ended(&up(&database, &files).await?, code, &[word]);
    }
    let left = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(database.number(left).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_statement_without_a_transaction_whose_outcome_nobody_could_know_is_refused() -> anyhow::Result<()>
{
    let database = database().await?;
    for statement in ["CREATE DATABASE other", "DROP DATABASE other"] {
        let file = format!("-- confiture: transaction=off\n{statement};\n");
        let ended = up(&database, &[("1_a.up.sql", &file)]).await?;
        assert_ended(&ended, 2, &["1_a.up.sql:2:1"]);
    }
    Ok(())
}

#[tokio::test]
async fn files_from_other_systems_are_read() -> anyhow::Result<()> {
    let database = database().await?;
    let files = [
        (
            "1_windows.up.sql",
            "CREATE TABLE w (\r\n  a int\r\n);\r\n-- end\r\n",
        ),
        ("2_marked.up.sql", "\u{feff}CREATE TABLE m ();\n"),
        ("3_marked.yaml", "\u{feff}up:\r\n  - sql: CREATE TABLE y ()\r\n"),
    ];
    assert_ended(&up(&database, &files).await?, 0, &[]);
    // The same file with the line ends of another system is the same migration.
    let unix = [
        ("1_windows.up.sql", "CREATE TABLE w (\n  a int\n);\n-- end\n"),
        ("2_marked.up.sql", "CREATE TABLE m ();\n"),
        ("3_marked.yaml", "up:\n  - sql: CREATE TABLE y ()\n"),
    ];
    let ended = up(&database, &unix).await?;
    assert_ended(&ended, 0, &[]);
    assert!(ended.stdout.contains("nothing to do"), "{}", ended.stdout);
    Ok(())
}
