//! Size and pace of batches as the author and the operator ask for them.

use serde_json::Value;
use std::time::Duration;
use tests::collector::{Collector, Span};
use tests::directory::Directory;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Options, Server};
use tests::process::Confiture;
use tests::prometheus::total;

async fn table(rows: u32) -> anyhow::Result<Database> {
    filled(Server::shared().await?, rows).await
}

async fn filled(server: &Server, rows: u32) -> anyhow::Result<Database> {
    let database = server.fresh_database().await?;
    database
        .execute(&format!(
            "CREATE TABLE t (k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text);
             INSERT INTO t (pad) SELECT repeat('x', 100) FROM generate_series(1, {rows}) g; ANALYZE t"
        ))
        .await?;
    Ok(database)
}

fn up(database: &Database, set: &Migrations) -> Confiture {
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
}

/// More than so many batches are committed.
async fn batches_beyond(database: &Database, count: i64) -> anyhow::Result<()> {
    eventually("batches", Duration::from_secs(20), || async {
        let batches = "SELECT count(*) FROM confiture.batch";
        // Before the ledger is there the question is an error.
        Ok((database.number(batches).await.ok())
            .filter(|n| *n > count)
            .map(drop))
    })
    .await
}

fn set(batch: &str) -> anyhow::Result<Migrations> {
    let step = format!("up:\n  - backfill: {{ table: t, set: {{ n: n + 1 }}, batch: {{ {batch} }} }}\n");
    Migrations::write(&[("1_a.yaml", &step)])
}

#[tokio::test]
async fn a_pause_is_kept_between_any_two_batches_of_a_range() -> anyhow::Result<()> {
    let database = table(1_000).await?;
    up(&database, &set("size: 100, pause: 60ms, max_duty: 1")?)
        .succeed()
        .await?;
    let shortest = "SELECT (1000 * extract(epoch FROM min(after)))::bigint FROM (
        SELECT at - lag(at) OVER (PARTITION BY shard ORDER BY sequence) AS after FROM confiture.batch) b";
    let shortest = database.number(shortest).await?;
    assert!(shortest >= 58, "{shortest} ms");
    Ok(())
}

