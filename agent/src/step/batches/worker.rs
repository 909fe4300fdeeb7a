//! The workers of one loop: each takes a range that is not done, and goes over it batch by batch. One that finds no range
//! left splits the longest of the others.

use super::batch::{Left, Outcome, Work};
use super::shards::{Open, Shard};
use super::split;
use crate::backoff::Backoff;
use crate::error::Error;
use crate::run::{PATIENCE, Run};
use crate::step::Place;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shared::batch::{FIRST_ROWS, Size, TARGET};
use shared::plan::Batches;
use shared::sql::Tag;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What workers leave of a pool: a connection for the probes and the holder's renewals.
const RESERVED: usize = 1;

/// Most workers of a loop: as the author says, or as many as the pool and the server's cores allow.
pub(super) fn most(run: &Run<'_>, batches: &Batches) -> u32 {
    let pool = run.database.limits().connections.saturating_sub(RESERVED).max(1);
    let pool = u32::try_from(pool).unwrap_or(u32::MAX);
    batches.pacing.workers.unwrap_or(1).min(pool)
}

/// What the workers of a loop share.
pub(super) struct Shared<'a, 'b> {
    pub(super) run: &'a Run<'b>,
    pub(super) place: Place<'a>,
    pub(super) batches: &'a Batches,
    pub(super) tag: Tag,
    /// One of us failed: the others stop at their next batch boundary.
    halt: CancellationToken,
    state: Mutex<State>,
}

/// How far the loop is. Only hints: the ledger has the truth.
struct State {
    waiting: Vec<Shard>,
    /// Ranges at work, with the rows changed in them.
    working: BTreeMap<i32, Shard>,
    next: i32,
    rows_done: i64,
    changed: u64,
    commits: u64,
    size: Option<Size>,
}

/// Goes over all open ranges until none is left.
pub(super) async fn all(
    run: &mut Run<'_>,
    place: Place<'_>,
    batches: &Batches,
    open: Open,
) -> Result<(), Error> {
    let workers = most(run, batches);
    let mut waiting = open.shards;
    // Taken from the end.
    waiting.reverse();
    let shared = Shared {
        run,
        place,
        batches,
        tag: place.tag(run),
        halt: run.control.stop.child_token(),
        state: Mutex::new(State {
            waiting,
            working: BTreeMap::new(),
            next: open.next,
            rows_done: open.rows_done,
            changed: 0,
            commits: 0,
            size: run.size,
        }),
    };
    let mut at_work: FuturesUnordered<_> = (0..workers).map(|_| shared.work()).collect();
    let mut outcome = Ok(());
    while let Some(ended) = at_work.next().await {
        if ended.is_err() {
            // The first error counts; the others then stop, which is no error of its own.
            shared.halt.cancel();
            outcome = outcome.and(ended);
        }
    }
    drop(at_work);
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    run.commits += state.commits;
    run.summary.rows += state.changed;
    run.size = state.size;
    outcome
}

impl Shared<'_, '_> {
    /// One worker.
    async fn work(&self) -> Result<(), Error> {
        loop {
            self.stop_if_asked()?;
            if let Some(shard) = self.take() {
                self.go_over(&shard).await?;
            } else if !split::longest(self).await? {
                return Ok(());
            }
        }
    }

    /// One range, to its end.
    async fn go_over(&self, shard: &Shard) -> Result<(), Error> {
        let work = Work {
            run: self.run,
            place: self.place,
            batches: self.batches,
            part: &self.batches.parts[shard.part],
            shard: shard.number,
            pass: shard.pass,
            tag: &self.tag,
        };
        let pacing = &self.batches.pacing;
        let mut size = self.lock().size.unwrap_or_else(|| {
            Size::new(
                pacing.first_rows.unwrap_or(FIRST_ROWS),
                pacing.target.unwrap_or(TARGET),
            )
        });
        let mut trouble: Option<Backoff> = None;
        let mut retries = 0;
        loop {
            self.stop_if_asked()?;
            let mut session = self.run.database.session().await?;
            let started = Instant::now();
            let outcome = work.batch(&mut session, size.rows(), retries).await;
            if outcome.is_err() {
                session.rollback(&self.tag).await;
            }
            drop(session);
            match outcome {
                Ok(outcome) => {
                    (trouble, retries) = (None, 0);
                    if outcome.left == Left::More {
                        size.took(started.elapsed());
                    }
                    self.moved(shard, outcome, size);
                    if outcome.left == Left::Nothing {
                        return Ok(());
                    }
                    self.pause(pacing.pause).await?;
                }
                // Rolled back, and who was in the way may be gone: the same range again, with less of it at once.
                Err(error) if is_contention(&error) => {
                    size.failed();
                    self.lock().size = Some(size);
                    retries += 1;
                    let backoff = trouble.get_or_insert_with(Backoff::new);
                    if backoff.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    tracing::debug!(database = %self.run.database.name(), error = %error, "a batch is tried again");
                    let pause = backoff.pause();
                    self.pause(pause).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next range that nobody works on.
    fn take(&self) -> Option<Shard> {
        let mut state = self.lock();
        let shard = state.waiting.pop()?;
        state.working.insert(shard.number, shard.clone());
        Some(shard)
    }

    /// A batch was committed.
    fn moved(&self, shard: &Shard, outcome: Outcome, size: Size) {
        let mut state = self.lock();
        state.size = Some(size);
        state.changed += outcome.changed;
        state.commits += 1;
        match outcome.left {
            Left::More => {
                if let Some(working) = state.working.get_mut(&shard.number) {
                    working.rows = outcome.rows;
                }
            }
            Left::Nothing => {
                state.working.remove(&shard.number);
                state.rows_done += outcome.rows;
            }
        }
        let at_work = state
            .working
            .values()
            .chain(&state.waiting)
            .map(|shard| shard.rows);
        let rows = state.rows_done + at_work.sum::<i64>();
        drop(state);
        self.run
            .report(|progress| progress.rows = u64::try_from(rows).unwrap_or(0));
    }

    /// The ranges that are worked on.
    pub(super) fn working(&self) -> Vec<Shard> {
        self.lock().working.values().cloned().collect()
    }

    /// Rows of a batch, as it is now.
    pub(super) fn batch_rows(&self) -> u32 {
        self.lock().size.map_or(FIRST_ROWS, Size::rows)
    }

    /// The number of a range that is to be inserted.
    pub(super) fn next_number(&self) -> i32 {
        let mut state = self.lock();
        state.next += 1;
        state.next - 1
    }

    /// A range was split off another one.
    pub(super) fn split_off(&self, shard: Shard) {
        let mut state = self.lock();
        state.commits += 1;
        state.waiting.push(shard);
    }

    fn stop_if_asked(&self) -> Result<(), Error> {
        if self.halt.is_cancelled() {
            Err(Error::Stopped)
        } else {
            Ok(())
        }
    }

    async fn pause(&self, pause: std::time::Duration) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.halt.cancelled() => Err(Error::Stopped),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while it is locked, save for a lack of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a batch met others: a lock, a deadlock, or too little time for its size.
fn is_contention(error: &Error) -> bool {
    matches!(error.sqlstate(), Some("55P03" | "40P01" | "40001" | "57014"))
}
