//! Where a relation is cut into ranges: evenly by its statistics or a sample, never by the width of the key.
//!
//! Stale statistics only make ranges uneven: the first and the last are open.

use crate::error::Error;
use crate::run::Run;
use crate::session::Session;
use shared::plan::{Batches, KeyColumn, Paging, Part, Upper};
use shared::sql::Tag;
use shared::sql::batch::{self, Ends, Statements};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A range has at least this many blocks (8 MiB as a rule): less is done before another worker is there.
const LEAST_BLOCKS: u64 = 1024;

/// Ranges for each worker: enough that none waits long for another at the end.
const PER_WORKER: u64 = 4;

/// Most ranges over all parts of one table: each is a row in the ledger.
const MOST: u64 = 4096;

/// Blocks a sample looks at: some ten thousand rows.
const SAMPLED_BLOCKS: f64 = 300.0;

/// Where one relation is cut.
#[derive(Debug)]
pub(super) struct Cuts {
    /// Boundaries between ranges, in order.
    pub(super) between: Vec<Vec<String>>,
    /// The last one's end.
    pub(super) upper: Option<Vec<String>>,
    /// `open`, or `done` where no row is the loop's.
    pub(super) state: &'static str,
}

pub(super) async fn cuts(
    run: &Run<'_>,
    session: &Session,
    tag: &Tag,
    batches: &Batches,
    part: &Part,
) -> Result<Cuts, Error> {
    let look = Look {
        session,
        tag,
        part,
        statements: Statements::of(batches, part),
        ranges: ranges(super::worker::most(run, batches), batches, part),
    };
    match &part.paging {
        Paging::Blocks => look.by_blocks().await,
        Paging::Key(key) => {
            let upper = match batches.upper {
                Upper::Open => None,
                Upper::AtStart => match look.largest().await? {
                    Some(key) => Some(key),
                    // Whatever comes is new.
                    None => {
                        return Ok(Cuts {
                            between: Vec::new(),
                            upper: None,
                            state: "done",
                        });
                    }
                },
            };
            Ok(Cuts {
                between: look.by_key(key, upper.as_ref()).await?,
                upper,
                state: "open",
            })
        }
    }
}

/// Into how many ranges a part is cut.
fn ranges(workers: u32, batches: &Batches, part: &Part) -> u64 {
    let parts = u64::try_from(batches.parts.len()).unwrap_or(u64::MAX);
    let workers = u64::from(workers);
    let wanted = (workers * PER_WORKER).min(part.blocks / LEAST_BLOCKS);
    let wanted = wanted.min(MOST / parts.max(1)).max(1);
    // As many for each worker: none goes over the last one alone.
    match wanted / workers {
        _ if workers < 2 => 1,
        0 => wanted,
        each => each * workers,
    }
}

/// How many blocks a relation has now; `None` when it is gone.
pub(super) async fn blocks(session: &Session, tag: &Tag, part: &Part) -> Result<Option<u64>, Error> {
    let params = [(&part.oid as &(dyn ToSql + Sync), Type::OID)];
    let rows = session
        .query(tag, "asking for the table's size", batch::BLOCKS, &params)
        .await?;
    let blocks: Option<i64> = rows.first().and_then(|row| row.get(0));
    Ok(blocks.and_then(|blocks| u64::try_from(blocks).ok()))
}

/// The share of a part's blocks that a sample looks at, in percent.
pub(super) fn sampled_percent(part: &Part) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    let blocks = part.blocks.max(1) as f64;
    (100.0 * SAMPLED_BLOCKS / blocks).min(100.0)
}

/// All columns of a row from `first` on, as texts.
pub(super) fn texts(row: &Row, first: usize) -> Vec<String> {
    (first..row.len()).map(|i| row.get(i)).collect()
}

/// One relation, looked at inside the transaction that records its ranges.
struct Look<'a> {
    session: &'a Session,
    tag: &'a Tag,
    part: &'a Part,
    statements: Statements<'a>,
    ranges: u64,
}

impl Look<'_> {
    async fn by_blocks(&self) -> Result<Cuts, Error> {
        let blocks = blocks(self.session, self.tag, self.part).await?.unwrap_or(0);
        let cut = |n: u64| vec![(blocks * n / self.ranges).to_string()];
        Ok(Cuts {
            between: (1..self.ranges).map(cut).collect(),
            // Rows that come to blocks beyond it are the next pass's.
            upper: Some(vec![blocks.to_string()]),
            state: if blocks == 0 { "done" } else { "open" },
        })
    }

    async fn largest(&self) -> Result<Option<Vec<String>>, Error> {
        let Some(statement) = self.statements.largest() else {
            return Ok(None);
        };
        let doing = "looking for the largest key";
        let rows = self.session.query(self.tag, doing, &statement, &[]).await?;
        Ok(rows.first().map(|row| texts(row, 0)))
    }

    /// The boundaries between ranges up to `upper`.
    async fn by_key(
        &self,
        key: &[KeyColumn],
        upper: Option<&Vec<String>>,
    ) -> Result<Vec<Vec<String>>, Error> {
        if self.ranges < 2 {
            return Ok(Vec::new());
        }
        // The histogram knows nothing of an upper end, and of one column only.
        let mut found = match (key, upper) {
            ([column], None) => self.histogram(column).await?,
            _ => Vec::new(),
        };
        if found.is_empty() {
            found = self.sample(upper).await?;
        }
        let mut between: Vec<Vec<String>> = found.iter().map(|row| texts(row, 0)).collect();
        between.dedup();
        if between.last() == upper {
            between.pop();
        }
        Ok(between)
    }

    async fn histogram(&self, column: &KeyColumn) -> Result<Vec<Row>, Error> {
        let Some(statement) = self.statements.histogram_cuts() else {
            return Ok(Vec::new());
        };
        let ranges = i64::try_from(self.ranges).unwrap_or(i64::MAX);
        let (schema, name) = (self.part.schema.as_str(), self.part.name.as_str());
        let column = column.name.as_str();
        let params = [
            (&ranges as &(dyn ToSql + Sync), Type::INT8),
            (&schema, Type::TEXT),
            (&name, Type::TEXT),
            (&column, Type::TEXT),
        ];
        let doing = "reading the table's statistics";
        self.session.query(self.tag, doing, &statement, &params).await
    }

    async fn sample(&self, upper: Option<&Vec<String>>) -> Result<Vec<Row>, Error> {
        let Some(statement) = self.statements.sampled_cuts(Ends::of(false, upper.is_some())) else {
            return Ok(Vec::new());
        };
        let percent = sampled_percent(self.part);
        let ranges = i64::try_from(self.ranges).unwrap_or(i64::MAX);
        let mut params: Vec<(&(dyn ToSql + Sync), Type)> = Vec::new();
        params.extend(upper.map(|upper| (upper as &(dyn ToSql + Sync), Type::TEXT_ARRAY)));
        params.push((&percent, Type::FLOAT8));
        params.push((&ranges, Type::INT8));
        let doing = "sampling the table";
        self.session.query(self.tag, doing, &statement, &params).await
    }
}
