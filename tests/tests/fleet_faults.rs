//! A fleet on its bad days: agents, coordinators, servers and etcd die, freeze and come back. Rows are changed exactly
//! once, and rollouts end without a person.

use proto::v1::{AssignmentState, RolloutState};
use std::time::Duration;
use tests::etcd::Etcd;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::postgres::{Server, Shutdown};

const ROWS: i64 = 60_000;
const SOON: Duration = Duration::from_secs(30);
/// To the next boundary of a batch, and what it takes to say so.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A rollout over a fault: the longest lease, the work, and room for a slow machine.
const LONG: Duration = Duration::from_mins(2);

/// Counts each row once, slowly enough to be met in the middle, and proves it in the next step.
const COUNT: &str = "
up:
  - add_column: { table: t, column: note, type: text }
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 700ms } }
  - backfill: { table: t, set: { note: \"'x' || n\" }, batch: { max_duty: 1 } }
  - set_not_null: { table: t, column: note }
";

fn count() -> anyhow::Result<Migrations> {
    Migrations::write(&[("confiture.set.yaml", "set: audit\n"), ("001_count.yaml", COUNT)])
}

/// Databases of one server, each with its table.
async fn tables(server: &Server, names: &[&str]) -> anyhow::Result<Vec<Member>> {
    let members = members(server, names).await?;
    for member in &members {
        let create = format!(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
             INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
        );
        member.database.execute(&create).await?;
    }
    Ok(members)
}

async fn everything_once(members: &[Member]) -> anyhow::Result<()> {
    for member in members {
        let wrong = "SELECT count(*) FROM t WHERE n <> 1 OR note IS DISTINCT FROM 'x1'";
        assert_eq!(
            member.database.number(wrong).await?,
            0,
            "{}: rows lost or changed twice",
            member.name
        );
        let runs = "SELECT count(*) FROM confiture.run WHERE state = 'complete'";
        assert_eq!(member.database.number(runs).await?, 1, "{}: runs", member.name);
    }
    Ok(())
}

/// Batches committed so far by the slow step.
async fn batches(member: &Member) -> anyhow::Result<i64> {
    member
        .database
        .number("SELECT coalesce(max(sequence), 0) FROM confiture.shard WHERE step = 2")
        .await
}

async fn in_the_middle(member: &Member) -> anyhow::Result<()> {
    eventually("some batches", SOON, || async {
        Ok((batches(member).await? > 1).then_some(()))
    })
    .await
}

/// Starts a rollout for all databases and gives its id.
async fn start(coordinator: &Coordinator, migrations: &Migrations) -> anyhow::Result<String> {
    let before = coordinator.rollouts().await?.len();
    coordinator.rollout(migrations).succeed().await?;
    // A follower hears of it a moment later.
    eventually("the new rollout", SOON, || async {
        let rollouts = coordinator.rollouts().await?;
        Ok((rollouts.len() == before + 1).then(|| rollouts[0].id.clone()))
    })
    .await
}

async fn ends_done(coordinator: &Coordinator, id: &str) -> anyhow::Result<()> {
    let shown = coordinator.wait_for_end_of(id, LONG).await?;
    let rollout = shown.rollout.unwrap_or_default();
    assert_eq!(
        rollout.state(),
        RolloutState::Done,
        "{shown:?}",
        shown = shown.assignments
    );
    Ok(())
}

fn short_leases(settings: &mut serde_json::Value) {
    settings["coordinator"]["leader_lease"] = "2s".into();
    settings["coordinator"]["agent_lease"] = "17s".into();
}

#[tokio::test]
async fn an_agent_killed_inside_a_batch_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let members = tables(Server::shared().await?, &["killed_inside"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let mut agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["killed_inside"]).await?;
    let id = start(&coordinator, &count()?).await?;
    in_the_middle(&members[0]).await?;
    let holder = members[0].database.connect().await?;
    let last = format!("BEGIN; SELECT * FROM t WHERE id = {ROWS} FOR UPDATE");
    holder.batch_execute(&last).await?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '/*confiture%UPDATE%'";
    let database = &members[0].database;
    eventually("a batch that waits", SOON, || async {
        Ok((database.number(waiting).await? > 0).then_some(()))
    })
    .await?;

    agent.kill()?;
    holder.batch_execute("ROLLBACK").await?;
    agent.restart()?;

    ends_done(&coordinator, &id).await?;
    everything_once(&members).await
}

#[tokio::test]
async fn an_agent_killed_before_its_report_does_not_run_it_again() -> anyhow::Result<()> {
    let members = tables(Server::shared().await?, &["killed_before_report"]).await?;
    let mut coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let mut agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["killed_before_report"]).await?;
    let soon_done = COUNT.replace("700ms", "200ms");
    let set = Migrations::write(&[
        ("confiture.set.yaml", "set: audit\n"),
        ("001_count.yaml", &soon_done),
    ])?;
    let id = start(&coordinator, &set).await?;
    in_the_middle(&members[0]).await?;

    // A frozen coordinator hears no report; the lease lives long enough for the work to end.
    coordinator.freeze()?;
    let database = &members[0].database;
    let complete = "SELECT count(*) FROM confiture.run WHERE state = 'complete'";
    eventually("the run to end", LONG, || async {
        Ok((database.number(complete).await? == 1).then_some(()))
    })
    .await?;
    agent.kill()?;
    coordinator.thaw()?;
    agent.restart()?;

    ends_done(&coordinator, &id).await?;
    everything_once(&members).await
}

#[tokio::test]
async fn a_frozen_agent_is_replaced_and_says_so_when_it_wakes() -> anyhow::Result<()> {
    let members = tables(Server::shared().await?, &["frozen"]).await?;
    let coordinator = Coordinator::start_with("coordinator", "file:./confiture.redb", short_leases).await?;
    let mut first = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["frozen"]).await?;
    let id = start(&coordinator, &count()?).await?;
    in_the_middle(&members[0]).await?;
    first.freeze()?;
    let _second = Agent::start("agent-b", &[&coordinator.url()], &members)?;

    ends_done(&coordinator, &id).await?;
    everything_once(&members).await?;

    first.thaw()?;
    first.wait_for_line("replaced", SOON).await?;
    everything_once(&members).await
}

