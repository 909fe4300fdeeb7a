//! `confiture rollout list`.

use super::{not_understood, view};
use crate::context::Global;
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use shared::rollout::view::Rollout;
use shared::rollout::work::Exit;

/// `confiture rollout list`
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "JSON (--output json): a list of objects as `rollout show` prints them, without databases."
)]
pub(crate) struct List {
    #[command(flatten)]
    at: At,
}

impl List {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let answer = operator
            .ask("list the rollouts", async |mut client| {
                client.list_rollouts(v1::ListRolloutsRequest {}).await
            })
            .await?;
        let rollouts: Vec<Rollout> = answer
            .rollouts
            .into_iter()
            .map(convert::view::rollout_from_wire)
            .collect::<Result<_, _>>()
            .map_err(|error| not_understood(&error))?;
        match global.output {
            Format::Json => output::json(&rollouts.iter().map(view::rollout).collect()),
            Format::Text if rollouts.is_empty() => output::note("there is no rollout yet"),
            Format::Text => {
                let head = ["ROLLOUT", "SET", "STATE", "DONE", "FAILED", "CREATED", "BY"];
                output::data(&output::table(
                    &head,
                    &rollouts.iter().map(row).collect::<Vec<_>>(),
                ));
            }
        }
        Ok(Exit::Done)
    }
}

fn row(rollout: &Rollout) -> Vec<String> {
    let counts = &rollout.databases;
    vec![
        rollout.id.to_string(),
        rollout.set.to_string(),
        rollout.state.as_str().to_owned(),
        format!("{}/{}", counts.done, counts.total),
        counts.failed.to_string(),
        rollout.created_at.to_string(),
        rollout.created_by.clone(),
    ]
}
