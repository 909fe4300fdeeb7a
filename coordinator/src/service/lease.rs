//! An agent's lease: granted or renewed at its Hello, renewed by its heartbeats. Needs no term: any coordinator may.

use crate::chain::chain;
use crate::store::{Bound, Error, LeaseId, Store};
use shared::rollout::message::Renewal;
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

/// The lease an agent had, if it lives, else a new one.
pub(super) async fn obtain(store: &dyn Store, had: Option<i64>, ttl: Duration) -> Result<Living, Error> {
    if let Some(id) = had
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
pub(super) async fn renew(store: &dyn Store, lease: i64) -> Renewal {
    match store.renew(LeaseId(lease)).await {
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

/// Ends a lease that nobody uses; if that fails it ends by itself.
pub(super) async fn give_back(store: &dyn Store, lease: i64) {
    if let Err(error) = store.revoke(LeaseId(lease)).await {
        tracing::debug!(%error, lease, "a lease could not be given back; it ends by itself");
    }
}
