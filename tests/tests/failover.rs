//! Three etcd members, two coordinators, three agents, and what can happen to the one that leads. Each fault comes twice in
//! a row, in mid-rollout: the other coordinator leads soon, agents come to it with what they hold, and no batch loop
//! notices anything.

use anyhow::{Context as _, ensure};
use proto::v1::{self, AssignmentState, RolloutState};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tests::etcd::Etcd;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::gate::Gate;
use tests::migrations::Migrations;
use tests::postgres::Server;
use tests::process::Confiture;

const ROWS: i64 = 25_000;
const LEADER_LEASE: Duration = Duration::from_secs(2);
/// After a fault somebody leads within the leader's lease and this.
const MORE: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(3);

/// Counts each row once, for about a minute.
const COUNT: &str = "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 1s } }\n";

/// What happens to the coordinator that leads, or to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    /// Longer than its lease; then it goes on where it was.
    Frozen,
    /// From all members of etcd; what it sends is lost in silence.
    Cut,
    /// All members of etcd are killed and started again.
    EtcdRestarted,
    /// One member of etcd is killed.
    MemberKilled,
}

/// A fleet in the middle of a rollout.
struct Scene {
    etcd: Vec<Etcd>,
    /// Between each coordinator and the members of etcd.
    gates: Vec<Vec<Gate>>,
    coordinators: Vec<Coordinator>,
    _agents: Vec<Agent>,
    members: Vec<Member>,
    names: Vec<String>,
    rollout: String,
}

