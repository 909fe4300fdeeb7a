//! One database with a past: half-done migrations, edited files, missing and late versions, clones, older ledgers.

use serde_json::Value;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

const TABLE: &str =
    "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
                     INSERT INTO t (n) SELECT 0 FROM generate_series(1, 1000)";

/// Four steps, of which the third fails: half of the rows have no value.
const FOUR: &str = "
up:
  - add_column: { table: t, column: a, type: int }
  - backfill: { table: t, set: { a: n + 1 } }
  - assert: { query: 'SELECT count(*) = 0 FROM t', message: 'there are rows' }
  - set_not_null: { table: t, column: a }
";

async fn database() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(TABLE).await?;
    Ok(database)
}

fn confiture(words: &[&str], database: &Database, migrations: &Migrations) -> Confiture {
    Confiture::new(words)
        .arg("--migrations")
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
}

async fn up(database: &Database, migrations: &Migrations) -> anyhow::Result<Ended> {
    confiture(&["migrate", "up"], database, migrations).run().await
}

async fn down(database: &Database, migrations: &Migrations) -> anyhow::Result<Ended> {
    confiture(&["migrate", "down"], database, migrations).run().await
}

async fn ledger(words: &[&str], database: &Database) -> anyhow::Result<Ended> {
    let words: Vec<&str> = ["ledger"].iter().chain(words).copied().collect();
    Confiture::new(words)
        .env("DATABASE_URL", database.url())
        .run()
        .await
}

/// `version: state (done of steps)`, one for each version; what leads on.
async fn status(database: &Database, migrations: &Migrations) -> anyhow::Result<(Vec<String>, Value)> {
    let words = ["migrate", "status", "--output", "json"];
    let shown = confiture(&words, database, migrations).succeed().await?;
    let shown: Value = serde_json::from_str(&shown)?;
    let line = |m: &Value| {
        format!(
            "{}: {} ({} of {})",
            m["version"].as_str().unwrap_or_default(),
            m["state"].as_str().unwrap_or_default(),
            m["steps_done"],
            m["steps"]
        )
    };
    let lines = shown["migrations"]
        .as_array()
        .map(|all| all.iter().map(line).collect());
    // It repeats the flags; the folder has another name each time.
    let next = shown["next_command"].as_str().map(|next| {
        let (command, flags) = next.split_once(" --migrations ").unwrap_or((next, ""));
        assert_eq!(flags, migrations.path().display().to_string());
        command.to_owned()
    });
    Ok((lines.unwrap_or_default(), next.into()))
}

fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}\n{}", ended.stdout, ended.stderr);
    for word in words {
        assert!(
            ended.stderr.contains(word) || ended.stdout.contains(word),
            "no {word:?} in\n{}\n{}",
            ended.stdout,
            ended.stderr
        );
    }
}

async fn columns(database: &Database) -> anyhow::Result<String> {
    let query = "SELECT string_agg(attname || CASE WHEN attnotnull THEN '!' ELSE '' END, ' ' ORDER BY attnum)
                   FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attnum > 0 AND NOT attisdropped";
    let session = database.connect().await?;
    let row = session.query_one(query, &[]).await?;
    Ok(row.get(0))
}

async fn is_sound(database: &Database) -> anyhow::Result<()> {
    let verified = ledger(&["verify"], database).await?;
    assert_ended(&verified, 0, &["the ledger is as it must be"]);
    Ok(())
}

