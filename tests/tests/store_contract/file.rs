//! What only the store in a file can show.

use super::*;
use std::path::PathBuf;
use tests::directory::Directory;

/// A place for a file, gone when dropped.
pub(super) struct Scratch(Directory);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(Directory::new().unwrap())
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("confiture.redb")
    }

    pub(super) async fn open(&self) -> Arc<dyn Store> {
        open(&StoreUrl::File(self.path()), Missing::Create).await.unwrap()
    }
}

#[tokio::test]
async fn everything_is_there_after_it_is_opened_again() {
    let file = Scratch::new();
    let store = file.open().await;
    let first = write(&*store, [put("k", "one")]).await;
    let second = write(&*store, [put("k", "two"), put("gone", "v")]).await;
    let third = write(&*store, [delete("gone")]).await;
    let lease = store.grant(LONG, Bound::Time).await.unwrap();
    store.close().await;

    let store = file.open().await;
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, third);
    assert_eq!(listing.entries.len(), 1);
    let entry = &listing.entries[0];
    assert_eq!(
        (entry.value.as_slice(), entry.created, entry.modified),
        (b"two".as_slice(), first, second)
    );
    assert!(write(&*store, [put("k", "three")]).await > third);
    assert!(
        store.grant(LONG, Bound::Time).await.unwrap() > lease,
        "no lease is given twice"
    );
}

#[tokio::test]
async fn leases_bound_to_time_get_all_of_it_again_and_those_bound_to_the_process_end() {
    let file = Scratch::new();
    let store = file.open().await;
    let time = store.grant(SHORT, Bound::Time).await.unwrap();
    let process = store.grant(LONG, Bound::Process).await.unwrap();
    let before = write(&*store, [put_bound("agent", time), put_bound("leader", process)]).await;
    tokio::time::sleep(SHORT * 7 / 10).await;
    store.close().await;

    let store = file.open().await;
    let opened = tokio::time::Instant::now();
    assert_eq!(keys(&*store, "").await, ["agent"]);
    assert_eq!(store.renew(process).await.unwrap(), None);
    assert!(store.list("").await.unwrap().revision > before);
    vanished(&*store, "agent").await;
    assert!(
        opened.elapsed() >= SHORT * 9 / 10,
        "it lived only {:?}",
        opened.elapsed()
    );
}

#[tokio::test]
async fn a_missing_file_is_not_founded_by_accident() {
    let file = Scratch::new();
    let error = open(&StoreUrl::File(file.path()), Missing::Refuse)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Open { .. }));
    assert!(error.to_string().contains("--init"), "{error}");
    assert!(!file.path().exists());
}
