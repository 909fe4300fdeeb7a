//! The one task that writes: it takes what has queued up, carries it out in one transaction of the file, and answers
//! when that is durable. While one group waits for the disk the next one gathers, so a disk that manages a hundred
//! flushes a second carries thousands of commits. The same task ends leases whose time is over.
//!
//! ```text
//! callers -> bounded queue -> group -> one transaction -> flush -> answers, leases, hint
//! ```

use super::file::{File, Trouble};
use super::leases::Leases;
use super::tables::{self, Change, Decided};
use super::unavailable;
use crate::store::{Bound, Error, LeaseId, Outcome, Transaction};
use redb::Database;
use runtime::clock::{Boot, sleep_until};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The most requests in one group: bounds the memory and the time of one transaction of the file.
const MAX_GROUP: usize = 256;

/// How long to wait before leases are tried to be ended again after the disk failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the writer is asked for.
pub(super) enum Job {
    Commit(Transaction, Reply<Outcome>),
    Grant(Duration, Bound, Reply<LeaseId>),
    Revoke(LeaseId, Reply<()>),
    /// End what has expired and open the file again if it failed.
    Refresh(Reply<()>),
}

impl Job {
    /// Answers without carrying it out.
    fn refuse(self, error: Error) {
        match self {
            Self::Commit(_, reply) => answer(reply, Err(error))(Ok(())),
            Self::Grant(_, _, reply) => answer(reply, Err(error))(Ok(())),
            Self::Revoke(_, reply) | Self::Refresh(reply) => answer(reply, Err(error))(Ok(())),
        }
    }
}

/// What readers and the writer share.
pub(super) struct Inner {
    pub(super) store: String,
    pub(super) file: File,
    leases: Mutex<Leases>,
    pub(super) hint: watch::Sender<u64>,
}

impl Inner {
    pub(super) fn new(store: String, file: File, stored: &[(LeaseId, Duration)]) -> Self {
        let mut leases = Leases::default();
        leases.reconcile(stored, Boot::now());
        Self {
            store,
            file,
            leases: Mutex::new(leases),
            hint: watch::Sender::new(0),
        }
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        // No code that can panic runs while it is locked, save for a lack of memory.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that waits for the group to be durable.
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The writing task.
pub(super) struct Writer {
    inner: Arc<Inner>,
    queue: mpsc::Receiver<Job>,
    stop: CancellationToken,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, queue: mpsc::Receiver<Job>, stop: CancellationToken) -> Self {
        Self { inner, queue, stop }
    }

    /// Works until it is stopped or nobody is left to ask; then answers what is still queued.
    pub(super) async fn run(mut self) {
        let mut earliest_expiry = Boot::now();
        loop {
            let next_end = self.inner.leases().next_end().map(|end| end.max(earliest_expiry));
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                job = self.queue.recv() => match job {
                    Some(job) => Some(job),
                    None => break,
                },
                () = until(next_end) => None,
            };
            if !self.carry_out(first).await {
                earliest_expiry = Boot::now() + RETRY_PAUSE;
            }
        }
        self.queue.close();
        while let Some(job) = self.queue.recv().await {
            self.carry_out(Some(job)).await;
        }
    }

    /// Carries out a request with all that have queued up behind it. Whether the file could be written.
    async fn carry_out(&mut self, first: Option<Job>) -> bool {
        let mut group: Vec<Job> = first.into_iter().collect();
        while group.len() < MAX_GROUP
            && let Ok(job) = self.queue.try_recv()
        {
            group.push(job);
        }
        let inner = Arc::clone(&self.inner);
        // A panic in there drops the replies, and the callers learn that the store does not answer.
        let carried = tokio::task::spawn_blocking(move || carry_out(&inner, group)).await;
        carried.unwrap_or_else(|panic| {
            tracing::error!(store = self.inner.store, %panic, "the writer of the store failed");
            false
        })
    }
}

