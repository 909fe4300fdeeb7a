//! What a rollout brings, to which databases, and what it keeps to, as said on the command line.

use super::policy;
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::files;
use shared::id::SetName;
use shared::rollout::{Bundle, Policy, Selector};
use std::path::PathBuf;

/// Migrations, databases and limits.
#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// Folder of the migrations [default: `migration.directory` of the settings, else db/migrations]
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
    /// Name of the set [default: that of `confiture.set.yaml`, else `default`]
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// The databases whose labels hold all of these pairs
    #[arg(long, value_name = "LABEL=VALUE,..", conflicts_with = "all")]
    select: Option<String>,
    /// All databases of the fleet
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    policy: policy::Flags,
}

impl Chosen {
    /// All of it, checked as far as it can be before anybody is asked.
    pub(super) fn read(&self, global: &Global) -> Result<(Bundle, Selector, Policy), Failure> {
        let selector = self.selector()?;
        let policy = self.policy.policy()?;
        let bundle = match (&self.migrations, &self.set) {
            (Some(folder), Some(set)) => files::bundle(folder, Some(set_name(set)?))?,
            (folder, set) => {
                let of_settings = context::settings(global, Vec::new())?.migration;
                let set = set.as_deref().map(set_name).transpose()?;
                files::bundle(
                    folder.as_ref().unwrap_or(&of_settings.directory),
                    set.or(of_settings.set),
                )?
            }
        };
        Ok((bundle, selector, policy))
    }

    fn selector(&self) -> Result<Selector, Failure> {
        match (&self.select, self.all) {
            (Some(pairs), _) => {
                Selector::parse(pairs).map_err(|error| Failure::usage(format!("--select: {error}")))
            }
            (None, true) => Ok(Selector::All),
            (None, false) => Err(Failure::usage(
                "which databases?\n  help: choose some by their labels with --select LABEL=VALUE (`confiture fleet databases` shows them), or take every one with --all",
            )),
        }
    }
}

fn set_name(given: &str) -> Result<SetName, Failure> {
    SetName::try_from(given).map_err(|error| Failure::usage(format!("--set: {error}")))
}
