//! `confiture rollout report`: what a rollout did and cost, to be kept.

use super::{Whole, text, view, whole};
use crate::context::Global;
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use shared::rollout::view::{Assignment, AssignmentState, Rollout};
use shared::rollout::work::{Cost, Exit, Summary};
use std::time::Duration;

/// `confiture rollout report ID`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Report {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    /// Form of the report [default: text, or json with `--output json`]
    #[arg(long, value_enum, value_name = "FORM")]
    format: Option<Form>,
    #[command(flatten)]
    at: At,
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Text,
    Json,
    Markdown,
}

/// How many databases are named as the slowest.
const SLOWEST: usize = 5;

impl Report {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let form = self.format.unwrap_or(match global.output {
            Format::Text => Form::Text,
            Format::Json => Form::Json,
        });
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("report on rollout {}", self.rollout);
        let Whole {
            rollout,
            mut assignments,
            ..
        } = whole(&mut operator, &doing, self.rollout).await?;
        let place = |wave: &str| rollout.waves.iter().position(|of| of.name == wave);
        assignments.sort_by_cached_key(|of| (place(&of.wave), of.database.clone()));
        match form {
            Form::Json => {
                let mut value = view::with_databases(&rollout, assignments.iter());
                view::add_summary(&mut value["totals"], &total(&assignments));
                output::json(&value);
            }
            Form::Text => output::data(&page(&rollout, &assignments).text()),
            Form::Markdown => output::data(&page(&rollout, &assignments).markdown()),
        }
        Ok(Exit::Done)
    }
}

/// What all of them did and cost together.
fn total(assignments: &[Assignment]) -> Summary {
    let mut total = Summary::default();
    for of in assignments {
        total.migrations += of.summary.migrations;
        total.steps += of.summary.steps;
        total.rows += of.summary.rows;
        total.worked_ms += of.summary.worked_ms;
        total.cost += of.summary.cost;
    }
    total
}

/// How long agents worked on a database, in all attempts that have ended.
fn duration(of: &Assignment) -> Option<Duration> {
    match of.summary.worked_ms {
        // Nothing was begun, or by a coordinator that did not count yet.
        0 => Some(of.started_at?.until(of.ended_at?)),
        worked => Some(Duration::from_millis(worked)),
    }
}

/// A report in parts, for any form.
struct Page {
    title: String,
    facts: Vec<String>,
    tables: Vec<Table>,
    /// Each under its name.
    errors: Vec<(String, String)>,
}

