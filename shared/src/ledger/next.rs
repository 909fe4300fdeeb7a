//! What `up` or `down` has to do on one database: pure rules over its ledger and the set's files.

use super::conflict::{Conflict, Extent};
use super::undo::{self, DataLoss};
use super::{Ledger, RunRow, State, StepRow, StepState};
use crate::id::{Digest, Direction, RolloutId};
use crate::migration::{Migration, Script, Set, Step, Version};
use std::borrow::Cow;

/// How far to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Apply what is pending, up to a version or all.
    Up {
        /// The last version to apply.
        target: Option<Version>,
        /// What to do with a pending version below an applied one.
        order: Order,
    },
    /// Undo this many of the newest applied versions.
    Down {
        /// At least 1.
        steps: u32,
    },
    /// Undo what a rollout has applied.
    UndoRollout {
        /// Which.
        rollout: RolloutId,
        /// Whether values and rows may be lost with it.
        data_loss: DataLoss,
    },
}

/// What to do with a pending version below an applied one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Refuse.
    Strict,
    /// Apply it.
    Any,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Work<'a> {
    /// In order of execution; empty when there is nothing to do.
    pub todos: Vec<Todo<'a>>,
    /// Versions applied that the set does not have, all newer than its newest: an older application was started.
    pub ahead: Vec<Version>,
    /// Versions to be undone whose written down is not the one that stood beside the up when that was applied. That is
    /// allowed, and to be told.
    pub edited_downs: Vec<Version>,
}

/// One run to begin or to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Todo<'a> {
    /// The migration.
    pub migration: &'a Migration,
    /// Up or down.
    pub direction: Direction,
    /// The run's number.
    pub run: i32,
    /// The script: its file, text, checksum and options. For an automatic undo, the up script.
    pub script: &'a Script,
    /// The steps to do, in order; for an automatic undo the opposite of the up's, in reverse.
    pub steps: Cow<'a, [Step]>,
    /// How many of them are done.
    pub done: usize,
    /// Whether the step after those has begun, and what it remembers.
    pub begun: Option<Begun>,
    /// Whether the run's record exists.
    pub recorded: bool,
    /// The half-done up that this down takes back, until the down's own record exists: it is given up with it.
    pub gives_up: Option<i32>,
}

/// A step that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// What the step remembers between its parts.
    pub detail: Option<String>,
    /// Rows that its batches have changed so far.
    pub rows: u64,
}

impl Todo<'_> {
    /// Which step of which migration, and where it stands, for people. `index` counts from 0.
    pub fn place_of(&self, index: usize) -> String {
        let step = &self.steps[index];
        format!(
            "migration {} \"{}\" ({}), step {} of {} ({}, {}:{}:{})",
            self.migration.version,
            self.migration.name,
            self.direction,
            index + 1,
            self.steps.len(),
            step.change.title(),
            self.script.file,
            step.at.line,
            step.at.column,
        )
    }

    /// The checksum the run is recorded with. An automatic undo has that of the up it undoes.
    pub fn checksum(&self) -> Digest {
        self.script.checksum
    }
}

/// What there is to do on a database with this ledger.
///
/// # Errors
/// When a rule forbids to begin; nothing is to be done then.
pub fn next<'a>(set: &'a Set, ledger: &Ledger, goal: &Goal) -> Result<Work<'a>, Conflict> {
    match goal {
        Goal::Up { target, order } => History::check(set, ledger, goal)?.up(target.as_ref(), *order),
        Goal::Down { steps } => History::check(set, ledger, goal)?.down(*steps),
        Goal::UndoRollout { rollout, data_loss } => undo::undo(set, ledger, rollout, *data_loss),
    }
}

/// The files beside the newest runs, checked against each other.
pub(super) struct History<'a, 'l> {
    set: &'a Set,
    ledger: &'l Ledger,
    states: Vec<(&'a Migration, State<'l>)>,
    ahead: Vec<Version>,
}

impl<'a, 'l> History<'a, 'l> {
    /// Files and runs as they are, for a goal with rules of its own.
    pub(super) fn unchecked(set: &'a Set, ledger: &'l Ledger) -> Self {
        let newest = ledger.newest_runs();
        let states = (set.migrations.iter())
            .map(|m| (m, State::of(newest.get(&m.version).copied())))
            .collect();
        Self {
            set,
            ledger,
            states,
            ahead: Vec::new(),
        }
    }

