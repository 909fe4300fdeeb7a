//! Databases whose agent is away, for a while or for good.

use super::{COUNT, CREATE, Fleet, ROWS, SOON};
use proto::v1::{AssignmentState, RolloutState};
use std::time::Duration;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, members};
use tests::postgres::Server;

/// Longer than a database without an agent is waited for where the policy skips it.
const LEFT_OUT: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_database_that_is_gone_is_forgotten_and_is_back_with_its_agent() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(&["forgotten_1", "forgotten_2"]).await?;
    let forget = |fleet: &Fleet, name: &str| {
        let words = ["fleet", "forget", name, "--reason", "the tenant left"];
        fleet.coordinator.command(&words)
    };
    let served = forget(&fleet, "forgotten_1").run().await?;
    assert_eq!(served.code, Some(3), "{}", served.stderr);
    assert!(
        served.stderr.contains("agent agent-a serves"),
        "{}",
        served.stderr
    );
    let unknown = forget(&fleet, "forgotten_11").run().await?;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("did you mean `forgotten_1`?"),
        "{}",
        unknown.stderr
    );

    // The agent goes on without one of them; a rollout waits for that one.
    fleet.agent.stop().await?;
    let url = fleet.coordinator.url();
    let mut rest = Agent::start("agent-b", &[&url], &fleet.members[1..])?;
    fleet.coordinator.wait_for_databases(&["forgotten_2"]).await?;
    let id = fleet.rollout(CREATE, "{}").await?;
    let waits = fleet.says(&id, "no agent that serves it is connected").await?;
    for advice in ["rollout skip", "unreachable: skip", "fleet forget"] {
        assert!(waits.contains(advice), "{advice}: {waits}");
    }
    let unfinished = forget(&fleet, "forgotten_1").run().await?;
    assert_eq!(unfinished.code, Some(3), "{}", unfinished.stderr);
    let advice = format!("rollout skip {id} forgotten_1");
    assert!(unfinished.stderr.contains(&advice), "{}", unfinished.stderr);
    fleet
        .ask(&["skip", &id, "forgotten_1", "--reason", "it is gone"])
        .await?;
    fleet.is(&id, RolloutState::Done).await?;

    let said = forget(&fleet, "forgotten_1").succeed().await?;
    assert!(said.contains("database forgotten_1 is forgotten since"), "{said}");
    let again = forget(&fleet, "forgotten_1").run().await?;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("nothing was changed"), "{}", again.stderr);
    fleet.coordinator.kill()?;
    fleet.coordinator.restart().await?;
    fleet.coordinator.wait_for_databases(&["forgotten_2"]).await?;
    let listed = fleet
        .coordinator
        .command(&["fleet", "databases"])
        .succeed()
        .await?;
    assert!(!listed.contains("forgotten_1"), "{listed}");
    let record = ["fleet", "databases", "--forgotten"];
    let record = fleet.coordinator.command(&record).succeed().await?;
    assert!(record.contains("the tenant left"), "{record}");
    let all = fleet.rollout(CREATE, "{}").await?;
    fleet.is(&all, RolloutState::Done).await?;

    rest.stop().await?;
    let _both = Agent::start("agent-a", &[&url], &fleet.members)?;
    let names = ["forgotten_1", "forgotten_2"];
    fleet.coordinator.wait_for_databases(&names).await?;
    let record = ["fleet", "databases", "--forgotten"];
    let record = fleet.coordinator.command(&record).run().await?;
    assert!(
        record.stderr.contains("no database was forgotten"),
        "{}",
        record.stderr
    );
    Ok(())
}

#[tokio::test]
async fn a_database_whose_agent_was_killed_says_so_until_its_lease_ends() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(&["killed"]).await?;
    fleet.fill().await?;
    let id = fleet.rollout(COUNT, "{}").await?;
    fleet.says(&id, "backfill").await?;
    fleet.agent.kill()?;
    let text = fleet.says(&id, "its agent is not connected since").await?;
    assert!(text.contains("last known: 001 count: step 1 of 1"), "{text}");
    let json = fleet.ask(&["show", &id, "--output", "json"]).await?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let of = &json["databases"][0];
    assert!(of["agent_gone_since_unix_ms"].as_u64() > Some(0), "{of}");
    fleet.agent.restart()?;
    eventually("it goes on", SOON, || async {
        let (_, all) = fleet.show(&id).await?;
        let goes_on = all[0].agent_gone_since_unix_ms == 0 && all[0].state() == AssignmentState::Running;
        Ok(goes_on.then_some(()))
    })
    .await?;
    let (_, all) = fleet.show(&id).await?;
    assert_eq!(all[0].error, "", "a lost lease is no error");
    assert!(all[0].interrupted.contains("lost its lease"), "{all:?}");
    fleet.is(&id, RolloutState::Done).await?;
    assert_eq!(
        fleet
            .number("killed", "SELECT count(*) FROM t WHERE n = 1")
            .await?,
        ROWS
    );
    Ok(())
}

#[tokio::test]
async fn databases_without_an_agent_hold_a_rollout_up_or_are_left_out() -> anyhow::Result<()> {
    let members = members(Server::shared().await?, &["lonely_1", "lonely_2"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let names = ["lonely_1", "lonely_2"];
    let mut agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&names).await?;
    agent.stop().await?;
    let mut fleet = Fleet {
        agent: Agent::start("agent-b", &[&coordinator.url()], &members[..1])?,
        members,
        coordinator,
    };
    fleet.coordinator.wait_for_databases(&["lonely_1"]).await?;
    let waits = fleet.rollout(CREATE, "unreachable: wait").await?;
    fleet
        .says(&waits, "no agent that serves it is connected (known: agent-a)")
        .await?;
    fleet.ask(&["abort", &waits]).await?;
    fleet.is(&waits, RolloutState::Aborted).await?;

    let skips = fleet.rollout(CREATE, "unreachable: skip").await?;
    let text = fleet.says(&skips, "it will be left out at 2").await?;
    assert!(text.contains("as the policy says"), "{text}");
    eventually("the end", LEFT_OUT, || async {
        let (rollout, _) = fleet.show(&skips).await?;
        Ok((rollout.state() == RolloutState::Done).then_some(()))
    })
    .await?;
    assert_eq!(fleet.names(&skips, AssignmentState::Skipped).await?, ["lonely_2"]);
    fleet.agent.stop().await?;
    Ok(())
}
