//! A trivial migration over many databases, against a bare loop of the same statement.

use crate::bare::{self, table};
use crate::median;
use std::time::{Duration, Instant};
use tests::fleet::{Agent, Coordinator, Member};
use tests::migrations::Migrations;
use tests::postgres::{Durability, Options, Server};

const DATABASES: u32 = 100;
const AT_A_TIME: usize = 8;
const ROUNDS: usize = 5;
/// Of `agent.connections_per_server`.
const DEFAULT_PLACES: u32 = 20;

/// Prints the costs per database: where the agent may keep a connection to each, and with its default bound, under which
/// it connects anew to most of them.
pub(crate) async fn measure() -> anyhow::Result<()> {
    measure_with(DATABASES + 20).await?;
    measure_with(DEFAULT_PLACES).await
}

async fn measure_with(places: u32) -> anyhow::Result<()> {
    println!(
        "Fleet: one CREATE TABLE on each of {DATABASES} databases of one server, {AT_A_TIME} at a time, median of {ROUNDS} rounds;\n  agent.connections_per_server: {places}"
    );
    let server = Server::start_with(Options {
        durability: Durability::Disk,
        max_connections: 250,
        ..Options::default()
    })
    .await?;
    let mut members = Vec::new();
    for n in 0..DATABASES {
        let name = format!("db{n:03}");
        members.push(Member::new(&name, server.database(&name).await?));
    }
    let coordinator = Coordinator::start("coordinator", "file:bench.redb").await?;
    let _agent = Agent::start_with("agent", &[&coordinator.url()], &members, |settings| {
        settings["agent"]["connections_per_server"] = places.into();
    })?;
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    coordinator.wait_for_databases(&names).await?;
    let set = Migrations::write(&[("0000_warm_up.up.sql", &table("warm_up"))])?;

    let first = rollout(&coordinator, &set).await?;
    let (mut bare, mut migrated, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        set.put(
            &format!("{round:04}_round.up.sql"),
            &table(&format!("migrated_{round}")),
        )?;
        let statement = table(&format!("bare_{round}"));
        if round % 2 == 0 {
            bare.push(bare_loop(&members, &statement).await?);
            migrated.push(rollout(&coordinator, &set).await?);
        } else {
            migrated.push(rollout(&coordinator, &set).await?);
            bare.push(bare_loop(&members, &statement).await?);
        }
        nothing.push(rollout(&coordinator, &set).await?);
    }

    let (bare, migrated) = (median(bare), median(migrated));
    let per_database = |time: Duration| (time / DATABASES).as_secs_f64() * 1000.0;
    println!(
        "  bare loop, a connection each    {:7.2} ms per database",
        per_database(bare)
    );
    println!(
        "  rollout                         {:7.2} ms per database",
        per_database(migrated)
    );
    println!(
        "  ratio                           {:7.2}    (aim: 1.6 or less)",
        migrated.as_secs_f64() / bare.as_secs_f64()
    );
    println!(
        "  first rollout ever              {:7.2} ms per database (makes each ledger)",
        per_database(first)
    );
    println!(
        "  rollout with nothing to do      {:7.2} ms per database\n",
        per_database(median(nothing))
    );
    Ok(())
}

/// `confiture rollout start --watch`, from its start to its end.
async fn rollout(coordinator: &Coordinator, set: &Migrations) -> anyhow::Result<Duration> {
    let command = coordinator
        .rollout(set)
        .arg("--watch")
        .arg("--max-in-flight")
        .arg(AT_A_TIME.to_string());
    let began = Instant::now();
    command.succeed().await?;
    Ok(began.elapsed())
}

async fn bare_loop(members: &[Member], statement: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    bare::run(members, statement, AT_A_TIME).await?;
    Ok(began.elapsed())
}
