//! One run of a set on one database: take over, read the ledger, do what it says is next, until nothing is left.
//!
//! Every attempt begins by reading, so the path after a crash, a lost connection or an unknown COMMIT is the path of
//! every day: the fence row's lock waits for a doubtful transaction, and what it left behind is what the ledger says.

use crate::backoff::Backoff;
use crate::claim::Claim;
use crate::database::Database;
use crate::error::Error;
use crate::history;
use crate::ledger::{self, Reader, Reading, Take};
use crate::metrics;
use crate::step::{self, Place, Seen};
use crate::work::{Control, Evidence, StepResult};
use shared::batch::Size;
use shared::id::{DatabaseName, Direction};
use shared::ledger::{Goal, Todo};
use shared::lock::{Ended, STALL_BUDGET, Stall};
use shared::migration::Set;
use shared::plan::Strategies;
use shared::retry::Retryability;
use shared::rollout::work::{Cost, Exit, Progress, Summary};
use shared::sql::Tag;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

/// How long passing troubles may last without any progress before the run gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The state of a run that outlives its attempts.
pub(crate) struct Run<'a> {
    pub(crate) database: &'a Database,
    pub(crate) set: &'a Set,
    pub(crate) goal: &'a Goal,
    pub(crate) claim: &'a Claim,
    pub(crate) control: &'a Control,
    /// How the fence is looked at again after a lost connection.
    pub(crate) again: Take<'a>,
    /// Settings of the command line that come before the migration's own.
    pub(crate) overrides: Overrides,
    pub(crate) summary: Summary,
    /// What the batches of the step at work took.
    pub(crate) tally: Tally,
    /// What getting locks took.
    pub(crate) locks: Locking,
    /// Size of the batches of the step at work.
    pub(crate) size: Option<Size>,
    /// Grows whenever something was committed: passing troubles are counted between two such moments.
    pub(crate) commits: u64,
    /// What the takeover read, until the next attempt decides by it.
    pub(crate) reading: Reading,
    /// Whether the migration at work is the last one.
    pub(crate) last: bool,
    /// Whether the holder was released together with the run's end.
    pub(crate) released: bool,
    /// The migration at work.
    at_work: Option<(Direction, metrics::AtWork)>,
}

/// Settings of one command that come before those of the migration and of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Budget for waiting for locks.
    pub lock_timeout: Option<Duration>,
    /// From when on sessions that are idle in a transaction and in the way are ended.
    pub cancel_idle_in_transaction: Option<Duration>,
    /// Whether the database is a canary.
    pub canary: bool,
    /// How tables are to be gone about.
    pub strategies: Strategies,
}

/// What the batches of one step took in this run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) batches: u64,
    pub(crate) retries: u64,
    /// Batches and retries of all lives of the step, once its batches are done.
    pub(crate) of_all_lives: Option<(u64, u64)>,
    pub(crate) vacuums: u64,
    /// Whether it was said why there is no vacuum.
    pub(crate) told_of_no_vacuum: bool,
    /// WAL the server wrote meanwhile.
    pub(crate) wal_bytes: Option<u64>,
    /// What verification found.
    pub(crate) evidence: Option<Evidence>,
}

/// What getting locks took, and what others waited for it.
#[derive(Debug, Clone)]
pub(crate) struct Locking {
    database: DatabaseName,
    began: Instant,
    stall: Stall,
    /// The server's, once it is known.
    pub(crate) deadlock_timeout: Option<Duration>,
    /// Transactions begun for a strong lock, those that got it included.
    tries: u64,
    /// Time in the queue and outside it.
    waited: Duration,
    /// That of the statement at work.
    of_statement: Duration,
    /// Sessions in the way that were ended.
    pub(crate) ended: Vec<Ended>,
    /// All stall before the step at work.
    before: Duration,
}

impl Locking {
    fn new(database: DatabaseName) -> Self {
        Self {
            database,
            began: Instant::now(),
            stall: Stall::new(STALL_BUDGET),
            deadlock_timeout: None,
            tries: 0,
            waited: Duration::ZERO,
            of_statement: Duration::ZERO,
            ended: Vec::new(),
            before: Duration::ZERO,
        }
    }

