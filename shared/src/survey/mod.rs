//! What the databases of a fleet look like: which versions are applied, and which shape their schemas have.
//!
//! An agent surveys a database (its ledger and its catalog, at one moment, changing nothing); the answers of many make a
//! census: few shapes, each with its databases, and what is different between two of them, object by object.
//!
//! | module | owns |
//! |---|---|
//! | [`schema`] | a schema in named parts, its fingerprint, and how two differ |
//! | [`census`] | databases by shape, and which shape is the majority's |

pub mod census;
pub mod schema;

pub use census::Census;
pub use schema::{Difference, Schema};

use crate::id::Digest;

/// How much of a database is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Versions and the fingerprint.
    Fingerprint,
    /// The parts of the schema as well: 100 bytes for each column, more for views.
    Schema,
}

/// What one database looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Of the schema, without our own.
    pub fingerprint: Digest,
    /// In order of their names; empty where Confiture never worked.
    pub sets: Vec<Versions>,
    /// Where it was asked for.
    pub schema: Option<Schema>,
}

/// Where one migration set stands in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versions {
    /// Its name.
    pub set: String,
    /// Versions applied, as written, in their order.
    pub applied: Vec<String>,
    /// Versions half applied or half undone, in their order.
    pub partial: Vec<String>,
}
