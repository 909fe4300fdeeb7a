//! Sets, files and names far larger than usual, and a store whose disk is full.

use std::fmt::Write as _;
use std::time::Duration;
use tests::eventually;
use tests::fleet::{Agent, members};
use tests::migrations::Migrations;
use tests::port::Port;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended, Process, binary};

async fn up(database: &Database, migrations: &Migrations) -> anyhow::Result<Ended> {
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(migrations.path())
        .env("DATABASE_URL", database.url())
        .run()
        .await
}

fn assert_done(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
}

#[tokio::test]
async fn five_thousand_migrations_are_applied_and_then_found_applied() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let set = Migrations::write(&[])?;
    for n in 1..=5_000 {
        set.put(&format!("{n:06}_step.up.sql"), &format!("SELECT {n}"))?;
    }
    assert_done(&up(&database, &set).await?, "5000 migrations applied");
    assert_done(&up(&database, &set).await?, "nothing to do");
    Ok(())
}

#[tokio::test]
async fn a_thousand_steps_are_one_migration() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let mut file = "up:\n".to_owned();
    for n in 1..=1_000 {
        writeln!(file, "  - sql: CREATE TABLE t{n} ()")?;
    }
    let set = Migrations::write(&[("1_many.yaml", &file)])?;
    assert_done(&up(&database, &set).await?, "1 migration applied (1000 steps");
    Ok(())
}

#[tokio::test]
async fn a_file_of_twenty_megabytes_is_one_step() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let mut file = "CREATE TABLE t (id int, note text);\n".to_owned();
    let note = "x".repeat(1_000);
    while file.len() < 20_000_000 {
        writeln!(file, "INSERT INTO t VALUES ({}, '{note}');", file.len())?;
    }
    let set = Migrations::write(&[("1_large.up.sql", &file)])?;
    assert_done(&up(&database, &set).await?, "1 migration applied");
    assert!(database.number("SELECT count(*) FROM t").await? > 19_000);
    Ok(())
}

#[tokio::test]
async fn a_version_may_have_forty_digits_and_no_more() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let forty = "9".repeat(40);
    let set = Migrations::write(&[
        ("1_a.up.sql", "SELECT 1"),
        (&format!("{forty}_b.up.sql"), "SELECT 1"),
    ])?;
    assert_done(&up(&database, &set).await?, "2 migrations applied");
    set.put(&format!("{forty}9_c.up.sql"), "SELECT 1")?;
    let ended = up(&database, &set).await?;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("write 1 to 40 digits"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn links_that_lead_nowhere_are_named() -> anyhow::Result<()> {
    let database = Server::shared().await?.fresh_database().await?;
    let set = Migrations::write(&[])?;
    std::os::unix::fs::symlink("1_loop.up.sql", set.path().join("1_loop.up.sql"))?;
    let ended = up(&database, &set).await?;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("1_loop.up.sql"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_full_disk_under_the_store_is_said_and_survived() -> anyhow::Result<()> {
    let members = members(Server::shared().await?, &["full_disk"]).await?;
    let folder = tempfile::tempdir()?;
    let port = Port::claim()?;
    let url = format!("http://127.0.0.1:{}", port.number());
    // The file cannot grow beyond this: writing fails as it does on a full disk.
    let mut limited = std::process::Command::new("env");
    limited.args(["--ignore-signal=XFSZ", "prlimit", "--fsize=3000000"]);
    limited
        .arg(binary()?)
        .args(["coordinator", "--init", "--store", "file:./confiture.redb"]);
    limited.args(["--listen", &format!("127.0.0.1:{}", port.number())]);
    limited.current_dir(folder.path());
    let coordinator = Process::start("coordinator", limited)?;
    let _agent = Agent::start("agent-a", &[&url], &members)?;
    let call = |words: &[&str]| Confiture::new(words).env("CONFITURE_COORDINATOR", &url);
    eventually("the agent to be known", Duration::from_secs(30), || async {
        let listed = call(&["fleet", "databases"]).run().await?;
        Ok(listed.stdout.contains("agent-a").then_some(()))
    })
    .await?;

    let large = format!("SELECT 1; -- {}\n", "x".repeat(6 * 1024 * 1024));
    let large = Migrations::write(&[("1_large.up.sql", &large)])?;
    let start =
        |set: &Migrations| call(&["rollout", "start", "--all", "--watch", "--migrations"]).arg(set.path());
    let refused = start(&large).run().await?;
    assert_eq!(refused.code, Some(1), "{}\n{}", refused.stdout, refused.stderr);
    assert!(
        refused
            .stderr
            .contains("the store file:./confiture.redb does not answer"),
        "{}",
        refused.stderr
    );
    assert!(
        coordinator
            .stderr()
            .contains("the disk under the store's file failed")
    );

    let small = Migrations::write(&[("1_small.up.sql", "CREATE TABLE small ()")])?;
    start(&small).succeed().await?;
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 'small'";
    assert_eq!(members[0].database.number(tables).await?, 1);
    Ok(())
}
