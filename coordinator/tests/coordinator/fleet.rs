//! Agents: their leases, lives and lies.

use crate::agent::{Process, done, pending};
use crate::coordinator::{AGENT_LEASE, Coordinator, memory, request};
use crate::eventually;
use proto::convert::view;
use proto::v1;
use shared::id::Instance;
use shared::rollout::message::{FromAgent, Holding, Parting, Renewal, ToAgent};
use shared::rollout::view::{AssignmentState, Database, State};
use std::time::Duration;
use uuid::Uuid;

async fn databases(coordinator: &Coordinator) -> Vec<Database> {
    let answer = coordinator
        .client()
        .await
        .list_databases(v1::ListDatabasesRequest {})
        .await
        .unwrap();
    answer
        .into_inner()
        .databases
        .into_iter()
        .map(|d| view::database_from_wire(d).unwrap())
        .collect()
}

#[tokio::test]
async fn work_of_an_agent_whose_lease_ran_out_goes_to_another() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut first = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let lost = first.take().await;
    let mut second = Process::new("b", &["orders"]).join(&coordinator.url).await;
    first.freeze();
    assert_eq!(second.quiet().await, None, "the lease lives on for a while");
    let order = second.take().await;
    assert!(order.fence > lost.fence);
    assert_ne!(order.holder, lost.holder);
    assert_eq!(order.attempt, 1, "a lost lease does not count");
    let shown = coordinator
        .wait_for(&rollout, "orders", AssignmentState::Running)
        .await;
    assert_eq!(shown.error, "", "a lost lease is no error");
    let said = &shown.interrupted;
    assert!(said.contains("agent a lost its lease"), "{said}");

    // The frozen one comes back: what it says is acknowledged, and changes nothing.
    first
        .agent
        .say(FromAgent::Finished {
            of: Holding::of(&lost),
            finish: done(),
        })
        .await;
    let mut acknowledged = false;
    while let Some(message) = first.agent.next().await {
        acknowledged |= message == ToAgent::Acknowledged(Holding::of(&lost));
        if acknowledged {
            break;
        }
    }
    assert!(acknowledged);
    assert_eq!(
        coordinator.assignment(&rollout, "orders").await.state,
        AssignmentState::Running
    );
    second.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn an_agent_is_told_when_its_lease_is_gone_and_gets_another_by_a_new_hello() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let lease = agent.welcome.lease;
    store.revoke(coordinator::store::LeaseId(lease)).await.unwrap();
    eventually("the loss to be told", async || {
        (agent.agent.renewal().await == Renewal::Gone).then_some(())
    })
    .await;
    agent.agent.hello(None, Vec::new()).await;
    let welcome = loop {
        if let Some(ToAgent::Welcome(welcome)) = agent.agent.next().await {
            break welcome;
        }
    };
    assert_ne!(welcome.lease, lease);
}

