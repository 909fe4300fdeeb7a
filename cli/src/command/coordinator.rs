//! `confiture coordinator`: the process that leads a fleet, or stands by to.

use crate::context::{self, Global};
use crate::failure::Failure;
use coordinator::serve::Bound;
use coordinator::store::{self, Error as StoreError, Missing, Store};
use runtime::telemetry;
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
pub(crate) struct Coordinator {
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

impl Coordinator {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        telemetry::init(telemetry::Format::Text)?;
        let missing = if self.init {
            Missing::Create
        } else {
            Missing::Refuse
        };
        let settings = context::settings(global, self.flags())?;
        let settings = context::with_lookups(|lookups| settings.coordinator(lookups))?;
        let stop = runtime::shutdown::token()?;
        // The port first: whoever starts a second coordinator by mistake touches no store.
        let bound = Bound::new(&settings).await?;
        let Some(store) = stop.run_until_cancelled(open(&settings.store, missing)).await else {
            return Ok(Exit::Done);
        };
        bound.serve(store?, stop).await?;
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
