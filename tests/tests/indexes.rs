//! Indexes built and dropped on real servers: what is left by processes that die, by builds that are cut off and by other
//! people is found, and ends in one valid index under the right name.

use anyhow::ensure;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server, Session};
use tests::process::{Confiture, Ended};

const SOON: Duration = Duration::from_secs(30);

/// What other steps of a build are waited for.
const BUILD: &str = "up:\n  - create_index: { table: t, columns: [n], name: t_n }\n";

async fn table() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int, note text);
             INSERT INTO t SELECT g, g % 500, 'secret ' || g FROM generate_series(1, 2000) g;
             CREATE TABLE other (id int)",
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

fn expect(ended: &Ended, code: i32) -> anyhow::Result<()> {
    ensure!(
        ended.code == Some(code),
        "{:?}: {}{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    Ok(())
}

/// The indexes of a table beside its primary key, in order of their names, each with a mark where it is not valid.
async fn indexes(database: &Database, table: &str) -> anyhow::Result<Vec<String>> {
    let query = format!(
        "SELECT c.relname || CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN '' ELSE ' (invalid)' END
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE i.indrelid = '{table}'::regclass AND NOT i.indisprimary ORDER BY 1"
    );
    let rows = database.connect().await?.query(&query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A session with an old snapshot, which a concurrent build waits for in its last phase.
async fn old_snapshot(database: &Database) -> anyhow::Result<Session> {
    let session = database.connect().await?;
    session
        .batch_execute("SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other")
        .await?;
    Ok(session)
}

/// Waits until a build has come to the phase in which it waits for old snapshots.
async fn waits_for_snapshots(database: &Database) -> anyhow::Result<()> {
    let query = "SELECT count(*) FROM pg_stat_progress_create_index
                  WHERE datname = current_database() AND phase = 'waiting for old snapshots'";
    eventually("a build that waits for old snapshots", SOON, || async {
        Ok((database.number(query).await? > 0).then_some(()))
    })
    .await
}

async fn ledger_is_right(database: &Database) -> anyhow::Result<()> {
    Confiture::new(["ledger", "verify"])
        .env("DATABASE_URL", database.url())
        .succeed()
        .await
        .map(drop)
}

#[tokio::test]
async fn an_index_of_every_kind_is_built_dropped_and_built_again() -> anyhow::Result<()> {
    let database = table().await?;
    let steps = "up:
  - create_index: { table: t, columns: [n, { column: id, order: desc, nulls: last }], name: plain, include: [note] }
  - create_index: { table: public.t, columns: [{ expression: lower(note), collation: '\"C\"', opclass: text_pattern_ops }], name: Of Words, where: n > 5 }
  - create_index: { table: t, columns: [id, n], name: pairs, unique: true, with: { fillfactor: 70 } }
  - create_index: { table: t, columns: [note], name: hashed, method: hash }
";
    let set = Migrations::write(&[("1_a.yaml", steps)])?;
    let all = ["Of Words", "hashed", "pairs", "plain"];
    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, all);
    let session = database.connect().await?;
    let row = session
        .query_one("SELECT pg_get_indexdef('\"Of Words\"'::regclass)", &[])
        .await?;
    assert_eq!(
        row.get::<_, &str>(0),
        "CREATE INDEX \"Of Words\" ON public.t USING btree (lower(note) COLLATE \"C\" text_pattern_ops) WHERE (n > 5)"
    );

    let down = Confiture::new(["migrate", "down", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    down.succeed().await?;
    assert_eq!(indexes(&database, "t").await?, Vec::<String>::new());
    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, all);
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_build_whose_process_was_killed_is_adopted() -> anyhow::Result<()> {
    let database = table().await?;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    let oid = "SELECT indexrelid::int8 FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisprimary";
    let built = database.number(oid).await?;
    killed.kill();

    let mut next = up(&set, &database).start("next")?;
    next.wait_for_line("it is adopted", SOON).await?;
    reader.batch_execute("COMMIT").await?;
    let status = next.wait(SOON).await?;
    assert!(status.success(), "{}", next.stderr());
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    assert_eq!(
        database.number(oid).await?,
        built,
        "it was not built a second time"
    );
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_dead_build_does_not_look_like_a_living_holder() -> anyhow::Result<()> {
    let database = table().await?;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    killed.kill();

    // Without --take-over: the holder is waited for until it has not renewed for a while, and no longer.
    let mut next = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .start("next")?;
    next.wait_for_line("it is adopted", SOON).await?;
    reader.batch_execute("COMMIT").await?;
    let status = next.wait(SOON).await?;
    assert!(status.success(), "{}", next.stderr());
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    Ok(())
}

#[tokio::test]
async fn what_a_killed_build_left_invalid_is_dropped_and_built_again() -> anyhow::Result<()> {
    let database = table().await?;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    killed.kill();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_progress_create_index WHERE datname = current_database()";
    assert_eq!(database.number(end).await?, 1);
    reader.batch_execute("COMMIT").await?;
    eventually("the end of the backend", SOON, || async {
        let left = database
            .number("SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database()");
        Ok((left.await? == 0).then_some(()))
    })
    .await?;
    let left = indexes(&database, "t").await?;
    assert!(
        matches!(left.as_slice(), [one] if one.starts_with("confiture_b_") && one.ends_with("(invalid)")),
        "{left:?}"
    );

    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    ledger_is_right(&database).await
}

/// Neither a build nor its name waits for who has only read the table.
#[tokio::test]
async fn a_reader_that_stays_idle_in_its_transaction_is_not_waited_for() -> anyhow::Result<()> {
    let database = table().await?;
    let reader = database.connect().await?;
    reader.batch_execute("BEGIN; SELECT count(*) FROM t").await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    let built = up(&set, &database)
        .arg("--lock-timeout")
        .arg("3000")
        .run()
        .await?;
    expect(&built, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    reader.batch_execute("COMMIT").await?;
    Ok(())
}

#[tokio::test]
async fn a_build_that_waits_too_long_is_given_up_and_names_the_session() -> anyhow::Result<()> {
    let database = table().await?;
    let steps = "up:\n  - create_index: { table: t, columns: [n], name: t_n, wait: 2s }\n";
    let set = Migrations::write(&[("1_a.yaml", steps)])?;
    let reader = old_snapshot(&database).await?;
    let ended = up(&set, &database).run().await?;
    expect(&ended, 1)?;
    for part in [
        "application \"report\"",
        "pid ",
        "transaction open for",
        "SELECT count(*) FROM other",
        "nothing is left behind",
        "`wait`",
    ] {
        assert!(ended.stderr.contains(part), "{part} is not in {}", ended.stderr);
    }
    assert_eq!(indexes(&database, "t").await?, Vec::<String>::new());

    reader.batch_execute("COMMIT").await?;
    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    Ok(())
}

#[tokio::test]
async fn limits_of_the_role_do_not_break_a_build_off() -> anyhow::Result<()> {
    let database = table().await?;
    let name = database.name();
    database
        .execute(&format!(
            "ALTER DATABASE \"{name}\" SET lock_timeout = '300ms'; ALTER DATABASE \"{name}\" SET statement_timeout = '1s'"
        ))
        .await?;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    let reader = old_snapshot(&database).await?;
    let mut process = up(&set, &database).start("up")?;
    waits_for_snapshots(&database).await?;
    // Longer than both limits.
    tokio::time::sleep(Duration::from_secs(2)).await;
    reader.batch_execute("COMMIT").await?;
    let status = process.wait(SOON).await?;
    assert!(status.success(), "{}", process.stderr());
    assert!(!process.stderr().contains("trying again"), "{}", process.stderr());
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    Ok(())
}

#[tokio::test]
async fn an_index_of_the_same_name_counts_only_when_it_is_the_same_and_valid() -> anyhow::Result<()> {
    let database = table().await?;
    database.execute("CREATE INDEX t_n ON t (n)").await?;
    expect(&migrate(&database, BUILD).await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);

    let database = table().await?;
    database.execute("CREATE INDEX t_n ON t (n, id)").await?;
    let ended = migrate(&database, BUILD).await?;
    expect(&ended, 3)?;
    for part in [
        "is:     CREATE INDEX t_n ON public.t USING btree (n, id)",
        "wanted: CREATE INDEX \"t_n\" ON \"public\".\"t\" USING btree (n)",
        "`drop_index`",
    ] {
        assert!(ended.stderr.contains(part), "{part} is not in {}", ended.stderr);
    }

    let database = table().await?;
    let reader = old_snapshot(&database).await?;
    let theirs = database.connect().await?;
    theirs.batch_execute("SET lock_timeout = '200ms'").await?;
    let broken = theirs
        .batch_execute("CREATE INDEX CONCURRENTLY t_n ON t (n)")
        .await;
    assert!(broken.is_err());
    reader.batch_execute("COMMIT").await?;
    assert_eq!(indexes(&database, "t").await?, ["t_n (invalid)"]);
    let ended = migrate(&database, BUILD).await?;
    expect(&ended, 3)?;
    assert!(
        ended.stderr.contains("confiture index repair"),
        "{}",
        ended.stderr
    );
    assert_eq!(indexes(&database, "t").await?, ["t_n (invalid)"]);
    Ok(())
}

#[tokio::test]
async fn equal_keys_are_told_without_their_values_and_nothing_is_left() -> anyhow::Result<()> {
    let database = table().await?;
    database
        .execute("INSERT INTO t VALUES (9001, 1, 'secret twin'), (9002, 1, 'secret twin')")
        .await?;
    let steps = "up:\n  - create_index: { table: t, columns: [{ expression: lower(note) }], name: '\"Words\"', unique: true }\n";
    let set = Migrations::write(&[("1_a.yaml", steps)])?;
    let ended = up(&set, &database).run().await?;
    expect(&ended, 1)?;
    let query = "SELECT (lower(note) ), count(*) FROM \"public\".\"t\" WHERE (lower(note) ) IS NOT NULL GROUP BY (lower(note) ) HAVING count(*) > 1";
    for part in [
        "unique index \"Words\" cannot be",
        "nothing is left behind",
        query,
    ] {
        assert!(ended.stderr.contains(part), "{part} is not in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("twin"), "{}", ended.stderr);
    assert_eq!(indexes(&database, "t").await?, Vec::<String>::new());
    assert_eq!(database.connect().await?.query(query, &[]).await?.len(), 1);

    database.execute("DELETE FROM t WHERE id = 9002").await?;
    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["Words"]);
    Ok(())
}

#[tokio::test]
async fn what_the_server_refuses_is_told_before_anything_is_begun() -> anyhow::Result<()> {
    let database = table().await?;
    for (step, part) in [
        (
            "create_index: { table: t, columns: [nn], name: i }",
            "has no column \"nn\"",
        ),
        (
            "create_index: { table: t, columns: [{ expression: note || now() }], name: i }",
            "IMMUTABLE",
        ),
        (
            "create_index: { table: t, columns: [{ column: n, opclass: text_ops }], name: i }",
            "text_ops",
        ),
        ("create_index: { table: t, columns: [n], name: t }", "is no index"),
        (
            "drop_index: { name: nowhere }",
            "index \"nowhere\" does not exist",
        ),
        ("drop_index: { name: t_pkey }", "belongs to constraint \"t_pkey\""),
        ("drop_index: { name: t }", "is no index"),
    ] {
        let ended = migrate(&database, &format!("up:\n  - {step}\n")).await?;
        ensure!(ended.code != Some(0), "{step}");
        ensure!(
            ended.stderr.contains(part),
            "{step}: {part} is not in {}",
            ended.stderr
        );
        ensure!(
            database
                .number("SELECT count(*) FROM confiture.step")
                .await
                .unwrap_or(0)
                == 0,
            "{step} has begun"
        );
    }
    assert_eq!(indexes(&database, "t").await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_drop_that_waits_too_long_is_gone_on_with_by_the_next_run() -> anyhow::Result<()> {
    let database = table().await?;
    database.execute("CREATE INDEX t_n ON t (n)").await?;
    let set = Migrations::write(&[(
        "1_a.yaml",
        "up:\n  - drop_index: { name: public.t_n, wait: 2s }\n",
    )])?;
    // A transaction that has read the table holds the drop up.
    let reader = database.connect().await?;
    reader.batch_execute("BEGIN; SELECT count(*) FROM t").await?;
    let ended = up(&set, &database).run().await?;
    expect(&ended, 1)?;
    assert!(ended.stderr.contains("dropping index"), "{}", ended.stderr);
    let left = indexes(&database, "t").await?;
    assert!(
        matches!(left.as_slice(), [one] if one.starts_with("confiture_d_")),
        "{left:?}"
    );
    // Somebody makes a new one of the name meanwhile: it is not ours to drop.
    reader.batch_execute("COMMIT").await?;
    database.execute("CREATE INDEX t_n ON t (n, id)").await?;
    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["t_n"]);
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_build_that_has_begun_is_taken_back_with_what_it_left() -> anyhow::Result<()> {
    let database = table().await?;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    killed.kill();
    let down = Confiture::new(["migrate", "down", "--take-over", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    down.succeed().await?;
    reader.batch_execute("COMMIT").await?;
    assert_eq!(indexes(&database, "t").await?, Vec::<String>::new());
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_unique_constraint_is_built_published_and_taken_back() -> anyhow::Result<()> {
    let database = table().await?;
    let steps = "up:\n  - add_unique: { table: t, name: Pair of t, columns: [n, id] }\n";
    let set = Migrations::write(&[("1_a.yaml", steps)])?;
    let constraint = "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'u' AND conname = 'Pair of t'";
    // Killed while it builds, and followed.
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    killed.kill();
    reader.batch_execute("COMMIT").await?;
    expect(&up(&set, &database).run().await?, 0)?;
    assert_eq!(indexes(&database, "t").await?, ["Pair of t"]);
    assert_eq!(database.number(constraint).await?, 1);

    let down = Confiture::new(["migrate", "down", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    down.succeed().await?;
    assert_eq!(indexes(&database, "t").await?, Vec::<String>::new());

    // The constraint is there already; an index alone is not one.
    database
        .execute("ALTER TABLE t ADD CONSTRAINT \"Pair of t\" UNIQUE (n, id)")
        .await?;
    expect(&up(&set, &database).run().await?, 0)?;
    let other = table().await?;
    other
        .execute("CREATE UNIQUE INDEX \"Pair of t\" ON t (n, id)")
        .await?;
    let ended = migrate(&other, steps).await?;
    expect(&ended, 3)?;
    assert!(
        ended.stderr.contains("ADD CONSTRAINT \"Pair of t\" UNIQUE"),
        "{}",
        ended.stderr
    );

    let ended = migrate(
        &other,
        "up:\n  - add_unique: { table: t, name: u, columns: [n] }\n",
    )
    .await?;
    expect(&ended, 1)?;
    assert!(
        ended.stderr.contains("unique constraint \"u\" cannot be"),
        "{}",
        ended.stderr
    );
    assert_eq!(indexes(&other, "t").await?, ["Pair of t"]);
    ledger_is_right(&database).await
}

fn index(command: &str, database: &Database) -> Confiture {
    Confiture::new(["index", command]).env("DATABASE_URL", database.url())
}

#[tokio::test]
async fn builds_at_work_are_shown_with_whom_they_wait_for() -> anyhow::Result<()> {
    let database = table().await?;
    let set = Migrations::write(&[("1_a.yaml", BUILD)])?;
    assert!(
        index("progress", &database)
            .succeed()
            .await?
            .contains("no index is being built")
    );
    let reader = old_snapshot(&database).await?;
    let mut process = up(&set, &database).arg("--output").arg("json").start("up")?;
    waits_for_snapshots(&database).await?;
    let text = index("progress", &database).succeed().await?;
    for part in ["confiture", "public.t", "application \"report\""] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let json = index("progress", &database)
        .arg("--output")
        .arg("json")
        .succeed()
        .await?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let build = &json["builds"][0];
    assert_eq!(
        (&build["ours"], &build["waits"]),
        (&true.into(), &true.into()),
        "{json}"
    );
    assert_eq!(build["phase"], "waiting for old snapshots");
    assert_eq!(build["waits_for"]["application"], "report");
    // The run itself says the same.
    process.wait_for_line("application \\\"report\\\"", SOON).await?;
    reader.batch_execute("COMMIT").await?;
    assert!(process.wait(SOON).await?.success(), "{}", process.stderr());
    Ok(())
}

#[tokio::test]
async fn invalid_indexes_are_listed_and_repaired_when_asked_for() -> anyhow::Result<()> {
    let database = table().await?;
    assert!(
        index("repair", &database)
            .succeed()
            .await?
            .contains("all indexes are valid")
    );
    let reader = old_snapshot(&database).await?;
    let theirs = database.connect().await?;
    theirs.batch_execute("SET lock_timeout = '200ms'").await?;
    for create in [
        "CREATE INDEX CONCURRENTLY \"Of them\" ON t (n)",
        "CREATE INDEX CONCURRENTLY confiture_b_0123abcd_1_2_3 ON t (n)",
    ] {
        assert!(theirs.batch_execute(create).await.is_err());
    }
    reader.batch_execute("COMMIT").await?;
    drop(theirs);
    let both = ["Of them (invalid)", "confiture_b_0123abcd_1_2_3 (invalid)"];
    assert_eq!(indexes(&database, "t").await?, both);

    let listed = index("repair", &database).succeed().await?;
    assert!(
        listed.contains("would be dropped and rebuilt") && listed.contains("left by a build of ours"),
        "{listed}"
    );
    assert_eq!(indexes(&database, "t").await?, both, "nothing is changed unasked");

    index("repair", &database).arg("--yes").succeed().await?;
    assert_eq!(indexes(&database, "t").await?, ["Of them"]);
    Ok(())
}

#[tokio::test]
async fn a_repair_that_fails_says_why_and_leaves_no_copy() -> anyhow::Result<()> {
    let database = table().await?;
    let failed = database
        .execute("CREATE UNIQUE INDEX CONCURRENTLY twice ON t (n)")
        .await;
    assert!(failed.is_err());
    let ended = index("repair", &database).arg("--yes").run().await?;
    expect(&ended, 1)?;
    assert!(
        ended.stderr.contains("could not create unique index"),
        "{}",
        ended.stderr
    );
    assert_eq!(indexes(&database, "t").await?, ["twice (invalid)"]);
    Ok(())
}

/// A table in two partitions, one of them partitioned again, with odd names.
async fn partitioned() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE p (id int, n int) PARTITION BY RANGE (id);
             CREATE TABLE \"P one\" PARTITION OF p FOR VALUES FROM (0) TO (1000);
             CREATE TABLE p_two PARTITION OF p FOR VALUES FROM (1000) TO (2000) PARTITION BY HASH (id);
             CREATE TABLE p_two_a PARTITION OF p_two FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE p_two_b (n int, id int);
             ALTER TABLE p_two ATTACH PARTITION p_two_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO p SELECT g, g % 7 FROM generate_series(0, 1999) g;
             CREATE TABLE other (id int)",
        )
        .await?;
    Ok(database)
}

/// How many indexes hang in the tree of `p_n`, and how many of those are not valid.
async fn tree(database: &Database) -> anyhow::Result<(i64, i64)> {
    let all = "SELECT count(*) FROM pg_partition_tree('p_n')";
    let invalid = "SELECT count(*) FROM pg_partition_tree('p_n') t JOIN pg_index i ON i.indexrelid = t.relid WHERE NOT i.indisvalid";
    Ok((database.number(all).await?, database.number(invalid).await?))
}

const PARTS: &str = "up:\n  - create_index: { table: p, columns: [n, id], name: p_n, unique: true }\n";

#[tokio::test]
async fn an_index_of_a_partitioned_table_is_built_part_by_part() -> anyhow::Result<()> {
    let database = partitioned().await?;
    let set = Migrations::write(&[("1_a.yaml", PARTS)])?;
    // Killed in the first partition; meanwhile a partition comes.
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    killed.kill();
    database
        .execute("CREATE TABLE p_late PARTITION OF p FOR VALUES FROM (2000) TO (3000); INSERT INTO p VALUES (2500, 1)")
        .await?;
    reader.batch_execute("COMMIT").await?;
    expect(&up(&set, &database).run().await?, 0)?;
    // The table, three partitions of it, two of one of them.
    assert_eq!(tree(&database).await?, (6, 0));
    assert!(
        database.execute("INSERT INTO p SELECT * FROM p").await.is_err(),
        "it refuses equal keys"
    );
    let ours = "SELECT count(*) FROM pg_class WHERE relname LIKE 'confiture\\_b%'";
    assert_eq!(database.number(ours).await?, 0);
    ledger_is_right(&database).await?;

    let down = Confiture::new(["migrate", "down", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    down.succeed().await?;
    let left =
        "SELECT count(*) FROM pg_class WHERE relkind IN ('i', 'I') AND relnamespace = 'public'::regnamespace";
    assert_eq!(database.number(left).await?, 0);
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_partitioned_build_that_has_begun_is_taken_back_with_its_parts() -> anyhow::Result<()> {
    let database = partitioned().await?;
    let set = Migrations::write(&[("1_a.yaml", PARTS)])?;
    let reader = old_snapshot(&database).await?;
    let mut killed = up(&set, &database).start("killed")?;
    waits_for_snapshots(&database).await?;
    killed.kill();
    let down = Confiture::new(["migrate", "down", "--take-over", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    down.succeed().await?;
    reader.batch_execute("COMMIT").await?;
    let left =
        "SELECT count(*) FROM pg_class WHERE relkind IN ('i', 'I') AND relnamespace = 'public'::regnamespace";
    assert_eq!(database.number(left).await?, 0);
    ledger_is_right(&database).await
}

#[tokio::test]
async fn a_unique_index_without_the_partition_key_is_refused_before_anything_is_built() -> anyhow::Result<()>
{
    let database = partitioned().await?;
    let ended = migrate(
        &database,
        "up:\n  - create_index: { table: p, columns: [n], name: p_n, unique: true }\n",
    )
    .await?;
    expect(&ended, 1)?;
    assert!(ended.stderr.contains("partition"), "{}", ended.stderr);
    let left =
        "SELECT count(*) FROM pg_class WHERE relkind IN ('i', 'I') AND relnamespace = 'public'::regnamespace";
    assert_eq!(database.number(left).await?, 0);
    Ok(())
}
