//! `confiture rollout trace`: the flight recorder of a rollout.

use super::{Whole, not_understood, text, whole};
use crate::context::Global;
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use serde_json::{Value, json};
use shared::rollout::Time;
use shared::rollout::story::{Moment, Story, What};
use shared::rollout::view::{Assignment, AssignmentState, Rollout, Stretch};
use shared::rollout::work::Exit;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many databases are told of where none is named: those that took longest.
const SHOWN: usize = 20;

/// How wide the time of an attempt is drawn.
const WIDTH: usize = 24;

const HELP: &str = "\
First comes the rollout itself: its waves, and what the next one waited for. Then attempts with something to tell: locks
that were waited for, batches, troubles, or more than a second of time. Each line begins with the time since the rollout, or the
attempt, began and how long it took; the bar is its place in that time.

JSON (--output json): rollout, timeline[] {from, to (ms since 1970; null while it goes on), what, wave, text}, databases[] {database, wave, state, attempts[] {agent, attempt, running, left_out,
moments[] {from, to (ms since 1970), version, step, what, ..}}}. `what` of a timeline is one of wave, hours, soak,
checks, approval, paused, aborting, asked, ended, left_out; of a moment: step, at_work, lost, wait, tries, batches, verified,
vacuum, trouble.";

/// `confiture rollout trace ID [DATABASE..]`
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Trace {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    /// Which databases [default: the 20 that took longest; all with --output json]
    #[arg(value_name = "DATABASE")]
    databases: Vec<String>,
    #[command(flatten)]
    at: At,
}

/// One attempt at a database.
struct Attempt {
    agent: String,
    number: u32,
    running: bool,
    story: Story,
}

impl Trace {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("trace rollout {}", self.rollout);
        let Whole {
            rollout,
            assignments,
            timeline,
        } = whole(&mut operator, &doing, self.rollout.clone()).await?;
        let attempts = self.ask(&mut operator, &doing).await?;
        let named = |assignment: &&Assignment| {
            let name = assignment.database.as_str();
            self.databases.is_empty() || self.databases.iter().any(|wanted| wanted == name)
        };
        let assignments: Vec<&Assignment> = assignments.iter().filter(named).collect();
        match global.output {
            Format::Json => output::json(&as_json(&rollout, &timeline, &assignments, &attempts)),
            Format::Text => {
                let most = if self.databases.is_empty() {
                    SHOWN
                } else {
                    usize::MAX
                };
                output::data(&page(&rollout, &timeline, &assignments, &attempts, most));
            }
        }
        Ok(Exit::Done)
    }

    async fn ask(
        &self,
        operator: &mut Operator,
        doing: &str,
    ) -> Result<BTreeMap<String, Vec<Attempt>>, Failure> {
        let request = v1::TraceRolloutRequest {
            id: self.rollout.clone(),
            databases: self.databases.clone(),
        };
        let mut stream = operator
            .ask(doing, async |mut client| {
                client.trace_rollout(request.clone()).await
            })
            .await?;
        let mut attempts: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
        loop {
            let answer = stream.message().await.map_err(|status| {
                Failure::failed(format!(
                    "cannot {doing}: the answer broke off: {}",
                    status.message()
                ))
            })?;
            let Some(answer) = answer else {
                return Ok(attempts);
            };
            let story = convert::story::from_wire(answer.story.unwrap_or_default())
                .map_err(|error| not_understood(&error))?;
            attempts.entry(answer.database).or_default().push(Attempt {
                agent: answer.agent,
                number: answer.attempt,
                running: answer.running,
                story,
            });
        }
    }
}

fn as_json(
    rollout: &Rollout,
    timeline: &[Stretch],
    assignments: &[&Assignment],
    attempts: &BTreeMap<String, Vec<Attempt>>,
) -> Value {
    let attempt = |attempt: &Attempt| {
        json!({
            "agent": attempt.agent,
            "attempt": attempt.number,
            "running": attempt.running,
            "left_out": attempt.story.left_out,
            "moments": attempt.story.moments,
        })
    };
    let database = |assignment: &&Assignment| {
        let told = attempts.get(assignment.database.as_str());
        let attempts: Vec<Value> = told.into_iter().flatten().map(attempt).collect();
        json!({
            "database": assignment.database,
            "wave": assignment.wave,
            "state": assignment.state.as_str(),
            "attempts": attempts,
        })
    };
    json!({
        "rollout": rollout.id,
        "timeline": timeline,
        "databases": assignments.iter().map(database).collect::<Vec<_>>(),
    })
}

