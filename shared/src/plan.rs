//! What one step becomes on one database: actions, from the facts that were inspected there.
//!
//! Facts enter by value (the agent reads them), actions leave by value (the agent carries them out). A step that was
//! interrupted is planned again from fresh facts, and what it did already is then no longer in the plan.

use crate::migration::steps::Session;
use crate::name::{Ident, Table};
use std::collections::BTreeMap;
use std::time::Duration;

/// What an agent found out about the tables a step names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// By the name as written in the step.
    pub tables: BTreeMap<Table, Lookup>,
    /// In a dry run: an earlier step's effect is not known, so a table or column may exist by then.
    pub uncertain: bool,
}

/// What a table's name led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// There is such a relation.
    Found(TableFacts),
    /// There is none.
    Missing {
        /// A relation whose exact name is what the user may have meant, quoted as it must be written.
        similar: Option<String>,
    },
}

/// What kind of relation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary table.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view, materialized view, foreign table, or another relation whose rows cannot be changed in place.
    Other(&'static str),
}

/// One relation as the catalog has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFacts {
    /// The schema it was found in.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// What it is.
    pub kind: RelationKind,
    /// In the table's order, without dropped ones.
    pub columns: Vec<ColumnFacts>,
    /// The primary key's columns in the key's order; empty when there is none.
    pub primary_key: Vec<Ident>,
    /// Check constraints.
    pub checks: Vec<CheckFacts>,
    /// The planner's estimate of rows; 0 when it has none.
    pub estimated_rows: u64,
    /// Size of the table without indexes, in bytes.
    pub bytes: u64,
}

/// One column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Its name.
    pub name: Ident,
    /// Its type as `format_type` writes it.
    pub data_type: String,
    /// Whether NULL is refused.
    pub nullability: Nullability,
    /// Where its value comes from when a row does not give one.
    pub source: Source,
    /// Whether keys of this type can be ordered and compared exactly.
    pub ordering: Ordering,
}

/// Whether a column takes NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nullability {
    /// It does.
    Nullable,
    /// It does not.
    NotNull,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The row, or a default of no further interest.
    Plain,
    /// An identity or a sequence's next value: it grows with insertion.
    Growing,
    /// Generated from other columns: it cannot be set.
    Generated,
}

/// Whether a type can carry a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// It has a default B-tree order, and equal means identical.
    Exact,
    /// Floating point: equal values may not be found again.
    Float,
    /// A collation in which different texts can be equal.
    Nondeterministic,
    /// No default B-tree order.
    None,
}

/// One check constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFacts {
    /// Its name.
    pub name: Ident,
    /// As `pg_get_constraintdef` writes it.
    pub definition: String,
    /// Whether it is known to hold for all rows.
    pub validated: bool,
}

/// Why a step cannot be planned on a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something the step names is not there, or not of the right kind: exit code 2.
    #[error("{what}")]
    Input {
        /// What is wrong, naming it.
        what: String,
        /// What to do.
        advice: Option<String>,
    },
    /// A safety rule forbids it: exit code 3.
    #[error("{what}")]
    Unsafe {
        /// What is refused, and why.
        what: String,
        /// What would be allowed.
        advice: Option<String>,
    },
}

/// One thing the agent does for a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Statements in one fenced transaction.
    Transaction(Transaction),
    /// A loop of fenced batches over one key range.
    Batches(Batches),
    /// A query that must hold; it changes nothing.
    Assert(Assertion),
    /// A statement that PostgreSQL refuses inside a transaction: recorded as begun, run, verified, recorded as done.
    Outside(crate::migration::steps::Outside),
}

/// Statements in one fenced transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// Sent one after the other. A SQL file is one text of many statements.
    pub statements: Vec<String>,
    /// Whether the statements may change settings of the session.
    pub session: Session,
    /// How long it may take.
    pub length: Length,
    /// How to take back what the step's transactions before it put in place, when its statements fail for good.
    pub withdraw: Option<Withdraw>,
}

/// How a step that failed half-way leaves nothing behind that applications would notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdraw {
    /// The statement.
    pub statement: String,
    /// What is said once it is done.
    pub done: &'static str,
    /// What is said when it could not be.
    pub left: &'static str,
}

/// How long a transaction may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// It takes a strong lock: every statement ends within `statement_timeout`.
    Bounded,
    /// It reads the whole table under a weak lock (VALIDATE): no `statement_timeout`.
    Long,
}

