//! `confiture rollout undo`.

use super::start::{self, Follow};
use super::{not_understood, required, view};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::telemetry;
use proto::convert;
use proto::convert::request::Undo as Request;
use shared::ledger::DataLoss;
use shared::rollout::undo::{Hours, Wish};
use shared::rollout::work::Exit;

const HELP: &str = "\
Aborts the rollout, waits until nothing of it is at work, and then runs the ways down of what it has applied: by a
rollout of its own, with the last wave first and the same limits. A database where it completed nothing, or where
something later was applied, is left as it is, and `rollout show` says why.";

/// `confiture rollout undo ID`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{}", view::HELP))]
pub(crate) struct Undo {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    /// Why, for the record and for those who read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Run ways down that lose data too, such as what was written to a column since; else it is refused
    #[arg(long)]
    allow_data_loss: bool,
    /// Go on also outside of the hours that the policy of the rollout gives
    #[arg(long)]
    ignore_windows: bool,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    at: At,
}

impl Undo {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let request = Request {
            id: self.rollout.clone(),
            wish: Wish {
                request: self.follow.request()?,
                data_loss: if self.allow_data_loss {
                    DataLoss::Allowed
                } else {
                    DataLoss::Refused
                },
                hours: if self.ignore_windows {
                    Hours::Ignored
                } else {
                    Hours::Kept
                },
                by: context::who("confiture rollout undo"),
                reason: self.reason,
                // It goes beside the message.
                trace: None,
            },
        };
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("undo rollout {}", self.rollout);
        let answer = operator
            .ask(&doing, async |mut client| {
                client
                    .undo_rollout(telemetry::request(request.clone().to_wire()))
                    .await
            })
            .await?;
        let rollout = convert::view::rollout_from_wire(required(answer.rollout, "rollout")?)
            .map_err(|error| not_understood(&error))?;
        start::tell(&mut operator, &rollout, answer.created, &self.follow, global).await
    }
}