    /// Time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What others may still wait behind us in this minute.
    pub(crate) fn stall_left(&self) -> Duration {
        self.stall.left(self.now())
    }

    /// What they may wait in a minute.
    pub(crate) fn stall_budget(&self) -> Duration {
        self.stall.budget()
    }

    /// What was seen during a try; `taken`: the lock was, for so long. Where nobody could look, somebody is taken to have
    /// waited all that time.
    pub(crate) fn saw(&mut self, seen: &Seen, taken: Option<Duration>) {
        let now = self.now();
        let before = self.stall.total();
        self.stall.forget(now);
        for (from, to) in &seen.spells {
            self.stall.waited(*from, *to);
        }
        if let (false, Some(stood)) = (seen.looked, taken) {
            self.stall.waited(now.saturating_sub(stood), now);
        }
        let more = self.stall.total().saturating_sub(before);
        if !more.is_zero() {
            metrics::stalled(&self.database, more);
        }
    }

    /// A try got its locks.
    pub(crate) fn got(&mut self, seen: &Seen) {
        self.tries += 1;
        self.waited(seen.waited);
        metrics::lock_tried(&self.database, metrics::Lock::Granted);
        metrics::lock_waited(metrics::Lock::Granted, std::mem::take(&mut self.of_statement));
    }

    /// One stood in the queue for so long, and they were taken.
    pub(crate) fn missed(&mut self, stood: Duration) {
        self.tries += 1;
        self.waited(stood);
        metrics::lock_tried(&self.database, metrics::Lock::Missed);
    }

    /// So much time went by, in the queue or outside it.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited += time;
        self.of_statement += time;
    }

    /// The budget for waiting is spent.
    pub(crate) fn gave_up(&mut self) {
        metrics::lock_waited(metrics::Lock::GaveUp, std::mem::take(&mut self.of_statement));
    }

    /// No try is allowed for what others have waited already.
    pub(crate) fn spent(&self) {
        metrics::stall_budget_exhausted(&self.database);
    }

    /// Tries, time waited and stall since the last call.
    fn take(&mut self) -> (u64, Duration, Duration) {
        let stall = self.stall.total().saturating_sub(self.before);
        self.before = self.stall.total();
        (
            std::mem::take(&mut self.tries),
            std::mem::take(&mut self.waited),
            stall,
        )
    }
}

impl<'a> Run<'a> {
    /// Whether the fence is ours at this moment: before a statement that no transaction can guard.
    pub(crate) async fn check_fence(&self, tag: &Tag) -> Result<(), Error> {
        let mut session = self.database.session().await?;
        ledger::begin_fenced(&mut session, self.claim, tag, ledger::book_limits()).await?;
        // Nobody replaces us while this session holds the fence: that it lived shows that it held it until now.
        session.end_of_look(tag).await
    }

    pub(crate) fn new(
        database: &'a Database,
        set: &'a Set,
        goal: &'a Goal,
        claim: &'a Claim,
        control: &'a Control,
        again: Take<'a>,
        overrides: Overrides,
    ) -> Self {
        Self {
            database,
            set,
            goal,
            claim,
            control,
            again,
            overrides,
            summary: Summary::default(),
            tally: Tally::default(),
            locks: Locking::new(database.name().clone()),
            size: None,
            commits: 0,
            reading: None,
            last: false,
            released: false,
            at_work: None,
        }
    }

    /// Does everything there is to do. The fence is ours already.
    pub(crate) async fn finish(&mut self) -> Result<Summary, Error> {
        let finished = self.until_done().await;
        if let Err(error) = &finished
            && let Some((direction, work)) = self.at_work.take()
        {
            let outcome = if error.exit() == Exit::Stopped {
                metrics::Outcome::Stopped
            } else {
                metrics::Outcome::Failed
            };
            metrics::migration_ended(self.database.name(), direction, outcome, work.took());
        }
        finished
    }

    /// What was done and spent so far, the step at work included.
    pub(crate) fn spent(&mut self) -> Summary {
        let tally = std::mem::take(&mut self.tally);
        let (_, lock_wait, stall) = self.locks.take();
        self.summary.cost += cost(&tally, lock_wait, stall);
        let open_rows = self.control.progress.borrow().rows;
        Summary {
            open_rows,
            ..self.summary
        }
    }

