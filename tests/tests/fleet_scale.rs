//! A thousand databases on twenty agents, simulated, over a real etcd and a real coordinator. `bench scale` measures ten
//! thousand.

use proto::v1::RolloutState;
use std::time::Duration;
use tests::etcd::Etcd;
use tests::fleet::{Coordinator, Simulated, Size};
use tests::migrations::Migrations;

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
