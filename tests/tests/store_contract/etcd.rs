//! What only etcd can show: restarts, frozen servers, members that are down, logins, TLS.

use super::*;
use shared::settings::{self, EtcdTls, Identity, Login, Secret};
use std::time::Instant;
use tests::directory::Directory;
use tests::etcd::Etcd;
use tests::tls::Authority;

fn settings(endpoints: Vec<String>, prefix: String) -> settings::Etcd {
    settings::Etcd {
        endpoints,
        prefix,
        login: None,
        tls: None,
    }
}

/// A store on an etcd, with a prefix of its own.
pub(super) async fn on(etcd: &Etcd) -> Arc<dyn Store> {
    with_prefix(etcd, &Etcd::fresh_prefix()).await
}

/// A store on an etcd; those with one prefix are one store.
pub(super) async fn with_prefix(etcd: &Etcd, prefix: &str) -> Arc<dyn Store> {
    let settings = settings(vec![etcd.endpoint()], prefix.to_owned());
    open(&StoreUrl::Etcd(settings), Missing::Refuse).await.unwrap()
}

/// The text of an error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_the_hint_comes_back_when_etcd_is_killed_and_started() {
    let mut etcd = Etcd::start().await.unwrap();
    let store = on(&etcd).await;
    let lease = store.grant(LONG, Bound::Process).await.unwrap();
    let revision = write(&*store, [put("k", "v"), put_bound("bound", lease)]).await;

    etcd.kill().unwrap();
    let error = store.read("k").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(
        chain(&error).contains("refused"),
        "the cause is told: {}",
        chain(&error)
    );
    etcd.resume().await.unwrap();

    assert_eq!(
        store.read("k").await.unwrap().unwrap().created,
        revision,
        "the first call after it works"
    );
    assert!(store.renew(lease).await.unwrap().is_some());
    assert!(value(&*store, "bound").await.is_some());

    // Until the watch stands again nothing is hinted, so the writer goes on until it is.
    let mut changes = store.changes();
    changes.mark_unchanged();
    tests::eventually("a hint after the restart", SOON, || {
        let (store, mut changes) = (Arc::clone(&store), changes.clone());
        async move {
            write(&*store, [put("k", "w")]).await;
            Ok(
                tokio::time::timeout(Duration::from_millis(100), changes.changed())
                    .await
                    .ok(),
            )
        }
    })
    .await
    .unwrap()
    .unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_etcd_is_unavailable_within_the_deadline_and_no_renewal_is_believed() {
    let mut etcd = Etcd::start().await.unwrap();
    let store = on(&etcd).await;
    let lease = store.grant(LONG, Bound::Time).await.unwrap();
    store.renew(lease).await.unwrap().unwrap();
    write(&*store, [put("k", "v")]).await;

    etcd.freeze().unwrap();
    let start = Instant::now();
    let transaction = Transaction {
        conditions: Vec::new(),
        writes: vec![put("k", "w")],
    };
    let (read, renewed, committed, listed, granted) = tokio::join!(
        store.read("k"),
        store.renew(lease),
        store.commit(transaction),
        store.list(""),
        store.grant(LONG, Bound::Time),
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        start.elapsed()
    );
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    assert!(matches!(renewed, Err(Error::Unavailable { .. })), "{renewed:?}");
    assert!(
        matches!(committed, Err(Error::Unavailable { .. })),
        "{committed:?}"
    );
    assert!(matches!(listed, Err(Error::Unavailable { .. })), "{listed:?}");
    assert!(matches!(granted, Err(Error::Unavailable { .. })), "{granted:?}");

    etcd.thaw().unwrap();
    let back = || async { Ok(store.read("k").await?) };
    tests::eventually("etcd to answer again", SOON, back)
        .await
        .unwrap();
    assert!(store.renew(lease).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_etcd_cannot_keep_a_store_from_closing() {
    let mut etcd = Etcd::start().await.unwrap();
    let store = on(&etcd).await;
    etcd.freeze().unwrap();
    tokio::time::timeout(Duration::from_secs(2), store.close())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_not_there_is_told_at_once() {
    let port = tests::port::Port::claim().unwrap();
    let endpoint = format!("http://127.0.0.1:{}", port.number());
    let start = Instant::now();
    let error = open(
        &StoreUrl::Etcd(settings(vec![endpoint], "x".to_owned())),
        Missing::Refuse,
    )
    .await
    .err()
    .unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let told = chain(&error);
    assert!(
        told.contains(&port.number().to_string()) && told.contains("refused"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_down_or_hangs_is_passed_over() {
    let etcd = Etcd::shared().await.unwrap();
    let down = tests::port::Port::claim().unwrap();
    // The kernel accepts connections to it; nobody ever answers on them.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = vec![
        format!("http://127.0.0.1:{}", down.number()),
        format!("http://{}", hanging.local_addr().unwrap()),
        etcd.endpoint(),
    ];
    let url = StoreUrl::Etcd(settings(endpoints, Etcd::fresh_prefix()));
    let store = open(&url, Missing::Refuse).await.unwrap();
    let start = Instant::now();
    for i in 0..50 {
        write(&*store, [put(&format!("k{i}"), "v")]).await;
        assert!(value(&*store, &format!("k{i}")).await.is_some());
    }
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        start.elapsed()
    );
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_hurt_neither_listings_nor_the_hint() {
    let etcd = Etcd::start().await.unwrap();
    let store = on(&etcd).await;
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None)
        .await
        .unwrap();
    let mut changes = store.changes();
    for i in 0..20 {
        let writes: Vec<Write> = (0..50).map(|j| put(&format!("k{i}/{j}"), "v")).collect();
        let revision = write(&*store, writes).await;
        client.compact(revision, None).await.unwrap();
        assert_eq!(keys(&*store, "k").await.len(), 50 * (i + 1));
    }
    changes.mark_unchanged();
    write(&*store, [put("k", "v")]).await;
    tokio::time::timeout(SOON, changes.changed())
        .await
        .unwrap()
        .unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_do_not_see_each_other() {
    let etcd = Etcd::shared().await.unwrap();
    let prefix = Etcd::fresh_prefix();
    let one = with_prefix(etcd, &prefix).await;
    let longer = with_prefix(etcd, &format!("{prefix}0")).await;
    write(&*one, [put("k", "one")]).await;
    write(&*longer, [put("k", "longer")]).await;
    assert_eq!(value(&*one, "k").await.unwrap(), b"one");
    assert_eq!(keys(&*one, "").await, ["k"]);
    let slashes = with_prefix(etcd, &format!("/{prefix}/")).await;
    assert_eq!(value(&*slashes, "k").await.unwrap(), b"one");
}

/// An etcd with logins: `confiture` may use its prefix, and nothing else may be used by anybody but `root`.
async fn with_logins() -> Etcd {
    let etcd = Etcd::start().await.unwrap();
    let mut root = etcd_client::Client::connect([etcd.endpoint()], None)
        .await
        .unwrap();
    root.role_add("confiture").await.unwrap();
    let below_prefix = etcd_client::Permission::read_write("mine/").with_prefix();
    root.role_grant_permission("confiture", below_prefix)
        .await
        .unwrap();
    for (user, password, role) in [
        ("root", "root", "root"),
        ("confiture", "secret words", "confiture"),
    ] {
        root.user_add(user, password, None).await.unwrap();
        root.user_grant_role(user, role).await.unwrap();
    }
    root.auth_enable().await.unwrap();
    etcd
}

async fn log_in(etcd: &Etcd, prefix: &str, password: &str) -> Result<Arc<dyn Store>, Error> {
    let login = Login {
        user: "confiture".to_owned(),
        password: Secret::new(password),
    };
    let settings = settings::Etcd {
        login: Some(login),
        ..settings(vec![etcd.endpoint()], prefix.to_owned())
    };
    open(&StoreUrl::Etcd(settings), Missing::Refuse).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_works_and_outlives_a_restart_that_forgets_it() {
    let mut etcd = with_logins().await;
    let store = log_in(&etcd, "mine", "secret words").await.unwrap();
    let lease = store.grant(LONG, Bound::Time).await.unwrap();
    write(&*store, [put_bound("k", lease)]).await;

    // etcd keeps its logins in memory.
    etcd.stop().await.unwrap();
    etcd.resume().await.unwrap();
    assert!(value(&*store, "k").await.is_some());
    assert!(store.renew(lease).await.unwrap().is_some());
    let mut changes = store.changes();
    tests::eventually("a hint after the restart", SOON, || {
        let store = Arc::clone(&store);
        changes.mark_unchanged();
        let mut changes = changes.clone();
        async move {
            write(&*store, [put("k", "w")]).await;
            Ok(
                tokio::time::timeout(Duration::from_millis(100), changes.changed())
                    .await
                    .ok(),
            )
        }
    })
    .await
    .unwrap()
    .unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_login_is_refused_without_its_password_in_the_message() {
    let etcd = with_logins().await;
    let wrong = log_in(&etcd, "mine", "hunter2").await.err().unwrap();
    assert!(matches!(wrong, Error::Refused { .. }), "{wrong:?}");
    assert!(
        chain(&wrong).contains("invalid user ID or password"),
        "{}",
        chain(&wrong)
    );
    assert!(!format!("{} {wrong:?}", chain(&wrong)).contains("hunter2"));

    let elsewhere = log_in(&etcd, "theirs", "secret words").await.err().unwrap();
    assert!(matches!(elsewhere, Error::Refused { .. }), "{elsewhere:?}");
    assert!(
        chain(&elsewhere).contains("permission denied"),
        "{}",
        chain(&elsewhere)
    );

    let url = StoreUrl::Etcd(settings(vec![etcd.endpoint()], "mine".to_owned()));
    let nobody = open(&url, Missing::Refuse).await.err().unwrap();
    assert!(matches!(nobody, Error::Refused { .. }), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_with_the_right_files_and_says_what_is_wrong_with_others() {
    let authority = Authority::new().unwrap();
    let server = authority.sign("etcd", &["127.0.0.1", "localhost"]).unwrap();
    let client = authority.sign("confiture", &["client"]).unwrap();
    let etcd = Etcd::start_with_tls(&authority, &server).await.unwrap();
    let files = Directory::new().unwrap();
    let ca_file = files.write("ca.pem", authority.pem()).unwrap();
    let cert_file = files.write("client.pem", client.chain()).unwrap();
    let key_file = files.write("client.key", client.key()).unwrap();
    let identity = Identity { cert_file, key_file };
    let with = |tls: EtcdTls| {
        let settings = settings(vec![etcd.endpoint()], Etcd::fresh_prefix());
        StoreUrl::Etcd(settings::Etcd {
            tls: Some(tls),
            ..settings
        })
    };

    let right = with(EtcdTls {
        ca_file: Some(ca_file.clone()),
        identity: Some(identity.clone()),
    });
    let store = open(&right, Missing::Refuse).await.unwrap();
    write(&*store, [put("k", "v")]).await;
    store.close().await;

    let stranger = files
        .write("stranger.pem", Authority::new().unwrap().pem())
        .unwrap();
    let distrusted = with(EtcdTls {
        ca_file: Some(stranger),
        identity: Some(identity.clone()),
    });
    let error = open(&distrusted, Missing::Refuse).await.err().unwrap();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));

    let systems_own = with(EtcdTls {
        ca_file: None,
        identity: Some(identity),
    });
    assert!(open(&systems_own, Missing::Refuse).await.is_err());

    let without = with(EtcdTls {
        ca_file: Some(ca_file),
        identity: None,
    });
    assert!(matches!(
        open(&without, Missing::Refuse).await,
        Err(Error::Unavailable { .. })
    ));

    let missing = with(EtcdTls {
        ca_file: Some("/no/such/ca.pem".into()),
        identity: None,
    });
    let error = open(&missing, Missing::Refuse).await.err().unwrap();
    assert!(
        matches!(&error, Error::Open { why, .. } if why.contains("/no/such/ca.pem")),
        "{error:?}"
    );
}
