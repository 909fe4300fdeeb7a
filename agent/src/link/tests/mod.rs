//! The agent against coordinators over real gRPC, with work that does as it is told.

mod coordinator;
mod script;

use super::*;
use coordinator::{Coordinator, Stream};
use script::{Script, database};
use shared::fence::Fence;
use shared::id::{Digest, Holder, RolloutId, SetName, StoreId};
use shared::migration::File;
use shared::plan::Strategies;
use shared::rollout::Bundle;
use shared::rollout::message::{FromAgent, Holding, Parting, Renewal, ToAgent, Welcome};
use shared::rollout::work::{Aim, Finish, Look, Order, Progress, Summary};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

const TERM: i64 = 5;

/// A running agent.
struct Running {
    script: Script,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(coordinators: &[&str]) -> Self {
        let script = Script::default();
        let stop = CancellationToken::new();
        let settings = Settings {
            id: AgentId::try_from("agent").unwrap(),
            coordinators: coordinators.iter().map(|&url| url.to_owned()).collect(),
        };
        let task = tokio::spawn(serve(
            settings,
            Arc::new(script.clone()),
            watch::Sender::new(Standing::Seeking),
            stop.clone(),
        ));
        Self { script, stop, task }
    }

    async fn end(self) -> Result<(), Error> {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task)
            .await
            .unwrap()
            .unwrap()
    }
}

fn welcome() -> ToAgent {
    welcome_for(Duration::from_secs(30), 70)
}

fn welcome_for(ttl: Duration, lease: i64) -> ToAgent {
    ToAgent::Welcome(Welcome {
        term: TERM,
        lease,
        ttl,
        heartbeat_interval: Duration::from_millis(200),
        store: StoreId(Uuid::from_u128(9)),
        epoch: 1,
        version: String::new(),
    })
}

fn content() -> Bundle {
    Bundle {
        set: SetName::default_set(),
        files: vec![File {
            path: "001_one.up.sql".to_owned(),
            content: b"CREATE TABLE one (id bigint PRIMARY KEY)".to_vec(),
        }],
    }
}

fn bundle() -> ToAgent {
    ToAgent::Bundle {
        digest: content().digest(),
        bundle: content(),
    }
}

fn look(look: u64, name: &str) -> ToAgent {
    ToAgent::Look {
        term: TERM,
        look,
        database: database(name),
        bundle: content().digest(),
        aim: Aim::Apply,
    }
}

fn assign(name: &str, token: i64) -> ToAgent {
    let order = Order {
        rollout: RolloutId::try_from("r").unwrap(),
        database: database(name),
        bundle: content().digest(),
        aim: Aim::Apply,
        fence: Fence::of_lease(1, token),
        holder: Holder(Uuid::from_u128(2)),
        attempt: 1,
        canary: false,
        strategies: Strategies::default(),
        trace: None,
    };
    ToAgent::Assign { term: TERM, order }
}

fn holding(name: &str, token: i64) -> Holding {
    Holding {
        rollout: RolloutId::try_from("r").unwrap(),
        database: database(name),
        token,
    }
}

fn done() -> Finish {
    Finish::Done(Summary {
        migrations: 1,
        steps: 2,
        rows: 3,
        ..Summary::default()
    })
}

/// Welcomes an agent on a stream and gives it work on `a`.
async fn give_work(stream: &mut Stream, token: i64) {
    stream.expect_hello().await;
    for message in [welcome(), bundle(), assign("a", token)] {
        stream.say(message).await;
    }
}

