//! Agents that are drained, replaced, of another version, or share a database.

use proto::v1;
use proto::v1::agent_link_client::AgentLinkClient;
use proto::v1::{AssignmentState, RolloutState};
use std::time::Duration;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::postgres::Server;

const ROWS: i64 = 20_000;
const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(90);
const STORE: &str = "file:./confiture.redb";

/// Counts each row once, slowly enough to be met in the middle.
const COUNT: &str = "
up:
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 700ms } }
down:
  - backfill: { table: t, set: { n: n - 1 } }
";

/// A database with a table of many rows.
async fn member(name: &str) -> anyhow::Result<Vec<Member>> {
    let members = members(Server::shared().await?, &[name]).await?;
    let create = format!(
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
         INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
    );
    members[0].database.execute(&create).await?;
    Ok(members)
}

async fn found(coordinator: &Coordinator, migrations: &Migrations) -> anyhow::Result<String> {
    coordinator.rollout(migrations).succeed().await?;
    Ok(coordinator.rollouts().await?[0].id.clone())
}

async fn ends_done(coordinator: &Coordinator, id: &str) -> anyhow::Result<()> {
    let shown = coordinator.wait_for_end_of(id, LONG).await?;
    let rollout = shown.rollout.unwrap_or_default();
    assert_eq!(rollout.state(), RolloutState::Done, "{:?}", shown.assignments);
    Ok(())
}

async fn every_row_is_counted_once(member: &Member) -> anyhow::Result<()> {
    let number = |query| member.database.number(query);
    assert_eq!(number("SELECT count(*) FROM t WHERE n = 1").await?, ROWS);
    assert_eq!(number("SELECT count(*) FROM t").await?, ROWS);
    Ok(())
}

/// The agent that works on the only database of a rollout, once some batches are done.
async fn at_work(coordinator: &Coordinator, id: &str, member: &Member) -> anyhow::Result<String> {
    eventually("some batches", SOON, || async {
        let shown = coordinator.show(id).await?;
        let running = shown.assignments[0].state() == AssignmentState::Running;
        let table = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('confiture.shard')";
        let batches = "SELECT coalesce(max(sequence), 0) FROM confiture.shard WHERE state = 'open'";
        if !running || member.database.number(table).await? == 0 {
            return Ok(None);
        }
        let some = member.database.number(batches).await? > 1;
        Ok(some.then(|| shown.assignments[0].agent.clone()))
    })
    .await
}

