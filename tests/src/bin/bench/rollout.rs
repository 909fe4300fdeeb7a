//! Three hundred real databases on three servers: a trivial migration against a bare loop of its statement, and what it
//! costs to find out that there is nothing to do.

use crate::bare::{self, table};
use crate::median;
use std::time::{Duration, Instant};
use tests::etcd::Etcd;
use tests::fleet::{Agent, Coordinator, Member};
use tests::migrations::Migrations;
use tests::postgres::{Durability, Options, Server};
use tests::process::cpu_with_children;

const SERVERS: usize = 3;
const DATABASES: usize = 300;
const AT_A_TIME: usize = 12;
const PER_SERVER: usize = AT_A_TIME / SERVERS;
const ROUNDS: usize = 5;

/// Prints both.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!(
        "Rollout: one CREATE TABLE on each of {DATABASES} databases of {SERVERS} servers, {AT_A_TIME} at a time, {PER_SERVER} on a server, median of {ROUNDS} rounds;\n  settings of agent and coordinator by default, over etcd"
    );
    let options = Options {
        durability: Durability::Disk,
        ..Options::default()
    }
    // A hundred databases a server do not fit into less.
    .setting("shared_buffers", "1GB");
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(Server::start_with(options.clone()).await?);
    }
    let mut members = Vec::new();
    for (n, server) in (0..DATABASES).zip(servers.iter().cycle()) {
        let name = format!("db{n:03}");
        members.push(Member::new(&name, server.database(&name).await?));
    }
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let etcd = Etcd::start().await?;
    let coordinator = Coordinator::start("coordinator", &etcd.store(&Etcd::fresh_prefix())).await?;
    let agent = Agent::start("agent", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&names).await?;
    let servers = servers.iter().map(Server::pid).collect::<Result<_, _>>()?;
    let mut fleet = Fleet {
        members: &members,
        servers,
        coordinator,
        agent,
    };

    let set = Migrations::write(&[("0000_warm_up.up.sql", &table("warm_up"))])?;
    let first = fleet.rollout(&set).await?;
    let (mut bare, mut migrated, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        set.put(
            &format!("{round:04}_round.up.sql"),
            &table(&format!("migrated_{round}")),
        )?;
        let statement = table(&format!("bare_{round}"));
        if round % 2 == 0 {
            bare.push(fleet.bare_loop(&statement).await?);
            migrated.push(fleet.rollout(&set).await?);
        } else {
            migrated.push(fleet.rollout(&set).await?);
            bare.push(fleet.bare_loop(&statement).await?);
        }
        nothing.push(fleet.rollout(&set).await?);
    }
    println!(
        "                                     time         CPU of agent, coordinator and servers, per database"
    );
    Cost::print("first rollout, makes ledgers", &[first]);
    Cost::print("rollout", &migrated);
    Cost::print("rollout with nothing to do", &nothing);
    Cost::print("bare loop", &bare);
    let [migrated, bare] = [migrated, bare].map(|costs| median(costs.iter().map(|cost| cost.time).collect()));
    println!(
        "  rollout against bare loop     {:8.2}       (aim: 1.4 or less; nothing to do: under 3 ms of CPU)\n",
        migrated.as_secs_f64() / bare.as_secs_f64()
    );
    Ok(())
}

struct Fleet<'a> {
    members: &'a [Member],
    /// Their postmasters.
    servers: Vec<u32>,
    coordinator: Coordinator,
    agent: Agent,
}

/// What it took to go over all databases.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    agent: Duration,
    coordinator: Duration,
    servers: Duration,
}

impl Cost {
    fn print(title: &str, costs: &[Self]) {
        let of = |part: fn(&Self) -> Duration| per_database(median(costs.iter().map(part).collect()));
        println!(
            "  {title:28}  {:8.2} ms    {:8.2} + {:.2} + {:.2} ms",
            of(|cost| cost.time),
            of(|cost| cost.agent),
            of(|cost| cost.coordinator),
            of(|cost| cost.servers),
        );
    }
}

impl Fleet<'_> {
    /// `confiture rollout start --watch`, from its start to its end.
    async fn rollout(&mut self, set: &Migrations) -> anyhow::Result<Cost> {
        let command = self.coordinator.rollout(set).arg("--watch");
        let command = command.arg("--max-in-flight").arg(AT_A_TIME.to_string());
        let command = command.arg("--max-per-server").arg(PER_SERVER.to_string());
        self.cost_of(async || command.succeed().await.map(drop)).await
    }

    async fn cost_of(&mut self, work: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<Cost> {
        let before = self.cpu()?;
        let began = Instant::now();
        work().await?;
        let time = began.elapsed();
        let after = self.cpu()?;
        let [agent, coordinator, servers] = std::array::from_fn(|of| after[of].saturating_sub(before[of]));
        Ok(Cost {
            time,
            agent,
            coordinator,
            servers,
        })
    }

    /// Of agent, coordinator and all servers.
    fn cpu(&mut self) -> anyhow::Result<[Duration; 3]> {
        let agent = self.agent.process()?.usage()?;
        let coordinator = self.coordinator.process()?.usage()?;
        let mut servers = Duration::ZERO;
        for server in &self.servers {
            servers += cpu_with_children(*server)?;
        }
        Ok([agent.cpu, coordinator.cpu, servers])
    }

    /// What a script would do.
    async fn bare_loop(&mut self, statement: &str) -> anyhow::Result<Cost> {
        let members = self.members;
        self.cost_of(async || bare::run(members, statement, AT_A_TIME).await)
            .await
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_database(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0 / DATABASES as f64
}
