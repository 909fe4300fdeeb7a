//! Applications at work on the table that is changed, and what they wait for.

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::postgres::Database;

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
    let stop = Arc::new(AtomicBool::new(false));
    let sessions = futures_util::future::try_join_all(
        (0..SESSIONS).map(|seed| load(database, rows, seed, Arc::clone(&stop))),
    );
    let working = async {
        // The first transactions of a session read the catalog.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let done = work.await;
        stop.store(true, Ordering::Relaxed);
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
    stop: Arc<AtomicBool>,
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
    while !stop.load(Ordering::Relaxed) {
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
