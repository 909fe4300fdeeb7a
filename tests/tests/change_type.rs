//! Another type for a column of a table that applications read and write, with all that hangs on the column.

use anyhow::{Context as _, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server, Session};
use tests::process::{Confiture, Ended};

const SOON: Duration = Duration::from_secs(30);

const WIDER: &str = "name: wider keys\nup:\n  - change_type: { table: orders, column: id, type: bigint, batch: { size: 300, pause: 20ms } }\n";

const END: &str = "up:\n  - contract: { table: orders, column: id }\n";

/// A table whose key is referenced by itself and by another one, with indexes, checks, and a trigger.
async fn orders() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE orders (
               id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
               parent_id int REFERENCES orders,
               code text NOT NULL DEFAULT md5(random()::text),
               total numeric NOT NULL CHECK (total >= 0),
               changes int NOT NULL DEFAULT 0,
               CONSTRAINT id_is_positive CHECK (id > 0 AND id <> parent_id),
               CONSTRAINT code_once UNIQUE (code, id) DEFERRABLE);
             COMMENT ON COLUMN orders.id IS 'it''s the key';
             ALTER TABLE orders ALTER COLUMN id SET STATISTICS 500;
             CREATE INDEX newest ON orders (id DESC NULLS LAST, total) INCLUDE (code) WITH (fillfactor = 80) WHERE id > 10;
             CREATE UNIQUE INDEX odd ON orders ((id * 2 + 1), lower(code));
             CREATE TABLE items (order_id int NOT NULL CONSTRAINT of_order REFERENCES orders ON DELETE CASCADE, n int);
             CREATE FUNCTION count_changes() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN IF NEW.total <> OLD.total THEN NEW.changes := OLD.changes + 1; END IF; RETURN NEW; END';
             CREATE TRIGGER changes BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION count_changes();
             INSERT INTO orders (total) SELECT g FROM generate_series(1, 3000) g;
             UPDATE orders SET parent_id = id / 2 WHERE id > 1;
             INSERT INTO items SELECT id, 1 FROM orders",
        )
        .await?;
    Ok(database)
}

fn migrate(words: &[&str], set: &Migrations, database: &Database) -> Confiture {
    let words = ["migrate"].iter().chain(words).chain(&["--migrations"]);
    Confiture::new(words)
        .arg(set.path())
        .env("DATABASE_URL", database.url())
}

async fn run(words: &[&str], set: &Migrations, database: &Database) -> anyhow::Result<String> {
    expect(&migrate(words, set, database).run().await?, 0)
}

fn expect(ended: &Ended, code: i32) -> anyhow::Result<String> {
    ensure!(
        ended.code == Some(code),
        "{:?}: {}{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    Ok(format!("{}{}", ended.stdout, ended.stderr))
}

/// The schema as `pg_dump` writes it, without ours; where there is none for this server, what a change of type touches.
async fn schema(database: &Database) -> anyhow::Result<String> {
    let server = Server::shared().await?;
    if server.is_dumped().await? {
        return Ok(server.catalog(database).await?.join("\n"));
    }
    let query = "WITH c AS (SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p'))
      SELECT string_agg(x.line, E'\n' ORDER BY x.line) FROM (
        SELECT relname || ' ' || conname || ' ' || pg_get_constraintdef(o.oid) AS line FROM c JOIN pg_constraint o ON conrelid = c.oid
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM c JOIN pg_index ON indrelid = c.oid
        UNION ALL SELECT relname || ' ' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull
               || ' ' || attidentity::text || ' ' || coalesce(pg_get_expr(adbin, adrelid), '')
          FROM c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
          LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        UNION ALL SELECT pg_get_triggerdef(g.oid) FROM c JOIN pg_trigger g ON tgrelid = c.oid AND NOT tgisinternal) x";
    let session = database.connect().await?;
    Ok(session.query_one(query, &[]).await?.get(0))
}

/// Inserts, changes and deletes rows as an application that knows nothing of the change, until it is told to stop.
async fn application(database: &Database, stop: Arc<AtomicBool>) -> anyhow::Result<u64> {
    let mut session = database.connect().await?;
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        for statement in [
            "WITH o AS (INSERT INTO public.orders (total) SELECT 1 FROM generate_series(1, 3) RETURNING id)
             INSERT INTO public.items SELECT id, 2 FROM o",
            "UPDATE public.orders SET total = total + 1 WHERE id IN (SELECT 1 + (random() * 3000)::int FROM generate_series(1, 5))",
            "DELETE FROM public.orders WHERE id = (SELECT max(id) FROM public.orders)",
            "UPDATE public.orders SET parent_id = NULL WHERE id = 1 + (random() * 3000)::int",
        ] {
            // By the text, not by a plan of another type.
            session
                .batch_execute(statement)
                .await
                .with_context(|| statement.to_owned())?;
            done += 1;
        }
        if done % 400 == 0 {
            session = database.connect().await?;
        }
    }
    Ok(done)
}

