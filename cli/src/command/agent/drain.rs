//! `confiture agent drain` and `undrain`.

use crate::command::fleet::{drain_json, drain_text};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use serde_json::json;
use shared::rollout::work::Exit;

/// `confiture agent drain AGENT`
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The agent gets no new work, through restarts of it and of coordinators, until `confiture agent undrain`. What it is at work \
        on goes on to its end; with --now it stops between two batches or steps, and another agent that serves the \
        database goes on from there. A database that no other agent serves waits, and `confiture rollout show` says so. \
        Draining a drained agent changes nothing.\n\n\
        JSON (--output json): agent, changed, drained {by, reason, at_unix_ms, now}, running[]."
)]
pub(super) struct Drain {
    /// The agent's name
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Why, for the record and for those who read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Let running work stop at its next safe point
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    at: At,
}

impl Drain {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("drain agent {}", self.agent);
        let request = v1::DrainAgentRequest {
            agent: self.agent.clone(),
            reason: self.reason,
            requested_by: context::who("confiture agent drain"),
            now: self.now,
        };
        let answer = operator
            .ask_fleet(&doing, async |mut fleet| fleet.drain_agent(request.clone()).await)
            .await?;
        let drain = convert::fleet::drain_from_wire(answer.drain.unwrap_or_default());
        match global.output {
            Format::Json => output::json(&json!({
                "agent": self.agent,
                "changed": answer.changed,
                "drained": drain_json(&drain),
                "running": answer.running,
            })),
            Format::Text => {
                output::data(&format!(
                    "agent {} gets no new work {}",
                    self.agent,
                    drain_text(&drain)
                ));
                if !answer.changed {
                    output::note("it was drained already: nothing was changed");
                }
                if !answer.running.is_empty() {
                    let what = if self.now {
                        "stops between two batches or steps"
                    } else {
                        "goes on to its end"
                    };
                    output::note(&format!(
                        "its work on {} {what}; see `confiture fleet agents`",
                        answer.running.join(", ")
                    ));
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// `confiture agent undrain AGENT`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "JSON (--output json): agent, changed.")]
pub(super) struct Undrain {
    /// The agent's name
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Why, for the coordinator's log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

impl Undrain {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("undrain agent {}", self.agent);
        let request = v1::UndrainAgentRequest {
            agent: self.agent.clone(),
            requested_by: context::who("confiture agent undrain"),
            reason: self.reason,
        };
        let answer = operator
            .ask_fleet(&doing, async |mut fleet| {
                fleet.undrain_agent(request.clone()).await
            })
            .await?;
        match global.output {
            Format::Json => output::json(&json!({ "agent": self.agent, "changed": answer.changed })),
            Format::Text => {
                output::data(&format!("agent {} gets work", self.agent));
                if !answer.changed {
                    output::note("it was not drained: nothing was changed");
                }
            }
        }
        Ok(Exit::Done)
    }
}
