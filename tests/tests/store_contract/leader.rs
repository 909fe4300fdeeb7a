//! Elections: one leader, soon another one, and never two that believe.

use super::faulty::{Fault, Faulty};
use super::file::Scratch;
use super::*;
use coordinator::leader::{Election, KEY, Role};
use std::time::Instant;
use tests::etcd::Etcd;
use tokio::runtime::Runtime;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

/// A leader lease that is believed in for 2 s.
const LEASE: Duration = Duration::from_secs(3);

/// How long it is believed in.
const BELIEF: Duration = Duration::from_secs(2);

fn start(store: &Arc<dyn Store>, name: &str, lease: Duration) -> (Receiver<Role>, Election) {
    Election::start(
        Arc::clone(store),
        format!("http://{name}"),
        lease,
        &CancellationToken::new(),
    )
}

/// Waits until it leads; the term.
async fn leads(role: &mut Receiver<Role>) -> i64 {
    let waited = tokio::time::timeout(SOON, role.wait_for(|role| matches!(role, Role::Leading { .. }))).await;
    match &*waited.expect("it does not lead").expect("the election ended") {
        Role::Leading { term } => *term,
        Role::Following { .. } => unreachable!("waited for the other"),
    }
}

/// Waits until it follows this leader.
async fn follows(role: &mut Receiver<Role>, leader: Option<&str>) {
    let expected = Role::Following {
        leader: leader.map(|name| format!("http://{name}")),
    };
    let waited = tokio::time::timeout(SOON, role.wait_for(|role| *role == expected)).await;
    waited
        .unwrap_or_else(|_| panic!("it does not follow {leader:?}"))
        .expect("the election ended");
}

fn is_leading(role: &Receiver<Role>) -> bool {
    matches!(*role.borrow(), Role::Leading { .. })
}

/// The first that leads of two, then the other.
async fn first<'r>(
    one: &'r mut Receiver<Role>,
    two: &'r mut Receiver<Role>,
) -> (&'r mut Receiver<Role>, &'r mut Receiver<Role>) {
    let one_leads = tokio::select! {
        _ = leads(one) => true,
        _ = leads(two) => false,
    };
    if one_leads { (one, two) } else { (two, one) }
}

/// One life of a coordinator's election, that can be ended as by SIGKILL: nothing of it runs on.
struct Life {
    runtime: Option<Runtime>,
    role: Receiver<Role>,
    _election: Election,
}

impl Life {
    fn start(store: &Arc<dyn Store>, name: &str, lease: Duration) -> Self {
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let (role, election) = start(store, name, lease);
        drop(guard);
        Self {
            runtime: Some(runtime),
            role,
            _election: election,
        }
    }

    fn kill(&mut self) {
        self.runtime.take().expect("killed once").shutdown_background();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a case on the embedded store and on etcd.
macro_rules! on_both_stores {
    ($($case:ident,)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::memory().await).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let etcd = tests::etcd::Etcd::start().await.unwrap();
                super::$case(crate::etcd::on(&etcd).await).await;
            })*
        }
    };
}

on_both_stores! {
    of_two_one_leads_and_the_other_knows_where,
    resigning_is_quick_and_terms_only_grow,
    a_leader_that_dies_is_followed_by_another_after_its_lease,
    a_leader_whose_key_is_deleted_steps_down,
    a_leader_without_its_store_steps_down_in_time_and_leads_again_later,
    a_lost_answer_to_the_winning_commit_is_found_out,
    a_lost_answer_to_a_lost_election_is_no_victory,
    what_became_of_a_claim_that_cannot_be_read_is_cleared_up,
    one_who_is_asked_to_stop_does_even_when_the_store_hangs,
}

