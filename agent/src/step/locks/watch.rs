//! Watches the lock queue while a try of ours may stand in it.

use super::look;
use crate::error::Error;
use crate::run::Run;
use crate::session::Session;
use shared::lock::Blocker;
use shared::sql::{Tag, lock};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};

/// How often: what others wait is known as exactly.
const INTERVAL: Duration = Duration::from_millis(20);

/// When the first look is taken where a connection has to be opened for it: that costs the server more than most tries,
/// and whoever was behind is taken to have been there from the try's begin.
const FIRST_BY_A_NEW_CONNECTION: Duration = Duration::from_millis(100);

/// How often it is asked whom we wait for: each question locks the lock table for a moment.
const ASK: Duration = Duration::from_millis(150);

/// What was seen of the queue during one try.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long our statement waited.
    pub(crate) waited: Duration,
    /// For whom, at the last look.
    pub(crate) blockers: Vec<Blocker>,
    /// When others waited behind it, as time since the run began.
    pub(crate) spells: Vec<(Duration, Duration)>,
    /// Whether the queue could be looked at.
    pub(crate) looked: bool,
    behind: bool,
    last: Duration,
    asked: Option<Instant>,
}

/// Carries `attempt` out and watches the queue until it has ended.
pub(super) async fn beside<T>(run: &Run<'_>, tag: &Tag, attempt: impl Future<Output = T>) -> (T, Seen) {
    let mut seen = Seen {
        last: run.locks.now(),
        ..Seen::default()
    };
    let done = tokio::select! {
        biased;
        done = attempt => done,
        never = watch(run, tag, &mut seen) => match never {},
    };
    if seen.behind {
        seen.spells.push((seen.last, run.locks.now()));
    }
    (done, seen)
}

async fn watch(run: &Run<'_>, tag: &Tag, seen: &mut Seen) -> Infallible {
    let start = tag.to_string();
    tokio::time::sleep(INTERVAL).await;
    if !run.database.has_idle_connection() {
        tokio::time::sleep(FIRST_BY_A_NEW_CONNECTION.saturating_sub(INTERVAL)).await;
    }
    loop {
        // What cannot be seen now may be seen with the next look.
        if let Ok(session) = run.database.session().await {
            while look(run, &session, &start, seen).await.is_ok() {
                tokio::time::sleep(INTERVAL).await;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(run: &Run<'_>, session: &Session, start: &str, seen: &mut Seen) -> Result<(), Error> {
    let tag = run.claim.tag();
    let params = [(&start as &(dyn ToSql + Sync), Type::TEXT)];
    let rows = session
        .query(&tag, "looking at the lock queue", lock::QUEUE, &params)
        .await?;
    let row = rows
        .first()
        .ok_or(Error::Broken("the lock queue gave no answer"))?;
    let (waits, behind): (bool, i64) = (row.get(0), row.get(1));
    let (last, now) = (seen.last, run.locks.now());
    (seen.last, seen.looked, seen.behind) = (now, true, behind > 0);
    if seen.behind {
        seen.spells.push((last, now));
    }
    if waits {
        seen.waited += now.saturating_sub(last);
        if seen.asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            seen.asked = Some(Instant::now());
            let blockers = look::blockers(session, &tag, start).await?;
            if !blockers.is_empty() {
                seen.blockers = blockers;
            }
        }
    }
    Ok(())
}
