//! `confiture migrate`: one database, without a coordinator.

mod apply;
mod plan;
mod progress;
mod status;
mod target;

use crate::context::Global;
use crate::failure::Failure;
use clap::Subcommand;
use shared::rollout::work::Exit;
use std::path::PathBuf;

/// `confiture migrate up|down|status`
#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply what is pending
    Up(apply::Up),
    /// Undo the newest applied migrations
    Down(apply::Down),
    /// Show each version and its state
    Status(status::Status),
}

/// Which database and which migrations.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    #[command(flatten)]
    database: crate::target::Of,
    /// Folder of the migrations [default: db/migrations]
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
    /// Name of the set [default: that of `confiture.set.yaml`, else `default`]
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
}

impl Of {
    /// The flags that lead another command to the same database and set. A URL may hold a password: it is not repeated.
    fn repeated(&self) -> String {
        let folder = (self.migrations.as_ref()).map_or(String::new(), |folder| {
            format!(" --migrations {}", folder.display())
        });
        let set = (self.set.as_ref()).map_or(String::new(), |set| format!(" --set {set}"));
        format!("{}{folder}{set}", self.database.repeated())
    }
}

impl Migrate {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Up(up) => up.run(global).await,
            Self::Down(down) => down.run(global).await,
            Self::Status(status) => status.run(global).await,
        }
    }
}
