//! The batch loop: each batch one fenced transaction, its checkpoint committed with its rows.
//!
//! A lost connection or an unknown COMMIT ends the attempt; the next one's first statement waits for the row lock of the
//! doubtful transaction and then reads what became of it.

use super::{Part, Place, record};
use crate::error::Error;
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use serde::{Deserialize, Serialize};
use shared::batch::{FIRST_ROWS, Size, TARGET};
use shared::fence::Fence;
use shared::plan::{Batches, Upper};
use shared::sql::batch::{self, Ends, Statements};
use shared::sql::{Commit, Limits, Tag};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// How long a batch waits for one lock, and how long one of its statements may take: a batch aims at half a second.
const LOCK: Duration = Duration::from_secs(1);
const STATEMENT: Duration = Duration::from_secs(15);

/// The one shard that covers the whole range.
const SHARD: i32 = 0;

const DOING: &str = "running a batch";

/// What the step's record remembers: a key that changed meanwhile would make the cursor mean something else.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Detail {
    key: Vec<(String, String)>,
}

/// A shard's row, locked.
struct Shard {
    state: String,
    fence: Fence,
    from: Option<Vec<String>>,
    upper: Option<Vec<String>>,
    sequence: i64,
    rows: i64,
}

/// How a batch ended.
enum Batch {
    /// There may be more.
    More,
    /// The range is done.
    Done,
}

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    batches: &Batches,
) -> Result<(), Error> {
    let detail = Detail {
        key: batches
            .key
            .iter()
            .map(|k| (k.name.as_str().to_owned(), k.data_type.clone()))
            .collect(),
    };
    match part {
        Part::Whole | Part::First => begin(run, place, batches, &detail).await?,
        Part::Middle | Part::Last => check_detail(place, &detail)?,
    }
    let tag = place.tag(run);
    let statements = Statements::of(batches);
    run.report(|progress| progress.estimated_rows = batches.estimated_rows);
    let mut session = run.database.session().await?;
    loop {
        run.stop_if_asked()?;
        let mut size = *run
            .size
            .get_or_insert_with(|| Size::new(batches.first_rows.unwrap_or(FIRST_ROWS), TARGET));
        let outcome = one(run, place, &statements, &mut session, &tag, &mut size).await;
        if outcome.is_err() {
            size.failed();
            session.rollback(&tag).await;
        }
        run.size = Some(size);
        match outcome? {
            Batch::Done => break,
            Batch::More => run.stoppable(batches.pause).await?,
        }
    }
    drop(session);
    // Durable, and under the fence row: the asynchronous commits of the loop are on disk with it.
    record::only(run, place, Part::Last).await
}

/// Records the step as begun and inserts its shard, under the fence row.
async fn begin(run: &mut Run<'_>, place: Place<'_>, batches: &Batches, detail: &Detail) -> Result<(), Error> {
    let tag = place.tag(run);
    let mut session = run.database.session().await?;
    let limits = Limits {
        statement: Some(run.database.limits().statement),
        ..ledger::book_limits()
    };
    ledger::begin_fenced(&mut session, run.claim, &tag, limits).await?;
    let detail = serde_json::to_string(detail).expect("strings are JSON");
    record::before(run, place, Part::First, &session, &tag, Some(&detail)).await?;
    let (upper, state) = match batches.upper {
        Upper::Open => (None, "open"),
        Upper::AtStart => {
            let rows = session
                .query(
                    &tag,
                    "looking for the largest key",
                    &Statements::of(batches).largest(),
                    &[],
                )
                .await?;
            match rows.first() {
                Some(row) => (Some(texts(row)), "open"),
                None => (None, "done"),
            }
        }
    };
    let key = record::Key::of(run, place.todo, place.number());
    let [set, version, direction, number, step] = key.step();
    let [epoch, token, local, _] = run.claim.params();
    let shard = (&SHARD as &(dyn ToSql + Sync), Type::INT4);
    let params = [
        set,
        version,
        direction,
        number,
        step,
        shard,
        epoch,
        token,
        local,
        (&upper, Type::TEXT_ARRAY),
        (&state, Type::TEXT),
    ];
    session
        .execute(&tag, "recording the range", batch::INSERT_SHARD, &params)
        .await?;
    session.commit(&tag).await?;
    run.committed();
    Ok(())
}

