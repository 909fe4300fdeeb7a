//! One statement outside a transaction: on a connection that nothing cuts off, watched over another one.
//!
//! What it may wait for other sessions, in all, is a budget. A run that is asked to stop leaves a build to the server,
//! where the next run finds and adopts it.

use super::observe;
use crate::error::Error;
use crate::run::Run;
use crate::session::Session;
use shared::index::{Blocker, Worker};
use shared::plan::Refusal;
use shared::sql::{Tag, index as texts};
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// How often it is looked at.
const POLL: Duration = Duration::from_secs(1);

/// How long a statement that was cancelled may take to end, and dropping what it left.
const CLEANING: Duration = Duration::from_secs(10);

/// How a statement ended.
pub(super) enum Ended {
    /// As it should.
    Done,
    /// With an error of the server or of the connection.
    Failed(tokio_postgres::Error),
    /// Its waits used the budget up; it was cancelled.
    Waited {
        /// For whom it waited last.
        who: String,
    },
}

/// What is watched.
pub(super) struct Watched<'a> {
    pub(super) tag: &'a Tag,
    /// What the names of its indexes begin with.
    pub(super) starts: &'a [String],
    /// How long it may wait for other sessions, in all.
    pub(super) wait: Duration,
    /// What is said before how far it is; empty where the step says all.
    pub(super) about: &'a str,
}

/// Runs a statement to its end, if the fence is ours.
pub(super) async fn run(run: &Run<'_>, watched: &Watched<'_>, statement: &str) -> Result<Ended, Error> {
    let session = unlimited(run, watched.tag).await?;
    run.check_fence(watched.tag).await?;
    to_its_end(run, watched, session, statement).await
}

/// Drops an index, if the fence is ours. One that is gone by now was dropped by whoever replaced us, or by hand.
pub(super) async fn drop_index(run: &Run<'_>, watched: &Watched<'_>, index: &str) -> Result<Ended, Error> {
    let ended = self::run(run, watched, &texts::drop(index)).await?;
    Ok(match ended {
        Ended::Failed(error) if is_gone(&error) => Ended::Done,
        ended => ended,
    })
}

/// Whether a statement failed because its index is not there any more.
pub(super) fn is_gone(error: &tokio_postgres::Error) -> bool {
    let gone = [SqlState::UNDEFINED_OBJECT, SqlState::UNDEFINED_TABLE];
    error.code().is_some_and(|code| gone.contains(code))
}

/// Drops what we built too late, after we were replaced and somebody else's was published: its name says that it is ours
/// alone, so no fence is asked for.
pub(super) async fn drop_orphan(run: &Run<'_>, watched: &Watched<'_>, index: &str) -> Result<Ended, Error> {
    let session = unlimited(run, watched.tag).await?;
    to_its_end(run, watched, session, &texts::drop(index)).await
}

async fn to_its_end(
    run: &Run<'_>,
    watched: &Watched<'_>,
    mut session: Session,
    statement: &str,
) -> Result<Ended, Error> {
    let text = format!("{}{statement}", texts::BuildTag(watched.tag));
    let mut work = std::pin::pin!(session.outside(&text));
    let over = tokio::select! {
        done = &mut work => return Ok(ended(done)),
        over = watch(run, watched, Until::Over) => over?,
    };
    // Its end comes soon, or the connection is closed.
    match tokio::time::timeout(CLEANING, work).await {
        Ok(Ok(())) => Ok(Ended::Done),
        Ok(Err(_cancelled)) => Ok(Ended::Waited { who: over }),
        Err(_elapsed) => Ok(Ended::Waited { who: over }),
    }
}

fn ended(done: Result<(), tokio_postgres::Error>) -> Ended {
    match done {
        Ok(()) => Ended::Done,
        Err(error) => Ended::Failed(error),
    }
}

/// Waits until no backend of an earlier try is at work any more. Gives for whom they waited when the budget was used up
/// and they were cancelled.
pub(super) async fn adopt(run: &Run<'_>, watched: &Watched<'_>) -> Result<Option<String>, Error> {
    tracing::info!(database = %run.database.name(), "a build of an earlier run is still at work: it is adopted");
    let who = watch(run, watched, Until::Gone).await?;
    Ok((!who.is_empty()).then_some(who))
}

