//! The services that are there before: each has a database with its own schema, made by its own migrations.

use tests::fleet::Member;
use tests::migrations::Migrations;
use tests::postgres::Server;
use tests::process::Confiture;

/// A service: the name of its database and of its main table, and what the table holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    name: &'static str,
    columns: &'static str,
}

const fn service(name: &'static str, columns: &'static str) -> Service {
    Service { name, columns }
}

/// Which services live on which server.
pub(crate) const SERVERS: [[Service; 4]; 3] = [
    [
        service("orders", "customer text, placed_at timestamptz"),
        service("billing", "invoice text, due date"),
        service("shipping", "parcel uuid, weight_kg numeric"),
        service("returns", "parcel uuid, reason text"),
    ],
    [
        service("users", "email text, verified boolean"),
        service("sessions", "token text, expires_at timestamptz"),
        service("consents", "purpose text, given_at timestamptz"),
        service("messages", "recipient text, body text"),
    ],
    [
        service("catalog", "title text, tags text[]"),
        service("stock", "warehouse text, pieces integer"),
        service("prices", "currency text, valid_from date"),
        service("reviews", "stars smallint, comment text"),
    ],
];

impl Service {
    /// Rows of each service's `events`: 1,200,000 in all.
    pub(crate) const ROWS: i64 = 100_000;

    /// Its own set of migrations.
    fn history(self) -> anyhow::Result<Migrations> {
        let Self { name, columns } = self;
        Migrations::write(&[
            ("confiture.set.yaml", &format!("set: {name}\n")),
            (
                "0001_tables.up.sql",
                &format!(
                    "CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns});
                     CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, net_cents bigint NOT NULL);"
                ),
            ),
            ("0002_event_kinds.up.sql", "ALTER TABLE events ADD COLUMN kind text NOT NULL DEFAULT 'created';"),
        ])
    }
}

/// Creates the databases of these services on a server, one after the other.
pub(crate) async fn prepare(server: &Server, services: [Service; 4]) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    for service in services {
        let database = server.database(service.name).await?;
        let history = service.history()?;
        let up = Confiture::new(["migrate", "up", "--migrations"]).arg(history.path());
        up.env("DATABASE_URL", database.url()).succeed().await?;
        let rows = Service::ROWS;
        database
            .execute(&format!(
                "INSERT INTO events (net_cents) SELECT g % 9973 FROM generate_series(1, {rows}) g"
            ))
            .await?;
        members.push(Member::new(service.name, database));
    }
    Ok(members)
}

/// Rows that the fleet-wide set has changed so far.
pub(crate) async fn changed_rows(member: &Member) -> anyhow::Result<i64> {
    member
        .database
        .number("SELECT count(*) FROM events WHERE changes = 1")
        .await
}
