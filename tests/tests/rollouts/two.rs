//! Two coordinators: what the one that does not lead says, and agents that are drained through it.

use super::{COUNT, ROWS, SOON};
use proto::v1::{self, AssignmentState, GetRolloutResponse, RolloutState};
use std::time::Duration;
use tests::etcd::Etcd;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::postgres::Server;

/// A rollout in the middle of its work, with a coordinator that leads and one that does not.
struct Pair {
    leader: Coordinator,
    follower: Coordinator,
    members: Vec<Member>,
    _agents: Vec<Agent>,
    rollout: String,
}

impl Pair {
    /// With agents that serve the database.
    async fn start(name: &str, agents: &[&str]) -> anyhow::Result<Self> {
        let members = members(Server::shared().await?, &[name]).await?;
        let create = format!(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
             INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
        );
        members[0].database.execute(&create).await?;
        let store = Etcd::shared().await?.store(&Etcd::fresh_prefix());
        let short_leases = |settings: &mut serde_json::Value| {
            settings["coordinator"]["leader_lease"] = "4s".into();
            settings["coordinator"]["agent_lease"] = "19s".into();
        };
        let north = Coordinator::start_with("north", &store, short_leases).await?;
        let south = Coordinator::start_with("south", &store, short_leases).await?;
        let urls = [north.url(), south.url()];
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let agents = agents.iter().map(|id| Agent::start(id, &urls, &members));
        let agents = agents.collect::<anyhow::Result<Vec<_>>>()?;
        north.wait_for_databases(&[name]).await?;
        north.rollout(&Migrations::write(COUNT)?).succeed().await?;
        let rollout = north.rollouts().await?[0].id.clone();
        let leads = eventually("a leader", SOON, || async {
            for (place, one) in [&north, &south].into_iter().enumerate() {
                if leads(one, &rollout).await? {
                    return Ok(Some(place));
                }
            }
            Ok(None)
        })
        .await?;
        let (leader, follower) = if leads == 0 {
            (north, south)
        } else {
            (south, north)
        };
        Ok(Self {
            leader,
            follower,
            members,
            _agents: agents,
            rollout,
        })
    }

    /// What the follower says, once it satisfies.
    async fn follower_shows(
        &self,
        what: &str,
        is: impl Fn(&GetRolloutResponse) -> bool,
    ) -> anyhow::Result<GetRolloutResponse> {
        eventually(what, SOON, || async {
            let shown = self.follower.show(&self.rollout).await?;
            Ok(is(&shown).then_some(shown))
        })
        .await
    }
}

/// Whether a coordinator leads: only the leader takes a request to change something.
async fn leads(coordinator: &Coordinator, rollout: &str) -> anyhow::Result<bool> {
    let nothing = v1::ControlRolloutRequest {
        id: rollout.to_owned(),
        verb: Some(v1::Verb {
            verb: Some(v1::verb::Verb::Resume(v1::verb::Resume {})),
        }),
        ..v1::ControlRolloutRequest::default()
    };
    let mut operator = coordinator.operator().await?;
    Ok(operator.control_rollout(nothing).await.is_ok())
}

#[tokio::test]
async fn a_follower_says_how_far_work_is_while_somebody_leads() -> anyhow::Result<()> {
    let mut pair = Pair::start("followed", &["agent-a"]).await?;
    let far = |shown: &GetRolloutResponse| {
        let progress = shown.assignments[0].progress.as_ref();
        progress.is_some_and(|progress| progress.rows > 0)
    };
    pair.follower_shows("how far it is", far).await?;
    let trace = pair.follower.command(&["rollout", "trace", &pair.rollout]);
    eventually("the work at hand in the trace", SOON, || async {
        let told = trace.succeed().await?;
        Ok(told.contains("at work").then_some(()))
    })
    .await?;
    let mut operator = pair.follower.operator().await?;
    let watch = v1::WatchRolloutRequest {
        id: pair.rollout.clone(),
    };
    let mut watched = operator.watch_rollout(watch).await?.into_inner();
    let first = watched.message().await?.unwrap_or_default();
    assert!(first.changed[0].progress.is_some(), "{first:?}");

    pair.leader.kill()?;
    let shown = pair.follower.show(&pair.rollout).await?;
    assert!(shown.assignments[0].progress_unknown, "{shown:?}");
    let text = pair.follower.command(&["rollout", "show", &pair.rollout]);
    let text = text.succeed().await?;
    let unknown = "progress unknown: a coordinator answered that does not lead";
    assert!(text.contains(unknown), "{text}");
    // The stream ends, so that whoever watches asks again.
    let ends = async {
        while watched.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let ended = tokio::time::timeout(SOON, ends).await?;
    assert_eq!(
        ended.map_err(|status| status.code()),
        Err(tonic::Code::Unavailable)
    );
    let known = |shown: &GetRolloutResponse| {
        let of = &shown.assignments[0];
        !of.progress_unknown && (far(shown) || of.state() == AssignmentState::Done)
    };
    pair.follower_shows("how far it is, as it leads now", known)
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_drained_through_a_follower_hands_its_work_on() -> anyhow::Result<()> {
    let mut pair = Pair::start("handed_on", &["agent-a", "agent-b"]).await?;
    let running = |shown: &GetRolloutResponse| {
        let of = &shown.assignments[0];
        of.state() == AssignmentState::Running && of.progress.is_some()
    };
    let shown = pair.follower_shows("work", running).await?;
    let first = shown.assignments[0].agent.clone();
    let drain = ["agent", "drain", &first, "--now", "--reason", "a new host"];
    pair.follower.command(&drain).succeed().await?;
    let other = |shown: &GetRolloutResponse| running(shown) && shown.assignments[0].agent != first;
    let shown = pair.follower_shows("another agent", other).await?;
    assert_eq!(shown.assignments[0].error, "", "a drain is no error");
    let stopped = format!("agent {first} stopped between two batches or steps");
    let said = &shown.assignments[0].interrupted;
    assert!(said.contains(&stopped), "{said}");

    // The next leader knows of the drain.
    pair.leader.kill()?;
    eventually("the other leads", SOON, || async {
        Ok(leads(&pair.follower, &pair.rollout).await?.then_some(()))
    })
    .await?;
    let agents = pair.follower.command(&["fleet", "agents"]).succeed().await?;
    assert!(agents.contains("a new host"), "{agents}");
    let shown = pair
        .follower
        .wait_for_end_of(&pair.rollout, Duration::from_mins(2))
        .await?;
    let rollout = shown.rollout.unwrap_or_default();
    assert_eq!(rollout.state(), RolloutState::Done, "{:?}", shown.assignments);
    assert_ne!(shown.assignments[0].agent, first);
    let counted = "SELECT count(*) FROM t WHERE n = 1";
    assert_eq!(pair.members[0].database.number(counted).await?, ROWS);
    Ok(())
}
