//! Batched changes on the tables a real fleet has: every kind of key, none at all, partitions, odd names, triggers.

use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::Confiture;

/// The ledger must be as it must be after each of them.
async fn migrate(database: &Database, step: &str) -> anyhow::Result<tests::process::Ended> {
    let set = Migrations::write(&[("1_a.yaml", &format!("up:\n  - {step}\n"))])?;
    let ended = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .run()
        .await?;
    if ended.code == Some(0) {
        Confiture::new(["ledger", "verify"])
            .env("DATABASE_URL", database.url())
            .succeed()
            .await?;
    }
    Ok(ended)
}

/// A table, a step, and what must be true afterwards.
struct Case {
    name: &'static str,
    create: &'static str,
    step: &'static str,
    holds: &'static str,
}

async fn holds(case: &Case) -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(case.create).await?;
    let ended = migrate(&database, case.step).await?;
    assert_eq!(ended.code, Some(0), "{}: {}", case.name, ended.stderr);
    let session = database.connect().await?;
    let row = session.query_one(case.holds, &[]).await?;
    assert_eq!(row.get::<_, Option<bool>>(0), Some(true), "{}", case.name);
    Ok(())
}

async fn all_hold(cases: &[Case]) -> anyhow::Result<()> {
    for case in cases {
        holds(case).await?;
    }
    Ok(())
}

const FILL: &str = "backfill: { table: t, set: { y: \"n * 2\" }, batch: { size: 37, workers: 3 } }";
const FILLED: &str = "SELECT count(*) = 1000 AND bool_and(y = n * 2) FROM t";

/// `t` with 1,000 rows, the given key's column made of the row's number `g`.
macro_rules! keyed {
    ($name:literal, $columns:literal, $values:literal) => {
        Case {
            name: $name,
            create: concat!(
                "CREATE TABLE t (",
                $columns,
                ", n int NOT NULL, y int);
                 INSERT INTO t SELECT ",
                $values,
                ", g, NULL FROM generate_series(1, 1000) g; ANALYZE t"
            ),
            step: FILL,
            holds: FILLED,
        }
    };
}

#[tokio::test]
async fn rows_are_found_by_keys_of_every_type() -> anyhow::Result<()> {
    all_hold(&[
        keyed!("bigint", "k bigint PRIMARY KEY", "g * 1000003::bigint"),
        keyed!("smallint", "k smallint PRIMARY KEY", "g"),
        keyed!("negative", "k int PRIMARY KEY", "500 - g"),
        keyed!("uuid", "k uuid PRIMARY KEY", "md5(g::text)::uuid"),
        keyed!("text", "k text PRIMARY KEY", "CASE WHEN g % 2 = 0 THEN 'é' ELSE 'E ' END || g || ''''"),
        keyed!("text of an ICU collation", "k text COLLATE \"de-x-icu\" PRIMARY KEY", "CASE WHEN g % 2 = 0 THEN 'ö' ELSE 'Z' END || g"),
        keyed!("text of the C collation", "k text COLLATE \"C\" PRIMARY KEY", "CASE WHEN g % 2 = 0 THEN 'b' ELSE 'A' END || g"),
        keyed!("varchar", "k varchar(20) PRIMARY KEY", "'k' || g"),
        keyed!("char", "k char(8) PRIMARY KEY", "'k' || g"),
        keyed!("date", "k date PRIMARY KEY", "date '2000-01-01' + g - 500"),
        keyed!("timestamptz", "k timestamptz PRIMARY KEY", "timestamptz '1970-01-01 00:00:00.000001+00' + g * interval '1 day 1 microsecond'"),
        keyed!("infinity", "k timestamp PRIMARY KEY", "CASE g WHEN 1 THEN '-infinity'::timestamp WHEN 2 THEN 'infinity' ELSE timestamp '0044-03-15 BC' + g * interval '1 hour' END"),
        keyed!("numeric", "k numeric PRIMARY KEY", "CASE g WHEN 1 THEN 'NaN'::numeric ELSE g / 7.0 END"),
        keyed!("interval", "k interval PRIMARY KEY", "g * interval '1 month 3 seconds'"),
        keyed!("inet", "k inet PRIMARY KEY", "'10.0.0.0'::inet + g"),
        keyed!("bytea", "k bytea PRIMARY KEY", "decode(md5(g::text), 'hex')"),
        keyed!("boolean and integer", "b boolean, k int, PRIMARY KEY (b, k)", "g % 2 = 0, g / 2"),
        keyed!("composite", "a int, k text, PRIMARY KEY (a, k)", "g % 7, 'x' || g"),
        keyed!("composite, other order than the columns", "k int, a uuid, PRIMARY KEY (a, k)", "g, md5((g % 9)::text)::uuid"),
        keyed!("gaps of millions", "k bigint PRIMARY KEY", "g * g * g * 1000000::bigint"),
        keyed!("array", "k int[] PRIMARY KEY", "ARRAY[g % 5, g]"),
        keyed!("deferrable", "k int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED", "g"),
        keyed!("covering", "k int, z int, PRIMARY KEY (k) INCLUDE (z)", "g, g"),
    ])
    .await
}

