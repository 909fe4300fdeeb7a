//! The flight recorder: why it was slow, without any tracing.

use super::scene::{DATABASES, LONG, SOON, Scene, on, slow_set};
use anyhow::Context as _;
use serde_json::Value;
use std::time::Duration;
use tests::eventually;
use tests::fleet::Agent;
use tests::migrations::Migrations;
use tests::port::Port;
use tests::prometheus::{page, total};

/// `rollout trace` as JSON: the attempts of one database.
async fn attempts(scene: &Scene, id: &str, database: &str) -> anyhow::Result<Vec<Value>> {
    let told = scene
        .coordinator
        .command(&["rollout", "trace", id, database, "--output", "json"])
        .succeed()
        .await?;
    let told: Value = serde_json::from_str(&told)?;
    assert_eq!(told["databases"][0]["database"], database, "{told}");
    let attempts = told["databases"][0]["attempts"].as_array();
    Ok(attempts.cloned().unwrap_or_default())
}

fn moments<'a>(attempt: &'a Value, what: &str) -> Vec<&'a Value> {
    let moments = attempt["moments"].as_array().into_iter().flatten();
    moments.filter(|moment| moment["what"] == what).collect()
}

#[tokio::test]
async fn a_rollout_tells_what_its_time_went_into() -> anyhow::Result<()> {
    let mut scene = Scene::start(None).await?;
    // An application holds a table for a while.
    let session = scene.members[0].database.connect().await?;
    session
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS SHARE MODE")
        .await?;
    let pid = session.number("SELECT pg_backend_pid()::bigint").await?;
    let set = slow_set()?;
    let mut rollout = scene.coordinator.rollout(&set).arg("--watch").start("rollout")?;
    let id = eventually("the rollout", SOON, || async {
        Ok(scene
            .coordinator
            .rollouts()
            .await?
            .pop()
            .map(|rollout| rollout.id))
    })
    .await?;
    // It can be read while it is at work.
    eventually("the story of a database at work", SOON, || async {
        let told = attempts(&scene, &id, "users").await?;
        let live = told
            .iter()
            .find(|attempt| attempt["running"] == true && !moments(attempt, "batches").is_empty());
        Ok(live.map(|_| ()))
    })
    .await?;
    drop(session);
    let status = rollout.wait(LONG).await?;
    assert!(status.success(), "{}", rollout.stderr());
    // Also by a coordinator that has heard none of it.
    scene.coordinator.kill()?;
    scene.coordinator.restart().await?;
    let told = eventually("the coordinator to answer again", SOON, || async {
        Ok(Some(attempts(&scene, &id, "orders").await?))
    })
    .await?;
    let [attempt] = &told[..] else {
        panic!("one attempt: {told:?}")
    };
    assert_eq!(
        (&attempt["agent"], &attempt["running"]),
        (&"agent-a".into(), &false.into())
    );
    let waits = moments(attempt, "wait");
    let took = |moment: &Value| moment["to"].as_u64().unwrap_or(0) - moment["from"].as_u64().unwrap_or(0);
    assert!(
        waits.iter().any(|wait| {
            let pids = wait["blocked_by"].as_array().cloned().unwrap_or_default();
            pids.contains(&pid.into()) && took(wait) > 1_000
        }) || moments(attempt, "tries")
            .iter()
            .any(|tries| tries["tries"].as_u64() > Some(1)),
        "{attempt}"
    );
    let batches = moments(attempt, "batches");
    let sum = |key: &str| {
        batches
            .iter()
            .filter_map(|moment| moment[key].as_u64())
            .sum::<u64>()
    };
    assert_eq!(sum("rows"), 60_000, "{attempt}");
    assert!(sum("rested_ms") > 3_000, "{attempt}");
    assert!(
        batches.iter().all(|moment| moment["reason"] == "pause"),
        "{attempt}"
    );
    let steps = moments(attempt, "step");
    let kinds: Vec<_> = steps.iter().map(|step| (&step["kind"], &step["done"])).collect();
    assert_eq!(kinds.len(), 2, "{attempt}");
    assert!(kinds.iter().all(|(_, done)| **done == true), "{attempt}");
    // For people.
    let page = scene
        .coordinator
        .command(&["rollout", "trace", &id])
        .succeed()
        .await?;
    for part in [
        "orders (wave rest, done): attempt 1 on agent-a",
        "60,000 rows",
        "(pause)",
        "backfill: done",
    ] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    Ok(())
}