#[tokio::test]
async fn a_half_done_migration_is_corrected_and_finished_or_taken_back() -> anyhow::Result<()> {
    let database = database().await?;
    let set = Migrations::write(&[("001_four.yaml", FOUR)])?;
    assert_ended(&up(&database, &set).await?, 1, &["step 3 of 4", "there are rows"]);
    let (lines, next) = status(&database, &set).await?;
    assert_eq!(
        (lines, next),
        (
            vec!["001: applying (2 of 4)".to_owned()],
            "confiture migrate up".into()
        )
    );

    // A done step may not change, whatever is wanted.
    set.put("001_four.yaml", &FOUR.replace("n + 1", "n + 2"))?;
    let words = ["step 2", "was changed", "its checksum was", "- ", "+ ", "n + 2"];
    assert_ended(&up(&database, &set).await?, 3, &words);
    assert_ended(&down(&database, &set).await?, 3, &words);

    // One that has not begun may.
    set.put("001_four.yaml", &FOUR.replace("= 0", "> 0"))?;
    let planned = confiture(&["migrate", "up", "--dry-run"], &database, &set)
        .succeed()
        .await?;
    assert!(!planned.contains("add column"), "{planned}");
    assert_ended(&up(&database, &set).await?, 0, &["1 migration applied (2 steps"]);
    assert_eq!(columns(&database).await?, "id! n! a!");
    is_sound(&database).await
}

#[tokio::test]
async fn down_undoes_the_steps_of_a_half_done_migration_and_up_begins_anew() -> anyhow::Result<()> {
    let database = database().await?;
    // A down that was written is for the whole of a migration: half of one is not undone by it.
    let with_down = format!("{FOUR}down:\n  - sql: DROP TABLE t\n");
    let set = Migrations::write(&[
        ("001_four.yaml", &with_down),
        ("002_later.up.sql", "CREATE TABLE later ()"),
    ])?;
    assert_ended(&up(&database, &set).await?, 1, &["step 3 of 4"]);
    let done = down(&database, &set).await?;
    assert_ended(&done, 0, &["1 migration undone"]);
    assert_eq!(columns(&database).await?, "id! n!");
    let (lines, _) = status(&database, &set).await?;
    assert_eq!(lines, ["001: pending (0 of 4)", "002: pending (0 of 1)"]);
    is_sound(&database).await?;

    set.put("001_four.yaml", &FOUR.replace("= 0", "> 0"))?;
    assert_ended(&up(&database, &set).await?, 0, &["2 migrations applied"]);
    assert_eq!(columns(&database).await?, "id! n! a!");
    let runs = "SELECT count(*) FROM confiture.run WHERE version = (SELECT min(version) FROM confiture.run)";
    assert_eq!(database.number(runs).await?, 3);
    is_sound(&database).await
}

#[tokio::test]
async fn a_half_done_migration_with_a_step_that_cannot_be_undone_names_it() -> anyhow::Result<()> {
    let database = database().await?;
    let steps = "
up:
  - add_column: { table: t, column: a, type: int }
  - backfill: { table: t, set: { n: n + 1 } }
  - assert: { query: SELECT false }
";
    let set = Migrations::write(&[("001_count.yaml", steps)])?;
    assert_ended(&up(&database, &set).await?, 1, &["step 3 of 3"]);
    let words = [
        "step 2 (backfill \"n\" of \"t\") has no automatic undo",
        "confiture migrate up",
    ];
    assert_ended(&down(&database, &set).await?, 3, &words);
    assert_eq!(columns(&database).await?, "id! n! a");
    assert_eq!(database.number("SELECT count(*) FROM t WHERE n = 1").await?, 1000);
    Ok(())
}

#[tokio::test]
async fn an_undo_that_fails_half_way_is_finished_by_down_and_blocks_up() -> anyhow::Result<()> {
    let database = database().await?;
    let steps = "
up:
  - add_column: { table: t, column: a, type: int }
  - add_column: { table: t, column: b, type: int }
";
    let set = Migrations::write(&[("001_two.yaml", steps)])?;
    assert_ended(&up(&database, &set).await?, 0, &[]);
    // The second step of the undo fails: a view needs the column.
    database.execute("CREATE VIEW v AS SELECT a FROM t").await?;
    assert_ended(&down(&database, &set).await?, 1, &["step 2 of 2", "depend"]);
    let (lines, next) = status(&database, &set).await?;
    assert_eq!(
        (lines, next),
        (
            vec!["001: undoing (1 of 2)".to_owned()],
            "confiture migrate down".into()
        )
    );
    assert_ended(
        &up(&database, &set).await?,
        3,
        &["is being undone", "confiture migrate down"],
    );
    database.execute("DROP VIEW v").await?;
    assert_ended(&down(&database, &set).await?, 0, &["1 migration undone"]);
    assert_eq!(columns(&database).await?, "id! n!");
    assert_ended(&up(&database, &set).await?, 0, &["1 migration applied (2 steps"]);
    is_sound(&database).await
}