impl Scene {
    async fn start(prefix: &str) -> anyhow::Result<Self> {
        let etcd = Etcd::cluster(3).await?;
        let names: Vec<_> = (1..=3).map(|number| format!("{prefix}_{number}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let members = members(Server::shared().await?, &all).await?;
        for member in &members {
            let create = format!(
                "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
                 INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
            );
            member.database.execute(&create).await?;
        }
        let (mut gates, mut coordinators) = (Vec::new(), Vec::new());
        for name in ["north", "south"] {
            let mut own = Vec::new();
            for member in &etcd {
                own.push(Gate::before(member.address()).await?);
            }
            let addresses: Vec<_> = own.iter().map(Gate::address).collect();
            let store = format!("etcd://{}", addresses.join(","));
            let short_leases = |settings: &mut serde_json::Value| {
                settings["coordinator"]["leader_lease"] = "2s".into();
                settings["coordinator"]["agent_lease"] = "17s".into();
            };
            coordinators.push(Coordinator::start_with(name, &store, short_leases).await?);
            gates.push(own);
        }
        let urls: Vec<_> = coordinators.iter().map(Coordinator::url).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        // Each database is served by two of them.
        let mut agents = Vec::new();
        for (place, id) in ["agent-a", "agent-b", "agent-c"].into_iter().enumerate() {
            let next = (place + 1) % members.len();
            agents.push(Agent::start(
                id,
                &urls,
                &[members[place].clone(), members[next].clone()],
            )?);
        }
        coordinators[0].wait_for_databases(&all).await?;
        let migrations = Migrations::write(&[("001_count.yaml", COUNT)])?;
        let start = coordinators[0].rollout(&migrations).arg("--max-per-server=3");
        start.succeed().await?;
        let rollout = eventually("the rollout", SOON, || async {
            let rollouts = coordinators[1].rollouts().await?;
            Ok(rollouts.first().map(|rollout| rollout.id.clone()))
        })
        .await?;
        let scene = Self {
            etcd,
            gates,
            coordinators,
            _agents: agents,
            members,
            names,
            rollout,
        };
        for member in &scene.members {
            eventually("some batches", SOON, || async {
                let counted = member
                    .database
                    .number("SELECT count(*) FROM t WHERE n = 1")
                    .await?;
                Ok((counted > 0).then_some(()))
            })
            .await?;
        }
        Ok(scene)
    }

    /// Whether a coordinator leads: only the leader takes a request to change something.
    async fn leads(&self, place: usize) -> anyhow::Result<bool> {
        let ask = async {
            let mut operator = self.coordinators[place].operator().await?;
            let nothing = v1::ControlRolloutRequest {
                id: self.rollout.clone(),
                verb: Some(v1::Verb {
                    verb: Some(v1::verb::Verb::Resume(v1::verb::Resume {})),
                }),
                ..v1::ControlRolloutRequest::default()
            };
            anyhow::Ok(operator.control_rollout(nothing).await.is_ok())
        };
        tokio::time::timeout(Duration::from_secs(1), ask).await?
    }

    async fn leader(&self) -> anyhow::Result<usize> {
        eventually("a leader", SOON, || async {
            for place in 0..self.coordinators.len() {
                if self.leads(place).await.unwrap_or(false) {
                    return Ok(Some(place));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The databases at work, with the tokens of their leases, as a coordinator knows them.
    async fn at_work(&self, place: usize) -> anyhow::Result<BTreeMap<String, i64>> {
        let shown = self.coordinators[place].show(&self.rollout).await?;
        let running = shown.assignments.into_iter();
        let running = running.filter(|of| of.state() == AssignmentState::Running);
        Ok(running.map(|of| (of.database, of.token)).collect())
    }

    /// One fault, and how long nobody led.
    async fn suffer(&mut self, fault: Fault) -> anyhow::Result<Duration> {
        let leader = self.leader().await?;
        let other = 1 - leader;
        let begun = Instant::now();
        match fault {
            Fault::Killed => drop(self.coordinators[leader].kill()?),
            Fault::Frozen => self.coordinators[leader].freeze()?,
            Fault::Cut => self.gates[leader].iter().for_each(Gate::shut),
            Fault::EtcdRestarted => {
                for member in &mut self.etcd {
                    member.kill()?;
                }
                Etcd::resume_all(&mut self.etcd).await?;
            }
            Fault::MemberKilled => self.etcd[leader].kill()?,
        }
        // Who leads on is as good as another, where etcd alone was hit.
        let candidates = match fault {
            Fault::Killed | Fault::Frozen | Fault::Cut => vec![other],
            Fault::EtcdRestarted | Fault::MemberKilled => vec![leader, other],
        };
        let begun = if fault == Fault::EtcdRestarted {
            Instant::now()
        } else {
            begun
        };
        let now_leads = eventually("somebody to lead", LEADER_LEASE + MORE, || async {
            for place in &candidates {
                if self.leads(*place).await.unwrap_or(false) {
                    return Ok(Some(*place));
                }
            }
            Ok(None)
        });
        let now_leads = now_leads.await.with_context(|| format!("{fault:?}"))?;
        let took = begun.elapsed();
        match fault {
            Fault::Killed => self.coordinators[leader].restart().await?,
            Fault::Frozen => self.coordinators[leader].thaw()?,
            Fault::Cut => self.gates[leader].iter().for_each(Gate::open),
            Fault::EtcdRestarted => {}
            Fault::MemberKilled => self.etcd[leader].resume().await?,
        }
        if candidates.len() == 1 {
            eventually("the former leader to follow", SOON, || async {
                Ok((!self.leads(leader).await?).then_some(()))
            })
            .await?;
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.coordinators[now_leads].wait_for_databases(&names).await?;
        Ok(took)
    }

    async fn ends_as_if_nothing_had_been(&self, at_work: &BTreeMap<String, i64>) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        let shown = self.coordinators[leader]
            .wait_for_end_of(&self.rollout, LONG)
            .await?;
        let rollout = shown.rollout.unwrap_or_default();
        ensure!(rollout.state() == RolloutState::Done, "{:?}", shown.assignments);
        for assignment in &shown.assignments {
            ensure!(assignment.attempt == 1, "it was begun again: {assignment:?}");
        }
        for member in &self.members {
            let wrong = member
                .database
                .number("SELECT count(*) FROM t WHERE n <> 1")
                .await?;
            ensure!(wrong == 0, "{}: {wrong} rows lost or changed twice", member.name);
            let token = member
                .database
                .number("SELECT token FROM confiture.fence")
                .await?;
            ensure!(
                at_work.get(&member.name) == Some(&token),
                "{}: it got another lease",
                member.name
            );
            let verify = Confiture::new(["ledger", "verify"]).env("DATABASE_URL", member.database.url());
            verify.succeed().await?;
        }
        Ok(())
    }
}

async fn twice(fault: Fault, prefix: &str) -> anyhow::Result<()> {
    let mut scene = Scene::start(prefix).await?;
    let leader = scene.leader().await?;
    let at_work = scene.at_work(leader).await?;
    ensure!(at_work.len() == 3, "all are at work: {at_work:?}");
    for time in ["first", "second"] {
        let took = scene.suffer(fault).await?;
        // Past the test runner, which shows what a test prints only when it fails; a closed stderr is no reason to fail.
        let figure = format!(
            "failover: {fault:?}, the {time} time: somebody led after {} ms",
            took.as_millis()
        );
        drop(writeln!(std::io::stderr(), "{figure}"));
        let leader = scene.leader().await?;
        ensure!(
            scene.at_work(leader).await? == at_work,
            "work was lost or over: {:?}",
            scene.at_work(leader).await?
        );
    }
    scene.ends_as_if_nothing_had_been(&at_work).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_followed_by_the_other() -> anyhow::Result<()> {
    twice(Fault::Killed, "killed").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_is_followed_and_does_no_harm_when_it_wakes() -> anyhow::Result<()> {
    twice(Fault::Frozen, "frozen").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_from_etcd_is_followed_by_the_other() -> anyhow::Result<()> {
    twice(Fault::Cut, "cut").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_etcd_may_be_started_again() -> anyhow::Result<()> {
    twice(Fault::EtcdRestarted, "etcd").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_etcd_may_die() -> anyhow::Result<()> {
    twice(Fault::MemberKilled, "member").await
}
