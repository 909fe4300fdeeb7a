//! One database without a coordinator: the same planner and executor, with a fence taken by compare-and-set.

use crate::backoff::Backoff;
use crate::claim::Claim;
use crate::database::Database;
use crate::error::Error;
use crate::facts;
use crate::faults::{self, Point};
use crate::history;
use crate::holder;
use crate::ledger::{self, Living, Reader, Reading, Take, Taken};
use crate::metrics;
use crate::run::{Overrides, PATIENCE, Run};
use crate::session::Session;
use crate::work::Control;
use shared::fence::Fence;
use shared::id::{Direction, Holder};
use shared::ledger::{Goal, Ledger};
use shared::migration::{Set, Version};
use shared::plan::{Action, Facts, Rate, Stage, StepOutlook, Strategies};
use shared::retry::Retryability;
use shared::rollout::work::{Exit, Summary};
use shared::sql::{Tag, ledger as texts, sync};
use std::time::{Duration, Instant};

/// How often a holder that is waited for is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A reading run claims nothing.
const READING: Tag = Tag::OF_NO_RUN;

/// What a run without a coordinator is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How far to go.
    pub goal: Goal,
    /// Settings of the command line.
    pub overrides: Overrides,
    /// How long to wait for another holder.
    pub wait: Duration,
    /// Whether to wait at all.
    pub living: Living,
    /// Who runs it, for people.
    pub description: String,
    /// Minted for this run.
    pub holder: Holder,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What was done; nothing where there was nothing to do.
    pub summary: Summary,
    /// Applied versions newer than the set's newest.
    pub ahead: Vec<Version>,
    /// Versions undone by a way down that was written or changed after their way up was applied.
    pub edited_downs: Vec<Version>,
}

/// Does what is pending, or undoes; waits for another holder, saying for whom by `waiting`.
///
/// # Errors
/// The first that does not pass; what was done before it stays done and is recorded.
pub async fn migrate(
    database: &Database,
    set: &Set,
    options: &Options,
    control: &Control,
    waiting: impl Fn(&str),
) -> Result<Done, Error> {
    metrics::served(database.name());
    let migrated = try_migrate(database, set, options, control, waiting).await;
    if migrated
        .as_ref()
        .is_err_and(|error| error.exit() != Exit::Stopped)
    {
        metrics::failed(database.name());
    }
    migrated
}

async fn try_migrate(
    database: &Database,
    set: &Set,
    options: &Options,
    control: &Control,
    waiting: impl Fn(&str),
) -> Result<Done, Error> {
    let ((claim, reading), done) = match take(database, set, options, control, waiting).await? {
        (None, done) => return Ok(done),
        (Some(taken), done) => (taken, done),
    };
    let mut run = Run::new(
        database,
        set,
        &options.goal,
        &claim,
        control,
        Take::Keep,
        options.overrides.clone(),
    );
    run.reading = reading;
    let _at_work = database.at_work();
    let summary = tokio::select! {
        done = holder::held_while(&mut run) => done?,
        never = database.keep() => match never {},
    };
    faults::reach(Point::BeforeReport).await?;
    Ok(Done { summary, ..done })
}

/// Waits until the database is free and takes its fence; no claim when there is nothing to do. Beside it what is known
/// before anything is done.
///
/// A server that was reached once may go away for a while; one that never answered is an error at once.
async fn take(
    database: &Database,
    set: &Set,
    options: &Options,
    control: &Control,
    waiting: impl Fn(&str),
) -> Result<(Option<(Claim, Reading)>, Done), Error> {
    let since = Instant::now();
    let mut said: Option<String> = None;
    let mut trouble: Option<Backoff> = None;
    loop {
        let pause = match look(database, set, options).await {
            Ok(Look::NothingToDo(done)) => return Ok((None, done)),
            Ok(Look::Taken(claim, reading, done)) => return Ok((Some((claim, reading)), done)),
            Ok(Look::Changed) => POLL,
            Ok(Look::Held(by)) => {
                if since.elapsed() >= options.wait {
                    return Err(Error::WaitEnded {
                        by,
                        waited: since.elapsed(),
                    });
                }
                if said.as_ref() != Some(&by) {
                    waiting(&by);
                    said = Some(by);
                }
                trouble = None;
                POLL
            }
            Err(error) => {
                let unreached = matches!(error, Error::Connect { .. }) && trouble.is_none() && said.is_none();
                let backoff = trouble.get_or_insert_with(Backoff::new);
                if unreached || error.retryability() != Retryability::Retry || backoff.elapsed() > PATIENCE {
                    return Err(error);
                }
                backoff.pause()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = control.stop.cancelled() => return Err(Error::Stopped),
        }
    }
}

/// What a try to take the database found.
enum Look {
    NothingToDo(Done),
    /// The fence is ours.
    Taken(Claim, Reading, Done),
    /// Somebody who is alive holds it.
    Held(String),
    /// Somebody was quicker: look again.
    Changed,
}

async fn look(database: &Database, set: &Set, options: &Options) -> Result<Look, Error> {
    let ledger = {
        let session = database.session().await?;
        ledger::read_or_absent_to_decide(database, &session, &READING, &set.name, Reader::Anyone).await?
    };
    ledger::check_identity(&ledger)?;
    let work = history::work(database, set, &ledger, &options.goal).await?;
    let done = Done {
        summary: Summary::default(),
        ahead: work.ahead,
        edited_downs: work.edited_downs,
    };
    if work.todos.is_empty() {
        return Ok(Look::NothingToDo(done));
    }
    let read = ledger
        .fence
        .as_ref()
        .map(|row| (row.held().fence, row.held().holder));
    let claim = |fence| Claim {
        fence,
        holder: options.holder,
        store: None,
        rollout: None,
        description: options.description.clone(),
    };
    if let Some((fence, _)) = read.filter(|(_, holder)| *holder == options.holder) {
        // The answer to an earlier try was lost.
        return Ok(Look::Taken(claim(fence), None, done));
    }
    if let Some(holder) = ledger
        .holder
        .filter(|holder| options.living == Living::Wait && holder.is_alive())
    {
        return Ok(Look::Held(holder.description));
    }
    ledger::ensure(database, &READING).await?;
    let claim = claim(read.map_or(Fence::NONE, |(fence, _)| fence).next_local());
    let how = Take::Local {
        read,
        living: options.living,
    };
    Ok(match ledger::take(database, &claim, how, &set.name).await? {
        Taken::Ours(reading) => Look::Taken(claim, reading, done),
        Taken::Refused => Look::Changed,
    })
}

/// Reads the ledger of a set; an empty one where there is none. Changes nothing.
///
/// # Errors
/// When the database cannot be reached, is a clone, or has a newer ledger.
pub async fn read(database: &Database, set: &Set) -> Result<Ledger, Error> {
    let session = database.session().await?;
    let ledger = ledger::read_or_absent(database, &session, &READING, &set.name).await?;
    ledger::check_identity(&ledger)?;
    Ok(ledger)
}

/// A column, or several, that a trigger of ours keeps right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSync {
    /// The relation, quoted in full.
    pub relation: String,
    /// The columns.
    pub columns: Vec<String>,
    /// The column whose type was or is being changed, where that is what it is for.
    pub retyped: Option<String>,
}

