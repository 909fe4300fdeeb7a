//! The ranges of a step in the ledger: made, resumed, and made anew for another pass, each time in one transaction under
//! the fence row.

use super::{MOST_PASSES, cut};
use crate::error::Error;
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use crate::step::{Part, Place, record};
use serde::{Deserialize, Serialize};
use shared::plan::{self, Batches, Paging, Passes};
use shared::sql::{Commit, Limits, Tag, batch};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};

/// A range that is not done.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    pub(super) number: i32,
    /// Which of the loop's parts it belongs to.
    pub(super) part: usize,
    pub(super) pass: i32,
    /// Rows changed in it so far.
    pub(super) rows: i64,
}

/// What is to be done.
pub(super) struct Open {
    pub(super) shards: Vec<Shard>,
    /// The number of the next range.
    pub(super) next: i32,
    /// Rows changed in ranges that are done.
    pub(super) rows_done: i64,
    /// Whether no batch of the step was committed yet.
    pub(super) is_untouched: bool,
}

pub(super) enum Prepared {
    Open(Open),
    /// No range is left.
    Done {
        /// Rows that the last pass changed although no further one follows.
        still_changing: i64,
    },
}

/// A range to be inserted, as the ledger's statement reads it.
#[derive(Debug, Serialize)]
pub(super) struct NewShard {
    pub(super) shard: i32,
    pub(super) relation: u32,
    pub(super) relation_name: String,
    pub(super) paging: String,
    pub(super) pass: i32,
    pub(super) lower: Option<Vec<String>>,
    pub(super) upper: Option<Vec<String>>,
    pub(super) state: &'static str,
}

/// A range as the ledger has it.
struct Row {
    number: i32,
    relation: Option<u32>,
    paging: Option<String>,
    pass: i32,
    state: String,
    rows: i64,
    /// Batches committed.
    sequence: i64,
}

/// What programs of the second format remembered of a step's key.
#[derive(Deserialize)]
struct Detail {
    key: Vec<(String, String)>,
}

/// Records the step as begun where it has not, and gives it the ranges it needs next.
pub(super) async fn prepare(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    batches: &Batches,
) -> Result<Prepared, Error> {
    let tag = place.tag(run);
    let mut session = run.database.session().await?;
    // What follows is later in the WAL: whatever of it is on disk, this is too.
    let limits = Limits {
        statement: Some(run.database.limits().statement),
        commit: Commit::Deferred,
        ..ledger::book_limits()
    };
    ledger::begin_fenced(&mut session, run.claim, &tag, limits).await?;
    // The batches are not the step's last part in the ledger's eyes: it ends in a transaction of its own.
    let part = match part {
        Part::Whole | Part::First => Part::First,
        Part::Middle | Part::Last => Part::Middle,
    };
    record::before(run, place, part, &session, &tag, None).await?;
    let mut book = Book {
        key: record::Key::of(run, place.todo, place.number()),
        run,
        place,
        session: &session,
        tag: &tag,
        batches,
    };
    let prepared = book.prepare().await?;
    record::commit(&mut session, &tag).await?;
    run.committed();
    Ok(prepared)
}

/// The step's part of the ledger, within one transaction.
struct Book<'a, 'b> {
    run: &'a Run<'b>,
    place: Place<'a>,
    session: &'a Session,
    tag: &'a Tag,
    batches: &'a Batches,
    key: record::Key,
}

