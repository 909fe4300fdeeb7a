//! Rollouts from their founding to their end.

use crate::agent::{Process, done, pending, up_to_date};
use crate::coordinator::{Coordinator, memory, request};
use proto::convert::view;
use proto::v1;
use shared::retry::Retryability;
use shared::rollout::message::{Holding, ToAgent};
use shared::rollout::view::{AssignmentState, State};
use shared::rollout::work::{Exit, Failure, Finish, Look, Progress, Summary};
use std::time::Duration;

fn failure(retry: Retryability) -> Failure {
    Failure {
        message: "column \"x\" does not exist".to_owned(),
        retry,
        exit: Exit::Failed,
    }
}

#[tokio::test]
async fn a_database_goes_from_a_look_to_its_end_and_a_watcher_sees_it() {
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
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.changed.len(), 1);

    let order = agent.take().await;
    assert_eq!(order.rollout, rollout.id);
    assert_eq!(order.attempt, 1);
    let running = coordinator
        .wait_for(&rollout, "orders", AssignmentState::Running)
        .await;
    assert_eq!(running.token, Some(order.fence.token));
    assert_eq!(running.agent.unwrap().as_str(), "a");
    let leases = store.list("lease/").await.unwrap().entries;
    assert_eq!(leases.len(), 1);
    assert_eq!(
        leases[0].created, order.fence.token,
        "the token is the revision of the lease"
    );

    agent
        .report(
            &order,
            Progress {
                rows: 7,
                ..Progress::default()
            },
        )
        .await;
    let seen = loop {
        let message = watched.message().await.unwrap().unwrap();
        let progress = message.changed.into_iter().find_map(|a| a.progress);
        if let Some(progress) = progress {
            break progress;
        }
    };
    assert_eq!(seen.rows, 7);

    agent.finish(&order, done()).await;
    let mut last = None;
    while let Some(message) = watched.message().await.unwrap() {
        last = Some(message);
    }
    let last = last.unwrap();
    assert_eq!(
        view::rollout_from_wire(last.rollout.unwrap()).unwrap().state,
        State::Done
    );
    assert!(store.list("lease/").await.unwrap().entries.is_empty());
    let shown = coordinator.assignment(&rollout, "orders").await;
    assert_eq!(
        (shown.state, shown.summary.migrations),
        (AssignmentState::Done, 1)
    );
}

#[tokio::test]
async fn a_database_that_is_up_to_date_is_done_without_a_lease() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let before = store.list("lease/").await.unwrap().revision;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    agent.answer(up_to_date()).await;
    let ended = coordinator.wait_for_end(&rollout).await;
    assert_eq!(ended.state, State::Done);
    assert_eq!(agent.quiet().await, None);
    assert_eq!(coordinator.assignment(&rollout, "orders").await.attempt, 0);
    // Bundle (3), founding, done with the end: nothing else was written.
    let after = store.list("lease/").await.unwrap().revision;
    assert!(after - before <= 6, "{before} {after}");
}

#[tokio::test]
async fn a_failure_fails_its_database_only() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["billing", "orders"])
        .join(&coordinator.url)
        .await;
    let mut create = request("ci-1");
    create.policy.max_in_flight = 1;
    let (rollout, _) = coordinator.create(create).await.unwrap();
    let order = agent.take().await;
    assert_eq!(order.database.as_str(), "billing");
    agent
        .finish(
            &order,
            Finish::Failed(failure(Retryability::GiveUp), Summary::default()),
        )
        .await;
    let order = agent.next_order().await;
    assert_eq!(order.database.as_str(), "orders");
    agent.finish(&order, done()).await;
    let ended = coordinator.wait_for_end(&rollout).await;
    assert_eq!(ended.state, State::Failed);
    assert!(ended.reason.contains("billing"), "{}", ended.reason);
    let failed = coordinator.assignment(&rollout, "billing").await;
    assert_eq!(failed.state, AssignmentState::Failed);
    assert!(
        failed.error.contains("column \"x\" does not exist"),
        "{}",
        failed.error
    );
    assert_eq!(
        coordinator.assignment(&rollout, "orders").await.state,
        AssignmentState::Done
    );
}

