//! `make demo`: twelve databases on three servers are changed exactly once, although an agent is killed meanwhile.
//!
//! ```text
//! 1. prepare   three PostgreSQL servers, four services each with their own history and rows     services.rs
//! 2. roll out  one coordinator on etcd, three agents; `confiture rollout start --watch`         here
//! 3. disturb   SIGKILL to an agent inside its batch loop, then the agent again                  here
//! 4. verify    every row of every database, by plain SQL                                        verify.rs
//! ```
//! Everything runs on 127.0.0.1 in temporary folders and goes away at the end, also after Ctrl-C or a failure.

#![expect(clippy::print_stdout, reason = "showing is what a demo is for")]

mod services;
mod verify;

use anyhow::{bail, ensure};
use futures_util::future::try_join_all;
use services::{SERVERS, Service};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::etcd::Etcd;
use tests::fleet::{Agent, Coordinator, Member};
use tests::migrations::Migrations;
use tests::postgres::Server;
use tests::{eventually, process};

/// The set that every service gets beside its own: two columns, one computed from each row, one that counts how often
/// the row was changed. Repeating the counter would show; so would leaving it out.
const FLEET_WIDE: &[(&str, &str)] = &[
    ("confiture.set.yaml", "set: fleet-wide\n"),
    (
        "0001_gross_amounts.yaml",
        r#"name: gross amounts
up:
  - add_column:   { table: events, column: gross_cents, type: bigint }
  - add_column:   { table: events, column: changes, type: integer, default: 0 }
  - backfill:     { table: events, set: { gross_cents: "net_cents + net_cents / 5", changes: "changes + 1" } }
  - set_not_null: { table: events, column: gross_cents }
"#,
    ),
];

/// The longest that the rollout may take.
const LONGEST: Duration = Duration::from_mins(2);

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = async {
        let interrupted = runtime::shutdown::token()?;
        tokio::select! {
            outcome = demo() => outcome.map(|()| ExitCode::SUCCESS),
            () = interrupted.cancelled() => {
                println!("\nInterrupted; everything is stopped and removed.");
                Ok(ExitCode::from(130))
            }
        }
    };
    outcome.await.unwrap_or_else(|error: anyhow::Error| {
        println!("\nThe demo failed: {error:#}");
        ExitCode::FAILURE
    })
}

async fn demo() -> anyhow::Result<()> {
    println!("Starting three PostgreSQL servers and one etcd ...");
    let (servers, etcd) = tokio::try_join!(try_join_all(SERVERS.map(|_| Server::start())), Etcd::start())?;

    println!("Giving each server four services, each with its own history and its rows ...");
    let prepared = servers
        .iter()
        .zip(SERVERS)
        .map(|(server, services)| services::prepare(server, services));
    let members: Vec<Vec<Member>> = try_join_all(prepared).await?;

    println!("Starting a coordinator and three agents, one for each server ...");
    let coordinator = Coordinator::start("coordinator", &etcd.store("demo")).await?;
    let start = |(id, members): (&str, &Vec<Member>)| Agent::start(id, &[&coordinator.url()], members);
    let mut agents: Vec<Agent> = ["agent-a", "agent-b", "agent-c"]
        .into_iter()
        .zip(&members)
        .map(start)
        .collect::<Result<_, _>>()?;
    let names: Vec<&str> = members
        .iter()
        .flatten()
        .map(|member| member.name.as_str())
        .collect();
    coordinator.wait_for_databases(&names).await?;

    println!("Rolling out the fleet-wide set:\n\n{}", FLEET_WIDE[1].1);
    let set = Migrations::write(FLEET_WIDE)?;
    let began = Instant::now();
    let mut rollout = coordinator.rollout(&set).arg("--watch").start("rollout")?;
    let ended = async {
        rollout.each_line(LONGEST, |line| println!("{line}")).await?;
        let status = rollout.wait(LONGEST).await?;
        ensure!(
            status.success(),
            "`confiture rollout start --watch` ended with {}",
            process::outcome(status)
        );
        Ok(began.elapsed().as_secs_f64())
    };
    let (seconds, ()) = tokio::try_join!(ended, disturb(&mut agents[1], &members[1]))?;

    println!("\nVerifying every row ...");
    let checks = try_join_all(members.iter().flatten().map(verify::database)).await?;
    verify::report(&checks, seconds);
    if checks.iter().any(|check| !check.is_right()) {
        bail!("rows are wrong");
    }
    Ok(())
}

/// Kills the agent while one of its batch loops is somewhere in the middle, and starts it again.
async fn disturb(agent: &mut Agent, serves: &[Member]) -> anyhow::Result<()> {
    let in_the_middle = eventually("a batch loop of agent-b to be in the middle", LONGEST, || async {
        for member in serves {
            let changed = services::changed_rows(member).await.unwrap_or(0); // no such column yet
            if (1..Service::ROWS).contains(&changed) {
                return Ok(Some((member.name.as_str(), changed)));
            }
        }
        Ok(None)
    });
    let (database, changed) = in_the_middle.await?;
    agent.kill()?;
    println!(
        "*** agent-b killed (SIGKILL) with {changed} of {} rows of `{database}` done",
        Service::ROWS
    );
    tokio::time::sleep(Duration::from_secs(2)).await; // long enough to be seen
    agent.restart()?;
    println!("*** agent-b started again");
    Ok(())
}
