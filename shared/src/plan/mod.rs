//! What one step becomes on one database: actions, from the facts that were inspected there.
//!
//! Facts enter by value (the agent reads them), actions leave by value (the agent carries them out). A step that was
//! interrupted is planned again from fresh facts, and what it did already is then no longer in the plan.

mod batches;
mod facts;
mod outlook;
pub mod strategy;
mod uses;

use crate::lock::Mode;
use crate::migration::steps::{Outside, Session};

pub use batches::*;
pub use facts::*;
pub use outlook::*;
pub use strategy::{Strategies, Strategy};
pub use uses::*;

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
    /// A loop of fenced batches over the rows of a table.
    Batches(Box<Batches>),
    /// A query that must hold; it changes nothing.
    Assert(Assertion),
    /// A statement that PostgreSQL refuses inside a transaction and that is safe to repeat: recorded as begun, run, recorded
    /// as done.
    Outside(Alone),
    /// An index built or dropped outside a transaction, in several statements.
    Index(crate::index::Work),
    /// What follows is planned again, from what the catalog says by then.
    LookAgain,
}

/// One statement outside of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// As written.
    pub statement: String,
    /// What it does to others.
    pub outside: Outside,
    /// The tables on which it takes a lock, as SQL names them.
    pub locks: Vec<(Mode, String)>,
}

/// Statements in one fenced transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// Sent one after the other. A SQL file is one text of many statements.
    pub statements: Vec<String>,
    /// Whether the statements may change settings of the session.
    pub session: Session,
    /// The strongest lock it takes on the tables that the step names.
    pub lock: Mode,
    /// How long it may take.
    pub length: Length,
    /// How to take back what the step's transactions before it put in place, when its statements fail for good.
    pub withdraw: Option<Withdraw>,
    /// The tables on which it takes its lock, as SQL names them; those that the step names where there are none.
    pub on: Vec<String>,
    /// Other tables on which it takes a lock, as SQL names them.
    pub also: Vec<(Mode, String)>,
    /// Whether it only creates what nobody knows yet: nobody can be in its way, and nobody can wait behind it.
    pub creates_only: bool,
}

/// How a step that failed half-way leaves nothing behind that applications would notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdraw {
    /// One statement, or several with `;` between them.
    pub statement: String,
    /// A query that finds the rows which violate the constraint; said when that is why the statements failed.
    pub find: String,
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

/// A query that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Returns one row with one boolean.
    pub query: String,
    /// What is said when it does not hold.
    pub message: Option<String>,
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
            lock: Mode::AccessExclusive,
            length: Length::Bounded,
            withdraw: None,
            on: Vec::new(),
            also: Vec::new(),
            creates_only: false,
        }
    }

    /// The same, which locks these tables, not all that the step names.
    #[must_use]
    pub fn on(mut self, tables: &[&str]) -> Self {
        self.on = tables.iter().map(|table| (*table).to_owned()).collect();
        self
    }

    /// The same with another lock.
    #[must_use]
    pub fn locking(mut self, lock: Mode) -> Self {
        self.lock = lock;
        self
    }

    /// One statement that reads the whole table under a weak lock, after what `withdraw` takes back.
    pub fn long(statement: String, withdraw: Withdraw) -> Self {
        Self {
            statements: vec![statement],
            session: Session::Clean,
            lock: Mode::ShareUpdateExclusive,
            length: Length::Long,
            withdraw: Some(withdraw),
            on: Vec::new(),
            also: Vec::new(),
            creates_only: false,
        }
    }
}
