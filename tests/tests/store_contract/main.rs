//! One contract for all stores: the embedded one in memory and in a file, and etcd, each a real one.
//!
//! - [`contract`]: what every store must do, each case on each store;
//! - [`file`], [`etcd`]: what only one of them can show: restarts, frozen servers, logins;
//! - [`leader`]: elections over them, also with [`faulty`] ones.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helps a test fails as the test does"
)]

mod contract;
mod etcd;
mod faulty;
mod file;
mod leader;

use coordinator::store::{
    Bound, Condition, Error, LeaseId, Missing, Outcome, Store, Transaction, Write, open,
};
use shared::settings::StoreUrl;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for everything that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A lease that does not end within a test.
const LONG: Duration = Duration::from_mins(10);

/// The shortest lease that every store grants as asked.
const SHORT: Duration = Duration::from_secs(1);

fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: value.into(),
        lease: None,
    }
}

fn put_bound(key: &str, lease: LeaseId) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: b"bound".to_vec(),
        lease: Some(lease),
    }
}

fn delete(key: &str) -> Write {
    Write::Delete(key.to_owned())
}

fn absent(key: &str) -> Condition {
    Condition::Absent(key.to_owned())
}

fn created(key: &str, revision: i64) -> Condition {
    Condition::Created(key.to_owned(), revision)
}

fn modified(key: &str, revision: i64) -> Condition {
    Condition::Modified(key.to_owned(), revision)
}

/// Writes without a condition; the revision.
async fn write(store: &dyn Store, writes: impl Into<Vec<Write>>) -> i64 {
    match commit(store, [], writes).await {
        Outcome::Committed { revision } => revision,
        Outcome::Refused => panic!("a transaction without conditions was refused"),
    }
}

async fn commit(
    store: &dyn Store,
    conditions: impl Into<Vec<Condition>>,
    writes: impl Into<Vec<Write>>,
) -> Outcome {
    let transaction = Transaction {
        conditions: conditions.into(),
        writes: writes.into(),
    };
    store.commit(transaction).await.unwrap()
}

async fn value(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    store.read(key).await.unwrap().map(|entry| entry.value)
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

/// Waits until a key is gone.
async fn vanished(store: &dyn Store, key: &str) {
    let gone = || async move { Ok(store.read(key).await?.is_none().then_some(())) };
    tests::eventually(&format!("`{key}` to vanish"), SOON, gone)
        .await
        .unwrap();
}

async fn memory() -> Arc<dyn Store> {
    open(&StoreUrl::Memory, Missing::Refuse).await.unwrap()
}
