//! Columns that a trigger keeps right while and after they are filled, for applications that do not know them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

const TAX: &str = r#"
name: order totals with tax
up:
  - add_column: { table: orders, column: total_with_tax, type: numeric }
  - backfill:   { table: orders, set: { total_with_tax: "total * 1.2" }, where: "total_with_tax IS NULL", batch: { size: 200, pause: 10ms } }
  - set_not_null: { table: orders, column: total_with_tax }
"#;

const END: &str = "up:\n  - drop_sync: { table: orders, column: total_with_tax }\n";

fn migrate(words: &[&str], database: &Database, set: &Migrations) -> Confiture {
    let words = ["migrate"].iter().chain(words).chain(&["--migrations"]);
    Confiture::new(words)
        .arg(set.path())
        .env("DATABASE_URL", database.url())
}

async fn run(words: &[&str], database: &Database, set: &Migrations) -> anyhow::Result<Ended> {
    migrate(words, database, set).run().await
}

async fn orders(rows: u32) -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(&format!(
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, total numeric(10,2) NOT NULL, note json);
             INSERT INTO orders (total) SELECT g FROM generate_series(1, {rows}) g"
        ))
        .await?;
    Ok(database)
}

/// Writes rows like an application that has never heard of the new column, until it is told to stop; gives the number of
/// its statements.
async fn application(database: &Database, stop: Arc<AtomicBool>) -> anyhow::Result<u64> {
    let session = database.connect().await?;
    let mut statements = 0;
    while !stop.load(Ordering::Relaxed) {
        for statement in [
            "INSERT INTO public.orders (total) SELECT random() * 100 FROM generate_series(1, 3)",
            "UPDATE public.orders SET total = total + 1 WHERE id IN (SELECT 1 + (random() * 10000)::int FROM generate_series(1, 5))",
            "UPDATE public.orders SET note = '{}' WHERE id = 1 + (random() * 10000)::int",
            "DELETE FROM public.orders WHERE id = 1 + (random() * 10000)::int",
        ] {
            session.execute(statement, &[]).await?;
            statements += 1;
        }
    }
    Ok(statements)
}

