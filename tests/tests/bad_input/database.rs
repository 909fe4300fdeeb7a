//! What is wrong is seen on the database only.

use crate::case::Case;
use expect_test::expect;
use tests::postgres::{Database, Server};

const SETUP: &str = "
CREATE TABLE orders (id bigint PRIMARY KEY, total numeric, doubled numeric GENERATED ALWAYS AS (total * 2) STORED);
CREATE TABLE keyless (x int);
CREATE TABLE \"Mixed\" (x int);
CREATE VIEW a_view AS SELECT * FROM orders;
CREATE TABLE keyed (id uuid PRIMARY KEY, n int);
CREATE TABLE floating (id double precision PRIMARY KEY, n int);
CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
INSERT INTO orders (id) VALUES (1);
";

/// The name is part of messages.
async fn database(name: &str) -> anyhow::Result<Database> {
    let database = Server::shared().await?.database(name).await?;
    database.execute(SETUP).await?;
    Ok(database)
}

async fn nothing_was_made(database: &Database) -> anyhow::Result<()> {
    let ours =
        "SELECT count(*) FROM pg_class WHERE relname = 'orders' OR relnamespace = 'public'::regnamespace";
    assert_eq!(database.number(ours).await?, 11, "relations");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped";
    assert_eq!(database.number(columns).await?, 3);
    let table = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('confiture.step')";
    if database.number(table).await? == 1 {
        assert_eq!(database.number("SELECT count(*) FROM confiture.step").await?, 0);
    }
    Ok(())
}

