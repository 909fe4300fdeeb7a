//! What grows with the table: the time of a batch from the first to the last, and the program's memory.

use crate::megabytes;
use crate::table::{Steps, fill, server};
use std::time::Duration;
use tests::process::Process;

const ROWS: u32 = 5_000_000;
const FEW: u32 = 500_000;

/// Prints the time per row of the last tenth of the batches against the first, and the most memory on a small and a large
/// table.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let server = server().await?;
    let database = server.database("bench").await?;
    let mut steps = Steps::on(&database).await?;

    println!("From first to last: {ROWS} rows, one worker, batches of the same time");
    fill(&server, &database, ROWS).await?;
    let step = "backfill: { table: public.items, set: { gross: net * 1.2 }, sync: none, batch: { workers: 1, max_duty: 1 } }";
    steps.run(step).await?;
    let tenth = |which: &str| {
        format!(
            "SELECT (pg_catalog.sum(took) * 1e9 / pg_catalog.sum(rows))::bigint FROM (
               SELECT rows, extract(epoch FROM at - lag(at) OVER (ORDER BY sequence)) AS took,
                      ntile(10) OVER (ORDER BY sequence) AS tenth
                 FROM confiture.batch WHERE (version, step) = (SELECT max(version), 1 FROM confiture.batch)) b
              WHERE tenth = {which} AND took IS NOT NULL"
        )
    };
    let first = database.number(&tenth("1")).await?;
    let last = database.number(&tenth("10")).await?;
    println!("  first tenth           {first:7} ns a row");
    println!("  last tenth            {last:7} ns a row");
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = last as f64 / first as f64;
    println!("  ratio                 {ratio:7.2}    (aim: 1.15 or less)");

    println!("Memory: eight workers, {FEW} and {ROWS} rows");
    let step = "backfill: { table: public.items, set: { gross: net * 1.3 }, sync: none, batch: { workers: 8, max_duty: 1 } }";
    let large = most_memory(&mut steps.start(step)?).await?;
    fill(&server, &database, FEW).await?;
    let small = most_memory(&mut steps.start(step)?).await?;
    println!("  few rows              {small:7.1} MB");
    println!("  many rows             {large:7.1} MB    (aim: under 60, and flat)");
    Ok(())
}

/// The most memory a process had, in MB, read until it ends.
async fn most_memory(process: &mut Process) -> anyhow::Result<f64> {
    let mut most = 0;
    while process.ended()?.is_none() {
        // It may end in between.
        if let Ok(usage) = process.usage() {
            most = usage.peak_memory_bytes;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = process.wait(Duration::from_secs(1)).await?;
    anyhow::ensure!(status.success(), "{}", process.stderr());
    Ok(megabytes(most))
}
