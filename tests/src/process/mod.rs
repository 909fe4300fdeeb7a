//! Child processes: their output while they run, their signals, their end.
//!
//! A [`Process`] is ended when dropped. [`Confiture`] starts our own binary as one.

mod binary;
mod confiture;
mod output;
mod tree;
mod usage;

pub use binary::{Build, binary};
pub use confiture::{Confiture, Ended};
pub use output::{Line, Stream};
pub use usage::{Usage, cpu_with_children};

use crate::reaper::{self, Ending};
use anyhow::{Context as _, bail};
use output::Output;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ending: Ending,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` stands for it in messages.
    pub fn start(name: &str, command: Command) -> anyhow::Result<Self> {
        Self::start_with(name, command, Ending::Kill)
    }

    pub(crate) fn start_with(name: &str, mut command: Command, ending: Ending) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {name} ({program})"))?;
        reaper::started(child.id(), ending);
        let output = Output::new();
        let stdout = child
            .stdout
            .take()
            .map(|pipe| output.follow(Stream::Stdout, pipe));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| output.follow(Stream::Stderr, pipe));
        let readers = stdout.into_iter().chain(stderr).collect();
        Ok(Self {
            name: name.to_owned(),
            child,
            ending,
            output,
            readers,
            status: None,
        })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lines().clone()
    }

    /// What it has printed to stdout so far.
    pub fn stdout(&self) -> String {
        self.output.text(Stream::Stdout)
    }

    /// What it has printed to stderr so far.
    pub fn stderr(&self) -> String {
        self.output.text(Stream::Stderr)
    }

    /// Waits until it prints a line that contains `text` (or has done so already), and returns that line.
    ///
    /// # Errors
    /// When the deadline passes or the process ends first; the message shows its latest output.
    pub async fn wait_for_line(&self, text: &str, deadline: Duration) -> anyhow::Result<String> {
        match tokio::time::timeout(deadline, self.output.first(|line| line.contains(text))).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!(
                "{} ended without printing `{text}`:{}",
                self.name,
                self.output.tail()
            ),
            Err(_) => bail!(
                "{} did not print `{text}` in {deadline:?}:{}",
                self.name,
                self.output.tail()
            ),
        }
    }

    /// Hands over each line, from the first on and as soon as it is printed, until the output ends.
    pub async fn each_line(&self, deadline: Duration, take: impl Fn(&str)) -> anyhow::Result<()> {
        let all = self.output.first(|line| {
            take(line);
            false
        });
        let ended = tokio::time::timeout(deadline, all).await;
        ended
            .with_context(|| format!("{} still prints after {deadline:?}", self.name))
            .map(drop)
    }

    /// Waits until it has ended, and until its output is complete.
    ///
    /// # Errors
    /// When the deadline passes; the message shows its latest output.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} did not end in {deadline:?}:{}", self.name, self.output.tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let status = self
                .child
                .try_wait()
                .with_context(|| format!("waiting for {}", self.name))?;
            if let Some(status) = status {
                self.note_end(status);
            }
        }
        Ok(self.status)
    }

    /// SIGKILL; returns when it is gone. Nothing happens when it had ended already.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            // Both fail only for a child that is gone already.
            drop(self.child.kill());
            if let Ok(status) = self.child.wait() {
                self.note_end(status);
            }
        }
    }

    /// SIGSTOP: it stands still, with all its connections open.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on after [`Process::freeze`].
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM: please end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGINT: what Ctrl-C sends.
    pub fn interrupt(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::INT)
    }

    /// Any signal, to this process alone.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "{} has ended already ({}):{}",
                self.name,
                outcome(status),
                self.output.tail()
            );
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Any signal, to this process and all its descendants.
    pub fn signal_tree(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        for pid in tree::descendants(self.pid()) {
            match kill_process(pid, signal) {
                // One that ended since it was listed is no loss.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("sending {signal:?} below {}", self.name));
                }
            }
        }
        Ok(())
    }

    /// The pids of all its descendants at this moment.
    pub fn descendants(&self) -> Vec<u32> {
        let pids = tree::descendants(self.pid()).into_iter();
        pids.filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
            .collect()
    }

    fn note_end(&mut self, status: ExitStatus) {
        self.status = Some(status);
        reaper::ended(self.child.id());
        // A grandchild may hold the pipes open: its lines are then not waited for.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && self.readers.iter().any(|reader| !reader.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// An exit status in words.
pub fn outcome(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() && matches!(self.ending, Ending::Quit) {
            drop(self.signal_tree(Signal::CONT));
            drop(self.signal(Signal::QUIT));
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end && matches!(self.ended(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if self.status.is_none() {
                drop(self.signal_tree(Signal::KILL));
            }
        }
        self.kill();
        if std::thread::panicking() {
            show(&format!(
                "--- last output of {}:{}",
                self.name,
                self.output.tail()
            ));
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the test harness shows what explains a failure; nobody else prints here"
)]
fn show(text: &str) {
    eprintln!("{text}");
}
