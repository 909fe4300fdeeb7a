//! `confiture migrate` on one database, as a user runs it.

use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

const ORDERS: &str = "
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, total numeric NOT NULL, n int NOT NULL DEFAULT 0);
    INSERT INTO orders (total) SELECT i FROM generate_series(1, 20000) i;
    ANALYZE orders;";

const TAX: &str = "
name: order totals with tax
up:
  - add_column: { table: orders, column: total_with_tax, type: numeric }
  - backfill: { table: orders, set: { total_with_tax: 'total * 1.2' }, where: total_with_tax IS NULL, batch: { size: 3000 } }
  - set_not_null: { table: orders, column: total_with_tax }
  - assert: { query: SELECT count(*) = 20000 FROM orders WHERE total_with_tax = total * 1.2 }
";

/// `confiture migrate ARGS` with a folder and a database.
fn migrate(args: &[&str], migrations: &Migrations, database: &Database) -> Confiture {
    let folder = migrations.path().display().to_string();
    Confiture::new(["migrate"].iter().chain(args))
        .arg("--migrations")
        .arg(folder)
        .env("DATABASE_URL", database.url())
}

async fn orders() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(ORDERS).await?;
    Ok(database)
}

/// A message without what differs from run to run.
fn failed(ended: &Ended, code: i32) -> &str {
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    &ended.stderr
}

const COLUMNS: &str = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'total_with_tax' AND NOT attisdropped";
const LEDGERS: &str = "SELECT count(*) FROM pg_namespace WHERE nspname = 'confiture'";

#[tokio::test]
async fn up_applies_once_and_then_finds_nothing_to_do() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[
        ("001_tax.yaml", TAX),
        (
            "002_note.up.sql",
            "-- a note\nALTER TABLE orders ADD COLUMN note text;\n",
        ),
    ])?;

    let first = migrate(&["up"], &migrations, &database).succeed().await?;
    let second = migrate(&["up"], &migrations, &database).succeed().await?;

    assert!(
        first.contains("2 migrations applied (5 steps, 20000 rows changed by batches)"),
        "{first}"
    );
    assert!(second.contains("nothing to do"), "{second}");
    let wrong = "SELECT count(*) FROM orders WHERE total_with_tax IS DISTINCT FROM total * 1.2";
    assert_eq!(database.number(wrong).await?, 0);
    let nullable = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'total_with_tax' AND NOT attnotnull";
    assert_eq!(database.number(nullable).await?, 0);
    let checks = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'c'";
    assert_eq!(database.number(checks).await?, 0, "the helping check is gone");
    Ok(())
}

#[tokio::test]
async fn down_undoes_by_itself_and_up_applies_again() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[("001_tax.yaml", TAX)])?;

    for _ in 0..2 {
        migrate(&["up"], &migrations, &database).succeed().await?;
        assert_eq!(database.number(COLUMNS).await?, 1);
        migrate(&["down"], &migrations, &database).succeed().await?;
        assert_eq!(database.number(COLUMNS).await?, 0);
    }
    let nothing = migrate(&["down", "--steps", "3"], &migrations, &database)
        .succeed()
        .await?;
    assert!(nothing.contains("nothing to do"), "{nothing}");
    Ok(())
}

#[tokio::test]
async fn a_written_down_is_run_where_there_is_one() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[
        ("001_note.up.sql", "ALTER TABLE orders ADD COLUMN note text"),
        (
            "001_note.down.sql",
            "ALTER TABLE orders DROP COLUMN note; CREATE TABLE undone ()",
        ),
    ])?;
    migrate(&["up"], &migrations, &database).succeed().await?;
    migrate(&["down"], &migrations, &database).succeed().await?;
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname = 'undone'")
            .await?,
        1
    );
    Ok(())
}

/// Only who waits for a connection of a pooler is told so.
#[tokio::test]
async fn a_statement_that_takes_its_time_is_no_silent_server() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let migrations = Migrations::write(&[("001_slow.up.sql", "SELECT pg_sleep(6);\n")])?;
    let ended = migrate(&["up"], &migrations, &database).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("no answer"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_target_stops_before_the_rest() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[
        ("1_a.up.sql", "CREATE TABLE a ()"),
        ("2_b.up.sql", "CREATE TABLE b ()"),
        ("10_c.up.sql", "CREATE TABLE c ()"),
    ])?;
    migrate(&["up", "--target", "2"], &migrations, &database)
        .succeed()
        .await?;
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname IN ('a', 'b', 'c')")
            .await?,
        2
    );
    let no_such = migrate(&["up", "--target", "3"], &migrations, &database)
        .run()
        .await?;
    assert!(
        failed(&no_such, 2).contains("the set has no version 3"),
        "{}",
        no_such.stderr
    );
    Ok(())
}

