//! Rollouts in words. Pure.

use shared::rollout::Policy;
use shared::rollout::policy::Unreachable;
use shared::rollout::view::{Assignment, AssignmentState, Rollout, State};
use shared::rollout::work::{Progress, Summary};
use std::time::Duration;

/// `1 database`, `12 databases`.
pub(super) fn count(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", grouped(number))
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(String::from_utf8_lossy);
    groups.fold(head.to_owned(), |text, group| format!("{text},{group}"))
}

/// `340 ms`, `4.2 s`, `3 min 5 s`, `2 h 4 min`.
pub(super) fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// What was done: `2 migrations, 5 steps, 1,000 rows`.
pub(super) fn summary(of: &Summary) -> String {
    if of.migrations == 0 && of.steps == 0 && of.rows == 0 {
        return "nothing to do".to_owned();
    }
    let mut parts = vec![
        count(of.migrations.into(), "migration"),
        count(of.steps.into(), "step"),
    ];
    if of.rows > 0 {
        parts.push(count(of.rows, "row"));
    }
    parts.join(", ")
}

/// How far a database is: `002 totals: step 2 of 3: backfill orders, 1,000 of about 5,000 rows`.
pub(super) fn progress(of: &Progress) -> String {
    let Some(version) = &of.version else {
        return "beginning".to_owned();
    };
    format!(
        "{version} {}: step {} of {}: {}{}",
        of.migration,
        of.step,
        of.steps,
        of.title,
        rows(of) + &pace(of)
    )
}

/// Rows of a step, to be added to a text: `, 1,000 of about 5,000 rows`.
pub(super) fn rows(of: &Progress) -> String {
    match (of.rows, of.estimated_rows) {
        (0, 0) => String::new(),
        (rows, 0) => format!(", {}", count(rows, "row")),
        (rows, estimated) => format!(", {} of about {}", grouped(rows), count(estimated, "row")),
    }
}

/// Why the batches go as fast as they do, to be added to a text: `, 2 workers, batches of 500 rows, at full speed`.
pub(super) fn pace(of: &Progress) -> String {
    if of.workers == 0 && !of.pace.is_empty() {
        return format!(", {}", of.pace);
    }
    if of.pace.is_empty() {
        return String::new();
    }
    let size = match of.batch_rows {
        0 => String::new(),
        rows => format!(", batches of {}", count(u64::from(rows), "row")),
    };
    let retries = match of.retries {
        0 => String::new(),
        1 => ", 1 retry".to_owned(),
        retries => format!(", {} retries", grouped(retries)),
    };
    format!(
        ", {}{size}{retries}, {}",
        count(u64::from(of.workers), "worker"),
        of.pace
    )
}

/// What there is to say about one database in one line, besides its state.
pub(super) fn detail(of: &Assignment) -> String {
    match of.state {
        AssignmentState::Waiting => {
            let last = match (of.error.is_empty(), of.interrupted.is_empty()) {
                (false, _) => format!("; last error: {}", first_line(&of.error)),
                (true, false) => format!("; {}{}", of.interrupted, reached(of)),
                (true, true) => String::new(),
            };
            format!("{}{last}", of.blocked)
        }
        AssignmentState::Running => running(of),
        AssignmentState::Done => summary(&of.summary),
        AssignmentState::Failed => first_line(&of.error),
        AssignmentState::Skipped => of.blocked.clone(),
        AssignmentState::Aborted => aborted(of),
    }
}

/// Who asked for it, and why where that was said.
pub(super) fn by(of: &Rollout) -> String {
    if of.created_reason.is_empty() {
        of.created_by.clone()
    } else {
        format!("{} ({})", of.created_by, of.created_reason)
    }
}

/// Its id, with what it is about where it takes another back: `abc, which undoes def,`.
pub(super) fn name(of: &Rollout) -> String {
    match &of.undoes {
        None => of.id.to_string(),
        Some(undone) => format!("{}, which undoes {undone},", of.id),
    }
}

/// How far a database at work is, and whether its agent is there.
pub(super) fn running(of: &Assignment) -> String {
    let far = match &of.progress {
        Some(progress) => self::progress(progress),
        None if of.progress_unknown => {
            "progress unknown: a coordinator answered that does not lead".to_owned()
        }
        None => "beginning".to_owned(),
    };
    match of.agent_gone_since {
        Some(since) => format!(
            "its agent is not connected since {since}: when its lease ends, another goes on; last known: {far}"
        ),
        None => far,
    }
}

/// How far an attempt was that was stopped: ` (at 002 totals: step 2 of 3: ..)`.
fn reached(of: &Assignment) -> String {
    let known = of.progress.as_ref().filter(|progress| progress.version.is_some());
    known.map_or(String::new(), |known| {
        // How fast its batches went is of no interest any more.
        let known = Progress {
            workers: 0,
            pace: String::new(),
            ..known.clone()
        };
        format!(" (at {})", progress(&known))
    })
}