#[tokio::test]
async fn a_passing_error_is_tried_again_with_a_new_token() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let first = agent.take().await;
    agent
        .finish(
            &first,
            Finish::Failed(failure(Retryability::Retry), Summary::default()),
        )
        .await;
    let waiting = coordinator
        .wait_for(&rollout, "orders", AssignmentState::Waiting)
        .await;
    assert!(waiting.blocked.contains("attempt 2 of 8"), "{}", waiting.blocked);
    assert!(waiting.error.contains("does not exist"), "{}", waiting.error);
    let second = agent.take().await;
    assert_eq!(second.attempt, 2);
    assert!(second.fence > first.fence);
    assert_ne!(second.holder, first.holder);
    agent.finish(&second, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn no_more_databases_are_at_work_than_allowed() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["d1", "d2", "d3"])
        .join(&coordinator.url)
        .await;
    let mut create = request("ci-1");
    create.policy.max_in_flight = 1;
    let (rollout, _) = coordinator.create(create).await.unwrap();
    let first = agent.take().await;
    // The next is looked at ahead of its turn, but not begun.
    agent.answer(pending()).await;
    assert_eq!(agent.quiet().await, None);
    let (shown, assignments) = coordinator.show(rollout.id.as_str()).await.unwrap();
    assert_eq!((shown.databases.running, shown.databases.waiting), (1, 2));
    assert!(
        assignments[1].blocked.contains("at most 1"),
        "{}",
        assignments[1].blocked
    );
    agent.finish(&first, done()).await;
    let second = agent.next_order().await;
    assert_eq!(second.database.as_str(), "d2");
}

#[tokio::test]
async fn a_held_database_waits_and_says_for_whom() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    agent
        .answer(Look::Held {
            by: "migrate up on web-3".to_owned(),
        })
        .await;
    let waiting = crate::eventually("the reason", async || {
        let shown = coordinator.assignment(&rollout, "orders").await;
        shown.blocked.contains("web-3").then_some(shown)
    })
    .await;
    assert_eq!(waiting.state, AssignmentState::Waiting);
    // Looked at again after 5 s.
    agent.answer(up_to_date()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn an_aborted_rollout_stops_what_runs_and_begins_nothing_more() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["d1", "d2"]).join(&coordinator.url).await;
    let mut create = request("ci-1");
    create.policy.max_in_flight = 1;
    let (rollout, _) = coordinator.create(create).await.unwrap();
    let order = agent.take().await;
    assert_eq!(coordinator.abort(&rollout).await.unwrap().state, State::Aborting);
    let of = Holding::of(&order);
    let stop = loop {
        match agent.agent.next().await.unwrap() {
            ToAgent::Look { .. } => {}
            other => break other,
        }
    };
    assert!(
        matches!(&stop, ToAgent::Stop { of: stopped, reason, .. } if *stopped == of && reason.contains("wrong set")),
        "{stop:?}"
    );
    agent.finish(&order, Finish::Stopped(Summary::default())).await;
    let ended = coordinator.wait_for_end(&rollout).await;
    assert_eq!(ended.state, State::Aborted);
    assert!(ended.reason.contains("ada"), "{}", ended.reason);
    assert_eq!(ended.databases.aborted, 2);
    assert_eq!(
        coordinator.abort(&rollout).await.unwrap().state,
        State::Aborted,
        "again, nothing changes"
    );
}

#[tokio::test]
async fn a_later_rollout_waits_for_the_earlier_on_the_same_database() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (first, _) = coordinator.create(request("ci-1")).await.unwrap();
    let (second, _) = coordinator.create(request("ci-2")).await.unwrap();
    let order = agent.take().await;
    assert_eq!(order.rollout, first.id);
    let waiting = coordinator.assignment(&second, "orders").await;
    assert!(waiting.blocked.contains(first.id.as_str()), "{}", waiting.blocked);
    agent.finish(&order, done()).await;
    let next = agent.take().await;
    assert_eq!(next.rollout, second.id);
    assert!(next.fence > order.fence);
    agent.finish(&next, done()).await;
    assert_eq!(coordinator.wait_for_end(&second).await.state, State::Done);
}

#[tokio::test]
async fn a_watcher_of_an_ended_rollout_gets_all_of_it_and_the_end() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    agent.answer(up_to_date()).await;
    coordinator.wait_for_end(&rollout).await;
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
    assert_eq!(watched.message().await.unwrap().unwrap().changed.len(), 1);
    let end = tokio::time::timeout(Duration::from_secs(2), watched.message()).await;
    assert!(end.unwrap().unwrap().is_none());
}
