//! The commands, one file each.

mod agent;
mod completions;
mod coordinator;
mod fleet;
mod index;
mod init;
mod ledger;
mod locks;
mod migrate;
mod new;
mod pool;
mod rollout;

use crate::context::Global;
use crate::failure::Failure;
use crate::telemetry::LogFormat;
use clap::{Parser, Subcommand};
use shared::rollout::work::Exit;

/// Changes the schema and the data of a fleet of PostgreSQL databases while they serve traffic.
///
/// Exit codes: 0 done or nothing to do, 1 failed, 2 wrong usage or input, 3 refused by a safety rule, 4 stopped or
/// waiting ended (the same command goes on where this one stopped).
#[derive(Debug, Parser)]
#[command(name = "confiture", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// How lines on standard error are written.
    pub(crate) fn log_format(&self) -> LogFormat {
        self.global.log_format()
    }

    /// What the command runs on. All but the services work on few connections at a time: on several threads every way to a
    /// server would be handed over from one to another twice, and the cores are those of its neighbours.
    pub(crate) fn runtime(&self) -> tokio::runtime::Builder {
        match self.command {
            Command::Coordinator(_) | Command::Agent(_) => tokio::runtime::Builder::new_multi_thread(),
            _ => tokio::runtime::Builder::new_current_thread(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a settings file and a folder for migrations
    Init(init::Init),
    /// Write an empty migration with the next version
    New(new::New),
    /// Migrate one database
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// See what Confiture remembers inside a database, verify it, accept a copied database
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Show who waits for a lock in a database, and who blocks whom
    Locks(locks::Locks),
    /// See how pools of connections are used, and what to change
    #[command(subcommand)]
    Pool(pool::Pool),
    /// See builds of indexes at work, and repair indexes that are not valid
    #[command(subcommand)]
    Index(index::Index),
    /// Bring migrations to the databases of a fleet, and see how it goes
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// See the databases and agents of a fleet
    #[command(subcommand)]
    Fleet(fleet::Fleet),
    /// Serve a fleet: give the rollouts' work to agents
    Coordinator(coordinator::Coordinator),
    /// Serve databases: carry out what a coordinator asks for
    Agent(agent::Agent),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

impl Arguments {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let global = &self.global;
        match self.command {
            Command::Init(command) => command.run(),
            Command::New(command) => command.run(global),
            Command::Migrate(command) => command.run(global).await,
            Command::Ledger(command) => command.run(global).await,
            Command::Locks(command) => command.run(global).await,
            Command::Pool(command) => command.run(global).await,
            Command::Index(command) => command.run(global).await,
            Command::Rollout(command) => command.run(global).await,
            Command::Fleet(command) => command.run(global).await,
            Command::Coordinator(command) => command.run(global).await,
            Command::Agent(command) => command.run(global).await,
            Command::Completions(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn flags_and_commands_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
