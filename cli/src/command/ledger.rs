//! `confiture ledger`: what is remembered inside one database.

use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::target;
use agent::audit::{self, Acceptance, Accepted, Shown, Verified};
use agent::database::Database;
use clap::Subcommand;
use serde_json::{Value, json};
use shared::id::Holder;
use shared::ledger::{FenceRow, HolderRow};
use shared::rollout::work::{Exit, Identity};
use shared::settings::duration;
use std::time::Duration;

/// `confiture ledger show|verify|accept`
#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Show the fence, who holds the database, where it is, its sets, and what verified steps found
    Show(Of),
    /// Look for places where the ledger contradicts itself
    Verify(Of),
    /// Accept that this database is a copy that is to be migrated on its own, or an upgraded cluster
    Accept(Accept),
}

/// Which database.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    #[command(flatten)]
    database: target::Of,
}

/// `confiture ledger accept`
#[derive(Debug, clap::Args)]
pub(crate) struct Accept {
    #[command(flatten)]
    of: Of,
    /// Why; kept in the ledger
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long to wait for a holder that seems to live: seconds, or with a unit
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = seconds)]
    wait: Duration,
}

fn seconds(text: &str) -> Result<Duration, duration::Error> {
    duration::parse(text, Duration::from_secs(1))
}

impl Ledger {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        crate::telemetry::log(global)?;
        match self {
            Self::Show(of) => show(&of.open(global)?, global.output).await,
            Self::Verify(of) => verify(&of.open(global)?, global.output).await,
            Self::Accept(accept) => accept.run(global).await,
        }
    }
}

impl Of {
    fn open(&self, global: &Global) -> Result<Database, Failure> {
        self.database.open(&context::settings(global, Vec::new())?)
    }
}

async fn show(database: &Database, format: Format) -> Result<Exit, Failure> {
    let shown = audit::show(database).await?;
    match (format, &shown) {
        (Format::Json, _) => output::json(&json!({
            "database": database.name(),
            "ledger": shown.as_ref().map(shown_json),
        })),
        (Format::Text, None) => output::data(&format!("{}: no ledger yet", database.name())),
        (Format::Text, Some(shown)) => output::data(&shown_text(database, shown)),
    }
    Ok(Exit::Done)
}

fn shown_text(database: &Database, shown: &Shown) -> String {
    let ledger = &shown.ledger;
    let mut lines = vec![
        format!("database {}", database.name()),
        format!("format:   {}", ledger.ledger.format),
        format!("is:       {}", ledger.identity()),
    ];
    match &ledger.fence {
        None => lines.push("fence:    none yet".to_owned()),
        Some(fence) => {
            if fence.identity() != ledger.identity() {
                lines.push(format!(
                    "was:      {} (a clone, a restored copy or an upgraded cluster: see `confiture ledger accept`)",
                    fence.identity()
                ));
            }
            let held = fence.held();
            let of = match (&fence.database_name, held.store) {
                (Some(name), Some(store)) => format!(", known to the fleet of store {store} as {name}"),
                _ => String::new(),
            };
            lines.push(format!("fence:    {}{of}", held.fence));
        }
    }
    lines.push(match &ledger.holder {
        Some(holder) if holder.is_alive() => format!("at work:  {}", holder.description),
        Some(holder) => format!("last:     {}", holder.description),
        None => "at work:  nobody yet".to_owned(),
    });
    let rows: Vec<Vec<String>> = (shown.sets.iter())
        .map(|set| {
            vec![
                set.name.clone(),
                set.applied.to_string(),
                set.half_done.to_string(),
                set.newest.clone().unwrap_or_default(),
            ]
        })
        .collect();
    lines.push(output::table(&["SET", "APPLIED", "HALF DONE", "NEWEST"], &rows));
    if !shown.verified.is_empty() {
        let rows: Vec<Vec<String>> = shown.verified.iter().map(verified_row).collect();
        lines.push(output::table(&VERIFIED, &rows));
    }
    lines.extend((shown.accepted.iter()).map(|accepted| {
        format!(
            "accepted {} by {}: {}; it was {}",
            accepted.at, accepted.by, accepted.reason, accepted.before
        )
    }));
    lines.join("\n")
}

/// The head of [`verified_row`].
const VERIFIED: [&str; 10] = [
    "VERIFIED",
    "RUN",
    "STEP",
    "DOES",
    "IS",
    "ROWS",
    "DIFFERING",
    "REMAINING",
    "RANGES",
    "DIGEST",
];