/// The triggers of ours that live, by relation.
///
/// # Errors
/// When the database cannot be reached or read.
pub async fn live_syncs(database: &Database) -> Result<Vec<LiveSync>, Error> {
    let session = database.session().await?;
    let rows = session
        .query(&READING, "looking for triggers", sync::LIVE, &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| LiveSync {
            relation: row.get(0),
            columns: row.get(1),
            retyped: row.get(2),
        })
        .collect())
}

/// One migration as it would run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMigration {
    /// Which.
    pub version: Version,
    /// Its name.
    pub name: String,
    /// Up or down.
    pub direction: Direction,
    /// The file it comes from.
    pub file: String,
    /// Steps in all; those done already are not among `steps`.
    pub total_steps: usize,
    /// What is left to do.
    pub steps: Vec<PlannedStep>,
}

/// One step as it would run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    /// From 1.
    pub number: usize,
    /// What it does.
    pub title: String,
    /// Of a step that has begun: rows that its batches have changed so far.
    pub begun: Option<u64>,
    /// As far as it can be known before the steps ahead of it have run; or why it cannot.
    pub plan: Result<Vec<Action>, String>,
    /// What that will be like.
    pub outlook: StepOutlook,
}

/// How fast batches went in this database.
async fn rate(session: &Session, ledger: &Ledger) -> Result<Rate, Error> {
    if ledger.runs.is_empty() {
        return Ok(Rate::ASSUMED);
    }
    let rows = session
        .query(&READING, "reading how fast batches went", texts::RATE, &[])
        .await?;
    let measured = rows.first().and_then(|row| row.get::<_, Option<f64>>(0));
    Ok(measured.map_or(Rate::ASSUMED, |rows| Rate { rows, measured: true }))
}

/// Plans what `up` or `down` would do, from what is there now and where these strategies are said. Changes nothing.
///
/// # Errors
/// What `migrate` would refuse before it begins, and steps that can be seen to fail.
pub async fn plan(
    database: &Database,
    set: &Set,
    goal: &Goal,
    strategies: Strategies,
) -> Result<Vec<PlannedMigration>, Error> {
    let ledger = read(database, set).await?;
    let work = history::work(database, set, &ledger, goal).await?;
    let mut session = database.session().await?;
    let rate = rate(&session, &ledger).await?;
    let mut facts = Facts {
        strategies,
        ..Facts::default()
    };
    let mut migrations = Vec::new();
    for todo in &work.todos {
        let mut steps = Vec::new();
        for (index, step) in todo.steps.iter().enumerate().skip(todo.done) {
            facts::inspect(&mut session, &READING, &step.change, &mut facts).await?;
            let begun = index == todo.done && todo.begun.is_some();
            facts.stage = if begun { Stage::Begun } else { Stage::New };
            facts.look_ahead(&todo.steps[index + 1..]);
            let plan = match step.change.plan(&facts) {
                Ok(actions) => Ok(actions),
                Err(refusal) if facts.uncertain => Err(format!(
                    "planned when its turn comes: {refusal} now, and a sql step before it may change that"
                )),
                Err(refusal) => {
                    let place = format!(
                        "{}, cannot be planned on database {}:",
                        todo.place_of(index),
                        database.name()
                    );
                    return Err(Error::At {
                        place,
                        source: Box::new(refusal.into()),
                    });
                }
            };
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let outlook = match &plan {
                Ok(actions) => StepOutlook::of(number, &step.change, actions, &facts, rate),
                Err(later) => StepOutlook::later(number, &step.change, later),
            };
            step.change.effect(&mut facts);
            steps.push(PlannedStep {
                number: index + 1,
                outlook,
                title: step.change.title(),
                begun: (todo.begun.as_ref())
                    .filter(|_| index == todo.done)
                    .map(|begun| begun.rows),
                plan,
            });
        }
        migrations.push(PlannedMigration {
            version: todo.migration.version.clone(),
            name: todo.migration.name.clone(),
            direction: todo.direction,
            file: todo.script.file.clone(),
            total_steps: todo.steps.len(),
            steps,
        });
    }
    Ok(migrations)
}
