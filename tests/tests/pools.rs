//! Connections of an agent: bounded over all databases of a server, and given up when there is no work.

use std::time::{Duration, Instant};
use tests::eventually;
use tests::fleet::{Agent, Coordinator, members};
use tests::migrations::Migrations;
use tests::postgres::Server;

const PLACES: i64 = 4;
const DATABASES: usize = 24;
const CLOSING: Duration = Duration::from_millis(500);
const OURS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'confiture' AND datname LIKE 'pooled%'";

#[tokio::test]
async fn many_databases_of_one_server_share_its_places() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let names: Vec<String> = (0..DATABASES).map(|n| format!("pooled{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let members = members(&server, &names).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let agent = Agent::start_with("agent-a", &[&coordinator.url()], &members, |settings| {
        settings["agent"]["connections_per_server"] = PLACES.into();
        settings["connection"]["pool"] =
            serde_json::json!({ "min_size": 2, "max_size": 4, "max_idle_time": 3 });
    })?;
    coordinator.wait_for_databases(&names).await?;
    let set = Migrations::write(&[
        ("001_a.up.sql", "CREATE TABLE a (id int)"),
        ("002_b.up.sql", "SELECT pg_sleep(0.2); CREATE TABLE b (id int)"),
    ])?;
    let rollout = coordinator
        .rollout(&set)
        .arg("--watch")
        .arg("--max-in-flight")
        .arg("3");
    let mut process = rollout.start("rollout")?;
    let admin = server.admin("postgres").await?;
    let (mut most, mut over) = (0, None);
    while process.ended()?.is_none() {
        let open = admin.number(OURS).await?;
        most = most.max(open);
        // A server's process lives on for a moment after its connection was closed.
        over = (open > PLACES).then(|| over.unwrap_or_else(Instant::now));
        assert!(
            over.is_none_or(|since| since.elapsed() < CLOSING),
            "{open} connections at once, and not only for a moment"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = process.wait(Duration::from_secs(1)).await?;
    assert!(status.success(), "{}\n{}", process.stderr(), agent.log());
    assert!(most > 1, "{most} connections at once");
    // Without work none is kept, whatever min_size says.
    eventually(
        "idle connections to be closed",
        Duration::from_secs(30),
        || async { Ok((admin.number(OURS).await? == 0).then_some(())) },
    )
    .await
}
