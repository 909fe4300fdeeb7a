//! A VACUUM between two batches, where the author asks for it: by the worker whose batch made it due, on a connection of
//! its own, outside any transaction. The law is in `shared::batch`.
//!
//! It is no part of the step: whatever becomes of it, the batches go on. It ends early when the loop stops, when the pace
//! does, and when a session of others waits for its lock.

use super::batch::ROWS_PER_BLOCK;
use super::worker::Shared;
use crate::error::Error;
use crate::session::{Params, Session};
use shared::batch::{Need, Sample, Vacuum, vacuum_delay, vacuum_gives_way};
use shared::fence::Fence;
use shared::plan::{Batches, Part};
use shared::sql::{Tag, vacuum as texts};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// How long it waits for its lock. Shorter than `deadlock_timeout`, after which an autovacuum that has it would give way.
const LOCK: Duration = Duration::from_millis(300);

/// How often one that is to end is told so, and how many times.
const TELL_AGAIN: Duration = Duration::from_millis(250);
const TELLINGS: u32 = 20;

const DOING: &str = "vacuuming";

/// Whom a VACUUM meets; what is not known is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others {
    /// When their oldest snapshot began.
    oldest_snapshot: Option<Instant>,
    /// The longest wait for a lock of ours.
    lock_wait: Option<Duration>,
}

impl Others {
    pub(super) fn of(sample: &Sample, now: Instant) -> Self {
        let age = sample.oldest_snapshot.filter(|age| !age.is_zero());
        Self {
            oldest_snapshot: age.and_then(|age| now.checked_sub(age)),
            lock_wait: sample.lock_wait,
        }
    }
}

/// The vacuums of one loop.
pub(super) struct Vacuums {
    started: Instant,
    state: Mutex<State>,
}

struct State {
    /// By oid; a relation that is not vacuumed has none.
    relations: BTreeMap<u32, Vacuum>,
    done: u64,
    /// Somebody was told that there is none, or that one failed.
    told: bool,
}