#[tokio::test]
async fn a_failed_set_not_null_leaves_no_check_behind() -> anyhow::Result<()> {
    let database = database().await?;
    let steps = "
up:
  - add_column: { table: t, column: a, type: int }
  - set_not_null: { table: t, column: a }
";
    let set = Migrations::write(&[("001_not_null.yaml", steps)])?;
    // VALIDATE fails: every row is NULL. The check that was added first would refuse the application's rows.
    let words = [
        "step 2 of 2",
        "is violated by some row",
        "the column takes NULL as before",
    ];
    assert_ended(&up(&database, &set).await?, 1, &words);
    let checks = "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'";
    assert_eq!(database.number(checks).await?, 0);
    database.execute("INSERT INTO t (a) VALUES (NULL)").await?;
    assert_ended(&down(&database, &set).await?, 0, &["1 migration undone"]);
    assert_eq!(columns(&database).await?, "id! n!");
    Ok(())
}

#[tokio::test]
async fn an_edited_applied_up_is_refused_and_shows_what_differs() -> anyhow::Result<()> {
    let database = database().await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a (x int);\n-- a comment\n")])?;
    assert_ended(&up(&database, &set).await?, 0, &[]);
    set.put(
        "001_a.up.sql",
        "CREATE TABLE a (\n  x int\n);\n-- another comment\n",
    )?;
    assert_ended(&up(&database, &set).await?, 0, &["nothing to do"]);
    set.put("001_a.up.sql", "CREATE TABLE a (x bigint);\n-- a comment\n")?;
    let words = [
        "migration 001 \"a\" was applied with checksum",
        "- CREATE TABLE a (x int);",
        "+ CREATE TABLE a (x bigint);",
        "make a new migration",
    ];
    assert_ended(&up(&database, &set).await?, 3, &words);
    let (_, next) = status(&database, &set).await?;
    assert_eq!(next, Value::Null);
    Ok(())
}

#[tokio::test]
async fn an_edited_down_is_allowed_and_told() -> anyhow::Result<()> {
    let database = database().await?;
    let set = Migrations::write(&[
        ("001_a.up.sql", "CREATE TABLE a (x int)"),
        ("001_a.down.sql", "DROP TABLE a"),
    ])?;
    assert_ended(&up(&database, &set).await?, 0, &[]);
    set.put("001_a.down.sql", "DROP TABLE a CASCADE")?;
    let shown = confiture(&["migrate", "status"], &database, &set)
        .succeed()
        .await?;
    assert!(shown.contains("down changed since"), "{shown}");
    let words = ["1 migration undone", "the way down of 001 was written or changed"];
    assert_ended(&down(&database, &set).await?, 0, &words);
    Ok(())
}

#[tokio::test]
async fn an_edited_migration_is_not_undone_by_steps_it_did_not_have() -> anyhow::Result<()> {
    let database = database().await?;
    let steps = |column: &str| format!("up:\n  - add_column: {{ table: t, column: {column}, type: int }}\n");
    let set = Migrations::write(&[("001_a.yaml", &steps("a"))])?;
    assert_ended(&up(&database, &set).await?, 0, &[]);
    set.put("001_a.yaml", &steps("n"))?;
    let words = ["cannot be undone by its steps", "column: a,", "column: n,"];
    assert_ended(&down(&database, &set).await?, 3, &words);
    assert_eq!(columns(&database).await?, "id! n! a");
    Ok(())
}