fn page(
    rollout: &Rollout,
    timeline: &[Stretch],
    assignments: &[&Assignment],
    attempts: &BTreeMap<String, Vec<Attempt>>,
    most: usize,
) -> String {
    let mut parts = vec![text::standing(rollout)];
    parts.extend(course(timeline, Time::since_1970(runtime::unix_now())));
    let mut told: Vec<(&Assignment, &Vec<Attempt>)> = assignments
        .iter()
        .filter_map(|assignment| Some((*assignment, attempts.get(assignment.database.as_str())?)))
        .collect();
    let silent = |state: &dyn Fn(&Assignment) -> bool| {
        let silent = |of: &&&Assignment| state(of) && !attempts.contains_key(of.database.as_str());
        assignments.iter().filter(silent).count()
    };
    let is_at_work = |of: &Assignment| of.state == AssignmentState::Running;
    let (working, silent) = (silent(&is_at_work), silent(&|of| !is_at_work(of)));
    told.sort_by_key(|(_, attempts)| std::cmp::Reverse(attempts.iter().map(length).sum::<Duration>()));
    let hidden = told.len().saturating_sub(most);
    told.truncate(most);
    for (assignment, attempts) in told {
        for attempt in attempts {
            parts.push(String::new());
            parts.push(head(assignment, attempt));
            parts.push(lines(&attempt.story));
        }
    }
    if hidden > 0 {
        parts.push(String::new());
        parts.push(format!(
            "{} more took less time: name those to be told of",
            text::count(hidden as u64, "database")
        ));
    }
    if working > 0 {
        parts.push(String::new());
        parts.push(format!(
            "{} at work with nothing told yet: agents tell every few seconds",
            text::count(working as u64, "database")
        ));
    }
    if silent > 0 {
        parts.push(String::new());
        parts.push(format!(
            "{} with nothing to tell: not begun, or done within a second and without waiting",
            text::count(silent as u64, "database")
        ));
    }
    parts.join("\n")
}

/// The rollout itself until `now`; nothing where that is not known.
fn course(timeline: &[Stretch], now: Time) -> Option<String> {
    let from = timeline.iter().map(|stretch| stretch.from).min()?;
    let to = timeline.iter().map(|stretch| stretch.to.unwrap_or(now)).max()?;
    let rows: Vec<_> = timeline
        .iter()
        .map(|stretch| {
            let took = match stretch.to {
                Some(to) if to == stretch.from => String::new(),
                Some(to) => text::elapsed(stretch.from.until(to)),
                None => format!("{} so far", text::elapsed(stretch.from.until(now))),
            };
            vec![
                format!("  +{}", text::elapsed(from.until(stretch.from))),
                took,
                bar(from, to, stretch.from, stretch.to.unwrap_or(now)),
                one_line(&stretch.text),
            ]
        })
        .collect();
    let table = output::table(&["  AFTER", "TOOK", "", ""], &rows);
    Some(format!("\nthe rollout itself, from {from}\n{table}"))
}

/// `orders (wave canary): attempt 1 on agent-a, from 2026-11-23T03:12:01Z, 12.3 s`
fn head(assignment: &Assignment, attempt: &Attempt) -> String {
    let from = attempt
        .story
        .moments
        .first()
        .map_or(Time(0), |moment| moment.from);
    let running = if attempt.running { ", at work" } else { "" };
    format!(
        "{} (wave {}, {}): attempt {} on {}{running}, from {from}, {}",
        assignment.database,
        assignment.wave,
        assignment.state.as_str(),
        attempt.number,
        attempt.agent,
        text::elapsed(length(attempt)),
    )
}

