//! One batch: lock the range's row, see whose it is, change what comes next, move the cursor, commit.

use super::cut::texts;
use crate::error::Error;
use crate::faults::{self, Point};
use crate::ledger;
#[cfg(feature = "planted-bugs")]
use crate::planted;
use crate::run::Run;
use crate::session::{Ready, Session};
use crate::step::{Place, record};
use crate::user_error;
use shared::batch::{End, Gaps, Overhead, Size};
use shared::fence::Fence;
use shared::plan::{Batches, KeyColumn, Paging, Part, SortDirection};
use shared::sql::batch::{self, Ends, Statements};
use shared::sql::{Commit, Limits, Tag};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// How long a batch waits for one lock. With the time a batch takes it stays below `deadlock_timeout` (1 s by default): where
/// a batch and an application's transaction wait for each other, it is the batch that gives way.
const LOCK: Duration = Duration::from_millis(300);

/// How long one of its statements may take.
const STATEMENT: Duration = Duration::from_secs(15);

const DOING: &str = "running a batch";

/// Rows in a block where the planner has no estimate.
pub(super) const ROWS_PER_BLOCK: u64 = 50;

/// A boundary: the texts of a key, or of a block number.
type Bound = Vec<String>;

/// A range's row, locked.
struct Locked {
    state: String,
    fence: Fence,
    from: Option<Bound>,
    upper: Option<Bound>,
    sequence: i64,
    rows: i64,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Rows it changed.
    pub(super) changed: u64,
    /// Rows changed in the range so far.
    pub(super) rows: i64,
    pub(super) left: Left,
    /// How long its rows took, without what a statement takes whatever its rows.
    pub(super) work: Duration,
    /// Its end was computed, and it changed far fewer rows than it might have had: there may be a gap in the key.
    pub(super) is_thin: bool,
}

impl Outcome {
    /// The size of the batch after this one, which had `size`.
    pub(super) fn next_size(&self, size: Size) -> Size {
        let mut next = size;
        if self.left == Left::More {
            next.took(self.work);
        }
        // Next to no rows say nothing of the time that many take.
        if self.is_thin && next.rows() > size.rows() {
            size
        } else {
            next
        }
    }

    /// Keys that a batch of so many rows looked at, about.
    pub(super) fn looked_at(&self, rows: u32) -> u32 {
        if self.is_thin {
            u32::try_from(self.changed).unwrap_or(rows)
        } else {
            rows
        }
    }
}

/// What is left of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// There may be more.
    More,
    /// The range is done.
    Nothing,
}

/// Where a batch ends.
enum Next {
    /// At this key, or before this block.
    Until(Bound),
    /// With its range, which holds no more rows.
    Rest,
}

/// How an end was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Without a way to the server.
    Computed,
    /// By asking the server, for so long.
    LookedFor(Duration),
}

impl How {
    fn took(self) -> Duration {
        match self {
            Self::Computed => Duration::ZERO,
            Self::LookedFor(took) => took,
        }
    }
}

/// What one batch works on.
pub(super) struct Work<'a, 'b> {
    pub(super) run: &'a Run<'b>,
    pub(super) place: Place<'a>,
    pub(super) batches: &'a Batches,
    pub(super) part: &'a Part,
    pub(super) shard: i32,
    pub(super) pass: i32,
    pub(super) tag: &'a Tag,
}

