//! The embedded store: one file (redb) that one process has open, or memory.
//!
//! Reads run beside each other on snapshots. All writes go through one task, `writer`, that groups them so that
//! one flush of the disk carries many. A write is answered when it is durable. Leases are counted on the clock that
//! runs on during a suspend; opening the file gives those bound to time their full time again, as etcd does when its
//! leader changes, and ends those bound to the process. What has expired is gone for every request that comes after,
//! whether or not the task has got round to it.
//!
//! - `file`: opening, locking, recovering from I/O errors;
//! - `tables`: what is in the file, and changes to it;
//! - `leases`: when leases end;
//! - `writer`: the queue and its task.

mod file;
mod leases;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use super::error::Cause;
use super::{Bound, Entry, Error, LeaseId, Listing, Missing, Outcome, Store, Transaction, limits};
use async_trait::async_trait;
use file::File;
use runtime::clock::Boot;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use writer::{Inner, Job, Reply, Writer};

/// How many requests may wait for the writer; more wait outside.
const QUEUE: usize = 1024;

/// How long a request waits for the disk. A healthy one answers within a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store in one file, or in memory.
pub struct Embedded {
    inner: Arc<Inner>,
    jobs: mpsc::Sender<Job>,
    reads: TaskTracker,
    writer: Mutex<Option<JoinHandle<()>>>,
    stop: DropGuard,
}

/// Why a request got no answer from the writer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the store is closed")]
    Closed,
    #[error("the disk gave no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the request was dropped by a failure inside the store")]
    Dropped,
}

impl Embedded {
    /// Opens a file; a missing one is created if that is allowed.
    ///
    /// # Errors
    /// [`Error::Open`] when it is missing, in use, no store, or cannot be read or written.
    pub async fn open(path: &Path, missing: Missing) -> Result<Self, Error> {
        let store = format!("file:{}", path.display());
        let (name, place) = (store.clone(), path.to_owned());
        let (database, leases) = blocking(&store, move || {
            let database = file::open(&name, &place, missing)?;
            let leases = tables::leases(&database).map_err(|error| unavailable(&name, error))?;
            Ok((database, leases))
        })
        .await?;
        let place = path.to_owned();
        let file = File::new(database, Some(Box::new(move || file::reopen(&place))));
        Ok(Self::start(store, file, &leases))
    }

    /// A new store in memory, gone with the process.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub async fn in_memory() -> Result<Self, Error> {
        let store = "memory:".to_owned();
        let name = store.clone();
        let database = blocking(&store, move || {
            file::in_memory().map_err(|error| unavailable(&name, error))
        })
        .await?;
        Ok(Self::start(store, File::new(database, None), &[]))
    }

    fn start(store: String, file: File, leases: &[(LeaseId, Duration)]) -> Self {
        let inner = Arc::new(Inner::new(store, file, leases));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let writer = Writer::new(Arc::clone(&inner), queue, stop.clone());
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        Self {
            inner,
            jobs,
            reads: TaskTracker::new(),
            writer,
            stop: stop.drop_guard(),
        }
    }

    /// Asks the writer and waits for its answer.
    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.jobs
                .send(job(reply))
                .await
                .map_err(|_| self.silent(NoAnswer::Closed))?;
            answer.await.map_err(|_| self.silent(NoAnswer::Dropped))?
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(self.silent(NoAnswer::Late)))
    }

    /// Reads from a snapshot that has all that was written, and nothing that has expired, before this call.
    async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(&redb::Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let expired = self
            .inner
            .leases()
            .next_end()
            .is_some_and(|end| end <= Boot::now());
        if expired || self.inner.file.has_failed() {
            self.ask(Job::Refresh).await?;
        }
        let inner = Arc::clone(&self.inner);
        let reading = self.reads.spawn_blocking(move || {
            inner
                .file
                .with(read)
                .map_err(|trouble| unavailable(&inner.store, trouble))
        });
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(_panic)) => Err(self.silent(NoAnswer::Dropped)),
            Err(_) => Err(self.silent(NoAnswer::Late)),
        }
    }

    fn silent(&self, why: NoAnswer) -> Error {
        unavailable(&self.inner.store, why)
    }
}

#[async_trait]
impl Store for Embedded {
    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        limits::check_key(key)?;
        let key = key.to_owned();
        self.view(move |database| tables::read(database, &key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let prefix = prefix.to_owned();
        self.view(move |database| tables::list(database, &prefix)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        limits::check(&transaction)?;
        self.ask(|reply| Job::Commit(transaction, reply)).await
    }

    async fn grant(&self, ttl: Duration, bound: Bound) -> Result<LeaseId, Error> {
        limits::check_ttl(ttl)?;
        self.ask(|reply| Job::Grant(ttl, bound, reply)).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        if self.stop.token().is_cancelled() {
            return Err(self.silent(NoAnswer::Closed));
        }
        // Only time is renewed, and time is not in the file: no need to wait for the disk.
        Ok(self.inner.leases().renew(lease, Boot::now()))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.ask(|reply| Job::Revoke(lease, reply)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.hint.subscribe()
    }

    async fn close(&self) {
        // `DropGuard` can only be disarmed by value; a clone of its token stops the writer as well.
        self.stop.token().cancel();
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(panic) = writer.await
        {
            tracing::error!(store = self.inner.store, %panic, "the writer of the store failed");
        }
        self.reads.close();
        self.reads.wait().await;
        let inner = Arc::clone(&self.inner);
        // Dropping the database writes to the file and unlocks it.
        if let Err(panic) = tokio::task::spawn_blocking(move || inner.file.close()).await {
            tracing::error!(store = self.inner.store, %panic, "the store's file could not be closed");
        }
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    store: &str,
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(act)
        .await
        .unwrap_or_else(|panic| Err(unavailable(store, panic)))
}

fn unavailable(store: &str, source: impl Into<Cause>) -> Error {
    Error::Unavailable {
        store: store.to_owned(),
        source: source.into(),
    }
}
