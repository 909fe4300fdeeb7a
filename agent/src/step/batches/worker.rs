//! The workers of one loop: each takes a range that is not done, and goes over it batch by batch. One that finds no range
//! left splits the longest of the others.

use super::batch::{Left, Outcome, Work};
use super::pacer::{Pacer, Retried};
use super::shards::{Open, Shard};
use super::split;
use super::vacuum::{self, Vacuums};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::metrics;
use crate::run::{PATIENCE, Run};
use crate::step::Place;
use crate::story::Batch;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shared::batch::{Gaps, Overhead, Size, TARGET, first_rows};
use shared::plan::Batches;
use shared::sql::Tag;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What workers leave of a pool: a connection for the probes and the holder's renewals.
const RESERVED: usize = 1;

/// The server ends each statement of a batch in a quarter of this time: one that takes longer has no server any more, or
/// no way to it.
const PATIENCE_FOR_ONE: Duration = Duration::from_mins(1);

/// Taken for the cores of a server of which they are not known.
const UNKNOWN_CORES: u32 = 4;

/// Most workers of a loop: as many as the author says, or one for every two cores of the server; never more than the pool
/// allows.
pub(super) fn most(run: &Run<'_>, batches: &Batches) -> u32 {
    let pool = run.database.limits().connections.saturating_sub(RESERVED).max(1);
    let pool = u32::try_from(pool).unwrap_or(u32::MAX);
    let cores = run.database.throttle().machine.cores;
    batches
        .pacing
        .workers
        .unwrap_or_else(|| (cores.unwrap_or(UNKNOWN_CORES) / 2).max(1))
        .min(pool)
}

/// The size of the first batch: as the author says, or by the guide's table, whose sizes are for batches of the usual time.
fn first_size(run: &Run<'_>, batches: &Batches, pacer: &Pacer) -> Size {
    if let Some(rows) = batches.pacing.first_rows {
        return Size::new(rows, pacer.target());
    }
    let machine = run.database.throttle().machine;
    Size::new(first_rows(machine.memory_bytes, machine.cores), TARGET)
}

/// What the workers of a loop share.
pub(super) struct Shared<'a, 'b> {
    pub(super) run: &'a Run<'b>,
    pub(super) place: Place<'a>,
    pub(super) batches: &'a Batches,
    pub(super) tag: Tag,
    pub(super) pacer: Pacer,
    pub(super) vacuums: Vacuums,
    /// One of us failed: the others stop at their next batch boundary.
    pub(super) halt: CancellationToken,
    state: Mutex<State>,
}

/// How far the loop is. Only hints: the ledger has the truth.
struct State {
    waiting: Vec<Shard>,
    /// Workers that may run batches now.
    active: u32,
    /// Ranges at work, with the rows changed in them.
    working: BTreeMap<i32, Shard>,
    next: i32,
    rows_done: i64,
    changed: u64,
    commits: u64,
    batches: u64,
    retries: u64,
    size: Size,
    /// Of each part's key.
    gaps: BTreeMap<usize, Gaps>,
}

