//! `confiture new`.
use crate::context::Global;
use crate::failure::Failure;
use shared::rollout::work::Exit;

/// `confiture new NAME`
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// What it does, in a few words
    name: String,
}

impl New {
    pub(crate) fn run(self, _global: &Global) -> Result<Exit, Failure> {
        Err(Failure::failed(format!("waits for the scaffold: {}", self.name)))
    }
}
