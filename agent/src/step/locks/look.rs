//! Reads who is in the way.

use crate::error::Error;
use crate::run::Run;
use crate::session::Session;
use shared::lock::{Blocker, Kind, Mode};
use shared::sql::{Tag, lock};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// PostgreSQL's own default.
pub(super) const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The server's `deadlock_timeout`, asked for once in a run.
pub(super) async fn deadlock_timeout(run: &mut Run<'_>, tag: &Tag) -> Result<Duration, Error> {
    if let Some(known) = run.locks.deadlock_timeout {
        return Ok(known);
    }
    let session = run.database.session().await?;
    let doing = "reading deadlock_timeout";
    let rows = session.query(tag, doing, lock::DEADLOCK_TIMEOUT, &[]).await?;
    let found = rows
        .first()
        .and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok());
    let timeout = found.map_or(DEADLOCK_TIMEOUT, Duration::from_millis);
    run.locks.deadlock_timeout = Some(timeout);
    Ok(timeout)
}

/// Who holds locks on these tables that are in the way of a mode, with transactions older than `patience`.
pub(super) async fn in_the_way(
    run: &Run<'_>,
    tag: &Tag,
    tables: &[String],
    mode: Mode,
    patience: Duration,
) -> Result<Vec<Blocker>, Error> {
    conflicting(run, tag, tables, mode.in_the_way(), patience).await
}

/// Those that keep even readers out of some tables.
pub(super) async fn keeping_readers_out(
    run: &Run<'_>,
    tag: &Tag,
    tables: &[String],
) -> Result<Vec<Blocker>, Error> {
    conflicting(run, tag, tables, &["AccessExclusiveLock"], Duration::ZERO).await
}

async fn conflicting(
    run: &Run<'_>,
    tag: &Tag,
    tables: &[String],
    modes: &'static [&'static str],
    patience: Duration,
) -> Result<Vec<Blocker>, Error> {
    let session = run.database.session().await?;
    let seconds = patience.as_secs_f64();
    let params = [
        (&tables as &(dyn ToSql + Sync), Type::TEXT_ARRAY),
        (&modes, Type::TEXT_ARRAY),
        (&seconds, Type::FLOAT8),
    ];
    let doing = "asking who is in the way";
    let rows = session.query(tag, doing, &lock::in_the_way(), &params).await?;
    Ok(rows.iter().map(blocker).collect())
}

/// Those of some tables that our role may lock as a vacuum does.
pub(super) async fn lockable(run: &Run<'_>, tag: &Tag, tables: &[String]) -> Result<Vec<String>, Error> {
    let session = run.database.session().await?;
    let params = [(&tables as &(dyn ToSql + Sync), Type::TEXT_ARRAY)];
    let doing = "asking which tables may be locked";
    let rows = session.query(tag, doing, lock::LOCKABLE, &params).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whom the statements of a step wait for.
pub(super) async fn blockers(session: &Session, tag: &Tag, start: &str) -> Result<Vec<Blocker>, Error> {
    let params = [(&start as &(dyn ToSql + Sync), Type::TEXT)];
    let doing = "asking who holds the lock";
    let rows = session.query(tag, doing, &lock::blockers(), &params).await?;
    Ok(rows.iter().map(blocker).collect())
}

/// One of those that [`lock::blockers`], [`lock::in_the_way`] and [`lock::holders`] give.
pub(crate) fn blocker(row: &Row) -> Blocker {
    Blocker {
        pid: row.get(0),
        user: row.get(1),
        application: row.get(2),
        state: row.get(3),
        age: row.get(4),
        query: row.get(5),
        kind: Kind::from_sql(row.get(6)),
    }
}
