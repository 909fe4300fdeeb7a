//! What a database remembers of one set, and what is to be done next.
//!
//! The agent reads the ledger as one JSON text ([`crate::sql::ledger::READ`], or the brief one beside it); [`Ledger`] is its
//! shape. [`Todo`]s are what `up` or `down` has to do, by the rules of order and of half-done migrations.
//!
//! ```text
//!           up begins            last step
//! pending ------------> applying ---------> applied
//!    ^                    | down begins        | down begins
//!    |    last step       v                    |
//!    +------------------ undoing <-------------+
//! ```
//! A down that begins over a half-done up gives that run up and undoes the steps it had done or begun.

mod conflict;
mod next;
mod status;
#[cfg(test)]
mod tests;
mod undo;

use crate::fence::{Fence, Held};
use crate::id::{Digest, Direction, Holder, StoreId};
use crate::migration::Version;
use crate::rollout::work::Identity;
use serde::Deserialize;
use std::collections::BTreeMap;

pub use conflict::{Conflict, Extent};
pub use next::{Begun, Goal, Order, Todo, Work, next};
pub use status::{Line, status};
pub use undo::{DataLoss, NotUndone, newest_keep_data};

/// The ledger of one database, of one set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ledger {
    /// The row of `confiture.ledger`.
    pub ledger: Format,
    /// System identifier the server has now.
    pub system: i64,
    /// Oid the database has now.
    pub database: u32,
    /// The fence in force; none before the first run.
    pub fence: Option<FenceRow>,
    /// Who holds the database, or held it last.
    pub holder: Option<HolderRow>,
    /// All runs of the set, in order of their number.
    pub runs: Vec<RunRow>,
    /// All steps of the set, in order; none in a brief reading.
    #[serde(default)]
    pub steps: Vec<StepRow>,
    /// Whether a run of any set is half-way; only a brief reading knows that none is.
    #[serde(default = "unknown")]
    pub unfinished: bool,
}

/// What is not known is taken to be so.
fn unknown() -> bool {
    true
}

/// The format a ledger is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Format {
    /// Its number.
    pub format: i32,
    /// The oldest format whose programs can work with it; the first format does not say.
    pub works_with: Option<i32>,
}

impl Format {
    /// What this program writes.
    pub const OURS: Self = Self {
        format: crate::sql::ledger::FORMAT,
        works_with: Some(crate::sql::ledger::FORMAT),
    };

    /// Whether this program can work with it, after an upgrade where it is older.
    pub fn is_workable(self) -> bool {
        self.works_with.unwrap_or(self.format) <= crate::sql::ledger::FORMAT
    }

    /// What leads from it to ours, in order.
    pub fn upgrades(self) -> &'static [&'static str] {
        let all = crate::sql::ledger::UPGRADES;
        let known = usize::try_from(self.format).unwrap_or(0).saturating_sub(1);
        all.get(known..).unwrap_or_default()
    }
}

/// The row of `confiture.fence`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FenceRow {
    epoch: i64,
    token: i64,
    local: i64,
    holder: Holder,
    store: Option<StoreId>,
    system: i64,
    database: u32,
    /// The fleet's name for this database, once a fleet has held it.
    pub database_name: Option<String>,
}

impl FenceRow {
    /// The fence with its holder.
    pub fn held(&self) -> Held {
        Held {
            fence: Fence {
                epoch: self.epoch,
                token: self.token,
                local: self.local,
            },
            holder: self.holder,
            store: self.store,
        }
    }

    /// Where the database was when the fence was first taken.
    pub fn identity(&self) -> Identity {
        Identity {
            system: self.system,
            database: self.database,
        }
    }
}

/// The row of `confiture.holder`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct HolderRow {
    /// Who.
    pub holder: Holder,
    /// Of which store; none for a run without a coordinator.
    pub store: Option<StoreId>,
    /// For people.
    pub description: String,
    held: bool,
    /// Asked only where it does not renew itself, and by whom it matters to.
    #[serde(default)]
    working: bool,
}

impl HolderRow {
    /// Whether it renewed itself in time.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Notes whether one of its statements is running.
    pub fn found(&mut self, working: bool) {
        self.working = working;
    }

    /// Whether it is alive: it renewed itself in time, or one of its statements is running.
    pub fn is_alive(&self) -> bool {
        self.held || self.working
    }
}