/// What an abort left behind. A database that was stopped is whole between two batches or steps.
pub(super) fn aborted(of: &Assignment) -> String {
    let untouched = of.started_at.is_none() && of.error.is_empty() && of.interrupted.is_empty();
    if untouched {
        return "not begun".to_owned();
    }
    let done = match of.summary {
        summary if summary.steps == 0 && summary.rows == 0 => String::new(),
        summary => format!(", after {}", self::summary(&summary)),
    };
    format!(
        "stopped on the way{}{done}; the next rollout of these migrations, or `migrate up`, goes on from there",
        reached(of)
    )
}

/// How a rollout stands, in one line: `rollout abc done in 4.2 s: 12 of 12 databases done`.
pub(super) fn standing(of: &Rollout) -> String {
    let counts = &of.databases;
    let databases = count(counts.total.into(), "database");
    let mut parts = vec![format!("{} of {databases} done", counts.done)];
    let others = [
        (counts.running, "running"),
        (counts.waiting, "waiting"),
        (counts.failed, "failed"),
        (counts.skipped, "left out"),
        (counts.aborted, "not completed"),
    ];
    parts.extend(
        others
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{number} {what}")),
    );
    let took = of.ended_at.map_or(String::new(), |ended| {
        format!(" in {}", elapsed(of.created_at.until(ended)))
    });
    let reason = match of.state {
        State::Paused | State::Aborting | State::Aborted if !of.reason.is_empty() => {
            format!(" ({})", of.reason)
        }
        State::Running | State::Paused | State::Done | State::Aborting | State::Aborted | State::Failed => {
            String::new()
        }
    };
    let (id, state) = (name(of), of.state.as_str());
    format!("rollout {id} {state}{took}{reason}: {}", parts.join(", "))
}

/// What a rollout keeps to, in one line: `at most 8 at a time (2 on one server), 8 attempts each, ..`.
pub(super) fn policy(of: &Policy) -> String {
    let mut parts = vec![format!(
        "at most {} at a time ({} on one server{})",
        of.max_in_flight,
        of.max_per_server,
        of.max_per_agent
            .map_or(String::new(), |limit| format!(", {limit} by one agent")),
    )];
    parts.push(format!(
        "{} each, {} to {} apart",
        count(of.max_attempts.into(), "attempt"),
        of.initial_retry_delay,
        of.max_retry_delay
    ));
    parts.push(format!("failure budget {}", of.failure_budget));
    if of.ramp_up {
        parts.push("each wave ramps up".to_owned());
    }
    if of.unreachable == Unreachable::Skip {
        parts.push("unreachable ones are left out".to_owned());
    }
    let windows: Vec<_> = of.windows.iter().map(ToString::to_string).collect();
    if !windows.is_empty() {
        parts.push(format!("within {}", windows.join(" and ")));
    }
    if !of.strategies.is_empty() {
        parts.push(format!("strategies: {}", of.strategies));
    }
    parts.join(", ")
}

/// The errors of all failed databases, whole, each under its name. Empty when there is none.
pub(super) fn errors<'a>(assignments: impl Iterator<Item = &'a Assignment>) -> String {
    let failed = assignments.filter(|of| of.state == AssignmentState::Failed);
    let texts = failed.map(|of| {
        let agent = of
            .agent
            .as_ref()
            .map_or(String::new(), |agent| format!(" on {agent}"));
        let error = if of.error.is_empty() {
            "the reason is not known"
        } else {
            &of.error
        };
        format!(
            "{}{agent}, attempt {}:\n{}",
            of.database,
            of.attempt,
            indented(error)
        )
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// An error in one line: a first line that only announces the second brings it along.
pub(super) fn first_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        Some(second) if first.ends_with(':') => format!("{first} {}", second.trim()),
        Some(_) | None => first.to_owned(),
    }
}

pub(super) fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [
            (0, "0"),
            (12, "12"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn durations_are_as_fine_as_people_need() {
        let shown = |ms| elapsed(Duration::from_millis(ms));
        assert_eq!(
            [shown(340), shown(4210), shown(185_000), shown(7_440_000)],
            ["340 ms", "4.2 s", "3 min 5 s", "2 h 4 min"]
        );
    }

    #[test]
    fn an_error_in_one_line_says_what_it_was() {
        let error =
            "step 1 of 1 failed on database a:\n  PostgreSQL says: no such table (42P01)\n  at 1.sql:1:2";
        let line = "step 1 of 1 failed on database a: PostgreSQL says: no such table (42P01)";
        assert_eq!(first_line(error), line);
        assert_eq!(first_line("server down\n  help: start it"), "server down");
        assert_eq!(first_line(""), "");
    }

    #[test]
    fn rows_are_shown_with_their_estimate_where_there_is_one() {
        let of = Progress {
            version: Some("002".parse().unwrap()),
            migration: "totals".to_owned(),
            step: 2,
            steps: 3,
            title: "backfill orders".to_owned(),
            rows: 1000,
            estimated_rows: 5000,
            ..Progress::default()
        };
        assert_eq!(
            progress(&of),
            "002 totals: step 2 of 3: backfill orders, 1,000 of about 5,000 rows"
        );
        assert_eq!(progress(&Progress::default()), "beginning");
    }
}
