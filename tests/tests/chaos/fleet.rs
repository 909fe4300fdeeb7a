//! Two databases in a fleet: one coordinator, two agents that both serve them. Agents are killed and frozen, so is the
//! coordinator, and a rollout that gives a database up is started again by whoever watches it.

use crate::Outcome;
use crate::nemesis::{Count, Nemesis, lossy};
use crate::runs::{COUNT, SLOW, TIMES, fault, ledger_problem, plan};
use anyhow::{Context as _, ensure};
use proto::v1::RolloutState;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member};
use tests::load::{Load, Plan};
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Build, Confiture};
use tokio::time::Instant;

/// A round that takes longer has got stuck.
const STUCK: Duration = Duration::from_mins(5);

const NAMES: [&str; 2] = ["orders", "billing"];
const AGENTS: [&str; 2] = ["agent-a", "agent-b"];

/// A daemon that stands still wakes up after less or more than its lease.
const FREEZE: std::ops::Range<u64> = 200..6_000;

/// Leases as short as they can be, so that their ends are part of a round.
fn short_leases(settings: &mut serde_json::Value) {
    settings["coordinator"]["leader_lease"] = "2s".into();
    settings["coordinator"]["agent_lease"] = "3s".into();
}

/// The fleet of one round.
struct Fleet {
    coordinator: Coordinator,
    coordinator_frozen: Option<Instant>,
    agents: Vec<Option<Agent>>,
    frozen: Vec<Option<Instant>>,
    members: Vec<Member>,
}

pub(crate) async fn round(server: &mut Server, seed: u64) -> anyhow::Result<Outcome> {
    let rng = StdRng::seed_from_u64(seed);
    let count = Count::default();
    let mut databases = Vec::new();
    for _ in NAMES {
        databases.push(server.fresh_database().await?);
    }
    let plan = Plan {
        sessions: 2,
        ..plan(seed)
    };
    let proxy = lossy(server.port(), seed, &count).await?;
    let mut members = Vec::new();
    let mut loads = Vec::new();
    for (name, database) in NAMES.iter().zip(&databases) {
        Load::create(database, plan).await?;
        database.execute(SLOW).await?;
        loads.push(Load::start(database, plan));
        members.push(Member::new(name, proxy.database(server, database)));
    }
    let mut nemesis = Nemesis {
        rng,
        server,
        database: databases[0].clone(),
        proxy,
        count: count.clone(),
        restarts: 1,
        stalled: Vec::new(),
        pooler: None,
    };
    fight(&mut nemesis, members).await?;

    let mut outcome = Outcome::default();
    for (database, load) in databases.iter().zip(loads) {
        let wrong = load.finish().await?.check(database, TIMES).await?;
        if !wrong.is_nothing() {
            outcome.violations.push(format!("{}: {wrong}", database.name()));
        }
        outcome.violations.extend(ledger_problem(database).await?);
        outcome.violations.extend(repeated_run(database).await?);
    }
    outcome.faults = count.load(Ordering::Relaxed);
    Ok(outcome)
}

/// A second rollout continues the run of the first; it must not have begun another.
async fn repeated_run(database: &Database) -> anyhow::Result<Option<String>> {
    let runs = database
        .number("SELECT count(*) FROM confiture.run WHERE state = 'complete'")
        .await?;
    Ok((runs != 1).then(|| format!("{}: {runs} complete runs", database.name())))
}

