//! A statement that PostgreSQL refuses inside a transaction and that is safe to repeat: recorded as begun, run, recorded as
//! done.
//!
//! ```text
//! no record --> begun --> (a backend of an earlier try still at it? wait) --> run --> done
//!                          ^                                                   |
//!                          +---- pause <-- its lock was taken (a rewrite) -----+
//! ```
//! A rewrite (VACUUM FULL) shuts all others out while it works; what can be done is that nobody queues up behind it
//! before it has begun.

use super::locks::Locks;
use super::transaction::LOCK_TIMEOUT;
use super::{Part, Place, record};
use crate::error::Error;
use crate::faults::{self, Point};
use crate::pooler;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use shared::migration::steps::Outside;
use shared::plan::Alone;
use shared::sql::{self, Tag};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// How often a backend of an earlier try is looked for.
const POLL: Duration = Duration::from_secs(1);

/// Sessions that work on the same step. Parameter: the step's tag up to its fence (text).
const SAME_STEP: &str = r"
SELECT count(*) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND state <> 'idle' AND pid <> pg_catalog.pg_backend_pid()
   AND pg_catalog.starts_with(query, $1)";

pub(super) async fn run(run: &mut Run<'_>, place: Place<'_>, alone: &Alone) -> Result<(), Error> {
    let tag = place.tag(run);
    if !place.has_begun() {
        record::only(run, place, Part::First).await?;
    }
    match alone.outside {
        Outside::Weak => {
            let session = run.database.direct_session().await?;
            attempt(run, place, &tag, &session, &alone.statement).await?;
        }
        // On the heap: few runs rewrite a table, and every run's future would have room for it.
        Outside::Rewrite => Box::pin(rewrite(run, place, &tag, alone)).await?,
    }
    faults::reach(Point::AfterChange).await?;
    record::only(run, place, Part::Last).await
}

/// Tries until it gets its lock, or the budget for that is spent.
async fn rewrite(run: &mut Run<'_>, place: Place<'_>, tag: &Tag, alone: &Alone) -> Result<(), Error> {
    let mut locks = Locks::alone(run, place, tag, alone).await?;
    loop {
        let turn = locks.turn(run, tag).await?;
        let limit = format!(
            "-c lock_timeout={}ms -c statement_timeout=0",
            turn.length.as_millis()
        );
        let session = run.database.own_session_with(&limit).await?;
        let session = session.ok_or_else(|| pooler::needs_own_session(&place.todo.place_of(place.index)))?;
        if let Some((lock, patience)) = &turn.aside {
            send_away(&session, tag, lock, *patience).await?;
        }
        let began = Instant::now();
        let tried = Box::pin(attempt(run, place, tag, &session, &alone.statement));
        let (tried, seen) = Locks::watched(run, tag, tried).await;
        let taken = matches!(&tried, Err(error) if error.sqlstate() == Some(LOCK_TIMEOUT));
        run.locks.saw(&seen, taken.then(|| began.elapsed()));
        match tried {
            Err(_) if taken => {
                locks
                    .taken(run, tag, &turn, began.elapsed(), seen.blockers)
                    .await?;
            }
            ended => {
                run.locks.got(&seen);
                run.control.recorder.tried(began.elapsed(), true);
                return ended;
            }
        }
    }
}

/// PostgreSQL's own vacuums give way to who waits for longer than they are asked to; nobody stands behind this wait.
async fn send_away(session: &Session, tag: &Tag, lock: &str, patience: Duration) -> Result<(), Error> {
    let limit = sql::lock_timeout(patience);
    let text = format!("{tag}BEGIN; {limit}; {tag}{lock}; ROLLBACK");
    match session.client().batch_execute(&text).await {
        Ok(()) => Ok(()),
        // They are still there: the try that follows finds out whether that matters.
        Err(_) => session
            .client()
            .batch_execute("ROLLBACK")
            .await
            .map_err(Error::statement("waiting for a vacuum")),
    }
}

/// Runs the statement, once no backend of an earlier try is at it and if the fence is ours.
async fn attempt(
    run: &Run<'_>,
    place: Place<'_>,
    tag: &Tag,
    session: &Session,
    statement: &str,
) -> Result<(), Error> {
    wait_for_earlier(run, session, tag).await?;
    run.check_fence(tag).await?;
    let done = session.client().batch_execute(&format!("{tag}{statement}")).await;
    done.map_err(|error| user_error::of(&error, statement, 0, tag, place))
}

async fn wait_for_earlier(run: &Run<'_>, session: &Session, tag: &Tag) -> Result<(), Error> {
    let text = tag.to_string();
    let start = text.split("f=").next().unwrap_or_default();
    loop {
        let rows = session
            .query(
                &run.claim.tag(),
                "looking for an earlier try",
                SAME_STEP,
                &[(&start, Type::TEXT)],
            )
            .await?;
        if rows.first().is_none_or(|row| row.get::<_, i64>(0) == 0) {
            return Ok(());
        }
        run.stoppable(POLL).await?;
    }
}
