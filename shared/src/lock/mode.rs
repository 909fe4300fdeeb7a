//! The locks on tables that our statements take, and what is in their way.

/// The strongest lock a transaction takes on the tables that its step names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// None on a table: an index gets another name or another parent, and its tries tell whether somebody has it.
    IndexOnly,
    /// `SHARE UPDATE EXCLUSIVE`: readers and writers go on (VALIDATE).
    ShareUpdateExclusive,
    /// `SHARE`: readers go on (an index that is not built concurrently).
    Share,
    /// `SHARE ROW EXCLUSIVE`: readers go on (a trigger, a foreign key).
    ShareRowExclusive,
    /// `ACCESS EXCLUSIVE`: nobody goes on.
    AccessExclusive,
}

/// From weak to strong, as `pg_locks` spells them.
const ALL: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// What `SHARE` conflicts with.
const SHARE: [&str; 5] = [ALL[2], ALL[3], ALL[5], ALL[6], ALL[7]];

impl Mode {
    /// The modes of others that it waits for, as `pg_locks` spells them.
    pub fn in_the_way(self) -> &'static [&'static str] {
        match self {
            Self::IndexOnly => &[],
            Self::AccessExclusive => &ALL,
            Self::ShareRowExclusive => &ALL[2..],
            // Several at once go together.
            Self::Share => &SHARE,
            Self::ShareUpdateExclusive => &ALL[3..],
        }
    }
}
