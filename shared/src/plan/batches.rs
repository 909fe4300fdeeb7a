//! A loop of batches: over which rows, in which order, with which change.
//!
//! A table is changed relation by relation ([`Part`]): a partitioned table by its leaves, since neither block numbers
//! nor unique keys are unique over all of them. A loop whose rows can move behind its back, to another block or
//! partition, goes over them again until a whole pass finds none ([`Passes`]).

use super::Sort;
use crate::name::Ident;
use std::time::Duration;

/// A loop of fenced batches.
#[derive(Debug, Clone, PartialEq)]
pub struct Batches {
    /// Schema of the table.
    pub schema: Ident,
    /// The table, as expressions may name it.
    pub table: Ident,
    /// The relations that hold its rows.
    pub parts: Vec<Part>,
    /// What becomes of each row.
    pub change: RowChange,
    /// Which rows; all when there is none.
    pub condition: Option<String>,
    /// Where the range ends.
    pub upper: Upper,
    /// How often the rows are gone over.
    pub passes: Passes,
    /// Who keeps rows right that applications write meanwhile.
    pub kept: Kept,
    /// How the result is verified, where it is.
    pub verification: Option<Verification>,
    /// Size and pace, as far as the author says.
    pub pacing: Pacing,
    /// Version of the server, as PostgreSQL numbers it.
    pub server_version: u32,
}

/// One relation that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// How its rows are paged.
    pub paging: Paging,
    /// The planner's estimate of rows.
    pub estimated_rows: u64,
    /// Its size in blocks.
    pub blocks: u64,
}

/// How the rows of a relation are paged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paging {
    /// By the order of a unique key.
    Key(Vec<KeyColumn>),
    /// By block: rows have no key, but a condition leaves out those that are done.
    Blocks,
}

/// One column of a key that is paged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: Ident,
    /// Its type as `format_type` writes it: boundaries travel as text and are cast to it.
    pub data_type: String,
    /// Its collation, quoted in full, where it is not that of its type.
    pub collation: Option<String>,
    /// The order of the index.
    pub sort: Sort,
}

/// What a batch loop does with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Columns get new values.
    Update(Vec<Assignment>),
    /// It goes.
    Delete,
}

/// A column's new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The column.
    pub column: Ident,
    /// A SQL expression over the row.
    pub value: String,
    /// The column's type, as `format_type` writes it.
    pub data_type: String,
    /// How an old value is compared with the new one.
    pub comparison: Comparison,
}

/// How two values of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// By the type's own equality.
    Direct,
    /// As text: the type (`json`, `xml`, `point`) has none.
    AsText,
}

/// Who keeps rows right that applications insert or change while the loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A trigger of ours.
    ByTrigger,
    /// The column's default: only rows that exist have no value.
    ByDefault,
    /// The applications themselves.
    ByApplications,
    /// Nobody: the change is for the rows that the loop meets.
    NotAtAll,
}

/// How the result of a loop is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// A SQL condition that holds for rows whose values are not what the expressions say.
    pub differing: Option<String>,
    /// A SQL condition that holds for rows which the step should have changed.
    pub remaining: Option<String>,
    /// What a row that differs means.
    pub verdict: Verdict,
    /// When it is done.
    pub when: When,
}

/// When the result of a loop is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always: the author asks for it.
    Always,
    /// Where nobody says otherwise, on the canaries of a rollout.
    OnCanaries,
}

/// What a row that differs means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The step is not done: a trigger kept every row right.
    Fail,
    /// A warning: applications may have written it.
    Warn,
}

/// Where the range of a batch loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// At the last row there is when the loop gets there.
    Open,
    /// At the largest key at the start: rows inserted later are not touched.
    AtStart,
}

/// How often the rows are gone over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Once: a row keeps its place.
    One,
    /// Until a pass finds no row to change: an update of an application may move a row behind the cursor.
    UntilNone {
        /// The first pass that leaves out rows which have their new values already; `None` where the condition alone does.
        unchanged_left_out_from: Option<u32>,
    },
}

/// Size and pace, as far as the author of a step says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pacing {
    /// Rows of the first batch; later ones follow the measured time.
    pub first_rows: Option<u32>,
    /// Least pause between two batches of a worker.
    pub pause: Duration,
    /// Time one batch should take.
    pub target: Option<Duration>,
    /// Most workers.
    pub workers: Option<u32>,
    /// Most of its time that a worker works, from above 0 to 1.
    pub max_duty: Option<f64>,
    /// The share of a relation's rows after whose change it is vacuumed between batches, from 0.01 to 1; `None` is never.
    pub vacuum: Option<f64>,
}

impl Batches {
    /// The planner's estimate of all rows.
    pub fn estimated_rows(&self) -> u64 {
        self.parts.iter().map(|part| part.estimated_rows).sum()
    }
}

impl Part {
    /// The full name, quoted for SQL.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

impl Paging {
    /// As the ledger keeps it: a cursor means something only in the order it was written in.
    pub fn as_text(&self) -> String {
        match self {
            Self::Key(columns) => {
                let columns: Vec<String> = columns.iter().map(KeyColumn::as_text).collect();
                format!("key ({})", columns.join(", "))
            }
            Self::Blocks => "blocks".to_owned(),
        }
    }
}

impl KeyColumn {
    fn as_text(&self) -> String {
        let collation = (self.collation.as_ref()).map_or(String::new(), |c| format!(" COLLATE {c}"));
        format!(
            "{} {}{collation}{}",
            self.name,
            self.data_type,
            self.sort.as_sql()
        )
    }
}
