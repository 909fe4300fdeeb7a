//! `confiture rollout show`.

use super::{Whole, text, view, whole};
use crate::context::Global;
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use shared::rollout::control::Action;
use shared::rollout::view::{Assignment, Rollout, Wave};
use shared::rollout::work::Exit;

/// `confiture rollout show ID`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Show {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    #[command(flatten)]
    at: At,
}

impl Show {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("show rollout {}", self.rollout);
        let Whole {
            rollout, assignments, ..
        } = whole(&mut operator, &doing, self.rollout).await?;
        match global.output {
            Format::Json => output::json(&view::with_databases(&rollout, assignments.iter())),
            Format::Text => output::data(&page(&rollout, &assignments)),
        }
        Ok(Exit::Done)
    }
}

/// Everything about a rollout for people.
fn page(rollout: &Rollout, assignments: &[Assignment]) -> String {
    let versions: Vec<_> = rollout.versions.iter().map(ToString::to_string).collect();
    let mut parts = vec![
        text::standing(rollout),
        format!(
            "  set {} ({}), bundle {}",
            rollout.set,
            versions.join(", "),
            rollout.bundle.short()
        ),
        format!("  for {}", rollout.selector),
        format!("  {}", text::policy(&rollout.policy)),
        format!("  created {} by {}", rollout.created_at, text::by(rollout)),
    ];
    parts.extend(rollout.actions.iter().map(action));
    let several = rollout.waves.len() > 1;
    if several {
        let head = ["WAVE", "DATABASES", "DONE", "FAILED", "LEFT OUT", "ABORTED", ""];
        let rows: Vec<_> = rollout.waves.iter().map(wave).collect();
        parts.push(String::new());
        parts.push(output::table(&head, &rows));
    }
    if !assignments.is_empty() {
        let head = ["DATABASE", "WAVE", "STATE", "AGENT", "ATTEMPT", ""];
        let columns = |mut row: Vec<String>| {
            if !several {
                row.remove(1);
            }
            row
        };
        let head = columns(head.map(ToOwned::to_owned).to_vec());
        let head: Vec<_> = head.iter().map(String::as_str).collect();
        let rows: Vec<_> = assignments.iter().map(row).map(columns).collect();
        parts.push(String::new());
        parts.push(output::table(&head, &rows));
    }
    let errors = text::errors(assignments.iter());
    if !errors.is_empty() {
        parts.push(String::new());
        parts.push(errors);
    }
    parts.join("\n")
}

/// `  paused 2026-11-23T05:00:00Z by ada@host: lunch`
fn action(of: &Action) -> String {
    format!("  {} {}{}", of.verb, of.at, of.author())
}

fn wave(of: &Wave) -> Vec<String> {
    let counts = &of.databases;
    let standing = match (of.begun, counts.waiting + counts.running) {
        (true, 0) => "over".to_owned(),
        (true, _) => "begun".to_owned(),
        (false, _) if of.blocked.is_empty() => "not begun".to_owned(),
        (false, _) => of.blocked.clone(),
    };
    vec![
        of.name.clone(),
        counts.total.to_string(),
        counts.done.to_string(),
        counts.failed.to_string(),
        counts.skipped.to_string(),
        counts.aborted.to_string(),
        standing,
    ]
}

fn row(of: &Assignment) -> Vec<String> {
    vec![
        of.database.to_string(),
        of.wave.clone(),
        of.state.as_str().to_owned(),
        of.agent.as_ref().map_or("-".to_owned(), ToString::to_string),
        if of.attempt == 0 {
            "-".to_owned()
        } else {
            of.attempt.to_string()
        },
        text::detail(of),
    ]
}
