//! Every kind of step.

use crate::{Pooled, expect};
use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use shared::migration::Change;
use tests::migrations::Migrations;
use tests::process::{Build, Confiture};
use tests::steps::{STEPS, TABLE};

/// Cases at work at once.
const AT_ONCE: usize = 6;

/// Kinds that the crash matrix has no case of: what is applied before, the step, and a query that gives 0 when it is done.
const MORE: [(Option<&str>, &str, &str); 6] = [
    (
        None,
        "rename_column: { table: t, column: note, to: remark }",
        "SELECT abs(1 - count(*)) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'remark'",
    ),
    (
        None,
        "set_default: { table: t, column: note, default: \"'b'\", previous: \"NULL\" }",
        "SELECT abs(1 - count(*)) FROM pg_attrdef WHERE pg_get_expr(adbin, adrelid) = '''b''::text'",
    ),
    (
        None,
        "drop_default: { table: t, column: n, previous: \"0\" }",
        "SELECT count(*) FROM pg_attrdef WHERE adrelid = 't'::regclass",
    ),
    (
        Some("up:\n  - add_check: { table: t, name: small, check: id < 99 }\n"),
        "drop_constraint: { table: t, name: small }",
        "SELECT count(*) FROM pg_constraint WHERE conname = 'small'",
    ),
    (
        Some("up:\n  - add_unique: { table: t, columns: [n, id], name: t_n }\n"),
        "drop_unique: { table: t, name: t_n }",
        "SELECT count(*) FROM pg_constraint WHERE conname = 't_n'",
    ),
    (
        None,
        "drop_table: { table: keyless }",
        "SELECT count(*) FROM pg_class WHERE relname = 'keyless'",
    ),
];

struct Case {
    name: String,
    before: Option<&'static str>,
    file: (&'static str, String),
    wrong: &'static str,
}

fn cases() -> Vec<Case> {
    let steps = STEPS.iter().map(|step| Case {
        name: step.name.to_owned(),
        before: step.before,
        file: (step.file.0, step.file.1.to_owned()),
        wrong: step.wrong,
    });
    let more = MORE.iter().map(|(before, step, wrong)| Case {
        name: (*step).to_owned(),
        before: *before,
        file: ("1_it.yaml", format!("up:\n  - {step}\n")),
        wrong,
    });
    steps.chain(more).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_step_works_up_and_down_and_leaves_nothing_to_its_neighbours() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let cases = cases();
    for kind in Change::KNOWN {
        let is_met = |case: &Case| case.file.1.contains(&format!(" {kind}:")) || case.name == **kind;
        ensure!(cases.iter().any(is_met), "no case meets the step {kind}");
    }
    let done = futures_util::stream::iter(cases)
        .map(|case| async move { (Box::pin(meet(&case)).await, case.name) })
        .buffer_unordered(AT_ONCE);
    let failed: Vec<String> = done
        .filter_map(|(ended, name)| async move { ended.err().map(|error| format!("{name}: {error:#}")) })
        .collect()
        .await;
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

async fn meet(case: &Case) -> anyhow::Result<()> {
    let pooled = Pooled::with(TABLE).await?;
    let neighbours = pooled.neighbours().await?;
    let migrations = Migrations::write(&[])?;
    if let Some(before) = case.before {
        migrations.put("0_before.yaml", before)?;
        pooled.migrate(&["up"], &migrations).succeed().await?;
    }
    migrations.put(case.file.0, &case.file.1)?;
    let up = pooled.migrate(&["up"], &migrations).run().await?;
    expect(&up, 0, "1 migration applied")?;
    let wrong = pooled.database.number(case.wrong).await?;
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