/// What a worker does next.
enum Next {
    /// A range that nobody works on.
    Take(Shard),
    /// All ranges are worked on by others: half of one of them.
    Split,
    /// The pace allows no further worker now.
    Wait,
    /// No range is left.
    End,
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
    let pacer = Pacer::new(batches, workers);
    pacer.ask_first(run).await?;
    let size = run.size.unwrap_or_else(|| first_size(run, batches, &pacer));
    let rows = open.rows_done + waiting.iter().map(|shard| shard.rows).sum::<i64>();
    run.report(|progress| progress.rows = u64::try_from(rows).unwrap_or(0));
    let shared = Shared {
        run,
        place,
        batches,
        tag: place.tag(run),
        pacer,
        vacuums: Vacuums::of(batches, run.tally.told_of_no_vacuum),
        halt: run.control.stop.child_token(),
        state: Mutex::new(State {
            waiting,
            active: 0,
            working: BTreeMap::new(),
            next: open.next,
            rows_done: open.rows_done,
            changed: 0,
            commits: 0,
            batches: 0,
            retries: 0,
            size,
            gaps: BTreeMap::new(),
        }),
    };
    let working = async {
        let mut at_work: FuturesUnordered<_> = (0..workers).map(|_| shared.work()).collect();
        let mut outcome = Ok(());
        while let Some(ended) = at_work.next().await {
            if ended.is_err() {
                // The first error counts; the others then stop, which is no error of its own.
                shared.halt.cancel();
                outcome = outcome.and(ended);
            }
        }
        outcome
    };
    let outcome = tokio::select! {
        outcome = working => outcome,
        never = shared.pacer.steer(run, batches) => match never {},
    };
    metrics::pace(run.database.name(), 0.0, Some(Duration::ZERO));
    let (vacuums, told) = shared.vacuums.ended();
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    run.commits += state.commits;
    run.summary.rows += state.changed;
    run.tally.batches += state.batches;
    run.tally.retries += state.retries;
    run.tally.vacuums += vacuums;
    run.tally.told_of_no_vacuum = told;
    run.size = Some(state.size);
    outcome
}

impl Shared<'_, '_> {
    /// One worker.
    async fn work(&self) -> Result<(), Error> {
        let mut changes = self.pacer.changes();
        loop {
            self.stop_if_asked()?;
            changes.mark_unchanged();
            match self.next() {
                Next::Take(shard) => {
                    let outcome = self.go_over(&shard).await;
                    self.put_down();
                    outcome?;
                }
                Next::Split => {
                    let split = split::longest(self).await;
                    self.put_down();
                    if !split? {
                        return Ok(());
                    }
                }
                Next::Wait => tokio::select! {
                    _ = changes.changed() => {}
                    () = self.halt.cancelled() => {}
                },
                Next::End => return Ok(()),
            }
        }
    }