impl Book<'_, '_> {
    async fn prepare(&mut self) -> Result<Prepared, Error> {
        self.close_gone().await?;
        let mut rows = self.rows().await?;
        // Also where it is done: the step's end is what is left.
        if rows
            .iter()
            .any(|row| row.relation.is_none() && row.state != "gone")
        {
            self.take_over_from_format_2(&rows).await?;
            rows = self.rows().await?;
        }
        let pass = rows.iter().map(|row| row.pass).max().unwrap_or(1);
        let known: BTreeSet<Option<u32>> = rows.iter().map(|row| row.relation).collect();
        let unknown = |part: &&plan::Part| !known.contains(&Some(part.oid));
        let new: Vec<&plan::Part> = self.batches.parts.iter().filter(unknown).collect();
        let next = rows.iter().map(|row| row.number + 1).max().unwrap_or(0);
        if !new.is_empty() {
            self.insert(&new, pass, next).await?;
        } else if !rows.iter().any(|row| row.state == "open") {
            let changed = rows
                .iter()
                .filter(|row| row.pass == pass)
                .map(|row| row.rows)
                .sum();
            if self.batches.passes == Passes::One || changed == 0 || pass >= MOST_PASSES {
                let still_changing = if self.batches.passes == Passes::One {
                    0
                } else {
                    changed
                };
                return Ok(Prepared::Done { still_changing });
            }
            let all: Vec<&plan::Part> = self.batches.parts.iter().collect();
            self.insert(&all, pass + 1, next).await?;
        }
        self.open().await
    }

    async fn open(&self) -> Result<Prepared, Error> {
        let rows = self.rows().await?;
        let mut open = Open {
            shards: Vec::new(),
            next: rows.iter().map(|row| row.number + 1).max().unwrap_or(0),
            rows_done: 0,
            is_untouched: rows.iter().all(|row| row.sequence == 0),
        };
        for row in rows {
            if row.state != "open" {
                open.rows_done += row.rows;
                continue;
            }
            let part = (self.batches.parts.iter())
                .position(|part| Some(part.oid) == row.relation)
                .ok_or(Error::Broken("an open range belongs to no relation of the table"))?;
            if row.paging.as_deref() != Some(self.batches.parts[part].paging.as_text().as_str()) {
                return Err(Error::Broken(
                    "the key by which the rows are paged is not the one this step began with",
                ));
            }
            open.shards.push(Shard {
                number: row.number,
                part,
                pass: row.pass,
                rows: row.rows,
            });
        }
        if open.shards.is_empty() {
            return Ok(Prepared::Done { still_changing: 0 });
        }
        Ok(Prepared::Open(open))
    }

    async fn rows(&self) -> Result<Vec<Row>, Error> {
        let rows = self
            .session
            .query(self.tag, "reading the ranges", batch::SHARDS, &self.key.step())
            .await?;
        Ok(rows
            .iter()
            .map(|row| Row {
                number: row.get(0),
                relation: row.get(1),
                paging: row.get(2),
                pass: row.get(3),
                state: row.get(4),
                rows: row.get(5),
                sequence: row.get(8),
            })
            .collect())
    }

    async fn insert(&self, parts: &[&plan::Part], pass: i32, next: i32) -> Result<(), Error> {
        let mut shards = Vec::new();
        let mut next = next;
        for part in parts {
            let cuts = cut::cuts(self.run, self.session, self.tag, self.batches, part).await?;
            let last = cuts.upper;
            let mut lower = None;
            for upper in cuts.between.into_iter().map(Some).chain([last]) {
                shards.push(NewShard {
                    shard: next,
                    relation: part.oid,
                    relation_name: part.full_name(),
                    paging: part.paging.as_text(),
                    pass,
                    lower: lower.take(),
                    upper: upper.clone(),
                    state: cuts.state,
                });
                lower = upper;
                next += 1;
            }
        }
        insert(self.run, self.session, self.tag, &self.key, &shards).await
    }

    /// Ends the ranges of partitions that were dropped or detached.
    async fn close_gone(&self) -> Result<(), Error> {
        let there: Vec<u32> = self.batches.parts.iter().map(|part| part.oid).collect();
        let [set, version, direction, number, step] = self.key.step();
        let there = (&there as &(dyn ToSql + Sync), Type::OID_ARRAY);
        self.session
            .execute(
                self.tag,
                "closing ranges of relations that are gone",
                batch::CLOSE_GONE,
                &[set, version, direction, number, step, there],
            )
            .await?;
        Ok(())
    }

