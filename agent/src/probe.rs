//! Reads how a server is, for the law that sets the pace of batches (`shared::batch`).
//!
//! A probe is one short transaction on a connection of its own or between two batches, never inside one: it must answer
//! while a batch waits. It asks for no privilege; what its role may not see is not known.

use crate::database::Database;
use crate::error;
use crate::session::{Params, Session};
use serde::Deserialize;
use shared::batch::{Health, Sample};
use shared::sql::health::{self, Archive, Server};
use shared::sql::{Commit, Limits, Tag};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A probe waits for no lock but that of a catalog being rewritten, and its answer is of no use later.
const LIMITS: Limits = Limits {
    lock: Duration::from_millis(200),
    statement: Some(Duration::from_secs(2)),
    commit: Commit::Deferred,
};

/// How long a probe takes at most, the way to the server included, and as long again for a connection: a frozen server
/// keeps no limit of its own.
const PATIENCE: Duration = Duration::from_secs(3);

const DOING: &str = "reading the server's health";
const ASKING: &str = "the operator's query";

/// Probes one database's server.
#[derive(Debug, Clone)]
pub struct Probe {
    tag: Tag,
    relations: Vec<u32>,
    operator: Option<String>,
    /// Known once it was asked; asked again after a failure, which may have been a failover.
    server: Option<Server>,
}

/// What the caller knows better than a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// How long the last small durable commit took: batches commit without waiting for the disk, and a probe writes nothing.
    pub commit_latency: Option<Duration>,
    /// Who waits for a connection of the database's pool.
    pub pool_waiters: Option<u32>,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("no answer within {}", error::shown(*.0))]
    Late(Duration),
    /// The connection or a statement failed, the operator's query included.
    #[error(transparent)]
    Database(#[from] error::Error),
    /// The server's answer is not what was asked for.
    #[error("the server's answer cannot be read")]
    Answer(#[source] serde_json::Error),
    /// The server answered with no row.
    #[error("the server's answer is empty")]
    Empty,
    /// The operator's query gave something else.
    #[error("the operator's query gives no number and no boolean")]
    NoNumber,
}

impl Error {
    /// As the pace takes it: unhealthy, with the reason in one line.
    pub fn health(&self) -> Health {
        let text = self.to_string();
        Health::probe_failed(text.lines().next().unwrap_or_default())
    }
}

impl Probe {
    /// For the tables (oids, those of partitions too) that are at work; `operator` is a query that gives one value, a number
    /// or a boolean, and stops the work while it is above zero or true.
    pub fn new(tag: Tag, relations: Vec<u32>, operator: Option<String>) -> Self {
        Self {
            tag,
            relations,
            operator,
            server: None,
        }
    }

    /// Probes over a connection of the database's pool.
    ///
    /// # Errors
    /// When there is no connection or no answer in time, or the answer is an error.
    pub async fn sample(&mut self, database: &Database, known: Known) -> Result<Sample, Error> {
        let session = tokio::time::timeout(PATIENCE, database.session()).await;
        let mut session = session.map_err(|_elapsed| Error::Late(PATIENCE))??;
        self.sample_by(&mut session, known).await
    }

    /// The same, over a connection that is there. After an error it may be in doubt: ask whether it is usable.
    ///
    /// # Errors
    /// When there is no answer in time, or it is an error.
    pub(crate) async fn sample_by(&mut self, session: &mut Session, known: Known) -> Result<Sample, Error> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(session)).await;
        let sample = asked.unwrap_or(Err(Error::Late(PATIENCE)));
        if sample.is_err() {
            self.server = None;
        }
        Ok(Sample {
            commit_latency: known.commit_latency,
            pool_waiters: known.pool_waiters,
            ..sample?
        })
    }

    async fn ask(&mut self, session: &mut Session) -> Result<Sample, Error> {
        let answer = self.ask_in_transaction(session).await;
        session.rollback(&self.tag).await;
        answer
    }

    async fn ask_in_transaction(&mut self, session: &mut Session) -> Result<Sample, Error> {
        let started = Instant::now();
        let relations: Params<'_> = &[(&self.relations, Type::OID_ARRAY)];
        let rows = if let Some(server) = self.server {
            let probe = health::probe(server);
            session
                .begin_with(&self.tag, LIMITS, DOING, &probe, relations)
                .await?
        } else {
            let rows = session
                .begin_with(&self.tag, LIMITS, DOING, health::SERVER, &[])
                .await?;
            let server = server(rows.first().ok_or(Error::Empty)?);
            self.server = Some(server);
            session
                .query(&self.tag, DOING, &health::probe(server), relations)
                .await?
        };
        let took = started.elapsed();
        let row = rows.first().ok_or(Error::Empty)?;
        let answer: Answer = serde_json::from_str(row.get(0)).map_err(Error::Answer)?;
        let operator = match &self.operator {
            Some(query) => self.ask_operator(session, query).await?,
            None => None,
        };
        Ok(answer.sample(took, operator))
    }

    /// The operator's answer as a number; nothing where it is NULL.
    async fn ask_operator(&self, session: &Session, query: &str) -> Result<Option<f64>, Error> {
        session.execute(&self.tag, ASKING, health::READ_ONLY, &[]).await?;
        let rows = session
            .query(&self.tag, ASKING, &health::operator(query), &[])
            .await?;
        let answer: Option<String> = rows.first().and_then(|row| row.get(0));
        answer.as_deref().map(number).transpose()
    }
}

