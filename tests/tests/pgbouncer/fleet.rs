//! An agent whose databases are behind a pooler.

use crate::{Pooled, pgbouncer, server};
use std::time::Duration;
use tests::fleet::{Agent, Coordinator, Member};
use tests::migrations::Migrations;
use tests::steps::TABLE;

const ALL: &str = "up:
  - add_column: { table: t, column: fresh, type: text }
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 10 } }
  - create_index: { table: t, columns: [n], name: t_n }
";

const NAMES: [&str; 2] = ["orders", "billing"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_works_and_leaves_nothing_to_its_neighbours() -> anyhow::Result<()> {
    let (server, pgbouncer) = (server().await?, pgbouncer().await?);
    let (mut pools, mut members, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
    for name in NAMES {
        let pooled = Pooled::with(TABLE).await?;
        neighbours.push(pooled.neighbours().await?);
        members.push(Member::new(name, pgbouncer.database(server, &pooled.database)));
        pools.push(pooled);
    }
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&NAMES).await?;
    let migrations = Migrations::write(&[("1_it.yaml", ALL)])?;
    let watch = coordinator.rollout(&migrations).arg("--watch");
    let ended = tokio::time::timeout(Duration::from_mins(1), watch.succeed()).await?;
    ended?;
    for (pooled, neighbours) in pools.iter().zip(neighbours) {
        assert_eq!(
            pooled
                .database
                .number("SELECT count(*) FROM t WHERE n = 1")
                .await?,
            40
        );
        neighbours.saw_nothing().await?;
        pooled.nothing_left().await?;
    }
    Ok(())
}