fn check_detail(place: Place<'_>, detail: &Detail) -> Result<(), Error> {
    let recorded = place
        .todo
        .begun
        .as_ref()
        .and_then(|begun| begun.detail.as_deref());
    match recorded.map(serde_json::from_str::<Detail>) {
        Some(Ok(recorded)) if recorded == *detail => Ok(()),
        _ => Err(Error::Broken(
            "the table's primary key is not the one this step began with",
        )),
    }
}

/// One batch.
async fn one(
    run: &mut Run<'_>,
    place: Place<'_>,
    statements: &Statements<'_>,
    session: &mut Session,
    tag: &Tag,
    size: &mut Size,
) -> Result<Batch, Error> {
    let key = record::Key::of(run, place.todo, place.number());
    let [set, version, direction, number, step] = key.step();
    let shard_key = [
        set,
        version,
        direction,
        number,
        step,
        (&SHARD as &(dyn ToSql + Sync), Type::INT4),
    ];
    let limits = Limits {
        lock: LOCK,
        statement: Some(STATEMENT),
        commit: Commit::Deferred,
    };
    let started = Instant::now();
    let rows = session
        .begin_with(tag, limits, DOING, batch::LOCK_SHARD, &shard_key)
        .await?;
    let shard = rows
        .first()
        .map(shard)
        .ok_or(Error::Broken("a range that was recorded is gone"))?;
    match shard.state.as_str() {
        // Takeovers stamp open ranges only: one that is done keeps the fence of whoever did it. The step's record is
        // written under the fence row, which tells whether we were replaced.
        "done" => {
            session.rollback(tag).await;
            run.report(|progress| progress.rows = u64::try_from(shard.rows).unwrap_or(0));
            return Ok(Batch::Done);
        }
        _ if shard.fence != run.claim.fence => return Err(ledger::replaced(session, run.claim).await),
        "open" => {}
        _ => return Err(Error::Broken("a range of a step at work is closed")),
    }
    let ends = range(shard.from.as_ref(), shard.upper.as_ref());
    let before_end = i64::from(size.rows()) - 1;
    let named = Ends::of(shard.from.is_some(), shard.upper.is_some());
    let full = [&ends[..], &[(&before_end as &(dyn ToSql + Sync), Type::INT8)]].concat();
    let mut found = session.query(tag, DOING, &statements.full(named), &full).await?;
    if found.is_empty() {
        found = session.query(tag, DOING, &statements.rest(named), &ends).await?;
    }
    // No row: what is left of the range holds none. Its end is then where the cursor stands.
    let cursor = found.first().map(texts);
    let (changed, state) = match &cursor {
        Some(end) => {
            let change = statements.change(Ends::of(shard.from.is_some(), true));
            let params = range(shard.from.as_ref(), Some(end));
            let changed = session
                .client()
                .execute_typed(&format!("{tag}{change}"), &params)
                .await;
            (
                changed.map_err(|error| user_error::of(&error, &change, 0, tag, place))?,
                "open",
            )
        }
        None => (0, "done"),
    };
    let cursor = cursor.or(shard.upper).or(shard.from);
    let changed_rows = i64::try_from(changed).unwrap_or(i64::MAX);
    let more = [
        (&shard.sequence as &(dyn ToSql + Sync), Type::INT8),
        (&cursor, Type::TEXT_ARRAY),
        (&changed_rows, Type::INT8),
        (&state, Type::TEXT),
    ];
    let moved = session
        .execute(
            tag,
            DOING,
            batch::MOVE_CURSOR,
            &[&shard_key[..], &more[..]].concat(),
        )
        .await?;
    if moved != 1 {
        return Err(Error::Broken("a range moved under our lock"));
    }
    session.commit(tag).await?;
    run.committed();
    run.summary.rows += changed;
    run.report(|progress| progress.rows = u64::try_from(shard.rows).unwrap_or(0) + changed);
    if state == "done" {
        return Ok(Batch::Done);
    }
    size.took(started.elapsed());
    Ok(Batch::More)
}

fn shard(row: &Row) -> Shard {
    Shard {
        state: row.get(0),
        fence: Fence {
            epoch: row.get(1),
            token: row.get(2),
            local: row.get(3),
        },
        from: row.get(4),
        upper: row.get(5),
        sequence: row.get(6),
        rows: row.get(7),
    }
}

/// All columns of a row as texts.
fn texts(row: &Row) -> Vec<String> {
    (0..row.len()).map(|i| row.get(i)).collect()
}

/// The ends that there are, as parameters.
fn range<'a>(
    from: Option<&'a Vec<String>>,
    upper: Option<&'a Vec<String>>,
) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    from.into_iter()
        .chain(upper)
        .map(|end| (end as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
        .collect()
}
