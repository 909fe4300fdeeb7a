//! Our own binary, as a user runs it.

use super::{Build, Process, outcome};
use anyhow::{bail, ensure};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The longest that a call may take which is waited for to its end.
const LONGEST: Duration = Duration::from_mins(2);

/// One call of `confiture`, to be run to its end or started as a daemon.
///
/// It sees nothing of our own environment but `PATH` and `HOME`: a `DATABASE_URL` or `CONFITURE_*` of the developer
/// must not decide what a test does.
#[derive(Debug, Clone, Default)]
pub struct Confiture {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    folder: Option<PathBuf>,
    build: Build,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed to stdout.
    pub stdout: String,
    /// What it printed to stderr.
    pub stderr: String,
}

impl Confiture {
    /// With these arguments: `Confiture::new(["migrate", "up"])`.
    pub fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        Self {
            args,
            ..Self::default()
        }
    }

    /// Of another build of the program.
    #[must_use]
    pub fn build(mut self, build: Build) -> Self {
        self.build = build;
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// In this working folder; otherwise in the one of the test.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts it; `name` stands for it in messages.
    pub fn start(&self, name: &str) -> anyhow::Result<Process> {
        let mut command = Command::new(self.build.path()?);
        command.args(&self.args).env_clear();
        for inherited in ["PATH", "HOME"] {
            command.envs(std::env::var_os(inherited).map(|value| (inherited, value)));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Process::start(name, command)
    }

    /// Runs it to its end, two minutes at most. Any exit code is fine here.
    pub async fn run(&self) -> anyhow::Result<Ended> {
        let mut process = self.start(&self.title())?;
        let status = process.wait(LONGEST).await?;
        Ok(Ended {
            code: status.code(),
            stdout: process.stdout(),
            stderr: process.stderr(),
        })
    }

    /// Runs it to its end and returns its stdout.
    ///
    /// # Errors
    /// When the exit code is not 0; the message shows the output.
    pub async fn succeed(&self) -> anyhow::Result<String> {
        let mut process = self.start(&self.title())?;
        let status = process.wait(LONGEST).await?;
        if !status.success() {
            bail!(
                "{} failed ({}):{}",
                process.name,
                outcome(status),
                process.output.tail()
            );
        }
        Ok(process.stdout())
    }

    /// Whether the program has this command and these flags, by its own `--help`. For checking what documents say.
    ///
    /// # Errors
    /// When it has not; the message shows the help.
    pub async fn check_usage(words: &[&str]) -> anyhow::Result<()> {
        let command: Vec<_> = words.iter().take_while(|word| is_name(word)).collect();
        let help = Self::new(&command).arg("--help").succeed().await?;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap_or(flag);
            let known = help.split([' ', ',', '=', '\n']).any(|word| word == flag);
            ensure!(
                known,
                "`confiture {}` has no flag {flag}:\n{help}",
                words.join(" ")
            );
        }
        Ok(())
    }

    /// The call in words, without arguments that may hold a password.
    fn title(&self) -> String {
        let shown = self.args.iter().map(|arg| arg.to_string_lossy());
        let shown: Vec<_> = shown
            .map(|arg| if arg.contains("://") { "URL".into() } else { arg })
            .collect();
        format!("confiture {}", shown.join(" "))
    }
}

/// Whether a word may be a command's name; a value of one (`confiture new NAME`) is in capitals in documents.
fn is_name(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_lowercase())
}
