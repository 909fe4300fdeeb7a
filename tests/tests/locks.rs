//! Strong locks on tables in use: applications do not queue behind a migration for longer than the budget allows.

use anyhow::Context as _;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::directory::Directory;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Options, Server, Session};
use tests::process::Confiture;
use tests::prometheus::total;
use tokio::task::JoinHandle;

const COLUMN: &str = "up:\n  - add_column: { table: t, column: c, type: text }\n";
const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)";

async fn database() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(TABLE).await?;
    Ok(database)
}

fn up(database: &Database, migrations: &Migrations, more: &[&str]) -> Confiture {
    Confiture::new(["migrate", "up", "--output", "json"].iter().chain(more))
        .arg("--migrations")
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
}

/// What a step took, in milliseconds.
#[derive(Debug)]
struct Took {
    wait: u64,
    stall: u32,
    tries: u32,
}

fn took(events: &str) -> anyhow::Result<Took> {
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = events.into_iter().find(|event| event["event"] == "step_done");
    let done = done.with_context(|| "no step is done")?;
    let number = |key: &str| done[key].as_u64().with_context(|| format!("{key} in {done}"));
    Ok(Took {
        wait: number("lock_wait_ms")?,
        stall: u32::try_from(number("stall_ms")?)?,
        tries: u32::try_from(number("lock_tries")?)?,
    })
}

/// Applications that read the table, each transaction as soon as the one before is done; gives how long each read took.
struct Readers {
    stop: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<anyhow::Result<Vec<Duration>>>>,
}

impl Readers {
    fn start(database: &Database) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sessions = (0..3).map(|_| {
            let (database, stop) = (database.clone(), stop.clone());
            tokio::spawn(async move {
                let session = database.connect().await?;
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    session.query_one("SELECT count(*) FROM t", &[]).await?;
                    took.push(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(took)
            })
        });
        Self {
            sessions: sessions.collect(),
            stop,
        }
    }

    /// What each read took.
    async fn finish(self) -> anyhow::Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for session in self.sessions {
            all.extend(session.await??);
        }
        Ok(all)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_old_transaction_is_in_the_way_nobody_queues_behind_us() -> anyhow::Result<()> {
    let database = database().await?;
    let migrations = Migrations::write(&[("1_column.yaml", COLUMN)])?;
    let report = database.connect().await?;
    report.batch_execute("BEGIN; SELECT count(*) FROM t").await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let readers = Readers::start(&database);
    let mut running = up(&database, &migrations, &[]).start("migrate up")?;
    // Long enough for several tries, were there any.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The server is shared: in other databases others may queue.
    let queued = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                   WHERE NOT l.granted AND d.datname = current_database()";
    assert_eq!(database.number(queued).await?, 0);
    report.batch_execute("COMMIT").await?;
    assert!(
        running.wait(Duration::from_secs(20)).await?.success(),
        "{}",
        running.stderr()
    );
    let reads = readers.finish().await?;
    let took = took(&running.stderr())?;
    assert!((2_000..15_000).contains(&took.wait), "{took:?}");
    assert_eq!(took.tries, 1, "{took:?}");
    // One try, and it got its lock.
    assert!(took.stall <= 100, "{took:?}");
    let longest = reads.iter().max().context("no read")?;
    assert!(*longest < Duration::from_millis(600), "{longest:?}");
    Ok(())
}

/// The statements of a SQL file are read: whom they would wait for is waited for outside the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_the_way_of_a_sql_file_is_waited_for_outside_the_queue() -> anyhow::Result<()> {
    for (file, tries) in [
        ("CREATE TABLE n (id int); ALTER TABLE t ADD COLUMN c text;", 1),
        // A reader is in nobody's way here.
        (
            "CREATE INDEX t_id ON t (id); ALTER TABLE t ALTER id SET STATISTICS 5;",
            1,
        ),
    ] {
        let database = database().await?;
        let migrations = Migrations::write(&[("1_column.up.sql", file)])?;
        let report = database.connect().await?;
        report.batch_execute("BEGIN; SELECT count(*) FROM t").await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let mut running = up(&database, &migrations, &[]).start("migrate up")?;
        if file.contains("COLUMN") {
            running
                .wait_for_line("outside its queue, held by pid", Duration::from_secs(20))
                .await?;
            report.batch_execute("COMMIT").await?;
        }
        let status = running.wait(Duration::from_secs(20)).await?;
        assert!(status.success(), "{}", running.stderr());
        assert_eq!(took(&running.stderr())?.tries, tries, "{}", running.stderr());
    }
    Ok(())
}