async fn of_two_one_leads_and_the_other_knows_where(store: Arc<dyn Store>) {
    let (mut a, a_election) = start(&store, "a", LEASE);
    let (mut b, b_election) = start(&store, "b", LEASE);
    let (leader, follower) = first(&mut a, &mut b).await;
    let name = serde_json::from_slice::<serde_json::Value>(&value(&*store, KEY).await.unwrap()).unwrap();
    let url = name["url"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .to_owned();
    follows(follower, Some(&url)).await;

    // It goes on leading, in the same term, for longer than its lease.
    let term = leads(leader).await;
    let end = Instant::now() + LEASE * 3 / 2;
    while Instant::now() < end {
        assert_eq!(*leader.borrow(), Role::Leading { term });
        assert!(!is_leading(follower));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        store.read(KEY).await.unwrap().unwrap().created,
        term,
        "the term is the key's creation"
    );
    tokio::join!(a_election.resign(), b_election.resign());
}

async fn resigning_is_quick_and_terms_only_grow(store: Arc<dyn Store>) {
    let mut last_term = 0;
    let (mut role, mut election) = start(&store, "0", Duration::from_mins(1));
    for i in 1..=4 {
        let term = leads(&mut role).await;
        assert!(term > last_term, "{term} after {last_term}");
        last_term = term;

        let (mut next_role, next) = start(&store, &i.to_string(), Duration::from_mins(1));
        follows(&mut next_role, Some(&(i - 1).to_string())).await;
        let start = Instant::now();
        election.resign().await;
        assert!(!is_leading(&role));
        leads(&mut next_role).await;
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "it took {:?}",
            start.elapsed()
        );
        (role, election) = (next_role, next);
    }
    election.resign().await;
    assert_eq!(store.read(KEY).await.unwrap(), None);
}

async fn a_leader_that_dies_is_followed_by_another_after_its_lease(store: Arc<dyn Store>) {
    let mut old = Life::start(&store, "old", LEASE);
    let old_term = leads(&mut old.role).await;
    let (mut new, election) = start(&store, "new", LEASE);
    follows(&mut new, Some("old")).await;

    old.kill();
    let killed = Instant::now();
    let term = leads(&mut new).await;
    assert!(term > old_term);
    // It may have renewed a third of its lease ago.
    assert!(killed.elapsed() > LEASE / 2, "after {:?}", killed.elapsed());
    election.resign().await;
}

async fn a_leader_whose_key_is_deleted_steps_down(store: Arc<dyn Store>) {
    let (mut role, election) = start(&store, "a", LEASE);
    let term = leads(&mut role).await;
    write(&*store, [delete(KEY)]).await;
    follows(&mut role, None).await;
    assert!(leads(&mut role).await > term);
    election.resign().await;
}

async fn a_leader_without_its_store_steps_down_in_time_and_leads_again_later(store: Arc<dyn Store>) {
    let faulty = Faulty::new(Arc::clone(&store));
    let (mut a, a_election) = start(&faulty.store(), "a", LEASE);
    let term = leads(&mut a).await;
    for fault in [Fault::Hangs, Fault::Fails] {
        // Long enough for a renewal to count.
        tokio::time::sleep(LEASE / 2).await;
        faulty.set(fault);
        let broken = Instant::now();
        follows(&mut a, None).await;
        // It was confirmed a third of the lease ago at most.
        assert!(
            broken.elapsed() > BELIEF / 4,
            "one failure is no reason: after {:?}",
            broken.elapsed()
        );
        assert!(
            broken.elapsed() < BELIEF + Duration::from_millis(500),
            "after {:?}",
            broken.elapsed()
        );
        faulty.set(Fault::None);
        assert!(leads(&mut a).await > term);
    }
    a_election.resign().await;
    assert_eq!(store.read(KEY).await.unwrap(), None);
}

async fn a_lost_answer_to_the_winning_commit_is_found_out(store: Arc<dyn Store>) {
    let faulty = Faulty::new(Arc::clone(&store));
    faulty.set(Fault::LosesCommits);
    let (mut role, election) = start(&faulty.store(), "a", Duration::from_mins(1));
    let term = leads(&mut role).await;
    assert_eq!(store.read(KEY).await.unwrap().unwrap().created, term);
    election.resign().await;
}

