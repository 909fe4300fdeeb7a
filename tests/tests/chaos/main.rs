//! Chaos: applications at work, runs that compete, and everything dies, freezes and loses its answers at random. No row is
//! lost, none is changed twice and none is left out; the ledger is as it must be; nobody unlocks anything by hand.
//!
//! ```text
//! make chaos ROUNDS=1000            so many rounds, each with a seed of its own
//! make chaos ROUNDS=1 SEED=42       the choices of that round again; the moments are the machine's
//! ```

mod fleet;
mod nemesis;
mod runs;

use anyhow::{Context as _, ensure};
use runs::Way;
use std::io::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::postgres::Server;
use tests::process::Build;

/// Rounds of an everyday test run.
const EVERYDAY: u64 = 20;
const EVERYDAY_POOLED: u64 = 2;
const EVERYDAY_OF_FLEETS: u64 = 2;

/// An everyday test run begins no further round after this time: a busy machine does fewer.
const EVERYDAY_TIME: Duration = Duration::from_mins(2);

/// Servers on which rounds run side by side: each restarts its own.
const LANES: usize = 2;

/// What a round came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Faults that happened.
    faults: u64,
    /// What must not be, in words.
    violations: Vec<String>,
}

/// The seeds of this test run, and how long it may go on to the next.
fn seeds(everyday: u64) -> anyhow::Result<(Range<u64>, Duration)> {
    let number = |name: &str| -> anyhow::Result<Option<u64>> {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty());
        text.map(|text| text.parse().with_context(|| format!("{name} is a number")))
            .transpose()
    };
    let (rounds, time) = match number("CHAOS_ROUNDS")? {
        Some(rounds) => (rounds, Duration::MAX),
        None => (everyday, EVERYDAY_TIME),
    };
    // Short enough to be typed.
    let first = number("CHAOS_SEED")?.unwrap_or_else(|| rand::random_range(1..1_000_000_000));
    Ok((first..first + rounds, time))
}

/// Past the test runner, which shows what a test prints only when it fails.
fn say(text: &str) {
    // A closed stderr is no reason to fail.
    drop(writeln!(std::io::stderr(), "chaos: {text}"));
}

/// Rounds on servers of their own, side by side, until the seeds are used up. Says all that went wrong, not only the first.
async fn all_of(
    what: &str,
    (seeds, time): (Range<u64>, Duration),
    round: impl AsyncFn(&mut Server, u64) -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let (first, rounds) = (seeds.start, seeds.end - seeds.start);
    say(&format!("{rounds} rounds of {what} from seed {first}"));
    let (began, done) = (Instant::now(), AtomicU64::new(0));
    let left = Mutex::new(seeds);
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let lane = async || -> anyhow::Result<(u64, Vec<String>)> {
        let mut server = Server::start().await?;
        let (mut faults, mut violations) = (0, Vec::new());
        while began.elapsed() < time
            && let Some(seed) = next()
        {
            is_ready(&server).await?;
            let outcome = round(&mut server, seed).await;
            let outcome = outcome.with_context(|| format!("the round of {what} with seed {seed}"))?;
            faults += outcome.faults;
            done.fetch_add(1, Ordering::Relaxed);
            let named = outcome.violations.iter();
            violations.extend(named.map(|violation| format!("seed {seed}: {violation}")));
        }
        Ok((faults, violations))
    };
    let lanes = futures_util::future::try_join_all((0..LANES).map(|_| lane())).await?;
    let faults: u64 = lanes.iter().map(|(faults, _)| faults).sum();
    let violations: Vec<String> = lanes.into_iter().flat_map(|(_, violations)| violations).collect();
    say(&format!(
        "{} rounds of {what} in {:.0} s: {faults} faults, {} violations",
        done.into_inner(),
        began.elapsed().as_secs_f64(),
        violations.len()
    ));
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(())
}

/// One after the other: together they would load a small machine so much that the tests' own deadlines come first.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server that was restarted at the end of the round before takes connections again.
async fn is_ready(server: &Server) -> anyhow::Result<()> {
    tests::eventually("the server takes connections", Duration::from_mins(1), || async {
        Ok(server.admin("postgres").await.ok().map(drop))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_compete_under_fire_change_each_row_exactly_once() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let round = async |server: &mut Server, seed| runs::round(server, seed, Way::Direct, None).await;
    all_of("competing runs", seeds(EVERYDAY)?, round).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_compete_under_fire_behind_a_pooler_change_each_row_exactly_once() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let round = async |server: &mut Server, seed| runs::round(server, seed, Way::Pooled, None).await;
    all_of("competing runs behind PgBouncer", seeds(EVERYDAY_POOLED)?, round).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_under_fire_changes_each_row_exactly_once() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    all_of("a fleet", seeds(EVERYDAY_OF_FLEETS)?, fleet::round).await
}

/// Each breaks one rule of the batch loop; the program knows what they are.
const PLANTED: [&str; 6] = [
    "separate_checkpoint",
    "plain_read",
    "key_share",
    "skip_locked_cursor",
    "retry_unknown_commit",
    "cursor_in_memory",
];

/// Rounds in which a mistake must have been noticed.
const WITHIN: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_mistake_is_noticed() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    Build::PlantedBugs.make().await?;
    let left = Mutex::new(PLANTED.to_vec());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let lane = async || -> anyhow::Result<Vec<&str>> {
        let mut server = Server::start().await?;
        let mut unnoticed = Vec::new();
        while let Some(planted) = next() {
            let first = rand::random_range(1..1_000_000_000);
            let mut noticed = None;
            for seed in first..first + WITHIN {
                is_ready(&server).await?;
                let outcome = runs::round(&mut server, seed, Way::Direct, Some(planted)).await?;
                if let Some(violation) = outcome.violations.first() {
                    let line = violation.lines().next().unwrap_or_default();
                    noticed = Some(format!("in round {}: {line}", seed - first + 1));
                    break;
                }
            }
            say(&format!(
                "{planted} is noticed {}",
                noticed.as_deref().unwrap_or("never")
            ));
            if noticed.is_none() {
                unnoticed.push(planted);
            }
        }
        Ok(unnoticed)
    };
    let unnoticed = futures_util::future::try_join_all((0..LANES).map(|_| lane())).await?;
    assert_eq!(unnoticed.concat(), Vec::<&str>::new());
    Ok(())
}