/// What only creates asks nobody at first; somebody who creates the same is waited for, and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_creates_the_same_table_is_waited_for_and_named() -> anyhow::Result<()> {
    let database = database().await?;
    let file = "-- confiture: lock_timeout=2s\nCREATE TABLE fresh (id int);\n";
    let migrations = Migrations::write(&[("1_fresh.up.sql", file)])?;
    let other = database.connect().await?;
    other.batch_execute("BEGIN; CREATE TABLE fresh (id int)").await?;
    let ended = up(&database, &migrations, &[]).run().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("held by pid"), "{}", ended.stderr);
    other.batch_execute("ROLLBACK").await?;
    let ended = up(&database, &migrations, &[]).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Ok(())
}

/// A look at the queue would cost more than what it is for: the same connection does all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_creates_needs_one_connection_also_where_it_is_slow() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    for (file, connections) in [
        ("CREATE TABLE fresh (id int PRIMARY KEY, note text)", 1),
        (
            "CREATE TABLE fresh (id int); CREATE INDEX ON fresh (id); ALTER TABLE fresh ADD note text; COMMENT ON TABLE fresh IS 'new'",
            1,
        ),
        ("ALTER TABLE t ADD COLUMN note text", 2),
    ] {
        let database = database().await?;
        let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); END';
                    CREATE EVENT TRIGGER slow ON ddl_command_end
                      WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION slow()";
        let ledger = Migrations::write(&[("1_nothing.up.sql", "SELECT 1")])?;
        up(&database, &ledger, &[]).succeed().await?;
        database.admin().await?.batch_execute(slow).await?;
        let before = sessions(server, &database).await?;
        ledger.put("2_slow.up.sql", file)?;
        up(&database, &ledger, &[]).succeed().await?;
        let now = before + connections;
        eventually("the server's count", Duration::from_secs(20), || async {
            Ok((sessions(server, &database).await? >= now).then_some(()))
        })
        .await?;
        assert_eq!(sessions(server, &database).await?, now, "{file}");
    }
    Ok(())
}

/// How many sessions the server has seen in a database.
async fn sessions(server: &Server, database: &Database) -> anyhow::Result<i64> {
    let seen = format!(
        "SELECT sessions FROM pg_stat_database WHERE datname = '{}'",
        database.name()
    );
    server.admin("postgres").await?.number(&seen).await
}

