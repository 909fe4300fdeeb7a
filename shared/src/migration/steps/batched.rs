//! What the steps that work in batches have in common: size and pace, the relations and keys they page by, the columns
//! they read, how often they go over the rows.

use super::vacuuming::Vacuuming;
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Batches, Facts, Kept, KeyColumn, Ordering, Pacing, Paging, Part, PartFacts, Passes, Refusal,
    RelationKind, RowChange, Storage, TableFacts, Upper, Verification, When,
};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// `batch: { size?, pause?, target?, workers?, max_duty?, vacuum?, verify? }`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchOptions {
    /// Rows of the first batch; later ones follow the measured time.
    #[serde(default)]
    pub size: Option<u32>,
    /// Least pause between two batches of a worker.
    #[serde(default)]
    pub pause: Option<Milliseconds>,
    /// Time one batch should take.
    #[serde(default)]
    pub target: Option<Milliseconds>,
    /// Most workers at once.
    #[serde(default)]
    pub workers: Option<u32>,
    /// Most of its time that a worker works, from above 0 to 1.
    #[serde(default)]
    pub max_duty: Option<f64>,
    /// Whether, and after which share of its rows, a relation is vacuumed between batches.
    #[serde(default)]
    pub vacuum: Vacuuming,
    /// Whether every row is looked at again before the step is done. Without it a `backfill` is verified on the canaries
    /// of a rollout.
    #[serde(default)]
    pub verify: Option<bool>,
}

/// A smaller share is vacuumed more than a hundred times, and each time all indexes are read.
const LEAST_SHARE: f64 = 0.01;

/// The largest first batch a user may ask for: beyond it a batch no longer ends within its `statement_timeout`.
const MAX_SIZE: u32 = 1_000_000;

/// The longest time for one batch: its row locks and its snapshot last as long.
const MAX_TARGET: Duration = Duration::from_secs(10);

/// More workers than this meet in the same locks of the server.
const MAX_WORKERS: u32 = 64;

