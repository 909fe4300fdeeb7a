//! The tables of the file, and every change to them. Blocking; called from threads that may block.
//!
//! One [`Change`] is one redb transaction and may carry out many requests: each sees what those before it did, and all
//! become durable together or not at all.

use crate::store::{Bound, Condition, Entry, LeaseId, Listing, Outcome, Transaction, Write};
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use std::time::Duration;

/// Key -> created, modified, lease (0: none), value.
const ENTRIES: TableDefinition<'_, &str, (i64, i64, i64, &[u8])> = TableDefinition::new("entries");
/// Lease -> time to live in milliseconds, [`bound_code`].
const LEASES: TableDefinition<'_, i64, (u64, u8)> = TableDefinition::new("leases");
/// (lease, key): which keys vanish with a lease.
const BINDINGS: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("bindings");
/// Name -> value: the three below.
const COUNTERS: TableDefinition<'_, &str, i64> = TableDefinition::new("counters");

/// The version of this layout.
const FORMAT: &str = "format";
/// The revision of the last change.
const REVISION: &str = "revision";
/// The last lease granted; none is ever given twice.
const LEASE: &str = "lease";

/// The layout that this version reads and writes.
const CURRENT_FORMAT: i64 = 1;

/// What no lease is called.
const NO_LEASE: i64 = 0;

/// What a database file turned out to hold.
pub(super) enum Holds {
    /// Our tables, in the layout of this version.
    Store,
    /// Nothing yet: it was created, but a crash came before its founding.
    Nothing,
    /// Our tables in the layout of another version.
    OtherFormat(i64),
    /// Tables of another program.
    Foreign,
}

/// Looks what a database holds, without changing it.
pub(super) fn holds(database: &Database) -> Result<Holds, redb::Error> {
    let transaction = database.begin_read()?;
    if transaction.list_tables()?.next().is_none() {
        return Ok(Holds::Nothing);
    }
    let counters = match transaction.open_table(COUNTERS) {
        Ok(counters) => counters,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(Holds::Foreign),
    };
    Ok(match counters.get(FORMAT)?.map(|value| value.value()) {
        Some(CURRENT_FORMAT) => Holds::Store,
        Some(other) => Holds::OtherFormat(other),
        None => Holds::Foreign,
    })
}

/// Writes the empty tables of a new store.
pub(super) fn found(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LEASES)?;
        transaction.open_table(BINDINGS)?;
        let mut counters = transaction.open_table(COUNTERS)?;
        counters.insert(FORMAT, CURRENT_FORMAT)?;
        // The first change is revision 2, as in etcd: 0 and 1 stand for "nothing yet".
        counters.insert(REVISION, 1)?;
        counters.insert(LEASE, NO_LEASE)?;
    }
    Ok(transaction.commit()?)
}

/// Reads one key.
pub(super) fn read(database: &Database, key: &str) -> Result<Option<Entry>, redb::Error> {
    let entries = database.begin_read()?.open_table(ENTRIES)?;
    let found = entries.get(key)?;
    Ok(found.map(|row| entry(key, row.value())))
}

/// Reads all keys below a prefix.
pub(super) fn list(database: &Database, prefix: &str) -> Result<Listing, redb::Error> {
    let transaction: ReadTransaction = database.begin_read()?;
    let table = transaction.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    for row in table.range(prefix..)? {
        let (key, row) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), row.value()));
    }
    let counters = transaction.open_table(COUNTERS)?;
    let revision = counter(&counters, REVISION)?;
    Ok(Listing { entries, revision })
}

/// All leases and their times to live.
pub(super) fn leases(database: &Database) -> Result<Vec<(LeaseId, Duration)>, redb::Error> {
    let table = database.begin_read()?.open_table(LEASES)?;
    table
        .iter()?
        .map(|row| {
            let (id, row) = row?;
            Ok((LeaseId(id.value()), Duration::from_millis(row.value().0)))
        })
        .collect()
}

/// The leases that end with the process that held the store.
pub(super) fn process_leases(database: &Database) -> Result<Vec<LeaseId>, redb::Error> {
    let table = database.begin_read()?.open_table(LEASES)?;
    let mut found = Vec::new();
    for row in table.iter()? {
        let (id, row) = row?;
        if row.value().1 == bound_code(Bound::Process) {
            found.push(LeaseId(id.value()));
        }
    }
    Ok(found)
}

/// How a transaction ended, lease troubles included.
pub(super) enum Decided {
    /// Carried out or refused.
    Outcome(Outcome),
    /// A lease it names does not exist.
    LeaseGone(LeaseId),
}

/// The tables, opened for a change.
pub(super) struct Change<'t> {
    entries: Table<'t, &'static str, (i64, i64, i64, &'static [u8])>,
    leases: Table<'t, i64, (u64, u8)>,
    bindings: Table<'t, (i64, &'static str), ()>,
    counters: Table<'t, &'static str, i64>,
    revision: i64,
    written: bool,
}

