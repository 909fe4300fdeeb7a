//! What it costs to count and to tell: the same backfill with metrics and traces, and without.

use crate::median;
use crate::table::{Steps, fill, server};
use tests::collector::Collector;
use tests::directory::Directory;

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 21;

/// Of 21 values in order, the true median lies between those at these places in 97 of 100 runs: the binomial
/// distribution's bounds.
const LIKELY: std::ops::RangeInclusive<usize> = 5..=15;

const STEP: &str = "backfill: { table: public.items, set: { gross: net * 1.2 }, sync: none, batch: { workers: 1, max_duty: 1 } }";

/// Prints both times and their ratio.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let server = server().await?;
    let database = server.database("bench").await?;
    let mut steps = Steps::on(&database).await?;
    let (collector, folder) = (Collector::start()?, Directory::new()?);
    let file = folder.path().join("confiture.prom");
    println!(
        "Telling: a backfill of {ROWS} rows with metrics and traces, against without, over {ROUNDS} rounds"
    );
    let (mut silent, mut telling) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS * 2 {
        fill(&server, &database, ROWS).await?;
        if (round + round / 2) % 2 == 0 {
            silent.push(steps.run(STEP).await?);
        } else {
            let told = |command: tests::process::Confiture| {
                command
                    .arg("--metrics-file")
                    .arg(&file)
                    .env("CONFITURE_OBSERVABILITY_OTLP_ENDPOINT", collector.url())
            };
            telling.push(steps.run_with(STEP, told).await?);
        }
    }
    let spans = collector.spans().len();
    anyhow::ensure!(spans > ROUNDS * 10, "only {spans} spans were told");
    let mut ratios: Vec<f64> = (telling.iter().zip(&silent))
        .map(|(telling, silent)| telling.as_secs_f64() / silent.as_secs_f64())
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (silent, telling) = (median(silent), median(telling));
    println!("  without               {:7.2} s", silent.as_secs_f64());
    println!("  with, {spans:5} spans     {:7.2} s", telling.as_secs_f64());
    println!(
        "  ratio                 {:7.3}    (aim: 1.02 or less; median of neighbours, likely between {:.3} and {:.3})",
        ratios[ROUNDS / 2],
        ratios[*LIKELY.start()],
        ratios[*LIKELY.end()],
    );
    Ok(())
}
