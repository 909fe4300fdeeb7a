//! `confiture pool stats`: the pool of one database, and those of a fleet's agents.

use anyhow::Context as _;
use serde_json::Value;
use std::time::Duration;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, members};
use tests::migrations::Migrations;
use tests::postgres::{Database, Server, Session};
use tests::process::{Confiture, Ended};

const SOON: Duration = Duration::from_secs(30);

fn stats(more: &[&str]) -> Confiture {
    Confiture::new(["pool", "stats"].iter().chain(more))
}

async fn fresh() -> anyhow::Result<Database> {
    Server::shared().await?.fresh_database().await
}

/// Our connections to a database, as its server sees them.
async fn open(admin: &Session, database: &Database) -> anyhow::Result<i64> {
    let row = admin
        .query_one(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'confiture' AND datname = $1",
            &[&database.name()],
        )
        .await?;
    Ok(row.get(0))
}

#[tokio::test]
async fn one_database_is_shown_as_the_guide_has_it() -> anyhow::Result<()> {
    let database = fresh().await?;
    let text = stats(&["--check"])
        .env("DATABASE_URL", database.url())
        .succeed()
        .await?;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "Active connections: 0",
            "Idle connections: 2",
            "Waiting requests: 0",
            "Total created: 2",
            "Total recycled: 0",
            "Max size: 10",
        ]
    );
    assert!(
        lines[6].starts_with(&format!("Database: {} at ", database.name())),
        "{text}"
    );
    assert_eq!(
        lines[7],
        "Settings: min_size 2, max_size 10, max_idle_time 300 s, max_lifetime 3600 s, wait_timeout 30 s, connections_per_server 20"
    );
    assert!(
        lines[8].starts_with("Server: ") && lines[8].contains(" reserved, "),
        "{text}"
    );
    assert_eq!(lines[9..], ["Verdict: healthy"]);
    Ok(())
}

#[tokio::test]
async fn a_watch_agrees_with_the_server_until_it_is_interrupted() -> anyhow::Result<()> {
    let database = fresh().await?;
    let watch = stats(&["--watch", "--interval", "100ms", "--output", "json"]);
    let mut process = watch
        .env("DATABASE_URL", database.url())
        .env("CONFITURE_CONNECTION_POOL_PROFILE", "heavy")
        .start("watch")?;
    eventually("several looks", SOON, || async {
        Ok((process.stdout().lines().count() >= 3).then_some(()))
    })
    .await?;
    assert_eq!(open(&database.admin().await?, &database).await?, 5);
    for line in process.stdout().lines().take(3) {
        let found: Value = serde_json::from_str(line)?;
        let number = |key: &str| found[key].as_u64();
        assert_eq!(
            (
                number("active_connections"),
                number("idle_connections"),
                number("max_size")
            ),
            (Some(0), Some(5), Some(20)),
            "{found}"
        );
        assert_eq!(
            (number("waiting_requests"), number("total_created")),
            (Some(0), Some(5))
        );
        assert_eq!(
            (&found["verdict"], &found["healthy"]),
            (&"healthy".into(), &true.into())
        );
        let server = &found["server"];
        assert_eq!(
            (&server["fits"], &server["role_limit"]),
            (&true.into(), &Value::Null)
        );
        assert!(
            server["used"].as_u64() >= Some(5) && server["free"].as_u64() > Some(20),
            "{server}"
        );
    }
    process.interrupt()?;
    let status = process.wait(SOON).await?;
    assert!(status.success(), "{status} {}", process.stderr());
    Ok(())
}

#[tokio::test]
async fn a_pool_that_does_not_fit_is_told_with_what_to_change() -> anyhow::Result<()> {
    let database = fresh().await?;
    let check = |key: &str, value: &str| {
        let check = stats(&["--check"]).env("DATABASE_URL", database.url());
        check.env(key, value)
    };
    let of = |ended: Ended| (ended.code, ended.stdout);
    let (code, text) = of(check("CONFITURE_CONNECTION_POOL_MAX_SIZE", "5000").run().await?);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("Verdict: connection.pool.max_size is 5000, and the server has "),
        "{text}"
    );
    assert!(
        text.contains("help: lower connection.pool.max_size to "),
        "{text}"
    );
    let (code, text) = of(check("CONFITURE_AGENT_CONNECTIONS_PER_SERVER", "5000")
        .run()
        .await?);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("Verdict: agent.connections_per_server is 5000, "),
        "{text}"
    );

    let admin = database.admin().await?;
    let limit = format!("ALTER DATABASE \"{}\" CONNECTION LIMIT 4", database.name());
    admin.batch_execute(&limit).await?;
    let (code, text) = of(check("CONFITURE_CONNECTION_POOL_PROFILE", "light").run().await?);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("; the database may have 4\n"), "{text}");
    assert!(
        text.contains("Verdict: connection.pool.max_size is 5, and this role or this database may have 4\n  help: lower connection.pool.max_size to 4"),
        "{text}"
    );
    let (code, text) = of(check("CONFITURE_CONNECTION_POOL_MAX_SIZE", "4").run().await?);
    assert_eq!(code, Some(0), "{text}");
    Ok(())
}

