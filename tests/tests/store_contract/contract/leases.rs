//! Leases and the keys bound to them.

use crate::*;

pub(super) async fn an_expired_lease_takes_its_keys(store: &dyn Store) {
    let lease = store.grant(SHORT, Bound::Time).await.unwrap();
    let granted = tokio::time::Instant::now();
    let before = write(
        store,
        [put_bound("a", lease), put_bound("b", lease), put("c", "stays")],
    )
    .await;

    vanished(store, "a").await;
    assert!(
        granted.elapsed() >= SHORT * 9 / 10,
        "it lived only {:?}",
        granted.elapsed()
    );
    let listing = store.list("").await.unwrap();
    assert_eq!(
        listing
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect::<Vec<_>>(),
        ["c"]
    );
    assert_eq!(listing.revision, before + 1, "all its keys vanish together");
    assert_eq!(store.renew(lease).await.unwrap(), None);
}

pub(super) async fn a_renewed_lease_lives_on(store: &dyn Store) {
    let lease = store.grant(Duration::from_secs(2), Bound::Process).await.unwrap();
    write(store, [put_bound("k", lease)]).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(4);
    while tokio::time::Instant::now() < end {
        let ttl = store.renew(lease).await.unwrap().expect("it lives");
        assert!(ttl >= Duration::from_secs(2), "{ttl:?}");
        assert!(value(store, "k").await.is_some());
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    vanished(store, "k").await;
}

pub(super) async fn a_revoked_lease_takes_its_keys_at_once(store: &dyn Store) {
    let lease = store.grant(LONG, Bound::Time).await.unwrap();
    let other = store.grant(LONG, Bound::Time).await.unwrap();
    assert_ne!(lease, other);
    write(
        store,
        [
            put_bound("a", lease),
            put_bound("b", lease),
            put_bound("c", other),
        ],
    )
    .await;
    store.revoke(lease).await.unwrap();
    assert_eq!(keys(store, "").await, ["c"]);
    assert_eq!(store.renew(lease).await.unwrap(), None);
    assert!(store.renew(other).await.unwrap().is_some());
    store.revoke(lease).await.expect("one that is gone is no error");
    store
        .revoke(LeaseId(987_654_321))
        .await
        .expect("nor is one that never was");
    assert_eq!(store.renew(LeaseId(987_654_321)).await.unwrap(), None);
}

pub(super) async fn a_put_with_a_lease_that_is_gone_writes_nothing(store: &dyn Store) {
    let alive = store.grant(LONG, Bound::Time).await.unwrap();
    let gone = store.grant(LONG, Bound::Time).await.unwrap();
    let also_alive = store.grant(LONG, Bound::Time).await.unwrap();
    store.revoke(gone).await.unwrap();
    let alone = vec![put("a", "v"), put_bound("b", gone)];
    let among_others = vec![
        put_bound("a", alive),
        put_bound("b", gone),
        put_bound("c", also_alive),
    ];
    for writes in [alone, among_others] {
        let conditions = vec![absent("a")];
        let error = store
            .commit(Transaction { conditions, writes })
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::LeaseGone(lease) if lease == gone),
            "{error:?}"
        );
    }
    assert_eq!(keys(store, "").await, Vec::<String>::new());
}

pub(super) async fn a_condition_counts_before_a_lease_that_is_gone(store: &dyn Store) {
    let gone = store.grant(LONG, Bound::Time).await.unwrap();
    store.revoke(gone).await.unwrap();
    write(store, [put("k", "v")]).await;
    assert_eq!(
        commit(store, [absent("k")], [put_bound("x", gone)]).await,
        Outcome::Refused
    );
}

pub(super) async fn a_key_follows_its_last_lease(store: &dyn Store) {
    let first = store.grant(LONG, Bound::Time).await.unwrap();
    let second = store.grant(LONG, Bound::Process).await.unwrap();
    write(
        store,
        [
            put_bound("freed", first),
            put_bound("moved", first),
            put_bound("again", first),
        ],
    )
    .await;
    write(
        store,
        [put("freed", "v"), put_bound("moved", second), delete("again")],
    )
    .await;
    write(store, [put("again", "v")]).await;

    store.revoke(first).await.unwrap();
    assert_eq!(keys(store, "").await, ["again", "freed", "moved"]);
    store.revoke(second).await.unwrap();
    assert_eq!(keys(store, "").await, ["again", "freed"]);
}
