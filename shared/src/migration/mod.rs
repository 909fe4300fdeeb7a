//! Migration files: which there are, in which order, and what each says.
//!
//! Owns discovery (from a list of files already read), parsing, checksums and the typed steps. Does not know any
//! database: what a step becomes on one is [`crate::plan`]'s matter.
//!
//! Data enters as [`File`]s and leaves as a [`Set`], or as [`Problems`], all of them at once, each with its place.

pub mod bundle;
pub mod checksum;
pub mod discover;
pub mod expression;
pub(crate) mod lexer;
mod parser;
pub mod problem;
pub mod scaffold;
pub mod sql_file;
pub mod steps;
mod undo;
pub mod version;
mod yaml;

use crate::id::{Digest, SetName};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use parser::is_parsing;
pub use problem::{Position, Problem, Problems};
pub use steps::Change;
pub use version::Version;

/// One file of a set, as read from disk or from a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Path as the user would write it (used in messages); its last part decides what the file is.
    pub path: String,
    /// The bytes.
    pub content: Vec<u8>,
}

/// Migrations with one history, sorted by version, each version once.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// The set's name.
    pub name: SetName,
    /// In ascending order of version.
    pub migrations: Vec<Migration>,
}

/// One version of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Sorts the set.
    pub version: Version,
    /// The name after the version in the file's name, or the one that a YAML file gives.
    pub name: String,
    /// What `up` does.
    pub up: Script,
    /// What `down` does, where the author wrote it; else steps are undone automatically where they can be.
    pub down: Option<Script>,
}

/// The steps of one direction of a migration.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// The path of the file it stands in.
    pub file: String,
    /// The whole text of that file (a YAML file holds both directions), kept in the ledger.
    pub text: String,
    /// Of the meaning: tokens and directives, not comments or white space. Separate for up and down.
    pub checksum: Digest,
    /// Settings this migration overrides for itself.
    pub options: Options,
    /// In order of execution; never empty.
    pub steps: Vec<Step>,
}

/// What a migration may override for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Budget for waiting for locks, over all attempts.
    pub lock_timeout: Option<Duration>,
    /// The longest single statement; zero switches the limit off.
    pub statement_timeout: Option<Duration>,
    /// Sessions that stand in the way of a lock, idle in their transaction for longer than this, are ended.
    pub cancel_idle_in_transaction: Option<Duration>,
}

/// One typed change.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where it stands in its file.
    pub at: Position,
    /// Of this step's meaning alone.
    pub checksum: Digest,
    /// What it does.
    pub change: Change,
    /// What it overrides: before what its migration does.
    pub options: Options,
}

impl Set {
    /// The migration of a version, if the set has it.
    pub fn find(&self, version: &Version) -> Option<&Migration> {
        self.migrations
            .binary_search_by(|m| m.version.cmp(version))
            .ok()
            .map(|i| &self.migrations[i])
    }
}
