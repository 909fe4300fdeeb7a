//! `confiture pool`: how pools of connections are used, in this process or in the agents of a fleet.

mod fleet;
mod one;

use crate::context::Global;
use crate::failure::Failure;
use crate::operator::At;
use crate::target;
use clap::Subcommand;
use serde_json::{Value, json};
use shared::pool::{Pools, Verdict};
use shared::rollout::work::Exit;
use shared::settings::duration::{self, Zero};
use std::time::Duration;

/// `confiture pool stats`
#[derive(Debug, Subcommand)]
pub(crate) enum Pool {
    /// Show connections in use, idle and waited for, and whether that is well
    Stats(Stats),
}

/// `confiture pool stats`
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "One database: opens its pool as the settings say, min_size connections, and tells whether max_size and \
        agent.connections_per_server fit what the server, the role and the database have room for. The numbers are those of this \
        process: what running agents have is told by the fleet.\n\n\
        The fleet (with --coordinator or CONFITURE_COORDINATOR, --select or --all): the pools of each connected agent, for each database \
        it serves. No database is asked. --database then is the fleet's name of one.\n\n\
        Healthy: nobody waits, not all connections are in use, and one is idle. An agent holds none for a database without work.\n\n\
        Exit codes: 0; with --check 1 when a pool is not healthy, does not fit, or an agent could not be asked.\n\n\
        JSON (--output json), of each pool: active_connections, idle_connections, waiting_requests, total_created, total_recycled, \
        max_size, given_up_requests, longest_wait_ms, outside{} (the same, for what cannot run in a transaction), \
        places {most, free}, verdict, healthy, text, advice. One database: these with database, address, settings{}, \
        server {max_connections, reserved, used, free, role_limit, database_limit, fits, text, advice}. The fleet: pools[] {database, agent, problem, \
        and these}, healthy. With --watch one document a line. What is not known is null."
)]
pub(crate) struct Stats {
    #[command(flatten)]
    database: target::Of,
    #[command(flatten)]
    at: At,
    /// The databases of the fleet whose labels hold all of these pairs
    #[arg(long, value_name = "LABEL=VALUE,..", conflicts_with_all = ["all", "database", "database_url"])]
    select: Option<String>,
    /// All databases of the fleet
    #[arg(long, conflicts_with_all = ["database", "database_url"])]
    all: bool,
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "2s", requires = "watch")]
    interval: Duration,
    /// Exit with 1 when a pool is not healthy, does not fit, or an agent could not be asked
    #[arg(long, conflicts_with = "watch")]
    check: bool,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Unwell,
}

impl Pool {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        crate::telemetry::log(global)?;
        match self {
            Self::Stats(stats) => stats.run(global).await,
        }
    }
}

impl Stats {
    async fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let looking = async {
            if self.is_of_fleet() {
                fleet::Look::new(self, global)?.go_on(self).await
            } else {
                one::Look::new(&self.database, global)?.go_on(self).await
            }
        };
        if !self.watch {
            return looking.await;
        }
        tokio::select! {
            ended = looking => ended,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
        }
    }

    fn is_of_fleet(&self) -> bool {
        self.all || self.select.is_some() || (self.at.is_given() && !self.database.has_url())
    }

    /// Looks once, or again and again.
    async fn each(&self, mut look: impl AsyncFnMut() -> Result<Health, Failure>) -> Result<Exit, Failure> {
        loop {
            let health = look().await?;
            if self.watch {
                tokio::time::sleep(self.interval).await;
            } else if self.check && health == Health::Unwell {
                return Ok(Exit::Failed);
            } else {
                return Ok(Exit::Done);
            }
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let given = duration::parse(text, Duration::from_secs(1)).map_err(|error| error.to_string())?;
    duration::bounded(given, Zero::Refused)
}

/// The pools of one database in one process, and what to say of them.
fn pools_json(pools: &Pools) -> Value {
    let verdict = Verdict::of(pools);
    let mut value = stats_json(&pools.transactions);
    value["outside"] = stats_json(&pools.outside);
    value["places"] = json!(
        pools
            .places
            .map(|places| json!({ "most": places.most, "free": places.free }))
    );
    value["verdict"] = json!(verdict.as_str());
    value["healthy"] = json!(verdict.is_healthy());
    value["text"] = json!(verdict.to_string());
    value["advice"] = json!(verdict.advice());
    value
}

fn stats_json(stats: &shared::pool::Stats) -> Value {
    json!({
        "active_connections": stats.active,
        "idle_connections": stats.idle,
        "waiting_requests": stats.waiting,
        "total_created": stats.created,
        "total_recycled": stats.recycled,
        "max_size": stats.max,
        "given_up_requests": stats.given_up,
        "longest_wait_ms": stats.longest_wait.as_secs_f64() * 1000.0,
    })
}
