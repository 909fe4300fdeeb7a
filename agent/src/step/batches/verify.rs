//! Verification: after the last batch, every row is looked at again, range by range, at low priority, and what is found
//! is kept in the ledger as evidence.

use super::batch::range;
use super::cut::{blocks, texts};
use super::worker::most;
use crate::error::Error;
use crate::ledger;
use crate::run::Run;
use crate::step::{Place, record};
use crate::work::Evidence;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shared::batch::{Size, TARGET};
use shared::plan::{Batches, Paging, Part, Verdict, Verification};
use shared::sql::batch::{self, Ends, Statements};
use shared::sql::{Commit, Limits, Tag, ledger as ledger_texts};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};

/// Rows of the first page: reading is some ten times as fast as writing.
const FIRST_ROWS: u32 = 50_000;

/// Blocks of one page of a relation without a key.
const BLOCKS: u64 = 1024;

const LIMITS: Limits = Limits {
    lock: Duration::from_secs(2),
    statement: Some(Duration::from_secs(30)),
    commit: Commit::Deferred,
};

const DOING: &str = "verifying";

type Bound = Vec<String>;

/// A range of one part, still to be looked at.
struct Range {
    part: usize,
    from: Option<Bound>,
    upper: Option<Bound>,
}

/// Looks at all rows, and keeps what was found.
pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    batches: &Batches,
    verification: &Verification,
) -> Result<(), Error> {
    let began = Instant::now();
    run.report(|progress| "verifying".clone_into(&mut progress.pace));
    let tag = place.tag(run);
    let ranges = ranges(run, place, &tag, batches).await?;
    let work = Verifying {
        run,
        batches,
        tag: &tag,
        ranges: Mutex::new(ranges),
    };
    let mut evidence = Evidence::default();
    let mut workers: FuturesUnordered<_> = (0..most(run, batches)).map(|_| work.worker()).collect();
    while let Some(found) = workers.next().await {
        evidence.add(&found?);
    }
    drop(workers);
    keep(run, place, &tag, &evidence).await?;
    let wrong = evidence.differing + evidence.remaining;
    run.control
        .recorder
        .verified(began.elapsed(), evidence.rows, wrong);
    run.tally.evidence = Some(evidence);
    if evidence.differing == 0 && evidence.remaining == 0 {
        return Ok(());
    }
    let table = format!("{}.{}", batches.schema, batches.table);
    if evidence.differing > 0 && verification.verdict == Verdict::Fail {
        return Err(Error::Verification {
            rows: evidence.rows,
            differing: evidence.differing,
            table,
        });
    }
    tracing::warn!(
        database = %run.database.name(), table, differing = evidence.differing, remaining = evidence.remaining,
        "verification found rows that are not as the step would leave them: applications write such rows"
    );
    Ok(())
}

/// The ranges that the loop itself went over, and those of relations without a key.
async fn ranges(run: &Run<'_>, place: Place<'_>, tag: &Tag, batches: &Batches) -> Result<Vec<Range>, Error> {
    let key = record::Key::of(run, place.todo, place.number());
    let session = run.database.session().await?;
    let rows = session
        .query(tag, "reading the ranges", batch::SHARDS, &key.step())
        .await?;
    let mut ranges = Vec::new();
    for (index, part) in batches.parts.iter().enumerate() {
        match part.paging {
            Paging::Key(_) => {
                let of_part = rows
                    .iter()
                    .filter(|row| row.get::<_, Option<u32>>(1) == Some(part.oid));
                let first = of_part.clone().map(|row| row.get::<_, i32>(3)).min();
                ranges.extend(
                    of_part
                        .filter(|row| Some(row.get::<_, i32>(3)) == first)
                        .map(|row| Range {
                            part: index,
                            from: row.get(6),
                            upper: row.get(7),
                        }),
                );
            }
            Paging::Blocks => {
                let size = blocks(&session, tag, part).await?.unwrap_or(0);
                let starts = (0..size).step_by(usize::try_from(BLOCKS).unwrap_or(usize::MAX));
                ranges.extend(starts.map(|start| Range {
                    part: index,
                    from: Some(vec![start.to_string()]),
                    upper: Some(vec![(start + BLOCKS).to_string()]),
                }));
            }
        }
    }
    Ok(ranges)
}

async fn keep(run: &Run<'_>, place: Place<'_>, tag: &Tag, evidence: &Evidence) -> Result<(), Error> {
    let json = serde_json::to_string(evidence).expect("numbers and texts are JSON");
    let key = record::Key::of(run, place.todo, place.number());
    let params = [&key.step()[..], &[(&json as &(dyn ToSql + Sync), Type::TEXT)]].concat();
    let mut session = run.database.session().await?;
    ledger::begin_fenced(&mut session, run.claim, tag, ledger::book_limits()).await?;
    session
        .execute(tag, "keeping the evidence", ledger_texts::KEEP_EVIDENCE, &params)
        .await?;
    record::commit(&mut session, tag).await
}

/// What the workers share.
struct Verifying<'a, 'b> {
    run: &'a Run<'b>,
    batches: &'a Batches,
    tag: &'a Tag,
    ranges: Mutex<Vec<Range>>,
}

impl Verifying<'_, '_> {
    async fn worker(&self) -> Result<Evidence, Error> {
        let mut found = Evidence::default();
        let mut size = Size::new(FIRST_ROWS, TARGET);
        while let Some(mut range) = self.next() {
            found.ranges += 1;
            let part = &self.batches.parts[range.part];
            loop {
                let started = Instant::now();
                let end = self.page(part, &range, size, &mut found).await?;
                let took = started.elapsed();
                // At low priority: as long as it worked, it rests.
                self.run.stoppable(took).await?;
                let Some(end) = end else {
                    break;
                };
                size.took(took);
                range.from = Some(end);
            }
        }
        Ok(found)
    }

    fn next(&self) -> Option<Range> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Looks at one page; gives its end, and nothing after the last page of a range.
    async fn page(
        &self,
        part: &Part,
        at: &Range,
        size: Size,
        found: &mut Evidence,
    ) -> Result<Option<Bound>, Error> {
        let statements = Statements::of(self.batches, part);
        let mut session = self.run.database.session().await?;
        session
            .begin_with(self.tag, LIMITS, DOING, "SELECT 1", &[])
            .await?;
        let ends = Ends::of(at.from.is_some(), at.upper.is_some());
        let end: Option<Bound> = match statements.full(ends) {
            None => None,
            Some(full) => {
                let before_end = i64::from(size.rows()) - 1;
                let mut params = range(at.from.as_ref(), at.upper.as_ref());
                params.push((&before_end as &(dyn ToSql + Sync), Type::INT8));
                let rows = session.query(self.tag, DOING, &full, &params).await?;
                rows.first().map(|row| texts(row, 0))
            }
        };
        let upper = end.as_ref().or(at.upper.as_ref());
        let check = statements.check(Ends::of(at.from.is_some(), upper.is_some()));
        let rows = session
            .query(self.tag, DOING, &check, &range(at.from.as_ref(), upper))
            .await;
        session.rollback(self.tag).await;
        let rows = rows?;
        let row = rows.first().ok_or(Error::Broken("a count gave no row"))?;
        let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
        let digest: String = row.get(3);
        found.add(&Evidence {
            ranges: 0,
            rows: number(0),
            differing: number(1),
            remaining: number(2),
            digest: digest.parse().unwrap_or(0),
        });
        Ok(end)
    }
}
