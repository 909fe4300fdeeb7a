//! Every SQL text we send.
//!
//! Identifiers are quoted by [`crate::name::Ident`]'s `Display`; values are bind parameters, or literals by
//! [`literal`] where the protocol takes none (`SET LOCAL`). Our own statements name every schema, `pg_catalog` too,
//! and never depend on `search_path` or role.

pub mod assertion;
pub mod audit;
pub mod batch;
mod change;
mod constraint;
pub mod facts;
pub mod health;
pub mod index;
pub mod ledger;
pub mod lock;
pub mod pooler;
pub mod room;
pub mod schema;
mod shape;
pub mod sync;
mod table;
mod type_name;
pub mod uses;
pub mod vacuum;

use crate::fence::Fence;
use crate::id::SetName;
use crate::migration::Version;
use std::fmt;
use std::time::Duration;

pub use change::*;
pub use constraint::*;
pub use shape::{shape, unquoted};
pub use table::*;
pub use type_name::TypeName;

/// The comment that opens each statement of a run: it survives poolers and tells our backends apart in
/// `pg_stat_activity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Set, version and step (from 1) at work, where there is one.
    pub place: Option<(SetName, Version, u32)>,
    /// The fence of the run.
    pub fence: Fence,
}

impl Tag {
    /// Of statements that belong to no run.
    pub const OF_NO_RUN: Self = Self {
        place: None,
        fence: Fence::NONE,
    };
}

/// What the SQLSTATEs begin with under which statements of ours raise; no class of PostgreSQL's.
pub const OURS: &str = "CF";

/// What each of our tags begins with.
pub const TAG_START: &str = "/*confiture ";

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TAG_START)?;
        if let Some((set, version, step)) = &self.place {
            write!(f, "s={set} v={version} n={step} ")?;
        }
        write!(f, "f={}*/ ", self.fence)
    }
}

/// Reads the fence out of a statement's tag; `None` when it carries none of ours.
pub fn tagged_fence(statement: &str) -> Option<Fence> {
    let tag = statement.strip_prefix(TAG_START)?.split_once("*/")?.0;
    tag.split(' ')
        .find_map(|part| part.strip_prefix("f="))
        .and_then(|fence| fence.parse().ok())
}

/// A string literal.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// The limits of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for one lock.
    pub lock: Duration,
    /// Longest statement; `None` is no limit.
    pub statement: Option<Duration>,
    /// Whether the commit waits for the disk.
    pub commit: Commit,
}

impl Limits {
    /// The settings that hold them, by name.
    fn settings(self) -> [(&'static str, String); 4] {
        let commit = match self.commit {
            Commit::Durable => "on",
            Commit::Deferred => "off",
        };
        let statement = self.statement.unwrap_or_default();
        [
            ("lock_timeout", milliseconds(self.lock).to_string()),
            ("statement_timeout", milliseconds(statement).to_string()),
            (
                "idle_in_transaction_session_timeout",
                milliseconds(IDLE_IN_TRANSACTION).to_string(),
            ),
            ("synchronous_commit", commit.to_owned()),
        ]
    }
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It does.
    Durable,
    /// It does not: right only where what is lost is lost together and done again.
    Deferred,
}

/// After how long PostgreSQL ends a transaction of ours that does nothing: its agent is gone or frozen.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// Takes `"$user"` out of the `search_path` of a role that is called as the ledger's schema: its unqualified names would
/// otherwise lead into the ledger, and `CREATE TABLE x` would make a table there.
const LEAVE_LEDGER: &str = r#"CASE WHEN current_user = 'confiture' THEN pg_catalog.set_config('search_path',
  pg_catalog.regexp_replace(pg_catalog.current_setting('search_path'), '"\$user"\s*,?\s*', ''), true) END"#;

/// Output styles are fixed, so that boundaries written as text in one session read the same in another.
const STYLES: [(&str, &str); 3] = [
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "iso_8601"),
    ("bytea_output", "hex"),
];

/// A role may ask for plans that fit any parameters: for any range of a table that can mean to read all of it.
const PLAN_THE_RANGE: &str = "CASE WHEN pg_catalog.current_setting('plan_cache_mode') = 'force_generic_plan'
  THEN pg_catalog.set_config('plan_cache_mode', 'auto', true) END";

