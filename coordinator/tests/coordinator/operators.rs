//! What operators ask, and what they are told when it cannot be.

use crate::agent::Process;
use crate::coordinator::{Coordinator, memory, request, settings};
use proto::v1;
use shared::migration::File;
use shared::rollout::Selector;
use tonic::Code;

#[tokio::test]
async fn the_same_request_founds_one_rollout() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let _agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (first, created) = coordinator.create(request("ci-1")).await.unwrap();
    assert!(created);
    let (again, created) = coordinator.create(request("ci-1")).await.unwrap();
    assert!(!created);
    assert_eq!(first.id, again.id);
    let mut other = request("ci-1");
    other.policy.max_in_flight = 3;
    let status = coordinator.create(other).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(
        status.message().contains(first.id.as_str()),
        "{}",
        status.message()
    );
    let list = coordinator
        .client()
        .await
        .list_rollouts(v1::ListRolloutsRequest {})
        .await
        .unwrap();
    assert_eq!(list.into_inner().rollouts.len(), 1);
}

#[tokio::test]
async fn the_same_request_is_known_after_a_restart() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let _agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (first, _) = coordinator.create(request("ci-1")).await.unwrap();
    let coordinator = Coordinator::start_at(&store, &coordinator.kill()).await;
    coordinator.leads().await;
    let (again, created) = coordinator.create(request("ci-1")).await.unwrap();
    assert_eq!((first.id, false), (again.id, created));
}

#[tokio::test]
async fn a_request_that_cannot_be_is_refused_with_the_reason() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    coordinator.leads().await;
    let refused = async |create| {
        let status = coordinator.create(create).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
        status.message().to_owned()
    };
    let text = refused(request("ci-1")).await;
    assert!(text.contains("no agent has registered any database"), "{text}");

    let _agent = Process::new("a", &["orders", "billing"])
        .join(&coordinator.url)
        .await;
    let mut unknown = request("ci-2");
    unknown.selector = Selector::parse("name=order").unwrap();
    let text = refused(unknown).await;
    assert!(text.contains("name=orders") && text.contains("billing"), "{text}");

    let mut broken = request("ci-3");
    broken.bundle.files[0].content = b"CREATE TABLE t (;".to_vec();
    let text = refused(broken).await;
    assert!(text.contains("001_make.up.sql:1:"), "{text}");

    let mut empty = request("ci-4");
    empty.bundle.files.clear();
    refused(empty).await;

    let nobody = v1::CreateRolloutRequest {
        selector: None,
        ..request("ci-5").to_wire()
    };
    let status = coordinator.create_wire(nobody).await.unwrap_err();
    assert!(status.message().contains("--all"), "{}", status.message());
    let list = coordinator
        .client()
        .await
        .list_rollouts(v1::ListRolloutsRequest {})
        .await
        .unwrap();
    assert!(list.into_inner().rollouts.is_empty());
}

#[tokio::test]
async fn an_id_may_be_cut_short_and_an_unknown_one_is_not_found() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let _agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let (found, _) = coordinator.show(&rollout.id.as_str()[..5]).await.unwrap();
    assert_eq!(found.id, rollout.id);
    assert_eq!(
        coordinator.show("nothing").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(coordinator.show("").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_bundle_of_many_pieces_arrives_whole() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let mut large = request("ci-1");
    let text = format!("-- {}\nSELECT 1;", "x".repeat(3_000_000));
    large.bundle.files.push(File {
        path: "002_large.up.sql".to_owned(),
        content: text.into_bytes(),
    });
    let bundle = large.bundle.clone();
    let (rollout, _) = coordinator.create(large).await.unwrap();
    assert_eq!(rollout.bundle, bundle.digest());
    agent.look().await;
    assert!(agent.agent.bundles.iter().eq([&bundle]));
    // A new leader has to read it from the store.
    let process = Process::new("b", &["orders"]);
    let coordinator = Coordinator::start_at(&store, &coordinator.kill()).await;
    let mut agent = process.join(&coordinator.url).await;
    agent.look().await;
    assert_eq!(agent.agent.bundles, [bundle]);
}

#[tokio::test]
async fn a_port_in_use_is_said_plainly() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let address = coordinator.url.strip_prefix("http://").unwrap();
    let error = coordinator::serve::Bound::new(&settings(address))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(address) && text.contains("in use"), "{text}");
}

#[tokio::test]
async fn health_is_served() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let channel = tonic::transport::Channel::from_shared(coordinator.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest {
        service: "confiture.v1.Operator".to_owned(),
    };
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), serving);
    // The whole of it, once somebody leads.
    let whole = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    let mut answers = health.watch(whole).await.unwrap().into_inner();
    let healthy = async { while answers.message().await.unwrap().unwrap().status() != serving {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), healthy)
        .await
        .expect("a leader");
}

#[tokio::test]
async fn a_coordinator_stops_in_order_while_streams_are_open() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let watch = v1::WatchRolloutRequest {
        id: rollout.id.to_string(),
    };
    let mut watched = coordinator
        .client()
        .await
        .watch_rollout(watch)
        .await
        .unwrap()
        .into_inner();
    assert!(watched.message().await.unwrap().is_some());
    coordinator.stop().await;
    let last = loop {
        match watched.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if the rollout had"),
            Err(status) => break status,
        }
    };
    assert_eq!(last.code(), Code::Unavailable);
    let mut last = None;
    while let Some(message) = agent.agent.next().await {
        last = Some(message);
    }
    let goodbye = matches!(&last, Some(shared::rollout::message::ToAgent::Goodbye { reason, .. }) if reason.contains("stopping"));
    assert!(goodbye, "{last:?}");
}
