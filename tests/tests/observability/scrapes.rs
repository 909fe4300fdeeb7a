//! Metrics, as a real Prometheus sees them during a rollout.

use super::scene::{DATABASES, LONG, SOON, Scene, on, slow_set};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tests::dashboards::expressions;
use tests::directory::Directory;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, members};
use tests::migrations::Migrations;
use tests::port::Port;
use tests::postgres::Server;
use tests::process::Confiture;
use tests::prometheus::{Prometheus, page, promtool};

/// Serves metrics on this port of this machine.
fn watched(port: &Port) -> impl FnOnce(&mut Value) + use<> {
    let settings = on(port);
    move |of| of["observability"]["prometheus"] = settings
}

/// The samples of one page: name with labels, and value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// The metrics that a page names.
fn names(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn a_rollout_is_seen_by_prometheus_from_both_sides() -> anyhow::Result<()> {
    let scene = Scene::start(None).await?;
    let ports = &scene.ports;
    let prometheus = Prometheus::start(&[
        ("confiture-coordinator", ports[0].number()),
        ("confiture-agent", ports[1].number()),
    ])
    .await?;
    for port in ports {
        assert_eq!(
            page(port.number(), "/healthz").await?,
            (200, "alive\n".to_owned())
        );
        assert_eq!(page(port.number(), "/readyz").await?, (200, "ready\n".to_owned()));
    }
    let set = slow_set()?;
    let folder = Directory::new()?;
    // It stays at work until all questions are answered.
    folder.write(
        "policy.yaml",
        "waves:\n  - { name: first, databases: [orders] }\n  - { name: second, databases: [users], approval: true }\n",
    )?;
    let mut rollout = scene
        .coordinator
        .rollout(&set)
        .arg("--policy")
        .arg(folder.path().join("policy.yaml"))
        .arg("--watch")
        .start("rollout")?;
    // In its middle: what there is of live rollouts and steps at work.
    eventually("the rollout to be scraped at work", SOON, || async {
        let seen = prometheus
            .ask(
                "confiture_rollout_databases{state=\"running\"} > 0 and on() (sum(confiture_rows_total) > 0)",
            )
            .await?;
        Ok((!seen.is_empty()).then_some(()))
    })
    .await?;
    for expression in [
        "confiture_rollouts{state=\"running\"} == 1",
        "confiture_rollout_wave == 1",
        "time() - confiture_rollout_last_progress_timestamp_seconds < 30",
        "confiture_agents{state=\"connected\"} == 1",
        "confiture_databases{state=\"reachable\"} == 2",
        "confiture_leader == 1",
        "confiture_coordinator_connected == 1",
        "confiture_duty_ratio > 0",
    ] {
        eventually(expression, SOON, || async {
            Ok((!prometheus.ask(expression).await?.is_empty()).then_some(()))
        })
        .await?;
    }
    everything_asked_is_answered(&prometheus).await?;
    let id = scene.coordinator.rollouts().await?.remove(0).id;
    scene
        .coordinator
        .command(&["rollout", "approve", &id])
        .succeed()
        .await?;
    let status = rollout.wait(LONG).await?;
    assert!(status.success(), "{}\n{}", rollout.stderr(), scene.agent.log());
    let texts = [
        page(ports[0].number(), "/metrics").await?.1,
        page(ports[1].number(), "/metrics").await?.1,
    ];
    for text in &texts {
        promtool(&["check", "metrics"], scene.coordinator.folder(), text)?;
    }
    let known: BTreeSet<String> = coordinator::metrics::METRICS
        .iter()
        .chain(agent::metrics::METRICS)
        .map(|metric| metric.name.to_owned())
        .collect();
    let shown: BTreeSet<String> = texts.iter().flat_map(|text| names(text)).collect();
    assert!(shown.is_subset(&known), "{:?}", shown.difference(&known));
    counted_all(&texts[1]);
    // However many databases there are, the coordinator's series are as many.
    assert!(!texts[0].contains("database=\""), "{}", texts[0]);
    Ok(())
}

/// Every expression of panels and rules gives something while a rollout is at work: rules without what they compare with.
async fn everything_asked_is_answered(prometheus: &Prometheus) -> anyhow::Result<()> {
    for asked in expressions()? {
        let expression = asked
            .expression
            .replace("$__rate_interval", "5s")
            .replace("$database", ".*")
            .replace("$instance", ".*")
            .replace("$rollout", ".*");
        let expression = if asked.place.starts_with("rules.yaml") {
            always(&expression)
        } else {
            expression
        };
        eventually(&format!("{}: {expression}", asked.place), SOON, || async {
            let answer = prometheus.ask(&expression).await?;
            Ok((!answer.is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// The same with comparisons that are always true.
fn always(expression: &str) -> String {
    let mut words: Vec<String> = expression.split(' ').map(ToOwned::to_owned).collect();
    for place in 1..words.len() {
        if matches!(words[place - 1].as_str(), ">" | ">=" | "!=") {
            ">".clone_into(&mut words[place - 1]);
            let closing = words[place].matches(')').count();
            words[place] = format!("bool -1{}", ")".repeat(closing));
        }
    }
    words.join(" ")
}

/// What an agent has counted after [`slow_set`].
fn counted_all(text: &str) {
    let of_agent = samples(text);
    let counted = |series: &str| of_agent.get(series).copied();
    for database in DATABASES {
        assert_eq!(
            counted(&format!(
                "confiture_migration_total{{database=\"{database}\",kind=\"up\",outcome=\"done\"}}"
            )),
            Some(2.0),
            "{text}"
        );
        assert_eq!(
            counted(&format!(
                "confiture_rows_total{{database=\"{database}\",kind=\"backfill\"}}"
            )),
            Some(60_000.0)
        );
        assert_eq!(
            counted(&format!(
                "confiture_migration_errors_total{{database=\"{database}\"}}"
            )),
            Some(0.0)
        );
    }
    assert_eq!(
        counted("confiture_migration_duration_seconds_count{kind=\"up\",outcome=\"done\"}"),
        Some(4.0)
    );
    assert_eq!(
        counted("confiture_migration_lock_wait_seconds_count{outcome=\"granted\"}"),
        Some(2.0)
    );
    let paused = DATABASES.map(|database| {
        counted(&format!(
            "confiture_throttle_seconds_total{{database=\"{database}\",reason=\"pause\"}}"
        ))
    });
    // A second after each of some thirteen batches.
    assert!(
        paused.iter().all(|seconds| seconds.is_some_and(|s| s > 3.0)),
        "{paused:?}"
    );
}

#[tokio::test]
async fn an_agent_without_a_coordinator_says_why_it_is_not_ready() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let members = members(&server, &["alone"]).await?;
    let (port, nobody) = (Port::claim()?, Port::claim()?);
    let url = format!("http://127.0.0.1:{}", nobody.number());
    let _agent = Agent::start_with("agent-a", &[&url], &members, watched(&port))?;
    let (status, text) = eventually("the agent to serve its metrics", SOON, || async {
        Ok(Some(page(port.number(), "/readyz").await?))
    })
    .await?;
    assert_eq!(
        (status, text),
        (
            503,
            format!("no coordinator has welcomed this agent; tried: {url}\n")
        )
    );
    assert_eq!(page(port.number(), "/healthz").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn a_coordinator_without_its_store_says_why_it_is_not_ready() -> anyhow::Result<()> {
    let (port, nobody, own) = (Port::claim()?, Port::claim()?, Port::claim()?);
    let folder = Directory::new()?;
    let settings = serde_json::json!({
        "coordinator": {
            "listen": format!("127.0.0.1:{}", own.number()),
            "store": format!("etcd://127.0.0.1:{}/alone", nobody.number()),
        },
        "observability": { "prometheus": on(&port) },
    });
    folder.write("confiture.yaml", settings.to_string())?;
    let _coordinator = Confiture::new(["coordinator", "--config"])
        .arg(folder.path().join("confiture.yaml"))
        .start("coordinator")?;
    let (status, text) = eventually("the coordinator to serve its metrics", SOON, || async {
        Ok(page(port.number(), "/readyz").await.ok())
    })
    .await?;
    assert_eq!(status, 503, "{text}");
    assert!(
        text.starts_with("no coordinator leads: the store does not answer"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_said_and_work_goes_on() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let members = members(&server, &["taken"]).await?;
    let port = Port::claim()?;
    let taken = tokio::net::TcpListener::bind(("127.0.0.1", port.number())).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let agent = Agent::start_with("agent-a", &[&coordinator.url()], &members, watched(&port))?;
    agent
        .wait_for_line("cannot serve metrics there, trying again", SOON)
        .await?;
    coordinator.wait_for_databases(&["taken"]).await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    coordinator.rollout(&set).arg("--watch").succeed().await?;
    drop(taken);
    eventually("the port to be taken once it is free", SOON, || async {
        Ok((page(port.number(), "/metrics").await?.0 == 200).then_some(()))
    })
    .await
}

#[tokio::test]
async fn an_address_that_this_machine_has_not_is_said_and_work_goes_on() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let members = members(&server, &["elsewhere"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let port = Port::claim()?;
    let agent = Agent::start_with("agent-a", &[&coordinator.url()], &members, |settings| {
        settings["observability"]["prometheus"] = on(&port);
        // Nobody has it: it is for documentation.
        settings["observability"]["prometheus"]["address"] = "192.0.2.1".into();
    })?;
    agent
        .wait_for_line("set `observability.prometheus.address` to one that it has", SOON)
        .await?;
    coordinator.wait_for_databases(&["elsewhere"]).await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    coordinator.rollout(&set).arg("--watch").succeed().await?;
    Ok(())
}

#[tokio::test]
async fn a_command_writes_its_metrics_to_a_file() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("filed").await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    let folder = Directory::new()?;
    let file = folder.path().join("confiture.prom");
    let up = || {
        Confiture::new(["migrate", "up", "--migrations"])
            .arg(set.path())
            .env("DATABASE_URL", database.url())
            .arg("--metrics-file")
    };
    up().arg(&file).succeed().await?;
    let text = std::fs::read_to_string(&file)?;
    promtool(&["check", "metrics"], set.path(), &text)?;
    assert!(
        text.contains("confiture_migration_duration_seconds_count{kind=\"up\",outcome=\"done\"} 1"),
        "{text}"
    );
    // A file that cannot be written is said before anything is changed.
    set.put("0002_b.up.sql", "CREATE TABLE b ()")?;
    let refused = up()
        .arg(folder.path().join("missing/confiture.prom"))
        .run()
        .await?;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("cannot write the metrics to"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname = 'b'")
            .await?,
        0
    );
    Ok(())
}
