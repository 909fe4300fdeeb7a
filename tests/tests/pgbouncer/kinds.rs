//! Every kind of step.

use crate::{Pooled, expect};
use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use tests::migrations::Migrations;
use tests::process::{Build, Confiture};
use tests::steps::{STEPS, Step};

/// Cases at work at once.
const AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_step_works_up_and_down_and_leaves_nothing_to_its_neighbours() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let done = futures_util::stream::iter(&STEPS)
        .map(|step| async move { (Box::pin(meet(step)).await, step.name) })
        .buffer_unordered(AT_ONCE);
    let failed: Vec<String> = done
        .filter_map(|(ended, name)| async move { ended.err().map(|error| format!("{name}: {error:#}")) })
        .collect()
        .await;
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

async fn meet(step: &Step) -> anyhow::Result<()> {
    let pooled = Pooled::with(&step.ground()).await?;
    let neighbours = pooled.neighbours().await?;
    let migrations = Migrations::write(&[])?;
    if let Some(before) = step.before {
        migrations.put("0_before.yaml", before)?;
        pooled.migrate(&["up"], &migrations).succeed().await?;
    }
    migrations.put(step.file.0, step.file.1)?;
    let up = pooled.migrate(&["up"], &migrations).run().await?;
    expect(&up, 0, "1 migration applied")?;
    let wrong = pooled.database.number(step.wrong).await?;
    ensure!(wrong == 0, "changed more or less than once: {wrong}");
    let down = pooled.migrate(&["down"], &migrations).run().await?;
    if down.code != Some(0) {
        expect(&down, 3, "cannot be undone").context("the way down")?;
    }
    verified(&pooled).await?;
    neighbours.saw_nothing().await?;
    pooled.nothing_left().await
}

async fn verified(pooled: &Pooled) -> anyhow::Result<()> {
    let verify = Confiture::new(["ledger", "verify"]).build(Build::Faults);
    let verified = verify.env("DATABASE_URL", &pooled.url).run().await?;
    expect(&verified, 0, "the ledger is as it must be")
}
