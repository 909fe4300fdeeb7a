//! The book as one who does not lead reads it: from the store, kept for a moment.

use crate::load;
use crate::store::{Error, Store};
use shared::rollout::{Book, Time};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};

/// Reading everything again is never more frequent, however many ask.
const SHORTEST_AGE: Duration = Duration::from_millis(200);

/// Hints may be late; what was read is not used longer without one.
const LONGEST_AGE: Duration = Duration::from_secs(1);

/// Reads the store for many at a time.
pub(crate) struct Mirror {
    store: Arc<dyn Store>,
    hints: watch::Receiver<u64>,
    last: Mutex<Option<Reading>>,
}

struct Reading {
    book: Arc<Book>,
    begun: Instant,
    hint: u64,
}

impl Mirror {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            hints: store.changes(),
            store,
            last: Mutex::new(None),
        }
    }

    /// All that is stored, a moment old at most: for one who looks again and again.
    pub(crate) async fn book(&self) -> Result<Arc<Book>, Error> {
        // Held over the reading on purpose: whoever comes meanwhile takes the same answer.
        let mut last = self.last.lock().await;
        let hint = *self.hints.borrow();
        if let Some(reading) = last.as_ref() {
            let age = reading.begun.elapsed();
            if age < SHORTEST_AGE || (age < LONGEST_AGE && reading.hint == hint) {
                return Ok(reading.book.clone());
            }
        }
        self.read(&mut last, hint).await
    }

    /// All that is stored now: whoever has just been told of a change by another coordinator finds it.
    pub(crate) async fn fresh(&self) -> Result<Arc<Book>, Error> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        let hint = *self.hints.borrow();
        if let Some(reading) = last.as_ref().filter(|reading| reading.begun > asked) {
            return Ok(reading.book.clone());
        }
        self.read(&mut last, hint).await
    }

    async fn read(&self, last: &mut Option<Reading>, hint: u64) -> Result<Arc<Book>, Error> {
        let begun = Instant::now();
        let now = Time::since_1970(runtime::unix_now());
        let book = Arc::new(load::load(self.store.as_ref(), now).await?.book.from_afar());
        *last = Some(Reading {
            book: book.clone(),
            begun,
            hint,
        });
        Ok(book)
    }

    /// Changes when something was written.
    pub(crate) fn hints(&self) -> watch::Receiver<u64> {
        self.hints.clone()
    }
}