/// As [`health::SERVER`] gives it.
fn server(row: &Row) -> Server {
    Server {
        version: row.get(0),
        archive: match row.get::<_, Option<bool>>(1) {
            None => Archive::Off,
            Some(true) => Archive::Readable,
            Some(false) => Archive::Hidden,
        },
    }
}

/// A number, or a boolean as PostgreSQL writes it.
fn number(answer: &str) -> Result<f64, Error> {
    match answer {
        "true" => Ok(1.0),
        "false" => Ok(0.0),
        number => number.parse().map_err(|_| Error::NoNumber),
    }
}

/// As [`health::probe`] gives it.
#[derive(Deserialize)]
struct Answer {
    replica_lag_ms: Option<u64>,
    replica_bytes: Option<u64>,
    slot_bytes: Option<u64>,
    lock_wait_ms: Option<u64>,
    active: Option<u32>,
    company: Option<u32>,
    commit_waiters: Option<u32>,
    wal_bytes: Option<u64>,
    max_wal_bytes: Option<u64>,
    checkpoints: Option<u64>,
    archive_failing: Option<bool>,
    archive_files: Option<u64>,
    vacuums: Option<u32>,
    oldest_snapshot_ms: Option<u64>,
}

impl Answer {
    fn sample(self, took: Duration, operator: Option<f64>) -> Sample {
        let time = |ms: Option<u64>| ms.map(Duration::from_millis);
        Sample {
            took: Some(took),
            replica_lag: time(self.replica_lag_ms),
            replica_bytes: self.replica_bytes,
            slot_bytes: self.slot_bytes,
            lock_wait: time(self.lock_wait_ms),
            active: self.active,
            company: self.company,
            commit_waiters: self.commit_waiters,
            commit_latency: None,
            wal_bytes: self.wal_bytes,
            wal_recent_bytes: None,
            max_wal_bytes: self.max_wal_bytes,
            checkpoints: self.checkpoints,
            archive_failing: self.archive_failing,
            archive_files: self.archive_files,
            vacuums: self.vacuums,
            oldest_snapshot: time(self.oldest_snapshot_ms),
            pool_waiters: None,
            operator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_may_answer_with_a_number_or_a_boolean() {
        for (text, expected) in [
            ("0", 0.0),
            ("1.5", 1.5),
            ("1e3", 1_000.0),
            ("true", 1.0),
            ("false", 0.0),
        ] {
            assert!((number(text).unwrap() - expected).abs() < 1e-9, "{text}");
        }
        assert!(matches!(number("many"), Err(Error::NoNumber)));
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        let health = Error::Late(PATIENCE).health();
        assert_eq!(
            health.worst.unwrap().to_string(),
            "the probe failed: no answer within 3.0 s"
        );
    }
}