fn length(attempt: &Attempt) -> Duration {
    let moments = &attempt.story.moments;
    let from = moments.iter().map(|moment| moment.from).min();
    let to = moments.iter().map(|moment| moment.to).max();
    from.zip(to).map_or(Duration::ZERO, |(from, to)| from.until(to))
}

fn lines(story: &Story) -> String {
    let from = story
        .moments
        .iter()
        .map(|moment| moment.from)
        .min()
        .unwrap_or(Time(0));
    let to = story.moments.iter().map(|moment| moment.to).max().unwrap_or(from);
    let mut moments: Vec<&Moment> = story.moments.iter().collect();
    // A step before what happened in it.
    moments.sort_by_key(|moment| (moment.from, std::cmp::Reverse(moment.to)));
    let rows: Vec<_> = moments
        .into_iter()
        .map(|moment| {
            let step = match &moment.version {
                Some(version) => format!("{version} step {}", moment.step),
                None => String::new(),
            };
            vec![
                format!("  +{}", text::elapsed(from.until(moment.from))),
                text::elapsed(moment.from.until(moment.to)),
                bar(from, to, moment.from, moment.to),
                step,
                what(&moment.what),
            ]
        })
        .collect();
    let mut table = output::table(&["  AFTER", "TOOK", "", "STEP", ""], &rows);
    if story.left_out > 0 {
        table.push_str("\n  ");
        table.push_str(&text::count(story.left_out, "moment"));
        table.push_str(" in the middle left out");
    }
    table
}

/// The place of what began and ended then, in all of it.
fn bar(from: Time, to: Time, began: Time, ended: Time) -> String {
    let whole = from.until(to).as_millis().max(1);
    let place = |at: Time| {
        let place = from.until(at).as_millis() * WIDTH as u128 / whole;
        usize::try_from(place).unwrap_or(WIDTH).min(WIDTH - 1)
    };
    let (start, end) = (place(began), place(ended));
    let cell = |at: usize| if (start..=end).contains(&at) { '#' } else { '.' };
    (0..WIDTH).map(cell).collect()
}

fn what(what: &What) -> String {
    match what {
        What::Step { kind, done: true, .. } => format!("{kind}: done"),
        What::Step { kind, error, .. } if error.is_empty() => format!("{kind}: not done"),
        What::Step { kind, error, .. } => format!("{kind}: not done: {}", one_line(error)),
        What::AtWork { kind } => format!("{kind}: at work"),
        What::Lost => "nothing heard any more, until the agent's lease ended".to_owned(),
        What::Wait { blocked_by } if blocked_by.is_empty() => "waited for a lock".to_owned(),
        What::Wait { blocked_by } => {
            let pids: Vec<String> = blocked_by.iter().map(ToString::to_string).collect();
            format!("waited for a lock held by pid {}", pids.join(", "))
        }
        What::Tries {
            tries: 1,
            granted: true,
        } => "got its locks".to_owned(),
        What::Tries { tries, granted: true } => format!("got its locks at the {} try", ordinal(*tries)),
        What::Tries {
            tries,
            granted: false,
        } => {
            format!(
                "did not get its locks ({})",
                text::count(*tries, "try").replace("trys", "tries")
            )
        }
        What::Batches {
            batches,
            rows,
            slowest_ms,
            rested_ms,
            reason,
            pace,
        } => {
            let mut parts = vec![format!(
                "{}, {}",
                text::count(*batches, "batch").replace("batchs", "batches"),
                text::count(*rows, "row")
            )];
            if *batches > 0 {
                let slowest = text::elapsed(Duration::from_millis(*slowest_ms));
                parts.push(format!("slowest {slowest}"));
            }
            if *rested_ms > 0 {
                let rested = text::elapsed(Duration::from_millis(*rested_ms));
                parts.push(format!("rested {rested} ({reason})"));
            }
            format!("{}: {pace}", parts.join(", "))
        }
        What::Verified { rows, differing: 0 } => format!("verified {}", text::count(*rows, "row")),
        What::Verified { rows, differing } => {
            format!("verified {}: {differing} differ", text::count(*rows, "row"))
        }
        What::Vacuum { ended } if ended.is_empty() => "vacuumed between batches".to_owned(),
        What::Vacuum { ended } => format!("a vacuum ended early: {}", one_line(ended)),
        What::Trouble { error } => format!("tried again after: {}", one_line(error)),
    }
}