#[tokio::test]
async fn versions_missing_late_and_ahead_have_their_words() -> anyhow::Result<()> {
    let database = database().await?;
    let table = |n: u32| (format!("00{n}_t{n}.up.sql"), format!("CREATE TABLE t{n} ()"));
    let files: Vec<(String, String)> = [1, 2, 4, 5].map(table).to_vec();
    let write = |chosen: &[usize]| {
        let chosen: Vec<(&str, &str)> = chosen
            .iter()
            .map(|&i| (files[i].0.as_str(), files[i].1.as_str()))
            .collect();
        Migrations::write(&chosen)
    };
    assert_ended(
        &up(&database, &write(&[0, 1, 2, 3])?).await?,
        0,
        &["4 migrations applied"],
    );
    // An older application started: it is behind the database, and that is fine.
    let words = ["is ahead of these files: it has 004, 005 too", "nothing to do"];
    assert_ended(&up(&database, &write(&[0, 1])?).await?, 0, &words);
    assert_ended(
        &down(&database, &write(&[0, 1])?).await?,
        3,
        &["migration 005", "is newer than all of these files"],
    );
    // One in the middle vanished.
    let words = [
        "migration 002 \"t2\" was applied here and its file is missing",
        "confiture.script",
    ];
    assert_ended(&up(&database, &write(&[0, 2, 3])?).await?, 3, &words);
    // One came late.
    let late = write(&[0, 1, 2, 3])?;
    late.put("003_late.up.sql", "CREATE TABLE late ()")?;
    let words = [
        "migration 003 \"late\" is pending, but the newer 005 is applied",
        "--out-of-order",
    ];
    assert_ended(&up(&database, &late).await?, 3, &words);
    let out_of_order = confiture(&["migrate", "up", "--out-of-order"], &database, &late);
    assert_ended(&out_of_order.run().await?, 0, &["1 migration applied"]);
    // Two of one version.
    late.put("03_twin.up.sql", "CREATE TABLE twin ()")?;
    assert_ended(
        &up(&database, &late).await?,
        2,
        &["003_late.up.sql", "03_twin.up.sql"],
    );
    Ok(())
}

#[tokio::test]
async fn a_renamed_migration_is_the_same_and_twins_are_two() -> anyhow::Result<()> {
    let database = database().await?;
    let insert = "INSERT INTO t (n) VALUES (7)";
    let set = Migrations::write(&[("001_one.up.sql", insert), ("002_two.up.sql", insert)])?;
    assert_ended(&up(&database, &set).await?, 0, &["2 migrations applied"]);
    assert_eq!(database.number("SELECT count(*) FROM t WHERE n = 7").await?, 2);
    let renamed = Migrations::write(&[("001_uno.up.sql", insert), ("002_two.up.sql", insert)])?;
    assert_ended(&up(&database, &renamed).await?, 0, &["nothing to do"]);
    Ok(())
}

#[tokio::test]
async fn sets_have_versions_status_and_down_of_their_own() -> anyhow::Result<()> {
    let database = database().await?;
    let own = Migrations::write(&[
        ("001_own.up.sql", "CREATE TABLE own ()"),
        ("001_own.down.sql", "DROP TABLE own"),
    ])?;
    let audit = Migrations::write(&[
        ("confiture.set.yaml", "set: audit\n"),
        ("001_audit.up.sql", "CREATE TABLE audit ()"),
        ("001_audit.down.sql", "DROP TABLE audit"),
    ])?;
    assert_ended(&up(&database, &own).await?, 0, &["1 migration applied"]);
    assert_ended(&up(&database, &audit).await?, 0, &["1 migration applied"]);
    let shown = confiture(&["migrate", "status"], &database, &own)
        .succeed()
        .await?;
    assert!(
        shown.contains("own") && shown.contains("other sets here: audit (1 applied)"),
        "{shown}"
    );
    let shown = ledger(&["show"], &database).await?;
    assert_ended(&shown, 0, &["audit", "default"]);
    assert_ended(&down(&database, &own).await?, 0, &["1 migration undone"]);
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname IN ('own', 'audit')")
            .await?,
        1
    );
    let (lines, _) = status(&database, &audit).await?;
    assert_eq!(lines, ["001: applied (1 of 1)"]);
    is_sound(&database).await
}

