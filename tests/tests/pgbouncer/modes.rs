//! Statement mode and session mode.

use crate::{Pooled, expect, server};
use tests::migrations::Migrations;
use tests::pgbouncer::{Options, PgBouncer, PoolMode};
use tests::process::{Build, Ended};
use tests::steps::TABLE;

/// Transactions, batches and a statement outside both.
const ALL: &str = "up:
  - add_column: { table: t, column: fresh, type: text }
  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 10 } }
  - create_index: { table: t, columns: [n], name: t_n }
";

async fn up(pool_mode: PoolMode) -> anyhow::Result<(Pooled, Ended)> {
    Build::Faults.make().await?;
    let options = Options {
        pool_mode,
        pool_size: 4,
        ..Options::default()
    };
    let pgbouncer = PgBouncer::start(server().await?, options).await?;
    let pooled = Pooled::behind(&pgbouncer).await?;
    pooled.database.execute(TABLE).await?;
    let migrations = Migrations::write(&[("1_it.yaml", ALL)])?;
    pooled.migrate(&["status"], &migrations).succeed().await?;
    let ended = pooled.migrate(&["up"], &migrations).run().await?;
    Ok((pooled, ended))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_mode_is_refused_before_anything_is_changed() -> anyhow::Result<()> {
    let (pooled, ended) = up(PoolMode::Statement).await?;
    expect(&ended, 3, "statement mode")?;
    expect(&ended, 3, "pool_mode = transaction")?;
    let changed = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'confiture') + (SELECT count(*) FROM t WHERE n > 0)";
    assert_eq!(pooled.database.number(changed).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_mode_works() -> anyhow::Result<()> {
    let (pooled, ended) = up(PoolMode::Session).await?;
    expect(&ended, 0, "1 migration applied")?;
    assert_eq!(
        pooled
            .database
            .number("SELECT count(*) FROM t WHERE n = 1")
            .await?,
        40
    );
    pooled.nothing_left().await
}