async fn a_lost_answer_to_a_lost_election_is_no_victory(store: Arc<dyn Store>) {
    let faulty = Faulty::new(Arc::clone(&store));
    // It stands under the same URL, as an earlier life of the same coordinator would.
    faulty.set(Fault::Outruns(
        r#"{"url":"http://a","instance":"00000000-0000-0000-0000-000000000001"}"#,
    ));
    let (role, election) = start(&faulty.store(), "a", LEASE);
    tests::eventually("the other claim", SOON, || async { Ok(store.read(KEY).await?) })
        .await
        .unwrap();
    tokio::time::sleep(LEASE).await;
    assert_eq!(
        *role.borrow(),
        Role::Following { leader: None },
        "nobody is sent in a circle"
    );
    election.resign().await;
    assert!(
        value(&*store, KEY).await.is_some(),
        "what is not ours is left alone"
    );
}

async fn what_became_of_a_claim_that_cannot_be_read_is_cleared_up(store: Arc<dyn Store>) {
    let faulty = Faulty::new(Arc::clone(&store));
    faulty.set(Fault::LosesCommitsThenFails);
    let (mut role, election) = start(&faulty.store(), "a", Duration::from_mins(1));
    tests::eventually("the claim", SOON, || async { Ok(store.read(KEY).await?) })
        .await
        .unwrap();
    let claimed = store.read(KEY).await.unwrap().unwrap().created;
    assert!(!is_leading(&role));

    // Long before the lease of a minute ends.
    faulty.set(Fault::None);
    assert!(leads(&mut role).await > claimed);
    election.resign().await;
}

async fn one_who_is_asked_to_stop_does_even_when_the_store_hangs(store: Arc<dyn Store>) {
    let faulty = Faulty::new(store);
    let (mut role, election) = start(&faulty.store(), "a", LEASE);
    leads(&mut role).await;
    faulty.set(Fault::Hangs);
    let start = Instant::now();
    election.resign().await;
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "it took {:?}",
        start.elapsed()
    );
    assert!(!is_leading(&role));
    role.mark_unchanged();
    assert!(role.changed().await.is_err(), "the election has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_with_a_file_leads_at_once_after_it_was_killed() {
    let file = Scratch::new();
    let mut last_term = 0;
    for _ in 0..3 {
        // All of it, the store too, lives in this runtime and is dropped in mid-work.
        let runtime = Runtime::new().unwrap();
        let place = file.path();
        let life = runtime.spawn(async move {
            let url = StoreUrl::File(place);
            let open = || async { Ok(open(&url, Missing::Create).await.ok()) };
            let store = tests::eventually("the file to be free", SOON, open)
                .await
                .unwrap();
            let opened = Instant::now();
            let (mut role, election) = start(&store, "a", Duration::from_mins(10));
            let term = leads(&mut role).await;
            assert!(
                opened.elapsed() < Duration::from_secs(2),
                "it took {:?}",
                opened.elapsed()
            );
            std::mem::forget(election);
            term
        });
        let term = life.await.unwrap();
        runtime.shutdown_background();
        assert!(term > last_term);
        last_term = term;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_etcd_is_frozen_nobody_believes_and_afterwards_one_leads() {
    let mut etcd = Etcd::start().await.unwrap();
    let one = super::etcd::with_prefix(&etcd, "fleet").await;
    let two = super::etcd::with_prefix(&etcd, "fleet").await;
    let (mut a, a_election) = start(&one, "a", LEASE);
    let (mut b, b_election) = start(&two, "b", LEASE);
    let (leader, follower) = first(&mut a, &mut b).await;
    etcd.freeze().unwrap();
    let frozen = Instant::now();
    follows(leader, None).await;
    assert!(
        frozen.elapsed() < BELIEF + Duration::from_millis(500),
        "after {:?}",
        frozen.elapsed()
    );
    assert!(!is_leading(follower));
    etcd.thaw().unwrap();
    first(leader, follower).await;
    tokio::join!(a_election.resign(), b_election.resign());
}
