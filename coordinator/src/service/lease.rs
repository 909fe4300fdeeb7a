//! An agent's lease: granted or renewed at its Hello, renewed by its heartbeats. Needs no term: any coordinator may.
//!
//! A lease is renewed only for the agent it was granted to. Another store (one in memory, started again) numbers its
//! leases anew, and an agent that comes from the earlier one would keep somebody else's alive, or end it.

use crate::chain::chain;
use crate::keys;
use crate::store::{Bound, Error, LeaseId, Store};
use shared::id::AgentId;
use shared::rollout::Book;
use shared::rollout::fleet::Agent;
use shared::rollout::message::{Hello, Renewal};
use std::time::Duration;

/// Heartbeats come three times in a lease, and at least this often: whoever is silent for twice as long is not there.
const MOST_INTERVAL: Duration = Duration::from_secs(5);

/// How often an agent is to send a heartbeat.
pub(super) fn heartbeat_interval(lease: Duration) -> Duration {
    (lease / 3).min(MOST_INTERVAL)
}

/// A living lease, and whether it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Living {
    pub(super) id: i64,
    pub(super) ttl: Duration,
    pub(super) is: Is,
}

/// Whether a lease is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Renewed,
    Granted,
}

/// How a lease is known to be an agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The leader granted or renewed it on this stream.
    Known,
    /// The store says whose it is.
    Ask(AgentId),
    /// It is another's, or an earlier one.
    Other,
}

/// The lease that an agent claims in its Hello, if the book knows it as its own.
pub(super) fn own(book: &Book, hello: &Hello) -> Option<i64> {
    let known = book.fleet().agents().get(&hello.agent)?;
    let same = known.instance == hello.instance && Some(known.lease) == hello.lease;
    same.then_some(known.lease)
}

/// The lease an agent has, if it lives, else a new one.
pub(super) async fn obtain(store: &dyn Store, own: Option<i64>, ttl: Duration) -> Result<Living, Error> {
    if let Some(id) = own
        && let Some(ttl) = store.renew(LeaseId(id)).await?
    {
        return Ok(Living {
            id,
            ttl,
            is: Is::Renewed,
        });
    }
    let LeaseId(id) = store.grant(ttl, Bound::Time).await?;
    Ok(Living {
        id,
        ttl,
        is: Is::Granted,
    })
}

/// Renews a lease for a heartbeat.
pub(super) async fn renew(store: &dyn Store, lease: i64, owner: Owner) -> Renewal {
    match try_renew(store, lease, owner).await {
        Ok(Some(ttl)) => Renewal::Alive(ttl),
        Ok(None) => Renewal::Gone,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                lease,
                "an agent's lease could not be renewed"
            );
            Renewal::StoreUnavailable
        }
    }
}

async fn try_renew(store: &dyn Store, lease: i64, owner: Owner) -> Result<Option<Duration>, Error> {
    let own = match owner {
        Owner::Known => true,
        Owner::Ask(agent) => {
            let key = keys::agent(&agent);
            let entry = store.read(&key).await?;
            let agent: Option<Agent> = entry.map(|entry| keys::decode(&key, &entry.value)).transpose()?;
            agent.is_some_and(|agent| agent.lease == lease)
        }
        Owner::Other => false,
    };
    if own {
        store.renew(LeaseId(lease)).await
    } else {
        Ok(None)
    }
}

/// Ends a lease that nobody uses; if that fails it ends by itself.
pub(super) async fn give_back(store: &dyn Store, lease: i64) {
    if let Err(error) = store.revoke(LeaseId(lease)).await {
        tracing::debug!(
            error = chain(&error),
            lease,
            "a lease could not be given back; it ends by itself"
        );
    }
}
