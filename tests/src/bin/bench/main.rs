//! `make bench`: what Confiture costs beside plain PostgreSQL, as ratios measured in one run on one machine.
//!
//! Each comparison alternates its two sides over several rounds and takes medians: absolute times on a shared machine
//! say little, ratios of neighbours do. Both sides run on the same server with `fsync = on`. An argument, `fleet` or
//! `backfill`, names the only part to run.

#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]

mod backfill;
mod fleet;

use std::time::Duration;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let interrupted = runtime::shutdown::token()?;
    let only = std::env::args().nth(1);
    let wanted = |part| only.as_deref().is_none_or(|only| only == part);
    let all = async {
        if wanted("fleet") {
            fleet::measure().await?;
        }
        if wanted("backfill") {
            backfill::measure().await?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = tokio::time::timeout(Duration::from_mins(6), all) => outcome?,
        () = interrupted.cancelled() => anyhow::bail!("interrupted; everything is stopped and removed"),
    }
}

/// The middle one; of an even number the later of the two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