impl Work<'_, '_> {
    /// Runs one batch of about so many rows. `retries`: tries that failed since the last one that did not. `gaps`: those
    /// of this range.
    pub(super) async fn batch(
        &self,
        session: &mut Session,
        rows: u32,
        retries: i64,
        gaps: &mut Gaps,
        overhead: &mut Overhead,
    ) -> Result<Outcome, Error> {
        let key = record::Key::of(self.run, self.place.todo, self.place.number());
        let shard_key = key.shard(&self.shard);
        let limits = Limits {
            lock: LOCK,
            statement: Some(STATEMENT),
            commit: Commit::Deferred,
        };
        let lock = batch::LOCK_SHARD;
        #[cfg(feature = "planted-bugs")]
        let lock = &planted::lock_shard(lock);
        let found = session
            .begin_often_with(self.tag, limits, DOING, lock, &shard_key)
            .await?;
        let locked = found
            .first()
            .map(locked)
            .ok_or(Error::Broken("a range that was recorded is gone"))?;
        if !self.is_open(session, &locked).await? {
            session.rollback(self.tag).await;
            return Ok(Outcome {
                changed: 0,
                rows: locked.rows,
                left: Left::Nothing,
                work: Duration::ZERO,
                is_thin: false,
            });
        }
        faults::reach(Point::AfterFenceLock).await?;
        #[cfg(feature = "planted-bugs")]
        let locked = {
            let mut locked = locked;
            planted::recall(self.range(), &mut locked.from);
            locked
        };
        let statements = Statements::of(self.batches, self.part);
        let (next, how) = self.next(session, &statements, &locked, rows, gaps).await?;
        // The rest of a range is changed up to its very end, so no further batch need look for more.
        let (end, left) = match next {
            Next::Until(end) => (Some(end), Left::More),
            Next::Rest => (locked.upper.clone(), Left::Nothing),
        };
        let ends = Ends::of(locked.from.is_some(), end.is_some());
        let pass = u32::try_from(self.pass).unwrap_or(1);
        let change = statements.change(ends, pass);
        #[cfg(feature = "planted-bugs")]
        let change = planted::change(change);
        let params = range(locked.from.as_ref(), end.as_ref());
        let user_error = |error| user_error::of(&error, &change, 0, self.tag, self.place);
        let text = format!("{}{change}", self.tag);
        let ready = if batch::is_read_once(&change) {
            session.ready(&text, &params).await.map_err(user_error)?
        } else {
            Ready::New(&text)
        };
        let done = session.execute_ready(&ready, &params).await;
        let (changed, took) = done.map_err(user_error)?;
        #[cfg(feature = "planted-bugs")]
        planted::changed(session, self.tag, limits, self.range(), end.as_ref()).await?;
        faults::reach(Point::AfterChange).await?;
        let changed_rows = i64::try_from(changed).unwrap_or(i64::MAX);
        let state = match left {
            Left::More => "open",
            Left::Nothing => "done",
        };
        let more = [
            (&locked.sequence as &(dyn ToSql + Sync), Type::INT8),
            (&locked.from, Type::TEXT_ARRAY),
            (&end, Type::TEXT_ARRAY),
            (&changed_rows, Type::INT8),
            (&state, Type::TEXT),
            (&retries, Type::INT8),
        ];
        let params = [&shard_key[..], &more[..]].concat();
        let move_cursor = format!("{}{}", self.tag, batch::MOVE_CURSOR);
        let ready = session.ready(&move_cursor, &params).await;
        let ready = ready.map_err(Error::statement(DOING))?;
        let moved = session.execute_ready(&ready, &params).await;
        let (moved, trifle) = moved.map_err(Error::statement(DOING))?;
        if moved != 1 {
            return Err(Error::Broken("a range moved under our lock"));
        }
        overhead.met(trifle);
        let work = overhead.without(how.took()) + overhead.without(took);
        let committed = record::commit(session, self.tag).await;
        #[cfg(feature = "planted-bugs")]
        planted::committed(&committed, self.range(), locked.from.as_ref());
        committed?;
        let is_computed_key = how == How::Computed && self.part.paging != Paging::Blocks;
        let is_thin = is_computed_key && gaps.met(changed, rows);
        Ok(Outcome {
            changed,
            rows: locked.rows + changed_rows,
            left,
            work,
            is_thin,
        })
    }

    #[cfg(feature = "planted-bugs")]
    fn range(&self) -> planted::Range {
        (self.place.number(), self.shard)
    }

    /// Whether there is anything left of a range; an error where it is not ours.
    async fn is_open(&self, session: &mut Session, locked: &Locked) -> Result<bool, Error> {
        match locked.state.as_str() {
            // Takeovers stamp open ranges only: one that is done keeps the fence of whoever did it. The step's record is
            // written under the fence row, which tells whether we were replaced.
            "done" => Ok(false),
            _ if locked.fence != self.run.claim.fence => Err(ledger::replaced(session, self.run.claim).await),
            "open" => Ok(true),
            _ => Err(Error::Broken("a range of a step at work is closed")),
        }
    }

    /// The end of a batch of so many rows.
    async fn next(
        &self,
        session: &mut Session,
        statements: &Statements<'_>,
        locked: &Locked,
        rows: u32,
        gaps: &mut Gaps,
    ) -> Result<(Next, How), Error> {
        if let Some(next) = self.computed(locked, rows, gaps)? {
            return Ok((next, How::Computed));
        }
        let (next, took) = self.looked_for(session, statements, locked, rows, gaps).await?;
        Ok((next, How::LookedFor(took)))
    }

