//! A fleet with a past: local runs beside rollouts, rollouts that end half-way, copied databases, stores that vanish or
//! come back from a copy.

use proto::v1::{AssignmentState, GetRolloutResponse, RolloutState};
use std::time::Duration;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::postgres::Server;
use tests::process::Confiture;

const ROWS: i64 = 20_000;
const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(90);
const STORE: &str = "file:./confiture.redb";

/// Counts each row once, slowly enough to be met in the middle.
const COUNT: &str = "
up:
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 1500ms } }
down:
  - backfill: { table: t, set: { n: n - 1 } }
";

fn count() -> anyhow::Result<Migrations> {
    Migrations::write(&[("001_count.yaml", COUNT)])
}

/// A fleet of one database with its table, one agent and one coordinator.
struct Fleet {
    members: Vec<Member>,
    coordinator: Coordinator,
    agent: Agent,
}

impl Fleet {
    async fn start(name: &str) -> anyhow::Result<Self> {
        let members = members(Server::shared().await?, &[name]).await?;
        let create = format!(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
             INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
        );
        members[0].database.execute(&create).await?;
        let coordinator = Coordinator::start("coordinator", STORE).await?;
        let agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
        coordinator.wait_for_databases(&[name]).await?;
        Ok(Self {
            members,
            coordinator,
            agent,
        })
    }

    async fn rollout(&self, migrations: &Migrations) -> anyhow::Result<String> {
        self.coordinator.rollout(migrations).succeed().await?;
        Ok(self.coordinator.rollouts().await?[0].id.clone())
    }

    async fn end(&self, id: &str) -> anyhow::Result<GetRolloutResponse> {
        self.coordinator.wait_for_end_of(id, LONG).await
    }

    async fn ends_done(&self, id: &str) -> anyhow::Result<()> {
        let shown = self.end(id).await?;
        let rollout = shown.rollout.unwrap_or_default();
        assert_eq!(rollout.state(), RolloutState::Done, "{:?}", shown.assignments);
        Ok(())
    }

    /// What holds the only database of a rollout up, once there is something.
    async fn reason(&self, id: &str, words: &str) -> anyhow::Result<()> {
        eventually(words, SOON, || async {
            let text = self
                .coordinator
                .command(&["rollout", "show", id])
                .succeed()
                .await?;
            Ok(text.contains(words).then_some(()))
        })
        .await
    }

    fn local(&self, words: &[&str], migrations: &Migrations) -> Confiture {
        Confiture::new(words)
            .arg("--migrations")
            .arg(migrations.path())
            .env("DATABASE_URL", self.members[0].database.url())
    }

    async fn number(&self, query: &str) -> anyhow::Result<i64> {
        self.members[0].database.number(query).await
    }

    async fn in_the_middle(&self) -> anyhow::Result<()> {
        eventually("some batches", SOON, || async {
            let batches = "SELECT coalesce(max(sequence), 0) FROM confiture.shard WHERE state = 'open'";
            let table = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('confiture.shard')";
            Ok((self.number(table).await? == 1 && self.number(batches).await? > 1).then_some(()))
        })
        .await
    }

    /// A rollout that ends half-way.
    async fn abort_in_the_middle(&self, migrations: &Migrations) -> anyhow::Result<()> {
        let id = self.rollout(migrations).await?;
        self.in_the_middle().await?;
        let abort = ["rollout", "abort", &id, "--reason", "lunch"];
        self.coordinator.command(&abort).succeed().await?;
        self.end(&id).await.map(drop)
    }

    async fn every_row_is(&self, n: i64) -> anyhow::Result<()> {
        let wrong = format!("SELECT count(*) FROM t WHERE n <> {n}");
        assert_eq!(self.number(&wrong).await?, 0, "rows that are not {n}");
        assert_eq!(self.number("SELECT count(*) FROM t").await?, ROWS);
        Ok(())
    }
}

#[tokio::test]
async fn a_local_run_waits_for_the_fleet_and_then_finds_nothing_to_do() -> anyhow::Result<()> {
    let fleet = Fleet::start("fleet_first").await?;
    let migrations = count()?;
    let id = fleet.rollout(&migrations).await?;
    fleet.in_the_middle().await?;
    let impatient = fleet
        .local(&["migrate", "up", "--wait", "1s"], &migrations)
        .run()
        .await?;
    assert_eq!(impatient.code, Some(4), "{}", impatient.stderr);
    assert!(impatient.stderr.contains("agent agent-a"), "{}", impatient.stderr);
    let local = fleet.local(&["migrate", "up"], &migrations).run().await?;
    assert_eq!(local.code, Some(0), "{}", local.stderr);
    assert!(
        local.stderr.contains("waiting for agent agent-a"),
        "{}",
        local.stderr
    );
    assert!(local.stdout.contains("nothing to do"), "{}", local.stdout);
    fleet.ends_done(&id).await?;
    fleet.every_row_is(1).await
}