fn verified_row(verified: &Verified) -> Vec<String> {
    let found = &verified.evidence;
    vec![
        format!("{} {}", verified.set, verified.version),
        format!("{} {}", verified.direction, verified.run),
        verified.step.to_string(),
        verified.title.clone(),
        if verified.done { "done" } else { "begun" }.to_owned(),
        found.rows.to_string(),
        found.differing.to_string(),
        found.remaining.to_string(),
        found.ranges.to_string(),
        format!("{:016x}", found.digest),
    ]
}

fn shown_json(shown: &Shown) -> Value {
    let ledger = &shown.ledger;
    json!({
        "format": ledger.ledger.format,
        "identity": identity_json(ledger.identity()),
        "fence": ledger.fence.as_ref().map(fence_json),
        "holder": ledger.holder.as_ref().map(holder_json),
        "sets": shown.sets.iter().map(|set| json!({
            "set": set.name,
            "applied": set.applied,
            "half_done": set.half_done,
            "newest": set.newest,
        })).collect::<Vec<_>>(),
        "verified": shown.verified.iter().map(verified_json).collect::<Vec<_>>(),
        "accepted": shown.accepted.iter().map(accepted_json).collect::<Vec<_>>(),
    })
}

fn identity_json(identity: Identity) -> Value {
    // As text: JavaScript's numbers do not hold a system identifier.
    json!({ "system_identifier": identity.system.to_string(), "database_oid": identity.database })
}

fn fence_json(fence: &FenceRow) -> Value {
    let held = fence.held();
    json!({
        "fence": held.fence.to_string(),
        "store": held.store.map(|store| store.to_string()),
        "database_name": fence.database_name,
        "identity": identity_json(fence.identity()),
    })
}

fn holder_json(holder: &HolderRow) -> Value {
    json!({ "description": holder.description, "alive": holder.is_alive() })
}

fn verified_json(verified: &Verified) -> Value {
    json!({
        "set": verified.set,
        "version": verified.version,
        "direction": verified.direction,
        "run": verified.run,
        "step": verified.step,
        "title": verified.title,
        "done": verified.done,
        "evidence": verified.evidence,
    })
}

fn accepted_json(accepted: &Accepted) -> Value {
    json!({
        "at": accepted.at,
        "by": accepted.by,
        "reason": accepted.reason,
        "before": identity_json(accepted.before),
        "after": identity_json(accepted.after),
    })
}

async fn verify(database: &Database, format: Format) -> Result<Exit, Failure> {
    let findings = audit::verify(database).await?;
    let name = database.name();
    match (format, &findings) {
        (Format::Json, _) => output::json(&json!({
            "database": name,
            "ledger": findings.is_some(),
            "findings": findings.iter().flatten().map(|finding| json!({
                "invariant": finding.number,
                "sentence": finding.sentence,
                "place": finding.place,
            })).collect::<Vec<_>>(),
        })),
        (Format::Text, None) => output::data(&format!("{name}: no ledger yet")),
        (Format::Text, Some(findings)) if findings.is_empty() => {
            output::data(&format!("{name}: the ledger is as it must be"));
        }
        (Format::Text, Some(findings)) => {
            for finding in findings {
                output::data(&format!(
                    "{name}: {} (rule {}: {})",
                    finding.place, finding.number, finding.sentence
                ));
            }
        }
    }
    if findings.is_some_and(|findings| !findings.is_empty()) {
        return Err(Failure::failed(format!(
            "the ledger of {name} contradicts itself\n  help: somebody edited the schema confiture by hand; nothing was changed now; compare it with the schema itself before the next migration"
        )));
    }
    Ok(Exit::Done)
}

impl Accept {
    async fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let reason = self.reason.trim();
        if reason.is_empty() {
            return Err(Failure::usage(
                "--reason is empty\n  help: say why this copy is to be migrated on its own",
            ));
        }
        let database = self.of.open(global)?;
        let by = context::who("confiture ledger accept");
        let holder = Holder(uuid::Uuid::new_v4());
        let accepted = audit::accept(&database, reason, &by, holder, self.wait).await?;
        let (before, text) = match accepted {
            Acceptance::Accepted(before) => (
                Some(before),
                format!("{}: accepted; it was {before}", database.name()),
            ),
            Acceptance::Same => (
                None,
                format!(
                    "{}: nothing to accept: the ledger was written here",
                    database.name()
                ),
            ),
            Acceptance::NoLedger => (
                None,
                format!("{}: nothing to accept: no ledger yet", database.name()),
            ),
        };
        match global.output {
            Format::Json => output::json(&json!({
                "database": database.name(),
                "accepted": before.is_some(),
                "before": before.map(identity_json),
            })),
            Format::Text => output::data(&text),
        }
        Ok(Exit::Done)
    }
}
