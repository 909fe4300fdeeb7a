//! A store that does not answer for a while.

use crate::agent::{Process, done};
use crate::coordinator::{AGENT_LEASE, Coordinator, LEADER_LEASE, memory, request};
use async_trait::async_trait;
use coordinator::store::{Bound, Entry, Error, LeaseId, Listing, Outcome, Store, Transaction};
use shared::rollout::message::{Holding, Renewal, ToAgent};
use shared::rollout::view::State;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Code;

/// A store that can be switched off, and that can lose the answer to a write.
struct Wire {
    inner: Arc<dyn Store>,
    down: AtomicBool,
    /// The n-th commit from now is carried out, and its answer is lost.
    lose_answer: AtomicU64,
}

impl Wire {
    fn check(&self) -> Result<(), Error> {
        if self.down.load(Ordering::SeqCst) {
            Err(lost())
        } else {
            Ok(())
        }
    }
}

fn lost() -> Error {
    Error::Unavailable {
        store: "test".to_owned(),
        source: "switched off".into(),
    }
}

#[async_trait]
impl Store for Wire {
    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.check()?;
        self.inner.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.check()?;
        self.inner.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        self.check()?;
        let outcome = self.inner.commit(transaction).await?;
        match self.lose_answer.load(Ordering::SeqCst) {
            0 => Ok(outcome),
            left => {
                self.lose_answer.store(left - 1, Ordering::SeqCst);
                if left == 1 { Err(lost()) } else { Ok(outcome) }
            }
        }
    }

    async fn grant(&self, ttl: Duration, bound: Bound) -> Result<LeaseId, Error> {
        self.check()?;
        self.inner.grant(ttl, bound).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        self.check()?;
        self.inner.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.check()?;
        self.inner.revoke(lease).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn wire() -> (Arc<Wire>, Arc<dyn Store>) {
    let wire = Wire {
        inner: memory().await,
        down: AtomicBool::new(false),
        lose_answer: AtomicU64::new(0),
    };
    let wire = Arc::new(wire);
    (wire.clone(), wire)
}

#[tokio::test]
async fn an_outage_longer_than_the_leaders_lease_loses_nothing() {
    let (wire, store) = wire().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut agent = process.join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let order = agent.take().await;
    wire.down.store(true, Ordering::SeqCst);
    // It steps down, says so, and goes on answering heartbeats truthfully.
    let told = agent.agent.next().await;
    assert!(
        matches!(told, Some(ToAgent::Redirect { leader: None })),
        "{told:?}"
    );
    crate::eventually("heartbeats to say so", async || {
        (agent.agent.renewal().await == Renewal::StoreUnavailable).then_some(())
    })
    .await;
    assert_eq!(
        coordinator.create(request("ci-2")).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        coordinator.show(rollout.id.as_str()).await.unwrap_err().code(),
        Code::Unavailable
    );
    tokio::time::sleep(LEADER_LEASE).await;
    wire.down.store(false, Ordering::SeqCst);
    let again = agent.agent.next().await;
    assert!(
        matches!(&again, Some(ToAgent::Redirect { leader: Some(url) }) if *url == coordinator.url),
        "{again:?}"
    );
    let lease = Some(agent.welcome.lease);
    drop(agent);
    let mut agent = process
        .rejoin(&coordinator.url, lease, vec![Holding::of(&order)])
        .await;
    if Some(agent.welcome.lease) == lease {
        agent.finish(&order, done()).await;
    } else {
        // The lease ran out meanwhile, on a slow machine: the work is lost and given again.
        let order = agent.take().await;
        agent.finish(&order, done()).await;
    }
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn work_is_done_after_an_outage_longer_than_the_agents_lease() {
    let (wire, store) = wire().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut agent = process.join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    let order = agent.take().await;
    wire.down.store(true, Ordering::SeqCst);
    tokio::time::sleep(AGENT_LEASE + Duration::from_secs(1)).await;
    wire.down.store(false, Ordering::SeqCst);
    drop(agent);
    let mut agent = process
        .rejoin(&coordinator.url, None, vec![Holding::of(&order)])
        .await;
    // What it still holds is of a lease that has ended.
    let told = agent.agent.next().await;
    assert!(
        matches!(&told, Some(ToAgent::Stop { of, .. }) if *of == Holding::of(&order)),
        "{told:?}"
    );
    let next = agent.take().await;
    assert!(next.fence > order.fence);
    agent.finish(&next, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_by_reading_again() {
    let (wire, store) = wire().await;
    let coordinator = Coordinator::start(&store).await;
    let process = Process::new("a", &["orders"]);
    let mut agent = process.join(&coordinator.url).await;
    let (rollout, _) = coordinator.create(request("ci-1")).await.unwrap();
    // The look's answer leads to the write of the lease: it is carried out, and nobody knows.
    let (look, database) = agent.look().await;
    wire.lose_answer.store(1, Ordering::SeqCst);
    let result = crate::agent::pending();
    agent
        .agent
        .say(shared::rollout::message::FromAgent::Looked {
            look,
            database,
            result,
        })
        .await;
    let told = agent.agent.next().await;
    assert!(matches!(told, Some(ToAgent::Redirect { .. })), "{told:?}");
    let lease = Some(agent.welcome.lease);
    drop(agent);
    let mut agent = process.rejoin(&coordinator.url, lease, Vec::new()).await;
    let order = agent.order().await;
    assert_eq!(order.attempt, 1);
    agent.finish(&order, done()).await;
    assert_eq!(coordinator.wait_for_end(&rollout).await.state, State::Done);
}
