//! `confiture rollout pause|resume|abort|retry|skip|approve`: what may be asked of a rollout.

use super::{Whole, not_understood, required, text, view, whole};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use shared::id::DatabaseName;
use shared::rollout::Verb;
use shared::rollout::view::{Approval, Rollout, State};
use shared::rollout::work::Exit;
use std::collections::BTreeSet;

/// What all of them take.
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Ask {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    /// Why, for the record and for those who read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    at: At,
}

/// `confiture rollout resume ID [--ignore-checks]`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Resume {
    #[command(flatten)]
    ask: Ask,
    /// Whatever the checks of the wave that is over say; else those that did not pass are asked again
    #[arg(long)]
    ignore_checks: bool,
}

/// `confiture rollout retry ID [DATABASE..]`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Retry {
    #[command(flatten)]
    ask: Ask,
    /// Which databases [default: all that failed]
    #[arg(value_name = "DATABASE")]
    databases: Vec<String>,
}

/// `confiture rollout skip ID DATABASE.. --reason TEXT`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Skip {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    /// Which databases
    #[arg(value_name = "DATABASE", required = true)]
    databases: Vec<String>,
    /// Why, for the record and for those who read it
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    at: At,
}

/// `confiture rollout approve ID [WAVE]`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Approve {
    #[command(flatten)]
    ask: Ask,
    /// Which wave [default: the next that waits for approval]
    #[arg(value_name = "WAVE")]
    wave: Option<String>,
}

impl Ask {
    pub(super) async fn run(self, verb: Verb, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("{} rollout {}", verb.word(), self.rollout);
        let by = context::who(&format!("confiture rollout {}", verb.word()));
        let request = v1::ControlRolloutRequest {
            id: self.rollout,
            verb: Some(convert::control::verb_to_wire(verb.clone())),
            reason: self.reason,
            requested_by: by,
        };
        let answer = operator
            .ask(&doing, async |mut client| {
                client.control_rollout(request.clone()).await
            })
            .await?;
        let rollout = convert::view::rollout_from_wire(required(answer.rollout, "rollout")?)
            .map_err(|error| not_understood(&error))?;
        match global.output {
            Format::Json => {
                let mut value = view::rollout(&rollout);
                value["changed"] = answer.changed.into();
                output::json(&value);
            }
            Format::Text => {
                output::data(&text::standing(&rollout));
                if let Some(note) = note(&verb, &rollout, answer.changed) {
                    output::note(&note);
                }
            }
        }
        Ok(Exit::Done)
    }
}

impl Resume {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let verb = if self.ignore_checks {
            Verb::IgnoreChecks
        } else {
            Verb::Resume
        };
        self.ask.run(verb, global).await
    }
}

impl Retry {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let databases = names(&self.databases)?;
        self.ask.run(Verb::Retry { databases }, global).await
    }
}

impl Skip {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let databases = names(&self.databases)?;
        let ask = Ask {
            rollout: self.rollout,
            reason: self.reason,
            at: self.at,
        };
        ask.run(Verb::Skip { databases }, global).await
    }
}

impl Approve {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut wave = self.wave;
        if wave.is_none() {
            // By its name, so that a question asked twice for want of an answer approves one wave only.
            let mut operator = Operator::new(&self.ask.at, global)?;
            let doing = format!("approve rollout {}", self.ask.rollout);
            let Whole { rollout, .. } = whole(&mut operator, &doing, self.ask.rollout.clone()).await?;
            let mut ahead = rollout.waves.into_iter().filter(|wave| !wave.begun);
            let next = ahead.find(|wave| wave.approval != Approval::NotNeeded);
            wave = next.map(|wave| wave.name);
        }
        self.ask.run(Verb::Approve { wave }, global).await
    }
}

fn names(given: &[String]) -> Result<BTreeSet<DatabaseName>, Failure> {
    let name = |given: &String| {
        DatabaseName::try_from(given.as_str()).map_err(|error| Failure::usage(format!("DATABASE: {error}")))
    };
    given.iter().map(name).collect()
}

/// What is worth knowing besides how the rollout stands.
fn note(verb: &Verb, rollout: &Rollout, changed: bool) -> Option<String> {
    let stops = "databases at work stop at their next safe point; see `confiture rollout watch`";
    match verb {
        Verb::Abort if rollout.state == State::Aborting => Some(stops.to_owned()),
        Verb::Abort if rollout.state != State::Aborted => {
            Some("it had ended already: nothing was aborted".to_owned())
        }
        Verb::Pause if changed && rollout.databases.running > 0 => Some(stops.to_owned()),
        Verb::Resume | Verb::IgnoreChecks if !changed => {
            Some("it was not paused: nothing was changed".to_owned())
        }
        Verb::Skip { .. } | Verb::Retry { .. } if rollout.state == State::Paused => Some(format!(
            "the rollout stays paused: `confiture rollout resume {}` lets it go on, and lets no failure so far count any more",
            rollout.id
        )),
        Verb::Approve { .. } if !changed => {
            Some("that wave is approved already: nothing was changed".to_owned())
        }
        _ if !changed => Some(format!("nothing was to {}: it is so already", verb.word())),
        _ => None,
    }
}
