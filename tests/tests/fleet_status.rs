//! `confiture fleet status`: versions, shapes, drift, and databases that do not answer.

use serde_json::Value;
use std::time::{Duration, Instant};
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::postgres::Server;

const SOON: Duration = Duration::from_secs(30);
const STORE: &str = "file:./confiture.redb";

/// Something of every kind.
const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN price AS numeric CHECK (VALUE >= 0);
CREATE SEQUENCE numbers;
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'nobody');
CREATE TABLE orders (
  id bigint PRIMARY KEY, customer bigint REFERENCES customers, total numeric, mood mood, paid price,
  twice numeric GENERATED ALWAYS AS (total * 2) STORED, CONSTRAINT positive CHECK (total > 0));
CREATE INDEX orders_total ON orders (total);
CREATE VIEW cheap AS SELECT id FROM orders WHERE total < 10;
CREATE MATERIALIZED VIEW dear AS SELECT id FROM orders WHERE total > 10;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE parts (id bigint, day date) PARTITION BY RANGE (day);
CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE POLICY mine ON customers USING (name = 'me');
";

struct Fleet {
    members: Vec<Member>,
    coordinator: Coordinator,
    agent: Agent,
}

impl Fleet {
    async fn start(names: &[&str]) -> anyhow::Result<Self> {
        let members = members(Server::shared().await?, names).await?;
        for member in &members {
            member.database.execute(SCHEMA).await?;
        }
        let coordinator = Coordinator::start("coordinator", STORE).await?;
        let agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
        coordinator.wait_for_databases(names).await?;
        Ok(Self {
            members,
            coordinator,
            agent,
        })
    }

    async fn status(&self, more: &[&str]) -> anyhow::Result<String> {
        let command = [&["fleet", "status"], more].concat();
        self.coordinator.command(&command).succeed().await
    }

    async fn report(&self, more: &[&str]) -> anyhow::Result<Value> {
        let text = self.status(&[&["--output", "json"], more].concat()).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The fingerprint of the only database.
    async fn fingerprint(&self) -> anyhow::Result<String> {
        let report = self.report(&[]).await?;
        let database = &report["databases"][0];
        anyhow::ensure!(database["problem"].is_null(), "{database}");
        Ok(database["fingerprint"].to_string())
    }

    async fn check(&self) -> anyhow::Result<Option<i32>> {
        let command = ["fleet", "status", "--check"];
        Ok(self.coordinator.command(&command).run().await?.code)
    }
}

/// The texts of what is different, over all shapes.
fn differences(report: &Value) -> Vec<String> {
    let shapes = report["differences"].as_array().cloned().unwrap_or_default();
    let lists = shapes.iter().filter_map(|shape| shape["differences"].as_array());
    let texts = lists.flatten().map(|difference| difference["text"].as_str());
    texts.flatten().map(str::to_owned).collect()
}

#[tokio::test]
async fn an_outlier_is_found_and_what_differs_is_named() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["shape_a", "shape_b", "shape_c"]).await?;
    let migrations = Migrations::write(&[("001_more.up.sql", "CREATE TABLE more (id bigint PRIMARY KEY)")])?;
    fleet
        .coordinator
        .rollout(&migrations)
        .arg("--watch")
        .succeed()
        .await?;
    let same = fleet.status(&[]).await?;
    assert!(same.contains("3 databases in 1 shape\n"), "{same}");
    assert!(same.contains("default: 1 applied, the last 001"), "{same}");
    assert_eq!(fleet.check().await?, Some(0));

    let odd = "
        ALTER TABLE orders ALTER customer TYPE integer;
        ALTER TABLE orders ADD note text; DROP VIEW cheap; CREATE TABLE public.old (id bigint)";
    fleet.members[1].database.execute(odd).await?;
    let text = fleet.status(&[]).await?;
    let lines = [
        "3 databases in 2 shapes",
        "(2, the majority): shape_a, shape_c",
        "shape_b differs:",
        "  table public.orders: column customer integer instead of bigint",
        "  table public.orders: column note (text) only here",
        "  table public.old: only here",
        "  view public.cheap: missing",
    ];
    for line in lines {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    assert_eq!(fleet.check().await?, Some(1));
    let report = fleet.report(&["--against", "shape_b"]).await?;
    assert_eq!(report["against"], "shape_b");
    assert_eq!(
        report["differences"][0]["databases"],
        serde_json::json!(["shape_a", "shape_c"])
    );
    let texts = differences(&report);
    assert!(
        texts.contains(&"table public.orders: column note (text) missing".to_owned()),
        "{texts:?}"
    );

    // One that has the shape of the others, and other versions.
    fleet.members[2]
        .database
        .execute("DELETE FROM confiture.step; DELETE FROM confiture.run")
        .await?;
    let text = fleet.status(&[]).await?;
    assert!(
        text.contains("shape_c has other versions:\n  set default: 001 not applied"),
        "{text}"
    );
    let other_set = fleet.report(&["--set", "audit"]).await?;
    assert_eq!(other_set["versions"], serde_json::json!([]));
    Ok(())
}

