//! `confiture coordinator`: the process that leads a fleet, or stands by to.

use crate::context::{self, Global};
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use crate::telemetry;
use coordinator::serve::Bound;
use coordinator::store::{self, Error as StoreError, Missing, Store};
use proto::v1;
use serde_json::json;
use shared::rollout::work::Exit;
use shared::settings::{Flag, StoreUrl};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait at the start for a store that does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// The pause before it is asked again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// `confiture coordinator`
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Coordinator {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to serve [default: `coordinator.listen` of the settings, else 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where intent is kept: `file:PATH`, `memory:` or `etcd://HOST:PORT,../PREFIX` [default: `coordinator.store` of the
    /// settings, else `file:./confiture.redb`]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The URL under which agents and other coordinators reach this one [default: `coordinator.advertise` of the
    /// settings, else the address it serves on]
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Found the store when there is none: without it a wrong path is an error
    #[arg(long)]
    init: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the store of the running coordinators the newest one, after it was put back from a copy or rebuilt
    #[command(
        after_long_help = "JSON (--output json): epoch_before, epoch, unasked[] (databases that no agent could ask)."
    )]
    Recover(Recover),
}

/// `confiture coordinator recover`
#[derive(Debug, clap::Args)]
struct Recover {
    /// Why; kept in the coordinator's log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    at: At,
}

impl Recover {
    async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let reason = self.reason.trim().to_owned();
        if reason.is_empty() {
            return Err(Failure::usage(
                "--reason is empty\n  help: say why this store is to lead, for those who read the log",
            ));
        }
        let request = v1::RecoverRequest {
            reason,
            requested_by: context::who("confiture coordinator recover"),
        };
        let answer = Operator::new(&self.at, global)?
            .ask("recover the store", async |mut client| {
                client.recover(request.clone()).await
            })
            .await?;
        if !answer.unasked.is_empty() {
            output::note(&format!(
                "note: no agent could ask {}; if their fence turns out larger, recover again once they are reached",
                answer.unasked.join(", ")
            ));
        }
        match global.output {
            Format::Json => output::json(&json!({
                "epoch_before": answer.epoch_before,
                "epoch": answer.epoch,
                "unasked": answer.unasked,
            })),
            Format::Text => output::data(&format!(
                "the store leads with epoch {} now (before: {})",
                answer.epoch, answer.epoch_before
            )),
        }
        Ok(Exit::Done)
    }
}

impl Coordinator {
    pub(crate) async fn run(mut self, global: &Global) -> Result<Exit, Failure> {
        if let Some(Command::Recover(recover)) = self.command.take() {
            return recover.run(global).await;
        }
        let missing = if self.init {
            Missing::Create
        } else {
            Missing::Refuse
        };
        let settings = context::settings(global, self.flags())?;
        let own = context::with_lookups(|lookups| settings.coordinator(lookups))?;
        let telemetry = telemetry::of_server(global, &settings, "confiture-coordinator", &own.advertise)?;
        let stop = runtime::shutdown::token()?;
        // The port first: whoever starts a second coordinator by mistake touches no store.
        let bound = Bound::new(&own).await?;
        let unready = bound.unready();
        // On the heap: a whole coordinator is one future.
        let serving = Box::pin(async {
            match stop.run_until_cancelled(open(&own.store, missing)).await {
                Some(store) => Ok::<_, Failure>(bound.serve(store?, stop.clone()).await?),
                None => Ok(()),
            }
        });
        let served = telemetry::served_beside(&telemetry, &settings.observability, unready, serving).await;
        telemetry.end().await;
        served?;
        Ok(Exit::Done)
    }

    fn flags(self) -> Vec<Flag> {
        let flag = |key, flag, value: Option<String>| value.map(|value| Flag { key, flag, value });
        [
            flag("coordinator.listen", "--listen", self.listen),
            flag("coordinator.store", "--store", self.store),
            flag("coordinator.advertise", "--advertise", self.advertise),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Opens the store; one that does not answer yet is waited for, since machines of one fleet start together.
async fn open(url: &StoreUrl, missing: Missing) -> Result<Arc<dyn Store>, Failure> {
    let until = Instant::now() + STORE_PATIENCE;
    let mut told = false;
    loop {
        match store::open(url, missing).await {
            Err(error @ StoreError::Unavailable { .. }) if Instant::now() < until => {
                if !told {
                    let seconds = STORE_PATIENCE.as_secs();
                    let error = crate::failure::chain(&error);
                    tracing::warn!(error, "waiting up to {seconds} s for the store");
                    told = true;
                }
                tokio::time::sleep(STORE_AGAIN).await;
            }
            opened => return Ok(opened?),
        }
    }
}