/// How one ended.
enum End {
    /// It is done.
    Done,
    /// It was ended early.
    Ended(&'static str),
    /// There is none of this relation, for this reason.
    Never(&'static str),
}

impl Vacuums {
    pub(super) fn of(batches: &Batches, told: bool) -> Self {
        let relations = (batches.pacing.vacuum.into_iter())
            .flat_map(|share| batches.parts.iter().map(move |part| (share, part)))
            .map(|(share, part)| {
                let rows = match part.estimated_rows {
                    0 => part.blocks.saturating_mul(ROWS_PER_BLOCK),
                    rows => rows,
                };
                (part.oid, Vacuum::new(share, rows, Duration::ZERO))
            });
        Self {
            started: Instant::now(),
            state: Mutex::new(State {
                relations: relations.collect(),
                done: 0,
                told,
            }),
        }
    }

    /// How many were done, and whether somebody was told why there is none.
    pub(super) fn ended(&self) -> (u64, bool) {
        let state = self.state();
        (state.done, state.told)
    }

    /// A batch that changed so many rows was committed.
    pub(super) fn changed(&self, part: &Part, rows: u64) {
        if let Some(vacuum) = self.state().relations.get_mut(&part.oid) {
            vacuum.changed(rows);
        }
    }

    /// Whether a relation is to be vacuumed by the caller, who then says how that ended.
    fn begin(&self, part: &Part, others: Others) -> bool {
        let oldest = (others.oldest_snapshot).map(|at| at.saturating_duration_since(self.started));
        let now = self.started.elapsed();
        let mut state = self.state();
        let Some(vacuum) = state.relations.get_mut(&part.oid) else {
            return false;
        };
        match vacuum.need(oldest, now) {
            Need::None => false,
            Need::Useless => {
                tracing::debug!(
                    relation = part.full_name(),
                    "no vacuum: an older snapshot keeps all dead rows"
                );
                false
            }
            Need::Now => {
                vacuum.begin(now);
                true
            }
        }
    }

    /// Says how it ended after so long: a first time so that it is seen.
    fn end(&self, shared: &Shared<'_, '_>, part: &Part, end: &Result<End, Error>, took: Duration) {
        let now = self.started.elapsed();
        let mut state = self.state();
        let database = shared.run.database.name();
        let relation = part.full_name();
        let recorder = &shared.run.control.recorder;
        let why = match end {
            Ok(End::Done) => {
                recorder.vacuumed(took, String::new());
                tracing::debug!(database = %database, relation, "vacuumed");
                state.done += 1;
                if let Some(vacuum) = state.relations.get_mut(&part.oid) {
                    vacuum.done(now);
                }
                return;
            }
            Ok(End::Never(why)) => {
                state.relations.remove(&part.oid);
                (*why).to_owned()
            }
            Ok(End::Ended(why)) => (*why).to_owned(),
            Err(error) => error.to_string(),
        };
        if !matches!(end, Ok(End::Never(_))) {
            recorder.vacuumed(took, why.clone());
        }
        if let Some(vacuum) = state.relations.get_mut(&part.oid) {
            vacuum.failed(now);
        }
        let is_ordinary = match end {
            Ok(End::Done | End::Ended(_)) => true,
            Ok(End::Never(_)) => false,
            // A lock was not to be had, or an operator ended it.
            Err(error) => matches!(error.sqlstate(), Some("55P03" | "57014")),
        };
        if is_ordinary || state.told {
            tracing::debug!(database = %database, relation, why, "no vacuum between batches");
        } else {
            state.told = true;
            tracing::warn!(database = %database, relation, why, "no vacuum between batches");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while it is locked, save for a lack of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Vacuums a relation where that is due, and the pace allows it. The worker's rest comes after it.
pub(super) async fn when_due(shared: &Shared<'_, '_>, part: &Part) {
    if shared.pacer.is_stopped() || !shared.vacuums.begin(part, shared.pacer.others()) {
        return;
    }
    let began = Instant::now();
    let end = vacuum(shared, part).await;
    shared.vacuums.end(shared, part, &end, began.elapsed());
}

async fn vacuum(shared: &Shared<'_, '_>, part: &Part) -> Result<End, Error> {
    let database = shared.run.database;
    let server_version = shared.batches.server_version;
    // No fence: it is no work of a holder, and one that outlives its program must not pass for it.
    let tag = Tag {
        fence: Fence::NONE,
        ..shared.tag.clone()
    };
    {
        let session = database.session().await?;
        let relation: Params<'_> = &[(&part.oid, Type::OID)];
        let rows = session
            .query(&tag, DOING, &texts::allowed(server_version), relation)
            .await?;
        match rows.first().map(|row| row.get::<_, bool>(0)) {
            Some(true) => {}
            Some(false) => {
                return Ok(End::Never(
                    "our role may not vacuum the table: only its owner may",
                ));
            }
            None => return Ok(End::Never("the relation is gone")),
        }
    }
    let delay = vacuum_delay(shared.batches.pacing.max_duty, shared.pacer.duty());
    let options = texts::options(LOCK, delay);
    let Some(session) = database.own_session_with(&options).await? else {
        return Ok(End::Never(
            "the connection goes through a pooler, so its settings would be those of others: set `direct_url`",
        ));
    };
    let rows = session.query(&tag, DOING, texts::BACKEND, &[]).await?;
    let backend: i32 = (rows.first())
        .ok_or(Error::Broken("the session does not know itself"))?
        .get(0);
    if session
        .execute(&tag, DOING, texts::NOTICE_THE_END, &[])
        .await
        .is_err()
    {
        tracing::debug!("the server cannot notice that its client is gone");
    }
    run(shared, &session, backend, &tag, part).await
}

/// The statement itself, until it is done or there is a reason to end it.
async fn run(
    shared: &Shared<'_, '_>,
    session: &Session,
    backend: i32,
    tag: &Tag,
    part: &Part,
) -> Result<End, Error> {
    let statement = format!("{tag}{}", texts::vacuum(&part.full_name()));
    let mut running = std::pin::pin!(session.client().batch_execute(&statement));
    let mut changes = shared.pacer.changes();
    let why = loop {
        changes.mark_unchanged();
        if shared.halt.is_cancelled() {
            break "the batches stop";
        }
        if shared.pacer.is_stopped() {
            break "the pace stopped";
        }
        if vacuum_gives_way(shared.pacer.others().lock_wait) {
            break "somebody waits for its lock";
        }
        tokio::select! {
            done = &mut running => {
                return done.map(|()| End::Done).map_err(Error::statement(DOING));
            }
            _ = changes.changed() => {}
            () = shared.halt.cancelled() => {}
        }
    };
    let start = tag.to_string();
    let params: Params<'_> = &[(&backend, Type::INT4), (&start, Type::TEXT)];
    for _ in 0..TELLINGS {
        let other = shared.run.database.session().await?;
        other.query(&shared.tag, DOING, texts::CANCEL, params).await?;
        drop(other);
        if tokio::time::timeout(TELL_AGAIN, &mut running).await.is_ok() {
            break;
        }
    }
    Ok(End::Ended(why))
}