#[tokio::test]
async fn a_rollout_waits_for_a_local_run_and_says_for_whom() -> anyhow::Result<()> {
    let fleet = Fleet::start("local_first").await?;
    let migrations = count()?;
    let mut local = fleet.local(&["migrate", "up"], &migrations).start("local")?;
    fleet.in_the_middle().await?;
    let id = fleet.rollout(&migrations).await?;
    fleet.reason(&id, "confiture migrate up by").await?;
    let status = local.wait(LONG).await?;
    assert!(status.success(), "{}", local.stderr());
    fleet.ends_done(&id).await?;
    let rollouts = "SELECT count(*) FROM confiture.run WHERE rollout IS NOT NULL";
    assert_eq!(fleet.number(rollouts).await?, 0, "the local run did all of it");
    fleet.every_row_is(1).await
}

#[tokio::test]
async fn take_over_displaces_the_fleet_which_goes_on_later_without_a_person() -> anyhow::Result<()> {
    let fleet = Fleet::start("displaced").await?;
    let migrations = count()?;
    let id = fleet.rollout(&migrations).await?;
    fleet.in_the_middle().await?;
    let local = fleet
        .local(&["migrate", "up", "--take-over"], &migrations)
        .run()
        .await?;
    assert_eq!(local.code, Some(0), "{}", local.stderr);
    assert!(local.stdout.contains("1 migration applied"), "{}", local.stdout);
    let log = fleet.agent.wait_for_line("replaced", SOON).await?;
    assert!(log.contains("nothing was changed since"), "{log}");
    fleet.ends_done(&id).await?;
    fleet.every_row_is(1).await?;
    // The fleet's next lease is larger than the local run's fence.
    migrations.put("002_more.up.sql", "CREATE TABLE more ()")?;
    let next = fleet.rollout(&migrations).await?;
    fleet.ends_done(&next).await
}

#[tokio::test]
async fn an_aborted_rollout_is_finished_by_a_local_run_and_up_down_up_works() -> anyhow::Result<()> {
    let fleet = Fleet::start("aborted_then_local").await?;
    let migrations = count()?;
    fleet.abort_in_the_middle(&migrations).await?;
    let partly = fleet.number("SELECT count(*) FROM t WHERE n = 1").await?;
    assert!(partly > 0 && partly < ROWS, "{partly} rows done");
    let up = fleet.local(&["migrate", "up"], &migrations);
    up.succeed().await?;
    fleet.every_row_is(1).await?;
    fleet.local(&["migrate", "down"], &migrations).succeed().await?;
    fleet.every_row_is(0).await?;
    up.succeed().await?;
    fleet.every_row_is(1).await
}

