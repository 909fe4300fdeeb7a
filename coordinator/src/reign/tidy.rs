//! Order in the store: what a reign that ended left half done, rollouts that are long over, bundles that nobody needs.

use super::{End, Reign};
use crate::keys;
use crate::load::Loaded;
use crate::pack::{self, Group};
use crate::store::Write;
use shared::id::{Digest, RolloutId};
use shared::rollout::Time;
use std::collections::BTreeSet;

/// Ended rollouts that are kept to be looked at, and for their request ids. The databases' own ledgers keep all.
const KEPT_ROLLOUTS: usize = 200;

/// How many more there may be before they are removed, so that it is not done for each.
const SLACK: usize = 20;

impl Reign {
    /// Puts in order what was read.
    pub(super) async fn begin(&mut self, loaded: Loaded) -> Result<(), End> {
        let Loaded {
            book,
            changes,
            fragments,
            stray_leases,
        } = loaded;
        self.book = book;
        let now = Time::since_1970(runtime::unix_now());
        self.book.await_agents(now);
        let stray = stray_leases
            .iter()
            .map(|database| Group::of(Write::Delete(keys::lease(database))));
        let changes = changes
            .into_iter()
            .map(|change| pack::group(change, self.book.fleet()));
        let groups: Vec<_> = stray.chain(changes).collect();
        self.write(groups, now).await?;
        for rollout in &fragments {
            self.remove(rollout).await?;
        }
        let outdated = self.book.outdated(KEPT_ROLLOUTS);
        self.forget(&outdated).await?;
        self.remove_bundles().await?;
        self.publish();
        Ok(())
    }

    /// Removes what is long over, when enough of it has come together.
    pub(super) async fn tidy(&mut self) -> Result<(), End> {
        let outdated = self.book.outdated(KEPT_ROLLOUTS);
        if outdated.len() <= SLACK {
            self.bundles.forget_all_but(&self.live_bundles());
            return Ok(());
        }
        self.forget(&outdated).await?;
        self.remove_bundles().await
    }

    async fn forget(&mut self, outdated: &[RolloutId]) -> Result<(), End> {
        for rollout in outdated {
            self.remove(rollout).await?;
            self.book.forget(rollout);
            tracing::info!(%rollout, "removed a rollout that ended long ago");
        }
        Ok(())
    }

    /// Removes all keys of a rollout; without its course it does not exist, so that goes first.
    async fn remove(&mut self, rollout: &RolloutId) -> Result<(), End> {
        let now = Time::since_1970(runtime::unix_now());
        self.write(vec![Group::of(Write::Delete(keys::course(rollout)))], now)
            .await?;
        for prefix in [keys::stories(rollout), keys::rollout(rollout)] {
            let rest = self.store.list(&prefix).await.map_err(End::Store)?;
            let rest = rest.entries.into_iter();
            let deletes = rest.map(|entry| Group::of(Write::Delete(entry.key)));
            self.write(deletes.collect(), now).await?;
        }
        Ok(())
    }

    async fn remove_bundles(&self) -> Result<(), End> {
        let used = self
            .book
            .rollouts()
            .values()
            .map(|rollout| rollout.spec().bundle)
            .collect();
        self.bundles
            .remove_all_but(self.term, &used)
            .await
            .map_err(End::Bundle)
    }

    fn live_bundles(&self) -> BTreeSet<Digest> {
        self.book
            .live()
            .into_iter()
            .map(|rollout| rollout.spec().bundle)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundles::Bundles;
    use crate::leader;
    use crate::load;
    use crate::reign::Identity;
    use crate::store::embedded::Embedded;
    use crate::store::{Outcome, Store, Transaction};
    use shared::id::{DatabaseName, RequestId, SetName, StoreId};
    use shared::rollout::waves::Wave;
    use shared::rollout::work::Aim;
    use shared::rollout::{Bundle, Course, Phase, Policy, Selector, Spec};
    use std::sync::Arc;
    use tokio::sync::{mpsc, watch};

    fn course(phase: Phase) -> Course {
        Course {
            phase,
            ..Course::new()
        }
    }

    /// A store with a leader; its term.
    async fn led() -> (Arc<dyn Store>, i64) {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory().await.unwrap());
        let writes = vec![pack::put(leader::KEY.to_owned(), Vec::new())];
        let outcome = store
            .commit(Transaction {
                conditions: Vec::new(),
                writes,
            })
            .await
            .unwrap();
        let Outcome::Committed { revision } = outcome else {
            panic!("{outcome:?}")
        };
        (store, revision)
    }

    fn reign(store: &Arc<dyn Store>, bundles: &Arc<Bundles>, term: i64) -> Reign {
        let identity = Identity {
            store: StoreId(uuid::Uuid::nil()),
            epoch: 1,
        };
        let (_, inbox) = mpsc::channel(1);
        let (published, _) = watch::channel(Arc::default());
        Reign::new(
            store.clone(),
            bundles.clone(),
            Arc::default(),
            identity,
            term,
            inbox,
            published,
        )
    }

    fn spec(number: u64, bundle: Digest) -> Spec {
        Spec {
            id: RolloutId::from_random(number),
            request: RequestId::try_from(format!("r{number}")).unwrap(),
            number,
            set: SetName::default_set(),
            bundle,
            versions: Vec::new(),
            aim: Aim::Apply,
            selector: Selector::All,
            policy: Policy::default(),
            created_by: String::new(),
            reason: String::new(),
            created_at: Time(0),
            trace: None,
            waves: vec![Wave {
                name: "rest".to_owned(),
                databases: BTreeSet::from([DatabaseName::try_from("orders").unwrap()]),
                soak: std::time::Duration::ZERO,
                approval: false,
                failure_budget: None,
                checks: Vec::new(),
            }],
        }
    }

