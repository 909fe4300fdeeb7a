//! An agent that does what a test says.

use crate::{SOON, eventually};
use proto::convert::{from_agent, to_agent};
use proto::v1;
use proto::v1::agent_link_client::AgentLinkClient;
use shared::id::{AgentId, DatabaseName, Instance};
use shared::rollout::Bundle;
use shared::rollout::message::{FromAgent, Hello, Holding, Located, Renewal, ToAgent, Welcome};
use shared::rollout::work::{Finish, Identity, Look, Order, Progress, Summary};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

/// One process of an agent; each connection is a stream of its own.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) id: AgentId,
    pub(crate) instance: Instance,
    pub(crate) databases: Vec<String>,
    /// Where its databases are; several agents see the same place for the same name.
    pub(crate) system: i64,
}

/// A stream to a coordinator.
pub(crate) struct Agent {
    process: Process,
    outbound: mpsc::Sender<v1::AgentMessage>,
    inbound: Streaming<v1::CoordinatorMessage>,
    pub(crate) bundles: Vec<Bundle>,
}

/// A stream that was welcomed; heartbeats go out by themselves while it lives.
pub(crate) struct Welcomed {
    pub(crate) agent: Agent,
    pub(crate) welcome: Welcome,
    beats: tokio::task::JoinHandle<()>,
}

impl Process {
    pub(crate) fn new(id: &str, databases: &[&str]) -> Self {
        Self {
            id: AgentId::try_from(id).unwrap(),
            instance: Instance(Uuid::new_v4()),
            databases: databases.iter().map(|&name| name.to_owned()).collect(),
            system: 1,
        }
    }

    pub(crate) async fn connect(&self, url: &str) -> Agent {
        let (outbound, inbound) = eventually("a stream", async || {
            let mut client = AgentLinkClient::connect(url.to_owned()).await.ok()?;
            let (outbound, messages) = mpsc::channel(1024);
            let attached = client.attach(ReceiverStream::new(messages)).await.ok()?;
            Some((outbound, attached.into_inner()))
        })
        .await;
        Agent {
            process: self.clone(),
            outbound,
            inbound,
            bundles: Vec::new(),
        }
    }

    /// Says Hello and is welcomed; the leader is told where the databases are.
    pub(crate) async fn join(&self, url: &str) -> Welcomed {
        self.rejoin(url, None, Vec::new()).await
    }

