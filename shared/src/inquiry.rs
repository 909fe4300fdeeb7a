//! What is asked about one database, and what its agent answers. Nothing is changed by it, so neither a lease nor a term is
//! needed, and nothing of it is written down.

use crate::id::Digest;
use crate::plan::{Outlook, Strategies};
use crate::pool;
use crate::survey::{Detail, Survey};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inquiry {
    /// What does it look like?
    Survey(Detail),
    /// What would the migrations of a bundle do there, where these strategies are said?
    Plan {
        /// Which.
        bundle: Digest,
        /// Said for its tables.
        strategies: Strategies,
    },
    /// Does this query give true?
    Check(String),
    /// How are the connections that this agent has to it?
    Pools,
}

/// The answer to a question of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// See [`Inquiry::Survey`].
    Survey(Survey),
    /// See [`Inquiry::Plan`].
    Plan(Outlook),
    /// See [`Inquiry::Check`].
    Check(Checked),
    /// See [`Inquiry::Pools`].
    Pools(pool::Pools),
}

/// What came of a check on one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The query gives true.
    Holds,
    /// It gives false.
    Fails,
    /// The query itself is wrong there, and will be when it is asked again: what the server said.
    Wrong(String),
}

/// Which of the agents that serve a database are to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// One: the answer is the database's.
    Any,
    /// Each: the answer is the agent's own.
    Each,
}

impl Inquiry {
    /// The bundle that whoever answers must have.
    pub fn bundle(&self) -> Option<Digest> {
        match self {
            Self::Plan { bundle, .. } => Some(*bundle),
            Self::Survey(_) | Self::Check(_) | Self::Pools => None,
        }
    }

    /// Who is to be asked.
    pub fn whom(&self) -> Whom {
        match self {
            Self::Survey(_) | Self::Plan { .. } | Self::Check(_) => Whom::Any,
            Self::Pools => Whom::Each,
        }
    }
}