async fn of_fleet(coordinator: &Coordinator, more: &[&str]) -> anyhow::Result<Vec<Value>> {
    let command = [&["pool", "stats", "--output", "json"], more].concat();
    let report: Value = serde_json::from_str(&coordinator.command(&command).succeed().await?)?;
    let pools = report["pools"].as_array().cloned();
    pools.with_context(|| format!("no pools in {report}"))
}

#[tokio::test]
async fn each_agent_of_a_fleet_tells_of_its_own_pools() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let members = members(&server, &["pool_a", "pool_b"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let url = coordinator.url();
    // Both serve the first; the second is served by one of them.
    let first = Agent::start("agent-a", &[&url], &members)?;
    let mut second = Agent::start_with("agent-b", &[&url], &members[..1], |settings| {
        settings["connection"]["pool"] = serde_json::json!({ "profile": "light" });
    })?;
    coordinator.wait_for_databases(&["pool_a", "pool_b"]).await?;
    eventually("both agents to serve", SOON, || async {
        Ok((of_fleet(&coordinator, &["--all"]).await?.len() == 3).then_some(()))
    })
    .await?;

    let set = Migrations::write(&[("001_slow.up.sql", "SELECT pg_sleep(4)")])?;
    let mut rollout = coordinator.rollout(&set).arg("--watch").start("rollout")?;
    let at_work = eventually("work on both databases", SOON, || async {
        let pools = of_fleet(&coordinator, &["--all"]).await?;
        let active = |database: &str| {
            let of = pools.iter().filter(|pool| pool["database"] == database);
            of.filter_map(|pool| pool["active_connections"].as_u64())
                .sum::<u64>()
        };
        Ok((active("pool_a") > 0 && active("pool_b") > 0).then_some(pools))
    })
    .await?;
    let places: Vec<_> = at_work
        .iter()
        .map(|pool| {
            (
                pool["agent"].clone(),
                pool["database"].clone(),
                pool["max_size"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            ("agent-a".into(), "pool_a".into(), Some(10)),
            ("agent-b".into(), "pool_a".into(), Some(5)),
            ("agent-a".into(), "pool_b".into(), Some(10)),
        ]
    );
    // What all agents say together is what the server sees, once nothing is being opened or closed.
    let admin = server.admin("postgres").await?;
    for member in &members {
        let name = member.database.name();
        eventually("agents and server to agree", SOON, || async {
            let pools = of_fleet(&coordinator, &["--all"]).await?;
            let size = |pool: &Value| {
                let number = |of: &Value, key: &str| of[key].as_i64().unwrap_or_default();
                let all = |of: &Value| number(of, "active_connections") + number(of, "idle_connections");
                all(pool) + all(&pool["outside"])
            };
            let ours: i64 = (pools.iter().filter(|pool| pool["database"] == name))
                .map(size)
                .sum();
            Ok((ours > 0 && ours == open(&admin, &member.database).await?).then_some(()))
        })
        .await?;
    }
    let status = rollout.wait(SOON).await?;
    assert!(status.success(), "{}\n{}", rollout.stderr(), first.log());

    let named = of_fleet(&coordinator, &["--database", "pool_b"]).await?;
    assert_eq!((named.len(), &named[0]["agent"]), (1, &"agent-a".into()));
    let text = coordinator.command(&["pool", "stats"]).succeed().await?;
    let head: Vec<_> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let columns = "DATABASE AGENT ACTIVE IDLE WAITING CREATED RECYCLED MAX VERDICT";
    assert_eq!(head.join(" "), columns);
    assert_eq!(text.lines().count(), 4, "{text}");

    // One that says nothing, as those do that are too old to know the question.
    second.freeze()?;
    let ended = coordinator.command(&["pool", "stats", "--check"]).run().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let silent = "agent agent-b did not answer in time: its program may be too old for this question (`confiture fleet agents` shows versions), else see its log";
    assert!(ended.stdout.contains(silent), "{}", ended.stdout);
    second.thaw()?;
    Ok(())
}

#[tokio::test]
async fn wrong_flags_are_told_with_what_to_give() -> anyhow::Result<()> {
    let coordinator = Coordinator::start("coordinator", "memory:").await?;
    let url = coordinator.url();
    let cases: [(&[&str], &str); 5] = [
        (&["--watch", "--interval", "0"], "--interval"),
        (&["--watch", "--interval", "soon"], "write a number with a unit"),
        (&["--all", "--database", "x"], "cannot be used with"),
        (&["--coordinator", &url, "--select", "env"], "--select: "),
        (
            &["--coordinator", &url, "--database", "nowhere"],
            "there is no database `nowhere`",
        ),
    ];
    for (flags, told) in cases {
        let ended = stats(flags).run().await?;
        assert_eq!(ended.code, Some(2), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{flags:?}: {}", ended.stderr);
    }
    let none = stats(&["--coordinator", &url]).run().await?;
    assert_eq!(
        (none.code, none.stdout.as_str()),
        (Some(0), ""),
        "{}",
        none.stderr
    );
    assert!(
        none.stderr.contains("no agent has offered a database yet"),
        "{}",
        none.stderr
    );
    Ok(())
}
