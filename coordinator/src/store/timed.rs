//! A store whose calls are timed.

use super::{Bound, Entry, Error, LeaseId, Listing, Outcome, Store, Transaction};
use crate::metrics::{self, Operation};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells the metrics how long each call took.
pub(crate) struct Timed(pub(crate) Arc<dyn Store>);

async fn timed<T>(
    operation: Operation,
    call: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Error> {
    let began = Instant::now();
    let result = call.await;
    metrics::store_called(operation, began.elapsed(), &result);
    result
}

#[async_trait]
impl Store for Timed {
    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        timed(Operation::Read, self.0.read(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        timed(Operation::Read, self.0.list(prefix)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        timed(Operation::Commit, self.0.commit(transaction)).await
    }

    async fn grant(&self, ttl: Duration, bound: Bound) -> Result<LeaseId, Error> {
        timed(Operation::Lease, self.0.grant(ttl, bound)).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        timed(Operation::Lease, self.0.renew(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        timed(Operation::Lease, self.0.revoke(lease)).await
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