    fn check(set: &'a Set, ledger: &'l Ledger, goal: &Goal) -> Result<Self, Conflict> {
        let newest = ledger.newest_runs();
        let last_file = set.migrations.last().map(|m| &m.version);
        let mut ahead = Vec::new();
        for (version, run) in &newest {
            if set.find(version).is_some() {
                continue;
            }
            let (version, name) = (run.written.clone(), run.name.clone());
            match State::of(Some(run)) {
                State::Pending { .. } => {}
                State::Applying(_) | State::Undoing(_) => {
                    return Err(Conflict::MissingPartial { version, name });
                }
                State::Applied(_) if last_file.is_none_or(|last| version > *last) => ahead.push(version),
                State::Applied(_) => return Err(Conflict::Missing { version, name }),
            }
        }
        let history = Self {
            ahead,
            ..Self::unchecked(set, ledger)
        };
        for (migration, state) in &history.states {
            match state {
                State::Applied(run)
                    if run.checksum != migration.up.checksum && matches!(goal, Goal::Up { .. }) =>
                {
                    return Err(Conflict::Edited {
                        version: migration.version.clone(),
                        name: migration.name.clone(),
                        applied: run.checksum,
                        file: migration.up.checksum,
                    });
                }
                State::Pending { .. } | State::Applying(_) | State::Applied(_) | State::Undoing(_) => {}
            }
        }
        Ok(history)
    }

    fn up(self, target: Option<&Version>, order: Order) -> Result<Work<'a>, Conflict> {
        if let Some(target) = target
            && self.set.find(target).is_none()
        {
            return Err(Conflict::NoSuchTarget {
                version: target.clone(),
            });
        }
        let applied = self.newest_applied();
        // What is half done comes first, whatever the target: later versions wait for it.
        let (mut partial, mut todos) = (Vec::new(), Vec::new());
        for (migration, state) in &self.states {
            let beyond = target.is_some_and(|target| migration.version > *target);
            match *state {
                State::Applied(_) => {}
                State::Undoing(_) => {
                    return Err(Conflict::Undoing {
                        version: migration.version.clone(),
                        name: migration.name.clone(),
                    });
                }
                State::Applying(run) => partial.push(self.todo(
                    migration,
                    Direction::Up,
                    run.run,
                    &migration.up,
                    Cow::Borrowed(&migration.up.steps),
                    Some(run),
                )?),
                State::Pending { .. } if beyond => {}
                State::Pending { next_run } => {
                    if let Some(applied) =
                        applied.filter(|a| **a > migration.version && order == Order::Strict)
                    {
                        return Err(Conflict::OutOfOrder {
                            version: migration.version.clone(),
                            name: migration.name.clone(),
                            applied: applied.clone(),
                        });
                    }
                    todos.push(self.todo(
                        migration,
                        Direction::Up,
                        next_run,
                        &migration.up,
                        Cow::Borrowed(&migration.up.steps),
                        None,
                    )?);
                }
            }
        }
        partial.extend(todos);
        Ok(Work {
            todos: partial,
            ahead: self.ahead,
            edited_downs: Vec::new(),
        })
    }

    fn down(self, steps: u32) -> Result<Work<'a>, Conflict> {
        if let Some(version) = self.ahead.last() {
            let name = self
                .ledger
                .runs
                .iter()
                .find(|r| r.written == *version)
                .map(|r| r.name.clone())
                .unwrap_or_default();
            return Err(Conflict::Ahead {
                version: version.clone(),
                name,
            });
        }
        let (mut partial, mut whole) = (Vec::new(), Vec::new());
        for (migration, state) in self.states.iter().rev() {
            match *state {
                State::Pending { .. } => {}
                State::Applying(run) => partial.push(self.half_undo(migration, run, None)?),
                State::Undoing(run) => partial.push(match self.ledger.given_up(run) {
                    Some(up) => self.half_undo(migration, up, Some(run))?,
                    None => self.undo(migration, self.ledger.undone_by(run), run.run, Some(run))?,
                }),
                State::Applied(run) => whole.push((migration, run)),
            }
        }
        let wanted = usize::try_from(steps)
            .unwrap_or(usize::MAX)
            .saturating_sub(partial.len());
        for (migration, run) in whole.into_iter().take(wanted) {
            partial.push(self.undo(migration, Some(run), run.run + 1, None)?);
        }
        Ok(self.way_down(partial))
    }

    /// Undoes these, in this order.
    pub(super) fn way_down(&self, todos: Vec<Todo<'a>>) -> Work<'a> {
        let edited_downs = (todos.iter())
            .filter(|todo| self.is_down_edited(todo))
            .map(|todo| todo.migration.version.clone())
            .collect();
        Work {
            todos,
            ahead: Vec::new(),
            edited_downs,
        }
    }

    /// Whether a written down is not the one that stood beside the up.
    fn is_down_edited(&self, todo: &Todo<'_>) -> bool {
        let mut runs = self.ledger.runs.iter();
        let up = runs.find(|run| run.version == todo.migration.version && run.run == todo.run - 1);
        todo.migration.down.as_ref().is_some_and(|down| {
            std::ptr::eq(todo.script, down) && up.is_some_and(|up| up.down_checksum != Some(down.checksum))
        })
    }

    /// Undoes a whole migration: by its written down, or by the opposite of its steps in reverse.
    pub(super) fn undo(
        &self,
        migration: &'a Migration,
        up: Option<&RunRow>,
        number: i32,
        record: Option<&RunRow>,
    ) -> Result<Todo<'a>, Conflict> {
        if let Some(down) = &migration.down {
            let steps = Cow::Borrowed(&down.steps[..]);
            return self.todo(migration, Direction::Down, number, down, steps, record);
        }
        if let Some(up) = up.filter(|up| up.checksum != migration.up.checksum) {
            return Err(Conflict::EditedUndo {
                version: migration.version.clone(),
                name: migration.name.clone(),
                applied: up.checksum,
                file: migration.up.checksum,
            });
        }
        let steps = automatic_undo(migration, migration.up.steps.len(), Extent::Whole)?;
        self.todo(migration, Direction::Down, number, &migration.up, steps, record)
    }

    /// Undoes what is done or begun of a half-done up. Its file may have changed after those steps.
    fn half_undo(
        &self,
        migration: &'a Migration,
        up: &RunRow,
        record: Option<&RunRow>,
    ) -> Result<Todo<'a>, Conflict> {
        let begun: Vec<&StepRow> = self.ledger.steps_of(up).collect();
        unchanged(migration, &begun, &migration.up.steps)?;
        let steps = automatic_undo(migration, begun.len(), Extent::Half)?;
        let number = record.map_or(up.run + 1, |down| down.run);
        let mut todo = self.todo(migration, Direction::Down, number, &migration.up, steps, record)?;
        todo.gives_up = record.is_none().then_some(up.run);
        Ok(todo)
    }

    /// The newest version that is applied, here or ahead.
    fn newest_applied(&self) -> Option<&Version> {
        let here = self
            .states
            .iter()
            .filter(|(_, s)| matches!(s, State::Applied(_)))
            .map(|(m, _)| &m.version);
        here.chain(&self.ahead).max()
    }

    fn todo(
        &self,
        migration: &'a Migration,
        direction: Direction,
        run: i32,
        script: &'a Script,
        steps: Cow<'a, [Step]>,
        record: Option<&RunRow>,
    ) -> Result<Todo<'a>, Conflict> {
        let rows: Vec<&StepRow> = record
            .map(|run| self.ledger.steps_of(run).collect())
            .unwrap_or_default();
        unchanged(migration, &rows, &steps)?;
        let done = rows.iter().filter(|row| row.state == StepState::Done).count();
        let begun = rows
            .iter()
            .find(|row| row.state == StepState::Begun)
            .map(|row| Begun {
                detail: row.detail.clone(),
                rows: row.rows,
            });
        Ok(Todo {
            migration,
            direction,
            run,
            script,
            steps,
            done,
            begun,
            recorded: record.is_some(),
            gives_up: None,
        })
    }
}