    /// The end of a batch of so many rows where it takes no look at the rows; else `None`.
    fn computed(&self, locked: &Locked, rows: u32, gaps: &mut Gaps) -> Result<Option<Next>, Error> {
        if self.part.paging == Paging::Blocks {
            return self.next_block(locked, rows).map(Some);
        }
        let upper = self.number(locked.upper.as_ref());
        let Some(from) = self.number(locked.from.as_ref()) else {
            return Ok(None);
        };
        Ok(match gaps.end(from, upper, rows) {
            End::Unknown => None,
            End::At(end) => Some(Next::Until(vec![end.to_string()])),
            End::Rest => Some(Next::Rest),
        })
    }

    /// The end of a batch of so many rows, from the index, and how long that took.
    async fn looked_for(
        &self,
        session: &mut Session,
        statements: &Statements<'_>,
        locked: &Locked,
        rows: u32,
        gaps: &mut Gaps,
    ) -> Result<(Next, Duration), Error> {
        let ends = Ends::of(locked.from.is_some(), locked.upper.is_some());
        let full = statements
            .full(ends)
            .ok_or(Error::Broken("a range without a key has no keys to look for"))?;
        let before_end = i64::from(rows) - 1;
        let mut params = range(locked.from.as_ref(), locked.upper.as_ref());
        params.push((&before_end, Type::INT8));
        let text = format!("{}{full}", self.tag);
        let ready = session.ready(&text, &params).await;
        let ready = ready.map_err(Error::statement(DOING))?;
        let found = session.query_ready(&ready, &params).await;
        let (found, took) = found.map_err(Error::statement(DOING))?;
        let Some(row) = found.first() else {
            return Ok((Next::Rest, took));
        };
        let end = texts(row, 0);
        if let (Some(from), Some(to)) = (self.number(locked.from.as_ref()), self.number(Some(&end))) {
            gaps.found(from, to, rows);
            if gaps.are_few() && locked.upper.is_none() {
                self.look_ahead(session, statements, gaps).await?;
            }
        }
        Ok((Next::Until(end), took))
    }

    /// How far a range goes that has no end: ends before that may be computed.
    async fn look_ahead(
        &self,
        session: &mut Session,
        statements: &Statements<'_>,
        gaps: &mut Gaps,
    ) -> Result<(), Error> {
        let Some(largest) = statements.largest() else {
            return Ok(());
        };
        let text = format!("{}{largest}", self.tag);
        let ready = session.ready(&text, &[]).await;
        let ready = ready.map_err(Error::statement(DOING))?;
        let found = session.query_ready(&ready, &[]).await;
        let (found, _) = found.map_err(Error::statement(DOING))?;
        let key = found.first().map(|row| texts(row, 0));
        if let Some(largest) = self.number(key.as_ref()) {
            gaps.reach(largest);
        }
        Ok(())
    }

    /// A boundary as a number, where the key is one whole number that grows.
    fn number(&self, bound: Option<&Bound>) -> Option<i64> {
        let Paging::Key(key) = &self.part.paging else {
            return None;
        };
        match (key.as_slice(), bound.map(Vec::as_slice)) {
            ([column], Some([number])) if is_whole(column) => number.parse().ok(),
            _ => None,
        }
    }

    fn next_block(&self, locked: &Locked, rows: u32) -> Result<Next, Error> {
        let from = block(locked.from.as_ref())?.unwrap_or(0);
        let upper = block(locked.upper.as_ref())?.ok_or(Error::Broken("a range of blocks has no end"))?;
        let per_block = match self.part.estimated_rows / self.part.blocks.max(1) {
            0 => ROWS_PER_BLOCK,
            rows => rows,
        };
        let end = from + (u64::from(rows) / per_block).max(1);
        Ok(if end < upper {
            Next::Until(vec![end.to_string()])
        } else {
            Next::Rest
        })
    }
}

/// Whether a column holds whole numbers in growing order.
fn is_whole(column: &KeyColumn) -> bool {
    column.sort.direction == SortDirection::Ascending
        && matches!(column.data_type.as_str(), "smallint" | "integer" | "bigint")
}

/// A boundary of a range of blocks as a number.
pub(super) fn block(bound: Option<&Bound>) -> Result<Option<u64>, Error> {
    let broken = Error::Broken("the end of a range of blocks is no number");
    match bound.map(Vec::as_slice) {
        None => Ok(None),
        Some([number]) => number.parse().map(Some).map_err(|_| broken),
        Some(_) => Err(broken),
    }
}

fn locked(row: &Row) -> Locked {
    Locked {
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

/// The ends that there are, as parameters.
pub(super) fn range<'a>(
    from: Option<&'a Bound>,
    upper: Option<&'a Bound>,
) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    from.into_iter()
        .chain(upper)
        .map(|end| (end as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
        .collect()
}
