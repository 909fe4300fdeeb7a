//! What `migrate status` shows: one line per version, of the files and of the ledger.

use super::{Ledger, RunRow, State, StepRow, StepState};
use crate::migration::{Set, Version};
use std::collections::BTreeMap;

/// One version on one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The version as the author wrote it.
    pub version: Version,
    /// The migration's name.
    pub name: String,
    /// `pending`, `applying`, `applied`, `undoing`.
    pub state: &'static str,
    /// Steps done.
    pub steps_done: usize,
    /// Steps in all; 0 when neither a file nor a run says.
    pub steps: usize,
    /// Rows changed by batches in the newest run.
    pub rows: u64,
    /// Who began the newest run.
    pub by: Option<String>,
    /// The rollout it was part of.
    pub rollout: Option<String>,
    /// When it began, as ISO 8601 in UTC.
    pub began_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// Whether the set has a file for it.
    pub has_file: bool,
    /// Whether its way down was changed after its way up was applied.
    pub down_edited: bool,
}

/// One line per version, in order.
pub fn status(set: &Set, ledger: &Ledger) -> Vec<Line> {
    let newest = ledger.newest_runs();
    let mut lines: BTreeMap<Version, Line> = BTreeMap::new();
    for migration in &set.migrations {
        let run = newest.get(&migration.version).copied();
        let line = line(
            ledger,
            &migration.version,
            &migration.name,
            migration.up.steps.len(),
            run,
        );
        let line = Line {
            down_edited: run.is_some_and(|run| {
                matches!(State::of(Some(run)), State::Applied(_))
                    && run.down_checksum != migration.down.as_ref().map(|down| down.checksum)
            }),
            ..line
        };
        lines.insert(migration.version.clone(), line);
    }
    for (version, run) in newest {
        if !lines.contains_key(version) && !matches!(State::of(Some(run)), State::Pending { .. }) {
            let steps = usize::try_from(run.steps).unwrap_or(0);
            let mut line = line(ledger, &run.written, &run.name, steps, Some(run));
            line.has_file = false;
            lines.insert(version.clone(), line);
        }
    }
    lines.into_values().collect()
}

fn line(ledger: &Ledger, version: &Version, name: &str, steps: usize, run: Option<&RunRow>) -> Line {
    let (state, run) = match State::of(run) {
        State::Pending { .. } => ("pending", None),
        State::Applying(run) => ("applying", Some(run)),
        State::Applied(run) => ("applied", Some(run)),
        State::Undoing(run) => ("undoing", Some(run)),
    };
    let rows: Vec<&StepRow> = run.map(|run| ledger.steps_of(run).collect()).unwrap_or_default();
    Line {
        version: version.clone(),
        name: name.to_owned(),
        state,
        steps_done: rows.iter().filter(|row| row.state == StepState::Done).count(),
        steps,
        rows: rows.iter().map(|row| row.rows).sum(),
        by: run.map(|run| run.by.clone()),
        rollout: run.and_then(|run| run.rollout.clone()),
        began_at: run.and_then(|run| run.began_at.clone()),
        ended_at: run.and_then(|run| run.ended_at.clone()),
        seconds: run.and_then(|run| run.seconds),
        has_file: true,
        down_edited: false,
    }
}