/// VACUUM FULL and the like, which no transaction may hold: they begin when nobody is in their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_waits_outside_the_queue_too() -> anyhow::Result<()> {
    for statement in ["VACUUM FULL t", "CLUSTER t USING t_pkey", "REINDEX TABLE t"] {
        let database = database().await?;
        let file = format!("-- confiture: transaction=off\n{statement};\n");
        let migrations = Migrations::write(&[("1_rewrite.up.sql", &file)])?;
        let report = database.connect().await?;
        report
            .batch_execute("BEGIN; UPDATE t SET id = id WHERE id = 1")
            .await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let readers = Readers::start(&database);
        let mut running = up(&database, &migrations, &[]).start("migrate up")?;
        running
            .wait_for_line("outside its queue, held by pid", Duration::from_secs(20))
            .await?;
        let impatient = up(&database, &migrations, &["--wait", "1s"]).run().await?;
        assert_eq!(impatient.code, Some(4), "{}", impatient.stderr);
        report.batch_execute("COMMIT").await?;
        let status = running.wait(Duration::from_secs(20)).await?;
        assert!(status.success(), "{statement}: {}", running.stderr());
        let took = took(&running.stderr())?;
        assert!(took.wait >= 500 && took.tries >= 1, "{statement}: {took:?}");
        let reads = readers.finish().await?;
        let longest = reads.iter().max().context("no read")?;
        assert!(*longest < Duration::from_millis(600), "{statement}: {longest:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_gives_up_with_its_budget_and_names_who_is_in_the_way() -> anyhow::Result<()> {
    let database = database().await?;
    let file = "-- confiture: transaction=off lock_timeout=1s\nVACUUM FULL t;\n";
    let migrations = Migrations::write(&[("1_rewrite.up.sql", file)])?;
    let report = database.connect().await?;
    report.batch_execute("BEGIN; SELECT count(*) FROM t").await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let ended = up(&database, &migrations, &[]).run().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("held by pid"), "{}", ended.stderr);
    report.batch_execute("COMMIT").await?;
    let ended = up(&database, &migrations, &[]).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_that_find_the_lock_taken_keep_to_the_stall_budget() -> anyhow::Result<()> {
    let database = database().await?;
    let migrations = Migrations::write(&[("1_column.yaml", COLUMN)])?;
    // Two sessions whose transactions overlap, none old enough to be waited for outside the queue: the lock is never free.
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<JoinHandle<anyhow::Result<()>>> = (0..2)
        .map(|number| {
            let (database, stop) = (database.clone(), stop.clone());
            tokio::spawn(async move {
                let session = database.connect().await?;
                session.batch_execute("SET application_name = 'writer'").await?;
                tokio::time::sleep(Duration::from_millis(100 * number)).await;
                while !stop.load(Ordering::Relaxed) {
                    let lock = "BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE; SELECT pg_sleep(0.4); COMMIT";
                    session.batch_execute(lock).await?;
                }
                Ok(())
            })
        })
        .collect();
    // Who watches: the wall time in which anybody waits for the table.
    let watched = tokio::spawn({
        let (database, stop) = (database.clone(), stop.clone());
        async move {
            let session = database.admin().await?;
            let mut stalled = Duration::ZERO;
            let mut before = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let waiting = "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.relation = 't'::regclass AND a.query NOT LIKE '/*confiture%'";
                let waiting = session.number(waiting).await?;
                let now = Instant::now();
                if waiting > 0 {
                    stalled += now - before;
                }
                before = now;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(stalled)
        }
    });
    let readers = Readers::start(&database);
    let folder = Directory::new()?;
    let metrics = folder.path().join("confiture.prom");
    let ended = up(&database, &migrations, &["--lock-timeout", "12000"])
        .arg("--metrics-file")
        .arg(&metrics)
        .run()
        .await?;
    stop.store(true, Ordering::Relaxed);
    let reads = readers.finish().await?;
    for writer in writers {
        writer.await??;
    }
    let stalled = watched.await??;
    let metrics = std::fs::read_to_string(&metrics)?;
    let tries = |outcome: &str| total(&metrics, "confiture_lock_tries_total", &[outcome]).unwrap_or_default();
    let counted = total(&metrics, "confiture_application_stall_seconds_total", &[]).unwrap_or_default();
    // It may have found a gap; either way nobody waited for long, nor all of them together.
    match ended.code {
        Some(0) => {
            let took = took(&ended.stderr)?;
            assert!(took.stall <= 1_300, "{took:?}");
            assert!(
                (counted * 1_000.0 - f64::from(took.stall)).abs() < 2.0,
                "{counted} s, {took:?}"
            );
            let all = tries("granted") + tries("missed");
            assert!((all - f64::from(took.tries)).abs() < 0.5, "{all}, {took:?}");
        }
        code => {
            assert_eq!(code, Some(1), "{}", ended.stderr);
            assert!(
                ended.stderr.contains("application \\\"writer\\\"")
                    || ended.stderr.contains("application \"writer\""),
                "{}",
                ended.stderr
            );
            assert!(tries("missed") > 0.5 && tries("granted") < 0.5, "{metrics}");
            assert!(counted > 0.0, "{metrics}");
        }
    }
    assert!(stalled < Duration::from_millis(1_500), "{stalled:?}");
    let longest = reads.iter().max().context("no read")?;
    assert!(*longest < Duration::from_secs(1), "{longest:?}");
    Ok(())
}

#[tokio::test]
async fn a_vacuum_of_postgresql_itself_gives_way_and_nobody_waits_for_it() -> anyhow::Result<()> {
    let options = Options::default()
        .setting("autovacuum_naptime", "1s")
        .setting("log_autovacuum_min_duration", "0");
    let server = Server::start_with(options).await?;
    let database = server.fresh_database().await?;
    // As slow as it can be: it would take many minutes.
    database
        .execute(
            "CREATE TABLE t (id bigint, filler text) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
               autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
             INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g;
             DELETE FROM t WHERE id % 2 = 0",
        )
        .await?;
    let at_work =
        "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass AND phase = 'scanning heap'";
    server
        .wait_until(database.name(), at_work, Duration::from_mins(1))
        .await?;
    let migrations = Migrations::write(&[("1_column.yaml", COLUMN)])?;
    let readers = Readers::start(&database);
    let ended = up(&database, &migrations, &[]).run().await?;
    let reads = readers.finish().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let took = took(&ended.stderr)?;
    assert!(took.stall <= 200, "{took:?}");
    let longest = reads.iter().max().context("no read")?;
    assert!(*longest < Duration::from_millis(600), "{longest:?}");
    eventually(
        "the vacuum to have given way",
        Duration::from_secs(20),
        || async { Ok(server.log().contains("canceling autovacuum task").then_some(())) },
    )
    .await
}

/// Who may only reference a table may not lock it by a statement either.
#[tokio::test]
async fn a_vacuum_gives_way_also_to_a_role_with_rights_on_one_of_the_tables_only() -> anyhow::Result<()> {
    let options = Options::default().setting("autovacuum_naptime", "1s");
    let server = Server::start_with(options).await?;
    let database = server.fresh_database().await?;
    database
        .admin()
        .await?
        .batch_execute(&format!(
            "CREATE ROLE tenant LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE \"{}\" TO tenant;
             CREATE TABLE kinds (id bigint PRIMARY KEY); GRANT REFERENCES ON kinds TO tenant;
             CREATE TABLE t (id bigint, kind bigint, filler text) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
               autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
             ALTER TABLE t OWNER TO tenant;
             INSERT INTO t SELECT g, NULL, repeat('x', 500) FROM generate_series(1, 20000) g;
             DELETE FROM t WHERE id % 2 = 0",
            database.name()
        ))
        .await?;
    let at_work =
        "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass AND phase = 'scanning heap'";
    server
        .wait_until(database.name(), at_work, Duration::from_mins(1))
        .await?;
    let migrations = Migrations::write(&[(
        "1_key.yaml",
        "up:\n  - add_foreign_key: { table: t, columns: [kind], references: { table: kinds } }\n",
    )])?;
    let ended = up(&database, &migrations, &[])
        .env("DATABASE_URL", server.url_as("tenant", "x", database.name()))
        .run()
        .await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_prepared_transaction_in_the_way_is_named() -> anyhow::Result<()> {
    let server = Server::start_with(Options::default().setting("max_prepared_transactions", "5")).await?;
    let database = server.fresh_database().await?;
    database.execute(TABLE).await?;
    let session = database.connect().await?;
    session
        .batch_execute("BEGIN; INSERT INTO t VALUES (0); PREPARE TRANSACTION 'left behind'")
        .await?;
    let migrations = Migrations::write(&[("1_column.yaml", COLUMN)])?;
    let ended = up(&database, &migrations, &["--lock-timeout", "1500"])
        .run()
        .await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("a prepared transaction")
            && ended.stderr.contains("ROLLBACK PREPARED 'left behind'"),
        "{}",
        ended.stderr
    );
    session.batch_execute("ROLLBACK PREPARED 'left behind'").await?;
    up(&database, &migrations, &[]).succeed().await?;
    Ok(())
}

/// A lock in a database that was copied from ours, on the table with the same oid, is nobody's concern.
#[tokio::test]
async fn a_session_of_another_database_is_never_in_the_way() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.fresh_database().await?;
    database.execute(TABLE).await?;
    let copy = server.copy(&database).await?;
    let other = copy.connect().await?;
    other.batch_execute("BEGIN; LOCK TABLE t").await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let migrations = Migrations::write(&[("1_column.yaml", COLUMN)])?;
    let ended = up(&database, &migrations, &["--lock-timeout", "3000"])
        .run()
        .await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(took(&ended.stderr)?.tries, 1);
    other.batch_execute("ROLLBACK").await?;
    Ok(())
}

