//! What the contract tests cannot see: groups, failing disks, files that are no stores.

use super::*;
use crate::store::{Condition, Write};
use redb::{BackendError, StorageBackend, TableDefinition, backends::FileBackend};
use std::ops::Bound as Edge;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

fn put(key: &str, value: &str) -> Transaction {
    let write = Write::Put {
        key: key.to_owned(),
        value: value.into(),
        lease: None,
    };
    Transaction {
        conditions: Vec::new(),
        writes: vec![write],
    }
}

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join("confiture.redb")
}

/// A disk that counts flushes and can be made to fail.
#[derive(Debug, Clone, Default)]
struct Disk {
    full: Arc<AtomicBool>,
    flushes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Flaky {
    file: FileBackend,
    disk: Disk,
}

impl Disk {
    fn open(&self, path: &Path) -> Result<redb::Database, redb::DatabaseError> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        redb::Builder::new().create_with_backend(Flaky {
            file: FileBackend::new(file)?,
            disk: self.clone(),
        })
    }

    fn check(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    /// A store on this disk.
    async fn store(&self, path: &Path) -> Embedded {
        Embedded::open(path, Missing::Create).await.unwrap().close().await;
        let (disk, place) = (self.clone(), path.to_owned());
        let database = disk.open(path).unwrap();
        Embedded::start(
            "file:test".to_owned(),
            File::new(database, Some(Box::new(move || disk.open(&place)))),
            &[],
        )
    }
}

impl StorageBackend for Flaky {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.disk.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.disk.check()?;
        self.disk.flushes.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.disk.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Edge<u64>, end: Edge<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Edge<u64>, end: Edge<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

#[tokio::test]
async fn commits_that_queue_up_share_a_flush() {
    const COMMITS: u64 = 200;
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let store = disk.store(&path(&directory)).await;
    let before = disk.flushes.load(Ordering::SeqCst);

    let asked = (0..COMMITS).map(|i| store.commit(put(&format!("k{i}"), "v")));
    let mut revisions = Vec::new();
    for outcome in futures_util::future::join_all(asked).await {
        let Outcome::Committed { revision } = outcome.unwrap() else {
            panic!("refused")
        };
        revisions.push(revision);
    }

    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(
        revisions.len() as u64,
        COMMITS,
        "each commit has a revision of its own"
    );
    let flushes = disk.flushes.load(Ordering::SeqCst) - before;
    assert!(flushes < COMMITS / 4, "{flushes} flushes for {COMMITS} commits");
}

#[tokio::test]
async fn a_disk_that_was_full_for_a_while_needs_no_restart() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let store = disk.store(&path(&directory)).await;
    store.commit(put("before", "1")).await.unwrap();
    let lease = store.grant(Duration::from_mins(1), Bound::Process).await.unwrap();

    disk.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(matches!(
            store.commit(put("during", "2")).await,
            Err(Error::Unavailable { .. })
        ));
    }
    disk.full.store(false, Ordering::SeqCst);

    assert_eq!(store.read("before").await.unwrap().unwrap().value, b"1");
    assert_eq!(store.read("during").await.unwrap(), None);
    store.commit(put("after", "3")).await.unwrap();
    assert_eq!(store.list("").await.unwrap().entries.len(), 2);
    assert!(
        store.renew(lease).await.unwrap().is_some(),
        "leases of this process live on"
    );
}

#[tokio::test]
async fn a_missing_file_is_only_created_when_that_is_allowed() {
    let directory = TempDir::new().unwrap();
    let error = Embedded::open(&path(&directory), Missing::Refuse)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("there is no store at") && error.contains("--init"),
        "{error}"
    );
    assert!(!path(&directory).exists());

    Embedded::open(&path(&directory), Missing::Create)
        .await
        .unwrap()
        .close()
        .await;
    Embedded::open(&path(&directory), Missing::Refuse).await.unwrap();
}

#[tokio::test]
async fn a_file_whose_creation_was_interrupted_is_no_store_yet() {
    let directory = TempDir::new().unwrap();
    // A crash before anything was written, and one between creating the database and founding the store.
    std::fs::write(path(&directory), b"").unwrap();
    for _ in 0..2 {
        assert!(Embedded::open(&path(&directory), Missing::Refuse).await.is_err());
        drop(redb::Database::create(path(&directory)).unwrap());
    }
    let error = Embedded::open(&path(&directory), Missing::Refuse)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("--init"), "{error}");
    Embedded::open(&path(&directory), Missing::Create).await.unwrap();
}

#[tokio::test]
async fn a_file_in_use_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let _first = Embedded::open(&path(&directory), Missing::Create).await.unwrap();
    let error = Embedded::open(&path(&directory), Missing::Create)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("in use by another process"), "{error}");
    assert!(error.contains(path(&directory).to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let text = directory.path().join("text");
    let content = "databases:\n".repeat(10_000);
    std::fs::write(&text, &content).unwrap();
    let foreign = directory.path().join("foreign.redb");
    {
        let database = redb::Database::create(&foreign).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(TableDefinition::<u64, u64>::new("theirs"))
            .unwrap();
        transaction.commit().unwrap();
    }
    for missing in [Missing::Create, Missing::Refuse] {
        let error = Embedded::open(&text, missing).await.err().unwrap().to_string();
        assert!(error.contains("not a store of confiture"), "{error}");
        let error = Embedded::open(&foreign, missing).await.err().unwrap().to_string();
        assert!(error.contains("another program"), "{error}");
        let error = Embedded::open(&directory.path().join("no/such/dir"), missing)
            .await
            .err()
            .unwrap();
        assert!(matches!(error, Error::Open { .. }));
    }
    assert_eq!(std::fs::read_to_string(&text).unwrap(), content);
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("copy.redb");
    let store = Embedded::open(&path(&directory), Missing::Create).await.unwrap();
    for i in 0..20 {
        store.commit(put(&format!("k{i:02}"), "v")).await.unwrap();
    }
    // The file as a crash would leave it: nothing was closed.
    std::fs::copy(path(&directory), &copy).unwrap();

    let after = Embedded::open(&copy, Missing::Refuse).await.unwrap();
    assert_eq!(after.list("k").await.unwrap().entries.len(), 20);
    assert_eq!(
        after.list("").await.unwrap().revision,
        store.list("").await.unwrap().revision
    );
}

#[tokio::test]
async fn a_closed_store_answers_nothing_and_frees_its_file() {
    let directory = TempDir::new().unwrap();
    let store = Embedded::open(&path(&directory), Missing::Create).await.unwrap();
    let lease = store.grant(Duration::from_mins(1), Bound::Time).await.unwrap();
    store.close().await;
    store.close().await;

    let unwritten = Transaction {
        conditions: vec![Condition::Absent("k".to_owned())],
        ..put("k", "v")
    };
    assert!(matches!(
        store.commit(unwritten).await,
        Err(Error::Unavailable { .. })
    ));
    assert!(matches!(store.read("k").await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.renew(lease).await, Err(Error::Unavailable { .. })));
    Embedded::open(&path(&directory), Missing::Refuse).await.unwrap();
}

#[tokio::test]
async fn a_dropped_store_frees_its_file_too() {
    let directory = TempDir::new().unwrap();
    drop(Embedded::open(&path(&directory), Missing::Create).await.unwrap());
    let opened = async {
        loop {
            match Embedded::open(&path(&directory), Missing::Refuse).await {
                Ok(store) => return store,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), opened)
        .await
        .unwrap();
}
