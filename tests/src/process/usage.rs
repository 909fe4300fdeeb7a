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
            cpu: ticks(&read("stat")?, TIMES).with_context(|| format!("{} has no CPU times", self.name()))?,
            peak_memory_bytes: peak_memory_bytes(&read("status")?)
                .with_context(|| format!("{} has no memory any more", self.name()))?,
        })
    }
}

/// The CPU time of a process and of all its children, those that have ended and were waited for included: of a
/// postmaster, what its server has used. In steps of 10 ms for each process.
///
/// # Errors
/// When it has ended.
pub fn cpu_with_children(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let mut sum = ticks(&stat, TIMES + 2).with_context(|| format!("{path} has no CPU times"))?;
    for entry in std::fs::read_dir("/proc")? {
        // Who has ended meanwhile counts the next time.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        if field(&stat, PARENT) == Some(pid.into()) {
            sum += ticks(&stat, TIMES).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Of the fields after the program's name: the parent's pid, and where CPU times begin: `utime`, `stime`, and those of
/// children that were waited for.
const PARENT: usize = 1;
const TIMES: usize = 11;

fn field(stat: &str, place: usize) -> Option<u64> {
    // The second field of all is the program's name in brackets and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(place)?.parse().ok()
}

/// The sum of the times up to a place.
fn ticks(stat: &str, last: usize) -> Option<Duration> {
    let mut ticks = 0;
    for place in TIMES..=last + 1 {
        ticks += field(stat, place)?;
    }
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn peak_memory_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