#[tokio::test]
async fn steps() -> anyhow::Result<()> {
    let database = database("bad_steps").await?;
    for (step, code, message) in [
        (
            "drop_column: { table: orderz, column: x }",
            2,
            expect![[r#"
            1 a: step 1 of 1: drop column "x" of "orderz"
            error: migration 1 "a" (up), step 1 of 1 (drop column "x" of "orderz", db/1_a.yaml:2:5), failed on database bad_steps:
              table "orderz" does not exist
                help: check the name, its schema, and that an earlier migration creates it
        "#]],
        ),
        (
            "drop_column: { table: Mixed, column: x }",
            2,
            expect![[r#"
            1 a: step 1 of 1: drop column "x" of "mixed"
            error: migration 1 "a" (up), step 1 of 1 (drop column "x" of "mixed", db/1_a.yaml:2:5), failed on database bad_steps:
              table "mixed" does not exist
                help: there is public."Mixed": write it as shown
        "#]],
        ),
        (
            "drop_column: { table: other.orders, column: x }",
            2,
            expect![[r#"
                1 a: step 1 of 1: drop column "x" of "other"."orders"
                error: migration 1 "a" (up), step 1 of 1 (drop column "x" of "other"."orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  table "other"."orders" does not exist
                    help: check the name, its schema, and that an earlier migration creates it
            "#]],
        ),
        (
            "drop_column: { table: orders, column: price }",
            2,
            expect![[r#"
                1 a: step 1 of 1: drop column "price" of "orders"
                error: migration 1 "a" (up), step 1 of 1 (drop column "price" of "orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  table "public"."orders" has no column "price"
                    help: it has "id", "total", "doubled"
            "#]],
        ),
        (
            "set_not_null: { table: orders, column: TOTAL_ }",
            2,
            expect![[r#"
                1 a: step 1 of 1: set column "total_" of "orders" NOT NULL
                error: migration 1 "a" (up), step 1 of 1 (set column "total_" of "orders" NOT NULL, db/1_a.yaml:2:5), failed on database bad_steps:
                  table "public"."orders" has no column "total_"
                    help: it has "id", "total", "doubled"
            "#]],
        ),
        (
            "add_column: { table: orders, column: total, type: int }",
            2,
            expect![[r#"
                1 a: step 1 of 1: add column "total" to "orders"
                error: migration 1 "a" (up), step 1 of 1 (add column "total" to "orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  table "public"."orders" already has a column "total" of type numeric
                    help: choose another name, or remove the step if the column is the one you want
            "#]],
        ),
        (
            "add_column: { table: a_view, column: x, type: int }",
            2,
            expect![[r#"
                1 a: step 1 of 1: add column "x" to "a_view"
                error: migration 1 "a" (up), step 1 of 1 (add column "x" to "a_view", db/1_a.yaml:2:5), failed on database bad_steps:
                  "public"."a_view" is a view, not a table
                    help: name a table, or use a `sql` step
            "#]],
        ),
        (
            "add_column: { table: orders, column: x, type: intt }",
            1,
            expect![[r#"
                1 a: step 1 of 1: add column "x" to "orders"
                error: migration 1 "a" (up), step 1 of 1 (add column "x" to "orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  PostgreSQL says: type "intt" does not exist (42704)
                  at line 1, column 46 of the step
                    ALTER TABLE "public"."orders" ADD COLUMN "x" intt
                                                                 ^
                  in the statement: ALTER TABLE "public"."orders" ADD COLUMN "x" intt
            "#]],
        ),
        (
            "backfill: { table: orders, set: { total: price * 2 } }",
            2,
            expect![[r#"
                1 a: step 1 of 1: backfill "total" of "orders"
                error: migration 1 "a" (up), step 1 of 1 (backfill "total" of "orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  table "public"."orders" has no column "price"
                    help: it has "id", "total", "doubled"
            "#]],
        ),
        (
            "backfill: { table: orders, set: { doubled: \"1\" } }",
            2,
            expect![[r#"
                1 a: step 1 of 1: backfill "doubled" of "orders"
                error: migration 1 "a" (up), step 1 of 1 (backfill "doubled" of "orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  column "doubled" of "public"."orders" is generated and cannot be set
            "#]],
        ),
        (
            "backfill: { table: orders, set: { total: nope(id) } }",
            1,
            expect![[r#"
                1 a: step 1 of 1: backfill "total" of "orders"
                error: migration 1 "a" (up), step 1 of 1 (backfill "total" of "orders", db/1_a.yaml:2:5), failed on database bad_steps:
                  PostgreSQL says: function nope(bigint) does not exist (42883)
                  at line 1, column 46 of the step
                    UPDATE ONLY "public"."orders" SET "total" = (nope(id)
                                                                 ^
                  in the statement: UPDATE ONLY "public"."orders" SET "total" = (nope(id) )
            "#]],
        ),
        (
            "backfill: { table: a_view, set: { total: \"1\" } }",
            2,
            expect![[r#"
                1 a: step 1 of 1: backfill "total" of "a_view"
                error: migration 1 "a" (up), step 1 of 1 (backfill "total" of "a_view", db/1_a.yaml:2:5), failed on database bad_steps:
                  "public"."a_view" is a view: its rows cannot be changed in batches
                    help: name the table that holds the rows
            "#]],
        ),
        (
            "backfill: { table: keyless, set: { x: x + 1 }, new_rows: either }",
            3,
            expect![[r#"
                1 a: step 1 of 1: backfill "x" of "keyless"
                error: migration 1 "a" (up), step 1 of 1 (backfill "x" of "keyless", db/1_a.yaml:2:5), failed on database bad_steps:
                  table "public"."keyless" has no primary key and no unique key of columns that are NOT NULL, so a batch could not tell which rows are done
                    help: add a primary key first, or fill a new column from the old one
            "#]],
        ),
        (
            "backfill: { table: keyed, set: { n: n + 1 } }",
            3,
            expect![[r#"
            1 a: step 1 of 1: backfill "n" of "keyed"
            error: migration 1 "a" (up), step 1 of 1 (backfill "n" of "keyed", db/1_a.yaml:2:5), failed on database bad_steps:
              the new value of "n" depends on a value the step itself sets, so each row must be changed exactly once, and on "public"."keyed" it is not certain which rows that is
                help: its key does not grow with insertion, so a row inserted meanwhile may be changed or not: if both are right say `new_rows: either`; if `where` does not hold for new rows say `new_rows: excluded`; or fill a new column from the old one
        "#]],
        ),
        (
            "backfill: { table: keyed, set: { id: gen_random_uuid() } }",
            3,
            expect![[r#"
                1 a: step 1 of 1: backfill "id" of "keyed"
                error: migration 1 "a" (up), step 1 of 1 (backfill "id" of "keyed", db/1_a.yaml:2:5), failed on database bad_steps:
                  "id" is part of the primary key of "public"."keyed", by which the batches find their rows: a row that is changed would be met again
                    help: fill a new column and make it the key afterwards, or change the rows in one `sql` step if the table is small
            "#]],
        ),
        (
            "backfill: { table: floating, set: { n: \"1\" } }",
            3,
            expect![[r#"
                1 a: step 1 of 1: backfill "n" of "floating"
                error: migration 1 "a" (up), step 1 of 1 (backfill "n" of "floating", db/1_a.yaml:2:5), failed on database bad_steps:
                  the key column "id" of "public"."floating" is floating point: a value read as text may not be found again
                    help: add a unique key of other columns that are NOT NULL, or change the rows in one `sql` step if the table is small
            "#]],
        ),
        (
            "backfill: { table: parts, set: { n: n + 1 }, new_rows: either }",
            3,
            expect![[r#"
                1 a: step 1 of 1: backfill "n" of "parts"
                error: migration 1 "a" (up), step 1 of 1 (backfill "n" of "parts", db/1_a.yaml:2:5), failed on database bad_steps:
                  the new value of "n" depends on a value the step itself sets, so each row must be changed exactly once, and on "public"."parts" it is not certain which rows that is
                    help: rows can move between partitions: fill a new column from the old one instead
            "#]],
        ),
        (
            "assert: { query: SELECT count(*) > 5 FROM orders, message: too few orders }",
            1,
            expect![[r#"
                1 a: step 1 of 1: assert SELECT count(*) > 5 FROM orders
                error: migration 1 "a" (up), step 1 of 1 (assert SELECT count(*) > 5 FROM orders, db/1_a.yaml:2:5), failed on database bad_steps:
                  the assertion does not hold: too few orders
            "#]],
        ),
        (
            "assert: { query: SELECT count(*) FROM orders }",
            1,
            expect![[r#"
            1 a: step 1 of 1: assert SELECT count(*) FROM orders
            error: migration 1 "a" (up), step 1 of 1 (assert SELECT count(*) FROM orders, db/1_a.yaml:2:5), failed on database bad_steps:
              the assertion does not hold: its query must give a boolean
        "#]],
        ),
        (
            "sql: SELECT 1 / 0",
            1,
            expect![[r#"
            1 a: step 1 of 1: sql: SELECT 1 / 0
            error: migration 1 "a" (up), step 1 of 1 (sql: SELECT 1 / 0, db/1_a.yaml:2:5), failed on database bad_steps:
              PostgreSQL says: division by zero (22012)
              at db/1_a.yaml:2:10
              in the statement: SELECT 1 / 0
        "#]],
        ),
        (
            "sql: CREATE TABLE orders ()",
            1,
            expect![[r#"
            1 a: step 1 of 1: sql: CREATE TABLE orders ()
            error: migration 1 "a" (up), step 1 of 1 (sql: CREATE TABLE orders (), db/1_a.yaml:2:5), failed on database bad_steps:
              PostgreSQL says: relation "orders" already exists (42P07)
              at db/1_a.yaml:2:10
              in the statement: CREATE TABLE orders ()
        "#]],
        ),
    ] {
        let file = format!("up:\n  - {step}\n");
        // A backfill that fails in its first batch has begun; the next case is another migration.
        database
            .execute("DROP SCHEMA IF EXISTS confiture CASCADE")
            .await?;
        Case::up(&[("1_a.yaml", &file)])
            .env("DATABASE_URL", database.url())
            .covering(tests::postgres::OWNER, "OWNER")
            .says(code, message)
            .await?;
    }
    database
        .execute("DROP SCHEMA IF EXISTS confiture CASCADE")
        .await?;
    nothing_was_made(&database).await
}

#[tokio::test]
async fn targets() -> anyhow::Result<()> {
    let database = database("bad_targets").await?;
    let files: &[(&str, &str)] = &[("1_a.up.sql", "SELECT 1"), ("1_a.down.sql", "SELECT 1")];
    let up = || Case::up(files).env("DATABASE_URL", database.url());
    up().arg("--target")
        .arg("7")
        .says(
            2,
            expect![[r#"
        error: the set has no version 7
          help: `confiture migrate status` lists its versions
    "#]],
        )
        .await?;
    up().arg("--set")
        .arg("No Set")
        .says(
            2,
            expect![[r#"
        error: --set: set name `No Set` is not usable: only letters, digits, `.`, `_` and `-` are allowed
    "#]],
        )
        .await?;
    up().arg("--database")
        .arg("orders")
        .says(
            2,
            expect![[r#"
            error: --database orders: the settings name no database
              help: give --database-url, or list it under `databases:` in confiture.yaml
        "#]],
        )
        .await?;
    nothing_was_made(&database).await
}