#[tokio::test]
async fn an_application_that_does_not_know_the_column_gets_no_error_and_no_wrong_value() -> anyhow::Result<()>
{
    let database = orders(10_000).await?;
    let set = Migrations::write(&[("1_tax.yaml", TAX)])?;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = application(&database, stop.clone());
    let migrating = async {
        let ended = run(&["up"], &database, &set).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.store(true, Ordering::Relaxed);
        ended
    };
    let (statements, ended) = tokio::join!(writing, migrating);
    let ended = ended?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(statements? > 100, "the application was at work meanwhile");
    let wrong = "SELECT count(*) FROM orders WHERE total_with_tax IS DISTINCT FROM total * 1.2";
    assert_eq!(database.number(wrong).await?, 0);

    let status = run(&["status"], &database, &set).await?.stdout;
    assert!(
        status.contains("kept right by a trigger: total_with_tax"),
        "{status}"
    );
    set.put("2_end.yaml", END)?;
    assert_eq!(run(&["up"], &database, &set).await?.code, Some(0));
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)
                     + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'confiture'::regnamespace)";
    assert_eq!(database.number(left).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_half_done_fill_is_taken_back_with_its_trigger() -> anyhow::Result<()> {
    let database = orders(10_000).await?;
    let set = Migrations::write(&[("1_tax.yaml", TAX)])?;
    let mut killed = migrate(&["up"], &database, &set).start("killed")?;
    eventually("the trigger", Duration::from_secs(20), || async {
        let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
        Ok((database.number(triggers).await? > 0).then_some(()))
    })
    .await?;
    killed.kill();
    let down = run(&["down", "--take-over"], &database, &set).await?;
    assert_eq!(down.code, Some(0), "{}", down.stderr);
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)
                     + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'confiture'::regnamespace)
                     + (SELECT count(*) FROM pg_attribute WHERE attname = 'total_with_tax')";
    assert_eq!(database.number(left).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_fill_goes_on_with_the_trigger_it_has() -> anyhow::Result<()> {
    let database = orders(10_000).await?;
    let set = Migrations::write(&[("1_tax.yaml", TAX)])?;
    let mut killed = migrate(&["up"], &database, &set).start("killed")?;
    eventually("a batch", Duration::from_secs(20), || async {
        let batches = "SELECT count(*) FROM confiture.batch";
        Ok(database.number(batches).await.ok().filter(|n| *n > 0))
    })
    .await?;
    killed.kill();
    database.execute("INSERT INTO orders (total) VALUES (5)").await?;
    let ended = run(&["up", "--take-over"], &database, &set).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let wrong = "SELECT count(*) FROM orders WHERE total_with_tax IS DISTINCT FROM total * 1.2";
    assert_eq!(database.number(wrong).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_column_the_trigger_needs_is_not_dropped_under_it() -> anyhow::Result<()> {
    let database = orders(100).await?;
    let set = Migrations::write(&[("1_tax.yaml", TAX)])?;
    assert_eq!(run(&["up"], &database, &set).await?.code, Some(0));
    let drop = Migrations::write(&[
        ("1_tax.yaml", TAX),
        (
            "2_drop.yaml",
            "up:\n  - drop_column: { table: orders, column: total }\n",
        ),
    ])?;
    let refused = run(&["up"], &database, &drop).await?;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("drop_sync"), "{}", refused.stderr);
    for column in ["total", "total_with_tax"] {
        let by_hand = database
            .execute(&format!("ALTER TABLE public.orders DROP {column}"))
            .await;
        assert!(by_hand.is_err(), "{column}");
    }
    database
        .execute("INSERT INTO public.orders (total) VALUES (5)")
        .await
}

#[tokio::test]
async fn partitions_and_children_keep_their_rows_right_too() -> anyhow::Result<()> {
    for create in [
        "CREATE TABLE t (k int, part int, n int, y int, PRIMARY KEY (k, part)) PARTITION BY LIST (part);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t_2 (y int, n int, part int NOT NULL, k int NOT NULL);
         ALTER TABLE t ATTACH PARTITION t_2 FOR VALUES IN (2)",
        "CREATE TABLE t (k int PRIMARY KEY, part int, n int, y int); CREATE TABLE t_2 (PRIMARY KEY (k)) INHERITS (t)",
    ] {
        let database = Server::shared().await?.fresh_database().await?;
        database
            .execute(&format!(
                "{create}; INSERT INTO t SELECT g, 1, g FROM generate_series(1, 500) g;
                 INSERT INTO t_2 (k, part, n) SELECT g, 2, g FROM generate_series(501, 1000) g"
            ))
            .await?;
        let step = "up:\n  - backfill: { table: t, set: { y: \"n * 2\" }, sync: trigger }\n";
        let set = Migrations::write(&[("1_a.yaml", step)])?;
        let ended = run(&["up"], &database, &set).await?;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        database
            .execute(
                "INSERT INTO public.t VALUES (2000, 1, 7); INSERT INTO public.t_2 (k, part, n) VALUES (2001, 2, 8);
                 UPDATE public.t SET n = n + 1 WHERE k % 100 = 0",
            )
            .await?;
        assert_eq!(database.number("SELECT count(*) FROM t WHERE y IS DISTINCT FROM n * 2").await?, 0);
        let end = Migrations::write(&[
            ("1_a.yaml", step),
            ("2_b.yaml", "up:\n  - drop_sync: { table: t, column: y }\n"),
        ])?;
        let ended = run(&["up"], &database, &end).await?;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn what_no_trigger_can_keep_right_is_refused_when_it_is_asked_for() -> anyhow::Result<()> {
    let database = orders(10).await?;
    for (set, words) in [
        ("{ total: total * 2 }", "depends on a value the step itself sets"),
        (
            "{ note: (SELECT to_json(count(*)) FROM pg_class) }",
            "come from other tables",
        ),
        ("{ total: \"ctid::text::point[0]\" }", "the system column"),
        ("{ note: to_json(orders) }", "reads the whole row"),
    ] {
        let step = format!("up:\n  - backfill: {{ table: orders, set: {set}, sync: trigger }}\n");
        let set = Migrations::write(&[("1_a.yaml", &step)])?;
        let refused = run(&["up"], &database, &set).await?;
        assert_ne!(refused.code, Some(0), "{step}");
        assert!(refused.stderr.contains(words), "{step}: {}", refused.stderr);
    }
    let missing = Migrations::write(&[("1_a.yaml", END.replace("total_with_tax", "note").as_str())])?;
    let refused = run(&["up"], &database, &missing).await?;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    Ok(())
}
