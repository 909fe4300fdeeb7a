//! Who uses a bundle that no rollout has yet, so that it is not removed under their hands, nor used while it is being
//! removed. In memory: only the leader writes and removes bundles, and a new one starts with no users.

use shared::id::Digest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// All uses and removals.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    uses: Mutex<BTreeMap<Digest, Use>>,
    ended: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Pinned(usize),
    Removed,
}

/// While it lives, the bundle is not removed.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Pins,
    digest: Digest,
}

/// While it lives, the bundle is being removed, and nobody gets a pin on it.
#[derive(Debug)]
pub(super) struct Removal {
    pins: Pins,
    digest: Digest,
}

impl Pins {
    /// Waits until the bundle is not being removed, and pins it.
    pub(super) async fn pin(&self, digest: Digest) -> Pin {
        loop {
            let ended = self.0.ended.notified();
            if self.try_pin(digest) {
                return Pin {
                    pins: self.clone(),
                    digest,
                };
            }
            ended.await;
        }
    }

    fn try_pin(&self, digest: Digest) -> bool {
        let mut uses = self.0.uses.lock().unwrap_or_else(PoisonError::into_inner);
        match uses.entry(digest).or_insert(Use::Pinned(0)) {
            Use::Pinned(count) => {
                *count += 1;
                true
            }
            Use::Removed => false,
        }
    }

    /// Begins a removal, unless someone uses the bundle.
    pub(super) fn remove(&self, digest: Digest) -> Option<Removal> {
        let mut uses = self.0.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.contains_key(&digest) {
            return None;
        }
        uses.insert(digest, Use::Removed);
        Some(Removal {
            pins: self.clone(),
            digest,
        })
    }

    fn end(&self, digest: Digest) {
        let mut uses = self.0.uses.lock().unwrap_or_else(PoisonError::into_inner);
        match uses.get_mut(&digest) {
            Some(Use::Pinned(count)) if *count > 1 => *count -= 1,
            Some(Use::Pinned(_) | Use::Removed) | None => {
                uses.remove(&digest);
            }
        }
        drop(uses);
        self.0.ended.notify_waiters();
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.end(self.digest);
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.pins.end(self.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_pinned_is_not_removed_and_what_is_removed_is_waited_for() {
        let (pins, digest) = (Pins::default(), Digest::of(b"a"));
        let (one, two) = (pins.pin(digest).await, pins.pin(digest).await);
        assert!(pins.remove(digest).is_none());
        drop(one);
        assert!(pins.remove(digest).is_none());
        drop(two);
        let removal = pins.remove(digest).unwrap();
        let waiting = tokio::spawn({
            let pins = pins.clone();
            async move { pins.pin(digest).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(removal);
        drop(waiting.await.unwrap());
        assert!(pins.remove(digest).is_some());
    }
}
