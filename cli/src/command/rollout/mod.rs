//! `confiture rollout`: migrations over a fleet.

mod abort;
mod board;
mod display;
mod list;
mod show;
mod start;
mod text;
mod view;
mod watch;

use crate::context::Global;
use crate::failure::{Failure, chain};
use clap::Subcommand;
use proto::convert;
use shared::rollout::work::Exit;

/// `confiture rollout start|list|show|watch|abort`
#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Bring migrations to the databases of the fleet
    Start(start::Start),
    /// List all rollouts, the newest first
    List(list::List),
    /// Show one rollout and each of its databases
    Show(show::Show),
    /// Show what happens until the rollout has ended; the exit code says how it ended
    Watch(watch::Watch),
    /// Start no further database, and stop those at work at their next safe point
    Abort(abort::Abort),
}

impl Rollout {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Start(start) => start.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Show(show) => show.run(global).await,
            Self::Watch(watch) => watch.run(global).await,
            Self::Abort(abort) => abort.run(global).await,
        }
    }
}

/// An answer that is not as the protocol says: most likely of a newer coordinator.
fn not_understood(error: &convert::Error) -> Failure {
    Failure::failed(format!(
        "cannot read the coordinator's answer: {}\n  help: is `confiture` here as new as the coordinator's?",
        chain(error)
    ))
}

/// A part of an answer that must be there.
fn required<T>(part: Option<T>, what: &'static str) -> Result<T, Failure> {
    part.ok_or_else(|| not_understood(&convert::Error::Missing(what)))
}