/// Waits until a command's answer holds some words.
async fn says(coordinator: &Coordinator, command: &[&str], words: &str) -> anyhow::Result<()> {
    eventually(words, SOON, || async {
        let text = coordinator.command(command).succeed().await?;
        Ok(text.contains(words).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_drained_agent_gets_no_work_through_restarts_until_it_is_undrained() -> anyhow::Result<()> {
    let members = member("kept").await?;
    let mut coordinator = Coordinator::start("coordinator", STORE).await?;
    let mut agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["kept"]).await?;
    let drain = ["agent", "drain", "agent-a", "--reason", "a new host"];
    let said = coordinator.command(&drain).succeed().await?;
    assert!(said.contains("agent agent-a gets no new work since"), "{said}");
    let again = coordinator.command(&["agent", "drain", "agent-a"]).run().await?;
    assert!(
        again.stdout.contains(": a new host"),
        "the first record stays: {}",
        again.stdout
    );
    assert!(again.stderr.contains("nothing was changed"), "{}", again.stderr);

    let migrations = Migrations::write(&[("001_more.up.sql", "CREATE TABLE more ()")])?;
    let id = found(&coordinator, &migrations).await?;
    let waits = "only drained agents serve it (agent-a)";
    says(&coordinator, &["rollout", "show", &id], waits).await?;
    coordinator.kill()?;
    agent.kill()?;
    coordinator.restart().await?;
    agent.restart()?;
    coordinator.wait_for_databases(&["kept"]).await?;
    says(&coordinator, &["rollout", "show", &id], waits).await?;
    says(&coordinator, &["fleet", "agents"], "drained since").await?;
    let tables = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('more')";
    assert_eq!(members[0].database.number(tables).await?, 0);

    coordinator
        .command(&["agent", "undrain", "agent-a"])
        .succeed()
        .await?;
    ends_done(&coordinator, &id).await?;
    let listed = coordinator.command(&["fleet", "agents"]).succeed().await?;
    assert!(!listed.contains("drained"), "{listed}");
    assert_eq!(members[0].database.number(tables).await?, 1);
    Ok(())
}

#[tokio::test]
async fn work_of_an_agent_drained_now_is_continued_by_another_and_it_is_replaced() -> anyhow::Result<()> {
    let members = member("handed_over").await?;
    let coordinator = Coordinator::start("coordinator", STORE).await?;
    let mut agents = Vec::new();
    for id in ["agent-a", "agent-b"] {
        agents.push((id, Agent::start(id, &[&coordinator.url()], &members)?));
    }
    coordinator.wait_for_databases(&["handed_over"]).await?;
    eventually("both agents", SOON, || async {
        Ok((coordinator.databases().await?[0].agents.len() == 2).then_some(()))
    })
    .await?;
    let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
    let id = found(&coordinator, &migrations).await?;
    let first = at_work(&coordinator, &id, &members[0]).await?;
    let said = coordinator
        .command(&["agent", "drain", &first, "--now"])
        .run()
        .await?;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stderr.contains("handed_over stops between two batches"),
        "{}",
        said.stderr
    );
    let second = eventually("the other agent", SOON, || async {
        let now = at_work(&coordinator, &id, &members[0]).await?;
        Ok((now != first).then_some(now))
    })
    .await?;
    let partly = members[0]
        .database
        .number("SELECT count(*) FROM t WHERE n = 1")
        .await?;
    assert!(partly > 0 && partly < ROWS, "{partly} rows done");

    // The one that was at work first goes for good, and another takes its place; then the one at work now dies.
    agents.retain(|(id, _)| *id != first);
    let _third = Agent::start("agent-c", &[&coordinator.url()], &members)?;
    eventually("the new agent", SOON, || async {
        let serving = &coordinator.databases().await?[0].agents;
        Ok(serving.iter().any(|agent| agent == "agent-c").then_some(()))
    })
    .await?;
    agents.retain(|(id, _)| *id != second);
    ends_done(&coordinator, &id).await?;
    assert_eq!(coordinator.show(&id).await?.assignments[0].agent, "agent-c");
    every_row_is_counted_once(&members[0]).await
}

#[tokio::test]
async fn an_agent_of_another_version_is_told_so() -> anyhow::Result<()> {
    let coordinator = Coordinator::start("coordinator", STORE).await?;
    let (major, rest) = env!("CARGO_PKG_VERSION").split_once('.').unwrap_or_default();
    let minor: u32 = rest.split('.').next().unwrap_or_default().parse()?;
    let hello = |version: String| v1::AgentMessage {
        message: Some(v1::agent_message::Message::Hello(v1::Hello {
            agent_id: "agent-x".to_owned(),
            instance: "6f1c1a0e-6f0e-4a7e-8a53-0d2e6b1f6a11".to_owned(),
            version,
            ..v1::Hello::default()
        })),
    };
    let answer = async |version| {
        let mut client = AgentLinkClient::connect(coordinator.url()).await?;
        let said =
            tokio_stream::StreamExt::chain(tokio_stream::iter([hello(version)]), tokio_stream::pending());
        let mut answers = client.attach(said).await?.into_inner();
        anyhow::Ok((
            answers.message().await?.and_then(|answer| answer.message),
            answers,
        ))
    };
    let (apart, _) = answer(format!("{major}.{}.0", minor + 2)).await?;
    let Some(v1::coordinator_message::Message::Goodbye(goodbye)) = apart else {
        anyhow::bail!("not refused: {apart:?}")
    };
    assert!(
        goodbye.reason.contains("upgrade the coordinator first"),
        "{}",
        goodbye.reason
    );
    coordinator.wait_for_line("refused", SOON).await?;
    // Kept open, so that the agent stays in the list.
    let (near, _open) = eventually("a leader", SOON, || async {
        let (said, open) = answer(format!("{major}.{}.0", minor + 1)).await?;
        // Who does not lead yet sends everybody away.
        let away = matches!(said, Some(v1::coordinator_message::Message::Redirect(_)));
        Ok((!away).then_some((said, open)))
    })
    .await?;
    assert!(
        matches!(near, Some(v1::coordinator_message::Message::Welcome(_))),
        "{near:?}"
    );
    says(&coordinator, &["fleet", "agents"], "upgrade the coordinator next").await
}