#[tokio::test]
async fn a_dry_run_prints_every_statement_and_changes_nothing() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[("001_tax.yaml", TAX)])?;
    let plan = migrate(&["up", "--dry-run"], &migrations, &database)
        .succeed()
        .await?;
    for statement in [
        "ADD COLUMN \"total_with_tax\" numeric",
        "UPDATE ONLY \"public\".\"orders\" SET \"total_with_tax\" = (total * 1.2",
        "NOT VALID",
        "VALIDATE CONSTRAINT",
        "SET NOT NULL",
        "DROP CONSTRAINT",
        "SELECT count(*) = 20000",
    ] {
        assert!(plan.contains(statement), "{statement} is not in\n{plan}");
    }
    assert_eq!(
        database.number(COLUMNS).await? + database.number(LEDGERS).await?,
        0
    );
    Ok(())
}

#[tokio::test]
async fn status_says_what_is_done_and_what_comes_next() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[("001_tax.yaml", TAX), ("002_fails.up.sql", "SELECT 1 / 0")])?;
    failed(&migrate(&["up"], &migrations, &database).run().await?, 1);

    let status = migrate(&["status", "--output", "json"], &migrations, &database)
        .succeed()
        .await?;
    let status: Value = serde_json::from_str(&status)?;
    let lines = status["migrations"].as_array().cloned().unwrap_or_default();
    assert_eq!(
        (
            &lines[0]["state"],
            &lines[0]["steps_done"],
            &lines[0]["changed_rows"]
        ),
        (&"applied".into(), &4.into(), &20000.into())
    );
    assert_eq!(
        (&lines[1]["state"], &lines[1]["steps_done"]),
        (&"pending".into(), &0.into())
    );
    let next = format!(
        "confiture migrate up --migrations {}",
        migrations.path().display()
    );
    assert_eq!(status["next_command"], next);
    let text = migrate(&["status"], &migrations, &database).succeed().await?;
    assert!(
        text.contains("4 of 4") && text.contains("next: confiture migrate up"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_failing_file_leaves_nothing_behind_and_shows_the_place() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[(
        "001_two.up.sql",
        "CREATE TABLE left_behind ();\n\nALTER TABLE orders\n  ADD COLUMN x int REFERENCES nowhere;\n",
    )])?;
    let ended = migrate(&["up"], &migrations, &database).run().await?;
    let message = failed(&ended, 1);
    assert!(
        message.contains("relation \"nowhere\" does not exist"),
        "{message}"
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname = 'left_behind'")
            .await?,
        0
    );

    migrations.put("001_two.up.sql", "SELECT 1;\nSELECT nope FROM orders;\n")?;
    let ended = migrate(&["up"], &migrations, &database).run().await?;
    let message = failed(&ended, 1);
    assert!(
        message.contains("001_two.up.sql:2:8") && message.contains("column \"nope\" does not exist"),
        "{message}"
    );
    assert!(message.contains("SELECT nope FROM orders"), "{message}");

    // An error without a position: the statement that was at work is shown, and where it begins.
    migrations.put(
        "001_two.up.sql",
        "-- what for\nSELECT 1;\n\n  /* half */\n  SELECT 1 / (id - id) FROM orders;\nSELECT 2;\n",
    )?;
    let ended = migrate(&["up"], &migrations, &database).run().await?;
    let message = failed(&ended, 1);
    for words in [
        "division by zero",
        "001_two.up.sql:5:3",
        "in the statement: SELECT 1 / (id - id) FROM orders",
        "(sql: SELECT 1; SELECT 1 / (id - id) FROM orders; SELECT 2;",
    ] {
        assert!(message.contains(words), "no {words:?} in {message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_statement_whose_own_time_runs_out_is_not_tried_again() -> anyhow::Result<()> {
    let database = orders().await?;
    let slow = "-- confiture: statement_timeout=300ms\nSELECT pg_sleep(20);\n";
    let migrations = Migrations::write(&[("001_slow.up.sql", slow)])?;
    let ended = migrate(&["up"], &migrations, &database).run().await?;
    let message = failed(&ended, 1);
    assert!(
        message.contains("statement timeout") && message.contains("`statement_timeout`"),
        "{message}"
    );
    assert!(!message.contains("trying again"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_backend_that_is_ended_late_in_a_long_statement_is_replaced() -> anyhow::Result<()> {
    let database = orders().await?;
    // Longer than troubles are borne: patience counts from the first trouble, not from the start.
    let once = "DO $$ BEGIN PERFORM pg_sleep(CASE WHEN EXISTS (SELECT FROM orders WHERE id = 0) THEN 0 ELSE 75 END); END $$;\n";
    let migrations = Migrations::write(&[("001_long.up.sql", once)])?;
    let mut process = migrate(&["up"], &migrations, &database).start("up")?;
    tokio::time::sleep(Duration::from_secs(62)).await;
    database
        .execute("INSERT INTO orders (id, total) OVERRIDING SYSTEM VALUE VALUES (0, 1)")
        .await?;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/*confiture%pg_sleep%'";
    assert_eq!(database.admin().await?.number(end).await?, 1);
    let status = process.wait(Duration::from_secs(30)).await?;
    assert!(status.success(), "{}", process.stderr());
    Ok(())
}

#[tokio::test]
async fn an_assertion_that_does_not_hold_stops_the_migration() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[(
        "001_check.yaml",
        "up:\n  - assert: { query: SELECT count(*) = 0 FROM orders, message: the table must be empty }\n  - sql: CREATE TABLE after ()\n",
    )])?;
    let ended = migrate(&["up"], &migrations, &database).run().await?;
    assert!(
        failed(&ended, 1).contains("the table must be empty"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname = 'after'")
            .await?,
        0
    );
    Ok(())
}

#[tokio::test]
async fn a_non_idempotent_backfill_needs_a_key_that_grows_or_a_word() -> anyhow::Result<()> {
    let database = orders().await?;
    database.execute("CREATE TABLE named (name text PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO named SELECT 'x' || i FROM generate_series(1, 3000) i").await?;
    let step = |more: &str| format!("up:\n  - backfill: {{ table: named, set: {{ n: n + 1 }}{more} }}\n");
    let migrations = Migrations::write(&[("001_count.yaml", step("").as_str())])?;
    let refused = migrate(&["up"], &migrations, &database).run().await?;
    assert!(
        failed(&refused, 3).contains("new_rows: either"),
        "{}",
        refused.stderr
    );
    assert_eq!(database.number("SELECT sum(n) FROM named").await?, 0);

    migrations.put(
        "001_count.yaml",
        &step(", new_rows: either, batch: { size: 100 }"),
    )?;
    migrate(&["up"], &migrations, &database).succeed().await?;
    assert_eq!(
        database.number("SELECT count(*) FROM named WHERE n = 1").await?,
        3000
    );

    let grows = Migrations::write(&[
        ("confiture.set.yaml", "set: other\n"),
        (
            "001_count.yaml",
            "up:\n  - backfill: { table: orders, set: { n: n + 1 } }\n",
        ),
    ])?;
    migrate(&["up"], &grows, &database).succeed().await?;
    assert_eq!(
        database.number("SELECT count(*) FROM orders WHERE n = 1").await?,
        20000
    );
    Ok(())
}

#[tokio::test]
async fn every_ordered_key_type_carries_a_cursor() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let types = [
        ("int_key", "int", "i"),
        ("uuid_key", "uuid", "md5(i::text)::uuid"),
        ("text_key", "text COLLATE \"C\"", "'k' || md5(i::text)"),
        ("word_key", "text", "'ä \"'' ' || md5(i::text)"),
        ("varchar_key", "varchar(40)", "md5(i::text)"),
        (
            "time_key",
            "timestamptz",
            "timestamptz '2020-02-29 12:00+02' + i * interval '1.000007 s'",
        ),
        ("date_key", "date", "date '1990-01-01' + i"),
        ("numeric_key", "numeric", "i::numeric / 7"),
        ("bytea_key", "bytea", "decode(md5(i::text), 'hex')"),
        ("interval_key", "interval", "i * interval '1 hour'"),
    ];
    let mut steps = String::from("up:\n");
    for (table, data_type, value) in types {
        database
            .execute(&format!(
                "CREATE TABLE {table} (k {data_type} PRIMARY KEY, n int NOT NULL DEFAULT 0);
                 INSERT INTO {table} SELECT {value} FROM generate_series(1, 1000) i"
            ))
            .await?;
        writeln!(
            steps,
            "  - backfill: {{ table: {table}, set: {{ n: n + 1 }}, new_rows: either, batch: {{ size: 70 }} }}"
        )?;
    }
    database
        .execute(
            "CREATE SCHEMA \"Own Schema\";
             CREATE TABLE \"Own Schema\".\"Mixed\" (\"Part One\" text, b bigint, \"order\" date, n int NOT NULL DEFAULT 0, PRIMARY KEY (\"order\", \"Part One\", b));
             INSERT INTO \"Own Schema\".\"Mixed\" SELECT 'p' || i % 7, i, date '2020-01-01' + i % 13 FROM generate_series(1, 1000) i",
        )
        .await?;
    steps += "  - backfill: { table: 'Own Schema.\"Mixed\"', set: { n: n + 1 }, new_rows: either, batch: { size: 70 } }\n";
    let migrations = Migrations::write(&[("001_keys.yaml", steps.as_str())])?;

    migrate(&["up"], &migrations, &database).succeed().await?;

    for table in types
        .iter()
        .map(|(table, _, _)| *table)
        .chain(["\"Own Schema\".\"Mixed\""])
    {
        let wrong = format!("SELECT count(*) FROM {table} WHERE n <> 1");
        assert_eq!(database.number(&wrong).await?, 0, "{table}");
    }
    Ok(())
}

#[tokio::test]
async fn a_concurrent_index_is_built_outside_and_verified() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[(
        "001_index.up.sql",
        "-- confiture: transaction=off\nCREATE INDEX CONCURRENTLY orders_total ON orders (total);\nANALYZE orders;\n",
    )])?;
    migrate(&["up"], &migrations, &database).succeed().await?;
    let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = 'orders_total'::regclass AND indisvalid";
    assert_eq!(database.number(valid).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_lock_that_is_not_had_in_time_names_its_holder() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[("001_tax.yaml", TAX)])?;
    let holder = database.connect().await?;
    holder
        .batch_execute("BEGIN; LOCK TABLE orders IN SHARE MODE")
        .await?;
    let ended = migrate(&["up", "--lock-timeout", "700"], &migrations, &database)
        .run()
        .await?;
    let message = failed(&ended, 1);
    assert!(
        message.contains("no lock within 700 ms: held by pid") && message.contains("LOCK TABLE orders"),
        "{message}"
    );
    // For a SQL file too, of which no table is known.
    let file = Migrations::write(&[("001_tax.up.sql", "ALTER TABLE orders ADD COLUMN x int")])?;
    let ended = migrate(&["up", "--lock-timeout", "700"], &file, &database)
        .run()
        .await?;
    assert!(
        failed(&ended, 1).contains("LOCK TABLE orders"),
        "{}",
        ended.stderr
    );
    let ended = migrate(&["up", "--lock-timeout", "0"], &file, &database)
        .run()
        .await?;
    assert!(failed(&ended, 2).contains("more than zero"), "{}", ended.stderr);
    holder.batch_execute("ROLLBACK").await?;
    migrate(&["up"], &migrations, &database).succeed().await?;
    Ok(())
}

#[tokio::test]
async fn settings_of_a_session_do_not_reach_the_next_step() -> anyhow::Result<()> {
    let database = orders().await?;
    let migrations = Migrations::write(&[
        (
            "001_dump.up.sql",
            "SET search_path = pg_catalog;\nSELECT pg_catalog.set_config('work_mem', '1MB', false);\nCREATE TABLE public.a ();\n",
        ),
        (
            "002_next.up.sql",
            "CREATE TABLE b ();\nDO $$ BEGIN IF current_setting('work_mem') = '1MB' THEN RAISE 'leaked'; END IF; END $$;\n",
        ),
    ])?;
    migrate(&["up"], &migrations, &database).succeed().await?;
    let public =
        "SELECT count(*) FROM pg_class WHERE relname = 'b' AND relnamespace = 'public'::regnamespace";
    assert_eq!(database.number(public).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_role_called_as_the_ledger_does_not_create_its_tables_there() -> anyhow::Result<()> {
    let database = orders().await?;
    let role = "SELECT (current_user = 'confiture')::int::bigint";
    assert_eq!(
        database.number(role).await?,
        1,
        "the tests' role is the one this is about"
    );
    // `run` and `step` are tables of the ledger too.
    database
        .execute("CREATE TABLE run (id int PRIMARY KEY, n int); INSERT INTO run VALUES (1, 0)")
        .await?;
    let migrations = Migrations::write(&[
        ("001_step.up.sql", "CREATE TABLE step ()"),
        (
            "002_run.yaml",
            "up:\n  - backfill: { table: run, set: { n: id } }\n",
        ),
    ])?;
    migrate(&["up"], &migrations, &database).succeed().await?;
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE oid = to_regclass('public.step')")
            .await?,
        1
    );
    assert_eq!(database.number("SELECT n::bigint FROM public.run").await?, 1);
    Ok(())
}
