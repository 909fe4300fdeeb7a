//! Indexes built and dropped without making applications wait, as a machine of states that are read from the catalog.
//!
//! ```text
//! absent --build under a name of ours--> building --> invalid --drop--> absent
//!                                            |
//!                                            +------> valid --fenced rename, recorded as done--> published
//! ```
//! | module | owns |
//! |---|---|
//! | `definition` | what an index is, as the author wrote it |
//! | `name` | the names of indexes that are being built or dropped: they carry the fence |
//! | `create` | what is to be done next about an index to be built |
//! | `parts` | the same about one of a partitioned table |
//! | `remove` | the same about one to be dropped |
//! | `rebuild` | the same about those to be built anew |
//! | `repair` | what becomes of an index that is not valid |
//! | `progress` | how far a statement is, and whom it waits for, for people |
//!
//! A build is not given a short `lock_timeout` or `statement_timeout`: hit while it waits for old snapshots it would leave
//! an index that every write maintains and no query uses. What it may wait is a budget of ours instead.

mod create;
mod definition;
mod name;
mod parts;
mod progress;
mod rebuild;
mod remove;
mod repair;

pub use create::{Create, Published};
pub use definition::{Definition, Element, Key, Order, Parameter};
pub use name::{Purpose, Temporary};
pub use parts::{NextPart, Part, PartKind, name_of_part};
pub use progress::{Blocker, Progress};
pub use rebuild::{Began, Found, NextRebuild, Rebuild, Role, Target, is_copy_of, rebuild_refused_in};
pub use remove::{Missing, Remove, Removed};
pub use repair::{Broken, Repair};

use repair::is_leftover_of_reindex;

use crate::plan::Refusal;
use std::time::Duration;

/// How long the waits of one statement for other sessions may take, in all, unless the step says otherwise.
pub const WAIT: Duration = Duration::from_mins(30);

/// What is to be done about an index.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// It is to be there.
    Create(Box<Create>),
    /// It is to be there, on a partitioned table and all its partitions.
    CreateParts(Box<Create>),
    /// It is to be gone.
    Remove(Remove),
    /// It is to be built anew, alone or with all of its table.
    Rebuild(Rebuild),
}

/// A relation of a name that we look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Schema and name, quoted for SQL.
    pub full_name: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether queries use it: valid, ready and live.
    pub valid: bool,
    /// What makes it the index it is, in the server's own words.
    pub essence: String,
    /// The statement that would create it, in the server's own words.
    pub definition: String,
    /// The table, quoted in full.
    pub table: String,
    /// The constraint that it is the index of.
    pub constraint: Option<String>,
    /// Whether that is a unique constraint, and no primary key.
    pub unique: bool,
    /// The index of the partitioned table that it is a part of, quoted in full.
    pub part_of: Option<String>,
    /// Whether it is the table's replica identity.
    pub replica_identity: bool,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An index of a table.
    Index,
    /// An index of a partitioned table.
    Partitioned,
    /// No index.
    Other,
}

/// A backend of ours that builds or drops an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its process.
    pub pid: i32,
    /// Its statement, cut off where the server cuts it off, without our tag.
    pub statement: String,
}

/// What the catalog says about one index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What has the final name.
    pub named: Option<Present>,
    /// Indexes under names of ours.
    pub temporary: Vec<Present>,
    /// Backends that are at work on those.
    pub workers: Vec<Worker>,
    /// The essence that the index is to have.
    pub wanted: String,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is as it is to be.
    Done,
    /// Wait until backends of earlier tries are done: what they build is ours.
    Adopt,
    /// End the backend of an earlier try: what it builds is of no use.
    Cancel(Worker),
    /// Drop this index (quoted in full), concurrently.
    Drop(String),
    /// Build it.
    Build,
    /// Give this index (quoted in full) its final name.
    Publish(String),
    /// It is not for us to go on.
    Refuse(Refusal),
}