    async fn until_done(&mut self) -> Result<Summary, Error> {
        let mut trouble: Option<Backoff> = None;
        let mut seen = self.commits;
        loop {
            // On the heap: every future around a run would have room for all that a step may need.
            let error = match Box::pin(self.attempt()).await {
                Ok(()) => return Ok(self.summary),
                Err(error) => error,
            };
            let passing = error.retryability() == Retryability::Retry;
            if matches!(error.innermost(), Error::Stopped) || (passing && self.control.stop.is_cancelled()) {
                return Err(self.stopped().await);
            }
            if self.commits != seen {
                (seen, trouble) = (self.commits, None);
            }
            let backoff = trouble.get_or_insert_with(Backoff::new);
            // A budget of its own was used up: no second one on top.
            let spent = matches!(
                error.innermost(),
                Error::LockBudget { .. } | Error::WaitBudget { .. }
            );
            if spent || !passing || backoff.elapsed() > PATIENCE {
                return Err(error);
            }
            tracing::warn!(database = %self.database.name(), error = %error, "trying again");
            self.control.recorder.troubled(error.to_string());
            let pause = backoff.pause();
            if self.stoppable(pause).await.is_err() {
                return Err(self.stopped().await);
            }
            // Nothing was lost but time; but is the fence still ours, and has the doubtful transaction ended?
            match ledger::take(self.database, self.claim, self.again, &self.set.name).await {
                Ok(taken) => self.reading = taken.reading(),
                Err(error) if error.retryability() == Retryability::Retry => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Why a step failed: what others did to its tables may be the work of whoever replaced us.
    async fn cause(&self, error: Error) -> Error {
        if error.retryability() == Retryability::Retry {
            return error;
        }
        match ledger::check(self.database, self.claim).await {
            Err(replaced @ Error::Replaced { .. }) => replaced,
            Ok(()) | Err(_) => error,
        }
    }

    async fn attempt(&mut self) -> Result<(), Error> {
        let set = self.set;
        let ledger = if let Some(read) = self.reading.take() {
            *read
        } else {
            let session = self.database.session().await?;
            ledger::read_to_decide(&session, &self.claim.tag(), &set.name, Reader::Holder).await?
        };
        ledger::check_identity(&ledger)?;
        let work = history::work(self.database, set, &ledger, self.goal).await?;
        let migrations = count(work.todos.len());
        let unfinished = |todo: &Todo<'_>| todo.begun.is_some() || todo.done > 0;
        if self.commits == 0 && self.at_work.is_none() && work.todos.first().is_some_and(unfinished) {
            metrics::took_over(self.database.name());
        }
        for (done, todo) in work.todos.iter().enumerate() {
            self.report(|progress| {
                *progress = Progress {
                    version: Some(todo.migration.version.clone()),
                    migration: todo.migration.name.clone(),
                    steps: count(todo.steps.len()),
                    migrations_done: count(done),
                    migrations,
                    spent: self.summary,
                    ..Progress::default()
                };
            });
            let span = tracing::info_span!("migration", version = %todo.migration.version, direction = todo.direction.as_str());
            self.last = done + 1 == work.todos.len();
            self.migration(todo).instrument(span).await?;
            self.released = self.last;
        }
        Ok(())
    }

    async fn migration(&mut self, todo: &Todo<'_>) -> Result<(), Error> {
        // A further attempt goes on with the migration of the one before.
        if self.at_work.is_none() {
            self.at_work = Some((todo.direction, metrics::AtWork::begin(self.database.name())));
        }
        if todo.done >= todo.steps.len() {
            step::complete_empty(self, todo).await?;
        }
        for index in todo.done..todo.steps.len() {
            self.stop_if_asked()?;
            let place = Place { todo, index };
            self.report(|progress| {
                progress.step = place.number();
                progress.title = place.step().change.title();
                // What earlier lives of the step did is no speed of this one's.
                let begun = todo.begun.as_ref().filter(|_| place.has_begun());
                (progress.rows, progress.estimated_rows) = (begun.map_or(0, |begun| begun.rows), 0);
                (progress.batch_rows, progress.retries) = (0, 0);
                progress.spent = self.summary;
                (progress.workers, progress.pace) = (0, String::new());
            });
            let started = Instant::now();
            let recorder = self.control.recorder.clone();
            let kind = place.step().change.name();
            recorder.step_begins(&todo.migration.version, place.number(), kind);
            let span = tracing::info_span!("step", step = place.number(), kind);
            if let Err(error) = step::carry_out(self, place).instrument(span).await {
                let error = self.cause(error).await;
                recorder.step_ended(kind, started.elapsed(), Err(&error));
                return Err(place.wrap(self.database.name(), error));
            }
            recorder.step_ended(kind, started.elapsed(), Ok(()));
            self.summary.steps += 1;
            self.size = None;
            let tally = std::mem::take(&mut self.tally);
            let (lock_tries, lock_wait, stall) = self.locks.take();
            self.summary.cost += cost(&tally, lock_wait, stall);
            let (batches, retries) = tally.of_all_lives.unwrap_or((tally.batches, tally.retries));
            self.control.step_done(&StepResult {
                version: todo.migration.version.clone(),
                migration: todo.migration.name.clone(),
                step: place.number(),
                steps: count(todo.steps.len()),
                title: place.step().change.title(),
                rows: self.control.progress.borrow().rows,
                batches,
                retries,
                vacuums: tally.vacuums,
                wal_bytes: tally.wal_bytes,
                evidence: tally.evidence,
                lock_tries,
                lock_wait,
                stall,
                ended: std::mem::take(&mut self.locks.ended),
                elapsed: started.elapsed(),
            });
        }
        self.summary.migrations += 1;
        if let Some((direction, work)) = self.at_work.take() {
            metrics::migration_ended(
                self.database.name(),
                direction,
                metrics::Outcome::Done,
                work.took(),
            );
        }
        Ok(())
    }

    /// Why a run ends that was asked to stop: a run that has been replaced says so.
    async fn stopped(&self) -> Error {
        match ledger::check(self.database, self.claim).await {
            Err(error @ (Error::Replaced { .. } | Error::Foreign { .. })) => error,
            Ok(()) | Err(_) => Error::Stopped,
        }
    }

    /// How long locks are waited for, in all: as the command line, the migration or the settings say.
    pub(crate) fn lock_budget(&self, place: Place<'_>) -> Duration {
        (self.overrides.lock_timeout)
            .or(place.option(|options| options.lock_timeout))
            .unwrap_or(self.database.limits().lock)
    }

    /// From when on sessions that are idle in a transaction and in the way may be ended; `None` where they may not.
    pub(crate) fn cancel_idle(&self, place: Place<'_>) -> Option<Duration> {
        (self.overrides.cancel_idle_in_transaction)
            .or(place.option(|options| options.cancel_idle_in_transaction))
            .or(self.database.limits().cancel_idle)
    }

    /// Something was committed.
    pub(crate) fn committed(&mut self) {
        self.commits += 1;
    }

    pub(crate) fn report(&self, change: impl FnOnce(&mut Progress)) {
        self.control.progress.send_modify(change);
    }

    /// Ends the run between two batches or steps when it was asked to.
    pub(crate) fn stop_if_asked(&self) -> Result<(), Error> {
        if self.control.stop.is_cancelled() {
            Err(Error::Stopped)
        } else {
            Ok(())
        }
    }

    /// Sleeps, and wakes up when the run is asked to stop.
    pub(crate) async fn stoppable(&self, pause: Duration) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.control.stop.cancelled() => Err(Error::Stopped),
        }
    }
}

/// What a step cost.
fn cost(tally: &Tally, lock_wait: Duration, stall: Duration) -> Cost {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let evidence = tally.evidence.unwrap_or_default();
    Cost {
        batches: tally.batches,
        retries: tally.retries,
        lock_wait_ms: ms(lock_wait),
        stall_ms: ms(stall),
        wal_bytes: tally.wal_bytes.unwrap_or(0),
        verified_rows: evidence.rows,
        differing_rows: evidence.differing + evidence.remaining,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
