//! One of our daemons: its settings file, and its process through all its lives.

use crate::directory::Directory;
use crate::process::{Confiture, Process};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

const STOP: Duration = Duration::from_secs(30);

/// `confiture coordinator` or `confiture agent` with its settings; ended when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    /// The program with its environment, without arguments.
    program: Confiture,
    command: &'static str,
    folder: Directory,
    process: Option<Process>,
}

impl Daemon {
    /// Not started yet. The settings file is JSON, which is YAML too.
    pub(super) fn new(
        program: &Confiture,
        name: &str,
        command: &'static str,
        settings: &Value,
    ) -> anyhow::Result<Self> {
        let folder = Directory::new()?;
        folder.write("confiture.yaml", serde_json::to_string_pretty(settings)?)?;
        Ok(Self {
            name: name.to_owned(),
            program: program.clone(),
            command,
            folder,
            process: None,
        })
    }

    /// Starts it, with further arguments.
    pub(super) fn launch(&mut self, args: &[&str]) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("{} is running already", self.name);
        }
        let call = self.program.clone().arg(self.command);
        let call = call.arg("--config").arg(self.settings());
        let call = args.iter().fold(call, Confiture::arg).folder(self.folder.path());
        self.process = Some(call.start(&self.name)?);
        Ok(())
    }

    /// Its settings file.
    pub fn settings(&self) -> PathBuf {
        self.folder.path().join("confiture.yaml")
    }

    /// Its working folder, where the settings and an embedded store lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The running process.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process
            .as_mut()
            .with_context(|| format!("{} is not running", self.name))
    }

    /// Everything it has printed since it was last started.
    pub fn log(&self) -> String {
        self.process
            .as_ref()
            .map(|process| process.stdout() + &process.stderr())
            .unwrap_or_default()
    }

    /// Waits until it logs a line that contains `text`, since it was last started.
    pub async fn wait_for_line(&self, text: &str, deadline: Duration) -> anyhow::Result<String> {
        let process = self
            .process
            .as_ref()
            .with_context(|| format!("{} is not running", self.name))?;
        process.wait_for_line(text, deadline).await
    }

    /// SIGKILL, and what it had printed.
    pub fn kill(&mut self) -> anyhow::Result<String> {
        self.process()?.kill();
        let log = self.log();
        self.process = None;
        Ok(log)
    }

    /// SIGTERM, then waits for its end.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.process()?.terminate()?;
        self.wait_for_end(STOP).await
    }

    /// Waits until it ends by itself.
    pub async fn wait_for_end(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let status = self.process()?.wait(deadline).await?;
        self.process = None;
        Ok(status)
    }

    /// SIGSTOP: it stands still, with all its connections open.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.process()?.freeze()
    }

    /// Ends [`Daemon::freeze`].
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.process()?.resume()
    }
}
