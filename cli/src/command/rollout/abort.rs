//! `confiture rollout abort`.

use super::{not_understood, required, text, view};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use shared::rollout::view::State;
use shared::rollout::work::Exit;

/// `confiture rollout abort ID`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Abort {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    /// Why, for the record and for those who read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

impl Abort {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("abort rollout {}", self.rollout);
        let request = v1::AbortRolloutRequest {
            id: self.rollout,
            reason: self.reason,
            requested_by: context::who("confiture rollout abort"),
        };
        let answer = operator
            .ask(&doing, async |mut client| {
                client.abort_rollout(request.clone()).await
            })
            .await?;
        let rollout = convert::view::rollout_from_wire(required(answer.rollout, "rollout")?)
            .map_err(|error| not_understood(&error))?;
        match global.output {
            Format::Json => output::json(&view::rollout(&rollout)),
            Format::Text => {
                output::data(&text::standing(&rollout));
                match rollout.state {
                    State::Aborting => output::note(
                        "databases at work stop at their next safe point; see `confiture rollout watch`",
                    ),
                    State::Done | State::Failed => output::note("it had ended already: nothing was aborted"),
                    State::Running | State::Aborted => {}
                }
            }
        }
        Ok(Exit::Done)
    }
}
