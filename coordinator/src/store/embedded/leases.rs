//! When leases end: pure bookkeeping over the caller's clock. Which leases exist, and which keys are bound to them, is
//! in the tables; how long each still lives is only here, since a store that is opened again gives them their full time.

use crate::store::LeaseId;
use runtime::clock::Boot;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Boot,
}

/// The leases that live, and when each ends.
#[derive(Debug, Default)]
pub(super) struct Leases {
    live: BTreeMap<LeaseId, Lease>,
    ends: BTreeSet<(Boot, LeaseId)>,
}

impl Leases {
    /// Adds a lease that lives for `ttl` from now on.
    pub(super) fn insert(&mut self, id: LeaseId, ttl: Duration, now: Boot) {
        self.remove(id);
        let ends = now + ttl;
        self.live.insert(id, Lease { ttl, ends });
        self.ends.insert((ends, id));
    }

    /// Gives a lease its full time again and says how long that is; `None` if it has ended or never was.
    pub(super) fn renew(&mut self, id: LeaseId, now: Boot) -> Option<Duration> {
        let lease = self.live.get_mut(&id).filter(|lease| lease.ends > now)?;
        self.ends.remove(&(lease.ends, id));
        lease.ends = now + lease.ttl;
        self.ends.insert((lease.ends, id));
        Some(lease.ttl)
    }

    /// Forgets a lease that the tables no longer have.
    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.live.remove(&id) {
            self.ends.remove(&(lease.ends, id));
        }
    }

    /// The leases whose time is over and whose keys are to be removed.
    pub(super) fn expired(&self, now: Boot) -> Vec<LeaseId> {
        self.ends
            .iter()
            .take_while(|(ends, _)| *ends <= now)
            .map(|(_, id)| *id)
            .collect()
    }

    /// When the next lease ends.
    pub(super) fn next_end(&self) -> Option<Boot> {
        self.ends.first().map(|(ends, _)| *ends)
    }

    /// Agrees with what the tables have: unknown ones get their full time, the others keep theirs.
    pub(super) fn reconcile(&mut self, stored: &[(LeaseId, Duration)], now: Boot) {
        let known: BTreeSet<LeaseId> = stored.iter().map(|(id, _)| *id).collect();
        let gone: Vec<LeaseId> = self
            .live
            .keys()
            .copied()
            .filter(|id| !known.contains(id))
            .collect();
        for id in gone {
            self.remove(id);
        }
        for (id, ttl) in stored {
            if !self.live.contains_key(id) {
                self.insert(*id, *ttl, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_lease_ends_when_its_time_is_over_unless_renewed() {
        let mut leases = Leases::default();
        leases.insert(A, seconds(10), at(100));
        leases.insert(B, seconds(5), at(100));
        assert_eq!(leases.next_end(), Some(at(105)));

        assert_eq!(leases.renew(B, at(104)), Some(seconds(5)));
        assert_eq!(leases.expired(at(108)), vec![]);
        assert_eq!(leases.expired(at(109)), vec![B]);
        assert_eq!(leases.expired(at(110)), vec![B, A]);
    }

    #[test]
    fn a_lease_whose_time_is_over_cannot_be_renewed_even_before_it_is_removed() {
        let mut leases = Leases::default();
        leases.insert(A, seconds(10), at(100));
        assert_eq!(leases.renew(A, at(110)), None);
        assert_eq!(leases.expired(at(110)), vec![A]);
        leases.remove(A);
        assert_eq!(leases.next_end(), None);
        assert_eq!(leases.renew(A, at(101)), None);
    }

    #[test]
    fn reconciling_keeps_what_both_know_and_follows_the_tables_for_the_rest() {
        let mut leases = Leases::default();
        leases.insert(A, seconds(10), at(100));
        leases.insert(B, seconds(10), at(100));
        leases.reconcile(&[(B, seconds(10)), (LeaseId(3), seconds(7))], at(105));
        assert_eq!(leases.renew(A, at(105)), None);
        assert_eq!(leases.expired(at(110)), vec![B]);
        assert_eq!(leases.expired(at(112)), vec![B, LeaseId(3)]);
    }
}
