//! Our own binary, as a user runs it.

use super::{Process, outcome};
use anyhow::{Context as _, bail, ensure};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The longest that a call may take which is waited for to its end.
const LONGEST: Duration = Duration::from_mins(2);

/// One call of `confiture`, to be run to its end or started as a daemon.
///
/// It sees nothing of our own environment but `PATH` and `HOME`: a `DATABASE_URL` or `CONFITURE_*` of the developer
/// must not decide what a test does.
#[derive(Debug, Clone)]
pub struct Confiture {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    folder: Option<PathBuf>,
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
            env: Vec::new(),
            folder: None,
        }
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
        let mut command = Command::new(binary()?);
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

/// The path of the binary, built from this tree in our own profile.
///
/// Cargo gives the binary's path only to tests of the package it belongs to, and a binary found lying about may be
/// older than the code under test. So cargo is asked to build it, once per process; when there is nothing to do that
/// takes a fraction of a second. `CONFITURE_BINARY` names another one, to test an installed program.
pub fn binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("building the confiture binary: {error}"),
    }
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("CONFITURE_BINARY") {
        return Ok(given.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    // Over the whole workspace, so that the crates have the features that the tests were built with and are not built again.
    command.args(["build", "--quiet", "--workspace", "--bin", "confiture"]);
    command.args([
        "--message-format",
        "json-render-diagnostics",
        "--manifest-path",
        manifest,
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo tells us about our own package is not for the build of another: some build scripts (ring's) run again
    // for it, and then everything above them is compiled anew.
    let ours = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_NAME",
        "OUT_DIR",
        "LD_LIBRARY_PATH",
    ];
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| ours.iter().any(|ours| name.starts_with(ours)))
        {
            command.env_remove(name);
        }
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo build ended with {}", outcome(output.status));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .context("cargo named no executable")
}