#[tokio::test]
async fn a_clone_is_refused_until_it_is_accepted() -> anyhow::Result<()> {
    let original = database().await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    assert_ended(&up(&original, &set).await?, 0, &[]);
    assert_ended(
        &ledger(&["accept", "--reason", "x"], &original).await?,
        0,
        &["nothing to accept"],
    );

    let clone = Server::shared().await?.copy(&original).await?;
    set.put("002_b.up.sql", "CREATE TABLE b ()")?;
    for refused in [up(&clone, &set).await?, down(&clone, &set).await?] {
        assert_ended(&refused, 3, &["is a clone", "confiture ledger accept --reason"]);
    }
    let shown = ledger(&["show"], &clone).await?;
    assert_ended(&shown, 0, &["was:"]);
    assert_ended(
        &ledger(&["verify"], &clone).await?,
        1,
        &["the fence is that of this database"],
    );
    assert_ended(&ledger(&["accept"], &clone).await?, 2, &["--reason"]);
    assert_ended(
        &ledger(&["accept", "--reason", "  "], &clone).await?,
        2,
        &["--reason is empty"],
    );
    assert_ended(
        &ledger(&["accept", "--reason", "staging copy"], &clone).await?,
        0,
        &["accepted"],
    );
    assert_ended(
        &ledger(&["show"], &clone).await?,
        0,
        &["staging copy", "confiture ledger accept by"],
    );
    assert_ended(&up(&clone, &set).await?, 0, &["1 migration applied"]);
    assert_ended(&up(&original, &set).await?, 0, &["1 migration applied"]);
    is_sound(&clone).await
}

#[tokio::test]
async fn a_ledger_of_the_first_format_is_upgraded_by_the_next_run() -> anyhow::Result<()> {
    let database = database().await?;
    database.execute(shared::sql::ledger::CREATE).await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    let format = "SELECT format::bigint FROM confiture.ledger";
    // Reading changes nothing.
    let (lines, _) = status(&database, &set).await?;
    assert_eq!(lines, ["001: pending (0 of 1)"]);
    assert_ended(&ledger(&["show"], &database).await?, 0, &["format:   1"]);
    assert_eq!(database.number(format).await?, 1);
    assert_ended(&up(&database, &set).await?, 0, &["1 migration applied"]);
    assert_eq!(
        database.number(format).await?,
        i64::from(shared::sql::ledger::FORMAT)
    );
    is_sound(&database).await
}

#[tokio::test]
async fn a_newer_ledger_is_worked_on_where_it_allows_that_and_refused_untouched_where_not()
-> anyhow::Result<()> {
    let database = database().await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    assert_ended(&up(&database, &set).await?, 0, &[]);
    // The next minor version: it has added to the ledger what programs of ours can leave alone.
    database
        .execute(
            "ALTER TABLE confiture.run ADD COLUMN novelty text; CREATE TABLE confiture.novelty (a int);
             UPDATE confiture.ledger SET format = format + 1",
        )
        .await?;
    set.put("002_b.up.sql", "CREATE TABLE b ()")?;
    assert_ended(&up(&database, &set).await?, 0, &["1 migration applied"]);
    // One whose ledger ours would break.
    database
        .execute("UPDATE confiture.ledger SET works_with = format; ALTER TABLE confiture.run RENAME COLUMN by TO doer")
        .await?;
    set.put("003_c.up.sql", "CREATE TABLE c ()")?;
    let written = "SELECT count(*) FROM confiture.run WHERE doer <> ''";
    for words in [["migrate", "up"], ["migrate", "status"], ["migrate", "down"]] {
        let refused = confiture(&words, &database, &set).run().await?;
        assert_ended(
            &refused,
            3,
            &[
                "has format 4, and this program knows up to 3",
                "nothing was changed",
            ],
        );
    }
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 'c'";
    assert_eq!(database.number(tables).await?, 0);
    assert_eq!(database.number(written).await?, 2);
    Ok(())
}