/// Ends a backend's statement, if it is still that.
pub(super) async fn cancel(run: &Run<'_>, tag: &Tag, worker: &Worker) -> Result<(), Error> {
    let session = run.database.session().await?;
    session
        .query(
            tag,
            "cancelling a build",
            texts::CANCEL,
            &[(&worker.pid, Type::INT4), (&worker.statement, Type::TEXT)],
        )
        .await
        .map(drop)
}

/// Drops what a failed statement left, in a short time: whether it could be.
pub(super) async fn clean(run: &Run<'_>, watched: &Watched<'_>, index: &str) -> bool {
    let soon = Watched {
        wait: CLEANING,
        ..*watched
    };
    match drop_index(run, &soon, index).await {
        Ok(Ended::Done) => true,
        Ok(Ended::Failed(_) | Ended::Waited { .. }) | Err(_) => false,
    }
}

/// When watching ends by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// When nobody is at work any more.
    Gone,
    /// Only when the budget is used up.
    Over,
}

/// Looks once a second; gives for whom was waited when the budget was used up, and nothing when all are gone.
async fn watch(run: &Run<'_>, watched: &Watched<'_>, until: Until) -> Result<String, Error> {
    let (mut waited, mut last) = (Duration::ZERO, Instant::now());
    let mut blocker: Option<Blocker> = None;
    loop {
        run.stoppable(POLL).await?;
        let workers = {
            let session = run.database.session().await;
            match session {
                Ok(session) => observe::workers(&session, watched.tag, watched.starts).await,
                Err(error) => Err(error),
            }
        };
        let workers = match (workers, until) {
            (Ok(workers), _) => workers,
            (Err(error), Until::Gone) => return Err(error),
            // What cannot be seen now may be seen with the next look.
            (Err(_), Until::Over) => continue,
        };
        let Some((worker, progress)) = workers.first() else {
            if until == Until::Gone {
                return Ok(String::new());
            }
            continue;
        };
        let passed = last.elapsed();
        last = Instant::now();
        run.report(|report| report.pace = format!("{}{progress}", watched.about));
        if !progress.waits {
            continue;
        }
        waited += passed;
        blocker = progress.blocker.clone().or(blocker);
        if waited >= watched.wait {
            for (worker, _) in &workers {
                cancel(run, watched.tag, worker).await?;
            }
            tracing::info!(pid = worker.pid, "a statement that waited too long was cancelled");
            return Ok(blocker.map_or_else(
                || "for whom could not be seen".to_owned(),
                |blocker| blocker.without_values(),
            ));
        }
    }
}

/// A connection on which nothing cuts a long statement off.
async fn unlimited(run: &Run<'_>, tag: &Tag) -> Result<Session, Error> {
    let session = run.database.direct_session().await?;
    must_be_unlimited(&session, tag).await?;
    Ok(session)
}

/// Passes a connection on which nothing cuts a long statement off.
pub(crate) async fn must_be_unlimited(session: &Session, tag: &Tag) -> Result<(), Error> {
    let rows = session
        .query(tag, "asking for the session's limits", texts::TIMEOUTS, &[])
        .await?;
    let row = rows.first().ok_or(Error::Broken("the session has no limits"))?;
    let limits: [&str; 2] = [row.get(0), row.get(1)];
    if limits == ["0", "0"] {
        return Ok(());
    }
    Err(Error::Refused(Refusal::Unsafe {
        what: format!(
            "an index cannot be built here: sessions of this role have lock_timeout = {} and statement_timeout = {}, which would break the build off and leave an invalid index",
            limits[0], limits[1]
        ),
        advice: Some(
            "behind a pooler they cannot be changed for one session: give the database a `direct_url` past the pooler, or let the role have 0 for both (ALTER ROLE .. SET)"
                .to_owned(),
        ),
    }))
}
