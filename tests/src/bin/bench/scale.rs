//! What a coordinator costs for ten thousand databases. They are simulated; coordinator, etcd and streams are real.

use crate::{median, megabytes};
use anyhow::Context as _;
use proto::v1::WatchRolloutRequest;
use std::time::{Duration, Instant};
use tests::etcd::{Etcd, Writes};
use tests::fleet::{Coordinator, Operator, Simulated, Size};
use tests::migrations::Migrations;
use tests::process::Usage;

const SIZE: Size = Size {
    agents: 100,
    databases_each: 100,
    work: Duration::from_millis(100),
};
const IN_FLIGHT: u32 = 500;
/// What a migration takes that changes next to nothing.
const BRIEFLY: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_mins(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Prints what rollouts over ten thousand databases cost, and how the cost of a database grows with their number.
pub(crate) async fn measure() -> anyhow::Result<()> {
    many().await?;
    few_at_a_time().await
}

/// A rollout that works everywhere, and one that has nothing to do.
async fn many() -> anyhow::Result<()> {
    println!(
        "Scale: {} simulated databases on {} agents, {IN_FLIGHT} at a time, {} ms each; one etcd, one coordinator",
        SIZE.databases(),
        SIZE.agents,
        SIZE.work.as_millis()
    );
    let began = Instant::now();
    let mut fleet = Fleet::start(SIZE).await?;
    println!("  registered after {:.2} s", began.elapsed().as_secs_f64());
    for title in ["rollout", "rollout with nothing to do"] {
        let before = fleet.moment().await?;
        let answers = fleet.watched_rollout().await?;
        let after = fleet.moment().await?;
        println!("  {title}");
        before.print_until(&after);
        answers.print();
    }
    println!(
        "  (aims for a rollout: under 60 s, 5 keys or fewer per database, 300 MB, answers within 200 ms)"
    );
    fleet.stop().await
}

/// With the default limit each database is a round of its own: it must not cost more the more others there are.
async fn few_at_a_time() -> anyhow::Result<()> {
    println!(
        "Scale: simulated databases, 8 at a time, {} ms each",
        BRIEFLY.as_millis()
    );
    for agents in [10, 30] {
        let size = Size {
            agents,
            databases_each: 100,
            work: BRIEFLY,
        };
        let mut fleet = Fleet::start(size).await?;
        let before = fleet.moment().await?;
        fleet.coordinator.rollout(&fleet.set).succeed().await?;
        let newest = fleet.coordinator.rollouts().await?.into_iter().next();
        let id = newest.context("there is no rollout")?.id;
        fleet.coordinator.wait_for_end_of(&id, LONGEST).await?;
        let after = fleet.moment().await?;
        let databases = u32::try_from(size.databases())?;
        let cpu = after.coordinator.cpu.saturating_sub(before.coordinator.cpu) / databases;
        let time = (after.at - before.at) / databases;
        println!(
            "  {databases:5} databases        {:8.2} ms of CPU per database, one every {:.2} ms",
            cpu.as_secs_f64() * 1000.0,
            time.as_secs_f64() * 1000.0
        );
        fleet.stop().await?;
    }
    println!();
    Ok(())
}

struct Fleet {
    size: Size,
    etcd: Etcd,
    coordinator: Coordinator,
    agents: Simulated,
    set: Migrations,
}

impl Fleet {
    async fn start(size: Size) -> anyhow::Result<Self> {
        let etcd = Etcd::start().await?;
        let coordinator = Coordinator::start("coordinator", &etcd.store(&Etcd::fresh_prefix())).await?;
        let agents = Simulated::start(&coordinator.url(), size)?;
        let names = agents.names()?;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        coordinator.wait_for_databases(&names).await?;
        let set = Migrations::write(&[("001_simulated.up.sql", "CREATE TABLE simulated ()")])?;
        Ok(Self {
            size,
            etcd,
            coordinator,
            agents,
            set,
        })
    }

    async fn moment(&mut self) -> anyhow::Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            writes: self.etcd.writes().await?,
            coordinator: self.coordinator.process()?.usage()?,
        })
    }

    /// Ends it, if all is as it must be.
    async fn stop(self) -> anyhow::Result<()> {
        let record = self.agents.record();
        anyhow::ensure!(
            record.migrations == self.size.databases() && record.doubled.is_empty(),
            "not each database was migrated once: {record:?}"
        );
        self.agents.stop().await
    }
}

/// What was used until now.
struct Moment {
    at: Instant,
    writes: Writes,
    coordinator: Usage,
}

impl Moment {
    fn print_until(&self, later: &Self) {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let keys = (later.writes.keys - self.writes.keys) as f64 / SIZE.databases() as f64;
        println!(
            "    time                          {:8.2} s",
            (later.at - self.at).as_secs_f64()
        );
        println!("    keys written per database     {keys:8.2}");
        println!(
            "    transactions                  {:5}",
            later.writes.transactions - self.writes.transactions
        );
        println!(
            "    coordinator: CPU time         {:8.2} s",
            later
                .coordinator
                .cpu
                .saturating_sub(self.coordinator.cpu)
                .as_secs_f64()
        );
        println!(
            "    coordinator: memory at most   {:8.2} MB",
            megabytes(later.coordinator.peak_memory_bytes)
        );
    }
}

/// How long answers took during a rollout.
#[derive(Default)]
struct Answers {
    list: Vec<Duration>,
    show: Vec<Duration>,
    /// Until the first message, which has all databases.
    watch: Vec<Duration>,
}

impl Answers {
    fn print(self) {
        for (what, times) in [("list", self.list), ("show", self.show), ("watch", self.watch)] {
            let slowest = times.iter().max().copied().unwrap_or_default();
            println!(
                "    {what:5} answers within          {:5} ms, the middle one of {} within {} ms",
                slowest.as_millis(),
                times.len(),
                median(times).as_millis()
            );
        }
    }
}

impl Fleet {
    /// A rollout to its end, and how long answers took meanwhile.
    async fn watched_rollout(&self) -> anyhow::Result<Answers> {
        let start = self.coordinator.rollout(&self.set).arg("--max-in-flight");
        start.arg(IN_FLIGHT.to_string()).succeed().await?;
        let operator = self.coordinator.operator().await?;
        let mut answers = Answers::default();
        let end = Instant::now() + LONGEST;
        loop {
            let began = Instant::now();
            let newest = self.coordinator.rollouts().await?.into_iter().next();
            let newest = newest.context("there is no rollout")?;
            answers.list.push(began.elapsed());
            if newest.ended_at_unix_ms != 0 {
                return Ok(answers);
            }
            anyhow::ensure!(Instant::now() < end, "the rollout takes longer than {LONGEST:?}");
            let began = Instant::now();
            self.coordinator.show(&newest.id).await?;
            answers.show.push(began.elapsed());
            let began = Instant::now();
            watch(operator.clone(), newest.id).await?;
            answers.watch.push(began.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn watch(mut operator: Operator, id: String) -> anyhow::Result<()> {
    let mut messages = operator
        .watch_rollout(WatchRolloutRequest { id })
        .await?
        .into_inner();
    let first = messages.message().await?.context("the watch ended at once")?;
    anyhow::ensure!(
        first.changed.len() == SIZE.databases(),
        "a watch begins with all databases"
    );
    Ok(())
}