#[tokio::test]
async fn a_server_restarted_in_mid_backfill_needs_no_person() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let members = tables(&server, &["orders", "billing"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["orders", "billing"]).await?;
    let id = start(&coordinator, &count()?).await?;
    in_the_middle(&members[0]).await?;

    server.restart(Shutdown::Immediate).await?;

    ends_done(&coordinator, &id).await?;
    everything_once(&members).await
}

/// The coordinator dies in mid-rollout: batches go on without it, and the same rollout is finished after its return.
async fn coordinator_dies(store: &str, databases: [&str; 2]) -> anyhow::Result<()> {
    let members = tables(Server::shared().await?, &databases).await?;
    let mut coordinator = Coordinator::start("coordinator", store).await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&databases).await?;
    let id = start(&coordinator, &count()?).await?;
    in_the_middle(&members[0]).await?;

    coordinator.kill()?;
    let before = batches(&members[0]).await?;
    eventually("batches without a coordinator", SOON, || async {
        Ok((batches(&members[0]).await? > before + 1).then_some(()))
    })
    .await?;
    coordinator.restart().await?;

    ends_done(&coordinator, &id).await?;
    assert_eq!(coordinator.rollouts().await?.len(), 1);
    everything_once(&members).await
}

#[tokio::test]
async fn a_killed_coordinator_with_one_file_finishes_its_rollout() -> anyhow::Result<()> {
    coordinator_dies("file:./confiture.redb", ["file_orders", "file_billing"]).await
}

#[tokio::test]
async fn a_killed_coordinator_with_etcd_finishes_its_rollout() -> anyhow::Result<()> {
    let etcd = Etcd::start().await?;
    coordinator_dies(
        &format!("etcd://{}", etcd.address()),
        ["etcd_orders", "etcd_billing"],
    )
    .await
}

#[tokio::test]
async fn a_follower_answers_reads_points_to_the_leader_and_leads_after_it() -> anyhow::Result<()> {
    let etcd = Etcd::start().await?;
    let store = format!("etcd://{}", etcd.address());
    let members = tables(Server::shared().await?, &["two_leaders"]).await?;
    let mut leader = Coordinator::start_with("leader", &store, short_leases).await?;
    let follower = Coordinator::start_with("follower", &store, short_leases).await?;
    // The agent knows the follower only; it is led to the leader.
    let _agent = Agent::start("agent-a", &[&follower.url()], &members)?;
    leader.wait_for_databases(&["two_leaders"]).await?;

    // The command asks the follower, which points it to the leader.
    let id = start(&follower, &count()?).await?;
    in_the_middle(&members[0]).await?;
    let seen = follower.show(&id).await?;
    assert_eq!(seen.rollout.unwrap_or_default().state(), RolloutState::Running);
    leader.kill()?;

    ends_done(&follower, &id).await?;
    everything_once(&members).await
}

