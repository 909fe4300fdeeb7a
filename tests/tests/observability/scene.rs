//! A small fleet that is watched.

use serde_json::{Value, json};
use std::time::Duration;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::port::Port;
use tests::postgres::Server;
use tests::process::Confiture;

pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const LONG: Duration = Duration::from_mins(2);

/// The databases of the scene.
pub(crate) const DATABASES: [&str; 2] = ["orders", "users"];

/// A coordinator, an agent, and two databases of 60,000 rows each.
pub(crate) struct Scene {
    pub(crate) coordinator: Coordinator,
    pub(crate) agent: Agent,
    /// Where they serve their metrics.
    pub(crate) ports: [Port; 2],
    pub(crate) members: Vec<Member>,
    _server: Server,
}

/// Serves metrics on this port of this machine.
pub(crate) fn on(port: &Port) -> Value {
    json!({ "enabled": true, "address": "127.0.0.1", "port": port.number() })
}

impl Scene {
    /// With metrics, and traces for a collector where there is one.
    pub(crate) async fn start(collector: Option<&str>) -> anyhow::Result<Self> {
        Self::start_with(collector, |_| {}).await
    }

    /// With a coordinator whose settings are changed first.
    pub(crate) async fn start_with(
        collector: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        let server = Server::start().await?;
        let members = members(&server, &DATABASES).await?;
        for member in &members {
            member
                .database
                .execute(
                    "CREATE TABLE items (id bigint PRIMARY KEY, net numeric NOT NULL, gross numeric);
                     INSERT INTO items SELECT g, g FROM generate_series(1, 60000) g",
                )
                .await?;
        }
        let ports = [Port::claim()?, Port::claim()?];
        let observed = |port: &Port| {
            let mut settings = json!({ "prometheus": on(port) });
            if let Some(url) = collector {
                settings["otlp"] = json!({ "endpoint": url });
            }
            move |of: &mut Value| of["observability"] = settings
        };
        // Metrics go to the collector every minute where nobody says otherwise.
        let program = Confiture::default().env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
        let store = "file:./confiture.redb";
        let watched = observed(&ports[0]);
        let settings = |of: &mut Value| {
            watched(of);
            change(of);
        };
        let coordinator = Coordinator::start_program(&program, "coordinator", store, settings).await?;
        let url = coordinator.url();
        let agent = Agent::start_program(&program, "agent-a", &[&url], &members, observed(&ports[1]))?;
        coordinator.wait_for_databases(&DATABASES).await?;
        Ok(Self {
            coordinator,
            agent,
            ports,
            members,
            _server: server,
        })
    }
}

/// A column, and a backfill that takes some thirteen seconds.
pub(crate) fn slow_set() -> anyhow::Result<Migrations> {
    Migrations::write(&[
        ("0001_note.up.sql", "ALTER TABLE items ADD COLUMN note text"),
        (
            "0002_gross.yaml",
            "up:\n  - backfill: { table: items, set: { gross: net * 1.2 }, where: gross IS NULL, sync: none, batch: { size: 1000, pause: 1s } }\n",
        ),
    ])
}
