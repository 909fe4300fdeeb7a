//! What applications notice: the latency of their transactions alone, beside batches, and beside one UPDATE.

use crate::load::{self, PER_SECOND, timed};
use crate::table::{Steps, fill, server};
use std::time::Duration;
use tests::postgres::Database;

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 5;

/// How long the load is measured alone: about as long as beside batches.
const LONG: Duration = Duration::from_secs(30);

const DEFAULT: &str = "backfill: { table: public.items, set: { gross: net * 1.2 }, sync: none }";
const FULL: &str = "backfill: { table: public.items, set: { gross: net * 1.3 }, sync: none, batch: { workers: 2, max_duty: 1 } }";

/// Prints the 99th percentile of each, and the ratios.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!(
        "Neighbours: 99th percentile of {PER_SECOND} transactions a second on the table of {ROWS} rows that is changed, medians of {ROUNDS} rounds"
    );
    let server = server().await?;
    let database = server.database("bench").await?;
    let mut steps = Steps::on(&database).await?;
    let (mut alone, mut default, mut full, mut plain) = (vec![], vec![], vec![], vec![]);
    let (mut default_time, mut full_time, mut plain_time) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        fill(&server, &database, ROWS).await?;
        alone.push(beside(&database, tokio::time::sleep(LONG)).await?.0);
        let (latency, (time, ran)) = beside(&database, timed(steps.run(DEFAULT))).await?;
        ran?;
        default.push(latency);
        default_time.push(time);
        fill(&server, &database, ROWS).await?;
        let (latency, (time, ran)) = beside(&database, timed(steps.run(FULL))).await?;
        ran?;
        full.push(latency);
        full_time.push(time);
        fill(&server, &database, ROWS).await?;
        let session = database.connect().await?;
        let update = session.execute("UPDATE public.items SET gross = net * 1.4", &[]);
        let (latency, (time, ran)) = beside(&database, timed(update)).await?;
        ran?;
        plain.push(latency);
        plain_time.push(time);
    }
    let mut ratios: Vec<f64> = (default.iter().zip(&alone))
        .map(|(default, alone)| default.div_duration_f64(*alone))
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let [alone, default, full, plain] = [alone, default, full, plain].map(crate::median);
    let [default_time, full_time, plain_time] = [default_time, full_time, plain_time].map(crate::median);
    let line = |name: &str, latency: Duration, time: Option<Duration>| {
        let time = time.map_or(String::new(), |time| {
            format!("    in {:.1} s", time.as_secs_f64())
        });
        println!("  {name:22}{:7.1} ms{time}", latency.as_secs_f64() * 1000.0);
    };
    line("alone", alone, None);
    line("beside, default pace", default, Some(default_time));
    line("beside, full speed", full, Some(full_time));
    line("beside one UPDATE", plain, Some(plain_time));
    println!(
        "  default against alone {:7.2}    (aim: 1.2 or less; by round {:.2} to {:.2})",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    println!(
        "  full speed against one UPDATE {:.2}    (aim: well below 1)",
        full.as_secs_f64() / plain.as_secs_f64()
    );
    Ok(())
}

/// The 99th percentile of the load's latencies while `work` runs.
async fn beside<T>(database: &Database, work: impl Future<Output = T>) -> anyhow::Result<(Duration, T)> {
    let (latencies, done) = load::beside(database, ROWS, work).await?;
    let place = latencies.len() * 99 / 100;
    Ok((latencies.get(place).copied().unwrap_or_default(), done))
}