/// Who is in the way, who waits, and nobody of a copy of the database with the same oids.
#[tokio::test]
async fn the_views_on_locks_show_who_blocks_whom_in_this_database_only() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.fresh_database().await?;
    database.execute(TABLE).await?;
    let copy = server.copy(&database).await?;
    let locks = |database: &Database, format: &str| {
        Confiture::new(["locks", "--output", format]).env("DATABASE_URL", database.url())
    };
    assert!(
        locks(&database, "text")
            .succeed()
            .await?
            .contains("nobody waits for a lock")
    );
    let holder = database.connect().await?;
    holder.batch_execute("BEGIN; SELECT 1 FROM t").await?;
    let (first, second) = (database.connect().await?, database.connect().await?);
    let blocked = tokio::spawn(async move { first.batch_execute("ALTER TABLE t ADD COLUMN x int").await });
    let ungranted = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'";
    server
        .wait_until(database.name(), ungranted, Duration::from_secs(20))
        .await?;
    let behind = tokio::spawn(async move { second.batch_execute("SELECT 'reader' FROM t").await });
    let ungranted = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'";
    server
        .wait_until(database.name(), ungranted, Duration::from_secs(20))
        .await?;

    let shown: Value = serde_json::from_str(&locks(&database, "json").succeed().await?)?;
    let waiting = shown["waiting"].as_array().context("those who wait")?;
    assert_eq!(waiting.len(), 2, "{shown}");
    assert_eq!(waiting[0]["mode"], "AccessExclusiveLock");
    assert_eq!(waiting[0]["object"], "t");
    assert_eq!(waiting[1]["blocked_by"][0], waiting[0]["pid"]);
    assert_eq!(waiting[0]["blocked_by"][0], shown["blockers"][0]["pid"]);
    assert_eq!(shown["blockers"][0]["state"], "idle in transaction");
    let text = locks(&database, "text").succeed().await?;
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("who blocks whom"))
        .collect();
    assert!(
        lines[1].starts_with("pid") && lines[1].contains("SELECT 1 FROM t"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("  pid") && lines[2].contains("ALTER TABLE"),
        "{text}"
    );
    assert!(
        lines[3].starts_with("    pid") && lines[3].contains("'reader'"),
        "{text}"
    );
    assert!(
        locks(&copy, "text")
            .succeed()
            .await?
            .contains("nobody waits for a lock")
    );

    holder.batch_execute("COMMIT").await?;
    blocked.await??;
    behind.await??;
    Ok(())
}