    async fn write(store: &Arc<dyn Store>, term: i64, groups: Vec<Group>) {
        for packed in pack::pack(term, groups) {
            let outcome = store.commit(packed.transaction).await.unwrap();
            assert!(matches!(outcome, Outcome::Committed { .. }));
        }
    }

    async fn keep(bundles: &Bundles, term: i64, name: &str) -> Digest {
        let bundle = Bundle {
            set: SetName::try_from(name).unwrap(),
            files: Vec::new(),
        };
        let bytes = bundle.to_bytes();
        bundles.keep(term, bundle, bytes).await.unwrap().0
    }

    async fn begin(store: &Arc<dyn Store>, bundles: &Arc<Bundles>, term: i64) -> Reign {
        let mut reign = reign(store, bundles, term);
        let loaded = load::load(store.as_ref(), Time(0)).await.unwrap();
        reign.begin(loaded).await.unwrap();
        reign
    }

    #[tokio::test]
    async fn what_is_long_over_is_removed_with_its_bundle_and_the_rest_is_kept() {
        let (store, term) = led().await;
        let bundles = Arc::new(Bundles::new(store.clone()));
        let old = keep(&bundles, term, "old").await;
        let new = keep(&bundles, term, "new").await;
        let newest = u64::try_from(KEPT_ROLLOUTS).unwrap() + 5;
        for number in 1..=newest {
            let bundle = if number <= 5 { old } else { new };
            write(
                &store,
                term,
                pack::founding(&spec(number, bundle), &course(Phase::Done { at: Time(1) })),
            )
            .await;
        }
        let reign = begin(&store, &bundles, term).await;
        assert_eq!(reign.book.rollouts().len(), KEPT_ROLLOUTS);
        let again = load::load(store.as_ref(), Time(0)).await.unwrap();
        assert_eq!(again.book.rollouts().len(), KEPT_ROLLOUTS);
        assert!(
            again
                .book
                .rollouts()
                .values()
                .all(|rollout| rollout.spec().number > 5)
        );
        assert!(again.fragments.is_empty());
        assert!(Bundles::new(store.clone()).fetch(old).await.is_err());
        assert!(Bundles::new(store.clone()).fetch(new).await.is_ok());
        assert!(
            store
                .list(&format!("piece/{old}/"))
                .await
                .unwrap()
                .entries
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_rollout_that_was_never_founded_to_the_end_is_removed() {
        let (store, term) = led().await;
        let bundles = Arc::new(Bundles::new(store.clone()));
        let digest = keep(&bundles, term, "a").await;
        let mut groups = pack::founding(&spec(1, digest), &course(Phase::Running));
        groups.pop();
        write(&store, term, groups).await;
        let reign = begin(&store, &bundles, term).await;
        assert!(reign.book.rollouts().is_empty());
        assert!(store.list(keys::ROLLOUTS).await.unwrap().entries.is_empty());
        assert!(store.list(keys::BUNDLES).await.unwrap().entries.is_empty());
    }

    #[tokio::test]
    async fn a_bundle_cut_off_while_it_was_written_is_written_again() {
        let (store, term) = led().await;
        let bundle = Bundle {
            set: SetName::default_set(),
            files: Vec::new(),
        };
        let (bytes, digest) = (bundle.to_bytes(), bundle.digest());
        let manifest = keys::Manifest {
            pieces: 1,
            complete: false,
        };
        write(
            &store,
            term,
            vec![Group::of(pack::put(
                keys::bundle(&digest),
                keys::encode(&manifest),
            ))],
        )
        .await;
        let bundles = Bundles::new(store.clone());
        assert!(bundles.fetch(digest).await.is_err());
        drop(bundles.keep(term, bundle.clone(), bytes).await.unwrap());
        assert_eq!(*Bundles::new(store).fetch(digest).await.unwrap(), bundle);
    }

    #[tokio::test]
    async fn a_bundle_about_to_be_used_is_not_removed() {
        let (store, term) = led().await;
        let bundles = Arc::new(Bundles::new(store.clone()));
        let bundle = Bundle {
            set: SetName::default_set(),
            files: Vec::new(),
        };
        let bytes = bundle.to_bytes();
        let (digest, pin) = bundles.keep(term, bundle, bytes).await.unwrap();
        begin(&store, &bundles, term).await;
        assert!(Bundles::new(store.clone()).fetch(digest).await.is_ok());
        drop(pin);
        begin(&store, &bundles, term).await;
        assert!(Bundles::new(store).fetch(digest).await.is_err());
    }

    #[tokio::test]
    async fn one_who_does_not_lead_any_more_writes_nothing() {
        let (store, term) = led().await;
        let bundles = Arc::new(Bundles::new(store.clone()));
        let mut reign = reign(&store, &bundles, term - 1);
        let group = Group::of(pack::put("rollout/x/phase".to_owned(), Vec::new()));
        assert!(matches!(
            reign.write(vec![group], Time(0)).await,
            Err(End::Refused)
        ));
        let bundle = Bundle {
            set: SetName::default_set(),
            files: Vec::new(),
        };
        let bytes = bundle.to_bytes();
        assert!(bundles.keep(term - 1, bundle, bytes).await.is_err());
    }
}
