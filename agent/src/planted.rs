//! Mistakes on purpose, for the tests of the tests: each breaks one rule of the batch loop, and the chaos tests must notice.
//!
//! Compiled only with the cargo feature `planted-bugs`; `CONFITURE_PLANTED` chooses one of them for a process.

use crate::error::Error;
use crate::session::Session;
use shared::sql::{Limits, Tag};
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

static CHOSEN: LazyLock<Option<Bug>> = LazyLock::new(|| {
    let name = std::env::var("CONFITURE_PLANTED").ok()?;
    Some(Bug::named(&name).expect("CONFITURE_PLANTED names a bug"))
});

/// Where ranges stand, by the word of this process instead of the ledger's.
static MEMORY: Mutex<BTreeMap<Range, Option<Vec<String>>>> = Mutex::new(BTreeMap::new());

/// Step and shard.
pub(crate) type Range = (u32, i32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Rows are committed first, the cursor in a transaction after it.
    SeparateCheckpoint,
    /// The range's row is read and not locked.
    PlainRead,
    /// It is locked in a way that a takeover does not wait for.
    KeyShare,
    /// Rows that others have locked are left out, and the cursor moves past them.
    SkipLockedCursor,
    /// A COMMIT without an answer counts as failed, and its batch is done again.
    RetryUnknownCommit,
    /// The cursor is kept in memory, also when the batch that moved it is rolled back.
    CursorInMemory,
}

impl Bug {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "separate_checkpoint" => Self::SeparateCheckpoint,
            "plain_read" => Self::PlainRead,
            "key_share" => Self::KeyShare,
            "skip_locked_cursor" => Self::SkipLockedCursor,
            "retry_unknown_commit" => Self::RetryUnknownCommit,
            "cursor_in_memory" => Self::CursorInMemory,
            _ => return None,
        })
    }
}

fn chosen(bug: Bug) -> bool {
    *CHOSEN == Some(bug)
}

fn memory() -> MutexGuard<'static, BTreeMap<Range, Option<Vec<String>>>> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The statement that locks a range's row.
pub(crate) fn lock_shard(statement: &str) -> String {
    if chosen(Bug::PlainRead) {
        statement.replace("FOR NO KEY UPDATE", "")
    } else if chosen(Bug::KeyShare) {
        statement.replace("FOR NO KEY UPDATE", "FOR KEY SHARE")
    } else {
        statement.to_owned()
    }
}

/// Where a batch begins.
pub(crate) fn recall(range: Range, from: &mut Option<Vec<String>>) {
    let known = memory().remove(&range);
    if let Some(known) = known {
        *from = known;
    }
}

/// The statement that changes the rows of a range.
pub(crate) fn change(statement: String) -> String {
    if !chosen(Bug::SkipLockedCursor) {
        return statement;
    }
    let table = (statement.strip_prefix("UPDATE ")).and_then(|rest| rest.split_once(" SET "));
    let (Some((table, _)), Some((_, range))) = (table, statement.split_once(" WHERE ")) else {
        return statement;
    };
    format!(
        "{statement} AND ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {range} FOR UPDATE SKIP LOCKED))"
    )
}

/// The rows of a batch have been changed, and its cursor is to move to `end`.
pub(crate) async fn changed(
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
    range: Range,
    end: Option<&Vec<String>>,
) -> Result<(), Error> {
    if chosen(Bug::CursorInMemory) {
        memory().insert(range, end.cloned());
    }
    if chosen(Bug::SeparateCheckpoint) {
        session.commit(tag).await?;
        session
            .begin_with(tag, limits, "moving the cursor", "SELECT 1", &[])
            .await?;
    }
    Ok(())
}

/// A COMMIT has ended; its batch began at `from`.
pub(crate) fn committed(ended: &Result<(), Error>, range: Range, from: Option<&Vec<String>>) {
    if chosen(Bug::RetryUnknownCommit) && ended.as_ref().is_err_and(|error| error.sqlstate().is_none()) {
        memory().insert(range, from.cloned());
    }
}