/// Opens a transaction that has read `t` and then does nothing.
async fn idle(url: &str, application: &str) -> anyhow::Result<Session> {
    let session = Session::open(url).await?;
    session
        .batch_execute(&format!(
            "SET application_name = '{application}'; BEGIN; SELECT count(*) FROM t"
        ))
        .await?;
    Ok(session)
}

const CANCELLING: &str = "cancel_blockers: { idle_in_transaction: 2s }\nup:\n  - add_column: { table: t, column: c, type: text }\n";

/// Only where it is asked for, only who does nothing for so long, and nobody of a copy of the database with the same oids.
#[tokio::test]
async fn a_session_idle_in_its_transaction_is_ended_where_that_is_asked_for() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.fresh_database().await?;
    database.execute(TABLE).await?;
    let copy = server.copy(&database).await?;
    let elsewhere = idle(copy.url(), "elsewhere").await?;
    let bystander = Session::open(database.url()).await?;
    bystander.batch_execute("BEGIN; SELECT 1").await?;
    let forgotten = idle(database.url(), "forgotten").await?;
    tokio::time::sleep(Duration::from_millis(2_500)).await;

    let plain = Migrations::write(&[("1_column.yaml", COLUMN)])?;
    let ended = up(&database, &plain, &["--lock-timeout", "1500"]).run().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    forgotten.batch_execute("SELECT 1").await?;

    let cancelling = Migrations::write(&[("1_column.yaml", CANCELLING)])?;
    let ended = up(&database, &cancelling, &[]).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(forgotten.batch_execute("SELECT 1").await.is_err());
    bystander.batch_execute("COMMIT").await?;
    elsewhere.batch_execute("COMMIT").await?;
    let done = ended
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "step_done")
        .context("no step is done")?;
    let sessions = done["ended_sessions"].as_array().context("those ended")?;
    assert_eq!(sessions.len(), 1, "{done}");
    assert_eq!(sessions[0]["application"], "forgotten");
    let reason = sessions[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("idle in transaction for"), "{reason}");
    assert!(
        ended.stderr.contains("a session in the way was ended"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("elsewhere"), "{}", ended.stderr);
    Ok(())
}

