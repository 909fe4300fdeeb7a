//! Limits on how many databases are at work, and hours in which they may be.

use super::{Fleet, LONG, ROWS, SOON};
use proto::v1::{AssignmentState, RolloutState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::eventually;

/// Each database is at work long enough to be seen.
const SLOW: &[(&str, &str)] = &[("001_slow.up.sql", "SELECT pg_sleep(1.5);")];

/// Counts each row once, for minutes: longer than it is to the end of one. The short target keeps batches small.
const SLOWLY: &[(&str, &str)] = &[(
    "001_count.yaml",
    "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, target: 1ms, pause: 3s } }\n",
)];

/// Databases at work, as often as they were looked at, until the rollout is done.
async fn at_work(fleet: &Fleet, id: &str) -> anyhow::Result<Vec<(u32, u32)>> {
    let mut seen = Vec::new();
    loop {
        let (rollout, _) = fleet.show(id).await?;
        seen.push((rollout.done_databases, rollout.running_databases));
        if rollout.state() == RolloutState::Done {
            return Ok(seen);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn no_more_databases_are_at_work_by_one_agent_than_allowed() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["agent_1", "agent_2", "agent_3"]).await?;
    let id = fleet
        .rollout(SLOW, "{ max_per_agent: 1, max_per_server: 3 }")
        .await?;
    fleet
        .says(&id, "waiting for its agent (at most 1 at a time)")
        .await?;
    let most = at_work(&fleet, &id)
        .await?
        .into_iter()
        .map(|(_, running)| running)
        .max();
    assert_eq!(most, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_wave_that_ramps_up_begins_with_one_and_doubles() -> anyhow::Result<()> {
    let names = [
        "ramp_1", "ramp_2", "ramp_3", "ramp_4", "ramp_5", "ramp_6", "ramp_7",
    ];
    let fleet = Fleet::start(&names).await?;
    let id = fleet
        .rollout(SLOW, "{ ramp_up: true, max_per_server: 8 }")
        .await?;
    fleet
        .says(&id, "the wave ramps up: at most 1 at a time now")
        .await?;
    let seen = at_work(&fleet, &id).await?;
    assert!(
        seen.iter().all(|(done, running)| *running <= done + 1),
        "{seen:?}"
    );
    let most = seen.iter().map(|(_, running)| *running).max();
    assert!(
        most >= Some(3),
        "each that is done makes room for one more: {seen:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_window_that_closes_stops_a_backfill_between_two_batches_and_says_so() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["hours"]).await?;
    fleet.fill().await?;
    // Windows are of whole minutes: this one closes at the next, or the one after where that is too near.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let clock = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let closes = (now + 10) / 60 + 1;
    let (from, to) = (clock(closes - 10), clock(closes));
    let policy = format!("windows: [{{ from: '{from}', to: '{to}', zone: UTC }}]");
    let id = fleet.rollout(SLOWLY, &policy).await?;
    let counted = "SELECT count(*) FROM t WHERE n = 1";
    eventually("some batches", SOON, || async {
        Ok((fleet.number("hours", counted).await? > 0).then_some(()))
    })
    .await?;
    let text = eventually("the window to close", LONG, || async {
        let text = fleet.ask(&["show", &id]).await?;
        Ok(text
            .contains("outside the hours for work; they begin")
            .then_some(text))
    })
    .await?;
    assert!(
        text.contains("agent agent-a stopped between two batches or steps"),
        "{text}"
    );
    assert!(text.contains("(at 001 count: step 1 of 1"), "{text}");
    assert!(!text.contains("error"), "a window is no error: {text}");
    let stopped = fleet.number("hours", counted).await?;
    assert!(stopped < ROWS, "{stopped}");
    let (_, all) = fleet.show(&id).await?;
    assert_eq!((all[0].state(), all[0].attempt), (AssignmentState::Waiting, 0));
    assert_eq!(all[0].summary.map(|of| of.rows), Some(stopped.cast_unsigned()));

    fleet.ask(&["abort", &id, "--reason", "that is enough"]).await?;
    fleet.is(&id, RolloutState::Aborted).await?;
    let text = fleet.ask(&["show", &id]).await?;
    let left = "stopped on the way (at 001 count: step 1 of 1";
    assert!(text.contains(left), "{text}");
    assert!(text.contains("`migrate up`, goes on from there"), "{text}");
    Ok(())
}