    /// A program of the ledger's second format began the step with one range over everything. Over one relation the range
    /// goes on; over several it is begun anew, which does no harm: such steps were idempotent.
    async fn take_over_from_format_2(&self, rows: &[Row]) -> Result<(), Error> {
        let [part] = self.batches.parts.as_slice() else {
            self.session
                .execute(
                    self.tag,
                    "closing the range",
                    batch::CLOSE_WHOLE,
                    &self.key.step(),
                )
                .await?;
            return Ok(());
        };
        let detail = (self.place.todo.begun.as_ref()).and_then(|begun| begun.detail.as_deref());
        let detail = detail.and_then(|detail| serde_json::from_str::<Detail>(detail).ok());
        let same = match (&part.paging, detail) {
            (Paging::Key(key), Some(detail)) => (key.iter())
                .map(|k| (k.name.as_str(), k.data_type.as_str()))
                .eq(detail
                    .key
                    .iter()
                    .map(|(name, data_type)| (name.as_str(), data_type.as_str()))),
            _ => false,
        };
        if !same || rows.len() != 1 {
            return Err(Error::Broken(
                "the table's primary key is not the one this step began with",
            ));
        }
        let [set, version, direction, number, step] = self.key.step();
        let (name, paging) = (part.full_name(), part.paging.as_text());
        let more = [
            (&part.oid as &(dyn ToSql + Sync), Type::OID),
            (&name, Type::TEXT),
            (&paging, Type::TEXT),
        ];
        let params = [&[set, version, direction, number, step][..], &more[..]].concat();
        self.session
            .execute(self.tag, "taking the range over", batch::ADOPT_SHARD, &params)
            .await?;
        Ok(())
    }
}

/// Batches that all lives of the step committed, and tries of theirs that failed.
pub(super) async fn effort(run: &Run<'_>, place: Place<'_>) -> Result<(u64, u64), Error> {
    let key = record::Key::of(run, place.todo, place.number());
    let session = run.database.session().await?;
    let doing = "counting the batches";
    let rows = session
        .query(&place.tag(run), doing, batch::EFFORT, &key.step())
        .await?;
    let row = rows.first().ok_or(Error::Broken("the ranges have no sum"))?;
    let number = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok((number(0), number(1)))
}

/// How long one step may go on removing what others left; what is left then goes the next time.
const FORGETTING: Duration = Duration::from_secs(10);

/// Removes evidence that is older than it is to be kept.
pub(super) async fn forget_old(run: &Run<'_>, place: Place<'_>) -> Result<(), Error> {
    let kept = run.database.batch_log_retention();
    if kept.is_zero() {
        return Ok(());
    }
    let seconds = kept.as_secs_f64();
    let mut session = run.database.session().await?;
    let params = [(&seconds as &(dyn ToSql + Sync), Type::FLOAT8)];
    let began = Instant::now();
    // What a crash brings back goes the next time.
    let limits = Limits {
        commit: Commit::Deferred,
        ..ledger::book_limits()
    };
    loop {
        let removed = session
            .only(
                &place.tag(run),
                limits,
                "removing old evidence",
                batch::FORGET_BATCHES,
                &params,
            )
            .await?;
        if removed < batch::FORGOTTEN_AT_ONCE || began.elapsed() >= FORGETTING {
            return Ok(());
        }
    }
}

/// Inserts ranges, within a transaction that holds the fence row.
pub(super) async fn insert(
    run: &Run<'_>,
    session: &Session,
    tag: &Tag,
    key: &record::Key,
    shards: &[NewShard],
) -> Result<(), Error> {
    let json = serde_json::to_string(shards).expect("texts and numbers are JSON");
    let [epoch, token, local, _] = run.claim.params();
    let json = (&json as &(dyn ToSql + Sync), Type::TEXT);
    let params = [&key.step()[..], &[epoch, token, local, json][..]].concat();
    session
        .execute(tag, "recording the ranges", batch::INSERT_SHARDS, &params)
        .await?;
    Ok(())
}