/// The columns of a table with their types, in their order.
async fn columns(session: &Session, table: &str) -> anyhow::Result<Vec<String>> {
    let query = format!(
        "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
          WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    );
    let rows = session.query(&query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[tokio::test]
async fn a_referenced_key_gets_a_wider_type_under_load_and_its_old_one_back() -> anyhow::Result<()> {
    let database = orders().await?;
    let before = schema(&database).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn({
        let (database, stop) = (database.clone(), Arc::clone(&stop));
        async move { application(&database, stop).await }
    });
    let set = Migrations::write(&[("1_wider.yaml", WIDER)])?;
    let said = run(&["up"], &set, &database).await?;
    ensure!(said.contains("verified"), "{said}");
    let status = run(&["status"], &set, &database).await?;
    ensure!(
        status
            .contains("kept right by a trigger: confiture_old_id of public.orders, until a `contract` step"),
        "{status}"
    );
    let session = database.connect().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let differing = "SELECT count(*) FROM orders WHERE id IS DISTINCT FROM confiture_old_id";
    assert_eq!(database.number(differing).await?, 0);
    assert_eq!(
        columns(&session, "orders").await?,
        [
            "confiture_old_id integer",
            "parent_id integer",
            "code text",
            "total numeric",
            "changes integer",
            "id bigint"
        ]
    );
    let after = schema(&database).await?;
    let dumped = Server::shared().await?.is_dumped().await?;
    for line in [
        "ADD CONSTRAINT orders_pkey PRIMARY KEY (id);",
        "ADD CONSTRAINT code_once UNIQUE (code, id) DEFERRABLE;",
        "ADD CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES public.orders(id) ON DELETE CASCADE;",
        "ADD CONSTRAINT orders_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES public.orders(id);",
        "CREATE INDEX newest ON public.orders USING btree (id DESC NULLS LAST, total) INCLUDE (code) WITH (fillfactor='80') WHERE (id > 10);",
        "CREATE UNIQUE INDEX odd ON public.orders USING btree ((((id * 2) + 1)), lower(code));",
        "COMMENT ON COLUMN public.orders.id IS 'it''s the key';",
        "ALTER TABLE ONLY public.orders ALTER COLUMN id SET STATISTICS 500;",
        "ALTER TABLE public.orders ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (",
        "CONSTRAINT id_is_positive CHECK (((id > 0) AND (id <> parent_id)))",
    ] {
        ensure!(!dumped || after.contains(line), "{line}\n{after}");
    }
    run(&["down"], &set, &database).await?;
    stop.store(true, Ordering::Relaxed);
    let done = working.await??;
    ensure!(done > 20, "the application did only {done} statements");
    assert_eq!(schema(&database).await?, before);
    assert_eq!(columns(&session, "orders").await?[0], "id integer");
    let lost = "SELECT count(*) FROM items i WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = i.order_id)";
    assert_eq!(database.number(lost).await?, 0);
    assert_eq!(database.number("SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'confiture'").await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_old_column_goes_with_a_later_migration_and_then_there_is_no_way_back() -> anyhow::Result<()> {
    let database = orders().await?;
    let set = Migrations::write(&[("1_wider.yaml", WIDER), ("2_end.yaml", END)])?;
    run(&["up"], &set, &database).await?;
    let session = database.connect().await?;
    let columns = columns(&session, "orders").await?;
    assert_eq!(columns.last().map(String::as_str), Some("id bigint"));
    ensure!(
        !columns.iter().any(|column| column.starts_with("confiture")),
        "{columns:?}"
    );
    session
        .batch_execute("SELECT setval('orders_id_seq', 3000000000); INSERT INTO orders (total) VALUES (1)")
        .await?;
    let down = migrate(&["down", "--steps", "2"], &set, &database).run().await?;
    let said = expect(&down, 3)?;
    ensure!(said.contains("the old column is gone"), "{said}");
    Ok(())
}

#[tokio::test]
async fn what_the_column_needs_or_what_needs_it_is_refused_before_anything_is_changed() -> anyhow::Result<()>
{
    let database = orders().await?;
    database
        .execute(
            "CREATE VIEW dear AS SELECT id, total FROM orders WHERE total > 100;
             CREATE TABLE parts (id int, n int) PARTITION BY RANGE (id);
             CREATE TABLE words (id int PRIMARY KEY, w text CHECK (w LIKE 'a%'), when_set timestamptz DEFAULT now());
             INSERT INTO words VALUES (1, 'abc')",
        )
        .await?;
    let before = schema(&database).await?;
    for (step, code, expected) in [
        (
            "change_type: { table: orders, column: id, type: bigint }",
            3,
            "\"id\" of \"public\".\"orders\" cannot get another type while it is needed by view public.dear",
        ),
        (
            "change_type: { table: parts, column: n, type: bigint }",
            3,
            "its rows are in several tables",
        ),
        (
            "change_type: { table: words, column: w, type: int }",
            1,
            "is of type integer but",
        ),
        (
            "change_type: { table: words, column: w, type: bytea, using: \"convert_to(w, 'UTF8')\" }",
            1,
            "operator does not exist",
        ),
        (
            "change_type: { table: words, column: w, type: nonsense }",
            2,
            "there is no type `nonsense`",
        ),
        (
            "change_type: { table: words, column: nothing, type: int }",
            2,
            "has no column",
        ),
        (
            "change_type: { table: words, column: w, type: text, using: \"w || random()::text\" }",
            2,
            "is of type text already",
        ),
        (
            "change_type: { table: words, column: w, type: varchar, using: \"w || random()::text\" }",
            3,
            "another value each time",
        ),
        (
            "change_type: { table: words, column: w, type: text, using: \"id::text\" }",
            2,
            "does not read",
        ),
        (
            "change_type: { table: orders, column: id, type: text }",
            3,
            "view public.dear",
        ),
    ] {
        let set = Migrations::write(&[("1_a.yaml", &format!("up:\n  - {step}\n"))])?;
        let ended = migrate(&["up"], &set, &database).run().await?;
        let said = expect(&ended, code).with_context(|| step.to_owned())?;
        ensure!(said.contains(expected), "{step}: {said}");
        assert_eq!(schema(&database).await?, before, "{step}");
        database
            .execute("DROP SCHEMA IF EXISTS confiture CASCADE")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_type_that_only_takes_more_is_changed_in_place() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE t (id int PRIMARY KEY, w varchar(5), n numeric(6,2)); CREATE INDEX t_w ON t (w); INSERT INTO t VALUES (1, 'a', 1)",
        )
        .await?;
    let node = "SELECT (relfilenode::bigint) FROM pg_class WHERE relname = 't'";
    let (table, index) = (
        database.number(node).await?,
        database.number(&node.replace("'t'", "'t_w'")).await?,
    );
    let steps = "up:\n  - change_type: { table: t, column: w, type: VARCHAR (20) }\n  - change_type: { table: t, column: w, type: text }\n  - change_type: { table: t, column: n, type: \"decimal(8, 2)\" }\n";
    let set = Migrations::write(&[("1_a.yaml", steps)])?;
    run(&["up"], &set, &database).await?;
    let session = database.connect().await?;
    assert_eq!(
        columns(&session, "t").await?,
        ["id integer", "w text", "n numeric(8,2)"]
    );
    assert_eq!(database.number(node).await?, table);
    assert_eq!(database.number(&node.replace("'t'", "'t_w'")).await?, index);
    let said = expect(&migrate(&["down"], &set, &database).run().await?, 3)?;
    ensure!(said.contains("was changed in place"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_value_that_does_not_fit_stops_the_change_and_no_application() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE t (id int PRIMARY KEY, code text);
             INSERT INTO t SELECT g, g FROM generate_series(1, 500) g",
        )
        .await?;
    let before = schema(&database).await?;
    let steps =
        "up:\n  - change_type: { table: t, column: code, type: int, using: code::int, back: code::text }\n";
    let set = Migrations::write(&[("1_a.yaml", steps)])?;
    run(&["up"], &set, &database).await?;
    // An application that names its columns, and one that does not.
    database
        .execute("INSERT INTO t (id, code) VALUES (501, 7); INSERT INTO t VALUES (502, '7')")
        .await?;
    let both = "SELECT count(*) FROM t WHERE code = 7 AND confiture_old_code = '7'";
    assert_eq!(database.number(both).await?, 3);
    run(&["down"], &set, &database).await?;
    assert_eq!(schema(&database).await?, before);
    database
        .execute("UPDATE t SET code = 'seven' WHERE id = 7")
        .await?;
    let said = expect(&migrate(&["up"], &set, &database).run().await?, 1)?;
    ensure!(said.contains("invalid input syntax for type integer"), "{said}");
    // It has begun: the application is not hindered.
    database
        .execute("UPDATE t SET code = 'eight' WHERE id = 8")
        .await?;
    run(&["down"], &set, &database).await?;
    assert_eq!(schema(&database).await?, before);
    database.execute("UPDATE t SET code = id::text").await?;
    run(&["up"], &set, &database).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_outgrew_the_old_type_cannot_go_back() -> anyhow::Result<()> {
    let database = orders().await?;
    let set = Migrations::write(&[("1_wider.yaml", WIDER)])?;
    run(&["up"], &set, &database).await?;
    database
        .execute("INSERT INTO orders (id, total) OVERRIDING SYSTEM VALUE VALUES (3000000000, 1)")
        .await?;
    let said = expect(&migrate(&["down"], &set, &database).run().await?, 1)?;
    ensure!(said.contains("confiture_old_id"), "{said}");
    // Nobody is hindered, and once the row is gone the way back is free.
    database
        .execute(
            "INSERT INTO orders (id, total) OVERRIDING SYSTEM VALUE VALUES (3000000001, 1);
             DELETE FROM orders WHERE id >= 3000000000",
        )
        .await?;
    run(&["down"], &set, &database).await?;
    let session = database.connect().await?;
    assert_eq!(columns(&session, "orders").await?[0], "id integer");
    Ok(())
}

#[tokio::test]
async fn a_change_that_was_killed_on_its_way_goes_on_or_back() -> anyhow::Result<()> {
    for words in [["up", "--take-over"], ["down", "--take-over"]] {
        let database = orders().await?;
        let before = schema(&database).await?;
        let set = Migrations::write(&[("1_wider.yaml", WIDER)])?;
        let mut killed = migrate(&["up"], &set, &database).start("killed")?;
        eventually("some rows with both columns", SOON, || async {
            let query = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'confiture_new_id'";
            if database.number(query).await? == 0 {
                return Ok(None);
            }
            let filled = "SELECT count(*) FROM orders WHERE confiture_new_id IS NOT NULL";
            Ok((database.number(filled).await? > 300).then_some(()))
        })
        .await?;
        killed.kill();
        run(&words, &set, &database).await?;
        let session = database.connect().await?;
        if words[0] == "up" {
            assert_eq!(
                database
                    .number("SELECT count(*) FROM orders WHERE id IS DISTINCT FROM confiture_old_id")
                    .await?,
                0
            );
        } else {
            assert_eq!(schema(&database).await?, before);
            assert_eq!(columns(&session, "orders").await?[0], "id integer");
        }
    }
    Ok(())
}