    pub(crate) async fn rejoin(&self, url: &str, lease: Option<i64>, held: Vec<Holding>) -> Welcomed {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let mut agent = self.connect(url).await;
            agent.hello(lease, held.clone()).await;
            match agent.next().await {
                Some(ToAgent::Welcome(welcome)) => return agent.welcomed(welcome).await,
                // It does not lead yet, or is about to be somebody else.
                other => assert!(tokio::time::Instant::now() < deadline, "not welcomed: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Agent {
    pub(crate) async fn say(&self, message: FromAgent) {
        assert!(
            self.try_say(message).await,
            "the coordinator has ended the stream"
        );
    }

    /// Whether the stream still stands.
    pub(crate) async fn try_say(&self, message: FromAgent) -> bool {
        self.outbound.send(from_agent::to_wire(message)).await.is_ok()
    }

    pub(crate) async fn hello(&self, lease: Option<i64>, held: Vec<Holding>) {
        let labels = |name: &String| BTreeMap::from([("name".to_owned(), name.clone())]);
        let databases = self
            .process
            .databases
            .iter()
            .map(|name| (database(name), labels(name)));
        self.say(FromAgent::Hello(Hello {
            agent: self.process.id.clone(),
            instance: self.process.instance,
            version: "test".to_owned(),
            databases: databases.collect(),
            lease,
            held,
        }))
        .await;
    }

    async fn welcomed(self, welcome: Welcome) -> Welcomed {
        let located = self.process.databases.iter().map(|name| Located {
            database: database(name),
            identity: Ok(Identity {
                system: self.process.system,
                database: oid(name),
            }),
            epoch: None,
        });
        self.say(FromAgent::Inventory(located.collect())).await;
        let (outbound, lease) = (self.outbound.clone(), welcome.lease);
        let beats = tokio::spawn(async move {
            for sequence in 1.. {
                let beat = from_agent::to_wire(FromAgent::Heartbeat { sequence, lease });
                if outbound.send(beat).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        Welcomed {
            agent: self,
            welcome,
            beats,
        }
    }

    /// The next message that is no answer to a heartbeat; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<ToAgent> {
        loop {
            match self.any().await? {
                ToAgent::HeartbeatAnswer { .. } => {}
                ToAgent::Bundle { digest, bundle } => {
                    assert_eq!(bundle.digest(), digest);
                    self.bundles.push(bundle);
                }
                other => return Some(other),
            }
        }
    }

    async fn any(&mut self) -> Option<ToAgent> {
        let message = tokio::time::timeout(SOON, self.inbound.message())
            .await
            .expect("a message");
        message
            .ok()
            .flatten()
            .map(|message| to_agent::from_wire(message).unwrap())
    }

    /// The sequence of the next heartbeat that is answered.
    pub(crate) async fn answered(&mut self) -> u64 {
        loop {
            if let ToAgent::HeartbeatAnswer { sequence, .. } = self.any().await.expect("a stream") {
                return sequence;
            }
        }
    }

    /// The next answer to a heartbeat.
    pub(crate) async fn renewal(&mut self) -> Renewal {
        loop {
            if let ToAgent::HeartbeatAnswer { renewal, .. } = self.any().await.expect("a stream") {
                return renewal;
            }
        }
    }
}

impl Welcomed {
    /// The next message, if one comes within a moment.
    pub(crate) async fn quiet(&mut self) -> Option<ToAgent> {
        let next = tokio::time::timeout(Duration::from_millis(700), self.agent.next());
        next.await.ok().flatten()
    }

    /// No heartbeat goes out any more; the stream stays.
    pub(crate) fn freeze(&self) {
        self.beats.abort();
    }

    pub(crate) async fn look(&mut self) -> (u64, DatabaseName) {
        match self.agent.next().await {
            Some(ToAgent::Look {
                look, database, term, ..
            }) => {
                assert_eq!(term, self.welcome.term);
                (look, database)
            }
            other => panic!("no look, but {other:?}"),
        }
    }

    /// Answers the next look.
    pub(crate) async fn answer(&mut self, result: Look) -> DatabaseName {
        let (look, database) = self.look().await;
        self.agent
            .say(FromAgent::Looked {
                look,
                database: database.clone(),
                result,
            })
            .await;
        database
    }

    pub(crate) async fn order(&mut self) -> Order {
        match self.agent.next().await {
            Some(ToAgent::Assign { term, order }) => {
                assert_eq!(term, self.welcome.term);
                assert_eq!(order.fence.epoch, self.welcome.epoch);
                order
            }
            other => panic!("no order, but {other:?}"),
        }
    }

    /// The next order; looks that run ahead of it are answered.
    pub(crate) async fn next_order(&mut self) -> Order {
        loop {
            match self.agent.next().await {
                Some(ToAgent::Assign { order, .. }) => return order,
                Some(ToAgent::Look { look, database, .. }) => {
                    let result = pending();
                    self.agent
                        .say(FromAgent::Looked {
                            look,
                            database,
                            result,
                        })
                        .await;
                }
                other => panic!("no order, but {other:?}"),
            }
        }
    }

    /// Looks until something is to be done, and takes the order.
    pub(crate) async fn take(&mut self) -> Order {
        self.answer(pending()).await;
        self.order().await
    }

    pub(crate) async fn report(&self, order: &Order, progress: Progress) {
        self.agent
            .say(FromAgent::Progress {
                of: Holding::of(order),
                progress,
            })
            .await;
    }

    pub(crate) async fn finish(&mut self, order: &Order, finish: Finish) {
        let of = Holding::of(order);
        self.agent
            .say(FromAgent::Finished {
                of: of.clone(),
                finish,
            })
            .await;
        loop {
            match self.agent.next().await {
                Some(ToAgent::Acknowledged(acknowledged)) => {
                    assert_eq!(acknowledged, of);
                    return;
                }
                // Looks run ahead; this test does not care.
                Some(ToAgent::Look { look, database, .. }) => {
                    self.agent
                        .say(FromAgent::Looked {
                            look,
                            database,
                            result: pending(),
                        })
                        .await;
                }
                other => panic!("not acknowledged, but {other:?}"),
            }
        }
    }
}

impl Drop for Welcomed {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

pub(crate) fn database(name: &str) -> DatabaseName {
    DatabaseName::try_from(name).unwrap()
}

fn oid(name: &str) -> u32 {
    name.bytes()
        .fold(7, |hash, byte| hash * 31 % 1_000_003 + u32::from(byte))
}

pub(crate) fn pending() -> Look {
    Look::Pending {
        versions: vec!["001".parse().unwrap()],
    }
}

pub(crate) fn up_to_date() -> Look {
    Look::UpToDate { ahead: Vec::new() }
}

pub(crate) fn done() -> Finish {
    Finish::Done(Summary {
        migrations: 1,
        steps: 1,
        rows: 0,
        ..Summary::default()
    })
}
