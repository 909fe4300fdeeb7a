//! `confiture rollout start`.

use super::chosen::Chosen;
use super::display::Display;
use super::{not_understood, policy, required, text, view, watch};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use crate::telemetry;
use proto::convert;
use proto::convert::request::Create;
use shared::id::RequestId;
use shared::rollout::view::{Rollout, State};
use shared::rollout::waves;
use shared::rollout::work::Exit;
use tracing::Instrument as _;

/// `confiture rollout start`
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("{}\n\n{}", policy::HELP, view::HELP))]
pub(crate) struct Start {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    at: At,
}

/// How often a rollout may be asked for, and whether it is watched.
#[derive(Debug, clap::Args)]
pub(super) struct Follow {
    /// Makes repeating this command harmless: the same id is the same rollout [default: a random one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Show what happens until the rollout has ended; the exit code says how it ended
    #[arg(long)]
    watch: bool,
}

impl Follow {
    pub(super) fn request(&self) -> Result<RequestId, Failure> {
        let request = match &self.request_id {
            Some(given) => RequestId::try_from(given.as_str()),
            None => RequestId::try_from(uuid::Uuid::new_v4().to_string()),
        };
        request.map_err(|error| Failure::usage(format!("--request-id: {error}")))
    }
}

impl Start {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = context::settings(global, Vec::new())?;
        let telemetry = telemetry::of_command(global, &settings, None)?;
        let span = tracing::info_span!("rollout start");
        telemetry::of_caller(&span);
        let ended = self.start(global).instrument(span).await;
        let told = telemetry.end().await;
        let exit = ended?;
        told?;
        Ok(exit)
    }

    async fn start(self, global: &Global) -> Result<Exit, Failure> {
        let request = self.request(global)?;
        let mut operator = Operator::new(&self.at, global)?;
        let answer = operator
            .ask("start the rollout", async |mut client| {
                let request = telemetry::request(request.clone().to_wire());
                client.create_rollout(request).await
            })
            .await?;
        let rollout = convert::view::rollout_from_wire(required(answer.rollout, "rollout")?)
            .map_err(|error| not_understood(&error))?;
        tell(&mut operator, &rollout, answer.created, &self.follow, global).await
    }

    /// Everything that can be found wrong before anybody is asked.
    fn request(&self, global: &Global) -> Result<Create, Failure> {
        let (bundle, selector, policy) = self.chosen.read(global)?;
        let request = self.follow.request()?;
        Ok(Create {
            request,
            bundle,
            selector,
            policy,
            created_by: context::who("confiture rollout start"),
        })
    }
}

/// Says that a rollout was founded, and shows what becomes of it where that is wanted.
pub(super) async fn tell(
    operator: &mut Operator,
    rollout: &Rollout,
    created: bool,
    follow: &Follow,
    global: &Global,
) -> Result<Exit, Failure> {
    let planned = rollout.waves.iter().map(|wave| {
        let size = usize::try_from(wave.databases.total).unwrap_or(usize::MAX);
        (wave.name.as_str(), size)
    });
    for remark in waves::remarks(&rollout.policy, planned) {
        output::note(&remark);
    }
    if follow.watch {
        output::note(&founded(rollout, created));
        return watch::to_the_end(operator, rollout.id.as_str(), Display::new(global.output)).await;
    }
    match global.output {
        Format::Json => {
            let mut value = view::rollout(rollout);
            value["created"] = created.into();
            output::json(&value);
        }
        Format::Text => {
            output::data(&founded(rollout, created));
            output::note(&format!(
                "see what happens with `confiture rollout watch {}`",
                rollout.id
            ));
        }
    }
    Ok(Exit::Done)
}

fn founded(rollout: &Rollout, created: bool) -> String {
    let databases = text::count(rollout.databases.total.into(), "database");
    let id = text::name(rollout);
    if created {
        format!("rollout {id} started: {databases}")
    } else if let Some(undone) = &rollout.undoes
        && rollout.state == State::Done
        && rollout.databases.skipped == 0
    {
        format!("rollout {undone} is undone already, by {}", rollout.id)
    } else {
        format!(
            "rollout {id} was started before: {databases}, {}",
            rollout.state.as_str()
        )
    }
}
