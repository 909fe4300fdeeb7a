//! `confiture init`.
use crate::failure::Failure;
use shared::rollout::work::Exit;

/// `confiture init [DIR]`
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Where
    #[arg(default_value = ".")]
    folder: std::path::PathBuf,
}

impl Init {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        Err(Failure::failed(format!(
            "waits for the scaffold: {}",
            self.folder.display()
        )))
    }
}
