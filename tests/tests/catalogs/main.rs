//! What each kind of step makes of the catalog, and what its undo makes of that, by `pg_dump`. `expected` has a file for each:
//! the lines that differ. What remains after a crash in the middle, the crash matrix compares.

mod diff;

use anyhow::{Context as _, ensure};
use expect_test::expect_file;
use futures_util::{StreamExt as _, TryStreamExt as _};
use shared::migration::Change;
use std::fmt::Write as _;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::Confiture;
use tests::steps::{STEPS, Step};

/// Steps at work at once.
const AT_ONCE: usize = 4;

#[test]
fn every_kind_of_step_is_in_the_list() -> anyhow::Result<()> {
    for kind in Change::KNOWN {
        let is_met = |step: &Step| step.file.1.contains(&format!(" {kind}:")) || step.name == *kind;
        ensure!(STEPS.iter().any(is_met), "no step of the list is {kind}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_is_as_expected_after_each_step_and_after_its_undo() -> anyhow::Result<()> {
    let steps = STEPS.iter().map(|step| async move {
        let seen = there_and_back(step).await.context(step.name)?;
        anyhow::Ok((step.name, seen))
    });
    let seen: Vec<(&str, String)> = futures_util::stream::iter(steps)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    for (name, seen) in seen {
        expect_file![format!("expected/{}", name.replace(' ', "_"))].assert_eq(&seen);
    }
    Ok(())
}

/// What a step and then its undo make of the catalog.
async fn there_and_back(step: &Step) -> anyhow::Result<String> {
    let server = Server::shared().await?;
    let database = server.fresh_database().await?;
    database.execute(&step.ground()).await?;
    let migrations = Migrations::write(&[])?;
    if let Some(before) = step.before {
        migrations.put("0_before.yaml", before)?;
        migrate("up", &database, &migrations).succeed().await?;
    }
    migrations.put(step.file.0, step.file.1)?;
    let before = server.catalog(&database).await?;
    migrate("up", &database, &migrations).succeed().await?;
    let after = server.catalog(&database).await?;
    let down = migrate("down", &database, &migrations).run().await?;
    let undone = server.catalog(&database).await?;

    let mut seen = format!("{}\n\n", step.file.1.trim_end());
    writeln!(seen, "up:\n{}", diff::between(&before, &after))?;
    match down.code {
        Some(0) => {
            let left = diff::between(&before, &undone);
            ensure!(before == undone, "its undo leaves another catalog:\n{left}");
            writeln!(seen, "down: as it was")?;
        }
        code => {
            ensure!(code == Some(3), "down ended with {code:?}: {}", down.stderr);
            ensure!(undone == after, "a refused undo changed the catalog");
            writeln!(seen, "down:\n{}", down.stderr.trim_end())?;
        }
    }
    Ok(seen)
}

fn migrate(direction: &str, database: &Database, migrations: &Migrations) -> Confiture {
    Confiture::new(["migrate", direction, "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
}