/// Waits for an instant, or for ever.
async fn until(instant: Option<Boot>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What a group leads to once it is durable.
#[derive(Default)]
struct Consequences {
    answers: Vec<Answer>,
    granted: Vec<(LeaseId, Duration)>,
    ended: Vec<LeaseId>,
}

/// Carries out a group in one transaction of the file and answers it. Whether the file could be written.
fn carry_out(inner: &Inner, group: Vec<Job>) -> bool {
    let repaired = inner
        .file
        .repair()
        .and_then(|reopened| if reopened { reconcile(inner) } else { Ok(()) });
    if let Err(trouble) = repaired {
        let trouble = Arc::new(trouble);
        for job in group {
            job.refuse(unavailable(&inner.store, Arc::clone(&trouble)));
        }
        return false;
    }
    let expired = inner.leases().expired(Boot::now());
    let nobody_asked = group.is_empty();
    let mut then = Consequences::default();
    match inner
        .file
        .with(|database| write(database, expired, group, &mut then))
    {
        Ok(written) => {
            follow(inner, &then);
            if written {
                inner.hint.send_modify(|count| *count = count.wrapping_add(1));
            }
            for answer in then.answers {
                answer(Ok(()));
            }
            true
        }
        Err(trouble) => {
            let trouble = Arc::new(trouble);
            if nobody_asked {
                let cause: &(dyn std::error::Error + 'static) = &*trouble;
                tracing::warn!(
                    store = inner.store,
                    error = cause,
                    "leases could not be ended; will be tried again"
                );
            }
            for answer in then.answers {
                answer(Err(unavailable(&inner.store, Arc::clone(&trouble))));
            }
            false
        }
    }
}

/// The group's one transaction: first what has expired, then each request in its turn. Whether anything was written.
fn write(
    database: &Database,
    expired: Vec<LeaseId>,
    group: Vec<Job>,
    then: &mut Consequences,
) -> Result<bool, redb::Error> {
    let transaction = database.begin_write()?;
    let mut change = Change::begin(&transaction)?;
    for lease in expired {
        change.end(lease)?;
        then.ended.push(lease);
    }
    for job in group {
        then.answers.push(match job {
            Job::Commit(asked, reply) => match change.commit(&asked)? {
                Decided::Outcome(outcome) => answer(reply, Ok(outcome)),
                Decided::LeaseGone(lease) => answer(reply, Err(Error::LeaseGone(lease))),
            },
            Job::Grant(ttl, bound, reply) => {
                let lease = change.grant(ttl, bound)?;
                then.granted.push((lease, ttl));
                answer(reply, Ok(lease))
            }
            Job::Revoke(lease, reply) => {
                change.end(lease)?;
                then.ended.push(lease);
                answer(reply, Ok(()))
            }
            Job::Refresh(reply) => answer(reply, Ok(())),
        });
    }
    let written = change.finish()?;
    if written {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(written)
}

/// The clock's side of what is durable now. A lease may have been granted and revoked in one group.
fn follow(inner: &Inner, then: &Consequences) {
    let mut leases = inner.leases();
    let now = Boot::now();
    for (lease, ttl) in &then.granted {
        leases.insert(*lease, *ttl, now);
    }
    for lease in &then.ended {
        leases.remove(*lease);
    }
}

/// The leases as the file has them, after it was opened again: of a group that failed nobody knows whether it was
/// written.
fn reconcile(inner: &Inner) -> Result<(), Trouble> {
    let stored = inner.file.with(tables::leases)?;
    inner.leases().reconcile(&stored, Boot::now());
    tracing::info!(store = inner.store, "the store's file is open again");
    inner.hint.send_modify(|count| *count = count.wrapping_add(1));
    Ok(())
}

/// Keeps an answer back until the group is durable; if it is not, the failure goes in its place.
fn answer<T: Send + 'static>(reply: Reply<T>, with: Result<T, Error>) -> Answer {
    // Whoever asked may have gone away; then nobody needs the answer.
    Box::new(move |durable| drop(reply.send(durable.and(with))))
}