impl<'t> Change<'t> {
    /// Opens the tables in a transaction that the caller commits, if [`Change::finish`] says so.
    pub(super) fn begin(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let counters = transaction.open_table(COUNTERS)?;
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            leases: transaction.open_table(LEASES)?,
            bindings: transaction.open_table(BINDINGS)?,
            revision: counter(&counters, REVISION)?,
            counters,
            written: false,
        })
    }

    /// Whether anything was written, so that there is something to commit.
    pub(super) fn finish(mut self) -> Result<bool, redb::Error> {
        if self.written {
            self.counters.insert(REVISION, self.revision)?;
        }
        Ok(self.written)
    }

    /// Carries out a transaction if its conditions hold and its leases live.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<Decided, redb::Error> {
        for condition in &transaction.conditions {
            if !self.holds(condition)? {
                return Ok(Decided::Outcome(Outcome::Refused));
            }
        }
        for write in &transaction.writes {
            if let Write::Put {
                lease: Some(lease), ..
            } = write
                && self.leases.get(lease.0)?.is_none()
            {
                return Ok(Decided::LeaseGone(*lease));
            }
        }
        let next = self.revision + 1;
        for write in &transaction.writes {
            match write {
                Write::Put { key, value, lease } => self.put(key, value, *lease, next)?,
                Write::Delete(key) => self.delete(key, next)?,
            }
        }
        Ok(Decided::Outcome(Outcome::Committed {
            revision: self.revision,
        }))
    }

    /// Creates a lease.
    pub(super) fn grant(&mut self, ttl: Duration, bound: Bound) -> Result<LeaseId, redb::Error> {
        let id = counter(&self.counters, LEASE)? + 1;
        self.counters.insert(LEASE, id)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.leases.insert(id, (ttl_ms, bound_code(bound)))?;
        self.written = true;
        Ok(LeaseId(id))
    }

    /// Ends a lease and removes its keys, all at one revision. One that is gone is no error.
    pub(super) fn end(&mut self, lease: LeaseId) -> Result<(), redb::Error> {
        if self.leases.remove(lease.0)?.is_none() {
            return Ok(());
        }
        self.written = true;
        let mut keys = Vec::new();
        for row in self.bindings.range((lease.0, "")..(lease.0 + 1, ""))? {
            keys.push(row?.0.value().1.to_owned());
        }
        let next = self.revision + 1;
        for key in keys {
            self.delete(&key, next)?;
        }
        Ok(())
    }

    fn holds(&self, condition: &Condition) -> Result<bool, redb::Error> {
        let (key, expected) = match condition {
            Condition::Absent(key) => return Ok(self.entries.get(key.as_str())?.is_none()),
            Condition::Created(key, revision) | Condition::Modified(key, revision) => (key, *revision),
        };
        let Some(row) = self.entries.get(key.as_str())? else {
            return Ok(false);
        };
        let (created, modified, _, _) = row.value();
        Ok(expected
            == if matches!(condition, Condition::Created(..)) {
                created
            } else {
                modified
            })
    }

    fn put(&mut self, key: &str, value: &[u8], lease: Option<LeaseId>, at: i64) -> Result<(), redb::Error> {
        let lease = lease.map_or(NO_LEASE, |lease| lease.0);
        let before = self.entries.get(key)?.map(|row| (row.value().0, row.value().2));
        let created = before.map_or(at, |(created, _)| created);
        let bound_before = before.map_or(NO_LEASE, |(_, lease)| lease);
        if bound_before != lease {
            if bound_before != NO_LEASE {
                self.bindings.remove((bound_before, key))?;
            }
            if lease != NO_LEASE {
                self.bindings.insert((lease, key), ())?;
            }
        }
        self.entries.insert(key, (created, at, lease, value))?;
        self.wrote(at);
        Ok(())
    }

    /// Removes a key; a missing one changes nothing, not even the revision.
    fn delete(&mut self, key: &str, at: i64) -> Result<(), redb::Error> {
        let before = self.entries.remove(key)?.map(|row| row.value().2);
        if let Some(lease) = before {
            if lease != NO_LEASE {
                self.bindings.remove((lease, key))?;
            }
            self.wrote(at);
        }
        Ok(())
    }

    fn wrote(&mut self, at: i64) {
        self.revision = at;
        self.written = true;
    }
}

fn entry(key: &str, (created, modified, _, value): (i64, i64, i64, &[u8])) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        created,
        modified,
    }
}

/// A counter that was written when the store was founded.
fn counter(counters: &impl ReadableTable<&'static str, i64>, name: &str) -> Result<i64, redb::Error> {
    let value = counters.get(name)?.map(|value| value.value());
    value.ok_or_else(|| redb::Error::Corrupted(format!("the counter `{name}` is missing")))
}

/// How a bound is stored.
fn bound_code(bound: Bound) -> u8 {
    match bound {
        Bound::Time => 0,
        Bound::Process => 1,
    }
}