#[tokio::test]
async fn vacuums_and_the_look_at_all_rows_are_told_of_too() -> anyhow::Result<()> {
    let scene = Scene::start(None).await?;
    let set = Migrations::write(&[(
        "0001_gross.yaml",
        "up:\n  - add_column: { table: items, column: gross2, type: numeric }\n  - backfill: { table: items, set: { gross2: net * 1.2 }, batch: { vacuum: 0.2, workers: 1, verify: true } }\n",
    )])?;
    scene.coordinator.rollout(&set).arg("--watch").succeed().await?;
    let id = scene.coordinator.rollouts().await?.remove(0).id;
    let told = attempts(&scene, &id, "orders").await?;
    let verified = moments(&told[0], "verified");
    assert_eq!(verified.len(), 1, "{told:?}");
    assert_eq!(
        (&verified[0]["rows"], &verified[0]["differing"]),
        (&60_000.into(), &0.into())
    );
    let vacuums = moments(&told[0], "vacuum");
    assert!(!vacuums.is_empty(), "{told:?}");
    let page = scene.coordinator.command(&["rollout", "trace", &id]);
    let page = page.succeed().await?;
    for part in ["verified 60,000 rows", "vacuum"] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_done_at_once_has_nothing_to_tell_and_a_wrong_name_is_said() -> anyhow::Result<()> {
    let scene = Scene::start(None).await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    scene.coordinator.rollout(&set).arg("--watch").succeed().await?;
    let id = scene.coordinator.rollouts().await?.remove(0).id;
    let page = scene
        .coordinator
        .command(&["rollout", "trace", &id])
        .succeed()
        .await?;
    assert!(page.contains("2 databases with nothing to tell"), "{page}");
    for (words, says) in [
        (vec!["rollout", "trace", "nothere"], "nothere"),
        (
            vec!["rollout", "trace", &id, "missing"],
            "has no database missing",
        ),
    ] {
        let ended = scene.coordinator.command(&words).run().await?;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    Ok(())
}

fn short_leases(settings: &mut Value) {
    settings["coordinator"]["leader_lease"] = "2s".into();
    settings["coordinator"]["agent_lease"] = "17s".into();
}

#[tokio::test]
async fn an_agent_that_died_is_told_of_with_the_one_that_went_on() -> anyhow::Result<()> {
    let mut scene = Scene::start_with(None, short_leases).await?;
    let set = slow_set()?;
    let mut rollout = scene.coordinator.rollout(&set).arg("--watch").start("rollout")?;
    let id = eventually("the rollout", SOON, || async {
        let newest = scene.coordinator.rollouts().await?.pop();
        Ok(newest.map(|rollout| rollout.id))
    })
    .await
    .with_context(|| rollout.stderr())?;
    eventually("the story of a database at work", SOON, || async {
        let told = attempts(&scene, &id, "orders").await?;
        let batches = told.iter().any(|attempt| !moments(attempt, "batches").is_empty());
        Ok(batches.then_some(()))
    })
    .await?;
    scene.agent.kill()?;
    let port = Port::claim()?;
    let url = scene.coordinator.url();
    let mut second = Agent::start_with("agent-b", &[&url], &scene.members, |settings| {
        settings["observability"]["prometheus"] = on(&port);
    })?;
    let status = rollout.wait(LONG).await?;
    assert!(status.success(), "{}", rollout.stderr());
    let told = attempts(&scene, &id, "orders").await?;
    let agents: Vec<_> = told.iter().map(|attempt| &attempt["agent"]).collect();
    assert_eq!(agents, ["agent-a", "agent-b"], "{told:?}");
    assert!(!moments(&told[0], "batches").is_empty(), "{told:?}");
    let lost = moments(&told[0], "lost");
    let took = lost
        .first()
        .map(|lost| lost["to"].as_u64() > lost["from"].as_u64());
    assert_eq!((lost.len(), took), (1, Some(true)), "{told:?}");
    assert!(moments(&told[1], "lost").is_empty(), "{told:?}");
    let steps = moments(&told[1], "step");
    assert!(
        steps
            .iter()
            .any(|step| step["kind"] == "backfill" && step["done"] == true),
        "{told:?}"
    );
    let page = scene
        .coordinator
        .command(&["rollout", "trace", &id, "orders"])
        .succeed()
        .await?;
    let places = [
        "on agent-a",
        "nothing heard any more, until the agent's lease ended",
        "on agent-b",
    ]
    .map(|part| page.find(part));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{page}");
    // The same in numbers, on both sides.
    let text = page_of(&scene.ports[0]).await?;
    assert_eq!(
        total(&text, "confiture_lease_expirations_total", &[]),
        Some(2.0),
        "{text}"
    );
    let text = page_of(&port).await?;
    for database in DATABASES {
        let of = format!("database=\"{database}\"");
        let counted = total(&text, "confiture_fence_takeovers_total", &[&of]);
        assert_eq!(counted, Some(1.0), "{database}: {text}");
    }
    assert_eq!(
        total(&text, "confiture_lease_losses_total", &[]),
        Some(0.0),
        "{text}"
    );
    // Who stands still for longer than its lease has lost it when it wakes.
    second.freeze()?;
    tokio::time::sleep(Duration::from_secs(18)).await;
    second.thaw()?;
    eventually("the lease to be counted as lost", SOON, || async {
        let lost = total(&page_of(&port).await?, "confiture_lease_losses_total", &[]);
        Ok((lost > Some(0.0)).then_some(()))
    })
    .await
}

async fn page_of(port: &Port) -> anyhow::Result<String> {
    Ok(page(port.number(), "/metrics").await?.1)
}

#[tokio::test]
async fn a_long_statement_is_told_of_while_it_runs() -> anyhow::Result<()> {
    let scene = Scene::start(None).await?;
    let set = Migrations::write(&[(
        "0001_long.up.sql",
        "SELECT pg_sleep(15);\nDO $$ BEGIN RAISE EXCEPTION 'no'; END $$;\n",
    )])?;
    let mut rollout = scene
        .coordinator
        .rollout(&set)
        .arg("--watch")
        .arg("--max-attempts")
        .arg("1")
        .start("rollout")?;
    let (id, page) = eventually("a statement at work", SOON, || async {
        let Some(rollout) = scene.coordinator.rollouts().await?.pop() else {
            return Ok(None);
        };
        let trace = scene.coordinator.command(&["rollout", "trace", &rollout.id]);
        let page = trace.succeed().await?;
        Ok(page.contains("sql: at work").then_some((rollout.id, page)))
    })
    .await?;
    assert!(page.contains("0001 step 1"), "{page}");
    assert!(!page.contains("nothing to tell: not begun, or done"), "{page}");
    assert!(!rollout.wait(LONG).await?.success());
    let failed: Vec<Value> = attempts(&scene, &id, "orders").await?;
    let steps = moments(&failed[0], "step");
    let error = steps[0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("P0001"), "{failed:?}");
    assert!(moments(&failed[0], "at_work").is_empty(), "{failed:?}");
    Ok(())
}