struct Table {
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn page(rollout: &Rollout, assignments: &[Assignment]) -> Page {
    let versions: Vec<_> = rollout.versions.iter().map(ToString::to_string).collect();
    let ended = rollout
        .ended_at
        .map_or("it has not ended".to_owned(), |ended| format!("ended {ended}"));
    let total = total(assignments);
    let mut facts = vec![
        format!("set {} ({})", rollout.set, versions.join(", ")),
        format!("for {}", rollout.selector),
        text::policy(&rollout.policy),
        format!("created {} by {}, {ended}", rollout.created_at, text::by(rollout)),
        format!("done: {}{}", text::summary(&total), spent(&total.cost)),
    ];
    let mut timed: Vec<_> = assignments
        .iter()
        .filter_map(|of| Some((duration(of)?, &of.database)))
        .collect();
    timed.sort_by(|one, other| other.cmp(one));
    let slowest = timed.iter().take(SLOWEST);
    let slowest: Vec<_> = slowest
        .map(|(took, name)| format!("{name} ({})", text::elapsed(*took)))
        .collect();
    if timed.len() > 1 {
        facts.push(format!("slowest: {}", slowest.join(", ")));
    }
    let mut tables = Vec::new();
    if !rollout.actions.is_empty() {
        let rows = rollout.actions.iter().map(|of| {
            vec![
                of.at.to_string(),
                of.verb.to_string(),
                of.by.clone(),
                of.reason.clone(),
            ]
        });
        tables.push(Table {
            title: "Actions",
            head: vec!["WHEN", "WHAT", "WHO", "WHY"],
            rows: rows.collect(),
        });
    }
    let several = rollout.waves.len() > 1;
    if several {
        let rows = rollout.waves.iter().map(|wave| {
            let counts = &wave.databases;
            let numbers = [
                counts.total,
                counts.done,
                counts.failed,
                counts.skipped,
                counts.aborted,
            ];
            let numbers = numbers.iter().map(ToString::to_string);
            std::iter::once(wave.name.clone()).chain(numbers).collect()
        });
        tables.push(Table {
            title: "Waves",
            head: vec!["WAVE", "DATABASES", "DONE", "FAILED", "LEFT OUT", "ABORTED"],
            rows: rows.collect(),
        });
    }
    let mut head = vec![
        "DATABASE",
        "WAVE",
        "STATE",
        "AGENT",
        "ATTEMPTS",
        "TOOK",
        "ROWS",
        "LOCK WAIT",
        "STALL",
        "RETRIES",
        "VERIFIED",
    ];
    let mut rows: Vec<_> = assignments.iter().map(row).collect();
    if !several {
        head.remove(1);
        for row in &mut rows {
            row.remove(1);
        }
    }
    tables.push(Table {
        title: "Databases",
        head,
        rows,
    });
    let failed = assignments
        .iter()
        .filter(|of| of.state == AssignmentState::Failed);
    Page {
        title: text::standing(rollout),
        facts,
        tables,
        errors: failed
            .map(|of| (of.database.to_string(), of.error.clone()))
            .collect(),
    }
}

fn row(of: &Assignment) -> Vec<String> {
    let cost = &of.summary.cost;
    let ms = |ms: u64| text::elapsed(Duration::from_millis(ms));
    let verified = match (cost.verified_rows, cost.differing_rows) {
        (0, 0) => "-".to_owned(),
        (rows, 0) => text::count(rows, "row"),
        (rows, differing) => format!(
            "{}, {} differ",
            text::count(rows, "row"),
            text::grouped(differing)
        ),
    };
    vec![
        of.database.to_string(),
        of.wave.clone(),
        of.state.as_str().to_owned(),
        of.agent.as_ref().map_or("-".to_owned(), ToString::to_string),
        of.attempt.to_string(),
        duration(of).map_or("-".to_owned(), text::elapsed),
        text::grouped(of.summary.rows),
        ms(cost.lock_wait_ms),
        ms(cost.stall_ms),
        cost.retries.to_string(),
        verified,
    ]
}

/// To be added to a summary: `, 20 batches, 1 tried again, 40 ms of waiting for locks, ..`.
fn spent(cost: &Cost) -> String {
    let mut parts = Vec::new();
    if cost.batches > 0 {
        let noun = if cost.batches == 1 { "batch" } else { "batches" };
        parts.push(format!("{} {noun}", text::grouped(cost.batches)));
    }
    if cost.retries > 0 {
        parts.push(format!("{} tried again", text::grouped(cost.retries)));
    }
    let ms = |ms| text::elapsed(Duration::from_millis(ms));
    parts.push(format!("{} of waiting for locks", ms(cost.lock_wait_ms)));
    parts.push(format!("{} of others waiting behind", ms(cost.stall_ms)));
    format!(", {}", parts.join(", "))
}

impl Page {
    fn text(&self) -> String {
        let mut parts = vec![self.title.clone()];
        parts.extend(self.facts.iter().map(|fact| format!("  {fact}")));
        for table in &self.tables {
            parts.push(String::new());
            parts.push(output::table(&table.head, &table.rows));
        }
        for (name, error) in &self.errors {
            parts.push(String::new());
            parts.push(format!("{name}:\n{}", text::indented(error)));
        }
        parts.join("\n")
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let mut parts = vec![format!("# {}", inline(&self.title)), String::new()];
        parts.extend(self.facts.iter().map(|fact| format!("- {}", inline(fact))));
        for table in &self.tables {
            parts.push(format!("\n## {}\n", table.title));
            let head: Vec<_> = table.head.iter().map(|cell| (*cell).to_owned()).collect();
            parts.push(line(&head));
            parts.push(line(&vec!["---".to_owned(); head.len()]));
            for row in &table.rows {
                let cells: Vec<_> = row.iter().map(|cell| inline(cell)).collect();
                parts.push(line(&cells));
            }
        }
        for (name, error) in &self.errors {
            parts.push(format!(
                "\n## {}\n\n{}",
                inline(name),
                text::indented(&text::indented(error))
            ));
        }
        parts.join("\n")
    }
}

/// A text that Markdown takes as it is, in one line.
fn inline(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push(' '),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' => {
                plain.push('\\');
                plain.push(c);
            }
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Page {
        Page {
            title: "rollout a_b done".to_owned(),
            facts: vec!["set default".to_owned()],
            tables: vec![Table {
                title: "Databases",
                head: vec!["DATABASE", "STATE"],
                rows: vec![vec!["or|ders".to_owned(), "done".to_owned()]],
            }],
            errors: vec![("or|ders".to_owned(), "it broke\n  there".to_owned())],
        }
    }

    #[test]
    fn what_stands_in_a_cell_cannot_end_it() {
        let text = table().markdown();
        assert!(text.contains("| or\\|ders | done |"), "{text}");
        assert!(
            text.starts_with("# rollout a\\_b done\n\n- set default\n"),
            "{text}"
        );
        assert!(text.contains("\n    it broke\n      there"), "{text}");
    }

    #[test]
    fn a_cost_says_what_was_spent() {
        let cost = Cost {
            batches: 2,
            lock_wait_ms: 1_500,
            ..Cost::default()
        };
        assert_eq!(
            spent(&cost),
            ", 2 batches, 1.5 s of waiting for locks, 0 ms of others waiting behind"
        );
    }
}
