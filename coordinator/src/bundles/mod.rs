//! The files of rollouts: stored once by content, in pieces, and kept in memory while they are needed.
//!
//! ```text
//!  manifest incomplete -> pieces -> manifest complete        writing: a bundle cut off is not taken for whole
//!  manifest incomplete -> pieces gone -> manifest gone       removing, when no rollout needs it any more
//! ```

mod pins;

use crate::keys::{self, Manifest};
use crate::pack::{Group, pack, put};
use crate::store::{Error as StoreError, Outcome, Store, Write};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use pins::Pins;
use shared::id::Digest;
use shared::rollout::Bundle;
use shared::rollout::bundle::Damaged;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use pins::Pin;

/// Pieces read at the same time.
const READ_AHEAD: usize = 8;

/// Why a bundle could not be stored or had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("bundle {} cannot be stored or read", .digest.short())]
    Store {
        digest: Digest,
        #[source]
        source: StoreError,
    },
    #[error("bundle {} was not stored: this coordinator does not lead any more", .0.short())]
    Deposed(Digest),
    #[error("bundle {} is not in the store", .0.short())]
    Missing(Digest),
    #[error("bundle {} is damaged in the store", .digest.short())]
    Damaged {
        digest: Digest,
        #[source]
        source: Damaged,
    },
    #[error("bundle {} is damaged in the store: its content has the digest {}", .digest.short(), .found.short())]
    Changed { digest: Digest, found: Digest },
}

/// The bundles of a store.
pub(crate) struct Bundles {
    store: Arc<dyn Store>,
    kept: Mutex<BTreeMap<Digest, Arc<Bundle>>>,
    pins: Pins,
}

impl Bundles {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            kept: Mutex::default(),
            pins: Pins::default(),
        }
    }

    /// Stores a bundle under a term, unless it is there. It is not removed while the pin lives.
    pub(crate) async fn keep(
        &self,
        term: i64,
        bundle: Bundle,
        bytes: Vec<u8>,
    ) -> Result<(Digest, Pin), Error> {
        let digest = Digest::of(&bytes);
        let pin = self.pins.pin(digest).await;
        if !self.is_complete(digest).await? {
            let pieces: Vec<_> = bytes.chunks(keys::PIECE_BYTES).collect();
            let manifest = |complete| {
                let manifest = Manifest {
                    pieces: pieces.len(),
                    complete,
                };
                Group::of(put(keys::bundle(&digest), keys::encode(&manifest)))
            };
            let mut groups = vec![manifest(false)];
            for (n, piece) in pieces.iter().enumerate() {
                groups.push(Group::of(put(keys::bundle_piece(&digest, n), piece.to_vec())));
            }
            groups.push(manifest(true));
            self.write(term, digest, groups).await?;
        }
        self.remember(digest, Arc::new(bundle));
        Ok((digest, pin))
    }

    async fn is_complete(&self, digest: Digest) -> Result<bool, Error> {
        Ok(self
            .manifest(digest)
            .await?
            .is_some_and(|manifest| manifest.complete))
    }

    async fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, Error> {
        let failed = |source| Error::Store { digest, source };
        let key = keys::bundle(&digest);
        let entry = self.store.read(&key).await.map_err(failed)?;
        entry
            .map(|entry| keys::decode(&key, &entry.value))
            .transpose()
            .map_err(failed)
    }

    async fn write(&self, term: i64, digest: Digest, groups: Vec<Group>) -> Result<(), Error> {
        for packed in pack(term, groups) {
            match self.store.commit(packed.transaction).await {
                Ok(Outcome::Committed { .. }) => {}
                Ok(Outcome::Refused) => return Err(Error::Deposed(digest)),
                Err(source) => return Err(Error::Store { digest, source }),
            }
        }
        Ok(())
    }

    /// A bundle that is in memory.
    pub(crate) fn kept(&self, digest: Digest) -> Option<Arc<Bundle>> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&digest)
            .cloned()
    }

    fn remember(&self, digest: Digest, bundle: Arc<Bundle>) {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest, bundle);
    }

    /// Reads a bundle into memory.
    pub(crate) async fn fetch(&self, digest: Digest) -> Result<Arc<Bundle>, Error> {
        if let Some(bundle) = self.kept(digest) {
            return Ok(bundle);
        }
        let manifest = self.manifest(digest).await?.filter(|manifest| manifest.complete);
        let manifest = manifest.ok_or(Error::Missing(digest))?;
        let read = |n| async move {
            let entry = self.store.read(&keys::bundle_piece(&digest, n)).await;
            let entry = entry.map_err(|source| Error::Store { digest, source })?;
            entry.map(|entry| entry.value).ok_or(Error::Missing(digest))
        };
        let pieces: Vec<_> = stream::iter(0..manifest.pieces)
            .map(read)
            .buffered(READ_AHEAD)
            .try_collect()
            .await?;
        let bytes = pieces.concat();
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(Error::Changed { digest, found });
        }
        let bundle = Bundle::from_bytes(&bytes).map_err(|source| Error::Damaged { digest, source })?;
        let bundle = Arc::new(bundle);
        self.remember(digest, bundle.clone());
        Ok(bundle)
    }

    /// Lets go of what is in memory and not needed; it can be read again.
    pub(crate) fn forget_all_but(&self, needed: &BTreeSet<Digest>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|digest, _| needed.contains(digest));
    }

    /// Removes bundles from the store that no rollout has, and that nobody is about to use.
    pub(crate) async fn remove_all_but(&self, term: i64, used: &BTreeSet<Digest>) -> Result<(), Error> {
        for digest in self.stored().await? {
            if used.contains(&digest) {
                continue;
            }
            let Some(_removal) = self.pins.remove(digest) else {
                continue;
            };
            let Some(manifest) = self.manifest(digest).await? else {
                continue;
            };
            let begun = keys::encode(&Manifest {
                complete: false,
                ..manifest
            });
            let mut groups = vec![Group::of(put(keys::bundle(&digest), begun))];
            let pieces = (0..manifest.pieces).map(|n| keys::bundle_piece(&digest, n));
            groups.extend(pieces.map(|key| Group::of(Write::Delete(key))));
            groups.push(Group::of(Write::Delete(keys::bundle(&digest))));
            self.write(term, digest, groups).await?;
            tracing::info!(bundle = digest.short(), "removed a bundle that no rollout has");
        }
        Ok(())
    }

    async fn stored(&self) -> Result<Vec<Digest>, Error> {
        let failed = |source| Error::Store {
            digest: Digest::of(b""),
            source,
        };
        let listing = self.store.list(keys::BUNDLES).await.map_err(failed)?;
        let digest = |key: &str| Digest::try_from(key.strip_prefix(keys::BUNDLES)?.to_owned()).ok();
        Ok(listing
            .entries
            .iter()
            .filter_map(|entry| digest(&entry.key))
            .collect())
    }
}