#[tokio::test]
async fn each_kind_of_object_makes_a_shape_and_nothing_else_does() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["kinds"]).await?;
    let database = &fleet.members[0].database;
    let first = fleet.fingerprint().await?;
    let same = [
        "INSERT INTO customers (name) SELECT 'n' FROM generate_series(1, 100)",
        "ANALYZE",
        "SELECT nextval('numbers')",
        "CREATE TEMPORARY TABLE t (id bigint)",
        "ALTER TABLE orders DROP COLUMN mood; ALTER TABLE orders ADD mood mood",
        "REINDEX TABLE orders",
    ];
    for statement in same {
        database.execute(statement).await?;
        assert_eq!(fleet.fingerprint().await?, first, "{statement}");
    }
    let migrations = Migrations::write(&[("001_nothing.up.sql", "SELECT 1")])?;
    fleet
        .coordinator
        .rollout(&migrations)
        .arg("--watch")
        .succeed()
        .await?;
    assert_eq!(fleet.fingerprint().await?, first, "our own schema is none of it");

    let other = [
        "ALTER TYPE mood ADD VALUE 'so-so'",
        "ALTER DOMAIN price SET NOT NULL",
        "ALTER SEQUENCE numbers INCREMENT 2",
        "ALTER TABLE customers ALTER name DROP NOT NULL",
        "ALTER TABLE customers ALTER name SET DEFAULT 'somebody'",
        "ALTER TABLE customers ALTER id SET GENERATED BY DEFAULT",
        "ALTER TABLE orders DROP CONSTRAINT positive",
        "ALTER TABLE orders ADD CONSTRAINT positive CHECK (total > 0) NOT VALID",
        "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey",
        "DROP INDEX orders_total",
        "CREATE INDEX orders_total ON orders (total DESC)",
        "CREATE OR REPLACE VIEW public.cheap AS SELECT id FROM orders WHERE total < 20",
        "DROP MATERIALIZED VIEW dear",
        "CREATE OR REPLACE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "CREATE FUNCTION public.touch(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE orders DISABLE TRIGGER touched",
        "ALTER TABLE parts DETACH PARTITION parts_2026",
        "ALTER POLICY mine ON customers USING (name = 'you')",
        "ALTER TABLE customers ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE parts_2026 SET UNLOGGED",
        "CREATE SCHEMA side CREATE TABLE orders (id bigint)",
    ];
    // Names of new objects are with their schema: the role is called as our own one.
    let mut seen = vec![first];
    for statement in other {
        database.execute(statement).await?;
        let now = fleet.fingerprint().await?;
        assert!(!seen.contains(&now), "{statement}");
        seen.push(now);
    }
    Ok(())
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_named_with_what_it_said_last() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(&["there"]).await?;
    let gone = Member::new("gone", fleet.members[0].database.clone());
    let _other = Agent::start_with("agent-b", &[&fleet.coordinator.url()], &[gone], |settings| {
        settings["databases"][0]["url"] = "postgres://app@127.0.0.1:1/app".into();
    })?;
    eventually("the second agent", SOON, || async {
        Ok((fleet.coordinator.databases().await?.len() == 2).then_some(()))
    })
    .await?;
    let text = fleet.status(&[]).await?;
    assert!(
        text.contains("1 database in 1 shape; 1 could not be asked"),
        "{text}"
    );
    assert!(text.contains("127.0.0.1:1"), "{text}");
    assert_eq!(fleet.check().await?, Some(1));

    let before = fleet.report(&[]).await?["databases"][1].clone();
    fleet.agent.kill()?;
    let after = eventually("the agent to be missed", SOON, || async {
        let after = fleet.report(&[]).await?["databases"][1].clone();
        Ok((!after["problem"].is_null()).then_some(after))
    })
    .await?;
    assert_eq!(after["fingerprint"], before["fingerprint"]);
    assert!(after["last_seconds_ago"].is_u64(), "{after}");
    let problem = after["problem"].as_str().unwrap_or_default();
    assert!(
        problem.contains("no agent that serves it is connected"),
        "{problem}"
    );
    Ok(())
}

#[tokio::test]
async fn a_table_under_lock_holds_nothing_up() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["under_lock"]).await?;
    let mut session = fleet.members[0].database.connect().await?;
    let transaction = session.transaction().await?;
    transaction
        .batch_execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        .await?;
    let begun = Instant::now();
    let text = fleet.status(&[]).await?;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(text.contains("a table of it is locked at the moment"), "{text}");
    transaction.rollback().await?;
    fleet.fingerprint().await.map(drop)
}
