//! Two coordinators on one store, and one that comes back.

use crate::agent::{Process, done};
use crate::coordinator::{Coordinator, memory, request};
use proto::v1;
use shared::rollout::message::{FromAgent, Holding, Renewal, ToAgent};
use shared::rollout::view::{AssignmentState, State};
use tonic::Code;

#[tokio::test]
async fn one_who_does_not_lead_answers_reads_and_points_writes_to_the_leader() {
    let store = memory().await;
    let leader = Coordinator::start(&store).await;
    leader.leads().await;
    let follower = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&leader.url).await;
    let (rollout, _) = leader.create(request("ci-1")).await.unwrap();
    let (seen, assignments) = follower.show(rollout.id.as_str()).await.unwrap();
    assert_eq!(seen.id, rollout.id);
    assert_eq!(assignments.len(), 1);

    let (another, _) = leader.create(request("ci-3")).await.unwrap();
    assert!(
        follower.show(another.id.as_str()).await.is_ok(),
        "what the leader has said is found at once"
    );
    leader.abort(&another).await.unwrap();

    let refused = crate::eventually("the leader to be known", async || {
        let status = follower.create(request("ci-2")).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        status
            .metadata()
            .get("confiture-leader")
            .map(|url| url.to_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(refused, leader.url);
    assert_eq!(
        follower.abort(&rollout).await.unwrap_err().code(),
        Code::FailedPrecondition
    );

    let watch = v1::WatchRolloutRequest {
        id: rollout.id.to_string(),
    };
    let mut watched = follower
        .client()
        .await
        .watch_rollout(watch)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().changed.len(), 1);
    let order = agent.take().await;
    agent.finish(&order, done()).await;
    let mut last = None;
    while let Some(message) = watched.message().await.unwrap() {
        last = message.rollout;
    }
    assert_eq!(last.unwrap().state(), v1::RolloutState::Done);
}

#[tokio::test]
async fn one_who_does_not_lead_redirects_agents_and_renews_their_leases() {
    let store = memory().await;
    let leader = Coordinator::start(&store).await;
    leader.leads().await;
    let follower = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let welcomed = process.join(&leader.url).await;
    let mut relayed = process.connect(&follower.url).await;
    relayed.hello(Some(welcomed.welcome.lease), Vec::new()).await;
    loop {
        match relayed.next().await {
            Some(ToAgent::Redirect { leader: Some(url) }) => {
                assert_eq!(url, leader.url);
                break;
            }
            // Before it has seen who leads.
            Some(ToAgent::Redirect { leader: None }) => {}
            other => panic!("{other:?}"),
        }
    }
    relayed
        .say(FromAgent::Heartbeat {
            sequence: 1,
            lease: welcomed.welcome.lease,
        })
        .await;
    assert!(matches!(relayed.renewal().await, Renewal::Alive(_)));
    relayed
        .say(FromAgent::Heartbeat {
            sequence: 2,
            lease: 99_999,
        })
        .await;
    assert_eq!(relayed.renewal().await, Renewal::Gone);
}

#[tokio::test]
async fn work_goes_on_over_the_death_of_the_leader() {
    let store = memory().await;
    let leader = Coordinator::start(&store).await;
    leader.leads().await;
    let follower = Coordinator::start(&store).await;
    let process = Process::new("a", &["d1", "d2"]);
    let mut agent = process.join(&leader.url).await;
    let mut create = request("ci-1");
    create.policy.max_in_flight = 1;
    let (rollout, _) = leader.create(create).await.unwrap();
    let order = agent.take().await;
    let mut relayed = process.connect(&follower.url).await;
    relayed
        .hello(Some(agent.welcome.lease), vec![Holding::of(&order)])
        .await;
    leader.kill();

    // The other leads soon, and says so on the streams it has.
    loop {
        match relayed.next().await {
            Some(ToAgent::Redirect { leader: Some(url) }) if url == follower.url => break,
            Some(ToAgent::Redirect { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let lease = Some(agent.welcome.lease);
    drop(agent);
    let mut agent = process
        .rejoin(&follower.url, lease, vec![Holding::of(&order)])
        .await;
    let running = follower.wait_for(&rollout, "d1", AssignmentState::Running).await;
    assert_eq!(running.token, Some(order.fence.token), "it is the same work");
    agent.finish(&order, done()).await;
    let next = agent.next_order().await;
    assert_eq!(next.database.as_str(), "d2");
    assert!(next.fence > order.fence);
    agent.finish(&next, done()).await;
    assert_eq!(follower.wait_for_end(&rollout).await.state, State::Done);
    assert_eq!(follower.assignment(&rollout, "d1").await.attempt, 1);
}

#[tokio::test]
async fn a_watcher_is_sent_away_when_the_leadership_moves() {
    let store = memory().await;
    let leader = Coordinator::start(&store).await;
    let _agent = Process::new("a", &["orders"]).join(&leader.url).await;
    let follower = Coordinator::start(&store).await;
    let (rollout, _) = leader.create(request("ci-1")).await.unwrap();
    let watch = v1::WatchRolloutRequest {
        id: rollout.id.to_string(),
    };
    let mut watched = follower
        .client()
        .await
        .watch_rollout(watch)
        .await
        .unwrap()
        .into_inner();
    leader.stop().await;
    let status = loop {
        match watched.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if the rollout had"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_leader_that_comes_back_gives_nothing_twice() {
    let store = memory().await;
    let leader = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut agent = process.join(&leader.url).await;
    let (rollout, _) = leader.create(request("ci-1")).await.unwrap();
    let order = agent.take().await;
    let lease = Some(agent.welcome.lease);
    drop(agent);
    let leader = Coordinator::start_at(&store, &leader.kill()).await;
    let mut agent = process
        .rejoin(&leader.url, lease, vec![Holding::of(&order)])
        .await;
    assert_eq!(agent.quiet().await, None);
    agent.finish(&order, done()).await;
    assert_eq!(leader.wait_for_end(&rollout).await.state, State::Done);
    let records = store
        .list(&format!("rollout/{}/database/", rollout.id))
        .await
        .unwrap();
    assert_eq!(records.entries.len(), 1);
}
