//! One pool of one database: how many may wait for a connection, which ones are kept open, and what is counted.

use super::{Counts, Inner, Object, PoolError, Server, Trouble};
use deadpool::managed::TimeoutType;
use deadpool::managed::Timeouts;
use shared::pool::{Places, Stats};
use shared::settings;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that may wait at the same time. What we do ourselves asks for some tens; more than this is a mistake that
/// should be told and not eat memory.
const MOST_WAITING: usize = 1_000;

/// A pool; opens connections only when it is asked for one.
#[derive(Debug)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
    server: Arc<Server>,
    counts: Arc<Counts>,
    kept: Kept,
}

/// Which idle connections are kept open.
#[derive(Debug, Clone, Copy)]
struct Kept {
    least: usize,
    idle: Duration,
    lifetime: Duration,
}

/// Whether a database has work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    None,
    Some,
}

impl Pool {
    pub(super) fn new(
        inner: Arc<Inner>,
        server: Arc<Server>,
        counts: Arc<Counts>,
        settings: &settings::Pool,
    ) -> Self {
        let kept = Kept {
            least: settings.min_size,
            idle: settings.max_idle_time,
            lifetime: settings.max_lifetime,
        };
        Self {
            inner,
            server,
            counts,
            kept,
        }
    }

    /// A connection, as soon as there is one.
    pub(crate) async fn get(&self) -> Result<Object, PoolError> {
        let since = Instant::now();
        let taken = match self.counts.request(MOST_WAITING) {
            Some(_request) => self.inner.get().await,
            None => Err(PoolError::Backend(Trouble::Crowded(MOST_WAITING))),
        };
        self.counts.waited(since.elapsed());
        if let Err(
            PoolError::Timeout(TimeoutType::Wait)
            | PoolError::Backend(Trouble::Full(_) | Trouble::Crowded(_)),
        ) = &taken
        {
            self.counts.gave_up();
        }
        taken
    }

    pub(crate) fn manager(&self) -> &super::Manager {
        self.inner.manager()
    }

    /// Closes idle connections beyond the least number that have been idle for long, and old ones. Without work the least
    /// number is none.
    pub(crate) fn close_spent(&self, work: Work) {
        let mut spare = self.inner.status().size.saturating_sub(self.least(work));
        let closed = self.inner.retain(|connection, metrics| {
            let old = metrics.age() >= self.kept.lifetime;
            // The first is the one that has been idle the longest.
            let stays = !old && (spare == 0 || connection.idle() < self.kept.idle);
            if !stays {
                spare = spare.saturating_sub(1);
            }
            if old {
                self.counts.recycled();
            }
            stays
        });
        drop(closed);
    }

    /// Opens what misses to the least number, as long as the server has free places: whoever has work comes first.
    ///
    /// # Cancel safety
    /// What was opened stays.
    pub(crate) async fn warm(&self, work: Work) -> Result<(), PoolError> {
        let least = self.least(work);
        // Those that are idle come first; they are held until the missing ones are there.
        let mut held = Vec::new();
        while self.inner.status().size < least && held.len() < least && self.server.has_free_place() {
            let timeouts = Timeouts {
                wait: Some(Duration::ZERO),
                ..self.inner.timeouts()
            };
            match self.inner.timeout_get(&timeouts).await {
                Ok(object) => held.push(object),
                // All are in use: there is nothing to be warmed.
                Err(PoolError::Timeout(TimeoutType::Wait)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn least(&self, work: Work) -> usize {
        match work {
            Work::None => 0,
            Work::Some => self.kept.least,
        }
    }

    /// What is open and what was done.
    pub(crate) fn stats(&self) -> Stats {
        let mut idle = 0;
        let kept = self.inner.retain(|_, _| {
            idle += 1;
            true
        });
        drop(kept);
        let status = self.inner.status();
        Stats {
            active: status.size.saturating_sub(idle),
            idle,
            waiting: self.counts.waiting(),
            max: status.max_size,
            ..self.counts.totals()
        }
    }

    /// Whether one is open and not in use.
    pub(crate) fn has_idle(&self) -> bool {
        self.inner.status().available > 0
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.counts.waiting()
    }

    /// The server's places, where it has a bound.
    pub(crate) fn places(&self) -> Option<Places> {
        self.server.bound()
    }
}
