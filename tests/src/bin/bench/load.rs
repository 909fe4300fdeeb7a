//! Applications at work on the table that is changed, and what they wait for.

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};
use tests::postgres::Database;
use tokio_util::sync::CancellationToken;

/// Sessions, and how often each begins a transaction whatever the one before took.
const SESSIONS: u64 = 4;
const EVERY: Duration = Duration::from_millis(20);

/// Transactions a second, in all.
pub(crate) const PER_SECOND: u64 = 200;

pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let done = work.await;
    (began.elapsed(), done)
}

/// The load's latencies while `work` runs, in order of their length, on a table of so many rows.
pub(crate) async fn beside<T>(
    database: &Database,
    rows: u32,
    work: impl Future<Output = T>,
) -> anyhow::Result<(Vec<Duration>, T)> {
    let stop = CancellationToken::new();
    // Whoever gives up waiting ends the load, too.
    let ends = stop.clone().drop_guard();
    let database = database.clone();
    let sessions = async {
        tokio::task::spawn_blocking(move || {
            // On one thread of its own, as pgbench has: that answers are handed over between threads is no part of what a
            // server makes applications wait for.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let sessions = (0..SESSIONS).map(|seed| load(&database, rows, seed, &stop));
            runtime.block_on(futures_util::future::try_join_all(sessions))
        })
        .await?
    };
    let working = async {
        // The first transactions of a session read the catalog.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let done = work.await;
        drop(ends);
        Ok::<T, anyhow::Error>(done)
    };
    let (latencies, done) = tokio::try_join!(sessions, working)?;
    let mut latencies: Vec<Duration> = latencies.into_iter().flatten().collect();
    latencies.sort_unstable();
    Ok((latencies, done))
}

/// Reads and changes one row in each transaction. A transaction's latency counts from when it was due: one that waits
/// delays those behind it, as it would a request's queue.
async fn load(
    database: &Database,
    rows: u32,
    seed: u64,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Duration>> {
    let session = database.connect().await?;
    let read = session
        .prepare("SELECT net FROM public.items WHERE id = $1")
        .await?;
    let write = session
        .prepare("UPDATE public.items SET net = net + 1 WHERE id = $1")
        .await?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut latencies = Vec::new();
    let began = Instant::now();
    let mut due = EVERY.mul_f64(random.random());
    while !stop.is_cancelled() {
        tokio::time::sleep_until((began + due).into()).await;
        let id = i64::from(random.random_range(1..=rows));
        session.query(&read, &[&id]).await?;
        session.execute(&write, &[&id]).await?;
        if began.elapsed() > Duration::from_millis(500) {
            latencies.push(began.elapsed().saturating_sub(due));
        }
        due += EVERY;
    }
    Ok(latencies)
}