#[tokio::test]
async fn a_goodbye_is_known_to_the_next_leader_until_its_agent_is_back() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let goodbyes = async || {
        let entries = store.list("goodbye/").await.unwrap().entries;
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert!(goodbyes().await.is_empty());
    agent.agent.say(FromAgent::Leaving).await;
    eventually("the goodbye to be stored", async || {
        (goodbyes().await == ["goodbye/a"]).then_some(())
    })
    .await;
    drop(agent);
    coordinator.stop().await;
    let next = Coordinator::start(&store).await;
    next.leads().await;
    assert_eq!(goodbyes().await, ["goodbye/a"]);
    // One who did not know of it would not take it back.
    let _back = Process::new("a", &["orders"]).join(&next.url).await;
    eventually("the goodbye to be taken back", async || {
        goodbyes().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_was_started_again_loses_its_work_and_gets_it_anew() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut first = process.join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let lost = first.take().await;
    drop(first);
    let again = Process {
        instance: Instance(Uuid::new_v4()),
        ..process
    };
    let started = tokio::time::Instant::now();
    let mut second = again.join(&coordinator.url).await;
    let order = second.take().await;
    assert!(
        started.elapsed() < AGENT_LEASE,
        "it did not wait for the lease to run out"
    );
    assert!(order.fence > lost.fence);
    second.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn an_agent_that_only_reconnects_keeps_its_work() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut first = process.join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let order = first.take().await;
    let lease = Some(first.welcome.lease);
    drop(first);
    let mut second = process
        .rejoin(&coordinator.url, lease, vec![Holding::of(&order)])
        .await;
    assert_eq!(Some(second.welcome.lease), lease);
    assert_eq!(second.quiet().await, None, "nothing is given twice");
    assert_eq!(
        coordinator.assignment(&rollout, "orders").await.token,
        Some(order.fence.token)
    );
    second.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn an_order_that_never_arrived_is_given_again_as_it_was() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut first = process.join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let order = first.take().await;
    let lease = Some(first.welcome.lease);
    drop(first);
    // As if the leader had died between its commit and telling the agent: the agent knows nothing of it.
    let coordinator = Coordinator::start_at(&store, &coordinator.kill()).await;
    let mut second = process.rejoin(&coordinator.url, lease, Vec::new()).await;
    assert_eq!(second.order().await, order);
    second.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn two_living_processes_under_one_id_are_told_apart() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut first = process.join(&coordinator.url).await;
    let other = Process {
        instance: Instance(Uuid::new_v4()),
        ..process
    };
    let parting = eventually("a final answer", async || {
        let mut second = other.connect(&coordinator.url).await;
        second.hello(None, Vec::new()).await;
        let answer = second.next().await;
        let Some(ToAgent::Goodbye { parting, .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(second.next().await, None);
        (parting == Parting::IdInUse).then_some(parting)
    })
    .await;
    assert_eq!(parting, Parting::IdInUse);
    assert_eq!(first.quiet().await, None);
    assert!(matches!(first.agent.renewal().await, Renewal::Alive(_)));
}

#[tokio::test]
async fn one_name_for_two_databases_blocks_it_and_names_the_agents() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut first = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let mut second = Process {
        system: 2,
        ..Process::new("b", &["orders"])
    }
    .join(&coordinator.url)
    .await;
    let blocked = eventually("the conflict", async || {
        let known = databases(&coordinator).await;
        known.into_iter().find(|database| !database.problem.is_empty())
    })
    .await;
    assert!(blocked.problem.contains("agents a and b"), "{}", blocked.problem);
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    assert_eq!((first.quiet().await, second.quiet().await), (None, None));
    let shown = coordinator.assignment(&rollout, "orders").await;
    assert!(shown.blocked.contains("agents a and b"), "{}", shown.blocked);
    // The wrong one goes away for good; its lease runs out.
    drop(second);
    let order = first.take().await;
    first.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn a_database_without_agent_waits_and_goes_on_when_one_comes() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    drop(process.join(&coordinator.url).await);
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    eventually("the reason", async || {
        let shown = coordinator.assignment(&rollout, "orders").await;
        shown
            .blocked
            .contains("no agent that serves it is connected (known: a)")
            .then_some(())
    })
    .await;
    let mut again = Process {
        instance: Instance(Uuid::new_v4()),
        ..process
    }
    .join(&coordinator.url)
    .await;
    let order = again.take().await;
    again.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn an_agent_that_does_not_read_holds_up_nobody_else() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let many: Vec<String> = (0..600).map(|n| format!("slow{n:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    // Says all it has to say, and never reads what it is told.
    let slow = Process::new("slow", &many).join(&coordinator.url).await;
    let mut quick = Process::new("quick", &["zz"]).join(&coordinator.url).await;
    let mut create = request("ci-1");
    create.policy.max_in_flight = 1000;
    let (rollout, _) = coordinator.create(create).await.unwrap();
    for _ in 0..2_000 {
        let of = Holding {
            rollout: rollout.id.clone(),
            database: crate::agent::database("slow000"),
            token: 1,
        };
        // On a busy machine the coordinator may give it up meanwhile, as it should.
        if !slow
            .agent
            .try_say(FromAgent::Finished { of, finish: done() })
            .await
        {
            break;
        }
    }
    let order = quick.take().await;
    quick.finish(&order, done()).await;
    coordinator.wait_for(&rollout, "zz", AssignmentState::Done).await;
}

#[tokio::test]
async fn what_is_not_of_the_protocol_ends_the_stream() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).connect(&coordinator.url).await;
    agent.say(FromAgent::Inventory(Vec::new())).await;
    assert_eq!(agent.next().await, None);
}

#[tokio::test]
async fn agents_are_listed_with_what_they_do() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    agent.answer(pending()).await;
    let order = agent.order().await;
    let list = async || {
        let answer = coordinator
            .client()
            .await
            .list_agents(v1::ListAgentsRequest {})
            .await
            .unwrap();
        answer
            .into_inner()
            .agents
            .into_iter()
            .map(|a| view::agent_from_wire(a).unwrap())
            .collect::<Vec<_>>()
    };
    let shown = &list().await[0];
    assert_eq!((shown.id.as_str(), shown.version.as_str()), ("a", "test"));
    assert!(shown.connected_at.is_some());
    assert!(shown.running.iter().eq([&order.database]));
    assert_eq!(databases(&coordinator).await[0].rollout, Some(rollout.id.clone()));
    drop(agent);
    eventually("the agent to be gone", async || {
        list().await[0].connected_at.is_none().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn an_agent_that_comes_after_a_long_silence_is_not_forgotten_at_once() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    coordinator.leads().await;
    // Longer than leases go unread while nothing happens.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let order = agent.take().await;
    agent.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn a_lease_of_another_store_is_not_taken_for_an_agents_own() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    coordinator.leads().await;
    // Stores number their leases alike: this one is the leader's here.
    let leaders = 1;
    let process = Process::new("a", &["orders"]);
    let agent = process.rejoin(&coordinator.url, Some(leaders), Vec::new()).await;
    assert_ne!(agent.welcome.lease, leaders);
    agent
        .agent
        .say(FromAgent::Heartbeat {
            sequence: 99,
            lease: leaders,
        })
        .await;
    let mut agent = agent;
    eventually("the answer", async || {
        (agent.agent.renewal().await == Renewal::Gone).then_some(())
    })
    .await;
    // Neither is one of another agent.
    let other = Process::new("b", &["billing"]);
    let other = other
        .rejoin(&coordinator.url, Some(agent.welcome.lease), Vec::new())
        .await;
    assert_ne!(other.welcome.lease, agent.welcome.lease);
}

#[tokio::test]
async fn every_heartbeat_of_many_is_answered() {
    let store = memory().await;
    let coordinator = Coordinator::start(&store).await;
    let mut agent = Process::new("a", &["orders"]).join(&coordinator.url).await;
    agent.freeze();
    let lease = agent.welcome.lease;
    for sequence in 1000..1050 {
        agent.agent.say(FromAgent::Heartbeat { sequence, lease }).await;
    }
    let mut missing: std::collections::BTreeSet<u64> = (1000..1050).collect();
    while !missing.is_empty() {
        missing.remove(&agent.agent.answered().await);
    }
}