#[tokio::test]
async fn rows_are_found_by_types_of_users() -> anyhow::Result<()> {
    all_hold(&[
        Case {
            name: "enum",
            create: "CREATE TYPE color AS ENUM ('red', 'green', 'blue');
                CREATE TABLE t (c color, k int, n int, y int, PRIMARY KEY (c, k));
                INSERT INTO t SELECT (enum_range(NULL::color))[1 + g % 3], g, g FROM generate_series(1, 1000) g",
            step: FILL,
            holds: FILLED,
        },
        Case {
            name: "domain over domain",
            create: "CREATE DOMAIN name_ AS text COLLATE \"C\" CHECK (VALUE <> ''); CREATE DOMAIN code AS name_;
                CREATE TABLE t (k code PRIMARY KEY, n int, y int);
                INSERT INTO t SELECT 'c' || g, g FROM generate_series(1, 1000) g",
            step: FILL,
            holds: FILLED,
        },
        Case {
            name: "type in a schema with an odd name",
            create: "CREATE SCHEMA \"Über Schema\"; CREATE DOMAIN \"Über Schema\".\"The Key\" AS bigint;
                CREATE TABLE t (k \"Über Schema\".\"The Key\" PRIMARY KEY, n int, y int);
                INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g",
            step: FILL,
            holds: FILLED,
        },
    ])
    .await
}

#[tokio::test]
async fn a_unique_key_serves_where_there_is_no_primary_one() -> anyhow::Result<()> {
    let unique = |name, index| Case {
        name,
        create: index,
        step: FILL,
        holds: "SELECT count(*) = 1000 AND bool_and(y = n * 2) AND
                  (SELECT bool_and(paging LIKE 'key %') FROM confiture.shard) FROM t",
    };
    all_hold(&[
        unique(
            "unique constraint",
            "CREATE TABLE t (k text NOT NULL UNIQUE, n int, y int);
             INSERT INTO t SELECT 'k' || g, g FROM generate_series(1, 1000) g",
        ),
        unique(
            "descending index",
            "CREATE TABLE t (a int NOT NULL, k int NOT NULL, n int, y int);
             CREATE UNIQUE INDEX ON t (a DESC, k DESC);
             INSERT INTO t SELECT g % 10, g, g FROM generate_series(1, 1000) g",
        ),
        unique(
            "mixed directions, NULLS where nobody looks for them",
            "CREATE TABLE t (a text NOT NULL, k int NOT NULL, b date NOT NULL, n int, y int);
             CREATE UNIQUE INDEX ON t (a DESC NULLS LAST, b, k DESC);
             INSERT INTO t SELECT 'a' || g % 3, g, date '2020-01-01' + g % 11, g FROM generate_series(1, 1000) g",
        ),
        unique(
            "a float primary key beside another one",
            "CREATE TABLE t (f float8 PRIMARY KEY, k int NOT NULL UNIQUE, n int, y int);
             INSERT INTO t SELECT g / 3.0, g, g FROM generate_series(1, 1000) g",
        ),
    ])
    .await
}

#[tokio::test]
async fn tables_without_any_key_are_paged_by_blocks() -> anyhow::Result<()> {
    let rows = "INSERT INTO t SELECT g, NULL, repeat('x', 500) FROM generate_series(1, 1000) g";
    let create: &'static str = Box::leak(format!("CREATE TABLE t (n int, y int, pad text); {rows}").into());
    let partial: &'static str = Box::leak(
        format!("CREATE TABLE t (n int NOT NULL, y int, pad text); CREATE UNIQUE INDEX ON t (n) WHERE n > 5; {rows}").into(),
    );
    all_hold(&[
        Case {
            name: "derived",
            create,
            step: FILL,
            holds: "SELECT count(*) = 1000 AND bool_and(y = n * 2) AND
                      (SELECT bool_and(paging = 'blocks') AND max(pass) = 2 FROM confiture.shard) FROM t",
        },
        Case {
            name: "by condition, a value that differs each time",
            create,
            step: "backfill: { table: t, set: { y: \"(random() * 10)::int\" }, where: \"y IS NULL\", batch: { size: 50 } }",
            holds: "SELECT count(y) = 1000 AND (SELECT rows = 1000 FROM confiture.step) FROM t",
        },
        Case {
            name: "delete",
            create,
            step: "delete: { table: t, where: \"n % 3 = 0\", batch: { size: 50 } }",
            holds: "SELECT count(*) = 667 AND (SELECT rows = 333 FROM confiture.step) FROM t",
        },
        Case {
            name: "a partial unique index is no key",
            create: partial,
            step: FILL,
            holds: "SELECT count(*) = 1000 AND bool_and(y = n * 2) AND
                      (SELECT bool_and(paging = 'blocks') FROM confiture.shard) FROM t",
        },
    ])
    .await
}

