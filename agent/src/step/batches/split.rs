//! A worker without work takes half of what is left of the longest range of the others, in one fenced transaction.

use super::batch::{block, range};
use super::cut::{sampled_percent, texts};
use super::shards::{self, NewShard, Shard};
use super::worker::Shared;
use crate::error::Error;
use crate::ledger;
use crate::session::Session;
use crate::step::record;
use shared::plan::{Paging, Part};
use shared::sql::batch::{self, Ends, Statements};
use shared::sql::{Commit, Limits};
use std::time::Duration;
use tokio_postgres::types::{ToSql, Type};

/// A range is split when it holds more than so many batches: less is done before another worker has begun.
const LEAST_BATCHES: u64 = 3;

/// How long the lock of a range at work is waited for: somewhat more than one batch. Batches of the new range are later in
/// the WAL, so it need not wait for the disk.
const LIMITS: Limits = Limits {
    lock: Duration::from_secs(2),
    statement: Some(Duration::from_secs(5)),
    commit: Commit::Deferred,
};

const DOING: &str = "splitting a range";

type Bound = Vec<String>;

/// Splits one of the ranges at work; whether there is a range more now.
pub(super) async fn longest(workers: &Shared<'_, '_>) -> Result<bool, Error> {
    let mut working = workers.working();
    // Who has changed the least so far has likely the most left.
    working.sort_by_key(|shard| shard.rows);
    for shard in working {
        let mut session = workers.run.database.session().await?;
        match split(workers, &shard, &mut session).await {
            Ok(Some(new)) => {
                workers.split_off(new);
                return Ok(true);
            }
            Ok(None) => {}
            Err(error) => {
                session.rollback(&workers.tag).await;
                // Its worker was in the way: it goes on alone.
                if error.sqlstate().is_none() {
                    return Err(error);
                }
            }
        }
    }
    Ok(false)
}

/// Cuts a range in two, where enough is left of it; gives the second half.
async fn split(
    workers: &Shared<'_, '_>,
    shard: &Shard,
    session: &mut Session,
) -> Result<Option<Shard>, Error> {
    let (run, tag) = (workers.run, &workers.tag);
    let part = &workers.batches.parts[shard.part];
    ledger::begin_fenced(session, run.claim, tag, LIMITS).await?;
    let key = record::Key::of(run, workers.place.todo, workers.place.number());
    let shard_key = key.shard(&shard.number);
    let locked = session.query(tag, DOING, batch::LOCK_SHARD, &shard_key).await?;
    let locked = locked
        .first()
        .ok_or(Error::Broken("a range that was recorded is gone"))?;
    let (state, from, upper): (String, Option<Bound>, Option<Bound>) =
        (locked.get(0), locked.get(4), locked.get(5));
    let middle = match state.as_str() {
        "open" => middle(workers, part, session, from.as_ref(), upper.as_ref()).await?,
        _ => None,
    };
    let Some(middle) = middle else {
        session.rollback(tag).await;
        return Ok(None);
    };
    let cut = [
        &shard_key[..],
        &[(&middle as &(dyn ToSql + Sync), Type::TEXT_ARRAY)],
    ]
    .concat();
    if session.execute(tag, DOING, batch::CUT_SHARD, &cut).await? != 1 {
        return Err(Error::Broken("a range moved under our lock"));
    }
    let new = NewShard {
        shard: workers.next_number(),
        relation: part.oid,
        relation_name: part.full_name(),
        paging: part.paging.as_text(),
        pass: shard.pass,
        lower: Some(middle),
        upper,
        state: "open",
    };
    let second = Shard {
        number: new.shard,
        part: shard.part,
        pass: shard.pass,
        rows: 0,
    };
    shards::insert(run, session, tag, &key, &[new]).await?;
    record::commit(session, tag).await?;
    Ok(Some(second))
}

/// The key or block in the middle of what is left; `None` where little is.
async fn middle(
    workers: &Shared<'_, '_>,
    part: &Part,
    session: &Session,
    from: Option<&Bound>,
    upper: Option<&Bound>,
) -> Result<Option<Bound>, Error> {
    let least = LEAST_BATCHES * u64::from(workers.batch_rows());
    let statements = Statements::of(workers.batches, part);
    let Some(statement) = statements.middle(Ends::of(from.is_some(), upper.is_some())) else {
        debug_assert_eq!(part.paging, Paging::Blocks);
        let (from, upper) = (block(from)?.unwrap_or(0), block(upper)?.unwrap_or(0));
        let rows = upper.saturating_sub(from) * (part.estimated_rows / part.blocks.max(1)).max(1);
        return Ok((rows > least).then(|| vec![u64::midpoint(from, upper).to_string()]));
    };
    let percent = sampled_percent(part);
    let mut params = range(from, upper);
    params.push((&percent, Type::FLOAT8));
    let found = session.query(&workers.tag, DOING, &statement, &params).await?;
    Ok(found.first().and_then(|row| {
        let sampled: i64 = row.get(0);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (left, least) = (sampled as f64 * 100.0 / percent, least as f64);
        (left > least).then(|| texts(row, 1))
    }))
}
