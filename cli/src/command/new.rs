//! `confiture new`: an empty migration with the next version.

use crate::context::{self, Global};
use crate::failure::Failure;
use crate::{files, output};
use jiff::tz::TimeZone;
use shared::migration::scaffold::{self, Form};
use shared::rollout::work::Exit;
use std::path::PathBuf;

/// `confiture new NAME`
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// What it does, in a few words
    #[arg(value_name = "NAME")]
    name: String,
    /// Write one YAML file instead of an up and a down SQL file
    #[arg(long)]
    yaml: bool,
    /// Folder of the migrations [default: db/migrations]
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
}

impl New {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let folder = match self.migrations {
            Some(folder) => folder,
            None => context::settings(global, Vec::new())?.migration.directory,
        };
        let existing = files::names(&folder)?;
        let now = jiff::Timestamp::now()
            .to_zoned(TimeZone::UTC)
            .strftime("%Y%m%d%H%M%S")
            .to_string();
        let form = if self.yaml { Form::Yaml } else { Form::Sql };
        let made = scaffold::migration(&existing, &self.name, &now, form)
            .map_err(|error| Failure::usage(error.to_string()))?;
        files::write_new(&folder, &made)?;
        output::note("next: write the change, look at it with `confiture migrate up --dry-run`");
        Ok(Exit::Done)
    }
}
