//! What a pool counts since the process began, and who asks it for a connection now.

use shared::pool::Stats;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Of one pool.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: AtomicUsize,
    /// Requests of those for which a connection is being opened.
    opening: AtomicUsize,
    created: AtomicU64,
    recycled: AtomicU64,
    given_up: AtomicU64,
    longest_wait_micros: AtomicU64,
}

/// One more in a number for as long as it lives.
#[derive(Debug)]
pub(super) struct OneMore<'a>(&'a AtomicUsize);

impl<'a> OneMore<'a> {
    fn of(number: &'a AtomicUsize) -> Self {
        number.fetch_add(1, Ordering::Relaxed);
        Self(number)
    }
}

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    /// A request, unless so many wait already.
    pub(super) fn request(&self, most_waiting: usize) -> Option<OneMore<'_>> {
        let request = OneMore::of(&self.requests);
        (self.waiting() <= most_waiting).then_some(request)
    }

    /// A connection is being opened.
    pub(super) fn opening(&self) -> OneMore<'_> {
        OneMore::of(&self.opening)
    }

    pub(super) fn created(&self) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn recycled(&self) {
        self.recycled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gave_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest_wait_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Requests that wait; not those for which a connection is being opened.
    pub(super) fn waiting(&self) -> usize {
        let opening = self.opening.load(Ordering::Relaxed);
        self.requests.load(Ordering::Relaxed).saturating_sub(opening)
    }

    /// What was counted, without what is open.
    pub(super) fn totals(&self) -> Stats {
        Stats {
            created: self.created.load(Ordering::Relaxed),
            recycled: self.recycled.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
            longest_wait: Duration::from_micros(self.longest_wait_micros.load(Ordering::Relaxed)),
            ..Stats::default()
        }
    }
}
