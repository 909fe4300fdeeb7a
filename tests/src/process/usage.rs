//! What a process has used so far, from `/proc`.

use super::Process;
use anyhow::Context as _;
use std::time::Duration;

/// The unit of CPU times in `/proc`, in Hz: fixed by Linux for all programs, whatever the kernel's own.
const TICKS_PER_SECOND: u64 = 100;

/// Of one process, without its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of all threads, in user and kernel mode; in steps of 10 ms.
    pub cpu: Duration,
    /// The most memory it ever had.
    pub peak_memory_bytes: u64,
}

impl Process {
    /// What it has used.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.pid());
            std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        Ok(Usage {
            cpu: cpu(&read("stat")?).with_context(|| format!("{} has no CPU times", self.name()))?,
            peak_memory_bytes: peak_memory_bytes(&read("status")?)
                .with_context(|| format!("{} has no memory any more", self.name()))?,
        })
    }
}

fn cpu(stat: &str) -> Option<Duration> {
    // The second field is the program's name in brackets and may hold anything; `utime` and `stime` are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut times = rest.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn peak_memory_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