/// Superusers, who may replicate, and those whom the role may not end are waited for.
#[tokio::test]
async fn whom_nobody_may_end_is_waited_for() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.fresh_database().await?;
    database.execute(TABLE).await?;
    let admin = database.admin().await?;
    admin
        .batch_execute(
            "CREATE ROLE reader LOGIN PASSWORD 'x'; CREATE ROLE mirror LOGIN REPLICATION PASSWORD 'x'; GRANT mirror TO confiture;
             GRANT SELECT ON t TO reader, mirror",
        )
        .await?;
    let migrations = Migrations::write(&[("1_column.yaml", CANCELLING)])?;
    let url = |role: &str| server.url_as(role, "x", database.name());
    let refused = async || {
        up(&database, &migrations, &["--lock-timeout", "1500"])
            .run()
            .await
    };

    let superuser = database.admin().await?;
    superuser.batch_execute("BEGIN; SELECT count(*) FROM t").await?;
    for session in [superuser, idle(&url("mirror"), "mirror").await?] {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let ended = refused().await?;
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        session.batch_execute("COMMIT").await?;
    }

    let session = idle(&url("reader"), "reader").await?;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let ended = refused().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("this role may not: that needs"),
        "{}",
        ended.stderr
    );
    session.batch_execute("SELECT 1").await?;
    admin
        .batch_execute("GRANT pg_signal_backend, pg_read_all_stats TO confiture")
        .await?;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    up(&database, &migrations, &[]).succeed().await?;
    assert!(session.batch_execute("SELECT 1").await.is_err());
    Ok(())
}

/// Half a minute is what a migration has where nobody says otherwise.
#[tokio::test]
async fn a_step_has_a_budget_of_its_own() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(TABLE).await?;
    let reader = idle(database.url(), "reader").await?;
    let impatient = format!("{COLUMN}    lock_timeout: 700ms\n");
    let migrations = Migrations::write(&[("1_column.yaml", &impatient)])?;
    let ended = up(&database, &migrations, &[]).run().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("700 ms"), "{}", ended.stderr);
    reader.batch_execute("COMMIT").await?;
    Ok(())
}
