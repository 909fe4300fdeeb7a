//! `confiture agent` without a subcommand: the process beside the databases.

use crate::context::{self, Global};
use crate::failure::{self, Failure};
use crate::telemetry;
use agent::database::Database;
use agent::link::{self, Databases, Standing};
use agent::pool::Servers;
use shared::rollout::work::Exit;
use shared::settings::{Flag, Settings};
use std::sync::Arc;
use tokio::sync::watch;

/// How it serves.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// The agent's name, unique in the fleet [default: `agent.id` of the settings, else the host's name]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// URLs of the coordinators, tried in turn [default: `agent.coordinator` of the settings]
    #[arg(long, value_name = "URL,..")]
    coordinator: Option<String>,
}

impl Serve {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = context::settings(global, self.flags())?;
        let telemetry =
            telemetry::of_server(global, &settings, "confiture-agent", settings.agent.id.as_str())?;
        failure::contain_panics();
        let databases = databases(&settings)?;
        let stop = runtime::shutdown::token()?;
        let description = format!("agent {} on {}", settings.agent.id, context::host());
        let worker = Arc::new(Databases::new(databases, description));
        let of_link = link::Settings {
            id: settings.agent.id.clone(),
            coordinators: settings.agent.coordinators.clone(),
        };
        let standing = watch::Sender::new(Standing::Seeking);
        let unready = link::unready(standing.subscribe(), &of_link);
        agent::metrics::build("agent");
        let pools = worker.clone();
        agent::metrics::observe_pools(move || pools.pools());
        let serving = async {
            tokio::select! {
                served = link::serve(of_link, worker.clone(), standing, stop) => served,
                never = worker.keep() => match never {},
            }
        };
        let served = telemetry::served_beside(&telemetry, &settings.observability, unready, serving).await;
        telemetry.end().await;
        served?;
        Ok(Exit::Done)
    }

    fn flags(self) -> Vec<Flag> {
        let flag = |key, flag, value: Option<String>| value.map(|value| Flag { key, flag, value });
        [
            flag("agent.id", "--id", self.id),
            flag("agent.coordinator", "--coordinator", self.coordinator),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// All databases of the settings, with all that is wrong with any of them.
fn databases(settings: &Settings) -> Result<Vec<Database>, Failure> {
    let declared = context::with_lookups(|lookups| settings.databases(lookups))?;
    if declared.is_empty() {
        return Err(Failure::usage(
            "the agent has no database to serve\n  help: list its databases under `databases:` in the settings file",
        ));
    }
    let servers = Servers::with_places(settings.agent.connections_per_server);
    let (mut opened, mut problems) = (Vec::new(), Vec::new());
    for database in &declared {
        match Database::open(database, &settings.connection, &settings.migration, &servers) {
            Ok(database) => opened.push(database),
            Err(error) => problems.push(format!("database {}: {error}", database.name)),
        }
    }
    if problems.is_empty() {
        Ok(opened)
    } else {
        Err(Failure::usage(problems.join("\n")))
    }
}
