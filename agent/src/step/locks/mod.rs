//! Gets strong locks without making applications queue: looks first, waits outside the queue, then stands in it for
//! moments, and measures who stood behind it meanwhile. The law is `shared::lock`.
//!
//! ```text
//!          somebody old in the way, or the stall budget used up
//!         +----------------- look again in 100 ms ----------------+
//!         v                                                       |
//! turn: look --nobody in the way--> try (50 to 500 ms) --taken--> pause
//!                                    |
//!                                    +--got it--> done
//! ```

mod cancel;
mod look;
mod watch;

use crate::error::Error;
use crate::run::Run;
use crate::step::Place;
use shared::lock::{Blocker, Kind, LONGEST_TRY, Mode, Tries, listed};
use shared::plan::{Alone, Transaction};
use shared::sql::Tag;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub(crate) use look::blocker;
pub(crate) use watch::Seen;

/// How often it is looked whether those in the way are gone.
const POLL: Duration = Duration::from_millis(100);

/// The locks of one transaction, until it has them or the budget is spent.
pub(super) struct Locks {
    since: Instant,
    budget: Duration,
    deadlock_timeout: Duration,
    /// The tables that the step names, as SQL names them, by the lock they are wanted for.
    wanted: Vec<(Mode, Vec<String>)>,
    tries: Tries,
    blockers: Vec<Blocker>,
    /// For how long a session in the way may be idle in its transaction before it is ended; `None` is for ever.
    cancel_idle: Option<Duration>,
    /// Sessions that our role may not end.
    forbidden: BTreeSet<i32>,
}

/// One try.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    /// How long it may stand in the queue.
    pub(super) length: Duration,
    /// What makes PostgreSQL's own vacuums go away before: they give way to who waits for longer than `deadlock_timeout`. A
    /// lock that only they and DDL conflict with is waited for without anybody behind.
    pub(super) aside: Option<(String, Duration)>,
}