/// Opens a transaction, and sets nothing.
pub fn begin_alone(tag: &Tag) -> String {
    format!("{tag}BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
}

/// Opens a transaction with its limits. Everything is `SET LOCAL`, so nothing leaks behind a pooler.
pub fn begin(tag: &Tag, limits: Limits) -> String {
    let styles = STYLES.map(|(name, value)| format!("; {tag}SET LOCAL {name} = '{value}'"));
    format!(
        "{}{}; {tag}SELECT {LEAVE_LEDGER}",
        begin_books(tag, limits),
        styles.concat()
    )
}

/// The same for a transaction of the ledger alone: its statements name every schema, and read the same in any style.
pub fn begin_books(tag: &Tag, limits: Limits) -> String {
    let set = limits
        .settings()
        .map(|(name, value)| format!("; {tag}SET LOCAL {name} = '{value}'"));
    begin_alone(tag) + &set.concat()
}

/// What [`begin`] sets, as one statement to follow [`begin_alone`] where the server keeps statements: to run a plan that is
/// kept costs next to nothing, to read nine statements does. Gives the session's mark (see [`pooler`]).
pub fn settings(tag: &Tag, limits: Limits) -> String {
    let limits = limits.settings();
    let limits = limits.iter().map(|(name, value)| (*name, value.as_str()));
    let set: Vec<String> = limits
        .chain(STYLES)
        .map(|(name, value)| format!("pg_catalog.set_config('{name}', '{value}', true)"))
        .collect();
    format!(
        "{tag}{}, {}, {LEAVE_LEDGER}, {PLAN_THE_RANGE}",
        pooler::MARK,
        set.join(", ")
    )
}

/// Opens a transaction that sees one moment and changes nothing, in which PostgreSQL writes definitions the same way whoever
/// asks: with every schema named.
pub fn begin_reading(tag: &Tag, limits: Limits) -> String {
    let statement = limits.statement.unwrap_or_default();
    [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        format!("SET LOCAL lock_timeout = {}", milliseconds(limits.lock)),
        format!("SET LOCAL statement_timeout = {}", milliseconds(statement)),
        format!(
            "SET LOCAL idle_in_transaction_session_timeout = {}",
            milliseconds(IDLE_IN_TRANSACTION)
        ),
        "SET LOCAL search_path = ''".to_owned(),
        "SET LOCAL quote_all_identifiers = off".to_owned(),
        "SET LOCAL timezone = 'UTC'".to_owned(),
        "SET LOCAL datestyle = 'ISO, YMD'".to_owned(),
        "SET LOCAL intervalstyle = 'iso_8601'".to_owned(),
        "SET LOCAL bytea_output = 'hex'".to_owned(),
        "SET LOCAL extra_float_digits = 1".to_owned(),
    ]
    .map(|statement| format!("{tag}{statement}"))
    .join("; ")
}

/// How long the statements that follow in the transaction wait for a lock.
pub fn lock_timeout(limit: Duration) -> String {
    format!("SET LOCAL lock_timeout = {}", milliseconds(limit))
}

/// A timeout as PostgreSQL reads it: whole milliseconds, at least 1 unless it is none at all.
fn milliseconds(duration: Duration) -> u128 {
    if duration.is_zero() {
        0
    } else {
        duration.as_millis().clamp(1, 2_147_483_647)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_gives_its_fence_back() {
        let fence = Fence {
            epoch: 1,
            token: 22,
            local: 3,
        };
        let tag = Tag {
            place: Some((SetName::default_set(), "007".parse().unwrap(), 2)),
            fence,
        };
        assert_eq!(tag.to_string(), "/*confiture s=default v=007 n=2 f=1.22.3*/ ");
        assert_eq!(tagged_fence(&format!("{tag}SELECT 1")), Some(fence));
        assert_eq!(tagged_fence("SELECT '/*confiture f=1.2.3*/'"), None);
    }

    #[test]
    fn literals_keep_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }

    #[test]
    fn a_sub_millisecond_timeout_does_not_become_none() {
        assert_eq!(milliseconds(Duration::from_micros(10)), 1);
        assert_eq!(milliseconds(Duration::ZERO), 0);
    }
}
