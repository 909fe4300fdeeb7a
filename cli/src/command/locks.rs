//! `confiture locks`: who waits for a lock in one database, and who blocks whom.

use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::target;
use agent::database::Database;
use serde_json::{Value, json};
use shared::lock::{Blocker, Jam, Waiting};
use shared::rollout::work::Exit;
use std::time::Duration;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How much of a statement stands in the table; the tree has more.
const QUERY: usize = 60;

/// `confiture locks`
#[derive(Debug, clap::Args)]
pub(crate) struct Locks {
    #[command(flatten)]
    database: target::Of,
    /// Look again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Locks {
    pub(crate) async fn run(&self, global: &Global) -> Result<Exit, Failure> {
        crate::telemetry::log(global)?;
        let database = self.database.open(&context::settings(global, Vec::new())?)?;
        if !self.watch {
            show(&database, global.output).await?;
            return Ok(Exit::Done);
        }
        let stop = tokio::signal::ctrl_c();
        let watching = async {
            loop {
                show(&database, global.output).await?;
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            failed = watching => failed,
            _ = stop => Ok(Exit::Done),
        }
    }
}

async fn show(database: &Database, format: Format) -> Result<(), Failure> {
    let jam = agent::locks::jam(database).await?;
    match format {
        Format::Json => output::json(&json!({
            "database": database.name(),
            "waiting": jam.waiting.iter().map(waiting).collect::<Vec<_>>(),
            "blockers": jam.holders.iter().map(blocker).collect::<Vec<_>>(),
        })),
        Format::Text => output::data(&text(database, &jam)),
    }
    Ok(())
}

fn text(database: &Database, jam: &Jam) -> String {
    if jam.waiting.is_empty() {
        return format!("{}: nobody waits for a lock", database.name());
    }
    let rows: Vec<Vec<String>> = jam.waiting.iter().map(row).collect();
    let head = ["PID", "USER", "LOCK", "MODE", "OBJECT", "WAITED", "QUERY"];
    format!(
        "{}\n\nwho blocks whom:\n{}",
        output::table(&head, &rows),
        jam.tree()
    )
}

fn row(waiting: &Waiting) -> Vec<String> {
    let query = waiting.query.as_deref().unwrap_or_default();
    let query: String = query.split_whitespace().collect::<Vec<_>>().join(" ");
    vec![
        waiting.pid.to_string(),
        waiting.user.clone().unwrap_or_default(),
        waiting.lock_type.clone(),
        waiting.mode.clone(),
        waiting.object.clone(),
        format!("{:.1} s", waiting.waited.unwrap_or_default()),
        query.chars().take(QUERY).collect(),
    ]
}

fn waiting(waiting: &Waiting) -> Value {
    json!({
        "pid": waiting.pid,
        "user": waiting.user,
        "application": waiting.application,
        "lock_type": waiting.lock_type,
        "mode": waiting.mode,
        "object": waiting.object,
        "waited_s": waiting.waited,
        "transaction_s": waiting.age,
        "query": waiting.query,
        "blocked_by": waiting.blocked_by,
    })
}

fn blocker(blocker: &Blocker) -> Value {
    json!({
        "pid": blocker.pid,
        "user": blocker.user,
        "application": blocker.application,
        "state": blocker.state,
        "transaction_s": blocker.age,
        "query": blocker.query,
    })
}