#[tokio::test]
async fn partitioned_tables_are_changed_partition_by_partition() -> anyhow::Result<()> {
    let rows = "INSERT INTO t SELECT g, g, NULL FROM generate_series(1, 1000) g";
    let with = |create: &str| -> &'static str { Box::leak(format!("{create}; {rows}").into()) };
    let once =
        "SELECT count(*) = 1000 AND bool_and(y = n * 2) AND (SELECT rows = 1000 FROM confiture.step) FROM t";
    let range = with(
        "CREATE TABLE t (k int, n int, y int, PRIMARY KEY (k)) PARTITION BY RANGE (k);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (300);
         CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (300) TO (301); CREATE TABLE t_3 PARTITION OF t DEFAULT",
    );
    let nested = with(
        "CREATE TABLE t (k int, n int, y int) PARTITION BY LIST ((k % 3));
         CREATE TABLE t_0 PARTITION OF t FOR VALUES IN (0) PARTITION BY HASH (n);
         CREATE TABLE t_00 PARTITION OF t_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE \"T 01\" PARTITION OF t_0 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE UNIQUE INDEX ON t_00 (n); ALTER TABLE t_00 ALTER n SET NOT NULL;
         CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1, 2)",
    );
    let differing = with(
        "CREATE TABLE t (k int, n int, y int) PARTITION BY RANGE (k);
         CREATE TABLE t_1 (gone int, y int, n int, k int NOT NULL UNIQUE); ALTER TABLE t_1 DROP gone;
         ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES FROM (0) TO (2000)",
    );
    all_hold(&[
        Case { name: "range", create: range, step: FILL, holds: once },
        Case { name: "nested, keys on some of them", create: nested, step: FILL, holds: once },
        Case { name: "columns in another order", create: differing, step: FILL, holds: once },
        Case {
            name: "the table's name in an expression",
            create: nested,
            step: "backfill: { table: t, set: { y: \"t.n * 2\" }, where: \"t.y IS NULL\" }",
            holds: once,
        },
        Case {
            name: "delete",
            create: nested,
            step: "delete: { table: t, where: \"n % 2 = 0\", batch: { size: 50 } }",
            holds: "SELECT count(*) = 500 AND (SELECT rows = 500 FROM confiture.step) FROM t",
        },
        Case {
            name: "no partition yet",
            create: "CREATE TABLE t (k int, n int, y int) PARTITION BY RANGE (k)",
            step: FILL,
            holds: "SELECT state = 'done' FROM confiture.step",
        },
        Case {
            name: "children by inheritance, each with a key of its own",
            create: "CREATE TABLE t (k int PRIMARY KEY, n int, y int); CREATE TABLE t_1 (PRIMARY KEY (k)) INHERITS (t);
                CREATE TABLE t_2 (more text) INHERITS (t_1);
                INSERT INTO t SELECT g, g FROM generate_series(1, 300) g;
                INSERT INTO t_1 SELECT g, g FROM generate_series(1, 300) g;
                INSERT INTO t_2 SELECT g, g FROM generate_series(1, 400) g",
            step: FILL,
            holds: once,
        },
    ])
    .await
}

