//! One database without a coordinator: two runs compete for it, are killed, frozen and started again until one of them
//! says that all is done.

use crate::Outcome;
use crate::nemesis::{Count, Nemesis, Pooler, lossy};
use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tests::load::{Load, Plan};
use tests::migrations::Migrations;
use tests::pgbouncer::{Options, PgBouncer};
use tests::postgres::{Database, Server};
use tests::process::{Build, Confiture, Process};
use tokio::time::Instant;

/// How long a holder counts as alive here. Freezes are shorter and longer than that.
const HOLDER_TIME: &str = "1s";

/// A round that takes longer has got stuck.
const STUCK: Duration = Duration::from_mins(2);

/// Runs that compete at the same time.
const RIVALS: usize = 2;

/// Times that the migration changes each row: each a step of its own, that no repetition may repeat.
pub(crate) const TIMES: i64 = 3;
/// One range after the other, several at once that are split, and both with a pause in which a run can be met between
/// its transactions.
pub(crate) const COUNT: &str = "up:
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 25, target: 10ms, pause: 3ms } }
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 10, target: 10ms, workers: 3 } }
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 25, target: 10ms, pause: 8ms, workers: 2 } }
";

/// Rows that take the migration a while, as with the triggers of a real table: a run is then met inside its transactions,
/// and a step has dozens of batches.
pub(crate) const SLOW: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_sleep(0.0005); RETURN new; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW WHEN (old.n % 1000 <> new.n % 1000) EXECUTE FUNCTION slow()";

/// A run that was started, until it has ended.
struct Rival {
    process: Process,
    frozen_until: Option<Instant>,
}

/// How runs of a round are started.
struct Starts {
    command: Confiture,
    started: u32,
}

/// The applications of a round; it ends before they do.
pub(crate) fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        rows: 400,
        sessions: 3,
        transactions: 20_000,
    }
}

/// What is on the way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    /// A PgBouncer with a pool of two.
    Pooled,
}

/// One round; `planted` is the mistake that the program makes on purpose.
pub(crate) async fn round(
    server: &mut Server,
    seed: u64,
    way: Way,
    planted: Option<&str>,
) -> anyhow::Result<Outcome> {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = Count::default();
    let database = server.fresh_database().await?;
    let plan = plan(seed);
    Load::create(&database, plan).await?;
    database.execute(SLOW).await?;
    let load = Load::start(&database, plan);
    let migrations = Migrations::write(&[("1_count.yaml", COUNT)])?;
    let pooler = match way {
        Way::Direct => None,
        Way::Pooled => Some(Pooler {
            pgbouncer: PgBouncer::start(server, Options::default()).await?,
            frozen_until: None,
        }),
    };
    let behind = (pooler.as_ref()).map_or(server.port(), |pooler| pooler.pgbouncer.port());
    let proxy = lossy(behind, seed, &count).await?;
    let mut command = Confiture::new(["migrate", "up", "--migrations"])
        .build(planted.map_or(Build::Faults, |_| Build::PlantedBugs))
        .arg(migrations.path())
        .env("DATABASE_URL", proxy.url(server, &database))
        .env("CONFITURE_HOLDER_TIME", HOLDER_TIME);
    if let Some(planted) = planted {
        command = command.env("CONFITURE_PLANTED", planted);
    }
    let mut starts = Starts { command, started: 0 };
    let mut nemesis = Nemesis {
        restarts: rng.random_range(0..=1),
        rng,
        server,
        database: database.clone(),
        proxy,
        count: count.clone(),
        stalled: Vec::new(),
        pooler,
    };
    let mut outcome = Outcome::default();
    fight(&mut nemesis, &mut starts, &mut outcome).await?;
    let record = load.finish().await?;
    let wrong = record.check(&database, TIMES).await?;
    if !wrong.is_nothing() {
        outcome
            .violations
            .push(format!("of {} rows {wrong}", record.rows()));
    }
    outcome.violations.extend(ledger_problem(&database).await?);
    outcome.faults += count.load(Ordering::Relaxed);
    Ok(outcome)
}