/// Passes when the steps that are recorded are those of the file.
fn unchanged(migration: &Migration, rows: &[&StepRow], steps: &[Step]) -> Result<(), Conflict> {
    for row in rows {
        let place = usize::try_from(row.step).unwrap_or(usize::MAX).wrapping_sub(1);
        let file = steps.get(place).map(|step| step.checksum);
        if file != Some(row.checksum) {
            return Err(Conflict::EditedStep {
                version: migration.version.clone(),
                name: migration.name.clone(),
                step: row.step,
                title: row.title.clone(),
                change: format!(
                    "its checksum was {} and {}",
                    row.checksum.short(),
                    file.map_or("it is gone".to_owned(), |file| format!("is {} now", file.short()))
                ),
            });
        }
    }
    Ok(())
}

/// The opposite of the first `count` steps, in reverse.
pub(super) fn automatic_undo(
    migration: &Migration,
    count: usize,
    extent: Extent,
) -> Result<Cow<'_, [Step]>, Conflict> {
    migration
        .up
        .automatic_undo(count)
        .map(Cow::Owned)
        .map_err(|(index, why)| Conflict::NoUndo {
            version: migration.version.clone(),
            name: migration.name.clone(),
            step: index + 1,
            title: migration.up.steps[index].change.title(),
            why,
            extent,
        })
}
