//! Where the coordinator keeps intent: a small ordered key-value store with revisions, conditional transactions and
//! leases. Two implementations pass the same contract tests: etcd, and one file on one machine.
//!
//! Keys are UTF-8 text without a leading slash, at most [`MAX_KEY_BYTES`]; values at most [`MAX_VALUE_BYTES`]; a
//! transaction at most [`MAX_OPERATIONS`] conditions and writes and [`MAX_TRANSACTION_BYTES`] together. Everything written is visible to every later
//! read (linearizable). Watching is only a hint that something changed; readers read again.
//!
//! - [`open()`]: from the settings to a store;
//! - [`identity()`]: which founding of a store this is;
//! - [`embedded`], [`etcd`]: the two implementations. Keys and what is in them belong to the users of this module.

pub mod embedded;
mod error;
pub mod etcd;
mod identity;
mod limits;
mod open;
mod timed;

pub use error::Error;
pub use identity::identity;
pub(crate) use identity::renewal;
pub use limits::{MAX_KEY_BYTES, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES};
pub use open::{Missing, open};
pub(crate) use timed::Timed;

use async_trait::async_trait;
use std::time::Duration;

/// A lease of the store. Keys bound to it vanish with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// What ends a lease besides time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Only time, or its revocation.
    Time,
    /// Also the end of the process that holds the store, where the store can know of it (a store in one file that
    /// only one process can open). etcd knows only time.
    Process,
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The store's revision at which the key came to be; stays until it is deleted.
    pub created: i64,
    /// The store's revision of the last write.
    pub modified: i64,
}

/// All entries below a prefix, in order of keys, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In ascending order of keys.
    pub entries: Vec<Entry>,
    /// The store's revision of this reading.
    pub revision: i64,
}

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(String),
    /// The key exists and came to be at this revision.
    Created(String, i64),
    /// The key exists and was last written at this revision.
    Modified(String, i64),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key, bound to a lease or to none.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// The lease with which the key vanishes.
        lease: Option<LeaseId>,
    },
    /// Removes a key; a missing one is no error.
    Delete(String),
}

/// Writes that happen together, or not at all, if all conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// A key at most once.
    pub writes: Vec<Write>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All writes are done, at this revision; keys that did not exist have it as `created`.
    Committed {
        /// The revision of the transaction.
        revision: i64,
    },
    /// A condition did not hold; nothing was written.
    Refused,
}

/// A store of intent. Cheap to share behind an `Arc`. Every call ends within a few seconds, if need be with
/// [`Error::Unavailable`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key.
    async fn read(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Reads all keys below a prefix, as of one revision.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;

    /// Writes all or nothing.
    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error>;

    /// A new lease that lives for `ttl` unless renewed (etcd may lengthen it).
    async fn grant(&self, ttl: Duration, bound: Bound) -> Result<LeaseId, Error>;

    /// Renews a lease. The time it lives from now on; `None` when it is gone.
    async fn renew(&self, lease: LeaseId) -> Result<Option<Duration>, Error>;

    /// Ends a lease and removes its keys. One that is gone is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;

    /// A hint that changes whenever something was written or a lease ended; may also change without cause, and may be
    /// late while the store cannot be reached.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Ends the store's own tasks and lets go of files and connections; every later call fails. Leases live on until
    /// their time ends. A store that is only dropped does the same a moment later.
    async fn close(&self);
}
