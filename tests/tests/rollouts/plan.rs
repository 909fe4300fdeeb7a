//! What a rollout would do, said before anything is done.

use super::{Fleet, HAS_LEDGER};
use tests::directory::Directory;
use tests::migrations::Migrations;

const ROWS: i64 = 150_000;

const FILES: &[(&str, &str)] = &[(
    "001_double.yaml",
    "up:
  - add_column: { table: t, column: m, type: int }
  - backfill: { table: t, set: { m: n * 2 } }
  - create_index: { table: t, name: t_n, columns: [n] }
",
)];

#[tokio::test]
async fn a_plan_says_what_each_database_would_see_and_changes_nothing() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["plan_1", "plan_2", "plan_3"]).await?;
    for name in ["plan_1", "plan_2"] {
        let create = format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL);
             INSERT INTO t SELECT i, i FROM generate_series(1, {}) i; ANALYZE t",
            if name == "plan_1" { 1_000 } else { ROWS }
        );
        fleet.member(name).database.execute(&create).await?;
    }
    let migrations = Migrations::write(FILES)?;
    let folder = Directory::new()?;
    let policy = folder.write("policy.yaml", "waves: [{ name: canary, databases: [plan_2] }]")?;
    let plan = |format: &str| {
        let plan = fleet
            .coordinator
            .command(&["rollout", "plan", "--all", "--output", format]);
        plan.arg("--migrations")
            .arg(migrations.path())
            .arg("--policy")
            .arg(&policy)
    };
    let text = plan("text").run().await?;
    // One has no such table.
    assert_eq!(text.code, Some(3), "{}", text.stderr);
    let shown = &text.stdout;
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    let at = |line: &str| lines.iter().position(|shown| shown.starts_with(line));
    assert!(at("wave canary") < at("plan_2: 1 migration, 3 steps"), "{shown}");
    assert!(at("wave rest") < at("plan_1: 1 migration, 3 steps"), "{shown}");
    assert!(at("plan_3: refused:") > at("wave rest"), "{shown}");
    for part in [
        "the catalog alone",
        "batched, about 150,000 rows",
        "direct, about 1,000 rows",
        "builds an index",
        "which is assumed",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&plan("json").run().await?.stdout)?;
    let step = &json["databases"][0]["migrations"][0]["steps"][1];
    assert_eq!(
        (&step["work"], &step["strategy"]),
        (&"batches".into(), &"batched".into()),
        "{json}"
    );
    assert_eq!(step["rows"], ROWS);
    for member in &fleet.members {
        assert_eq!(
            member.database.number(HAS_LEDGER).await?,
            0,
            "{} was touched",
            member.name
        );
    }
    Ok(())
}

/// With its author's pause it would go on for longer than any test.
const RESTING: &[(&str, &str)] = &[(
    "001_double.yaml",
    "up:
  - add_column: { table: t, column: m, type: int }
  - backfill: { table: t, set: { m: n * 2 }, batch: { size: 100, pause: 1h } }
",
)];

#[tokio::test]
async fn what_is_said_of_tables_decides_what_is_run_there() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["said_1", "said_2"]).await?;
    for member in &fleet.members {
        let create = "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL);
             INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i; ANALYZE t";
        member.database.execute(create).await?;
    }
    let migrations = Migrations::write(RESTING)?;
    let rollout = |verb: &str, said: &[&str]| {
        let command = fleet.coordinator.command(&["rollout", verb, "--all"]);
        let command = command.arg("--migrations").arg(migrations.path());
        said.iter()
            .fold(command, |command, said| command.arg("--strategy").arg(said))
    };
    for (said, code, part) in [
        (
            &["t=blue_green"][..],
            3,
            "the strategy said for \"public\".\"t\" is blue_green",
        ),
        (
            &["t=direct", "orders=direct"],
            2,
            "no step of the migrations names it",
        ),
        (&["t=fast"], 2, "there is no strategy `fast`"),
        (&["t=batched_off_peak"], 2, "the policy has no `windows`"),
    ] {
        let ended = rollout("plan", said).run().await?;
        let told = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(code), "{said:?}: {told}");
        assert!(told.contains(part), "{said:?}: {told}");
    }
    // What is said of the table comes before what is said of all.
    let planned = rollout("plan", &["blue_green", "public.t=direct"])
        .succeed()
        .await?;
    assert!(planned.contains("direct as said, about 1,000 rows"), "{planned}");

    rollout("start", &["t=direct"]).arg("--watch").succeed().await?;
    for member in &fleet.members {
        let wrong = "SELECT count(*) FROM t WHERE m IS DISTINCT FROM n * 2";
        assert_eq!(member.database.number(wrong).await?, 0, "{}", member.name);
    }
    Ok(())
}
