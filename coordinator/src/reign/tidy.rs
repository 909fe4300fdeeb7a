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

    /// Removes all keys of a rollout; without its phase it does not exist, so that goes first.
    async fn remove(&mut self, rollout: &RolloutId) -> Result<(), End> {
        let now = Time::since_1970(runtime::unix_now());
        self.write(vec![Group::of(Write::Delete(keys::phase(rollout)))], now)
            .await?;
        let rest = self
            .store
            .list(&keys::rollout(rollout))
            .await
            .map_err(End::Store)?;
        let rest = rest
            .entries
            .into_iter()
            .map(|entry| Group::of(Write::Delete(entry.key)));
        self.write(rest.collect(), now).await
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