/// The tables of a step by the lock they are wanted for.
fn wanted(place: Place<'_>, transaction: &Transaction) -> Vec<(Mode, Vec<String>)> {
    let named = || {
        place
            .step()
            .change
            .tables()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let tables: Vec<String> = if transaction.on.is_empty() {
        named()
    } else {
        transaction.on.clone()
    };
    let own = tables.into_iter().map(|table| (transaction.lock, table));
    by_mode(own.chain(transaction.also.iter().cloned()))
}

fn by_mode(tables: impl Iterator<Item = (Mode, String)>) -> Vec<(Mode, Vec<String>)> {
    let mut wanted: BTreeMap<Mode, Vec<String>> = BTreeMap::new();
    for (mode, table) in tables {
        wanted.entry(mode).or_default().push(table);
    }
    wanted.into_iter().collect()
}

impl Locks {
    pub(super) async fn new(
        run: &mut Run<'_>,
        place: Place<'_>,
        tag: &Tag,
        transaction: &Transaction,
    ) -> Result<Self, Error> {
        if transaction.creates_only {
            return Ok(Self::none(run, place));
        }
        Self::of(run, place, tag, wanted(place, transaction)).await
    }

    /// Of what only creates: nothing is looked at, there is nobody to see.
    fn none(run: &Run<'_>, place: Place<'_>) -> Self {
        Self::with(run, place, Vec::new(), look::DEADLOCK_TIMEOUT)
    }

    /// The locks that one statement outside of transactions takes on the tables it names.
    pub(super) async fn alone(
        run: &mut Run<'_>,
        place: Place<'_>,
        tag: &Tag,
        alone: &Alone,
    ) -> Result<Self, Error> {
        Self::of(run, place, tag, by_mode(alone.locks.iter().cloned())).await
    }

    /// What readers wait for: the catalog's answer about the tables of a step.
    pub(super) async fn to_read(
        run: &mut Run<'_>,
        place: Place<'_>,
        tag: &Tag,
        since: Instant,
    ) -> Result<Self, Error> {
        let tables = place.step().change.tables();
        let wanted = tables.iter().map(|table| (Mode::IndexOnly, table.to_string()));
        let locks = Self::of(run, place, tag, by_mode(wanted)).await?;
        Ok(Self { since, ..locks })
    }

    /// A reader stood in the queue for so long: waits outside it, or gives up when the budget is spent.
    pub(super) async fn kept_out(
        &mut self,
        run: &mut Run<'_>,
        tag: &Tag,
        stood: Duration,
    ) -> Result<(), Error> {
        run.locks.missed(stood);
        run.control.recorder.tried(stood, false);
        let tables: Vec<String> = (self.wanted.iter())
            .flat_map(|(_, tables)| tables.iter().cloned())
            .collect();
        let blockers = look::keeping_readers_out(run, tag, &tables).await?;
        if !blockers.is_empty() {
            self.blockers = blockers;
            self.cancel(run, tag).await?;
        }
        self.wait(run, POLL).await
    }

    async fn of(
        run: &mut Run<'_>,
        place: Place<'_>,
        tag: &Tag,
        wanted: Vec<(Mode, Vec<String>)>,
    ) -> Result<Self, Error> {
        let deadlock_timeout = look::deadlock_timeout(run, tag).await?;
        Ok(Self::with(run, place, wanted, deadlock_timeout))
    }

    fn with(
        run: &Run<'_>,
        place: Place<'_>,
        wanted: Vec<(Mode, Vec<String>)>,
        deadlock_timeout: Duration,
    ) -> Self {
        let budget = run.lock_budget(place);
        Self {
            since: Instant::now(),
            budget,
            deadlock_timeout,
            wanted,
            tries: Tries::new(deadlock_timeout, budget),
            blockers: Vec::new(),
            cancel_idle: run.cancel_idle(place),
            forbidden: BTreeSet::new(),
        }
    }

    /// Waits outside the queue until a try is worth it.
    pub(super) async fn turn(&mut self, run: &mut Run<'_>, tag: &Tag) -> Result<Turn, Error> {
        let mut spent = false;
        let since = Instant::now();
        loop {
            let (vacuums, others) = self.look(run, tag).await?;
            let length = self.tries.next(run.locks.stall_left());
            if length.is_none() && !std::mem::replace(&mut spent, true) {
                run.locks.spent();
            }
            if let Some(length) = length
                && others.is_empty()
            {
                let aside = if vacuums.is_empty() {
                    None
                } else {
                    self.aside(run, tag).await?
                };
                run.control.recorder.waited(since.elapsed(), &self.blockers);
                return Ok(Turn { length, aside });
            }
            if !others.is_empty() {
                self.blockers = others;
                self.cancel(run, tag).await?;
            }
            self.wait(run, POLL).await?;
        }
    }

    /// Vacuums that give way, and the others.
    async fn look(&self, run: &Run<'_>, tag: &Tag) -> Result<(Vec<Blocker>, Vec<Blocker>), Error> {
        let mut found = Vec::new();
        for (mode, tables) in &self.wanted {
            found.extend(look::in_the_way(run, tag, tables, *mode, LONGEST_TRY).await?);
        }
        Ok(found
            .into_iter()
            .partition(|blocker| blocker.kind == Kind::Autovacuum))
    }

    /// Nothing where our role may lock none of the tables: then the vacuum is waited for.
    async fn aside(&self, run: &Run<'_>, tag: &Tag) -> Result<Option<(String, Duration)>, Error> {
        let mut tables: Vec<String> = (self.wanted.iter())
            .flat_map(|(_, tables)| tables.iter().cloned())
            .collect();
        tables.sort_unstable();
        tables.dedup();
        let tables = look::lockable(run, tag, &tables).await?;
        let lock = format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", tables.join(", "));
        Ok((!tables.is_empty()).then(|| (lock, self.deadlock_timeout + LONGEST_TRY)))
    }

    /// A try of this turn took so long and found the lock taken: pauses, or gives up when the budget is spent.
    pub(super) async fn taken(
        &mut self,
        run: &mut Run<'_>,
        tag: &Tag,
        turn: &Turn,
        took: Duration,
        seen: Vec<Blocker>,
    ) -> Result<(), Error> {
        run.locks.missed(took);
        run.control.recorder.tried(took, false);
        if !seen.is_empty() {
            self.blockers = seen;
            self.cancel(run, tag).await?;
        }
        let pause = self.tries.failed(took.min(turn.length), rand::random());
        self.wait(run, pause).await
    }

    /// Waits outside the queue, no longer than the budget.
    async fn wait(&mut self, run: &mut Run<'_>, pause: Duration) -> Result<(), Error> {
        let left = self.budget.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            run.locks.gave_up();
            return Err(self.given_up(run));
        }
        let who = listed(&self.blockers);
        run.report(|progress| {
            progress.pace = if who.is_empty() {
                "waiting for a lock".to_owned()
            } else {
                format!("waiting for a lock, outside its queue, held by {who}")
            };
        });
        let began = Instant::now();
        let waited = run.stoppable(pause.min(left)).await;
        run.locks.waited(began.elapsed());
        waited
    }

    fn given_up(&self, run: &Run<'_>) -> Error {
        let mut who = match listed(&self.blockers).as_str() {
            "" => "who held it could not be seen".to_owned(),
            blockers => format!("held by {blockers}"),
        };
        let forbidden = |blocker: &Blocker| blocker.pid.is_some_and(|pid| self.forbidden.contains(&pid));
        if self.blockers.iter().any(forbidden) {
            who += "; `cancel_blockers` might end it, but this role may not: that needs the session's own role, or pg_signal_backend with pg_read_all_stats";
        }
        if self.tries.next(run.locks.stall_left()).is_none() {
            let budget = run.locks.stall_budget();
            who = format!(
                "{who}; and no further try was allowed, since applications had stood behind the last ones for {:.1} s within a minute",
                budget.saturating_sub(run.locks.stall_left()).as_secs_f64()
            );
        }
        Error::LockBudget {
            budget: self.budget,
            who,
        }
    }

    /// Carries a try out, and watches the queue beside it.
    pub(super) async fn watched<T>(run: &Run<'_>, tag: &Tag, attempt: impl Future<Output = T>) -> (T, Seen) {
        watch::beside(run, tag, attempt).await
    }
}
