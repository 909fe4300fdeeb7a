//! Live bars on a terminal: one for the rollout, one for each running database.

use super::super::board::{Board, Change};
use super::super::text;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shared::id::DatabaseName;
use shared::rollout::view::{Assignment, AssignmentState};
use shared::rollout::work::Progress;
use std::collections::BTreeMap;
use std::time::Instant;

/// Databases with a bar of their own; a terminal has few lines.
const MOST_BARS: usize = 16;

/// A bar's whole length.
const WHOLE: u64 = 1000;

/// Weight of the newest measurement of a rate.
const NEWEST: f64 = 0.3;

/// The bars.
pub(in crate::command::rollout) struct Bars {
    all: MultiProgress,
    overall: ProgressBar,
    databases: BTreeMap<DatabaseName, Bar>,
}

struct Bar {
    bar: ProgressBar,
    pace: Pace,
}

impl Default for Bars {
    fn default() -> Self {
        let all = MultiProgress::new();
        let overall = all.add(ProgressBar::new(0).with_style(style("[{bar:30}] {wide_msg}")));
        Self {
            all,
            overall,
            databases: BTreeMap::new(),
        }
    }
}

impl Bars {
    pub(super) fn show(&mut self, board: &Board, changes: &[Change]) {
        for change in changes {
            self.say(change);
            let after = &change.after;
            match after.state {
                AssignmentState::Running => self.running(after),
                AssignmentState::Waiting
                | AssignmentState::Done
                | AssignmentState::Failed
                | AssignmentState::Skipped
                | AssignmentState::Aborted => self.gone(&after.database),
            }
        }
        self.overall
            .set_length(u64::from(board.rollout.databases.total) * WHOLE);
        self.overall
            .set_position(board.assignments.values().map(part).sum());
        self.overall.set_message(overall(board));
    }

    /// Stays above the bars.
    pub(super) fn note(&self, text: &str) {
        // A terminal that went away is nobody to tell.
        let _gone = self.all.println(text);
    }

    pub(super) fn tick(&self) {
        self.overall.tick();
        self.databases.values().for_each(|bar| bar.bar.tick());
    }

    pub(super) fn end(&mut self) {
        self.databases.values().for_each(|bar| bar.bar.finish_and_clear());
        self.databases.clear();
        self.overall.finish_and_clear();
        let _gone = self.all.clear();
    }

    /// What must not be overlooked stays above the bars.
    fn say(&self, change: &Change) {
        let after = &change.after;
        let error_is_new = change
            .before
            .as_ref()
            .is_none_or(|before| before.error != after.error);
        if !error_is_new || after.error.is_empty() {
            return;
        }
        let what = match after.state {
            AssignmentState::Failed => "failed",
            AssignmentState::Waiting => "will be tried again",
            // The error of an earlier attempt, told before.
            AssignmentState::Running
            | AssignmentState::Done
            | AssignmentState::Skipped
            | AssignmentState::Aborted => return,
        };
        let error = text::first_line(&after.error);
        self.note(&format!("{}: {what}: {error}", after.database));
    }

