//! One database of a test server, and sessions in it.

use anyhow::Context as _;
use std::ops::{Deref, DerefMut};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

/// A database; it goes away with its server.
#[derive(Debug, Clone)]
pub struct Database {
    name: String,
    url: String,
    admin_url: String,
}

impl Database {
    pub(super) fn new(name: &str, url: String, admin_url: String) -> Self {
        Self {
            name: name.to_owned(),
            url,
            admin_url,
        }
    }

    /// The same, for who comes another way.
    pub(crate) fn by_way_of(&self, url: String) -> Self {
        Self { url, ..self.clone() }
    }

    /// Its name in the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL with which Confiture connects, password included.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A session of its owner.
    pub async fn connect(&self) -> anyhow::Result<Session> {
        Session::open(&self.url).await
    }

    /// A session of the superuser.
    pub async fn admin(&self) -> anyhow::Result<Session> {
        Session::open(&self.admin_url).await
    }

    /// Runs statements as its owner.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.connect()
            .await?
            .batch_execute(sql)
            .await
            .with_context(|| format!("running {sql}"))
    }

    /// The one number that a query answers; cast it `::bigint` where it is not one.
    pub async fn number(&self, query: &str) -> anyhow::Result<i64> {
        self.connect().await?.number(query).await
    }

    /// Its server's `server_version_num`: 150018 is PostgreSQL 15.18.
    pub async fn server_version(&self) -> anyhow::Result<i64> {
        self.number("SELECT current_setting('server_version_num')::bigint")
            .await
    }
}

/// A connection of the tests' own, closed when dropped.
#[derive(Debug)]
pub struct Session {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl Session {
    /// Connects without TLS.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .context("connecting to a test database")?;
        // Its errors reach the client's calls too.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { client, connection })
    }

    /// The one number that a query answers; cast it `::bigint` where it is not one.
    pub async fn number(&self, query: &str) -> anyhow::Result<i64> {
        let row = self
            .query_one(query, &[])
            .await
            .with_context(|| format!("asking {query}"))?;
        row.try_get(0).with_context(|| format!("asking {query}"))
    }
}

impl Deref for Session {
    type Target = tokio_postgres::Client;
    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
