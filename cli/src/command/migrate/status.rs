//! `migrate status`: each version and its state.

use super::Of;
use super::target::Target;
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output::{self, Format};
use agent::audit::{self, ShownSet};
use agent::local::{self, LiveSync};
use serde_json::json;
use shared::ledger::{Goal, Ledger, Line, Order, next};
use shared::rollout::work::Exit;

/// `confiture migrate status`
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    of: Of,
}

impl Status {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        crate::telemetry::log(global)?;
        let settings = context::settings(global, Vec::new())?;
        let target = Target::of(&self.of, &settings)?;
        let ledger = local::read(&target.database, &target.set).await?;
        let shown = audit::show(&target.database).await?;
        let sets = shown.map(|shown| shown.sets).unwrap_or_default();
        let others: Vec<&ShownSet> = (sets.iter())
            .filter(|set| set.name != target.set.name.as_str())
            .collect();
        let lines = shared::ledger::status(&target.set, &ledger);
        let syncs = local::live_syncs(&target.database).await?;
        let (next, problem) = advice(&self.of, &target, &ledger, &lines);
        match global.output {
            Format::Json => output::json(&json!({
                "database": target.database.name(),
                "set": target.set.name,
                "migrations": lines.iter().map(line_json).collect::<Vec<_>>(),
                "holder": ledger.holder.as_ref().filter(|holder| holder.is_alive()).map(|holder| &holder.description),
                "other_sets": others.iter().map(|set| &set.name).collect::<Vec<_>>(),
                "kept_right_by_trigger": syncs.iter().map(|sync| json!({
                    "relation": sync.relation,
                    "columns": sync.columns,
                    "until": until(sync),
                    "changed_column": sync.retyped,
                })).collect::<Vec<_>>(),
                "next_command": next,
                "problem": problem,
            })),
            Format::Text => {
                let rows: Vec<Vec<String>> = lines.iter().map(line_text).collect();
                output::data(&format!(
                    "database {}, set {}",
                    target.database.name(),
                    target.set.name
                ));
                output::data(&output::table(
                    &["VERSION", "NAME", "STATE", "STEPS", "ROWS", "BEGAN", "TOOK", "BY"],
                    &rows,
                ));
                if let Some(holder) = ledger.holder.filter(shared::ledger::HolderRow::is_alive) {
                    output::data(&format!("at work: {}", holder.description));
                }
                if !others.is_empty() {
                    let others: Vec<String> = others.into_iter().map(other).collect();
                    output::data(&format!("other sets here: {}", others.join(", ")));
                }
                for sync in syncs {
                    output::data(&format!(
                        "kept right by a trigger: {} of {}, until a `{}` step",
                        sync.columns.join(", "),
                        sync.relation,
                        until(&sync)
                    ));
                }
                if let Some(problem) = problem {
                    output::data(&format!("problem: {problem}"));
                }
                if let Some(next) = next {
                    output::data(&format!("next: {next}"));
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// The command that leads on, and what stands in its way.
fn advice(of: &Of, target: &Target, ledger: &Ledger, lines: &[Line]) -> (Option<String>, Option<String>) {
    let command = |verb: &str| Some(format!("confiture migrate {verb}{}", of.repeated()));
    if lines.iter().any(|line| line.state == "undoing") {
        return (command("down"), None);
    }
    match next(
        &target.set,
        ledger,
        &Goal::Up {
            target: None,
            order: Order::Strict,
        },
    ) {
        Ok(work) if work.todos.is_empty() => (None, None),
        Ok(_) => (command("up"), None),
        Err(conflict) => (None, Some(conflict.to_string())),
    }
}

/// The step that ends a trigger.
fn until(sync: &LiveSync) -> &'static str {
    match sync.retyped {
        None => "drop_sync",
        Some(_) => "contract",
    }
}

fn other(set: &ShownSet) -> String {
    let half_done = match set.half_done {
        0 => String::new(),
        count => format!(", {count} half done"),
    };
    format!("{} ({} applied{half_done})", set.name, set.applied)
}

fn line_text(line: &Line) -> Vec<String> {
    let file = match (line.has_file, line.down_edited) {
        (false, _) => " (no file)",
        (true, true) => " (down changed since)",
        (true, false) => "",
    };
    vec![
        line.version.to_string(),
        line.name.clone(),
        format!("{}{file}", line.state),
        format!("{} of {}", line.steps_done, line.steps),
        if line.rows == 0 {
            String::new()
        } else {
            line.rows.to_string()
        },
        line.began_at.clone().unwrap_or_default(),
        line.seconds
            .map_or_else(String::new, |seconds| format!("{seconds:.1} s")),
        line.by.clone().unwrap_or_default(),
    ]
}

fn line_json(line: &Line) -> serde_json::Value {
    json!({
        "version": line.version,
        "name": line.name,
        "state": line.state,
        "steps_done": line.steps_done,
        "steps": line.steps,
        "changed_rows": line.rows,
        "by": line.by,
        "rollout": line.rollout,
        "began_at": line.began_at,
        "ended_at": line.ended_at,
        "elapsed_seconds": line.seconds,
        "has_file": line.has_file,
        "down_edited": line.down_edited,
    })
}