/// An error of several lines in a table.
fn one_line(error: &str) -> String {
    let lines: Vec<&str> = error.lines().map(str::trim).collect();
    lines.join("; ")
}

fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::rollout::view::StretchKind;

    fn moment(from: u64, to: u64, what: What) -> Moment {
        Moment {
            from: Time(from),
            to: Time(to),
            version: Some("0001".parse().unwrap()),
            step: 1,
            what,
        }
    }

    #[test]
    fn a_story_is_told_as_a_timeline() {
        let mut story = Story::default();
        story.add(moment(
            1_000,
            3_000,
            What::Wait {
                blocked_by: vec![4711],
            },
        ));
        let tries = |tries, granted| What::Tries { tries, granted };
        story.add(moment(3_000, 3_050, tries(1, false)));
        story.add(moment(3_050, 3_060, tries(1, true)));
        let batches = What::Batches {
            batches: 13,
            rows: 60_000,
            slowest_ms: 80,
            rested_ms: 9_100,
            reason: "replica_lag".to_owned(),
            pace: "slowed to 25 %: replica lag 4.2 s, limit 2.0 s".to_owned(),
        };
        story.add(moment(3_060, 13_000, batches));
        let kind = "backfill".to_owned();
        let done = What::Step {
            kind,
            done: true,
            error: String::new(),
        };
        story.add(moment(1_000, 13_000, done));
        let told = lines(&story);
        let told: Vec<&str> = told.lines().collect();
        let batches = "13 batches, 60,000 rows, slowest 80 ms, rested 9.1 s (replica_lag): slowed to 25 %: replica lag 4.2 s, limit 2.0 s";
        assert_eq!(
            told,
            [
                "  AFTER   TOOK                              STEP",
                "  +0 ms   12.0 s  ########################  0001 step 1  backfill: done",
                "  +0 ms   2.0 s   #####...................  0001 step 1  waited for a lock held by pid 4711",
                "  +2.0 s  60 ms   ....#...................  0001 step 1  got its locks at the 2nd try",
                &format!("  +2.1 s  9.9 s   ....####################  0001 step 1  {batches}"),
            ]
        );
    }

    #[test]
    fn what_a_rollout_waited_for_is_told_as_a_timeline() {
        let stretch = |from, to: Option<u64>, kind, text: &str| Stretch {
            from: Time(from),
            to: to.map(Time),
            kind,
            wave: String::new(),
            text: text.to_owned(),
        };
        let timeline = [
            stretch(
                0,
                Some(2_000),
                StretchKind::Wave,
                "wave canary at work: 1 database",
            ),
            stretch(2_000, Some(8_000), StretchKind::Soak, "wave canary soaked"),
            stretch(
                7_000,
                Some(7_000),
                StretchKind::Asked,
                "approve rest asked for by ada",
            ),
            stretch(
                8_000,
                None,
                StretchKind::Approval,
                "wave rest waited\nfor approval",
            ),
        ];
        let told = course(&timeline, Time(12_000)).unwrap();
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(
            told,
            [
                "",
                "the rollout itself, from 1970-01-01T00:00:00Z",
                "  AFTER   TOOK",
                "  +0 ms   2.0 s         #####...................  wave canary at work: 1 database",
                "  +2.0 s  6.0 s         ....#############.......  wave canary soaked",
                "  +7.0 s                ..............#.........  approve rest asked for by ada",
                "  +8.0 s  4.0 s so far  ................########  wave rest waited; for approval",
            ]
        );
        assert_eq!(course(&[], Time(0)), None);
    }

    #[test]
    fn numbers_are_counted_in_words() {
        let words = [1, 2, 3, 4, 11, 12, 13, 21, 102, 113].map(ordinal);
        assert_eq!(
            words,
            [
                "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "113th"
            ]
        );
    }
}