#[tokio::test]
async fn a_strategy_said_for_a_table_comes_before_what_the_author_asks_for() -> anyhow::Result<()> {
    let database = table(1_000).await?;
    // As its author asks, it would go on for longer than any test.
    let set = set("size: 100, pause: 1h")?;
    for (said, code, part) in [
        ("public.t=blue_green", 3, "is blue_green"),
        ("other=direct", 2, "no step of the migrations names it"),
        ("batched_off_peak", 2, "a single run waits for no hour"),
        ("t=", 2, "there is no strategy ``"),
    ] {
        let ended = up(&database, &set).arg("--strategy").arg(said).run().await?;
        assert_eq!(ended.code, Some(code), "{said}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{said}: {}", ended.stderr);
    }
    assert_eq!(database.number("SELECT sum(n) FROM t").await?, 0);
    for said in ["direct", "t=batched"] {
        database
            .execute("UPDATE t SET n = 0; DROP SCHEMA IF EXISTS confiture CASCADE")
            .await?;
        up(&database, &set).arg("--strategy").arg(said).succeed().await?;
        assert_eq!(database.number("SELECT sum(n) FROM t").await?, 1_000, "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_works_no_more_of_its_time_than_it_may() -> anyhow::Result<()> {
    let database = table(60_000).await?;
    let set = set("size: 1000, target: 50ms, workers: 1, max_duty: 0.25")?;
    let mut run = up(&database, &set).start("run")?;
    batches_beyond(&database, 0).await?;
    let session = database.admin().await?;
    let (mut busy, mut looks) = (0_u32, 0_u32);
    // The probes are not the batches: only those lock a range.
    let at_work = "SELECT count(*) > 0 FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
        WHERE l.relation = 'public.t'::regclass AND a.datname = current_database() AND a.pid <> pg_backend_pid()
          AND l.mode = 'RowExclusiveLock'";
    while run.ended()?.is_none() {
        let row = session.query_one(at_work, &[]).await?;
        busy += u32::from(row.get::<_, bool>(0));
        looks += 1;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    let duty = f64::from(busy) / f64::from(looks.max(1));
    assert!(looks > 100 && duty > 0.02, "{duty} in {looks} looks");
    assert!(duty <= 0.3, "{duty}");
    let changed = "SELECT count(*) FROM t WHERE n = 1";
    assert_eq!(database.number(changed).await?, 60_000);
    Ok(())
}

#[tokio::test]
async fn a_resumed_run_ends_with_every_row_and_never_in_one_giant_transaction() -> anyhow::Result<()> {
    let database = table(20_000).await?;
    let set = set("size: 100, pause: 10ms, target: 10ms")?;
    let mut killed = up(&database, &set).start("killed")?;
    batches_beyond(&database, 5).await?;
    killed.kill();
    let ended = up(&database, &set).arg("--take-over").run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("20,000 rows"), "{}", ended.stderr);
    let largest = "SELECT max(rows) FROM confiture.batch";
    // From 100 rows on a batch is at most twice as large as the one before, however fast they are.
    assert!(database.number(largest).await? <= 10_000);
    assert_eq!(
        database.number("SELECT count(*) FROM t WHERE n = 1").await?,
        20_000
    );
    Ok(())
}

#[tokio::test]
async fn an_operator_stops_batches_by_a_query_and_they_say_so() -> anyhow::Result<()> {
    let database = table(50_000).await?;
    database.execute("CREATE TABLE halt (x int)").await?;
    let set = set("size: 100, pause: 500ms, target: 20ms")?;
    let collector = Collector::start()?;
    let mut run = up(&database, &set)
        .env("CONFITURE_OBSERVABILITY_OTLP_ENDPOINT", collector.url())
        .env(
            "CONFITURE_MIGRATION_THROTTLE_QUERY",
            "SELECT count(*) FROM public.halt",
        )
        .start("run")?;
    batches_beyond(&database, 0).await?;
    database.execute("INSERT INTO public.halt VALUES (1)").await?;
    let batches = "SELECT count(*) FROM confiture.batch";
    eventually("the stop", Duration::from_secs(20), || async {
        let before = database.number(batches).await.unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let after = database.number(batches).await.unwrap_or(0);
        Ok((before > 0 && before == after).then_some(()))
    })
    .await?;
    run.wait_for_line("stopped: the operator", Duration::from_secs(20))
        .await?;
    // Its spans say so in numbers.
    let numbers = [
        ("reason", "operator_query"),
        ("signal", "operator_query"),
        ("value", "1"),
        ("limit", "0"),
        ("unit", "1"),
    ];
    let says = |span: &Span| {
        let is = |(key, value): &(&str, &str)| span.about.get(*key).map(String::as_str) == Some(*value);
        span.name == "throttle" && numbers.iter().all(is)
    };
    eventually("the span of the stop", Duration::from_secs(30), || async {
        Ok(collector.spans().iter().any(says).then_some(()))
    })
    .await?;
    run.interrupt()?;
    let status = run.wait(Duration::from_secs(10)).await?;
    assert_eq!(status.code(), Some(4), "{}", run.stderr());
    assert!(run.stderr().contains("goes on from here"), "{}", run.stderr());
    let rests: Vec<_> = (collector.spans().into_iter())
        .filter(|span| span.name == "throttle")
        .collect();
    // A pause of the author's is because of no signal.
    let mut authors = rests.iter().filter(|span| span.about["reason"] == "pause");
    assert!(
        authors.all(|span| !span.about.contains_key("signal")),
        "{rests:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn batches_slow_down_where_commits_have_become_slow() -> anyhow::Result<()> {
    let server = Server::start_with(Options::default()).await?;
    let database = filled(&server, 200_000).await?;
    let set = set("size: 100, pause: 2s, target: 20ms, workers: 1")?;
    let mut run = up(&database, &set).start("run")?;
    batches_beyond(&database, 3).await?;
    let admin = server.admin("postgres").await?;
    // Of the delay alone it is known how long it takes; the server only waits where it would write to the disk.
    for setting in ["fsync = on", "commit_delay = 100000", "commit_siblings = 0"] {
        admin
            .batch_execute(&format!("ALTER SYSTEM SET {setting}"))
            .await?;
    }
    admin.batch_execute("SELECT pg_reload_conf()").await?;
    run.wait_for_line("commit latency", Duration::from_secs(40))
        .await?;
    run.interrupt()?;
    let status = run.wait(Duration::from_secs(10)).await?;
    assert_eq!(status.code(), Some(4), "{}", run.stderr());
    Ok(())
}

/// Where the last range takes what rounding left of all others, a worker goes over it alone.
#[tokio::test]
async fn a_table_is_cut_into_ranges_of_about_as_many_rows() -> anyhow::Result<()> {
    const ROWS: i64 = 62_000;
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(&format!(
            "CREATE TABLE t (k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text)
               WITH (fillfactor = 10);
             INSERT INTO t (pad) SELECT repeat('x', 100) FROM generate_series(1, {ROWS}) g; ANALYZE t"
        ))
        .await?;
    let mut session = database.connect().await?;
    // Rows that are not seen yet keep batches waiting.
    let open = session.transaction().await?;
    open.execute("INSERT INTO public.t (pad) VALUES ('open')", &[])
        .await?;
    let step = "up:\n  - delete: { table: t, where: n = 1, batch: { workers: 3 } }\n";
    let set = Migrations::write(&[("1_a.yaml", step)])?;
    let mut run = up(&database, &set).start("run")?;
    let cuts = "SELECT count(*) FROM confiture.shard WHERE lower IS NOT NULL";
    let cuts = eventually("the ranges", Duration::from_secs(20), || async {
        Ok(database.number(cuts).await.ok().filter(|n| *n > 0))
    })
    .await?;
    let largest = database
        .number(&format!(
            "SELECT max(coalesce(upper[1]::bigint, {ROWS}) - coalesce(lower[1]::bigint, 0)) FROM confiture.shard"
        ))
        .await?;
    open.rollback().await?;
    assert!(
        run.wait(Duration::from_mins(1)).await?.success(),
        "{}",
        run.stderr()
    );
    assert!(cuts >= 8, "{cuts} cuts");
    let even = ROWS / (cuts + 1);
    assert!(largest * 10 < even * 13, "{largest} rows of {even}");
    Ok(())
}

#[tokio::test]
async fn rows_of_a_transaction_that_was_open_when_the_step_began_count_as_rows_there_are()
-> anyhow::Result<()> {
    let database = table(1_000).await?;
    let mut session = database.connect().await?;
    let open = session.transaction().await?;
    open.execute("INSERT INTO public.t (pad) VALUES ('older')", &[])
        .await?;
    database
        .execute("INSERT INTO public.t (pad) VALUES ('between')")
        .await?;
    let set = set("size: 100")?;
    let mut run = up(&database, &set).start("run")?;
    eventually("the range", Duration::from_secs(20), || async {
        let ranges = "SELECT count(*) FROM confiture.shard";
        Ok(database.number(ranges).await.ok().filter(|n| *n > 0))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        database.number("SELECT count(*) FROM confiture.batch").await?,
        0,
        "it waits"
    );
    open.commit().await?;
    database
        .execute("INSERT INTO public.t (pad) VALUES ('newer')")
        .await?;
    let status = run.wait(Duration::from_secs(20)).await?;
    assert!(status.success(), "{}", run.stderr());
    let wrong = "SELECT count(*) FROM t WHERE n <> CASE WHEN pad = 'newer' THEN 0 ELSE 1 END";
    assert_eq!(database.number(wrong).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_step_that_an_older_program_left_half_done_goes_on_where_it_stopped() -> anyhow::Result<()> {
    for was_done in [false, true] {
        let database = table(3_000).await?;
        let set = set("size: 100, pause: 10ms, target: 10ms")?;
        let mut killed = up(&database, &set).start("killed")?;
        batches_beyond(&database, 5).await?;
        killed.kill();
        // As the ledger's second format had it: one range without a relation, and the key in the step's record.
        database
            .execute(
                "UPDATE confiture.shard SET relation = NULL, relation_name = NULL, paging = NULL; DELETE FROM confiture.batch;
                 UPDATE confiture.step SET detail = '{\"key\":[[\"k\",\"bigint\"]]}'",
            )
            .await?;
        if was_done {
            database
                .execute(
                    "UPDATE public.t SET n = n + 1 WHERE k > (SELECT (cursor)[1]::bigint FROM confiture.shard);
                     UPDATE confiture.shard SET state = 'done', rows = 3000",
                )
                .await?;
        }
        let ended = up(&database, &set).arg("--take-over").run().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(
            database.number("SELECT count(*) FROM t WHERE n = 1").await?,
            3_000
        );
        Confiture::new(["ledger", "verify"])
            .env("DATABASE_URL", database.url())
            .succeed()
            .await?;
    }
    Ok(())
}

/// What a run told, without the lines of its log.
fn events(stderr: &str) -> anyhow::Result<Vec<Value>> {
    let lines: Vec<Value> = (stderr.lines().map(serde_json::from_str)).collect::<Result<_, _>>()?;
    Ok((lines.into_iter())
        .filter(|line| line["event"].is_string())
        .collect())
}

/// The events that told of progress.
fn progress(stderr: &str) -> anyhow::Result<Vec<Value>> {
    let mut events = events(stderr)?;
    events.retain(|event| event["event"] == "progress");
    Ok(events)
}

#[tokio::test]
async fn a_wrong_query_of_the_operators_is_refused_before_the_first_batch() -> anyhow::Result<()> {
    for (query, words) in [
        ("SELECT * FROM nope", "does not exist"),
        ("SELECT 'much'", "gives no number and no boolean"),
    ] {
        let database = table(1_000).await?;
        let ended = up(&database, &set("size: 100")?)
            .env("CONFITURE_MIGRATION_THROTTLE_QUERY", query)
            .run()
            .await?;
        assert_eq!(ended.code, Some(2), "{query}: {}", ended.stderr);
        for words in ["migration.throttle_query", words] {
            assert!(ended.stderr.contains(words), "{query}: {}", ended.stderr);
        }
        assert_eq!(
            database.number("SELECT count(*) FROM t WHERE n > 0").await?,
            0,
            "{query}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_the_operators_query_stops_does_not_begin() -> anyhow::Result<()> {
    let database = table(1_000).await?;
    let set = set("size: 100")?;
    let mut run = up(&database, &set)
        .env("CONFITURE_MIGRATION_THROTTLE_QUERY", "SELECT true")
        .start("run")?;
    run.wait_for_line("stopped: the operator", Duration::from_secs(20))
        .await?;
    assert_eq!(database.number("SELECT count(*) FROM confiture.batch").await?, 0);
    run.kill();
    Ok(())
}

#[tokio::test]
async fn who_waits_for_a_row_says_so_and_how_large_its_batches_are() -> anyhow::Result<()> {
    let database = table(1_000).await?;
    let application = database.connect().await?;
    application
        .batch_execute("BEGIN; UPDATE t SET pad = 'y' WHERE k = 500")
        .await?;
    let release = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        application.batch_execute("COMMIT").await
    };
    // A step that reads what it sets would wait for the transaction before its first batch.
    let step = "up:\n  - backfill: { table: t, set: { pad: \"'z'\" }, sync: none, batch: { size: 1000, workers: 1 } }\n";
    let set = Migrations::write(&[("1_a.yaml", step)])?;
    let folder = Directory::new()?;
    let metrics = folder.path().join("confiture.prom");
    let run = up(&database, &set).arg("--output").arg("json");
    let run = run.arg("--metrics-file").arg(&metrics);
    let (ended, released) = tokio::join!(run.run(), release);
    released?;
    let ended = ended?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let told = progress(&ended.stderr)?;
    let waiting = (told.iter()).find(|event| {
        event["pace"]
            .as_str()
            .is_some_and(|pace| pace.contains("it waits for a lock that others hold"))
    });
    let waiting = waiting.ok_or_else(|| anyhow::anyhow!("nothing told of the lock: {}", ended.stderr))?;
    assert!(waiting["retries"].as_u64() > Some(0), "{waiting}");
    let rows = waiting["batch_rows"].as_u64();
    assert!(rows > Some(0) && rows < Some(1000), "{waiting}");
    let metrics = std::fs::read_to_string(&metrics)?;
    let counted = total(&metrics, "confiture_batch_retries_total", &[]);
    assert!(counted > Some(0.0), "{metrics}");
    assert_eq!(total(&metrics, "confiture_fence_takeovers_total", &[]), Some(0.0));
    Ok(())
}

#[tokio::test]
async fn a_resumed_step_tells_of_all_its_lives_from_its_first_event_on() -> anyhow::Result<()> {
    let database = table(50_000).await?;
    let set = set("size: 100, pause: 300ms, max_duty: 1, workers: 1")?;
    let mut killed = up(&database, &set).start("killed")?;
    batches_beyond(&database, 4).await?;
    killed.kill();
    let done = database.number("SELECT count(*) FROM t WHERE n > 0").await?;
    let folder = Directory::new()?;
    let metrics = folder.path().join("confiture.prom");
    let ended = up(&database, &set)
        .arg("--take-over")
        .arg("--metrics-file")
        .arg(&metrics)
        .arg("--output")
        .arg("json")
        .run()
        .await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let metrics = std::fs::read_to_string(&metrics)?;
    let counted = total(&metrics, "confiture_fence_takeovers_total", &[]);
    assert_eq!(counted, Some(1.0), "{metrics}");
    let told = progress(&ended.stderr)?;
    assert!(told.len() >= 2, "{}", ended.stderr);
    for event in &told {
        assert!(event["rows"].as_i64() >= Some(done), "{event}");
    }
    let steps = events(&ended.stderr)?;
    let step = steps.iter().find(|event| event["event"] == "step_done");
    let batches = database.number("SELECT count(*) FROM confiture.batch").await?;
    assert_eq!(step.and_then(|step| step["batches"].as_i64()), Some(batches));
    assert_eq!(step.and_then(|step| step["rows"].as_i64()), Some(50_000));
    Ok(())
}

#[tokio::test]
async fn a_stopped_run_ends_with_an_event_of_its_own() -> anyhow::Result<()> {
    let database = table(100_000).await?;
    let set = set("size: 100, pause: 100ms, target: 1ms, workers: 1")?;
    let mut run = up(&database, &set).arg("--output").arg("json").start("stopped")?;
    batches_beyond(&database, 70).await?;
    run.interrupt()?;
    let code = run.wait(Duration::from_secs(20)).await?.code();
    let stderr = run.stderr();
    assert_eq!(code, Some(4), "{stderr}");
    let events = events(&stderr)?;
    let told = events.iter().rfind(|event| event["event"] == "progress");
    let told = told.ok_or_else(|| anyhow::anyhow!("no progress: {stderr}"))?;
    for number in ["rows_per_second", "left_least_s", "left_most_s"] {
        assert!(told[number].as_f64() > Some(0.0), "{number}: {told}");
    }
    let last = events
        .last()
        .ok_or_else(|| anyhow::anyhow!("no event: {stderr}"))?;
    assert_eq!(
        (&last["event"], &last["exit"]),
        (&"stopped".into(), &4.into()),
        "{last}"
    );
    assert!(
        last["resume"].is_string() && last["message"].is_string(),
        "{last}"
    );
    Ok(())
}

/// How often batches changed rows by a statement that the server keeps, and by one that it read anew.
fn changes(server: &Server) -> (usize, usize) {
    let log = server.log();
    let changes = log
        .lines()
        .filter(|line| line.contains("*/ UPDATE ONLY \"public\".\"t\""));
    let (new, kept): (Vec<&str>, Vec<&str>) = changes.partition(|line| line.contains("execute <unnamed>"));
    (kept.len(), new.len())
}

#[tokio::test]
async fn the_server_keeps_the_statements_of_batches_where_its_session_is_ours() -> anyhow::Result<()> {
    let server = Server::start_with(Options::default().setting("log_statement", "all")).await?;
    // The plans of such a role would fit any range of the table, and so read all of it for each batch.
    let database = filled(&server, 20_000).await?;
    let plans = format!(
        "ALTER DATABASE {} SET plan_cache_mode = force_generic_plan",
        database.name()
    );
    server.admin("postgres").await?.batch_execute(&plans).await?;
    let set = set("size: 100, pause: 1ms, target: 1ms")?;
    up(&database, &set).succeed().await?;
    assert_eq!(
        database.number("SELECT count(*) FROM t WHERE n = 1").await?,
        20_000
    );
    let (kept, new) = changes(&server);
    assert!(kept > 20, "{kept}\n{}", server.log());
    assert_eq!(new, 0, "{}", server.log());
    Ok(())
}

#[tokio::test]
async fn a_session_that_turns_out_to_be_lent_keeps_no_statements_and_loses_no_batch() -> anyhow::Result<()> {
    let server = Server::start_with(Options::default().setting("log_statement", "all")).await?;
    let database = filled(&server, 5_000).await?;
    // As if a pooler gave us somebody else's session after each batch.
    database
        .execute(
            "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN PERFORM set_config('confiture.session', 'of somebody else', false); RETURN NULL; END$$;
             CREATE TRIGGER other AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION other()",
        )
        .await?;
    up(&database, &set("size: 20, pause: 1ms, target: 1ms, workers: 1")?)
        .succeed()
        .await?;
    assert_eq!(
        database.number("SELECT count(*) FROM t WHERE n = 1").await?,
        5_000
    );
    let (kept, new) = changes(&server);
    // Each connection finds out by itself.
    assert!((1..10).contains(&kept), "{kept}\n{}", server.log());
    assert!(new > 10, "{new}\n{}", server.log());
    Ok(())
}
