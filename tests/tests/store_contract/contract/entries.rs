//! Entries, conditions, listings, and many writers at once.

use crate::*;
use futures_util::future::join_all;

pub(super) async fn a_key_keeps_its_creation_and_knows_its_last_write(store: &dyn Store) {
    assert_eq!(store.read("k").await.unwrap(), None);
    let first = write(store, [put("k", "one")]).await;
    let second = write(store, [put("k", "two")]).await;
    assert!(second > first);

    let entry = store.read("k").await.unwrap().unwrap();
    assert_eq!(
        (entry.key.as_str(), entry.value.as_slice()),
        ("k", b"two".as_slice())
    );
    assert_eq!((entry.created, entry.modified), (first, second));
    assert_eq!(store.list("k").await.unwrap().entries, vec![entry]);

    write(store, [delete("k")]).await;
    let again = write(store, [put("k", "three")]).await;
    assert!(again > second + 1, "the deletion had a revision too");
    let entry = store.read("k").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (again, again));
}

pub(super) async fn a_transaction_without_effect_leaves_the_revision(store: &dyn Store) {
    let before = write(store, [put("k", "v")]).await;
    assert_eq!(write(store, [delete("missing")]).await, before);
    assert_eq!(
        commit(store, [absent("missing")], []).await,
        Outcome::Committed { revision: before }
    );
    assert_eq!(
        commit(store, [absent("k")], [put("x", "v")]).await,
        Outcome::Refused
    );
    assert_eq!(store.list("").await.unwrap().revision, before);
}

pub(super) async fn all_writes_of_a_transaction_share_one_revision(store: &dyn Store) {
    write(store, [put("old", "v")]).await;
    let revision = write(store, [put("a", "v"), put("b", "v"), delete("old")]).await;
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, revision);
    let found: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.created, entry.modified))
        .collect();
    assert_eq!(found, vec![("a", revision, revision), ("b", revision, revision)]);
}

pub(super) async fn a_condition_that_fails_stops_every_write(store: &dyn Store) {
    let at = write(store, [put("k", "v"), put("gone", "v")]).await;
    for failing in [
        absent("k"),
        created("k", at + 1),
        modified("k", at - 1),
        created("missing", at),
    ] {
        for conditions in [
            vec![failing.clone(), absent("x")],
            vec![absent("x"), failing.clone()],
        ] {
            let outcome = commit(store, conditions, [put("x", "v"), put("k", "w"), delete("gone")]).await;
            assert_eq!(outcome, Outcome::Refused, "{failing:?}");
        }
    }
    assert_eq!(keys(store, "").await, ["gone", "k"]);
    assert_eq!(value(store, "k").await.unwrap(), b"v");
}

pub(super) async fn each_condition_holds_when_and_only_when_it_says(store: &dyn Store) {
    let first = write(store, [put("k", "v")]).await;
    let second = write(store, [put("k", "v")]).await;
    let table = [
        (absent("missing"), true),
        (absent("k"), false),
        (created("k", first), true),
        (created("k", second), false),
        (created("k", 0), false),
        (created("missing", first), false),
        (created("missing", 0), false),
        (modified("k", second), true),
        (modified("k", first), false),
        (modified("missing", second), false),
        (modified("missing", 0), false),
    ];
    for (condition, holds) in table {
        let outcome = commit(store, [condition.clone()], []).await;
        assert_eq!(outcome != Outcome::Refused, holds, "{condition:?}");
    }
    let both = [created("k", first), modified("k", second), absent("missing")];
    assert_ne!(commit(store, both, [put("k", "w")]).await, Outcome::Refused);
}

pub(super) async fn a_listing_is_in_order_and_of_one_prefix(store: &dyn Store) {
    let written = [
        "database/b",
        "database/a",
        "database0",
        "databas",
        "database/",
        "database/a/x",
        "zz",
        "database/ä",
    ];
    for key in written {
        write(store, [put(key, key)]).await;
    }
    let listing = store.list("database/").await.unwrap();
    let found: Vec<_> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(
        found,
        [
            "database/",
            "database/a",
            "database/a/x",
            "database/b",
            "database/ä"
        ]
    );
    assert!(
        listing
            .entries
            .iter()
            .all(|entry| entry.value == entry.key.as_bytes())
    );

    let all = store.list("").await.unwrap();
    assert_eq!(
        (all.entries.len(), all.revision),
        (written.len(), listing.revision)
    );
    assert_eq!(keys(store, "nothing").await, Vec::<String>::new());
}

pub(super) async fn a_large_listing_is_whole(store: &dyn Store) {
    // More than any page, and more bytes than a gRPC message takes by default.
    let key = |i: usize| format!("bundle/{i:04}");
    let large = "x".repeat(16 * 1024);
    for start in (0..600).step_by(50) {
        let writes: Vec<Write> = (start..start + 50).map(|i| put(&key(i), &large)).collect();
        write(store, writes).await;
    }
    let listing = store.list("bundle/").await.unwrap();
    let expected: Vec<String> = (0..600).map(key).collect();
    assert_eq!(
        listing
            .entries
            .iter()
            .map(|entry| entry.key.clone())
            .collect::<Vec<_>>(),
        expected
    );
    assert!(
        listing
            .entries
            .iter()
            .all(|entry| entry.value.len() == large.len())
    );
    assert_eq!(listing.revision, listing.entries.last().unwrap().modified);
}

pub(super) async fn values_are_bytes_and_keys_are_text(store: &dyn Store) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let writes = [
        Write::Put {
            key: "bytes".to_owned(),
            value: every_byte.clone(),
            lease: None,
        },
        put("empty", ""),
        put("schlüssel/😀", "text"),
    ];
    write(store, writes).await;
    assert_eq!(value(store, "bytes").await.unwrap(), every_byte);
    assert_eq!(value(store, "empty").await.unwrap(), b"");
    assert_eq!(value(store, "schlüssel/😀").await.unwrap(), b"text");
    assert_eq!(keys(store, "schlüssel/").await, ["schlüssel/😀"]);
}

pub(super) async fn of_concurrent_creations_one_wins(store: &dyn Store) {
    for round in 0..5 {
        let key = format!("leader/{round}");
        let tries = (0..32).map(|i| {
            let key = key.as_str();
            async move {
                let outcome = commit(store, [absent(key)], [put(key, &i.to_string())]).await;
                (outcome != Outcome::Refused).then_some(i)
            }
        });
        let winners: Vec<i32> = join_all(tries).await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(
            value(store, &key).await.unwrap(),
            winners[0].to_string().into_bytes()
        );
    }
}

pub(super) async fn concurrent_commits_count_without_loss(store: &dyn Store) {
    write(store, [put("counter", "0")]).await;
    let tasks = (0..8).map(|_| async {
        let mut done = 0;
        while done < 10 {
            let entry = store.read("counter").await.unwrap().unwrap();
            let next = std::str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap() + 1;
            let conditions = [modified("counter", entry.modified)];
            if commit(store, conditions, [put("counter", &next.to_string())]).await != Outcome::Refused {
                done += 1;
            }
        }
    });
    join_all(tasks).await;
    assert_eq!(value(store, "counter").await.unwrap(), b"80");
}