#[tokio::test]
async fn odd_names_columns_and_triggers_are_met() -> anyhow::Result<()> {
    all_hold(&[
        Case {
            name: "quoted, mixed-case and non-ASCII names in another schema",
            create: "CREATE SCHEMA \"Shop \"\"A\"\"\"; CREATE TABLE \"Shop \"\"A\"\"\".\"Größe\" (\"Schlüssel %s $1\" int PRIMARY KEY, \"N\" int, \"Y y\" int);
                INSERT INTO \"Shop \"\"A\"\"\".\"Größe\" SELECT g, g FROM generate_series(1, 1000) g",
            step: "backfill: { table: '\"Shop \"\"A\"\"\".\"Größe\"', set: { 'Y y': '\"N\" * 2' }, batch: { size: 100 } }",
            holds: "SELECT bool_and(\"Y y\" = \"N\" * 2) FROM \"Shop \"\"A\"\"\".\"Größe\"",
        },
        Case {
            name: "identity key, generated columns, a domain",
            create: "CREATE DOMAIN positive AS int CHECK (VALUE > 0);
                CREATE TABLE t (k int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, y positive, z int GENERATED ALWAYS AS (y + 1) STORED);
                INSERT INTO t (n) SELECT g FROM generate_series(1, 1000) g",
            step: FILL,
            holds: "SELECT count(*) = 1000 AND bool_and(y = n * 2 AND z = y + 1) FROM t",
        },
        Case {
            name: "BEFORE trigger that changes the row, and one that refuses some",
            create: "CREATE TABLE t (k int PRIMARY KEY, n int, y int);
                INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g;
                CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.y := NEW.y + 1; RETURN CASE WHEN NEW.k % 10 = 0 THEN NULL ELSE NEW END; END';
                CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
            step: FILL,
            holds: "SELECT count(*) FILTER (WHERE y = n * 2 + 1) = 900 AND count(*) FILTER (WHERE y IS NULL) = 100 FROM t",
        },
        Case {
            name: "empty table",
            create: "CREATE TABLE t (k int PRIMARY KEY, n int, y int)",
            step: FILL,
            holds: "SELECT state = 'done' AND rows = 0 FROM confiture.step",
        },
        Case {
            name: "one row",
            create: "CREATE TABLE t (k int PRIMARY KEY, n int, y int); INSERT INTO t VALUES (1, 5, NULL)",
            step: FILL,
            holds: "SELECT y = 10 FROM t",
        },
        Case {
            name: "columns without an equality",
            create: "CREATE TABLE t (n int, y json, p point); INSERT INTO t SELECT g FROM generate_series(1, 1000) g",
            step: "backfill: { table: t, set: { y: \"json_build_object('n', n)\", p: \"point(n, 1)\" } }",
            holds: "SELECT count(*) = 1000 AND bool_and((y->>'n')::int = n AND p[0] = n) FROM t",
        },
    ])
    .await
}