    /// One range, to its end or until the pace wants fewer workers.
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
        if self.pacer.is_stopped() {
            tokio::select! {
                () = self.pacer.rest(self.run, Duration::ZERO) => {}
                () = self.halt.cancelled() => return Err(Error::Stopped),
            }
        }
        let mut size = self.lock().size;
        let mut gaps = self.lock().gaps.get(&shard.part).copied().unwrap_or_default();
        let mut trouble: Option<Backoff> = None;
        let mut retries = 0;
        let mut overhead = Overhead::default();
        loop {
            self.stop_if_asked()?;
            size.aim(self.pacer.target());
            let mut session = self.run.database.busy_session().await?;
            let started = Instant::now();
            let batch = work.batch(&mut session, size.rows(), retries, &mut gaps, &mut overhead);
            let Ok(outcome) = tokio::time::timeout(PATIENCE_FOR_ONE, batch).await else {
                // Dropped, the connection is closed; what became of the batch is what the next one reads.
                return Err(Error::Silent(PATIENCE_FOR_ONE));
            };
            if outcome.is_err() {
                session.rollback(&self.tag).await;
            }
            drop(session);
            match outcome {
                Ok(outcome) => {
                    (trouble, retries) = (None, 0);
                    let took = started.elapsed();
                    self.pacer.looked_at(outcome.looked_at(size.rows()));
                    metrics::batch(
                        self.run.database.name(),
                        &self.batches.change,
                        outcome.changed,
                        took,
                    );
                    size = outcome.next_size(size);
                    self.vacuums.changed(work.part, outcome.changed);
                    self.pacer.passed(shard.number);
                    let number = self.moved(shard, outcome, size, gaps);
                    let (reason, pace) = self.pacer.resting_for();
                    self.run.control.recorder.batch(Batch {
                        number,
                        took,
                        work: outcome.work,
                        target: self.pacer.target(),
                        rows: outcome.changed,
                        range: shard.number,
                        reason,
                        pace,
                    });
                    if outcome.left == Left::Nothing {
                        return Ok(());
                    }
                    // On the heap: it is rare, and a run of many steps is one future.
                    Box::pin(vacuum::when_due(self, work.part)).await;
                    tokio::select! {
                        () = self.pacer.rest(self.run, took) => {}
                        () = self.halt.cancelled() => return Err(Error::Stopped),
                    }
                    if self.give_back(shard.number) {
                        return Ok(());
                    }
                }
                // Rolled back, and who was in the way may be gone: the same range again, with less of it at once.
                Err(error) if is_contention(&error) => {
                    size.failed();
                    metrics::batch_retried(self.run.database.name());
                    retries += 1;
                    let why = Retried {
                        rows: size.rows(),
                        tries: retries,
                        by: met(&error),
                    };
                    self.met_others(shard, size, why);
                    let backoff = trouble.get_or_insert_with(Backoff::new);
                    if backoff.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    // Once a batch; each further try shows in the progress.
                    if retries == 1 {
                        tracing::info!(
                            database = %self.run.database.name(), range = shard.number, batch_rows = size.rows(), error = %error,
                            "a batch met others: it is tried again with half its rows"
                        );
                    }
                    let pause = backoff.pause();
                    self.pause(pause).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What there is for one more worker. Who takes or splits counts as active until it puts down.
    fn next(&self) -> Next {
        let allowed = self.pacer.workers();
        let mut state = self.lock();
        if state.waiting.is_empty() && state.working.is_empty() {
            return Next::End;
        }
        if state.active >= allowed {
            return Next::Wait;
        }
        state.active += 1;
        match state.waiting.pop() {
            Some(shard) => {
                state.working.insert(shard.number, shard.clone());
                Next::Take(shard)
            }
            None => Next::Split,
        }
    }

    fn put_down(&self) {
        self.lock().active -= 1;
        self.pacer.notify();
    }

    /// Lays a range down where the pace wants fewer workers.
    fn give_back(&self, number: i32) -> bool {
        let allowed = self.pacer.workers();
        let mut state = self.lock();
        if state.active <= allowed {
            return false;
        }
        let shard = state.working.remove(&number);
        state.waiting.extend(shard);
        true
    }

    /// A batch was committed; how many were before it.
    fn moved(&self, shard: &Shard, outcome: Outcome, size: Size, gaps: Gaps) -> u64 {
        let mut state = self.lock();
        state.size = size;
        state.gaps.insert(shard.part, gaps);
        state.changed += outcome.changed;
        state.commits += 1;
        state.batches += 1;
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
        let (before, retries) = (state.batches - 1, state.retries);
        drop(state);
        self.run.report(|progress| {
            progress.rows = u64::try_from(rows).unwrap_or(0);
            (progress.batch_rows, progress.retries) = (size.rows(), retries);
        });
        before
    }

    /// A batch was rolled back and is to be tried again.
    fn met_others(&self, shard: &Shard, size: Size, why: Retried) {
        let retries = {
            let mut state = self.lock();
            state.size = size;
            state.retries += 1;
            state.retries
        };
        self.pacer.tries_again(shard.number, why);
        let reason = self.pacer.reason();
        self.run.report(|progress| {
            (progress.batch_rows, progress.retries) = (size.rows(), retries);
            progress.pace = reason;
        });
    }

    /// The ranges that are worked on.
    pub(super) fn working(&self) -> Vec<Shard> {
        self.lock().working.values().cloned().collect()
    }

    /// Rows of a batch, as it is now.
    pub(super) fn batch_rows(&self) -> u32 {
        self.lock().size.rows()
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

    async fn pause(&self, pause: Duration) -> Result<(), Error> {
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

/// What a batch met that is tried again, for people.
fn met(error: &Error) -> &'static str {
    match error.sqlstate() {
        Some("55P03") => "it waits for a lock that others hold",
        Some("57014") => "it took longer than a statement may",
        Some("26000") => "its session lost the statements that it kept",
        _ => "others changed the same rows",
    }
}

/// Whether a batch met others: a lock, a deadlock, too little time for its size, or who let its session forget statements.
fn is_contention(error: &Error) -> bool {
    matches!(
        error.sqlstate(),
        Some("55P03" | "40P01" | "40001" | "57014" | "26000")
    )
}
