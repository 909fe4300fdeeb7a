//! What a probe sees of a real server, with all privileges and with none.

use agent::database::Database;
use agent::probe::{Error, Known, Probe};
use anyhow::Context as _;
use shared::batch::Sample;
use shared::fence::Fence;
use shared::sql::Tag;
use std::time::Duration;
use tests::postgres::{self, Options, SUPERUSER, Server};
use tests::{eventually, opened};

const SOON: Duration = Duration::from_secs(20);

const TAG: Tag = Tag {
    place: None,
    fence: Fence {
        epoch: 1,
        token: 2,
        local: 3,
    },
};

/// Counts for seconds, without waiting for anything: as a row source the function would write a file first.
const BUSY: &str = "SELECT count(*) FROM (SELECT generate_series(1, 200000000)) g";

/// As the superuser sees it.
fn all_seeing(server: &Server, database: &postgres::Database) -> anyhow::Result<Database> {
    opened(&server.url_as(SUPERUSER, server.password(), database.name()))
}

async fn sample(database: &Database, relations: &[u32]) -> anyhow::Result<Sample> {
    let mut probe = Probe::new(TAG, relations.to_vec(), None);
    Ok(probe.sample(database, Known::default()).await?)
}

/// Probes until something is seen.
async fn seen(
    what: &str,
    database: &Database,
    relations: &[u32],
    there: impl Fn(&Sample) -> bool,
) -> anyhow::Result<Sample> {
    let there = &there;
    eventually(what, SOON, || async move {
        let sample = sample(database, relations).await?;
        Ok(there(&sample).then_some(sample))
    })
    .await
}

/// Runs a statement in a session of its own, until it is dropped.
fn in_background(session: postgres::Session, statement: String) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { drop(session.batch_execute(&statement).await) })
}

async fn oid(database: &postgres::Database, table: &str) -> anyhow::Result<u32> {
    let query = format!("SELECT '{table}'::regclass::oid::bigint");
    Ok(u32::try_from(database.number(&query).await?)?)
}

#[tokio::test]
async fn who_waits_for_a_lock_of_ours_is_seen_and_who_waits_for_others_is_not() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute("CREATE TABLE a (); CREATE TABLE b ()").await?;
    let (ours, others) = (database.connect().await?, database.connect().await?);
    let lock = "BEGIN; LOCK TABLE a";
    ours.batch_execute(&format!("{TAG}{lock}")).await?;
    others.batch_execute("BEGIN; LOCK TABLE b").await?;
    let agents = opened(database.url())?;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let admin = database.admin().await?;
    let admin = &admin;

    in_background(database.connect().await?, "SELECT FROM b".to_owned());
    eventually("one to wait", SOON, || async move {
        Ok((admin.number(waiting).await? == 1).then_some(()))
    })
    .await?;
    assert_eq!(sample(&agents, &[]).await?.lock_wait, Some(Duration::ZERO));

    // Of another role: nothing of it is visible but that it waits.
    in_background(database.admin().await?, "SELECT FROM a".to_owned());
    let long = Duration::from_millis(200);
    let sample = seen("the wait behind us", &agents, &[], |sample| {
        sample.lock_wait >= Some(long)
    })
    .await?;
    assert!(sample.lock_wait < Some(SOON), "{sample:?}");
    Ok(())
}