#[tokio::test]
async fn an_order_is_carried_out_reported_and_acknowledged() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    let hello = stream.expect_hello().await;
    assert_eq!((hello.agent.as_str(), hello.lease), ("agent", None));
    assert_eq!(
        hello.databases.keys().collect::<Vec<_>>(),
        [&database("a"), &database("b")]
    );
    stream.say(welcome()).await;
    let inventory = stream
        .until(|message| matches!(message, FromAgent::Inventory(_)))
        .await;
    assert!(matches!(inventory, FromAgent::Inventory(found) if found.iter().all(|at| at.identity.is_ok())));

    stream.say(bundle()).await;
    stream.say(look(4, "a")).await;
    let looked = stream
        .until(|message| matches!(message, FromAgent::Looked { .. }))
        .await;
    assert!(
        matches!(
            looked,
            FromAgent::Looked {
                look: 4,
                result: Look::Pending { .. },
                ..
            }
        ),
        "{looked:?}"
    );

    stream.say(assign("a", 10)).await;
    let work = agent.script.work("a").await;
    work.progress(7);
    let progress = stream
        .until(|message| matches!(message, FromAgent::Progress { .. }))
        .await;
    assert!(
        matches!(progress, FromAgent::Progress { of, progress: Progress { rows: 7, .. } } if of == holding("a", 10))
    );
    work.finish(done());
    let finished = stream.until_finished().await;
    assert_eq!(finished, (holding("a", 10), done()));
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn progress_comes_at_once_and_then_no_more_than_once_a_second() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    give_work(&mut stream, 10).await;
    let work = agent.script.work("a").await;
    let began = Instant::now();
    let reports = async {
        let mut reports = Vec::new();
        while reports.last() != Some(&99) {
            if let FromAgent::Progress { progress, .. } = stream.hear().await {
                reports.push(progress.rows);
            }
        }
        reports
    };
    let changes = async {
        for rows in 0..100 {
            work.progress(rows);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    let (reports, ()) = tokio::join!(reports, changes);
    assert!(reports[0] < 20, "the first came late: {reports:?}");
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(
        reports.len() <= seconds + 1,
        "{} reports in {seconds} s",
        reports.len()
    );
    work.finish(done());
    stream.until_finished().await;
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn work_goes_on_over_the_death_of_a_coordinator_and_is_reported_to_the_next() {
    let mut first = Coordinator::start().await;
    let mut second = Coordinator::start().await;
    let agent = Running::start(&[&first.url, &second.url]);
    let mut stream = first.stream().await;
    give_work(&mut stream, 10).await;
    let work = agent.script.work("a").await;
    drop(stream);
    first.die().await;

    let mut stream = second.stream().await;
    let hello = stream.expect_hello().await;
    assert_eq!((hello.lease, hello.held), (Some(70), vec![holding("a", 10)]));
    assert!(!work.is_asked_to_stop());
    stream.say(welcome()).await;
    // The new leader does not know whether its predecessor's order arrived.
    stream.say(bundle()).await;
    stream.say(assign("a", 10)).await;
    work.finish(done());
    assert_eq!(stream.until_finished().await, (holding("a", 10), done()));
    assert_eq!(agent.script.begun(), 1);
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn an_end_is_reported_again_on_the_next_stream_until_it_is_acknowledged() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    give_work(&mut stream, 10).await;
    agent.script.work("a").await.finish(done());
    stream.until_finished().await;
    drop(stream);
    let mut stream = coordinator.stream().await;
    assert_eq!(stream.expect_hello().await.held, [holding("a", 10)]);
    stream.say(welcome()).await;
    assert_eq!(stream.until_finished().await, (holding("a", 10), done()));
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    // An answer to a later heartbeat shows that the acknowledgement has been read.
    stream
        .until(|message| matches!(message, FromAgent::Heartbeat { .. }))
        .await;
    drop(stream);
    let mut stream = coordinator.stream().await;
    assert_eq!(stream.expect_hello().await.held, []);
    agent.end().await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_followed_while_the_follower_relays_heartbeats() {
    let mut leader = Coordinator::start().await;
    let mut follower = Coordinator::start().await;
    let agent = Running::start(&[&leader.url, &follower.url]);
    let mut stream = leader.stream().await;
    give_work(&mut stream, 10).await;
    let work = agent.script.work("a").await;
    // The leader steps down; the other has not been elected yet.
    stream.say(ToAgent::Redirect { leader: None }).await;
    stream
        .until(|message| matches!(message, FromAgent::Heartbeat { .. }))
        .await;
    let mut other = follower.stream().await;
    other.expect_hello().await;
    other.say(ToAgent::Redirect { leader: None }).await;
    let heartbeat = other
        .until(|message| matches!(message, FromAgent::Heartbeat { .. }))
        .await;
    assert!(matches!(heartbeat, FromAgent::Heartbeat { lease: 70, .. }));
    // Now it has.
    other
        .say(ToAgent::Redirect {
            leader: Some(leader.url.clone()),
        })
        .await;
    let mut stream = leader.stream_that_says_hello().await;
    stream.say(welcome()).await;
    stream
        .until(|message| matches!(message, FromAgent::Heartbeat { .. }))
        .await;
    other.until_closed().await;
    assert!(!work.is_asked_to_stop());
    work.finish(done());
    stream.until_finished().await;
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn without_answers_to_heartbeats_work_stops_and_a_new_lease_is_asked_for() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    stream.expect_hello().await;
    stream.say(welcome_for(Duration::from_secs(2), 70)).await;
    stream.say(bundle()).await;
    stream.say(assign("a", 10)).await;
    let work = agent.script.work("a").await;
    let began = Instant::now();
    work.asked_to_stop().await;
    // Two seconds less the margin of one.
    assert!(
        began.elapsed() < Duration::from_millis(1900),
        "{:?}",
        began.elapsed()
    );
    work.finish(Finish::Stopped(Summary::default()));
    let mut stream = coordinator.stream_that_asks_for_a_lease().await;
    stream.say(welcome_for(Duration::from_secs(30), 71)).await;
    assert_eq!(
        stream.until_finished().await,
        (holding("a", 10), Finish::Stopped(Summary::default()))
    );
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_gone_stops_the_work_at_once() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    give_work(&mut stream, 10).await;
    let work = agent.script.work("a").await;
    let beat = stream
        .until(|message| matches!(message, FromAgent::Heartbeat { .. }))
        .await;
    let FromAgent::Heartbeat { sequence, .. } = beat else {
        unreachable!()
    };
    stream
        .say(ToAgent::HeartbeatAnswer {
            sequence,
            renewal: Renewal::Gone,
        })
        .await;
    work.asked_to_stop().await;
    work.finish(Finish::Stopped(Summary::default()));
    coordinator.stream_that_asks_for_a_lease().await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn a_stop_reaches_the_work() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    give_work(&mut stream, 10).await;
    let work = agent.script.work("a").await;
    let reason = "aborted by ada".to_owned();
    stream
        .say(ToAgent::Stop {
            term: TERM,
            of: holding("a", 10),
            reason,
        })
        .await;
    work.asked_to_stop().await;
    work.finish(Finish::Stopped(Summary::default()));
    assert_eq!(
        stream.until_finished().await,
        (holding("a", 10), Finish::Stopped(Summary::default()))
    );
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn a_bundle_that_does_not_hash_to_its_digest_is_not_used() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    stream.expect_hello().await;
    stream.say(welcome()).await;
    let mut damaged = content();
    damaged.files[0].content.push(b'x');
    stream
        .say(ToAgent::Bundle {
            digest: content().digest(),
            bundle: damaged,
        })
        .await;
    stream.say(look(1, "a")).await;
    let looked = stream
        .until(|message| matches!(message, FromAgent::Looked { .. }))
        .await;
    let FromAgent::Looked {
        result: Look::Failed(failure),
        ..
    } = looked
    else {
        panic!("{looked:?}")
    };
    assert!(failure.message.contains("damaged"), "{}", failure.message);
    assert!(content().digest() != Digest::of(b"") && agent.script.begun() == 0);
    agent.end().await.unwrap();
}

#[tokio::test]
async fn work_that_panics_is_reported_as_failed() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    give_work(&mut stream, 10).await;
    agent.script.work("a").await.panic();
    let (_, finish) = stream.until_finished().await;
    assert!(
        matches!(&finish, Finish::Failed(failure, _) if failure.message.contains("unexpectedly")),
        "{finish:?}"
    );
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn many_looks_are_answered_with_few_at_a_time() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    stream.expect_hello().await;
    stream.say(welcome()).await;
    stream.say(bundle()).await;
    for id in 0..100 {
        stream.say(look(id, "b")).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 100 {
        if let FromAgent::Looked { look, .. } = stream.hear().await {
            answered.insert(look);
        }
    }
    let most = agent.script.most_looks();
    assert!((2..=16).contains(&most), "{most} at the same time");
    agent.end().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_lets_its_work_come_to_a_safe_point_and_reports_it() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    give_work(&mut stream, 10).await;
    let work = agent.script.work("a").await;
    agent.stop.cancel();
    work.asked_to_stop().await;
    assert!(!agent.task.is_finished());
    work.finish(Finish::Stopped(Summary::default()));
    assert_eq!(
        stream.until_finished().await,
        (holding("a", 10), Finish::Stopped(Summary::default()))
    );
    assert!(!agent.task.is_finished());
    stream.say(ToAgent::Acknowledged(holding("a", 10))).await;
    stream.until_closed().await;
    agent.end().await.unwrap();
}

#[tokio::test]
async fn an_agent_whose_id_is_in_use_ends_with_an_error() {
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&coordinator.url]);
    let mut stream = coordinator.stream().await;
    stream.expect_hello().await;
    let reason = "another process serves as agent agent".to_owned();
    stream
        .say(ToAgent::Goodbye {
            parting: Parting::IdInUse,
            reason,
        })
        .await;
    let ended = tokio::time::timeout(Duration::from_secs(5), agent.task)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ended, Err(Error::IdInUse { .. })));
}

#[tokio::test]
async fn a_coordinator_that_takes_connections_and_says_nothing_is_passed_over() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let mut coordinator = Coordinator::start().await;
    let agent = Running::start(&[&silent_url, "http://127.0.0.1:1", "no url", &coordinator.url]);
    let mut stream = coordinator.stream().await;
    stream.expect_hello().await;
    agent.end().await.unwrap();
}
