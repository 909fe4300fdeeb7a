//! `confiture agent`: the process beside the databases, and what operators say about agents.

mod drain;
mod serve;

use crate::context::Global;
use crate::failure::Failure;
use clap::Subcommand;
use shared::rollout::work::Exit;

/// `confiture agent [drain|undrain]`
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Agent {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give an agent no new work, until it is undrained
    Drain(drain::Drain),
    /// Give a drained agent work again
    Undrain(drain::Undrain),
}

impl Agent {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self.command {
            None => self.serve.run(global).await,
            Some(Command::Drain(drain)) => drain.run(global).await,
            Some(Command::Undrain(undrain)) => undrain.run(global).await,
        }
    }
}
