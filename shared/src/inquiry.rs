//! What is asked about one database, and what its agent answers. Nothing is changed by it, so neither a lease nor a term is
//! needed, and nothing of it is written down.

use crate::id::Digest;
use crate::plan::Outlook;
use crate::survey::{Detail, Survey};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inquiry {
    /// What does it look like?
    Survey(Detail),
    /// What would the migrations of a bundle do there?
    Plan(Digest),
    /// Does this query give true?
    Check(String),
}

/// The answer to a question of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// See [`Inquiry::Survey`].
    Survey(Survey),
    /// See [`Inquiry::Plan`].
    Plan(Outlook),
    /// See [`Inquiry::Check`].
    Check(bool),
}

impl Inquiry {
    /// The bundle that whoever answers must have.
    pub fn bundle(&self) -> Option<Digest> {
        match self {
            Self::Plan(bundle) => Some(*bundle),
            Self::Survey(_) | Self::Check(_) => None,
        }
    }
}
