//! What an agent does for a coordinator on one database: look, and carry an order out.

use crate::claim::Claim;
use crate::database::Database;
use crate::error::Error;
use crate::faults::{self, Point};
use crate::history;
use crate::holder;
use crate::ledger::{self, Reader, Take};
use crate::metrics;
use crate::run::{Overrides, Run};
use crate::story::Recorder;
use serde::{Deserialize, Serialize};
use shared::id::{SetName, StoreId};
use shared::ledger::{Conflict, Goal};
use shared::lock::Ended;
use shared::migration::{Set, Version};
use shared::rollout::message::Located;
use shared::rollout::work::{Aim, Finish, Identity, Look, Order, Progress, Summary};
use shared::sql::Tag;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A look claims nothing.
const READING: Tag = Tag::OF_NO_RUN;

/// How a run is watched and ended.
#[derive(Debug, Clone)]
pub struct Control {
    /// Cancelled: stop at the next safe point, between two batches or steps.
    pub stop: CancellationToken,
    /// How far the run is.
    pub progress: watch::Sender<Progress>,
    /// Is told of each step that is done.
    pub listener: Listener,
    /// Writes down what happens.
    pub recorder: Recorder,
}

/// What one step took in this run.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Of which migration.
    pub version: Version,
    /// Its name.
    pub migration: String,
    /// Counted from 1.
    pub step: u32,
    /// Steps of the migration.
    pub steps: u32,
    /// What it did, for people.
    pub title: String,
    /// Rows its batches changed, over all its lives; 0 without batches.
    pub rows: u64,
    /// Batches committed.
    pub batches: u64,
    /// Batches that met a lock, a deadlock or a timeout and were tried again.
    pub retries: u64,
    /// Vacuums that ran between batches, where the step asked for them.
    pub vacuums: u64,
    /// WAL the whole server wrote while the batches ran; `None` without batches.
    pub wal_bytes: Option<u64>,
    /// What verification found, where the step asked for it.
    pub evidence: Option<Evidence>,
    /// Transactions that asked for strong locks, those that got them included.
    pub lock_tries: u64,
    /// How long locks were waited for, in their queue and outside it.
    pub lock_wait: Duration,
    /// How long sessions of others waited behind it: the wall time in which at least one did.
    pub stall: Duration,
    /// Sessions in the way that were ended, as the operator allowed.
    pub ended: Vec<Ended>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What verification found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Ranges looked at.
    pub ranges: u64,
    /// Rows looked at.
    pub rows: u64,
    /// Rows whose values are not what the expressions say.
    pub differing: u64,
    /// Rows that the step's condition still finds.
    pub remaining: u64,
    /// Sum of the hashes of keys and values, modulo 2^64: the same rows in any order give the same.
    pub digest: u64,
}

