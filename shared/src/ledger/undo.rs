//! Taking back what one rollout has applied: only what it completed, and only where nothing was applied on top.

use super::next::{History, Todo, Work, automatic_undo};
use super::{Conflict, Extent, Ledger, RunRow, RunState, State};
use crate::id::{Direction, RolloutId};
use crate::migration::{Migration, Set, Step, Version};
use std::borrow::Cow;

/// Whether values and rows may be lost by an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataLoss {
    /// A way down that loses some is refused.
    Refused,
    /// Someone has said so.
    Allowed,
}

/// Why what a rollout applied is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotUndone {
    /// Most often the rollout was aborted before it came here.
    #[error("rollout {0} has completed no migration here")]
    Nothing(RolloutId),
    /// The database is between two versions.
    #[error(
        "migration {version} \"{name}\" is half {}\n  help: finish it with `confiture migrate up`, or take it back with `confiture migrate down`",
        match direction { Direction::Up => "applied", Direction::Down => "undone" }
    )]
    Half {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// Which way it was going.
        direction: Direction,
    },
    /// What came later may need what would go.
    #[error("migration {version} \"{name}\" came later ({by})")]
    Later {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// Who applied it.
        by: String,
    },
}

impl NotUndone {
    fn half(run: &RunRow) -> Self {
        Self::Half {
            version: run.written.clone(),
            name: run.name.clone(),
            direction: run.direction,
        }
    }
}

/// What there is to do to take back what a rollout has applied; nothing where that has been done.
pub(super) fn undo<'a>(
    set: &'a Set,
    ledger: &Ledger,
    rollout: &RolloutId,
    data_loss: DataLoss,
) -> Result<Work<'a>, Conflict> {
    let ours = |run: &RunRow| run.rollout.as_deref() == Some(rollout.as_str());
    let history = History::unchecked(set, ledger);
    let mut todos: Vec<Todo<'a>> = Vec::new();
    let mut above = None;
    for (_, run) in ledger.newest_runs().into_iter().rev() {
        let (up, number, record) = match State::of(Some(run)) {
            State::Pending { .. } => continue,
            State::Applying(run) => {
                above.get_or_insert_with(|| NotUndone::half(run));
                continue;
            }
            State::Applied(up) => (up, up.run + 1, None),
            State::Undoing(down) => match ledger.undone_by(down) {
                Some(up) if up.state == RunState::Complete => (up, down.run, Some(down)),
                Some(_) | None => {
                    above.get_or_insert_with(|| NotUndone::half(down));
                    continue;
                }
            },
        };
        if !ours(up) {
            above.get_or_insert_with(|| match record {
                Some(down) => NotUndone::half(down),
                None => NotUndone::Later {
                    version: up.written.clone(),
                    name: up.name.clone(),
                    by: (up.rollout.as_ref()).map_or(up.by.clone(), |rollout| format!("rollout {rollout}")),
                },
            });
            continue;
        }
        if let Some(above) = above {
            return Err(Conflict::NotUndone(above));
        }
        let migration = set.find(&run.version).ok_or_else(|| Conflict::Missing {
            version: run.written.clone(),
            name: run.name.clone(),
        })?;
        todos.push(history.undo(migration, Some(up), number, record)?);
    }
    if todos.is_empty() {
        let ups = || {
            ledger
                .runs
                .iter()
                .filter(|run| run.direction == Direction::Up && ours(run))
        };
        if !ups().any(|run| run.state == RunState::Complete) {
            let half = ups().find(|run| run.state == RunState::Open);
            return Err(Conflict::NotUndone(
                half.map_or_else(|| NotUndone::Nothing(rollout.clone()), NotUndone::half),
            ));
        }
    }
    if data_loss == DataLoss::Refused {
        keeps_data(&todos)?;
    }
    Ok(history.way_down(todos))
}

/// Passes when so many of the last migrations of a set can be taken back without loss. An order runs what is pending up to
/// the last, so what a rollout has completed on a database are always the last ones; which they are, its ledger says.
///
/// # Errors
/// When the way down of one loses data: the newest such.
pub fn newest_keep_data(set: &Set, newest: usize) -> Result<(), Conflict> {
    let mut newest = set.migrations.iter().rev().take(newest);
    newest.try_for_each(migration_keeps_data)
}

fn migration_keeps_data(migration: &Migration) -> Result<(), Conflict> {
    let steps = match &migration.down {
        Some(down) => Cow::Borrowed(&down.steps[..]),
        // One without any way down is told so by each database.
        None => match automatic_undo(migration, migration.up.steps.len(), Extent::Whole) {
            Ok(steps) => steps,
            Err(_) => return Ok(()),
        },
    };
    steps_keep_data(migration, &steps)
}

/// Passes when no step that is left takes anything away for good.
fn keeps_data(todos: &[Todo<'_>]) -> Result<(), Conflict> {
    let mut all = todos.iter();
    all.try_for_each(|todo| {
        let left = todo.steps.get(todo.done..).unwrap_or_default();
        steps_keep_data(todo.migration, left)
    })
}

fn steps_keep_data(migration: &Migration, steps: &[Step]) -> Result<(), Conflict> {
    match steps.iter().find(|step| step.change.loses_data()) {
        None => Ok(()),
        Some(step) => Err(Conflict::LosesData {
            version: migration.version.clone(),
            name: migration.name.clone(),
            title: step.change.title(),
        }),
    }
}
