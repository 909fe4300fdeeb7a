//! The heartbeats of one stream: renewed one at a time, beside everything else, each answered.

use super::Context;
use super::lease::{self, Owner};
use futures_util::future::BoxFuture;
use shared::rollout::message::{Renewal, ToAgent};
use std::sync::Arc;

/// A heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) sequence: u64,
    pub(super) lease: i64,
}

/// Those of one stream that are not answered yet.
pub(super) struct Heartbeats {
    context: Arc<Context>,
    under_way: Option<BoxFuture<'static, ToAgent>>,
    /// The latest that came meanwhile.
    next: Option<(Beat, Owner)>,
}

impl Heartbeats {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            under_way: None,
            next: None,
        }
    }

    /// Takes a heartbeat. Returns the answer to one that it overtakes: the lease is neither renewed nor lost by that.
    pub(super) fn take(&mut self, beat: Beat, owner: Owner) -> Option<ToAgent> {
        if self.under_way.is_none() {
            self.begin(beat, owner);
            return None;
        }
        let overtaken = self.next.replace((beat, owner));
        overtaken.map(|(beat, _)| ToAgent::HeartbeatAnswer {
            sequence: beat.sequence,
            renewal: Renewal::StoreUnavailable,
        })
    }

    fn begin(&mut self, beat: Beat, owner: Owner) {
        let store = self.context.store.clone();
        self.under_way = Some(Box::pin(async move {
            let renewal = lease::renew(store.as_ref(), beat.lease, owner).await;
            ToAgent::HeartbeatAnswer {
                sequence: beat.sequence,
                renewal,
            }
        }));
    }

    /// The next answer; never, while none is awaited.
    ///
    /// # Cancel safety
    /// Nothing is lost: the renewal goes on at the next call.
    pub(super) async fn answer(&mut self) -> ToAgent {
        let Some(under_way) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let answer = under_way.await;
        self.under_way = None;
        // A renewal that began before a heartbeat was sent says nothing about the time after it: renewed anew.
        if let Some((beat, owner)) = self.next.take() {
            self.begin(beat, owner);
        }
        answer
    }
}