#[tokio::test]
async fn a_later_rollout_with_another_begun_step_fails_with_both_checksums() -> anyhow::Result<()> {
    let fleet = Fleet::start("edited_between").await?;
    let migrations = count()?;
    fleet.abort_in_the_middle(&migrations).await?;
    migrations.put("001_count.yaml", &COUNT.replace("n + 1", "n + 2"))?;
    let id = fleet.rollout(&migrations).await?;
    let shown = fleet.end(&id).await?;
    assert_eq!(shown.assignments[0].state(), AssignmentState::Failed);
    let text = fleet
        .coordinator
        .command(&["rollout", "show", &id])
        .succeed()
        .await?;
    for words in ["which is done or begun, was changed", "its checksum was", "n + 2"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert_eq!(fleet.number("SELECT count(*) FROM t WHERE n > 1").await?, 0);
    Ok(())
}

#[tokio::test]
async fn one_database_under_two_names_is_worked_on_under_neither() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    let one = members(server, &["one_of_two"]).await?;
    let url = one[0].database.url().to_owned();
    let coordinator = Coordinator::start("coordinator", STORE).await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &one)?;
    let _other = Agent::start_with("agent-b", &[&coordinator.url()], &one, |settings| {
        settings["databases"][0]["name"] = "other_of_two".into();
        settings["databases"][0]["url"] = url.into();
    })?;
    coordinator
        .wait_for_databases(&["one_of_two", "other_of_two"])
        .await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    coordinator.rollout(&set).succeed().await?;
    let id = coordinator.rollouts().await?[0].id.clone();
    eventually("both to be blocked", SOON, || async {
        let text = coordinator.command(&["rollout", "show", &id]).succeed().await?;
        let words = [
            "agent-a",
            "agent-b",
            "one_of_two",
            "other_of_two",
            "give one database one name",
        ];
        Ok(words.iter().all(|word| text.contains(word)).then_some(()))
    })
    .await?;
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 'a'";
    assert_eq!(one[0].database.number(tables).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_copy_behind_a_name_fails_until_it_is_accepted() -> anyhow::Result<()> {
    let mut fleet = Fleet::start("copied").await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    let id = fleet.rollout(&set).await?;
    fleet.ends_done(&id).await?;
    fleet.agent.stop().await?;
    let copy = Server::shared().await?.copy(&fleet.members[0].database).await?;
    let moved = [Member::new("copied", copy)];
    fleet.agent = Agent::start("agent-a", &[&fleet.coordinator.url()], &moved)?;
    set.put("002_b.up.sql", "CREATE TABLE b ()")?;
    let id = fleet.rollout(&set).await?;
    let shown = fleet.end(&id).await?;
    assert_eq!(shown.rollout.unwrap_or_default().state(), RolloutState::Failed);
    let text = fleet
        .coordinator
        .command(&["rollout", "show", &id])
        .succeed()
        .await?;
    assert!(text.contains("confiture ledger accept --reason"), "{text}");
    Confiture::new(["ledger", "accept", "--reason", "moved to a new server"])
        .env("DATABASE_URL", moved[0].database.url())
        .succeed()
        .await?;
    let id = fleet.rollout(&set).await?;
    fleet.ends_done(&id).await
}

#[tokio::test]
async fn a_store_that_vanished_is_founded_again_only_on_demand_and_is_then_the_newest() -> anyhow::Result<()>
{
    let mut fleet = Fleet::start("store_lost").await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    let id = fleet.rollout(&set).await?;
    fleet.ends_done(&id).await?;
    fleet.coordinator.stop().await?;
    std::fs::remove_file(fleet.coordinator.folder().join("confiture.redb"))?;
    let refused = Confiture::new(["coordinator", "--config"])
        .arg(fleet.coordinator.settings())
        .folder(fleet.coordinator.folder())
        .run()
        .await?;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("--init"), "{}", refused.stderr);
    assert!(!fleet.coordinator.folder().join("confiture.redb").exists());

    // The epoch of the new store counts seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fleet.coordinator.restart_with(&["--init"]).await?;
    fleet.coordinator.wait_for_databases(&["store_lost"]).await?;
    set.put("002_b.up.sql", "CREATE TABLE b ()")?;
    let id = fleet.rollout(&set).await?;
    fleet.ends_done(&id).await
}

#[tokio::test]
async fn a_store_put_back_from_a_copy_stops_and_leads_again_once_recovered() -> anyhow::Result<()> {
    let mut fleet = Fleet::start("store_put_back").await?;
    let file = fleet.coordinator.folder().join("confiture.redb");
    let copy = fleet.coordinator.folder().join("copy.redb");
    fleet.coordinator.stop().await?;
    std::fs::copy(&file, &copy)?;
    fleet.coordinator.restart().await?;
    fleet.coordinator.wait_for_databases(&["store_put_back"]).await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a ()")])?;
    for version in 2..8 {
        let id = fleet.rollout(&set).await?;
        fleet.ends_done(&id).await?;
        set.put(
            &format!("00{version}_b.up.sql"),
            &format!("CREATE TABLE b{version} ()"),
        )?;
    }
    fleet.coordinator.stop().await?;
    std::fs::copy(&copy, &file)?;
    fleet.coordinator.restart().await?;
    fleet.coordinator.wait_for_databases(&["store_put_back"]).await?;

    let id = fleet.rollout(&set).await?;
    let shown = fleet.end(&id).await?;
    assert_eq!(shown.rollout.unwrap_or_default().state(), RolloutState::Failed);
    let text = fleet
        .coordinator
        .command(&["rollout", "show", &id])
        .succeed()
        .await?;
    assert!(text.contains("confiture coordinator recover --reason"), "{text}");
    assert_eq!(
        fleet
            .number("SELECT count(*) FROM pg_class WHERE relname = 'b7'")
            .await?,
        0
    );

    let recover = [
        "coordinator",
        "recover",
        "--reason",
        "put back from the copy of this morning",
    ];
    let said = fleet.coordinator.command(&recover).succeed().await?;
    assert!(said.contains("the store leads with epoch"), "{said}");
    fleet.coordinator.wait_for_databases(&["store_put_back"]).await?;
    let id = fleet.rollout(&set).await?;
    fleet.ends_done(&id).await
}