#[tokio::test]
async fn sessions_of_others_that_compute_are_counted() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("orders").await?;
    let agents = all_seeing(&server, &database)?;
    assert_eq!(sample(&agents, &[]).await?.active, Some(0));

    in_background(database.connect().await?, BUSY.to_owned());
    seen("a busy session", &agents, &[], |sample| sample.active == Some(1)).await?;

    // One of ours computes too, and is not one of others.
    in_background(database.connect().await?, format!("{TAG}{BUSY}"));
    let admin = &server.admin("postgres").await?;
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%200000000%' \
                  AND pid <> pg_backend_pid()";
    eventually("two busy sessions", SOON, || async move {
        Ok((admin.number(active).await? == 2).then_some(()))
    })
    .await?;
    assert_eq!(sample(&agents, &[]).await?.active, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_role_without_privileges_gets_what_is_public_and_no_error() -> anyhow::Result<()> {
    let server = Server::start_with(Options::default().setting("archive_mode", "on")).await?;
    let database = server.database("orders").await?;
    let other = server.admin(database.name()).await?;
    other
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        .await?;
    let hidden = sample(&opened(database.url())?, &[]).await?;
    let all = sample(&all_seeing(&server, &database)?, &[]).await?;

    let those = |sample: &Sample| (sample.active, sample.commit_waiters, sample.archive_files);
    assert_eq!(those(&hidden), (None, None, None));
    assert_eq!(hidden.oldest_snapshot, None);
    assert_eq!(those(&all), (Some(0), Some(0), Some(0)));
    assert!(all.oldest_snapshot > Some(Duration::ZERO), "{all:?}");
    for sample in [hidden, all] {
        assert_eq!(sample.replica_lag, Some(Duration::ZERO));
        assert_eq!(sample.replica_bytes, Some(0));
        assert_eq!(sample.slot_bytes, Some(0));
        assert_eq!(sample.lock_wait, Some(Duration::ZERO));
        assert_eq!(sample.max_wal_bytes, Some(1 << 30));
        assert_eq!((sample.vacuums, sample.archive_failing), (Some(0), Some(false)));
        assert!(
            sample.wal_bytes > Some(0) && sample.checkpoints.is_some(),
            "{sample:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_vacuum_of_the_table_is_seen_by_everybody_and_one_of_another_table_is_not() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    let database = server.fresh_database().await?;
    database
        .execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 50000) g; CREATE TABLE other (); DELETE FROM t WHERE g % 2 = 0; \
                  CREATE TABLE other_t AS SELECT g FROM generate_series(1, 50000) g; DELETE FROM other_t WHERE g % 2 = 0")
        .await?;
    let (table, other) = (oid(&database, "t").await?, oid(&database, "other").await?);
    let agents = opened(database.url())?;
    let session = database.admin().await?;
    session
        .batch_execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
        .await?;
    in_background(session, "VACUUM t".to_owned());

    seen("the vacuum", &agents, &[other, table], |sample| {
        sample.vacuums == Some(1)
    })
    .await?;
    // It reads a snapshot as well, but keeps nobody's rows.
    let all = sample(&all_seeing(server, &database)?, &[table]).await?;
    assert_eq!(
        (all.vacuums, all.oldest_snapshot),
        (Some(1), Some(Duration::ZERO))
    );
    assert_eq!(sample(&agents, &[other]).await?.vacuums, Some(0));

    // One of ours is no reason to hold the pace that asked for it.
    let ours = database.connect().await?;
    ours.batch_execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
        .await?;
    in_background(ours, format!("{TAG}VACUUM other_t"));
    let running = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'other_t'::regclass";
    let session = &database.connect().await?;
    eventually("our vacuum", SOON, || async move {
        Ok((session.number(running).await? == 1).then_some(()))
    })
    .await?;
    let both = [table, oid(&database, "other_t").await?];
    assert_eq!(sample(&agents, &both).await?.vacuums, Some(1));
    let admin = database.admin().await?;
    admin
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_vacuum")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_replica_that_stands_still_is_seen_and_no_more_once_it_goes_on() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let standby = server.standby().await?;
    let database = server.database("orders").await?;
    let agents = all_seeing(&server, &database)?;
    seen("the replica to be up to date", &agents, &[], |sample| {
        sample.replica_bytes == Some(0)
    })
    .await?;
    let replica = standby.admin("postgres").await?;
    replica.batch_execute("SELECT pg_wal_replay_pause()").await?;
    database
        .execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g")
        .await?;
    seen("the replica to be behind", &agents, &[], |sample| {
        sample.replica_bytes > Some(500_000)
    })
    .await?;
    // Who may not see it does not take it for well.
    let hidden = sample(&opened(database.url())?, &[]).await?;
    assert_eq!((hidden.replica_lag, hidden.replica_bytes), (None, None));

    replica.batch_execute("SELECT pg_wal_replay_resume()").await?;
    seen("the replica to be up to date again", &agents, &[], |sample| {
        sample.replica_bytes == Some(0) && sample.replica_lag > Some(Duration::ZERO)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn an_archive_that_fails_is_seen() -> anyhow::Result<()> {
    let options = Options::default()
        .setting("archive_mode", "on")
        .setting("archive_command", "false");
    let server = Server::start_with(options).await?;
    let database = server.database("orders").await?;
    server
        .admin("postgres")
        .await?
        .batch_execute("SELECT pg_switch_wal()")
        .await?;
    let failing = |sample: &Sample| sample.archive_failing == Some(true);
    let hidden = seen("archiving to fail", &opened(database.url())?, &[], failing).await?;
    assert_eq!(hidden.archive_files, None);
    let all = sample(&all_seeing(&server, &database)?, &[]).await?;
    assert!(all.archive_files >= Some(1), "{all:?}");
    Ok(())
}

#[tokio::test]
async fn wal_that_a_slot_keeps_is_seen_by_everybody() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("orders").await?;
    let agents = opened(database.url())?;
    let admin = server.admin("postgres").await?;
    admin
        .batch_execute("SELECT pg_create_physical_replication_slot('left_behind', true)")
        .await?;
    let before = sample(&agents, &[]).await?;
    database
        .execute("CREATE TABLE t AS SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
        .await?;
    let after = sample(&agents, &[]).await?;
    let kept = after.slot_bytes.unwrap_or(0) - before.slot_bytes.unwrap_or(0);
    let written = after.wal_bytes.unwrap_or(0) - before.wal_bytes.unwrap_or(0);
    assert!(kept > 2_000_000, "{before:?} {after:?}");
    assert!(written > 2_000_000, "{before:?} {after:?}");

    admin
        .batch_execute("SELECT pg_drop_replication_slot('left_behind')")
        .await?;
    assert_eq!(sample(&agents, &[]).await?.slot_bytes, Some(0));
    Ok(())
}

#[tokio::test]
async fn sessions_that_wait_for_their_commit_are_counted() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("orders").await?;
    database.execute("CREATE TABLE t (n int)").await?;
    let agents = all_seeing(&server, &database)?;
    let admin = server.admin("postgres").await?;
    let standbys = async |names: &str| {
        admin
            .batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
            .await?;
        admin.batch_execute("SELECT pg_reload_conf()").await
    };
    standbys("nobody").await?;
    // The server takes the setting up a moment later, so each tries until it waits.
    for _ in 0..2 {
        let session = database.connect().await?;
        tokio::spawn(async move {
            while session.batch_execute("INSERT INTO t VALUES (1)").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    seen("two to wait", &agents, &[], |sample| {
        sample.commit_waiters == Some(2)
    })
    .await?;
    // They are of the agent's own role, which needs no privilege to see them.
    let own = sample(&opened(database.url())?, &[]).await?;
    assert_eq!(own.commit_waiters, Some(2));

    standbys("").await?;
    seen("nobody to wait", &agents, &[], |sample| {
        sample.commit_waiters == Some(0)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_before_its_time_is_counted() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("orders").await?;
    let agents = opened(database.url())?;
    let before = sample(&agents, &[]).await?.checkpoints.context("no count")?;
    server
        .admin("postgres")
        .await?
        .batch_execute("CHECKPOINT")
        .await?;
    seen("a checkpoint more", &agents, &[], |sample| {
        sample.checkpoints > Some(before)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn the_operators_query_may_ask_but_not_write() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute("CREATE TABLE t (n int); CREATE SEQUENCE s")
        .await?;
    let agents = opened(database.url())?;
    let answer = async |query: &str| {
        let mut probe = Probe::new(TAG, Vec::new(), Some(query.to_owned()));
        let known = Known {
            pool_waiters: Some(7),
            commit_latency: Some(Duration::from_millis(3)),
        };
        probe.sample(&agents, known).await
    };
    let sample = answer("SELECT 2.5 -- always").await?;
    assert_eq!(sample.operator, Some(2.5));
    assert_eq!(sample.pool_waiters, Some(7));
    assert_eq!(sample.commit_latency, Some(Duration::from_millis(3)));
    assert!(sample.took > Some(Duration::ZERO));
    assert_eq!(answer("SELECT count(*) > 0 FROM t").await?.operator, Some(0.0));
    assert_eq!(answer("SELECT n FROM t").await?.operator, None);

    for (query, words) in [
        ("SELECT 'much'", "gives no number"),
        ("SELECT nextval('none')", "does not exist"),
        ("SELECT nextval('s')", "read-only transaction"),
        ("SELECT pg_sleep(9)", "statement timeout"),
        ("SELECT 1); DROP TABLE t; SELECT (1", "multiple commands"),
    ] {
        let error = answer(query).await.err().context(query)?;
        let told = error
            .health()
            .worst
            .map(|cause| cause.to_string())
            .unwrap_or_default();
        assert!(
            told.starts_with("the probe failed: ") && told.contains(words),
            "{told}"
        );
        assert!(!told.contains('\n'), "{told}");
    }
    assert_eq!(database.number("SELECT count(*) FROM t").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_is_no_answer() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let database = server.database("orders").await?;
    let agents = opened(database.url())?;
    let mut probe = Probe::new(TAG, Vec::new(), None);
    probe.sample(&agents, Known::default()).await?;
    server.freeze()?;
    let frozen = probe.sample(&agents, Known::default()).await;
    server.thaw()?;
    assert!(matches!(frozen, Err(Error::Late(_))), "{frozen:?}");
    // The connection in doubt is gone, and the next probe has another.
    probe.sample(&agents, Known::default()).await?;
    Ok(())
}