/// Until one run says that all is done, and the others have ended too.
async fn fight(nemesis: &mut Nemesis<'_>, starts: &mut Starts, outcome: &mut Outcome) -> anyhow::Result<()> {
    let end = Instant::now() + STUCK;
    let mut rivals: Vec<Rival> = Vec::new();
    let mut done = false;
    while !done {
        if Instant::now() > end {
            let said: Vec<String> = rivals.iter().map(|rival| rival.process.stderr()).collect();
            bail!("no run came to its end in {STUCK:?}:\n{}", said.join("\n"));
        }
        while rivals.len() < RIVALS {
            rivals.push(starts.next(nemesis)?);
        }
        nemesis.wait().await?;
        match nemesis.rng.random_range(0..10) {
            _ if nemesis.is_tired() => {}
            0 => nemesis.strike().await?,
            1 => harm(nemesis, &mut rivals)?,
            _ => {}
        }
        done |= bury(&mut rivals, outcome)?;
        lose_patience(nemesis, starts, &mut rivals)?;
    }
    nemesis.make_peace()?;
    let rest = Instant::now() + STUCK;
    while !rivals.is_empty() {
        for rival in &mut rivals {
            rival.wake(Instant::now() + STUCK)?;
        }
        bury(&mut rivals, outcome)?;
        if Instant::now() > rest {
            bail!("a run does not end: {}", rivals[0].process.stderr());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

impl Starts {
    /// One more run; half of them displace others, and half carry a fault in themselves.
    fn next(&mut self, nemesis: &mut Nemesis<'_>) -> anyhow::Result<Rival> {
        let peace = nemesis.is_tired();
        let rng = &mut nemesis.rng;
        let manners = if rng.random_bool(0.5) {
            Manners::Displaces
        } else {
            Manners::Waits
        };
        let fault = (!peace && rng.random_bool(0.5)).then(|| fault(rng));
        self.start(manners, fault)
    }

    fn start(&mut self, manners: Manners, fault: Option<String>) -> anyhow::Result<Rival> {
        self.started += 1;
        let mut command = self.command.clone();
        if manners == Manners::Displaces {
            command = command.arg("--take-over");
        }
        if let Some(fault) = fault {
            command = command.env("CONFITURE_FAULT", fault);
        }
        Ok(Rival {
            process: command.start(&format!("run {}", self.started))?,
            frozen_until: None,
        })
    }
}

/// What a run does about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    Waits,
    Displaces,
}

/// A fault at one of the points inside a run: mostly inside its transactions, where a sleeper holds locks.
pub(crate) fn fault(rng: &mut StdRng) -> String {
    let point = match rng.random_range(0..10) {
        0 => "after_takeover",
        1..5 => "after_fence_lock",
        5 => "after_change",
        6..8 => "before_commit",
        8 => "after_commit",
        _ => "before_report",
    };
    let kind = match rng.random_range(0..4) {
        0 => "exit".to_owned(),
        1 => "error".to_owned(),
        _ => format!("stall={}ms", rng.random_range(300..4_000)),
    };
    format!("{point}:{kind}@{}", rng.random_range(1..=12))
}

/// Somebody who sees a run wait for another now and then starts one that does not wait: the other may be asleep, and wake
/// up later.
fn lose_patience(nemesis: &mut Nemesis<'_>, starts: &mut Starts, rivals: &mut [Rival]) -> anyhow::Result<()> {
    for rival in rivals.iter_mut().filter(|rival| rival.frozen_until.is_none()) {
        if rival.process.stderr().contains("waiting for") && nemesis.rng.random_bool(0.25) {
            rival.process.kill();
            *rival = starts.start(Manners::Displaces, None)?;
        }
    }
    Ok(())
}

/// Kills one of the runs, or freezes it for less or more than its lease.
fn harm(nemesis: &mut Nemesis<'_>, rivals: &mut [Rival]) -> anyhow::Result<()> {
    let chosen = nemesis.rng.random_range(0..rivals.len());
    let rival = &mut rivals[chosen];
    if rival.process.ended()?.is_some() || rival.frozen_until.is_some() {
        return Ok(());
    }
    nemesis.did();
    if nemesis.rng.random_bool(0.5) {
        rival.process.kill();
    } else {
        rival.process.freeze()?;
        let time = Duration::from_millis(nemesis.rng.random_range(100..3_500));
        rival.frozen_until = Some(Instant::now() + time);
    }
    Ok(())
}

impl Rival {
    /// Wakes it when its time has come.
    fn wake(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.frozen_until = None;
            // One that was asleep by a fault of its own was woken by that, and may have ended.
            if self.process.ended()?.is_none() {
                self.process.resume()?;
            }
        }
        Ok(())
    }
}

/// Takes out those that have ended, and says whether one of them had finished the work.
fn bury(rivals: &mut Vec<Rival>, outcome: &mut Outcome) -> anyhow::Result<bool> {
    let mut done = false;
    for mut rival in std::mem::take(rivals) {
        rival.wake(Instant::now())?;
        let Some(status) = rival.process.ended()? else {
            rivals.push(rival);
            continue;
        };
        let said = rival.process.stderr();
        outcome.faults += u64::from(said.contains("a fault on purpose"));
        // A fault of its own ended it, or one of ours.
        let harmed =
            matches!(status.code(), None | Some(137)) || said.contains("reaching a fault on purpose failed");
        // A run that finds no server at its start says so and ends.
        let unlucky = status.code() == Some(1) && said.contains("cannot connect to");
        match status.code() {
            Some(0) => done = true,
            Some(4) => {}
            _ if harmed || unlucky => {}
            code => outcome
                .violations
                .push(format!("a run ended with {code:?}: {said}")),
        }
    }
    Ok(done)
}

/// What `ledger verify` finds wrong.
pub(crate) async fn ledger_problem(database: &Database) -> anyhow::Result<Option<String>> {
    let verified = Confiture::new(["ledger", "verify"])
        .build(Build::Faults)
        .env("DATABASE_URL", database.url())
        .run()
        .await
        .context("verifying the ledger")?;
    let good = verified.code == Some(0) && verified.stdout.contains("the ledger is as it must be");
    Ok((!good).then(|| format!("ledger verify: {}{}", verified.stdout, verified.stderr)))
}
