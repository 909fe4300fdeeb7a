//! `make bench`: what Confiture costs beside plain PostgreSQL, as ratios measured in one run on one machine.
//!
//! Each comparison alternates its two sides over several rounds and takes medians: absolute times on a shared machine
//! say little, ratios of neighbours do. Both sides run on the same server with `fsync = on`. An argument (`fleet`, `scale`, `rollout`,
//! `batches`, `growth`, `neighbours`, `stalls`, `indexes`, `telemetry`) names the only part to run.

#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]

mod bare;
mod batches;
mod fleet;
mod growth;
mod indexes;
mod load;
mod neighbours;
mod rollout;
mod scale;
mod stalls;
mod table;
mod telemetry;

use anyhow::{Context as _, bail};
use std::process::ExitCode;
use std::time::Duration;

const LONGEST: Duration = Duration::from_mins(40);

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = async {
        let interrupted = runtime::shutdown::token()?;
        tokio::select! {
            outcome = tokio::time::timeout(LONGEST, measure()) => outcome.context("it takes too long")?,
            () = interrupted.cancelled() => bail!("interrupted; everything is stopped and removed"),
        }
    };
    match outcome.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("The benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> anyhow::Result<()> {
    let only = std::env::args().nth(1);
    let wanted = |part| only.as_deref().is_none_or(|only| only == part);
    if wanted("fleet") {
        fleet::measure().await?;
    }
    if wanted("scale") {
        scale::measure().await?;
    }
    if wanted("rollout") {
        rollout::measure().await?;
    }
    if wanted("batches") {
        batches::measure().await?;
    }
    if wanted("growth") {
        growth::measure().await?;
    }
    if wanted("neighbours") {
        neighbours::measure().await?;
    }
    if wanted("stalls") {
        stalls::measure().await?;
    }
    if wanted("telemetry") {
        telemetry::measure().await?;
    }
    if wanted("indexes") {
        indexes::measure().await?;
    }
    Ok(())
}

/// The middle one; of an even number the later of the two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
