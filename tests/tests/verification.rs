//! Verified steps: every row looked at again before the step counts as done, and the evidence kept.

use serde_json::Value;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

async fn migrate(database: &Database, step: &str) -> anyhow::Result<Ended> {
    let set = Migrations::write(&[("1_a.yaml", &format!("up:\n  - {step}\n"))])?;
    Confiture::new(["migrate", "up", "--output", "json", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .run()
        .await
}

async fn table(create: &str) -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(&format!(
            "{create}; INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g; ANALYZE t"
        ))
        .await?;
    Ok(database)
}

/// The event that told of the step's end.
fn step_done(ended: &Ended) -> anyhow::Result<Value> {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    event(ended, "step_done")
}

/// The first event of a kind. All that a run says on standard error is JSON.
fn event(ended: &Ended, kind: &str) -> anyhow::Result<Value> {
    let lines = ended.stderr.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    let found = lines.into_iter().find(|line| line["event"] == kind);
    found.ok_or_else(|| anyhow::anyhow!("no `{kind}`: {}", ended.stderr))
}

async fn kept(database: &Database) -> anyhow::Result<Value> {
    let session = database.connect().await?;
    let row = session
        .query_one("SELECT evidence FROM confiture.step", &[])
        .await?;
    Ok(serde_json::from_str(row.get::<_, &str>(0))?)
}

async fn show(database: &Database, output: &str) -> anyhow::Result<String> {
    Confiture::new(["ledger", "show", "--output", output])
        .env("DATABASE_URL", database.url())
        .succeed()
        .await
}

const KEYED: &str = "CREATE TABLE t (k int PRIMARY KEY, n int, y int)";

#[tokio::test]
async fn every_row_is_compared_and_the_evidence_is_kept() -> anyhow::Result<()> {
    let partitioned = "CREATE TABLE t (k int, n int, y int) PARTITION BY RANGE (k);
        CREATE TABLE t_1 PARTITION OF t (PRIMARY KEY (k)) FOR VALUES FROM (0) TO (2000); CREATE TABLE t_2 PARTITION OF t DEFAULT";
    for create in [KEYED, "CREATE TABLE t (k int, n int, y int)", partitioned] {
        let database = table(create).await?;
        let step = "backfill: { table: t, set: { y: \"n * 2\" }, batch: { size: 500, verify: true } }";
        let done = step_done(&migrate(&database, step).await?)?;
        let evidence = &done["evidence"];
        assert_eq!(
            (&evidence["rows"], &evidence["differing"]),
            (&5000.into(), &0.into()),
            "{create}"
        );
        assert_eq!(kept(&database).await?, *evidence);
        assert_eq!(done["rows"], 5000);
        assert!(
            done["batches"].as_u64() >= Some(3) && done["wal_bytes"].as_u64() > Some(10_000),
            "{done}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_same_rows_give_the_same_digest_whatever_order_they_were_met_in() -> anyhow::Result<()> {
    let mut digests = Vec::new();
    for options in ["size: 100", "size: 5000", "size: 700, workers: 3"] {
        let database = table(KEYED).await?;
        let step = format!(
            "backfill: {{ table: t, set: {{ y: \"n * 2\" }}, batch: {{ {options}, verify: true }} }}"
        );
        digests.push(step_done(&migrate(&database, &step).await?)?["evidence"]["digest"].as_u64());
    }
    assert!(digests[0].is_some_and(|digest| digest != 0));
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    Ok(())
}

#[tokio::test]
async fn rows_that_something_else_wrote_differently_stop_the_step_until_they_are_right() -> anyhow::Result<()>
{
    let database = table(KEYED).await?;
    database
        .execute(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN IF NEW.k % 1000 = 0 THEN NEW.y := -1; END IF; RETURN NEW; END';
             CREATE TRIGGER spoil BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION spoil()",
        )
        .await?;
    let step = "backfill: { table: t, set: { y: \"n * 2\" }, batch: { size: 500, verify: true } }";
    let failed = migrate(&database, step).await?;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("5 of 5000 rows"), "{}", failed.stderr);
    assert_eq!(kept(&database).await?["differing"], 5);
    // Who comes to look why the step failed finds it in the ledger.
    let shown: Value = serde_json::from_str(&show(&database, "json").await?)?;
    let verified = &shown["ledger"]["verified"][0];
    assert_eq!(
        (&verified["done"], &verified["evidence"]["differing"]),
        (&false.into(), &5.into())
    );
    database
        .execute("DROP TRIGGER spoil ON public.t; UPDATE public.t SET y = n * 2 WHERE y = -1")
        .await?;
    let done = step_done(&migrate(&database, step).await?)?;
    assert_eq!(done["evidence"]["differing"], 0);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_computed_again_is_counted() -> anyhow::Result<()> {
    for (step, rows) in [
        (
            "delete: { table: t, where: \"n > 4000\", batch: { verify: true } }",
            4000,
        ),
        (
            "backfill: { table: t, set: { y: n }, where: \"y IS NULL AND n < 100\", batch: { verify: true } }",
            5000,
        ),
        (
            "add_column: { table: t, column: c, type: uuid, default: gen_random_uuid(), batch: { verify: true } }",
            5000,
        ),
    ] {
        let database = table(KEYED).await?;
        let done = step_done(&migrate(&database, step).await?)?;
        let evidence = &done["evidence"];
        assert_eq!(evidence["rows"], rows, "{step}");
        assert_eq!(
            (&evidence["remaining"], &evidence["differing"]),
            (&0.into(), &0.into()),
            "{step}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn evidence_of_batches_is_forgotten_in_time_and_what_is_left_has_no_gap() -> anyhow::Result<()> {
    let database = table(KEYED).await?;
    let first = "backfill: { table: t, set: { y: \"n * 2\" }, sync: none, batch: { size: 500 } }";
    step_done(&migrate(&database, first).await?)?;
    // As if it had been a step of 25,000 batches, long ago.
    database
        .admin()
        .await?
        .batch_execute(
            "INSERT INTO confiture.batch (set_name, version, direction, run, step, shard, sequence, epoch, token, local, lower, upper, rows)
             SELECT set_name, version, direction, run, step, 1000 + g / 5000, 1 + g % 5000, epoch, token, local, NULL, NULL, 0
               FROM (SELECT * FROM confiture.batch LIMIT 1) b, generate_series(0, 24999) g;
             UPDATE confiture.step SET began_at = began_at - interval '31 days', ended_at = ended_at - interval '31 days'",
        )
        .await?;
    let verify = || async {
        Confiture::new(["ledger", "verify"])
            .env("DATABASE_URL", database.url())
            .succeed()
            .await
    };
    verify().await?;
    // One bite, as of a run that is killed then.
    database
        .admin()
        .await?
        .batch_execute(&shared::sql::batch::FORGET_BATCHES.replace("$1", "86400"))
        .await?;
    assert!(database.number("SELECT count(*) FROM confiture.batch").await? >= 15_000);
    verify().await?;

    let set = Migrations::write(&[
        ("1_a.yaml", &format!("up:\n  - {first}\n")),
        ("2_b.yaml", "up:\n  - delete: { table: t, where: n > 4000 }\n"),
    ])?;
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .succeed()
        .await?;
    let old =
        "SELECT count(*) FROM confiture.batch WHERE version <> (SELECT max(version) FROM confiture.batch)";
    assert_eq!(database.number(old).await?, 0);
    assert!(database.number("SELECT count(*) FROM confiture.batch").await? > 0);
    verify().await?;
    Ok(())
}

#[tokio::test]
async fn evidence_that_would_prove_nothing_is_refused_before_any_row_is_changed() -> anyhow::Result<()> {
    let database = table(KEYED).await?;
    for set in [
        "y: \"(random() * 10)::int\"",
        "y: \"extract(epoch FROM now())::int\"",
        "n: n + 1",
    ] {
        let step = format!(
            "backfill: {{ table: t, set: {{ {set} }}, sync: none, new_rows: either, batch: {{ verify: true }} }}"
        );
        let ended = migrate(&database, &step).await?;
        assert_eq!(ended.code, Some(3), "{set}: {}", ended.stderr);
        let message = event(&ended, "failed")?["message"].take();
        let why = "`verify: true` has nothing to go by on \"public\".\"t\"";
        assert!(
            message.as_str().is_some_and(|message| message.contains(why)),
            "{set}: {message}"
        );
    }
    let untouched = "SELECT count(*) FROM t WHERE n = k AND y IS NULL";
    assert_eq!(database.number(untouched).await?, 5000);
    Ok(())
}

#[tokio::test]
async fn the_ledger_shows_the_evidence_beside_its_step() -> anyhow::Result<()> {
    let database = table(KEYED).await?;
    let step = "backfill: { table: t, set: { y: \"n * 2\" }, batch: { size: 500, verify: true } }";
    let done = step_done(&migrate(&database, step).await?)?;

    let shown: Value = serde_json::from_str(&show(&database, "json").await?)?;
    let [verified] = shown["ledger"]["verified"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
    else {
        anyhow::bail!("not one verified step: {shown}");
    };
    assert_eq!(verified["evidence"], done["evidence"]);
    for (key, value) in [
        ("set", Value::from("default")),
        ("version", "1".into()),
        ("direction", "up".into()),
        ("run", 1.into()),
        ("step", 1.into()),
        ("done", true.into()),
    ] {
        assert_eq!(verified[key], value, "{key}");
    }
    let text = show(&database, "text").await?;
    let evidence = &done["evidence"];
    let digest = format!("{:016x}", evidence["digest"].as_u64().unwrap_or_default());
    let line = text.lines().find(|line| line.contains(&digest));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    let ranges = evidence["ranges"].to_string();
    let expected = ["done", "5000", "0", "0", &ranges, &digest];
    assert!(words.ends_with(&expected), "{text}");
    assert!(
        words.starts_with(&["default", "1", "up", "1", "1", "backfill"]),
        "{text}"
    );
    Ok(())
}