impl BatchOptions {
    /// What is wrong with them.
    pub(super) fn problems(&self) -> Vec<String> {
        let size = self.size.is_some_and(|size| size == 0 || size > MAX_SIZE);
        let target = (self.target).is_some_and(|Milliseconds(t)| t.is_zero() || t > MAX_TARGET);
        let workers = self.workers.is_some_and(|n| n == 0 || n > MAX_WORKERS);
        let vacuum = (self.vacuum.share()).is_some_and(|share| !(LEAST_SHARE..=1.0).contains(&share));
        let duty = self.max_duty.is_some_and(|duty| !(duty > 0.0 && duty <= 1.0));
        [
            size.then(|| format!("`batch.size` must be between 1 and {MAX_SIZE}")),
            target.then(|| {
                format!(
                    "`batch.target` must be above 0 and at most {} s",
                    MAX_TARGET.as_secs()
                )
            }),
            workers.then(|| format!("`batch.workers` must be between 1 and {MAX_WORKERS}")),
            duty.then(|| "`batch.max_duty` must be above 0 and at most 1".to_owned()),
            vacuum.then(|| {
                format!(
                    "`batch.vacuum` must be true, false, or a share of the rows between {LEAST_SHARE} and 1"
                )
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn pacing(&self) -> Pacing {
        Pacing {
            first_rows: self.size,
            pause: self.pause.map_or(Duration::ZERO, |pause| pause.0),
            target: self.target.map(|target| target.0),
            workers: self.workers,
            max_duty: self.max_duty,
            vacuum: self.vacuum.share(),
        }
    }
}

/// A change of rows as a step gives it.
pub(super) struct Rows<'a> {
    /// The table as inspected.
    pub(super) table: &'a TableFacts,
    /// What becomes of each row.
    pub(super) change: RowChange,
    /// Which rows.
    pub(super) condition: Option<&'a Expression>,
    /// Whether a row that is done already is not harmed by being met again.
    pub(super) repeatable: Repeatable,
    /// Who keeps rows right that are written meanwhile.
    pub(super) kept: Kept,
    /// How the result is verified, and when if the author says nothing; other than on canaries that is never.
    pub(super) verification: Verification,
}

/// Whether a row may be met again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// No: its new value depends on the old one.
    Never,
    /// Yes, and it is seen that it has its new values already.
    Seen,
    /// Yes, where the condition leaves out rows that are done.
    ByCondition,
    /// It does no harm, but nothing tells that the row is done.
    Unseen,
}

impl Rows<'_> {
    /// The loop over them. `upper` decides where it ends, from the key of a table that has one relation only.
    pub(super) fn batches(
        self,
        facts: &Facts,
        options: &BatchOptions,
        upper: impl FnOnce(&[KeyColumn]) -> Result<Upper, Refusal>,
    ) -> Result<Batches, Refusal> {
        holds_rows(self.table)?;
        let set: BTreeSet<&Ident> = match &self.change {
            RowChange::Update(set) => set.iter().map(|assignment| &assignment.column).collect(),
            RowChange::Delete => BTreeSet::new(),
        };
        self.keeps_partitions(&set)?;
        let parts = (self.table.parts.iter())
            .map(|part| self.part(part, &set))
            .collect::<Result<Vec<Part>, Refusal>>()?;
        let upper = match parts.as_slice() {
            [
                Part {
                    paging: Paging::Key(key),
                    ..
                },
            ] => upper(key)?,
            _ => Upper::Open,
        };
        let passes = self.passes(&parts);
        let verification = self.verified(options.verify)?;
        Ok(Batches {
            schema: self.table.schema.clone(),
            table: self.table.name.clone(),
            parts,
            change: self.change,
            condition: self.condition.map(|condition| condition.text().to_owned()),
            upper,
            passes,
            kept: self.kept,
            verification,
            pacing: facts.strategies.pacing(self.table, options.pacing())?,
            server_version: facts.server_version,
        })
    }

    /// How the result is verified as the author asks; an answer that proves nothing is none.
    fn verified(&self, asked: Option<bool>) -> Result<Option<Verification>, Refusal> {
        let found = &self.verification;
        let something = found.differing.is_some() || found.remaining.is_some();
        match asked {
            Some(true) if !something => Err(Refusal::Unsafe {
                what: format!(
                    "`verify: true` has nothing to go by on {}: the new values cannot be computed again to be compared, and no `where` tells rows that are done from those that are not",
                    self.table.full_name()
                ),
                advice: Some(
                    "add a `where` that holds no longer once a row is done, such as `new_column IS NULL`; or leave `verify` out, and check the result by an `assert` step"
                        .to_owned(),
                ),
            }),
            Some(true) => Ok(Some(Verification {
                when: When::Always,
                ..found.clone()
            })),
            None if something && found.when == When::OnCanaries => Ok(Some(found.clone())),
            None | Some(false) => Ok(None),
        }
    }

    /// A row that got another partition would leave the relation it was looked for in.
    fn keeps_partitions(&self, set: &BTreeSet<&Ident>) -> Result<(), Refusal> {
        let Some(column) = set.iter().find(|c| self.table.partition_columns.contains(c)) else {
            return Ok(());
        };
        Err(Refusal::Unsafe {
            what: format!(
                "{column} decides to which partition of {} a row belongs: rows that are changed would move while the batches look for them",
                self.table.full_name()
            ),
            advice: Some(
                "fill a new column, or change the rows in one `sql` step if the table is small".to_owned(),
            ),
        })
    }

    fn part(&self, part: &PartFacts, set: &BTreeSet<&Ident>) -> Result<Part, Refusal> {
        let name = format!("{}.{}", part.schema, part.name);
        if part.storage == Storage::Foreign {
            return Err(Refusal::Input {
                what: format!(
                    "{name}, a part of {}, is a foreign table: its rows cannot be changed in batches",
                    self.table.full_name()
                ),
                advice: Some("migrate the database that holds its rows".to_owned()),
            });
        }
        if part.row_security {
            return Err(Refusal::Unsafe {
                what: format!("row security hides rows of {name} from our role: they would be left out without a word"),
                advice: Some(
                    "give the role BYPASSRLS (`ALTER ROLE .. BYPASSRLS`), or work with the table's owner where row security is not forced"
                        .to_owned(),
                ),
            });
        }
        Ok(Part {
            oid: part.oid,
            schema: part.schema.clone(),
            name: part.name.clone(),
            paging: self.paging(part, set)?,
            estimated_rows: part.estimated_rows,
            blocks: part.blocks,
        })
    }

    /// The first key that can carry a cursor; blocks where there is no key at all.
    fn paging(&self, part: &PartFacts, set: &BTreeSet<&Ident>) -> Result<Paging, Refusal> {
        let mut problem = None;
        for key in &part.keys {
            let usable = key.iter().map(|column| self.key_column(column, set)).collect();
            match usable {
                Ok(key) => return Ok(Paging::Key(key)),
                Err(refusal) => problem = problem.or(Some(refusal)),
            }
        }
        match problem {
            Some(refusal) => Err(refusal),
            None => self.by_blocks(part),
        }
    }

    fn key_column(&self, key: &crate::plan::KeyFacts, set: &BTreeSet<&Ident>) -> Result<KeyColumn, Refusal> {
        let table = self.table.full_name();
        let column = self.table.column(&key.column)?;
        let why = match column.ordering {
            Ordering::Exact if set.contains(&column.name) => {
                return Err(Refusal::Unsafe {
                    what: format!(
                        "{} is part of the primary key of {table}, by which the batches find their rows: a row that is changed would be met again",
                        column.name
                    ),
                    advice: Some(
                        "fill a new column and make it the key afterwards, or change the rows in one `sql` step if the table is small"
                            .to_owned(),
                    ),
                });
            }
            Ordering::Exact => {
                return Ok(KeyColumn {
                    name: column.name.clone(),
                    data_type: column.data_type.clone(),
                    collation: column.collation.clone(),
                    sort: key.sort,
                });
            }
            Ordering::Float => "floating point: a value read as text may not be found again",
            Ordering::Nondeterministic => {
                "of a nondeterministic collation: different values may count as equal"
            }
            Ordering::None => "of a type without an order",
        };
        Err(Refusal::Unsafe {
            what: format!("the key column {} of {table} is {why}", column.name),
            advice: Some(
                "add a unique key of other columns that are NOT NULL, or change the rows in one `sql` step if the table is small"
                    .to_owned(),
            ),
        })
    }

    fn by_blocks(&self, part: &PartFacts) -> Result<Paging, Refusal> {
        let advice = match self.repeatable {
            Repeatable::Seen | Repeatable::ByCondition => return Ok(Paging::Blocks),
            Repeatable::Never => "add a primary key first, or fill a new column from the old one",
            Repeatable::Unseen => {
                "add a primary key first, or a `where` that leaves out rows that are done, such as `new_column IS NULL`"
            }
        };
        Err(Refusal::Unsafe {
            what: format!(
                "table {}.{} has no primary key and no unique key of columns that are NOT NULL, so a batch could not tell which rows are done",
                part.schema, part.name
            ),
            advice: Some(advice.to_owned()),
        })
    }

    fn passes(&self, parts: &[Part]) -> Passes {
        let by_blocks = parts.iter().any(|part| part.paging == Paging::Blocks);
        // The trigger also fires where an update brings a row to another partition.
        let kept = matches!(self.kept, Kept::ByTrigger);
        let scattered = by_blocks || (self.table.kind == RelationKind::Partitioned && !kept);
        let unchanged_left_out_from = match self.repeatable {
            _ if !scattered => return Passes::One,
            Repeatable::Never | Repeatable::Unseen => return Passes::One,
            Repeatable::ByCondition => None,
            Repeatable::Seen if by_blocks => Some(1),
            Repeatable::Seen => Some(2),
        };
        Passes::UntilNone {
            unchanged_left_out_from,
        }
    }
}

/// Passes what holds rows of its own.
fn holds_rows(table: &TableFacts) -> Result<(), Refusal> {
    if let RelationKind::Other(what) = table.kind {
        return Err(Refusal::Input {
            what: format!(
                "{} is a {what}: its rows cannot be changed in batches",
                table.full_name()
            ),
            advice: Some("name the table that holds the rows".to_owned()),
        });
    }
    Ok(())
}

/// Passes an expression whose columns there are. `written` is the table's name in the step.
pub(super) fn columns_exist(
    expression: &Expression,
    table: &TableFacts,
    written: &Table,
) -> Result<(), Refusal> {
    // Names in a sub-select may belong to other tables: PostgreSQL finds those that do not exist.
    if expression.has_subquery() {
        return Ok(());
    }
    for name in expression.columns() {
        if !is_table_name(name, table, written) && !is_system_column(name) {
            table.column(name)?;
        }
    }
    Ok(())
}

/// A name that stands for the whole row, or for all rows in a sub-select.
pub(super) fn is_table_name(name: &Ident, table: &TableFacts, written: &Table) -> bool {
    *name == table.name || *name == written.name
}

/// A column that every table has, though no list of its columns.
fn is_system_column(name: &Ident) -> bool {
    ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"].contains(&name.as_str())
}