    fn running(&mut self, of: &Assignment) {
        if !self.databases.contains_key(&of.database) && self.databases.len() >= MOST_BARS {
            return;
        }
        let bar = self.databases.entry(of.database.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(0).with_style(style("  {prefix:20} [{bar:20}] {wide_msg}"));
            Bar {
                bar: self.all.add(bar.with_prefix(of.database.to_string())),
                pace: Pace::default(),
            }
        });
        let Some(progress) = of.progress.as_ref().filter(|_| of.agent_gone_since.is_none()) else {
            bar.bar.set_message(text::running(of));
            return;
        };
        let rate = bar.pace.measure(
            (of.token, progress.migrations_done, progress.step),
            progress.rows,
            Instant::now(),
        );
        bar.bar.set_length(WHOLE);
        bar.bar.set_position(part_of_step(progress));
        bar.bar.set_message(message(progress, rate));
    }

    fn gone(&mut self, database: &DatabaseName) {
        if let Some(bar) = self.databases.remove(database) {
            bar.bar.finish_and_clear();
            self.all.remove(&bar.bar);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants and parse; a plain bar is no reason to end a rollout's watch.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn overall(board: &Board) -> String {
    let counts = &board.rollout.databases;
    let rows: u64 = board.assignments.values().map(rows).sum();
    let mut parts = vec![
        format!(
            "{} of {} done",
            counts.done,
            text::count(counts.total.into(), "database")
        ),
        format!("{} running", counts.running),
        format!("{} waiting", counts.waiting),
    ];
    if counts.failed > 0 {
        parts.push(format!("{} failed", counts.failed));
    }
    if rows > 0 {
        parts.push(text::count(rows, "row"));
    }
    parts.join(", ")
}

/// What changes most comes first: the end of a line may not fit.
fn message(of: &Progress, rate: Option<u64>) -> String {
    let version = of.version.as_ref().map_or("", |version| version.as_str());
    let rate = rate.map_or(String::new(), |rate| format!(", {}/s", text::grouped(rate)));
    format!(
        "{version} step {} of {}{}{rate}: {}",
        of.step,
        of.steps,
        text::rows(of),
        of.title
    )
}

/// How much of the step at work is done, of [`WHOLE`]. Where there is nothing to count it is none of it.
fn part_of_step(of: &Progress) -> u64 {
    let done = u128::from(of.rows.min(of.estimated_rows)) * u128::from(WHOLE);
    let part = done.checked_div(u128::from(of.estimated_rows)).unwrap_or(0);
    u64::try_from(part).unwrap_or(WHOLE)
}

/// How much of a database is done, of [`WHOLE`]: each migration counts the same, and in it each step.
fn part(of: &Assignment) -> u64 {
    match (of.state, &of.progress) {
        (
            AssignmentState::Done
            | AssignmentState::Failed
            | AssignmentState::Skipped
            | AssignmentState::Aborted,
            _,
        ) => WHOLE,
        (AssignmentState::Running, Some(progress)) => {
            let steps = u64::from(progress.steps.max(1));
            let in_migration =
                (u64::from(progress.step.saturating_sub(1)) * WHOLE + part_of_step(progress)) / steps;
            let migrations = u64::from(progress.migrations.max(1));
            ((u64::from(progress.migrations_done) * WHOLE + in_migration) / migrations).min(WHOLE)
        }
        (AssignmentState::Running, None) | (AssignmentState::Waiting, _) => 0,
    }
}

/// Rows changed so far: of what has ended, and of the step at work.
fn rows(of: &Assignment) -> u64 {
    match (of.state, &of.progress) {
        (AssignmentState::Running, Some(progress)) => progress.rows,
        (_, _) => of.summary.rows,
    }
}

/// A step: its lease, migrations done before it, its number.
type Place = (Option<i64>, u32, u32);

/// Rows per second of one step, smoothed.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Place, u64, Instant)>,
    rate: Option<f64>,
}

impl Pace {
    /// Takes a measurement of a step; `None` while there is no rate.
    fn measure(&mut self, step: Place, rows: u64, now: Instant) -> Option<u64> {
        match self.last {
            Some((last_step, last_rows, at)) if last_step == step && last_rows <= rows => {
                let seconds = now.duration_since(at).as_secs_f64();
                if seconds < 0.2 {
                    return self.shown();
                }
                #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
                let newest = (rows - last_rows) as f64 / seconds;
                self.rate = Some(self.rate.map_or(newest, |rate| rate + NEWEST * (newest - rate)));
            }
            Some(_) | None => self.rate = None,
        }
        self.last = Some((step, rows, now));
        self.shown()
    }

    fn shown(&self) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rows and seconds only grow"
        )]
        self.rate.map(|rate| rate.round() as u64).filter(|rate| *rate > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_database_counts_by_its_migrations_their_steps_and_their_rows() {
        let mut of = Progress {
            step: 2,
            steps: 4,
            rows: 500,
            estimated_rows: 1000,
            migrations_done: 1,
            migrations: 2,
            ..Progress::default()
        };
        let at = |progress: &Progress| {
            part(&Assignment {
                database: "a".try_into().unwrap(),
                wave: "rest".to_owned(),
                state: AssignmentState::Running,
                agent: None,
                attempt: 1,
                blocked: String::new(),
                error: String::new(),
                interrupted: String::new(),
                progress_unknown: false,
                agent_gone_since: None,
                progress: Some(progress.clone()),
                started_at: None,
                ended_at: None,
                summary: shared::rollout::work::Summary::default(),
                token: None,
            })
        };
        assert_eq!(at(&of), 687, "(1 + (1 + 0.5) / 4) / 2");
        of.rows = 5000;
        assert_eq!(at(&of), 750, "more rows than estimated are no more than all");
        assert_eq!(at(&Progress::default()), 0);
    }

    #[test]
    fn a_rate_is_smoothed_and_begins_anew_with_each_step() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.measure((Some(1), 0, 1), 0, at(0)), None);
        assert_eq!(pace.measure((Some(1), 0, 1), 1000, at(1)), Some(1000));
        assert_eq!(pace.measure((Some(1), 0, 1), 3000, at(2)), Some(1300));
        assert_eq!(pace.measure((Some(1), 0, 2), 5000, at(3)), None);
    }
}
