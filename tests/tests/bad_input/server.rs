//! Servers that are away, refuse us, or refuse to write.

use crate::case::{Case, PASSWORD};
use expect_test::expect;
use tests::port::Port;
use tests::postgres::{OWNER, Server};

const GOOD: &[(&str, &str)] = &[("1_a.up.sql", "CREATE TABLE made ()")];

#[tokio::test]
async fn connections() -> anyhow::Result<()> {
    let server = Server::shared().await?;
    let port = server.port();
    let up = |url: &str| Case::up(GOOD).env("DATABASE_URL", url).covering(port, "PORT");
    let nobody = Port::claim()?.number();
    up(&format!("postgres://app:{PASSWORD}@127.0.0.1:{nobody}/app"))
        .covering(nobody, "PORT")
        .says(
            1,
            expect![[r#"
            error: cannot connect to 127.0.0.1:PORT/app: Connection refused (os error 111)
              help: is a PostgreSQL server listening at 127.0.0.1:PORT/app?
        "#]],
        )
        .await?;
    up(&format!("postgres://app:{PASSWORD}@no-such-host.invalid/app"))
        .says(1, expect![[r#"
            error: cannot connect to no-such-host.invalid:5432/app: failed to lookup address information: Name or service not known
              help: is a PostgreSQL server listening at no-such-host.invalid:5432/app?
        "#]])
        .await?;
    up(&server.url_as(OWNER, PASSWORD, "postgres"))
        .says(1, expect![[r#"
            error: cannot connect to 127.0.0.1:PORT/postgres: password authentication failed for user "confiture"
              help: check user and password in the URL, and the server's pg_hba.conf
        "#]])
        .await?;
    up(&format!("postgres://{OWNER}@127.0.0.1:{port}/postgres"))
        .says(1, expect![[r#"
            error: cannot connect to 127.0.0.1:PORT/postgres: password missing
              help: the server asks for a password: give it in the URL, or keep the URL in `url_env` or `url_file`
        "#]])
        .await?;
    up(&server.url("no_such_database"))
        .says(
            1,
            expect![[r#"
        error: cannot connect to 127.0.0.1:PORT/no_such_database: database "no_such_database" does not exist
          help: check the database's name in the URL
    "#]],
        )
        .await?;
    up(&format!("{}?sslmode=require", server.url("postgres")))
        .says(1, expect![[r#"
            error: cannot connect to 127.0.0.1:PORT/postgres: server does not support TLS
              help: the server has no TLS: let it have a certificate, or say `sslmode=disable` in the URL if the way to it is safe
        "#]])
        .await
}

#[tokio::test]
async fn rights() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let admin = server.admin("postgres").await?;
    let roles = format!(
        "CREATE ROLE poor LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE late LOGIN PASSWORD '{PASSWORD}';
         CREATE ROLE crowded LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 0;
         CREATE DATABASE \"Of Others\""
    );
    for statement in roles.split(';') {
        admin.batch_execute(statement).await?;
    }
    let up = |role: &str| {
        Case::up(GOOD)
            .env("DATABASE_URL", &server.url_as(role, PASSWORD, "Of%20Others"))
            .covering(server.port(), "PORT")
    };
    up("poor")
        .says(
            1,
            expect![[r#"
        error: role poor may not create the ledger (schema confiture) in database "Of Others"
          help: let somebody who may run: GRANT CREATE ON DATABASE "Of Others" TO poor
    "#]],
        )
        .await?;
    up("crowded")
        .says(
            1,
            expect![[r#"
        error: cannot connect to 127.0.0.1:PORT/Of Others: too many connections for role "crowded"
          help: the server has no connection left: lower connection.pool.max_size, or raise max_connections
    "#]],
        )
        .await?;
    // The ledger belongs to another role.
    admin
        .batch_execute("GRANT CREATE ON DATABASE \"Of Others\" TO poor")
        .await?;
    let others = server.admin("Of Others").await?;
    others
        .batch_execute("GRANT CREATE ON SCHEMA public TO poor, late")
        .await?;
    Case::of(&["migrate", "up", "--migrations", "db"])
        .file("db/0_a.up.sql", b"SELECT 1")
        .env("DATABASE_URL", &server.url_as("poor", PASSWORD, "Of%20Others"))
        .succeeds()
        .await?;
    up("late").says(1, expect![[r#"
        error: looking for the ledger failed: PostgreSQL says: permission denied for schema confiture (42501)
          help: the role needs USAGE and CREATE on the schema confiture and SELECT, INSERT, UPDATE and DELETE on its tables; or work with the role that created them
    "#]]).await?;
    // Sessions that are read-only by default are made to write; standbys cannot be.
    admin
        .batch_execute("ALTER ROLE poor SET default_transaction_read_only = on")
        .await?;
    Case::of(&["migrate", "up", "--migrations", "db"])
        .file("db/0_a.up.sql", b"SELECT 1")
        .file("db/1_a.up.sql", b"CREATE TABLE made ()")
        .env("DATABASE_URL", &server.url_as("poor", PASSWORD, "Of%20Others"))
        .succeeds()
        .await
}

#[tokio::test]
async fn a_standby() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("on_standby").await?;
    Case::of(&["migrate", "up", "--migrations", "db"])
        .file("db/0_a.up.sql", b"SELECT 1")
        .env("DATABASE_URL", database.url())
        .succeeds()
        .await?;
    let standby = server.standby().await?;
    let files: &[(&str, &str)] = &[("0_a.up.sql", "SELECT 1"), ("1_b.up.sql", "CREATE TABLE made ()")];
    Case::up(files)
        .env("DATABASE_URL", &standby.url("on_standby"))
        .says(1, expect![[r#"
            error: taking over the database failed: PostgreSQL says: cannot set transaction read-write mode during recovery (0A000)
              help: this server is a read-only standby: give the primary's address (with several hosts in the URL, target_session_attrs=read-write finds it)
        "#]])
        .await
}
