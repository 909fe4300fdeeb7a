//! Opening the file, and opening it again after the disk failed.
//!
//! redb refuses everything after an I/O error until the database is opened anew. A full disk must not need a restart of
//! the coordinator, so a failed database is dropped and the next access opens it again.

use super::tables::{self, Holds};
use crate::store::{Error, LeaseId, Missing};
use redb::{Builder, Database, DatabaseError, StorageError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages kept in memory, in bytes. A fleet of thousands of databases needs a few tens of megabytes.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// How a failed database is opened again.
pub(super) type Reopen = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// What the database is good for now.
enum State {
    Open(Arc<Database>),
    /// Dropped after an I/O error.
    Failed,
    Closed,
}

/// The database while it is good, and how to get it back.
pub(super) struct File {
    state: Mutex<State>,
    /// `None` for one in memory: what is lost there stays lost.
    reopen: Option<Reopen>,
}

/// Why there is no database at the moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the store is closed")]
    Closed,
    #[error("the disk failed; the file will be opened again with the next request")]
    Failed,
    #[error("the disk failed, and the file cannot be opened again")]
    Reopen(#[source] DatabaseError),
    #[error("reading or writing failed")]
    Access(#[source] Arc<redb::Error>),
}

impl File {
    pub(super) fn new(database: Database, reopen: Option<Reopen>) -> Self {
        Self {
            state: Mutex::new(State::Open(Arc::new(database))),
            reopen,
        }
    }

    /// Whether the next request has to open the file again.
    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.state(), State::Failed)
    }

    /// Does something with the database. An error of the disk drops it.
    pub(super) fn with<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Trouble> {
        let database = match &*self.state() {
            State::Open(database) => Arc::clone(database),
            State::Failed => return Err(Trouble::Failed),
            State::Closed => return Err(Trouble::Closed),
        };
        act(&database).map_err(|error| {
            if breaks_the_database(&error) {
                self.drop_failed(&database);
            }
            Trouble::Access(Arc::new(error))
        })
    }

    /// Opens a database that failed. Whether it had to.
    pub(super) fn repair(&self) -> Result<bool, Trouble> {
        let mut state = self.state();
        match (&*state, &self.reopen) {
            (State::Open(_), _) => Ok(false),
            (State::Closed, _) => Err(Trouble::Closed),
            (State::Failed, None) => Err(Trouble::Failed),
            (State::Failed, Some(reopen)) => {
                // Readers may still hold the failed database and with it the file's lock; then this fails, and the
                // next request tries again.
                let database = reopen().map_err(Trouble::Reopen)?;
                *state = State::Open(Arc::new(database));
                Ok(true)
            }
        }
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        *self.state() = State::Closed;
    }

    fn drop_failed(&self, failed: &Arc<Database>) {
        let mut state = self.state();
        if matches!(&*state, State::Open(database) if Arc::ptr_eq(database, failed)) {
            *state = State::Failed;
            tracing::error!("the disk under the store's file failed; the file will be opened again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether redb will refuse everything after this error.
fn breaks_the_database(error: &redb::Error) -> bool {
    matches!(
        error,
        redb::Error::Io(_)
            | redb::Error::PreviousIo
            | redb::Error::LockPoisoned(_)
            | redb::Error::DatabaseClosed
    )
}

/// Opens the file, or founds a store in it if that is allowed. Leases of the process before are ended.
pub(super) fn open(store: &str, path: &Path, missing: Missing) -> Result<Database, Error> {
    let refuse = |why: String| Error::Open {
        store: store.to_owned(),
        why,
    };
    let no_store = || {
        refuse(format!(
            "there is no store at `{}`. To found a new one, start once with `--init`; \
             otherwise check the path and the directory you started in",
            path.display()
        ))
    };
    let found = path.try_exists().map_err(|error| refuse(error.to_string()))?;
    let database = match (found, missing) {
        (false, Missing::Refuse) => return Err(no_store()),
        (false, Missing::Create) => {
            let database = builder().create(path).map_err(|error| refuse(why_not(&error)))?;
            // The file's name is durable only when its directory is.
            sync_directory(path).map_err(|error| refuse(error.to_string()))?;
            database
        }
        // An empty file is what a crash during creation leaves behind.
        (true, Missing::Create) => builder().create(path).map_err(|error| refuse(why_not(&error)))?,
        (true, Missing::Refuse) => builder().open(path).map_err(|error| refuse(why_not(&error)))?,
    };
    let broken = |error: redb::Error| refuse(format!("it cannot be read: {error}"));
    match (tables::holds(&database).map_err(broken)?, missing) {
        (Holds::Store, _) => end_process_leases(&database).map_err(broken)?,
        (Holds::Nothing, Missing::Create) => tables::found(&database).map_err(broken)?,
        (Holds::Nothing, Missing::Refuse) => return Err(no_store()),
        (Holds::OtherFormat(format), _) => {
            return Err(refuse(format!(
                "it has format {format}, of another version of confiture: use that version"
            )));
        }
        (Holds::Foreign, _) => return Err(refuse("it is a database of another program".to_owned())),
    }
    Ok(database)
}

/// Opens a file again that was open in this process.
pub(super) fn reopen(path: &Path) -> Result<Database, DatabaseError> {
    builder().open(path)
}

/// A store in memory.
pub(super) fn in_memory() -> Result<Database, redb::Error> {
    let database = builder().create_with_backend(redb::backends::InMemoryBackend::new())?;
    tables::found(&database)?;
    Ok(database)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn end_process_leases(database: &Database) -> Result<(), redb::Error> {
    let leases: Vec<LeaseId> = tables::process_leases(database)?;
    if leases.is_empty() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    let mut change = tables::Change::begin(&transaction)?;
    for lease in leases {
        change.end(lease)?;
    }
    change.finish()?;
    Ok(transaction.commit()?)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory)?.sync_all()
}

/// Why a file could not be opened, and what to do, in the user's words.
fn why_not(error: &DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            "it is in use by another process. Only one coordinator can use a file; stop the other one, or give both an etcd store"
                .to_owned()
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
            "it is not a store of confiture".to_owned()
        }
        DatabaseError::Storage(StorageError::Io(error)) => error.to_string(),
        other => other.to_string(),
    }
}