impl Evidence {
    pub(crate) fn add(&mut self, other: &Self) {
        self.ranges += other.ranges;
        self.rows += other.rows;
        self.differing += other.differing;
        self.remaining += other.remaining;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// Is told of each step that is done, on the run's own task: it must not block.
#[derive(Clone, Default)]
pub struct Listener(Option<Arc<Told>>);

type Told = dyn Fn(&StepResult) + Send + Sync;

impl Listener {
    /// Calls `told` with each.
    pub fn new(told: impl Fn(&StepResult) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn step_done(&self, result: &StepResult) {
        if let Listener(Some(told)) = &self.listener {
            told(result);
        }
    }
}

/// Everything pending in order, or what a rollout has applied in reverse.
fn goal(aim: &Aim) -> Goal {
    match aim {
        Aim::Apply => Goal::Up {
            target: None,
            order: shared::ledger::Order::Strict,
        },
        Aim::Undo { rollout, data_loss } => Goal::UndoRollout {
            rollout: rollout.clone(),
            data_loss: *data_loss,
        },
    }
}

/// Where a database is, and of which epoch the fence in force there is.
pub async fn locate(database: &Database) -> Located {
    let name = database.name().clone();
    match try_locate(database).await {
        Ok((identity, epoch)) => Located {
            database: name,
            identity: Ok(identity),
            epoch,
        },
        Err(error) => Located::lost(name, error.failure().message),
    }
}

async fn try_locate(database: &Database) -> Result<(Identity, Option<i64>), Error> {
    let identity = database.identity().await?;
    let session = database.session().await?;
    let ledger = ledger::read(&session, &READING, &SetName::default_set()).await?;
    let fence = ledger.and_then(|ledger| ledger.fence);
    Ok((identity, fence.map(|fence| fence.held().fence.epoch)))
}

/// Looks at a database's ledger; changes nothing and takes no fence.
pub async fn look(database: &Database, set: &Set, aim: &Aim, store: StoreId) -> Look {
    match try_look(database, set, aim, store).await {
        Ok(look) => look,
        Err(Error::Conflict { conflict, .. }) if matches!(*conflict, Conflict::NotUndone(_)) => {
            Look::Declined {
                why: conflict.to_string(),
            }
        }
        Err(error) => Look::Failed(error.failure()),
    }
}

async fn try_look(database: &Database, set: &Set, aim: &Aim, store: StoreId) -> Result<Look, Error> {
    let session = database.session().await?;
    let reader = Reader::Store(store);
    let ledger = ledger::read_or_absent_to_decide(database, &session, &READING, &set.name, reader).await?;
    ledger::check_identity(&ledger)?;
    let work = history::work(database, set, &ledger, &goal(aim)).await?;
    if work.todos.is_empty() {
        return Ok(Look::UpToDate { ahead: work.ahead });
    }
    if let Some(holder) = ledger
        .holder
        .filter(|holder| holder.is_alive() && holder.store != Some(store))
    {
        return Ok(Look::Held {
            by: holder.description,
        });
    }
    database.expect_work();
    Ok(Look::Pending {
        versions: work
            .todos
            .iter()
            .map(|todo| todo.migration.version.clone())
            .collect(),
    })
}

/// Carries an order out to its end, or until it is stopped or replaced.
///
/// # Cancel safety
/// When dropped, an open transaction is rolled back by the server, and the ledger says what was done.
pub async fn execute(
    database: &Database,
    set: &Set,
    order: &Order,
    store: StoreId,
    description: &str,
    control: &Control,
) -> Finish {
    let claim = Claim {
        fence: order.fence,
        holder: order.holder,
        store: Some(store),
        rollout: Some(order.rollout.clone()),
        description: description.to_owned(),
    };
    let mut spent = Summary::default();
    match try_execute(database, set, order, &claim, control, &mut spent).await {
        Ok(()) => Finish::Done(spent),
        Err(Error::Replaced { by, newer }) => Finish::Replaced { by, newer, spent },
        Err(Error::Stopped) => Finish::Stopped(spent),
        Err(error) => {
            metrics::failed(database.name());
            Finish::Failed(error.failure(), spent)
        }
    }
}

async fn try_execute(
    database: &Database,
    set: &Set,
    order: &Order,
    claim: &Claim,
    control: &Control,
    spent: &mut Summary,
) -> Result<(), Error> {
    let _at_work = database.at_work();
    ledger::ensure(database, &claim.tag()).await?;
    let taken = ledger::take(database, claim, Take::Lease(database.name()), &set.name).await?;
    let goal = goal(&order.aim);
    let overrides = Overrides {
        canary: order.canary,
        strategies: order.strategies.clone(),
        ..Overrides::default()
    };
    let mut run = Run::new(
        database,
        set,
        &goal,
        claim,
        control,
        Take::LeaseAgain(database.name()),
        overrides,
    );
    run.reading = taken.reading();
    let finished = holder::held_while(&mut run).await;
    *spent = match &finished {
        Ok(summary) => *summary,
        // What a run that has not come to its end did stays done.
        Err(_) => run.spent(),
    };
    finished?;
    faults::reach(Point::BeforeReport).await
}
