//! Servers too old for us. `make test-matrix` brings one and runs what is ignored here; no package of Debian's holds one.

use tests::migrations::Migrations;
use tests::postgres::Server;
use tests::process::Confiture;

#[tokio::test]
#[ignore = "needs PostgreSQL 12: `make test-matrix` runs it"]
async fn an_older_server_is_refused_with_the_reason_and_left_as_it_was() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let version = database.server_version().await?;
    assert!((120_000..130_000).contains(&version), "this is {version}");
    let set = Migrations::write(&[("1_a.up.sql", "CREATE TABLE made ()")])?;
    for command in [&["up"][..], &["up", "--dry-run"], &["down"], &["status"]] {
        let ended = Confiture::new(["migrate"].iter().chain(command))
            .arg("--migrations")
            .arg(set.path())
            .env("DATABASE_URL", database.url())
            .run()
            .await?;
        assert_eq!(ended.code, Some(3), "{command:?}: {}", ended.stderr);
        let reason = "the server has PostgreSQL 12; 13 or newer is needed";
        assert!(ended.stderr.contains(reason), "{command:?}: {}", ended.stderr);
    }
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'confiture'";
    assert_eq!(database.number(made).await?, 0);
    Ok(())
}
