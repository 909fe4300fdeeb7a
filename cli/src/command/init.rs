//! `confiture init`: a settings file and a folder for migrations.

use crate::failure::Failure;
use crate::{files, output};
use shared::migration::scaffold;
use shared::rollout::work::Exit;
use std::path::PathBuf;

/// `confiture init [DIR]`
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Folder of the project
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
}

impl Init {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        files::write_new(&self.folder, &scaffold::project())?;
        output::note(
            "next: put the database's URL into DATABASE_URL or confiture.yaml, then `confiture new NAME`",
        );
        Ok(Exit::Done)
    }
}
