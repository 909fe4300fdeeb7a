//! Carries one step out: facts, plan, actions, records.
//!
//! ```text
//! no record --one action--> done                      a transaction that holds the fence row records and changes
//! no record --first of several actions--> begun --..--> last action --> done
//! ```
//! The record of the last step also completes the run, in the same transaction.

mod assertion;
mod batches;
mod index;
mod locks;
mod outside;
mod record;
mod transaction;

use crate::error::Error;
use crate::facts;
use crate::run::Run;
use shared::id::DatabaseName;
use shared::ledger::Todo;
use shared::lock::LONGEST_TRY;
use shared::migration::{Options, Step};
use shared::plan::{Action, Facts, Stage};
use shared::sql::Tag;
use std::time::Instant;

use locks::Locks;

pub(crate) use index::{build_at_work, must_be_unlimited};
pub(crate) use locks::{Seen, blocker};
pub(crate) use record::complete_empty;

/// One step of one run.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) todo: &'a Todo<'a>,
    pub(crate) index: usize,
}

impl Place<'_> {
    pub(crate) fn step(&self) -> &Step {
        &self.todo.steps[self.index]
    }

    /// What the step overrides, or else its migration.
    pub(crate) fn option<T>(&self, of: impl Fn(&Options) -> Option<T>) -> Option<T> {
        of(&self.step().options).or_else(|| of(&self.todo.script.options))
    }

    /// Counted from 1.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.index + 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_last(&self) -> bool {
        self.index + 1 == self.todo.steps.len()
    }

    /// Whether the step has a record already.
    pub(crate) fn has_begun(&self) -> bool {
        self.index == self.todo.done && self.todo.begun.is_some()
    }

    /// What is known before the catalog is looked at.
    fn facts(&self, run: &Run<'_>, stage: Stage) -> Facts {
        let mut facts = Facts {
            stage,
            strategies: run.overrides.strategies.clone(),
            ..Facts::default()
        };
        facts.look_ahead(&self.todo.steps[self.index + 1..]);
        facts
    }

    pub(crate) fn tag(&self, run: &Run<'_>) -> Tag {
        run.claim
            .tag_at(&run.set.name, &self.todo.migration.version, self.number())
    }

    /// An error with its place; who replaced us or that we were stopped has none.
    pub(crate) fn wrap(&self, database: &DatabaseName, error: Error) -> Error {
        if matches!(
            error,
            Error::Replaced { .. } | Error::Stopped | Error::Foreign { .. }
        ) {
            return error;
        }
        let place = format!(
            "{}, failed on database {database}:",
            self.todo.place_of(self.index)
        );
        Error::At {
            place,
            source: Box::new(error),
        }
    }
}

/// Which records an action's transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The only action: records the step as done.
    Whole,
    /// The first of several: records the step as begun.
    First,
    /// Neither the first nor the last: the step has begun.
    Middle,
    /// The last one of a step that has begun: marks it done.
    Last,
}

/// Does what is left of a step.
pub(crate) async fn carry_out(run: &mut Run<'_>, place: Place<'_>) -> Result<(), Error> {
    let mut stage = if place.has_begun() {
        Stage::Begun
    } else {
        Stage::New
    };
    while let Onwards::LookAgain = planned(run, place, stage).await? {
        stage = Stage::Begun;
    }
    Ok(())
}

/// Whether a step is done.
enum Onwards {
    Done,
    LookAgain,
}

/// Looks into the catalog. Whoever holds a table so that even readers wait is waited for within the budget for locks, and
/// named meanwhile.
async fn read(run: &mut Run<'_>, place: Place<'_>, tag: &Tag, facts: &mut Facts) -> Result<(), Error> {
    let mut locks = None;
    loop {
        let began = Instant::now();
        let mut session = run.database.session().await?;
        let change = &place.step().change;
        let read = facts::inspect_within(&mut session, tag, change, facts, LONGEST_TRY).await;
        drop(session);
        match read {
            Err(error) if error.sqlstate() == Some(transaction::LOCK_TIMEOUT) => {
                let waiting = match locks.take() {
                    Some(waiting) => waiting,
                    None => Locks::to_read(run, place, tag, began).await?,
                };
                locks.insert(waiting).kept_out(run, tag, began.elapsed()).await?;
            }
            read => return read,
        }
    }
}

/// Plans what is left from what the catalog says, and carries it out as far as that plan goes.
async fn planned(run: &mut Run<'_>, place: Place<'_>, stage: Stage) -> Result<Onwards, Error> {
    let tag = place.tag(run);
    let mut facts = place.facts(run, stage);
    let change = &place.step().change;
    if !change.tables().is_empty() || !change.types().is_empty() {
        read(run, place, &tag, &mut facts).await?;
    }
    let actions = change.plan(&facts)?;
    let begun = stage == Stage::Begun;
    if actions.is_empty() {
        let part = if begun { Part::Last } else { Part::Whole };
        record::only(run, place, part).await?;
    }
    for (i, action) in actions.iter().enumerate() {
        run.stop_if_asked()?;
        let part = match (i == 0 && !begun, i + 1 == actions.len()) {
            (true, true) => Part::Whole,
            (true, false) => Part::First,
            (false, true) => Part::Last,
            (false, false) => Part::Middle,
        };
        match action {
            Action::Transaction(transaction) => transaction::run(run, place, part, transaction).await?,
            Action::Batches(batches) => batches::run(run, place, part, batches).await?,
            Action::Assert(assertion) => assertion::run(run, place, part, assertion).await?,
            Action::Outside(alone) => outside::run(run, place, alone).await?,
            // On the heap: few runs build an index, and every run's future would have room for it.
            Action::Index(work) => Box::pin(index::run(run, place, part, work)).await?,
            Action::LookAgain => return Ok(Onwards::LookAgain),
        }
    }
    Ok(Onwards::Done)
}