/// One row of `confiture.run`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunRow {
    /// The version's key.
    pub version: Version,
    /// Up or down.
    pub direction: Direction,
    /// Counted over both directions of the version.
    pub run: i32,
    /// The version as the author wrote it.
    pub written: Version,
    /// The migration's name.
    pub name: String,
    /// Whether it has ended.
    pub state: RunState,
    /// Of the script that was run.
    pub checksum: Digest,
    /// How the checksum was made.
    pub scheme: i32,
    /// Steps of the script.
    pub steps: u32,
    /// The rollout that began it, or, of a complete one, the rollout that completed it.
    pub rollout: Option<String>,
    /// Who began it.
    pub by: String,
    /// When, as ISO 8601 in UTC. This, the end and the time between are left out by a brief reading.
    pub began_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// Of an up: the checksum of the written down beside it.
    pub down_checksum: Option<Digest>,
}

/// Whether a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It is to be continued.
    Open,
    /// It has.
    Complete,
    /// A half-done up that a down took back, or is taking back.
    #[serde(rename = "given_up")]
    GivenUp,
}

/// One row of `confiture.step`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StepRow {
    /// The version's key.
    pub version: Version,
    /// Up or down.
    pub direction: Direction,
    /// The run's number.
    pub run: i32,
    /// From 1.
    pub step: u32,
    /// The kind's name.
    pub kind: String,
    /// What it does, for people.
    pub title: String,
    /// Of the step.
    pub checksum: Digest,
    /// Whether it is done.
    pub state: StepState,
    /// What the step must remember between its parts.
    pub detail: Option<String>,
    /// Rows changed by its batches.
    pub rows: u64,
}

/// Whether a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Begun: some of its parts may be done.
    Begun,
    /// Done.
    Done,
}

/// The state of one version on one database.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State<'a> {
    /// Never applied, or undone.
    Pending {
        /// The number its next run will have.
        next_run: i32,
    },
    /// An up began and has not ended.
    Applying(&'a RunRow),
    /// An up ended.
    Applied(&'a RunRow),
    /// A down began and has not ended.
    Undoing(&'a RunRow),
}

impl Ledger {
    /// The ledger of a database that has none yet.
    pub fn absent(identity: Identity) -> Self {
        Self {
            ledger: Format::OURS,
            system: identity.system,
            database: identity.database,
            fence: None,
            holder: None,
            runs: Vec::new(),
            steps: Vec::new(),
            unfinished: false,
        }
    }

    /// Where the database is now.
    pub fn identity(&self) -> Identity {
        Identity {
            system: self.system,
            database: self.database,
        }
    }

    /// Whether a brief reading says enough to decide what is to be done: no run is half-way, so that no step counts.
    pub fn is_between_runs(&self) -> bool {
        self.runs.iter().all(|run| run.state != RunState::Open)
    }

    /// The newest run of each version.
    pub fn newest_runs(&self) -> BTreeMap<&Version, &RunRow> {
        let mut newest: BTreeMap<&Version, &RunRow> = BTreeMap::new();
        for run in &self.runs {
            let known = newest.entry(&run.version).or_insert(run);
            if run.run > known.run {
                *known = run;
            }
        }
        newest
    }

    /// The half-done up that a down takes back; none where the down undoes a whole one.
    pub fn given_up(&self, down: &RunRow) -> Option<&RunRow> {
        self.runs.iter().find(|run| {
            run.version == down.version && run.run == down.run - 1 && run.state == RunState::GivenUp
        })
    }

    /// The up that a down undoes.
    pub fn undone_by(&self, down: &RunRow) -> Option<&RunRow> {
        self.runs
            .iter()
            .find(|run| run.version == down.version && run.run == down.run - 1)
    }

    /// The steps of a run that were begun or done, in order.
    pub fn steps_of<'a>(&'a self, run: &RunRow) -> impl Iterator<Item = &'a StepRow> {
        let key = (run.version.clone(), run.direction, run.run);
        self.steps
            .iter()
            .filter(move |step| step.version == key.0 && step.direction == key.1 && step.run == key.2)
    }
}

impl<'a> State<'a> {
    /// The state that a version's newest run leads to.
    pub fn of(newest: Option<&'a RunRow>) -> Self {
        match newest {
            None => Self::Pending { next_run: 1 },
            Some(run) => match (run.direction, run.state) {
                (Direction::Up, RunState::Open) => Self::Applying(run),
                (Direction::Up, RunState::Complete) => Self::Applied(run),
                (Direction::Down, RunState::Open) => Self::Undoing(run),
                // Only an up is given up, by a down whose record is written with that.
                (_, RunState::GivenUp) | (Direction::Down, RunState::Complete) => Self::Pending {
                    next_run: run.run + 1,
                },
            },
        }
    }
}