async fn fight(nemesis: &mut Nemesis<'_>, members: Vec<Member>) -> anyhow::Result<()> {
    let end = Instant::now() + STUCK;
    let plain = Confiture::default().build(Build::Faults);
    let coordinator =
        Coordinator::start_program(&plain, "coordinator", "file:./confiture.redb", short_leases).await?;
    let mut fleet = Fleet {
        coordinator,
        coordinator_frozen: None,
        agents: AGENTS.iter().map(|_| None).collect(),
        frozen: vec![None; AGENTS.len()],
        members,
    };
    fleet.start_missing(nemesis)?;
    let coordinator = &fleet.coordinator;
    let served = eventually("both databases to be served", STUCK, || async {
        coordinator.wait_for_databases(&NAMES).await.map(Some)
    });
    served.await.with_context(|| fleet.logs())?;
    let migrations = Migrations::write(&[("1_count.yaml", COUNT)])?;
    let mut id = fleet.rollout(&migrations).await?;
    loop {
        ensure!(
            Instant::now() < end,
            "rollout {id} does not end in {STUCK:?}:\n{}",
            fleet.logs()
        );
        nemesis.wait().await?;
        fleet.wake(Instant::now())?;
        fleet.start_missing(nemesis)?;
        // Less often than among runs: an agent that is killed takes some seconds until it works again.
        match nemesis.rng.random_range(0..40) {
            _ if nemesis.is_tired() => {}
            0..2 => nemesis.strike().await?,
            2..4 => fleet.harm(nemesis).await?,
            _ => {}
        }
        // Nobody answers while the coordinator stands still.
        if fleet.coordinator_frozen.is_some() {
            continue;
        }
        let shown = fleet.coordinator.show(&id).await?;
        let rollout = shown.rollout.unwrap_or_default();
        if rollout.state() == RolloutState::Done {
            break;
        }
        if rollout.ended_at_unix_ms != 0 {
            id = fleet.rollout(&migrations).await?;
        }
    }
    nemesis.make_peace()?;
    // What was frozen wakes up and must find that it has been replaced.
    fleet.wake(end + STUCK)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

impl Fleet {
    /// What its daemons have said since they were last started.
    fn logs(&self) -> String {
        let agents = self.agents.iter().flatten().map(|agent| agent.log());
        let all: Vec<String> = agents.chain([self.coordinator.log()]).collect();
        all.join("\n---\n")
    }

    /// Starts a rollout and gives its id.
    async fn rollout(&self, migrations: &Migrations) -> anyhow::Result<String> {
        let before = self.coordinator.rollouts().await?.len();
        self.coordinator.rollout(migrations).succeed().await?;
        let rollouts = self.coordinator.rollouts().await?;
        ensure!(rollouts.len() == before + 1, "the rollout is not there");
        let newest = rollouts.into_iter().next().context("the newest rollout")?;
        Ok(newest.id)
    }

    /// Starts the agents that are not there; a third of them carries a fault in itself.
    fn start_missing(&mut self, nemesis: &mut Nemesis<'_>) -> anyhow::Result<()> {
        let peace = nemesis.is_tired();
        let rng = &mut nemesis.rng;
        let url = self.coordinator.url();
        for ((id, agent), frozen) in AGENTS.iter().zip(&mut self.agents).zip(&mut self.frozen) {
            if let Some(running) = agent
                && running.process()?.ended()?.is_none()
            {
                continue;
            }
            *frozen = None;
            let mut program = Confiture::default()
                .build(Build::Faults)
                .env("CONFITURE_HOLDER_TIME", "1s");
            if !peace && rng.random_bool(0.3) {
                program = program.env("CONFITURE_FAULT", fault(rng));
            }
            *agent = Some(Agent::start_program(
                &program,
                id,
                &[&url],
                &self.members,
                |_| {},
            )?);
        }
        Ok(())
    }

    /// Kills or freezes an agent, or the coordinator.
    async fn harm(&mut self, nemesis: &mut Nemesis<'_>) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_millis(nemesis.rng.random_range(FREEZE));
        let (chosen, kill) = (
            nemesis.rng.random_range(0..=AGENTS.len()),
            nemesis.rng.random_bool(0.5),
        );
        let Some(agent) = self.agents.get_mut(chosen) else {
            // Less often: nothing new is given out meanwhile.
            if self.coordinator_frozen.is_none() && nemesis.rng.random_bool(0.3) {
                nemesis.did();
                if kill {
                    self.coordinator.kill()?;
                    self.coordinator.restart().await?;
                } else {
                    self.coordinator.freeze()?;
                    self.coordinator_frozen = Some(until);
                }
            }
            return Ok(());
        };
        if let Some(running) = agent
            && self.frozen[chosen].is_none()
            && running.process()?.ended()?.is_none()
        {
            nemesis.did();
            if kill {
                running.kill()?;
                *agent = None;
            } else {
                running.freeze()?;
                self.frozen[chosen] = Some(until);
            }
        }
        Ok(())
    }

    /// Wakes those whose time has come.
    fn wake(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.coordinator_frozen.is_some_and(|until| until <= now) {
            self.coordinator_frozen = None;
            self.coordinator.thaw()?;
        }
        for (agent, frozen) in self.agents.iter_mut().zip(&mut self.frozen) {
            if let Some(agent) = agent
                && frozen.is_some_and(|until| until <= now)
            {
                *frozen = None;
                agent.thaw()?;
            }
        }
        Ok(())
    }
}