#[tokio::test]
async fn a_column_is_added_with_any_default() -> anyhow::Result<()> {
    let rows = "INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g";
    let plain: &'static str = Box::leak(format!("CREATE TABLE t (k int PRIMARY KEY, n int); {rows}").into());
    let parted: &'static str = Box::leak(
        format!(
            "CREATE TABLE t (k int, n int) PARTITION BY RANGE (k); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (300);
             CREATE TABLE t_2 PARTITION OF t DEFAULT; {rows}"
        )
        .into(),
    );
    let unique = "SELECT count(*) = 1000 AND count(DISTINCT c) = 1000 AND
        (SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c') FROM t";
    all_hold(&[
        Case {
            name: "a constant does not touch the rows",
            create: plain,
            step: "add_column: { table: t, column: c, type: text, default: \"'x'\", not_null: true }",
            holds: "SELECT bool_and(c = 'x') AND count(DISTINCT xmin::text) = 1 AND
                (SELECT atthasmissing FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c') FROM t",
        },
        Case {
            name: "the time of the step does not either",
            create: plain,
            step: "add_column: { table: t, column: c, type: timestamptz, default: now(), not_null: true }",
            holds: "SELECT count(DISTINCT c) = 1 AND
                (SELECT atthasmissing FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c') FROM t",
        },
        Case {
            name: "a value for each row",
            create: plain,
            step: "add_column: { table: t, column: c, type: uuid, default: gen_random_uuid(), not_null: true, batch: { size: 100 } }",
            holds: unique,
        },
        Case {
            name: "a value for each row of a partitioned table without a key",
            create: parted,
            step: "add_column: { table: t, column: c, type: text, default: \"md5(random()::text)\", not_null: true, batch: { size: 100 } }",
            holds: unique,
        },
    ])
    .await
}

#[tokio::test]
async fn a_killed_column_with_a_value_for_each_row_is_finished() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute("CREATE TABLE t (k int PRIMARY KEY, n int); INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g")
        .await?;
    let step = "add_column: { table: t, column: c, type: uuid, default: gen_random_uuid(), not_null: true, batch: { size: 100, pause: 20ms } }";
    let set = Migrations::write(&[("1_a.yaml", &format!("up:\n  - {step}\n"))])?;
    let up = || {
        Confiture::new(["migrate", "up", "--take-over", "--migrations"])
            .arg(set.path())
            .env("DATABASE_URL", database.url())
    };
    let mut killed = up().start("killed")?;
    tests::eventually("some batches", std::time::Duration::from_secs(20), || async {
        let batches = "SELECT count(*) FROM confiture.batch";
        Ok(database.number(batches).await.ok().filter(|n| *n > 3))
    })
    .await?;
    killed.kill();
    database.execute("INSERT INTO public.t VALUES (6000, 1)").await?;
    up().succeed().await?;
    let distinct = "SELECT count(DISTINCT c) FROM t";
    assert_eq!(database.number(distinct).await?, 5001);
    let refused = database
        .execute("INSERT INTO public.t VALUES (6001, 1, NULL)")
        .await;
    assert!(refused.is_err(), "NULL is refused");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_paged_is_refused_and_nothing_is_changed() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    // A foreign-data wrapper is the superuser's to make.
    let admin = database.admin().await?;
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
             GRANT USAGE ON FOREIGN SERVER far TO PUBLIC",
        )
        .await?;
    database
        .execute(
            "CREATE TABLE floats (k float8 PRIMARY KEY, n int, y int); INSERT INTO floats VALUES (1, 1);
             CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE words (k text COLLATE loose PRIMARY KEY, n int, y int); INSERT INTO words VALUES ('a', 1);
             CREATE VIEW a_view AS SELECT * FROM floats; CREATE MATERIALIZED VIEW kept AS SELECT * FROM floats;
             CREATE FOREIGN TABLE abroad (k int, n int, y int) SERVER far;
             CREATE TABLE parted (k int, n int, y int) PARTITION BY RANGE (k);
             CREATE FOREIGN TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10) SERVER far",
        )
        .await?;
    for (table, code, words) in [
        ("floats", 3, "floating point"),
        ("words", 3, "nondeterministic collation"),
        ("a_view", 2, "is a view"),
        ("kept", 2, "is a materialized view"),
        ("abroad", 2, "is a foreign table"),
        (
            "parted",
            2,
            "\"parted_1\", a part of \"public\".\"parted\", is a foreign table",
        ),
    ] {
        let step = format!("backfill: {{ table: {table}, set: {{ y: \"n * 2\" }} }}");
        let ended = migrate(&database, &step).await?;
        assert_eq!(ended.code, Some(code), "{table}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{table}: {}", ended.stderr);
    }
    let changed = "SELECT count(y) + (SELECT count(y) FROM words) FROM floats";
    assert_eq!(database.number(changed).await?, 0);
    Ok(())
}

