//! What one database looks like: the versions in its ledger and the shape of its schema, at one moment.
//!
//! Reads the catalog in a transaction that changes nothing, with short limits: whatever PostgreSQL locks to write out a view
//! or a default, nobody waits for it long, and it gives up soon where a table is locked.

use crate::database::Database;
use crate::error::Error;
use crate::session::Session;
use shared::sql::{Commit, Limits, Tag, schema as texts};
use shared::survey::schema::Part;
use shared::survey::{Detail, Schema, Survey, Versions};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// A table that is being changed is locked for longer; then the database is asked again later.
const LIMITS: Limits = Limits {
    lock: Duration::from_millis(200),
    statement: Some(Duration::from_secs(10)),
    commit: Commit::Deferred,
};

/// The most parts of one schema, names and definitions together, that are sent in one message.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// It claims nothing.
const TAG: Tag = Tag::OF_NO_RUN;

const DOING: &str = "reading the schema";

/// Surveys a database; the error is for people.
pub(crate) async fn survey(database: &Database, detail: Detail) -> Result<Survey, String> {
    let (sets, schema) = read(database).await.map_err(|error| problem(&error))?;
    let fingerprint = schema.fingerprint();
    let schema = match detail {
        Detail::Fingerprint => None,
        Detail::Schema => Some(sendable(schema)?),
    };
    Ok(Survey {
        fingerprint,
        sets,
        schema,
    })
}

fn sendable(schema: Schema) -> Result<Schema, String> {
    let bytes = |part: Part| part.object.len() + part.part.len() + part.definition.len();
    let all: usize = schema.parts().map(bytes).sum();
    if all > MOST_BYTES {
        return Err(format!(
            "its schema is described by {all} bytes, and at most {MOST_BYTES} are sent: compare it with pg_dump --schema-only"
        ));
    }
    Ok(schema)
}

async fn read(database: &Database) -> Result<(Vec<Versions>, Schema), Error> {
    let mut session = database.session().await?;
    session.begin_reading(&TAG, LIMITS, DOING).await?;
    let read = read_in(&session).await;
    session.rollback(&TAG).await;
    read
}

async fn read_in(session: &Session) -> Result<(Vec<Versions>, Schema), Error> {
    let sets = read_versions(session).await?;
    let mut parts = Vec::new();
    for text in [texts::plain(), texts::locking()] {
        for row in session.query(&TAG, DOING, &text, &[]).await? {
            parts.push(Part {
                object: row.get(0),
                part: row.get(1),
                definition: row.get(2),
            });
        }
    }
    Ok((sets, parts.into_iter().collect()))
}

async fn read_versions(session: &Session) -> Result<Vec<Versions>, Error> {
    let doing = "reading the ledger";
    let there = session.query(&TAG, doing, texts::HAS_LEDGER, &[]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(Vec::new());
    }
    let mut sets: Vec<Versions> = Vec::new();
    for row in session.query(&TAG, doing, texts::VERSIONS, &[]).await? {
        let set: String = row.get(0);
        if sets.last().is_none_or(|last| last.set != set) {
            sets.push(Versions {
                set,
                ..Versions::default()
            });
        }
        if let Some(versions) = sets.last_mut() {
            let list = if row.get(2) {
                &mut versions.partial
            } else {
                &mut versions.applied
            };
            list.push(row.get(1));
        }
    }
    Ok(sets)
}

/// Why it could not be surveyed.
fn problem(error: &Error) -> String {
    match error {
        Error::Statement { source, .. } if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            "a table of it is locked at the moment, most likely since its schema is being changed: ask again"
                .to_owned()
        }
        error => error.failure().message,
    }
}