#[tokio::test]
async fn etcd_away_for_twenty_seconds_loses_nothing() -> anyhow::Result<()> {
    let mut etcd = Etcd::start().await?;
    let members = tables(Server::shared().await?, &["no_etcd_a", "no_etcd_b"]).await?;
    let coordinator = Coordinator::start("coordinator", &format!("etcd://{}", etcd.address())).await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator
        .wait_for_databases(&["no_etcd_a", "no_etcd_b"])
        .await?;
    let id = start(&coordinator, &count()?).await?;
    in_the_middle(&members[0]).await?;

    etcd.stop().await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    etcd.resume().await?;

    ends_done(&coordinator, &id).await?;
    everything_once(&members).await
}

#[tokio::test]
async fn the_same_request_is_one_rollout_and_nothing_to_do_needs_no_lease() -> anyhow::Result<()> {
    let members = tables(Server::shared().await?, &["idempotent_a", "idempotent_b"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator
        .wait_for_databases(&["idempotent_a", "idempotent_b"])
        .await?;
    let migrations = count()?;
    for _ in 0..2 {
        coordinator
            .rollout(&migrations)
            .arg("--request-id")
            .arg("release-7")
            .arg("--watch")
            .succeed()
            .await?;
    }
    assert_eq!(coordinator.rollouts().await?.len(), 1);
    let fence = "SELECT token FROM confiture.fence";
    let before = members[0].database.number(fence).await?;

    let again = coordinator.rollout(&migrations).arg("--watch").run().await?;

    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(coordinator.rollouts().await?.len(), 2);
    assert_eq!(
        members[0].database.number(fence).await?,
        before,
        "a lease was taken for nothing"
    );
    everything_once(&members).await
}

#[tokio::test]
async fn one_failing_database_fails_alone_and_is_explained() -> anyhow::Result<()> {
    let members = members(Server::shared().await?, &["fails_alone", "works_a", "works_b"]).await?;
    for member in &members[1..] {
        member
            .database
            .execute("CREATE TABLE only_here (id int PRIMARY KEY)")
            .await?;
    }
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator
        .wait_for_databases(&["fails_alone", "works_a", "works_b"])
        .await?;
    let migrations = Migrations::write(&[(
        "001_bad.up.sql",
        "CREATE TABLE left_behind ();\nINSERT INTO only_here VALUES (1);\n",
    )])?;

    let ended = coordinator.rollout(&migrations).arg("--watch").run().await?;

    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let id = coordinator.rollouts().await?[0].id.clone();
    let shown = coordinator.show(&id).await?;
    for assignment in &shown.assignments {
        let expected = if assignment.database == "fails_alone" {
            AssignmentState::Failed
        } else {
            AssignmentState::Done
        };
        assert_eq!(assignment.state(), expected, "{assignment:?}");
    }
    let text = coordinator.command(&["rollout", "show", &id]).succeed().await?;
    assert!(
        text.contains("fails_alone") && text.contains("relation \"only_here\" does not exist"),
        "{text}"
    );
    assert!(text.contains("001_bad.up.sql:2:13"), "{text}");
    let left = "SELECT count(*) FROM pg_class WHERE relname = 'left_behind'";
    assert_eq!(members[0].database.number(left).await?, 0);
    assert_eq!(members[1].database.number(left).await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_aborted_rollout_stops_between_batches_and_a_new_one_goes_on() -> anyhow::Result<()> {
    let members = tables(Server::shared().await?, &["aborted"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["aborted"]).await?;
    let migrations = count()?;
    let id = start(&coordinator, &migrations).await?;
    in_the_middle(&members[0]).await?;

    coordinator
        .command(&["rollout", "abort", &id, "--reason", "lunch"])
        .succeed()
        .await?;
    let shown = coordinator.wait_for_end_of(&id, AT_ONCE).await?;
    assert_eq!(shown.rollout.unwrap_or_default().state(), RolloutState::Aborted);
    let said = coordinator.command(&["rollout", "show", &id]).succeed().await?;
    assert!(said.contains("stopped on the way"), "{said}");
    let complete = "SELECT count(*) FROM confiture.run WHERE state = 'complete'";
    assert_eq!(
        members[0].database.number(complete).await?,
        0,
        "it was stopped in the middle"
    );

    let second = start(&coordinator, &migrations).await?;
    ends_done(&coordinator, &second).await?;
    everything_once(&members).await
}
