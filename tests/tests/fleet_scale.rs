//! Many databases: a thousand on twenty agents, simulated, over a real etcd and a real coordinator, and thirty real ones
//! on three servers. `bench scale` and `bench rollout` measure ten thousand and three hundred.

use proto::v1::RolloutState;
use std::time::Duration;
use tests::etcd::Etcd;
use tests::fleet::{Agent, Coordinator, Member, Simulated, Size};
use tests::migrations::Migrations;
use tests::postgres::Server;

const SIZE: Size = Size {
    agents: 20,
    databases_each: 50,
    work: Duration::from_millis(20),
};
const LONG: Duration = Duration::from_mins(2);

/// Keys written for each database by a rollout: its assignment when it begins and when it ends, and its lease, there and
/// gone.
const KEYS_OF_WORK: u64 = 4;

/// Keys of the rollout itself: its course, its databases, its bundle, and the leader's.
const KEYS_BESIDE: u64 = 50;

#[tokio::test]
async fn a_thousand_databases_are_each_migrated_once_with_few_writes() -> anyhow::Result<()> {
    let etcd = Etcd::start().await?;
    let coordinator = Coordinator::start("coordinator", &etcd.store("scale")).await?;
    let agents = Simulated::start(&coordinator.url(), SIZE)?;
    let names = agents.names()?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    coordinator.wait_for_databases(&names).await?;
    let databases = u64::try_from(SIZE.databases())?;

    let set = Migrations::write(&[("001_simulated.up.sql", "CREATE TABLE simulated ()")])?;
    let start = coordinator.rollout(&set).arg("--max-in-flight").arg("200");
    let mut keys = Vec::new();
    for _ in 0..2 {
        let before = etcd.writes().await?;
        start.succeed().await?;
        let id = coordinator.rollouts().await?[0].id.clone();
        let ended = coordinator.wait_for_end_of(&id, LONG).await?;
        let rollout = ended.rollout.unwrap_or_default();
        assert_eq!(rollout.state(), RolloutState::Done, "{}", rollout.reason);
        assert_eq!(u64::from(rollout.done_databases), databases);
        keys.push(etcd.writes().await?.keys - before.keys);
    }

    let record = agents.record();
    assert_eq!(
        (record.orders, record.migrations),
        (SIZE.databases(), SIZE.databases())
    );
    assert!(record.doubled.is_empty(), "{:?}", record.doubled);
    assert!(record.most_in_flight <= 200, "{}", record.most_in_flight);
    assert!(record.most_per_server <= 2, "{}", record.most_per_server);
    assert!(
        keys[0] <= KEYS_OF_WORK * databases + KEYS_BESIDE,
        "the first rollout wrote {} keys",
        keys[0]
    );
    // Nothing was to be done: one record each.
    assert!(
        keys[1] <= databases + KEYS_BESIDE,
        "the second one wrote {} keys",
        keys[1]
    );
    agents.stop().await
}

/// The sums over all members of what queries say.
async fn sums<const N: usize>(members: &[Member], queries: [&str; N]) -> anyhow::Result<[i64; N]> {
    let mut sums = [0; N];
    for member in members {
        for (sum, query) in sums.iter_mut().zip(queries) {
            *sum += member.database.number(query).await?;
        }
    }
    Ok(sums)
}

#[tokio::test]
async fn thirty_databases_on_three_servers_count_once_and_are_left_alone_when_nothing_is_to_be_done()
-> anyhow::Result<()> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start().await?);
    }
    let mut members = Vec::new();
    for (n, server) in (0..30).zip(servers.iter().cycle()) {
        let name = format!("db{n:02}");
        let database = server.database(&name).await?;
        database
            .execute("CREATE TABLE t (n int NOT NULL); INSERT INTO t VALUES (0)")
            .await?;
        members.push(Member::new(&name, database));
    }
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    // One half is served by one agent, the other by both.
    let urls = [coordinator.url()];
    let urls = urls.each_ref().map(String::as_str);
    let _agents = [
        Agent::start("agent-a", &urls, &members)?,
        Agent::start("agent-b", &urls, &members[15..])?,
    ];
    coordinator.wait_for_databases(&names).await?;

    let set = Migrations::write(&[("001_count.up.sql", "UPDATE t SET n = n + 1;")])?;
    let run = coordinator
        .rollout(&set)
        .arg("--watch")
        .arg("--max-in-flight")
        .arg("12");
    run.succeed().await?;
    let counted = "SELECT sum(n) FROM t";
    let runs = "SELECT count(*) FROM confiture.run WHERE state = 'complete'";
    let token = "SELECT token FROM confiture.fence";
    let [counts, complete, tokens] = sums(&members, [counted, runs, token]).await?;
    assert_eq!((counts, complete), (30, 30));

    run.succeed().await?;
    assert_eq!(sums(&members, [counted, runs, token]).await?, [30, 30, tokens]);
    Ok(())
}
