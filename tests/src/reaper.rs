//! Ends what we started when we ourselves can no longer do it: after SIGKILL, an abort, or `exit` with statics alive.
//!
//! A small shell process reads from a pipe which children and folders we have. The pipe's end is our end, however it
//! came; then the shell stops those children (by pid, with all their descendants) and removes those folders. Values
//! that are dropped in the ordinary way report so, and the shell has nothing left to do.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = include_str!("reaper.sh");

/// How a child is asked to end before it is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    /// SIGKILL at once.
    Kill,
    /// SIGQUIT first: PostgreSQL then ends its own children and frees its shared memory.
    Quit,
}

/// A child was started.
pub(crate) fn started(pid: u32, ending: Ending) {
    let signal = match ending {
        Ending::Kill => "KILL",
        Ending::Quit => "QUIT",
    };
    tell(&format!("started {pid} {signal}"));
}

/// A child has been waited for: its pid may belong to anybody from now on.
pub(crate) fn ended(pid: u32) {
    tell(&format!("ended {pid}"));
}

/// A folder was made.
pub(crate) fn made(folder: &Path) {
    tell(&format!("made {}", folder.display()));
}

/// A folder was removed.
pub(crate) fn removed(folder: &Path) {
    tell(&format!("removed {}", folder.display()));
}

fn tell(line: &str) {
    static PIPE: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let shell = Command::new("bash")
            .args(["-c", SCRIPT, "confiture-reaper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // out of reach of a Ctrl-C or a kill meant for our group
            .spawn();
        shell.ok()?.stdin.take().map(Mutex::new)
    });
    // Without a reaper the ordinary clean-up on drop remains; a test must not fail for it.
    if let Some(pipe) = pipe {
        let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
        drop(writeln!(pipe, "{line}"));
    }
}
