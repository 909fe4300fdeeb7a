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
const LONGEST: Duration = Duration::from_mins(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Prints time, writes, CPU time and memory of a rollout that works everywhere and of one that has nothing to do.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!(
        "Scale: {} simulated databases on {} agents, {IN_FLIGHT} at a time, {} ms each; one etcd, one coordinator",
        SIZE.databases(),
        SIZE.agents,
        SIZE.work.as_millis()
    );
    let etcd = Etcd::start().await?;
    let store = etcd.store(&Etcd::fresh_prefix());
    let mut coordinator = Coordinator::start("coordinator", &store).await?;
    let before = Moment::of(&etcd, &mut coordinator).await?;
    let agents = Simulated::start(&coordinator.url(), SIZE)?;
    let names = agents.names()?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    coordinator.wait_for_databases(&names).await?;
    let registered = Moment::of(&etcd, &mut coordinator).await?;
    println!("  registering");
    before.print_until(&registered);

    let set = Migrations::write(&[("001_simulated.up.sql", "CREATE TABLE simulated ()")])?;
    for title in ["rollout", "rollout with nothing to do"] {
        let before = Moment::of(&etcd, &mut coordinator).await?;
        let answers = rollout(&coordinator, &set).await?;
        let after = Moment::of(&etcd, &mut coordinator).await?;
        println!("  {title}");
        before.print_until(&after);
        answers.print();
    }
    let record = agents.record();
    anyhow::ensure!(
        record.migrations == SIZE.databases() && record.doubled.is_empty(),
        "not each database was migrated once: {record:?}"
    );
    println!(
        "  (aims for a rollout: under 60 s, 5 keys or fewer per database, 300 MB, answers within 200 ms)\n"
    );
    agents.stop().await
}

/// What was used until now.
struct Moment {
    at: Instant,
    writes: Writes,
    coordinator: Usage,
}

impl Moment {
    async fn of(etcd: &Etcd, coordinator: &mut Coordinator) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            writes: etcd.writes().await?,
            coordinator: coordinator.process()?.usage()?,
        })
    }

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

/// From the command to start it to its end.
async fn rollout(coordinator: &Coordinator, set: &Migrations) -> anyhow::Result<Answers> {
    let start = coordinator
        .rollout(set)
        .arg("--max-in-flight")
        .arg(IN_FLIGHT.to_string());
    start.succeed().await?;
    let operator = &coordinator.operator().await?;
    let mut answers = Answers::default();
    let took = &mut answers;
    let end = Instant::now() + LONGEST;
    loop {
        let began = Instant::now();
        let newest = coordinator.rollouts().await?.into_iter().next();
        let newest = newest.context("there is no rollout")?;
        took.list.push(began.elapsed());
        if newest.ended_at_unix_ms != 0 {
            break;
        }
        anyhow::ensure!(Instant::now() < end, "the rollout takes longer than {LONGEST:?}");
        let began = Instant::now();
        coordinator.show(&newest.id).await?;
        took.show.push(began.elapsed());
        let began = Instant::now();
        watch(operator.clone(), newest.id).await?;
        took.watch.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(answers)
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
