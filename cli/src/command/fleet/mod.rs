//! `confiture fleet`: what the coordinators know of databases and agents.

mod forget;
mod status;
mod surveyed;

use crate::context::Global;
use crate::failure::{Failure, chain};
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use clap::Subcommand;
use proto::{convert, v1};
use serde_json::{Value, json};
use shared::rollout::drain::{Drain, Running};
use shared::rollout::view::{Agent, Database};
use shared::rollout::work::Exit;

/// `confiture fleet databases|agents|forget|status`
#[derive(Debug, Subcommand)]
pub(crate) enum Fleet {
    /// List all databases that agents serve or have served
    #[command(
        after_long_help = "JSON (--output json), a list of: name, labels{}, agents[], system_identifier (text: it exceeds what many JSON readers hold), \
        database_oid, rollout, problem. What is not known is null.\n\n\
        With --forgotten, a list of: name, by, reason, at_unix_ms."
    )]
    Databases(Databases),
    /// List all agents
    #[command(
        after_long_help = "JSON (--output json), a list of: id, version, connected, connected_at_unix_ms, \
        databases[], running[], drained {by, reason, at_unix_ms, now}, note. What is not known, or not so, is null."
    )]
    Agents(At),
    /// Take a database that is gone out of the inventory
    Forget(forget::Forget),
    /// Ask every database which versions it has and which shape, and name what differs
    Status(status::Status),
}

/// `confiture fleet databases`
#[derive(Debug, clap::Args)]
pub(crate) struct Databases {
    /// Those that were taken out of the inventory, by whom and why, instead
    #[arg(long)]
    forgotten: bool,
    #[command(flatten)]
    at: At,
}

impl Fleet {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Databases(databases) => databases.run(global).await,
            Self::Agents(at) => agents(&at, global).await,
            Self::Forget(forget) => forget.run(global).await,
            Self::Status(status) => status.run(global).await,
        }
    }
}

impl Databases {
    async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let answer = Operator::new(&self.at, global)?
            .ask("list the databases", async |mut client| {
                client.list_databases(v1::ListDatabasesRequest {}).await
            })
            .await?;
        if self.forgotten {
            let forgotten = read(answer.forgotten, convert::fleet::forgotten_from_wire)?;
            print(
                global.output,
                &forgotten,
                |(name, of)| forget::json_of(name, of),
                &["DATABASE", "SINCE", "BY", "REASON"],
                |(name, of)| {
                    vec![
                        name.to_string(),
                        of.at.to_string(),
                        of.by.clone(),
                        of.reason.clone(),
                    ]
                },
                "no database was forgotten",
            );
            return Ok(Exit::Done);
        }
        let databases = read(answer.databases, convert::view::database_from_wire)?;
        print(
            global.output,
            &databases,
            database_json,
            &["DATABASE", "LABELS", "AGENTS", "ROLLOUT", "PROBLEM"],
            |of| {
                let labels: Vec<_> = of
                    .labels
                    .iter()
                    .map(|(label, value)| format!("{label}={value}"))
                    .collect();
                vec![
                    of.name.to_string(),
                    or_dash(labels.join(",")),
                    or_dash(joined(&of.agents)),
                    or_dash(of.rollout.as_ref().map(ToString::to_string).unwrap_or_default()),
                    of.problem.lines().next().unwrap_or_default().to_owned(),
                ]
            },
            "no agent has offered a database yet",
        );
        Ok(Exit::Done)
    }
}

async fn agents(at: &At, global: &Global) -> Result<Exit, Failure> {
    let answer = Operator::new(at, global)?
        .ask("list the agents", async |mut client| {
            client.list_agents(v1::ListAgentsRequest {}).await
        })
        .await?;
    let agents = read(answer.agents, convert::view::agent_from_wire)?;
    print(
        global.output,
        &agents,
        agent_json,
        &["AGENT", "VERSION", "CONNECTED", "DATABASES", "RUNNING", "NOTE"],
        |of| {
            vec![
                of.id.to_string(),
                or_dash(of.version.clone()),
                of.connected_at
                    .map_or("no".to_owned(), |at| format!("since {at}")),
                or_dash(joined(&of.databases)),
                or_dash(joined(&of.running)),
                note(of),
            ]
        },
        "no agent has connected yet",
    );
    Ok(Exit::Done)
}

fn read<W, T>(wire: Vec<W>, from_wire: impl Fn(W) -> Result<T, convert::Error>) -> Result<Vec<T>, Failure> {
    wire.into_iter()
        .map(from_wire)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::failed(format!("cannot read the coordinator's answer: {}", chain(&error))))
}

fn print<T>(
    format: Format,
    items: &[T],
    json: impl Fn(&T) -> Value,
    head: &[&str],
    row: impl Fn(&T) -> Vec<String>,
    none: &str,
) {
    match format {
        Format::Json => output::json(&items.iter().map(json).collect()),
        Format::Text if items.is_empty() => output::note(none),
        Format::Text => output::data(&output::table(head, &items.iter().map(row).collect::<Vec<_>>())),
    }
}

fn database_json(of: &Database) -> Value {
    json!({
        "name": of.name,
        "labels": of.labels,
        "agents": of.agents,
        "system_identifier": of.identity.map(|identity| identity.system.to_string()),
        "database_oid": of.identity.map(|identity| identity.database),
        "rollout": of.rollout,
        "problem": Some(&of.problem).filter(|problem| !problem.is_empty()),
    })
}

fn agent_json(of: &Agent) -> Value {
    json!({
        "id": of.id,
        "version": Some(&of.version).filter(|version| !version.is_empty()),
        "connected": of.connected_at.is_some(),
        "connected_at_unix_ms": of.connected_at.map(|at| at.0),
        "databases": of.databases,
        "running": of.running,
        "drained": of.drain.as_ref().map(drain_json),
        "note": Some(&of.note).filter(|note| !note.is_empty()),
    })
}

/// A drain as JSON.
pub(super) fn drain_json(drain: &Drain) -> Value {
    json!({
        "by": drain.by,
        "reason": Some(&drain.reason).filter(|reason| !reason.is_empty()),
        "at_unix_ms": drain.at.0,
        "now": drain.running == Running::Stops,
    })
}

/// A drain for people: since when, by whom and why.
pub(super) fn drain_text(drain: &Drain) -> String {
    let reason = if drain.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", drain.reason)
    };
    format!("since {}, {}{reason}", drain.at, drain.by)
}

/// Whether an agent is drained, and what there is to say about its version.
fn note(of: &Agent) -> String {
    let drained = of.drain.as_ref().map(|drain| {
        let state = if of.running.is_empty() {
            "drained"
        } else {
            "draining"
        };
        format!("{state} {}", drain_text(drain))
    });
    let version = Some(of.note.clone()).filter(|note| !note.is_empty());
    drained.into_iter().chain(version).collect::<Vec<_>>().join("; ")
}

fn joined<T: ToString>(names: &[T]) -> String {
    names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