/// A table, its parents and partitions, a table that inherits, views, and one that has nothing to do with them.
const RELATIVES: &str = "
    CREATE TABLE parted (k int, n int, y int) PARTITION BY RANGE (k);
    CREATE TABLE middle PARTITION OF parted FOR VALUES FROM (0) TO (5000) PARTITION BY HASH (k);
    CREATE TABLE leaf PARTITION OF middle FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE TABLE beside PARTITION OF parted FOR VALUES FROM (5000) TO (6000);
    INSERT INTO parted SELECT g, g % 100, 0 FROM generate_series(1, 2000) g;
    CREATE TABLE t (k int PRIMARY KEY, n int, y int); INSERT INTO t SELECT g, g % 100, 0 FROM generate_series(1, 2000) g;
    CREATE TABLE child () INHERITS (t);
    CREATE TABLE other (k int PRIMARY KEY, n int, y int); INSERT INTO other SELECT g, g, 0 FROM generate_series(1, 100) g;
    CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.t (n int);
    CREATE VIEW seen AS SELECT k, n FROM child; CREATE VIEW far AS SELECT * FROM seen WHERE n > 0;
    CREATE MATERIALIZED VIEW kept AS SELECT * FROM t;
    CREATE FUNCTION lot(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 5'";

const UNTOUCHED: &str = "SELECT count(*) FROM (TABLE t UNION ALL TABLE parted) x WHERE y = 0";

#[tokio::test]
async fn what_batches_would_answer_anew_is_refused_and_nothing_is_changed() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(RELATIVES).await?;
    for (table, condition, words) in [
        ("t", "n < (SELECT avg(n) FROM t)", "\"t\" itself"),
        (
            "t",
            "k IN (SELECT k FROM public.t GROUP BY k HAVING count(*) > 1)",
            "\"t\" itself",
        ),
        (
            "t",
            "n IN (SELECT n FROM child)",
            "`where` reads \"child\", which shows rows of",
        ),
        (
            "child",
            "n IN (SELECT n FROM t)",
            "`where` reads \"t\", which shows rows of",
        ),
        (
            "t",
            "EXISTS (SELECT FROM far WHERE far.k = t.k + 1)",
            "`where` reads \"far\", which shows",
        ),
        (
            "parted",
            "k IN (SELECT k FROM leaf ORDER BY k DESC LIMIT 100)",
            "`where` reads \"leaf\"",
        ),
        (
            "leaf",
            "k IN (SELECT k FROM parted ORDER BY k DESC LIMIT 100)",
            "`where` reads \"parted\"",
        ),
        (
            "middle",
            "n > (SELECT avg(n) FROM leaf)",
            "`where` reads \"leaf\"",
        ),
        (
            "t",
            "n > 50 AND random() < 0.5",
            "`where` calls random(), which PostgreSQL knows as volatile",
        ),
        ("parted", "n > 50 AND lot(n)", "`where` calls lot()"),
    ] {
        for step in [
            format!("delete: {{ table: {table}, where: \"{condition}\" }}"),
            format!("backfill: {{ table: {table}, set: {{ y: n }}, where: \"{condition}\" }}"),
        ] {
            let ended = migrate(&database, &step).await?;
            assert_eq!(ended.code, Some(3), "{step}: {}", ended.stderr);
            assert!(ended.stderr.contains(words), "{step}: {}", ended.stderr);
        }
    }
    for (value, relation) in [
        (
            "y / (SELECT sum(y) FROM t)",
            "column \"y\" of \"public\".\"t\" itself",
        ),
        (
            "(SELECT max(y) + 1 FROM child)",
            "column \"y\" of \"child\", which shows",
        ),
        (
            "(SELECT length(row_to_json(x)::text) FROM t x WHERE x.k = t.k)",
            "all columns of",
        ),
    ] {
        let step =
            format!("backfill: {{ table: t, set: {{ y: \"{value}\" }}, new_rows: either, sync: none }}");
        let ended = migrate(&database, &step).await?;
        assert_eq!(ended.code, Some(3), "{step}: {}", ended.stderr);
        assert!(ended.stderr.contains(relation), "{step}: {}", ended.stderr);
        assert!(
            ended
                .stderr
                .contains("later batches would read what earlier ones wrote"),
            "{}",
            ended.stderr
        );
    }
    assert_eq!(database.number(UNTOUCHED).await?, 4000);
    Ok(())
}

