//! `confiture completions`: a script that teaches a shell the commands and flags.

use super::Arguments;
use crate::failure::Failure;
use crate::output;
use clap::CommandFactory as _;
use clap_complete::Shell;
use shared::rollout::work::Exit;

/// `confiture completions SHELL`
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    #[expect(clippy::unnecessary_wraps, reason = "all commands run the same way")]
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "confiture", &mut script);
        output::data(String::from_utf8_lossy(&script).trim_end());
        Ok(Exit::Done)
    }
}
