//! Spans, from the command that starts a rollout to the batches of its agents.

use super::scene::{DATABASES, LONG, SOON, Scene, slow_set};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tests::collector::{Collector, Span};
use tests::directory::Directory;
use tests::eventually;
use tests::migrations::Migrations;
use tests::port::Port;
use tests::postgres::Server;
use tests::process::Confiture;
use tests::tls::Authority;

/// Of whoever runs the command.
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The spans from one up to the first: names, from the outside in.
fn line(spans: &BTreeMap<&str, &Span>, span: &Span) -> Vec<String> {
    let mut names = vec![span.name.clone()];
    let mut at = span;
    while let Some(parent) = spans.get(at.parent.as_str()) {
        names.insert(0, parent.name.clone());
        at = parent;
    }
    names
}

#[tokio::test]
async fn one_trace_tells_a_rollout_from_the_command_to_its_batches() -> anyhow::Result<()> {
    let collector = Collector::start()?;
    let scene = Scene::start(Some(&collector.url())).await?;
    let folder = Directory::new()?;
    folder.write(
        "confiture.yaml",
        format!(
            "observability: {{ otlp: {{ endpoint: '{}' }} }}\n",
            collector.url()
        ),
    )?;
    let set = slow_set()?;
    let mut rollout = scene
        .coordinator
        .rollout(&set)
        .arg("--watch")
        .arg("--config")
        .arg(folder.path().join("confiture.yaml"))
        .env("TRACEPARENT", CALLER)
        .start("rollout")?;
    let status = rollout.wait(LONG).await?;
    assert!(status.success(), "{}", rollout.stderr());
    // Each process sends what it has every few seconds.
    eventually("all spans to come", SOON, || async {
        let spans = collector.spans();
        anyhow::ensure!(
            spans.iter().any(|span| span.name == "rollout start"),
            "the command's own is missing"
        );
        let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
        let loose = spans
            .iter()
            .find(|span| !ids.contains(span.parent.as_str()) && span.parent != CALLER[36..52]);
        anyhow::ensure!(loose.is_none(), "it hangs under nothing that came: {loose:?}");
        Ok(Some(()))
    })
    .await?;
    let spans = collector.spans();
    assert!(
        spans.iter().all(|span| span.trace == CALLER[3..35]),
        "one trace: {spans:#?}"
    );
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span is told once");
    let all = [
        "rollout start",
        "rollout",
        "wave",
        "database",
        "order",
        "migration",
        "step",
    ];
    let services = ["confiture", "confiture-coordinator", "confiture-agent"];
    for span in &spans {
        let expected: Vec<&str> = match span.name.as_str() {
            "rollout start" => all[..1].to_vec(),
            "rollout" => all[..2].to_vec(),
            "wave" => all[..3].to_vec(),
            "database" => all[..4].to_vec(),
            "order" => all[..5].to_vec(),
            "migration" => all[..6].to_vec(),
            "step" => all[..7].to_vec(),
            below @ ("batch" | "try" | "wait" | "throttle") => all.iter().copied().chain([below]).collect(),
            other => panic!("an unknown span {other}"),
        };
        assert_eq!(line(&by_id, span), expected);
        let service = match expected.len() {
            1 => services[0],
            2..=4 => services[1],
            _ => services[2],
        };
        assert_eq!(span.service, service, "{}", span.name);
    }
    let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
    assert_eq!(
        [count("rollout"), count("wave"), count("database"), count("order")],
        [1, 1, DATABASES.len(), DATABASES.len()]
    );
    assert_eq!([count("migration"), count("step")], [4, 4]);
    let rests: Vec<_> = spans.iter().filter(|span| span.name == "throttle").collect();
    assert!(rests.len() > 10, "{}", rests.len());
    assert!(
        rests.iter().all(|rest| rest.about["reason"] == "pause"
            && !rest.about["pace"].is_empty()
            && rest.about["pause_ms"] == "1000"
            && rest.about.contains_key("duty")
            && rest.about.contains_key("rested_ms")),
        "{rests:#?}"
    );
    // Metrics go the same way.
    eventually("metrics to come", LONG, || async {
        let metrics = collector.metrics();
        Ok(["confiture_leader", "confiture_migration_total"]
            .iter()
            .all(|name| metrics.contains(*name))
            .then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_migration_of_one_database_is_a_trace_of_its_own() -> anyhow::Result<()> {
    let collector = Collector::start()?;
    let server = Server::start().await?;
    let database = server.database("traced").await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .env("CONFITURE_OBSERVABILITY_OTLP_ENDPOINT", collector.url())
        .succeed()
        .await?;
    // The command sent all before it ended.
    let spans = collector.spans();
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let lines: BTreeSet<Vec<String>> = spans.iter().map(|span| line(&by_id, span)).collect();
    let whole = ["migrate", "migration", "step", "try"];
    let expected = (1..=whole.len()).map(|n| whole[..n].iter().map(ToString::to_string).collect());
    assert_eq!(lines, expected.collect());
    Ok(())
}

#[tokio::test]
async fn a_collector_behind_tls_is_checked_before_it_is_told_anything() -> anyhow::Result<()> {
    let (ours, other) = (Authority::new()?, Authority::new()?);
    let collector = Collector::start_with_tls(&ours.sign("collector", &["127.0.0.1"])?)?;
    let server = Server::start().await?;
    let database = server.database("encrypted").await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    let files = Directory::new()?;
    files.write("ours.pem", ours.pem())?;
    files.write("other.pem", other.pem())?;
    files.write("key.pem", "no certificate")?;
    let up = |ca_file: Option<&str>| {
        let up = Confiture::new(["migrate", "up", "--migrations"])
            .arg(set.path())
            .env("DATABASE_URL", database.url())
            .env("CONFITURE_OBSERVABILITY_OTLP_ENDPOINT", collector.url());
        match ca_file {
            Some(name) => up.env("CONFITURE_OBSERVABILITY_OTLP_CA_FILE", files.path().join(name)),
            None => up,
        }
    };
    for (unusable, says) in [
        (
            "missing.pem",
            "`observability.otlp.ca_file` cannot be used: cannot read",
        ),
        ("key.pem", "holds no certificate"),
    ] {
        let ended = up(Some(unusable)).run().await?;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    // The system trusts neither.
    for stranger in [Some("other.pem"), None] {
        let ended = up(stranger).run().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let says = "the OTLP collector takes nothing";
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
        assert!(collector.spans().is_empty() && collector.metrics().is_empty());
    }
    up(Some("ours.pem")).succeed().await?;
    assert!(collector.spans().iter().any(|span| span.name == "migrate"));
    assert!(!collector.metrics().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_is_said_once_and_work_goes_on() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("untraced").await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    let nobody = Port::claim()?;
    let url = format!("http://127.0.0.1:{}", nobody.number());
    let ended = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url())
        .env("CONFITURE_OBSERVABILITY_OTLP_ENDPOINT", url)
        .run()
        .await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let warnings = ended.stderr.matches("the OTLP collector takes nothing").count();
    // One for metrics and one for traces.
    assert_eq!(warnings, 2, "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_nobody_up() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("unanswered").await?;
    let set = Migrations::write(&[("0001_a.up.sql", "CREATE TABLE a ()")])?;
    let up = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    up.clone().succeed().await?;
    let began = Instant::now();
    up.clone().succeed().await?;
    let alone = began.elapsed();
    // It takes connections, as the system does for it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", silent.local_addr()?);
    let began = Instant::now();
    let ended = up.env("CONFITURE_OBSERVABILITY_OTLP_ENDPOINT", url).run().await?;
    let took = began.elapsed();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Three seconds for both traces and metrics.
    assert!(
        took < alone + Duration::from_millis(4_500),
        "{took:?}, alone {alone:?}"
    );
    Ok(())
}
