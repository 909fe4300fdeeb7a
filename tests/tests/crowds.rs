//! Many runs on one database, and runs that die at every moment: ten pods started at once, kill -9 two hundred times, a
//! frozen holder that has not yet committed its range.

use rand::RngExt as _;
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Process};

const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(2);

fn up(database: &Database, migrations: &Migrations) -> Confiture {
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
}

async fn table(rows: u32) -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    let create = format!(
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
         INSERT INTO t (n) SELECT 0 FROM generate_series(1, {rows})"
    );
    database.execute(&create).await?;
    Ok(database)
}

async fn advisory_locks(database: &Database) -> anyhow::Result<i64> {
    database
        .number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        .await
}

/// Waits for all of them; how many did the work, and how many found nothing to do.
async fn outcomes(processes: &mut [Process]) -> anyhow::Result<(usize, usize)> {
    let (mut worked, mut idle) = (0, 0);
    for process in processes {
        let status = process.wait(LONG).await?;
        assert!(status.success(), "{}", process.stderr());
        worked += usize::from(process.stdout().contains("migration applied"));
        idle += usize::from(process.stdout().contains("nothing to do"));
    }
    Ok((worked, idle))
}

#[tokio::test]
async fn of_ten_pods_one_works_and_another_goes_on_when_it_is_killed() -> anyhow::Result<()> {
    let database = table(4_000).await?;
    let steps = "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 100, pause: 1500ms } }\n";
    let migrations = Migrations::write(&[("001_count.yaml", steps)])?;
    let up = up(&database, &migrations);
    let mut pods: Vec<Process> = (0..10)
        .map(|n| up.start(&format!("pod {n}")))
        .collect::<Result<_, _>>()?;
    // Nine wait, and say for whom.
    let mut worker = 0;
    eventually("nine to wait for one", SOON, || {
        let waiting: Vec<bool> = (pods.iter())
            .map(|pod| pod.stderr().contains("waiting for confiture migrate up by"))
            .collect();
        async move { Ok((waiting.iter().filter(|waits| **waits).count() == 9).then_some(())) }
    })
    .await?;
    for (n, pod) in pods.iter().enumerate() {
        if !pod.stderr().contains("waiting for") {
            worker = n;
        }
    }
    let named = format!("(pid {})", pods[worker].pid());
    assert!(
        pods.iter()
            .enumerate()
            .all(|(n, pod)| n == worker || pod.stderr().contains(&named))
    );
    let partly = database.number("SELECT count(*) FROM t WHERE n = 1").await?;
    assert!(partly < 4_000, "it was met too late");
    assert_eq!(advisory_locks(&database).await?, 0);
    pods.swap_remove(worker).kill();

    assert_eq!(outcomes(&mut pods).await?, (1, 8));
    assert_eq!(database.number("SELECT count(*) FROM t WHERE n <> 1").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_file_that_runs_for_three_leases_is_run_once_and_killed_by_nobody() -> anyhow::Result<()> {
    let database = table(1).await?;
    let file = "SELECT pg_sleep(46);\nUPDATE t SET n = n + 1;\n";
    let migrations = Migrations::write(&[("001_long.up.sql", file)])?;
    let up = up(&database, &migrations);
    let mut pods: Vec<Process> = (0..3)
        .map(|n| up.start(&format!("pod {n}")))
        .collect::<Result<_, _>>()?;
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(advisory_locks(&database).await?, 0);
    assert_eq!(outcomes(&mut pods).await?, (1, 2));
    assert_eq!(database.number("SELECT count(*) FROM t WHERE n <> 1").await?, 0);
    assert!(pods.iter().all(|pod| !pod.stderr().contains("trying again")));
    Ok(())
}

#[tokio::test]
async fn a_frozen_holder_whose_range_is_not_committed_never_runs_a_batch() -> anyhow::Result<()> {
    let database = table(1_000).await?;
    let ready = Migrations::write(&[("000_ledger.up.sql", "CREATE TABLE warm_up ()")])?;
    up(&database, &ready).succeed().await?;
    let steps = "up:\n  - backfill: { table: t, set: { n: n + 1 } }\n";
    ready.put("001_count.yaml", steps)?;
    // The insert of the range waits for the end of this one with the same key, inside the transaction that holds the fence
    // row. Foreign keys are not looked at here: the step's record is not there yet.
    let gate = database.admin().await?;
    gate.batch_execute(
        "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO confiture.shard (set_name, version, direction, run, step, shard, epoch, token, local)
         VALUES ('default', '1', 'up', 1, 1, 0, 0, 0, 0)",
    )
    .await?;
    let mut frozen = up(&database, &ready).start("frozen")?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO confiture.shard%'";
    eventually("the insert to wait", SOON, || async {
        Ok((database.number(waiting).await? == 1).then_some(()))
    })
    .await?;
    frozen.freeze()?;
    gate.batch_execute("ROLLBACK").await?;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE '/*confiture%'";
    eventually("the range to be inserted and not committed", SOON, || async {
        Ok((database.number(idle).await? == 1).then_some(()))
    })
    .await?;

    let other = up(&database, &ready).arg("--take-over").succeed().await?;
    assert!(other.contains("1 migration applied"), "{other}");
    let done = "SELECT count(*) FROM t WHERE n = 1";
    assert_eq!(database.number(done).await?, 1_000);

    frozen.resume()?;
    let status = frozen.wait(SOON).await?;
    assert_eq!(status.code(), Some(4), "{}", frozen.stderr());
    assert!(frozen.stderr().contains("replaced"), "{}", frozen.stderr());
    assert_eq!(database.number(done).await?, 1_000);
    Ok(())
}

#[tokio::test]
async fn a_step_whose_range_was_done_when_its_holder_died_is_finished_by_the_next() -> anyhow::Result<()> {
    let database = table(1_000).await?;
    let set = Migrations::write(&[("000_ledger.up.sql", "CREATE TABLE warm_up ()")])?;
    up(&database, &set).succeed().await?;
    let steps = "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 1000, pause: 2s } }\n";
    set.put("001_count.yaml", steps)?;
    let mut killed = up(&database, &set).start("killed")?;
    let batches = "SELECT coalesce(max(sequence), 0) FROM confiture.shard";
    eventually("the first batch", SOON, || async {
        Ok((database.number(batches).await? == 1).then_some(()))
    })
    .await?;
    // The range is done in the next batch; the step's record waits for the fence row.
    let gate = database.connect().await?;
    gate.batch_execute("BEGIN; SELECT FROM confiture.fence FOR UPDATE")
        .await?;
    let done = "SELECT count(*) FROM confiture.shard WHERE state = 'done'";
    eventually("the range to be done", SOON, || async {
        Ok((database.number(done).await? == 1).then_some(()))
    })
    .await?;
    killed.kill();
    gate.batch_execute("ROLLBACK").await?;

    let ended = up(&database, &set).arg("--take-over").succeed().await?;
    assert!(ended.contains("1 migration applied"), "{ended}");
    assert_eq!(database.number("SELECT count(*) FROM t WHERE n <> 1").await?, 0);
    Ok(())
}

/// Ten migrations of all kinds of steps, with a way down for each.
const TEN: &[(&str, &str)] = &[
    (
        "01_tables.up.sql",
        "CREATE TABLE parts (id bigint PRIMARY KEY, name text, size int);\nINSERT INTO parts SELECT g, 'part ' || g, g % 9 FROM generate_series(1, 3000) g;",
    ),
    ("01_tables.down.sql", "DROP TABLE parts;"),
    (
        "02_note.yaml",
        "up:\n  - add_column: { table: parts, column: note, type: text }\n  - backfill: { table: parts, set: { note: \"name || '!'\" }, batch: { size: 500 } }\n  - set_not_null: { table: parts, column: note }\n",
    ),
    (
        "03_flag.yaml",
        "up:\n  - add_column: { table: parts, column: flag, type: boolean, default: \"false\", not_null: true }\n",
    ),
    (
        "04_count.yaml",
        "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 300 } }\ndown:\n  - backfill: { table: t, set: { n: n - 1 }, batch: { size: 300 } }\n",
    ),
    (
        "05_loose.yaml",
        "up:\n  - drop_not_null: { table: parts, column: note }\n",
    ),
    (
        "06_index.up.sql",
        "-- confiture: transaction=off\nCREATE INDEX CONCURRENTLY parts_size ON parts (size);\nALTER TABLE parts ADD CONSTRAINT size_is_small CHECK (size < 100);\n",
    ),
    (
        "06_index.down.sql",
        "-- confiture: transaction=off\nALTER TABLE parts DROP CONSTRAINT size_is_small;\nDROP INDEX CONCURRENTLY parts_size;\n",
    ),
    (
        "07_check.yaml",
        "up:\n  - assert: { query: \"SELECT count(*) = 3000 FROM parts\" }\n  - add_column: { table: parts, column: half, type: numeric }\n  - backfill: { table: parts, set: { half: size / 2.0 }, where: \"half IS NULL\", batch: { size: 700 } }\n",
    ),
    (
        "08_view.up.sql",
        "CREATE VIEW small AS SELECT id, half FROM parts WHERE size < 3;",
    ),
    ("08_view.down.sql", "DROP VIEW small;"),
    (
        "09_again.yaml",
        "up:\n  - backfill: { table: t, set: { n: n + 10 }, batch: { size: 400 } }\n  - sql: CREATE TABLE log (at timestamptz)\ndown:\n  - sql: DROP TABLE log\n  - backfill: { table: t, set: { n: n - 10 }, batch: { size: 400 } }\n",
    ),
    (
        "10_drop.yaml",
        "up:\n  - drop_column: { table: t, column: spare }\ndown:\n  - add_column: { table: t, column: spare, type: int }\n",
    ),
];

/// Schema and rows, but for the ledger.
async fn picture(database: &Database) -> anyhow::Result<String> {
    let text = Server::shared().await?.dump(database, &["confiture"]).await?;
    // A backfill moves rows within their table; newer dumps begin and end with a token of their own.
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('\\')).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

#[tokio::test]
async fn two_hundred_kills_over_ten_migrations_up_and_down_leave_no_trace() -> anyhow::Result<()> {
    const KILLS: u32 = 200;
    let migrations = Migrations::write(TEN)?;
    let fresh = async || -> anyhow::Result<Database> {
        let database = table(2_000).await?;
        database.execute("ALTER TABLE t ADD COLUMN spare int").await?;
        Ok(database)
    };
    let command = |database: &Database, words: &[&str]| {
        let all = ["migrate"]
            .iter()
            .chain(words)
            .chain(&["--take-over", "--migrations"]);
        Confiture::new(all)
            .arg(migrations.path())
            .env("DATABASE_URL", database.url())
    };
    let calm = fresh().await?;
    command(&calm, &["up"]).succeed().await?;
    let applied = picture(&calm).await?;
    command(&calm, &["down", "--steps", "10"]).succeed().await?;
    let undone = picture(&calm).await?;

    let database = fresh().await?;
    let (mut kills, mut rounds) = (0, 0);
    while kills < KILLS {
        for (words, expected) in [(&["up"][..], &applied), (&["down", "--steps", "10"][..], &undone)] {
            // As many kills as it takes, then once undisturbed: the last try may have been all but done.
            let most = rand::rng().random_range(8..24);
            for _ in 0..most {
                let mut process = command(&database, words).start("victim")?;
                let moment = Duration::from_millis(rand::rng().random_range(15..400));
                tokio::time::sleep(moment).await;
                if let Some(status) = process.ended()? {
                    assert!(
                        status.success(),
                        "{words:?} pid {}: {}",
                        process.pid(),
                        process.stderr()
                    );
                    break;
                }
                process.kill();
                kills += 1;
            }
            // `down --steps 10` after some are undone would go on below; here there are only ten.
            command(&database, words).succeed().await?;
            assert_eq!(
                &picture(&database).await?,
                expected,
                "after {words:?}, {kills} kills"
            );
        }
        rounds += 1;
    }
    assert!(rounds > 1);
    let verified = Confiture::new(["ledger", "verify"])
        .env("DATABASE_URL", database.url())
        .succeed()
        .await?;
    assert!(verified.contains("the ledger is as it must be"), "{verified}");
    Ok(())
}
