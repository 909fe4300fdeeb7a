//! The demo ends well, and leaves nothing behind however it ends.

use anyhow::ensure;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::directory::Directory;
use tests::eventually;
use tests::process::Process;

const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_mins(2);

/// The demo with a temporary folder of its own, so that what it leaves can be seen.
fn start(folder: &Directory) -> anyhow::Result<Process> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.env("TMPDIR", folder.path());
    Process::start("the demo", demo)
}

/// Nothing of it is left; the last to go, the one that would clean up after a SIGKILL, ends a moment after it.
async fn nothing_is_left(folder: &Directory, processes: &[u32]) -> anyhow::Result<()> {
    eventually("the demo to leave nothing behind", SOON, || async {
        let files: Vec<_> = std::fs::read_dir(folder.path())?.collect();
        ensure!(files.is_empty(), "there are {files:?}");
        let alive: Vec<_> = processes
            .iter()
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
            .collect();
        ensure!(alive.is_empty(), "still running: {alive:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn every_row_is_changed_once_although_an_agent_dies() -> anyhow::Result<()> {
    let folder = Directory::new()?;
    let mut demo = start(&folder)?;
    demo.wait_for_line("agent-b killed", LONG).await?;
    let processes = demo.descendants();

    let status = demo.wait(LONG).await?;

    let said = demo.stdout();
    assert!(status.success(), "{said}{}", demo.stderr());
    let summary: Vec<_> = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "databases migrated 12 of 12",
        "rows 1200000",
        "rows changed twice 0",
    ] {
        assert!(summary.iter().any(|said| said == line), "no `{line}` in:\n{said}");
    }
    nothing_is_left(&folder, &processes).await
}

#[tokio::test]
async fn an_interrupted_demo_cleans_up() -> anyhow::Result<()> {
    let folder = Directory::new()?;
    let mut demo = start(&folder)?;
    demo.wait_for_line("Giving each server", SOON).await?;
    let processes = demo.descendants();
    ensure!(processes.len() > 3, "three servers run by then: {processes:?}");

    demo.interrupt()?;

    assert_eq!(demo.wait(SOON).await?.code(), Some(130), "{}", demo.stdout());
    nothing_is_left(&folder, &processes).await
}