#[tokio::test]
async fn what_others_hold_may_decide_which_rows_are_meant() -> anyhow::Result<()> {
    for (step, left) in [
        (
            "delete: { table: t, where: \"n IN (SELECT n FROM other WHERE n < 50)\", batch: { size: 100 } }",
            3020,
        ),
        (
            "delete: { table: t, where: \"n > (SELECT avg(n) FROM kept)\", batch: { size: 100 } }",
            3000,
        ),
        (
            "delete: { table: t, where: \"n IN (SELECT n FROM elsewhere.t)\" }",
            4000,
        ),
        (
            "delete: { table: beside, where: \"k IN (SELECT k FROM leaf)\" }",
            4000,
        ),
    ] {
        let database = Server::shared().await?.fresh_database().await?;
        database.execute(RELATIVES).await?;
        let ended = migrate(&database, step).await?;
        assert_eq!(ended.code, Some(0), "{step}: {}", ended.stderr);
        assert_eq!(database.number(UNTOUCHED).await?, left, "{step}");
    }
    Ok(())
}

/// The way the refusal advises: the keys are collected once.
#[tokio::test]
async fn rows_that_their_own_table_decides_about_go_by_a_table_of_keys() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database.execute(RELATIVES).await?;
    let set = Migrations::write(&[(
        "1_a.yaml",
        "up:
  - sql: \"CREATE TABLE doomed AS SELECT k FROM t WHERE n < (SELECT avg(n) FROM t)\"
  - delete: { table: t, where: \"k IN (SELECT k FROM doomed)\", batch: { size: 100 } }
  - sql: \"DROP TABLE doomed\"
",
    )])?;
    let ended = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .run()
        .await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(database.number("SELECT count(*) FROM t").await?, 1000);
    Ok(())
}

#[tokio::test]
async fn rows_that_row_security_hides_are_never_left_out_without_a_word() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE t (k int PRIMARY KEY, n int, y int); INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g;
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
             CREATE POLICY halves ON t USING (k <= 500)",
        )
        .await?;
    let ended = migrate(&database, FILL).await?;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("row security hides rows"),
        "{}",
        ended.stderr
    );
    // Not forced, it does not bind the owner.
    database
        .execute("ALTER TABLE t NO FORCE ROW LEVEL SECURITY")
        .await?;
    assert_eq!(migrate(&database, FILL).await?.code, Some(0));
    assert_eq!(
        database.number("SELECT count(*) FROM t WHERE y = n * 2").await?,
        1000
    );
    Ok(())
}
