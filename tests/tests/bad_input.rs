//! What a person gets wrong on one database: one clear message, the right exit code, nothing changed, no password.

use tests::migrations::Migrations;
use tests::port::Port;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

const GOOD: &str = "CREATE TABLE made_by_a_migration ()";

/// One thing done wrong, and what must be said about it.
struct Case {
    what: &'static str,
    files: &'static [(&'static str, &'static str)],
    code: i32,
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "a backfill of the key it pages by",
        files: &[(
            "2_b.yaml",
            "up:\n  - backfill: { table: keyed, set: { id: gen_random_uuid() } }\n",
        )],
        code: 3,
        says: &["\"id\" is part of the primary key", "2_b.yaml:2:5"],
    },
    Case {
        what: "an empty directory",
        files: &[],
        code: 2,
        says: &["there is no migration", "confiture new"],
    },
    Case {
        what: "bad YAML",
        files: &[("1_a.yaml", "up:\n  - sql: [\n")],
        code: 2,
        says: &["1_a.yaml:"],
    },
    Case {
        what: "bad SQL",
        files: &[("1_a.up.sql", "SELECT 1;\nSELEC 2;\n")],
        code: 2,
        says: &["1_a.up.sql:2:1"],
    },
    Case {
        what: "a COMMIT",
        files: &[("1_a.up.sql", "SELECT 1;\n  COMMIT;\n")],
        code: 2,
        says: &["1_a.up.sql:2:3", "COMMIT"],
    },
    Case {
        what: "a psql command",
        files: &[("1_a.up.sql", "\\i other.sql\n")],
        code: 2,
        says: &["1_a.up.sql:1:1"],
    },
    Case {
        what: "COPY FROM STDIN",
        files: &[("1_a.up.sql", "COPY t FROM STDIN;\n")],
        code: 2,
        says: &["1_a.up.sql:1:"],
    },
    Case {
        what: "a statement that no transaction takes",
        files: &[(
            "1_a.up.sql",
            "CREATE TABLE a (i int);\nCREATE INDEX CONCURRENTLY x ON a (i);\n",
        )],
        code: 2,
        says: &["1_a.up.sql:2:1", "transaction=off"],
    },
    Case {
        what: "an unknown step",
        files: &[("1_a.yaml", "up:\n  - backfil: {}\n")],
        code: 2,
        says: &["1_a.yaml:2:5", "did you mean `backfill`", "set_not_null"],
    },
    Case {
        what: "an unknown key",
        files: &[("1_a.yaml", "up:\n  - drop_column: { table: t, colum: x }\n")],
        code: 2,
        says: &["1_a.yaml:2:", "column"],
    },
    Case {
        what: "one version twice",
        files: &[("1_a.up.sql", GOOD), ("01_b.up.sql", GOOD)],
        code: 2,
        says: &["1_a.up.sql", "01_b.up.sql"],
    },
    Case {
        what: "a missing table",
        files: &[("1_a.yaml", "up:\n  - drop_column: { table: orderz, column: x }\n")],
        code: 2,
        says: &["\"orderz\" does not exist"],
    },
    Case {
        what: "a missing column",
        files: &[(
            "1_a.yaml",
            "up:\n  - set_not_null: { table: orders, column: TOTAL_ }\n",
        )],
        code: 2,
        says: &["no column \"total_\""],
    },
    Case {
        what: "a name in the wrong case",
        files: &[("1_a.yaml", "up:\n  - drop_column: { table: Mixed, column: x }\n")],
        code: 2,
        says: &["there is public.\"Mixed\""],
    },
    Case {
        what: "an expression over a missing column",
        files: &[(
            "1_a.yaml",
            "up:\n  - backfill: { table: orders, set: { total: price * 2 } }\n",
        )],
        code: 2,
        says: &["no column \"price\""],
    },
    Case {
        what: "two expressions in one",
        files: &[(
            "1_a.yaml",
            "up:\n  - backfill: { table: orders, set: { total: '1; DROP TABLE orders' } }\n",
        )],
        code: 2,
        says: &["1_a.yaml:2:"],
    },
    Case {
        what: "a table without a primary key",
        files: &[(
            "1_a.yaml",
            "up:\n  - backfill: { table: keyless, set: { x: 1 } }\n",
        )],
        code: 3,
        says: &["no primary key", "add a primary key first"],
    },
    Case {
        what: "a view",
        files: &[(
            "1_a.yaml",
            "up:\n  - backfill: { table: a_view, set: { total: 1 } }\n",
        )],
        code: 2,
        says: &["is a view"],
    },
];

async fn database() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    database
        .execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric);
             CREATE TABLE keyless (x int); CREATE TABLE keyed (id uuid PRIMARY KEY); CREATE TABLE \"Mixed\" (x int); CREATE VIEW a_view AS SELECT * FROM orders",
        )
        .await?;
    Ok(database)
}

async fn up(migrations: &Migrations, url: &str) -> anyhow::Result<Ended> {
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", url)
        .run()
        .await
}

fn check(what: &str, ended: &Ended, code: i32, says: &[&str]) {
    let output = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(code), "{what}: {output}");
    for text in says {
        assert!(output.contains(text), "{what}: `{text}` is not in {output}");
    }
    for never in ["panicked", "RUST_BACKTRACE", "hunter2"] {
        assert!(!output.contains(never), "{what}: {output}");
    }
}

#[tokio::test]
async fn every_mistake_has_its_message_and_changes_nothing() -> anyhow::Result<()> {
    let database = database().await?;
    for case in CASES {
        let migrations = Migrations::write(case.files)?;
        let ended = up(&migrations, database.url()).await?;
        check(case.what, &ended, case.code, case.says);
    }
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'made_by_a_migration'";
    assert_eq!(database.number(made).await?, 0);
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped";
    assert_eq!(database.number(columns).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_named_without_its_password() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    let migrations = Migrations::write(&[("1_a.up.sql", GOOD)])?;
    let nobody = Port::claim()?.number();
    let cases = [
        (
            format!("postgres://u:hunter2@127.0.0.1:{nobody}/db"),
            1,
            "refused",
        ),
        (
            server.url_as("confiture", "hunter2", "postgres"),
            1,
            "password authentication failed",
        ),
        (server.url("no_such_database"), 1, "does not exist"),
        (
            "postgres://u:hunter2@127.0.0.1:port/db".to_owned(),
            2,
            "the database URL is not valid",
        ),
        (
            "postgres://u:hunter2@127.0.0.1/db?sslmode=always".to_owned(),
            2,
            "sslmode `always` is not known",
        ),
        (
            "mysql://u:hunter2@127.0.0.1/db".to_owned(),
            2,
            "the database URL is not valid",
        ),
    ];
    for (url, code, says) in cases {
        let ended = up(&migrations, &url).await?;
        check(says, &ended, code, &[says]);
        assert!(
            !format!("{}{}", ended.stdout, ended.stderr).contains(server.password()),
            "{says}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_said_by_the_coordinator() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let ended = Confiture::new(["coordinator", "--store", "memory:", "--listen", &address])
        .run()
        .await?;
    assert_ne!(ended.code, Some(0));
    check(
        "a port in use",
        &ended,
        ended.code.unwrap_or_default(),
        &[&address, "in use"],
    );
    Ok(())
}
