//! Flags, settings files, environment and URLs. No database is asked.

use crate::case::{Case, PASSWORD};
use expect_test::{Expect, expect};

async fn settings(file: &str, message: Expect) -> anyhow::Result<()> {
    Case::of(&["agent", "--config", "c.yaml"])
        .file("c.yaml", file.as_bytes())
        .says(2, message)
        .await
}

#[tokio::test]
async fn settings_files() -> anyhow::Result<()> {
    let url = format!("postgres://app:{PASSWORD}@db/app");
    settings(
        "",
        expect![[r#"
        error: the agent has no database to serve
          help: list its databases under `databases:` in the settings file
    "#]],
    )
    .await?;
    settings(
        "agent: [\n",
        expect![[r#"
        error: c.yaml:1:8: this is not YAML: unclosed bracket '['
    "#]],
    )
    .await?;
    settings(
        "agnt: { id: a }\n",
        expect![[r#"
        error: c.yaml:1:1: the key `agnt` is not known
          help: did you mean `agent`?
    "#]],
    )
    .await?;
    settings(
        "connection: { pool: { max_sise: 5 } }\n",
        expect![[r#"
        error: c.yaml:1:23: the key `connection.pool.max_sise` is not known
          help: did you mean `connection.pool.max_size`?
    "#]],
    )
    .await?;
    settings(
        "connection: { pool: { min_size: 9, max_size: 3 } }\n",
        expect![[r#"
            error: c.yaml:1:33: `connection.pool.min_size`: it is 9, more than max_size, which is 3
        "#]],
    )
    .await?;
    settings(
        "migration: { lock_timeout: 0, statement_timeout: never }\n",
        expect![[r#"
            error: c.yaml:1:28: `migration.lock_timeout`: it must be more than zero
            c.yaml:1:50: `migration.statement_timeout`: `never` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h
        "#]],
    )
    .await?;
    settings(
        "coordinator: { leader_lease: 20s, agent_lease: 30s }\n",
        expect![[r#"
            error: c.yaml:1:48: `coordinator.agent_lease`: agent_lease (30s) must be at least leader_lease (20s) and 15s more, so that work goes on while a new leader is elected
        "#]],
    )
    .await?;
    settings("agent: { coordinator: [\"ftp://x\"] }\n", expect![[r#"
        error: c.yaml:1:23: `agent.coordinator`: `ftp://x` is not usable as a URL of a coordinator: it must begin with http:// or https://
    "#]]).await?;
    settings(
        "observability: { otlp: { endpoint: \"ftp://x\" } }\n",
        expect![[r#"
            error: c.yaml:1:36: `observability.otlp.endpoint`: `ftp://x` is not usable as a URL of a collector: it must begin with http:// or https://
        "#]],
    )
    .await?;
    settings(
        "observability: { otlp: { endpoint: \"http://x:4317\", ca_file: ca.pem } }\n",
        expect![[r#"
            error: c.yaml:1:62: `observability.otlp.ca_file`: only a collector at https:// is checked against authorities
              help: remove it, or set `observability.otlp.endpoint` to https://..
        "#]],
    )
    .await?;
    settings(
        &format!("databases: \"{url}\"\n"),
        expect![[r#"
        error: c.yaml:1:12: `databases` must be a list, not `postgres://app:***@db/app`
          help: write one `- { name: .., url: .. }` for each database
    "#]],
    )
    .await?;
    settings(
        &format!("databases: [ \"{url}\" ]\n"),
        expect![[r#"
        error: c.yaml:1:14: a database is a mapping, not `postgres://app:***@db/app`
          help: write `- { name: orders, url_env: ORDERS_URL }`
    "#]],
    )
    .await?;
    settings(
        &format!("databases:\n  - {{ name: a, url: \"{url}\" }}\n  - {{ name: a, url: \"{url}\" }}\n"),
        expect![[r#"
            error: c.yaml:3:5: there is already a database named a
              help: give each database a name of its own
        "#]],
    )
    .await?;
    settings(
        "databases:\n  - { name: a }\n",
        expect![[r#"
        error: c.yaml:2:5: this database has no URL
          help: give it one of url, url_env (a variable's name) or url_file (a path)
    "#]],
    )
    .await?;
    settings(
        &format!("databases:\n  - {{ name: a, url_env: \"{url}\" }}\n"),
        expect![[r#"
            error: c.yaml:2:5: the url of database a: the environment variable postgres://app:***@db/app is not set
        "#]],
    )
    .await?;
    settings(
        "databases:\n  - { name: a, url_env: NOT_SET }\n",
        expect![[r#"
        error: c.yaml:2:5: the url of database a: the environment variable NOT_SET is not set
    "#]],
    )
    .await?;
    settings(
        "databases:\n  - { name: a, url_file: not_there }\n",
        expect![[r#"
            error: c.yaml:2:5: the url of database a: cannot read not_there: No such file or directory (os error 2)
        "#]],
    )
    .await?;
    settings(
        &format!("databases:\n  - {{ name: a, url: \"{url}\", label: x }}\n"),
        expect![[r#"
            error: c.yaml:2:54: the key `databases.label` is not known
              help: did you mean `labels`?
        "#]],
    )
    .await
}

#[tokio::test]
async fn flags_and_environment() -> anyhow::Result<()> {
    let url = format!("postgres://app:{PASSWORD}@db/app");
    Case::of(&["migrat", "up"])
        .says(
            2,
            expect![[r#"
        error: unrecognized subcommand 'migrat'

          tip: a similar subcommand exists: 'migrate'

        Usage: confiture [OPTIONS] <COMMAND>

        For more information, try '--help'.
    "#]],
        )
        .await?;
    Case::of(&["migrate", "up", "--dry"])
        .says(
            2,
            expect![[r#"
            error: unexpected argument '--dry' found

              tip: a similar argument exists: '--dry-run'

            Usage: confiture migrate up --dry-run

            For more information, try '--help'.
        "#]],
        )
        .await?;
    Case::of(&["migrate", "up", &url])
        .says(
            2,
            expect![[r#"
        error: unexpected argument 'postgres://app:***@db/app' found

        Usage: confiture migrate up [OPTIONS]

        For more information, try '--help'.
    "#]],
        )
        .await?;
    Case::of(&["migrate", "up", "--lock-timeout", "0"])
        .says(
            2,
            expect![[r#"
            error: invalid value '0' for '--lock-timeout <MS>': it must be more than zero

            For more information, try '--help'.
        "#]],
        )
        .await?;
    Case::of(&["migrate", "up", "--wait", "a while"])
        .says(2, expect![[r#"
            error: invalid value 'a while' for '--wait <TIME>': `a while` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h

            For more information, try '--help'.
        "#]])
        .await?;
    Case::of(&["migrate", "down", "--steps", "0"])
        .says(
            2,
            expect![[r#"
            error: invalid value '0' for '--steps <N>': 0 is not in 1..=4294967295

            For more information, try '--help'.
        "#]],
        )
        .await?;
    Case::of(&["migrate", "up", "--target", "x y"])
        .says(
            2,
            expect![[r#"
            error: invalid value 'x y' for '--target <VERSION>': `x y` is not a version: write 1 to 40 digits

            For more information, try '--help'.
        "#]],
        )
        .await?;
    Case::of(&["migrate", "up", "--config", "nowhere.yaml"])
        .says(
            2,
            expect![[r#"
            error: cannot read `nowhere.yaml`: No such file or directory (os error 2)
        "#]],
        )
        .await?;
    Case::of(&["ledger", "accept"])
        .says(
            2,
            expect![[r#"
        error: the following required arguments were not provided:
          --reason <TEXT>

        Usage: confiture ledger accept --reason <TEXT>

        For more information, try '--help'.
    "#]],
        )
        .await?;
    let good = [("1_a.up.sql", "SELECT 1")];
    Case::up(&good)
        .env("DATABASE_URL", "")
        .says(2, expect![[r#"
            error: no database is named
              help: give --database-url URL, set DATABASE_URL, or list one under `databases:` in confiture.yaml
        "#]])
        .await?;
    Case::up(&good)
        .env("CONFITURE_MIGRATION_LOCK_TIMEOUT", "soon")
        .says(2, expect![[r#"
            error: environment variable CONFITURE_MIGRATION_LOCK_TIMEOUT: `migration.lock_timeout`: `soon` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h
        "#]])
        .await?;
    Case::up(&good)
        .env("CONFITURE_MIGRATION_LOKC_TIMEOUT", "1s")
        .says(
            2,
            expect![[r#"
            error: environment variable CONFITURE_MIGRATION_LOKC_TIMEOUT: no setting has this name
              help: did you mean CONFITURE_MIGRATION_LOCK_TIMEOUT?
        "#]],
        )
        .await?;
    Case::up(&good)
        .env("CONFITURE_LOG", "coordinator=loud")
        .says(
            2,
            expect![[r#"
                error: CONFITURE_LOG=`coordinator=loud` is not a log filter: write a level (error, warn, info, debug, trace) or `module=level,...`: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
            "#]],
        )
        .await
}

#[tokio::test]
async fn urls() -> anyhow::Result<()> {
    for (url, message) in [
        (
            "mysql://u:hunter2@h/db",
            expect![[r#"
                error: the database URL is not valid: it does not begin with postgres://
                  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password
            "#]],
        ),
        (
            "hunter2",
            expect![[r#"
                error: the database URL is not valid: it does not begin with postgres://
                  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password
            "#]],
        ),
        (
            "postgres://u:hunter2@h:port/db",
            expect![[r#"
                error: the database URL is not valid: invalid value for option `port`
                  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password
            "#]],
        ),
        (
            "postgres://u:hunter2@/db",
            expect![[r#"
                error: the database URL is not valid: it names no host
                  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password
            "#]],
        ),
        (
            "postgres://h/db",
            expect![[r#"
                error: the database URL is not valid: it names no user
                  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password
            "#]],
        ),
        (
            "postgres://u:hunter2@h/db?sslmode=always",
            expect![[r#"
            error: sslmode `always` is not known
              help: use disable, allow, prefer, require, verify-ca or verify-full
        "#]],
        ),
        (
            "postgres://u:hunter2@h/db?sslmode=verify-full&sslrootcert=nowhere.crt",
            expect![[r#"
                error: cannot read the certificate or key nowhere.crt: I/O error: No such file or directory (os error 2)
            "#]],
        ),
        (
            "postgres://u:hunter2@h/db?colour=red",
            expect![[r#"
                error: the database URL is not valid: unknown option `colour`
                  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password
            "#]],
        ),
    ] {
        Case::up(&[("1_a.up.sql", "SELECT 1")])
            .env("DATABASE_URL", url)
            .says(2, message)
            .await?;
    }
    Ok(())
}