/// A loop of fenced batches over one key range.
#[derive(Debug, Clone, PartialEq)]
pub struct Batches {
    /// Schema of the table.
    pub schema: Ident,
    /// The table.
    pub table: Ident,
    /// The key in its order.
    pub key: Vec<KeyColumn>,
    /// What becomes of each row.
    pub change: RowChange,
    /// Which rows; all when there is none.
    pub condition: Option<String>,
    /// Where the range ends.
    pub upper: Upper,
    /// Rows of the first batch; later ones follow the measured time. `None` leaves it to the agent.
    pub first_rows: Option<u32>,
    /// Pause between batches.
    pub pause: Duration,
    /// Estimated rows of the table, for progress.
    pub estimated_rows: u64,
}

/// What a batch loop does with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Columns get new values: SQL expressions over the row.
    Update(Vec<(Ident, String)>),
    /// It goes.
    Delete,
}

/// One column of a batch loop's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: Ident,
    /// Its type as `format_type` writes it: boundaries travel as text and are cast to it.
    pub data_type: String,
}

/// Where the range of a batch loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// At the last row there is when the loop gets there.
    Open,
    /// At the largest key at the start: rows inserted later are not touched.
    AtStart,
}

/// A query that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Returns one row with one boolean.
    pub query: String,
    /// What is said when it does not hold.
    pub message: Option<String>,
}

impl Facts {
    /// The facts of a table that must exist.
    ///
    /// # Errors
    /// When it does not; the message names a table that may have been meant.
    pub fn table(&self, table: &Table) -> Result<&TableFacts, Refusal> {
        match self.tables.get(table) {
            Some(Lookup::Found(facts)) => Ok(facts),
            Some(Lookup::Missing { similar }) => Err(Refusal::Input {
                what: format!("table {table} does not exist"),
                advice: Some(match similar {
                    Some(similar) => format!("there is {similar}: write it as shown"),
                    None => "check the name, its schema, and that an earlier migration creates it".to_owned(),
                }),
            }),
            None => Err(Refusal::Input {
                what: format!("table {table} was not inspected"),
                advice: None,
            }),
        }
    }

    /// Notes that a column takes NULL or no longer does; nothing happens where there is no such column.
    pub fn set_nullability(&mut self, table: &Table, column: &Ident, nullability: Nullability) {
        if let Some(column) = self
            .table_mut(table)
            .and_then(|t| t.columns.iter_mut().find(|c| c.name == *column))
        {
            column.nullability = nullability;
        }
    }

    /// The facts of a table for [`crate::migration::steps::Kind::effect`], which ignores one that is missing.
    pub fn table_mut(&mut self, table: &Table) -> Option<&mut TableFacts> {
        match self.tables.get_mut(table) {
            Some(Lookup::Found(facts)) => Some(facts),
            _ => None,
        }
    }
}

impl Transaction {
    /// One statement that takes a strong lock.
    pub fn bounded(statement: String) -> Self {
        Self::bounded_all(vec![statement])
    }

    /// Statements that take a strong lock, together.
    pub fn bounded_all(statements: Vec<String>) -> Self {
        Self {
            statements,
            session: Session::Clean,
            length: Length::Bounded,
            withdraw: None,
        }
    }

    /// One statement that reads the whole table under a weak lock, after what `withdraw` takes back.
    pub fn long(statement: String, withdraw: Withdraw) -> Self {
        Self {
            statements: vec![statement],
            session: Session::Clean,
            length: Length::Long,
            withdraw: Some(withdraw),
        }
    }
}

impl TableFacts {
    /// The full name, quoted for SQL.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Passes for ordinary and partitioned tables.
    ///
    /// # Errors
    /// For views and other relations.
    pub fn must_be_a_table(&self) -> Result<(), Refusal> {
        match self.kind {
            RelationKind::Table | RelationKind::Partitioned => Ok(()),
            RelationKind::Other(what) => Err(Refusal::Input {
                what: format!("{} is a {what}, not a table", self.full_name()),
                advice: Some("name a table, or use a `sql` step".to_owned()),
            }),
        }
    }

    /// A column, if there is one.
    pub fn find(&self, name: &Ident) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// What to say to one who looks for a column that is not there.
    fn columns_like(&self, name: &Ident) -> String {
        const SHOWN: usize = 12;
        let same = |column: &&ColumnFacts| column.name.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(column) = self.columns.iter().find(same) {
            return format!("there is {}: write it as shown", column.name);
        }
        let names: Vec<String> = (self.columns.iter().take(SHOWN))
            .map(|column| column.name.to_string())
            .collect();
        let more = if self.columns.len() > SHOWN { ", .." } else { "" };
        format!("it has {}{more}", names.join(", "))
    }

    /// A column that must exist.
    ///
    /// # Errors
    /// When it does not; the message names a column that may have been meant.
    pub fn column(&self, name: &Ident) -> Result<&ColumnFacts, Refusal> {
        self.find(name).ok_or_else(|| Refusal::Input {
            what: format!("table {} has no column {name}", self.full_name()),
            advice: Some(self.columns_like(name)),
        })
    }
}
