//! `confiture index`: the indexes of one database, for those who operate it.

use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::target;
use agent::database::Database;
use agent::indexes::{self, Build};
use clap::Subcommand;
use serde_json::{Value, json};
use shared::index::{Broken, Repair};
use shared::rollout::work::Exit;

/// `confiture index progress|repair`
#[derive(Debug, Subcommand)]
pub(crate) enum Index {
    /// Show the builds of indexes that are at work now, how far they are and whom they wait for
    Progress(Of),
    /// List indexes that are not valid; with --yes drop and rebuild them
    Repair(RepairThem),
}

/// Which database.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    #[command(flatten)]
    database: target::Of,
}

/// `confiture index repair`
#[derive(Debug, clap::Args)]
pub(crate) struct RepairThem {
    #[command(flatten)]
    of: Of,
    /// Do it; without this nothing is changed
    #[arg(long)]
    yes: bool,
}

impl Index {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        crate::telemetry::log(global)?;
        match self {
            Self::Progress(of) => progress(&of.open(global)?, global.output).await,
            Self::Repair(repair) => repair.run(global).await,
        }
    }
}

impl Of {
    fn open(&self, global: &Global) -> Result<Database, Failure> {
        self.database.open(&context::settings(global, Vec::new())?)
    }
}

async fn progress(database: &Database, format: Format) -> Result<Exit, Failure> {
    let builds = indexes::builds(database).await?;
    match format {
        Format::Json => output::json(&json!({
            "database": database.name(),
            "builds": builds.iter().map(build_json).collect::<Vec<_>>(),
        })),
        Format::Text if builds.is_empty() => {
            output::data(&format!("{}: no index is being built", database.name()));
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = builds.iter().map(build_row).collect();
            output::data(&output::table(
                &["PID", "BY", "TABLE", "INDEX", "FOR", "PROGRESS"],
                &rows,
            ));
        }
    }
    Ok(Exit::Done)
}

fn build_row(build: &Build) -> Vec<String> {
    let by = match (build.ours, &build.user) {
        (true, _) => "confiture".to_owned(),
        (false, user) => user.clone().unwrap_or_default(),
    };
    vec![
        build.pid.to_string(),
        by,
        build.table.clone().unwrap_or_default(),
        build.index.clone().unwrap_or_default(),
        format!("{:.0} s", build.seconds),
        build.progress.to_string(),
    ]
}

fn build_json(build: &Build) -> Value {
    let progress = &build.progress;
    json!({
        "pid": build.pid,
        "user": build.user,
        "application": build.application,
        "ours": build.ours,
        "command": build.command,
        "table": build.table,
        "index": build.index,
        "seconds": build.seconds,
        "phase": progress.phase,
        "blocks_done": progress.blocks.0,
        "blocks_total": progress.blocks.1,
        "tuples_done": progress.tuples.0,
        "tuples_total": progress.tuples.1,
        "percent": progress.percent(),
        "waits": progress.waits,
        "waits_for": progress.blocker.as_ref().map(|blocker| json!({
            "pid": blocker.pid,
            "user": blocker.user,
            "application": blocker.application,
            "state": blocker.state,
            "transaction_seconds": blocker.age,
            "query": blocker.query,
        })),
    })
}

impl RepairThem {
    async fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let database = self.of.open(global)?;
        let broken = indexes::broken(&database).await?;
        let stop = runtime::shutdown::token()?;
        let (mut told, mut failed) = (Vec::new(), 0);
        for index in &broken {
            if stop.is_cancelled() {
                break;
            }
            let done = if self.yes {
                Some(indexes::repair(&database, index, &stop).await)
            } else {
                None
            };
            let (word, problem) = match done {
                None => (would(index), None),
                Some(Ok(_)) => (did(index), None),
                Some(Err(error)) => {
                    failed += 1;
                    ("failed".to_owned(), Some(error.to_string()))
                }
            };
            if global.output == Format::Text {
                output::data(&format!("{} on {}: {word}", index.full_name, index.table));
                if let Some(problem) = &problem {
                    output::note(&format!("{}: {problem}", index.full_name));
                }
            }
            told.push(json!({
                "index": index.full_name,
                "table": index.table,
                "definition": index.definition,
                "ours": index.is_ours(),
                "action": word,
                "error": problem,
            }));
        }
        match global.output {
            Format::Json => output::json(&json!({
                "database": database.name(),
                "changed": self.yes,
                "indexes": told,
            })),
            Format::Text if broken.is_empty() => {
                output::data(&format!("{}: all indexes are valid", database.name()));
            }
            Format::Text if !self.yes => output::note("nothing was changed: --yes does it"),
            Format::Text => {}
        }
        if stop.is_cancelled() {
            return Ok(Exit::Stopped);
        }
        if failed > 0 {
            return Err(Failure::failed(format!(
                "{failed} of {} indexes could not be repaired",
                broken.len()
            )));
        }
        Ok(Exit::Done)
    }
}

fn would(index: &Broken) -> String {
    match index.repair() {
        Repair::Drop { what } => format!("would be dropped: {what}"),
        Repair::Rebuild => "not valid, would be dropped and rebuilt by REINDEX INDEX CONCURRENTLY".to_owned(),
        Repair::Leave { why } => format!("stays: {why}"),
    }
}

fn did(index: &Broken) -> String {
    match index.repair() {
        Repair::Drop { what } => format!("dropped: {what}"),
        Repair::Rebuild => "rebuilt".to_owned(),
        Repair::Leave { why } => format!("stays: {why}"),
    }
}
