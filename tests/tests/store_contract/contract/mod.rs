//! What every store must do: [`entries`], [`leases`], and here limits, hints, identity and the end.

mod entries;
mod leases;

use super::*;
use entries::*;
use futures_util::future::join_all;
use leases::*;

/// Runs each case on each store, as a test of its own.
macro_rules! on_every_store {
    ($($case:ident,)*) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&*crate::memory().await).await;
            })*
        }
        mod in_a_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let file = crate::file::Scratch::new();
                let store = file.open().await;
                super::$case(&*store).await;
                store.close().await;
            })*
        }
        mod in_etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                // Revisions count for all of an etcd, so none is shared.
                let etcd = tests::etcd::Etcd::start().await.unwrap();
                let store = crate::etcd::on(&etcd).await;
                super::$case(&*store).await;
                store.close().await;
            })*
        }
    };
}

on_every_store! {
    a_key_keeps_its_creation_and_knows_its_last_write,
    a_transaction_without_effect_leaves_the_revision,
    all_writes_of_a_transaction_share_one_revision,
    a_condition_that_fails_stops_every_write,
    each_condition_holds_when_and_only_when_it_says,
    a_listing_is_in_order_and_of_one_prefix,
    a_large_listing_is_whole,
    values_are_bytes_and_keys_are_text,
    of_concurrent_creations_one_wins,
    concurrent_commits_count_without_loss,
    an_expired_lease_takes_its_keys,
    a_renewed_lease_lives_on,
    a_revoked_lease_takes_its_keys_at_once,
    a_put_with_a_lease_that_is_gone_writes_nothing,
    a_condition_counts_before_a_lease_that_is_gone,
    a_key_follows_its_last_lease,
    what_is_beyond_the_limits_is_refused,
    what_is_at_the_limits_is_written,
    every_change_is_hinted,
    a_store_is_founded_once,
    an_identity_that_cannot_be_read_is_no_new_one,
    a_closed_store_refuses,
}

async fn what_is_beyond_the_limits_is_refused(store: &dyn Store) {
    let refused = |writes: Vec<Write>| async move {
        let result = store
            .commit(Transaction {
                conditions: vec![absent("x")],
                writes,
            })
            .await;
        result.expect_err("it should be beyond the limits")
    };
    let many = (0..100).map(|i| put(&format!("k{i}"), "v")).collect();
    assert!(matches!(refused(many).await, Error::TooLarge(_)));
    assert!(matches!(
        refused(vec![put("k", &"x".repeat(64 * 1024 + 1))]).await,
        Error::TooLarge(_)
    ));
    assert!(matches!(
        refused(vec![put(&"k".repeat(2000), "v")]).await,
        Error::TooLarge(_)
    ));
    assert!(matches!(
        refused(vec![put("k", "v"), delete("k")]).await,
        Error::Invalid(_)
    ));
    assert!(matches!(refused(vec![put("", "v")]).await, Error::Invalid(_)));
    assert!(matches!(
        store.grant(Duration::ZERO, Bound::Time).await,
        Err(Error::Invalid(_))
    ));
    assert_eq!(keys(store, "").await, Vec::<String>::new());
}

async fn what_is_at_the_limits_is_written(store: &dyn Store) {
    let many: Vec<Write> = (0..99)
        .map(|i| put(&format!("many/{i}"), &"x".repeat(10_000)))
        .collect();
    assert_ne!(commit(store, [absent("x")], many).await, Outcome::Refused);
    assert_eq!(keys(store, "many/").await.len(), 99);

    let conditions: Vec<Condition> = (0..100).map(|i| absent(&format!("none/{i}"))).collect();
    assert_ne!(commit(store, conditions, []).await, Outcome::Refused);

    write(store, [put("large", &"x".repeat(64 * 1024))]).await;
    assert_eq!(value(store, "large").await.unwrap().len(), 64 * 1024);
}

async fn every_change_is_hinted(store: &dyn Store) {
    let mut changes = store.changes();
    // A store may hint without cause, so only a wait without a hint shows anything: hints are taken until it is quiet.
    let mut hinted = async |what: &str| {
        tokio::time::timeout(SOON, changes.changed())
            .await
            .unwrap_or_else(|_| panic!("no hint for {what}"))
            .unwrap();
        while tokio::time::timeout(Duration::from_millis(200), changes.changed())
            .await
            .is_ok()
        {}
    };
    let lease = store.grant(SHORT, Bound::Time).await.unwrap();
    write(store, [put("k", "v"), put_bound("bound", lease)]).await;
    hinted("a put").await;
    vanished(store, "bound").await;
    hinted("an expired lease").await;
    write(store, [delete("k")]).await;
    hinted("a deletion").await;
}

async fn a_store_is_founded_once(store: &dyn Store) {
    use coordinator::store::identity;
    use shared::id::StoreId;

    let founders =
        (1..=8_u8).map(|i| identity(store, StoreId(uuid::Uuid::from_u128(i.into())), i64::from(i)));
    let mut identities: Vec<_> = join_all(founders).await.into_iter().map(Result::unwrap).collect();
    identities.dedup();
    assert_eq!(identities.len(), 1, "{identities:?}");
    let later = identity(store, StoreId(uuid::Uuid::from_u128(99)), 99)
        .await
        .unwrap();
    assert_eq!(later, identities[0]);
}

#[tokio::test]
async fn an_identity_whose_writing_was_not_answered_is_read() {
    use crate::faulty::{Fault, Faulty};
    use coordinator::store::identity;
    use shared::id::StoreId;

    let (mine, theirs) = (
        StoreId(uuid::Uuid::from_u128(1)),
        StoreId(uuid::Uuid::from_u128(2)),
    );
    let faulty = Faulty::new(memory().await);
    faulty.set(Fault::LosesCommits);
    assert_eq!(identity(&*faulty, mine, 10).await.unwrap(), (mine, 10));

    let faulty = Faulty::new(memory().await);
    faulty.set(Fault::Outruns(
        r#"{"store_id":"00000000-0000-0000-0000-000000000002","epoch":20}"#,
    ));
    assert_eq!(identity(&*faulty, mine, 10).await.unwrap(), (theirs, 20));
}

async fn an_identity_that_cannot_be_read_is_no_new_one(store: &dyn Store) {
    write(store, [put("meta", "{\"store_id\": 1}")]).await;
    let new = shared::id::StoreId(uuid::Uuid::from_u128(1));
    let error = coordinator::store::identity(store, new, 1).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreadable { key, .. } if key == "meta"),
        "{error:?}"
    );
}

async fn a_closed_store_refuses(store: &dyn Store) {
    let lease = store.grant(LONG, Bound::Time).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.read("k").await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.list("k").await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.renew(lease).await, Err(Error::Unavailable { .. })));
    assert!(matches!(
        store.grant(LONG, Bound::Time).await,
        Err(Error::Unavailable { .. })
    ));
    let transaction = Transaction {
        conditions: Vec::new(),
        writes: vec![put("k", "v")],
    };
    assert!(matches!(
        store.commit(transaction).await,
        Err(Error::Unavailable { .. })
    ));
}
