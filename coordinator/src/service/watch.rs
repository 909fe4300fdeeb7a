//! The stream of one watched rollout: first everything, then what changes, until it has ended.
//!
//! No task of its own: each message is made when the client has room for it, from the book as it is then. So a slow
//! client gets fewer messages, never old ones.

use super::operator::now;
use super::{Context, status};
use crate::seat::Seat;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use proto::convert::view;
use proto::v1;
use shared::rollout::show;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// Changes within this time come in one message.
const PAUSE: Duration = Duration::from_millis(200);

/// Without news the book is looked at this often: reasons to wait can pass without anything being written.
const PATIENCE: Duration = Duration::from_secs(1);

struct Watch {
    context: Arc<Context>,
    /// Where the stream began; it ends when the leadership moves.
    seat: Seat,
    id: String,
    rollout: Option<v1::Rollout>,
    assignments: BTreeMap<String, v1::Assignment>,
    last: Option<Instant>,
    ended: bool,
}

/// The stream of a rollout that exists.
pub(super) fn stream(
    context: Arc<Context>,
    seat: Seat,
    id: String,
) -> BoxStream<'static, Result<v1::WatchRolloutResponse, Status>> {
    let watch = Watch {
        context,
        seat,
        id,
        rollout: None,
        assignments: BTreeMap::new(),
        last: None,
        ended: false,
    };
    let next = |mut watch: Watch| async move {
        if watch.ended {
            return None;
        }
        let message = watch.next().await;
        watch.ended |= message.is_err();
        Some((message, watch))
    };
    stream::unfold(watch, next).boxed()
}

impl Watch {
    /// The next message with news.
    async fn next(&mut self) -> Result<v1::WatchRolloutResponse, Status> {
        loop {
            if let Some(last) = self.last {
                self.wait(last).await?;
            }
            self.last = Some(Instant::now());
            let book = self.context.book_of(&self.seat).await?;
            let rollout = book.find(&self.id).map_err(|error| status::of_search(&error))?;
            let shown = view::rollout_to_wire(show::show_rollout(rollout, now()));
            let all = book
                .show_assignments(rollout, now())
                .into_iter()
                .map(view::assignment_to_wire);
            let changed: Vec<_> = all
                .filter(|a| self.assignments.get(&a.database) != Some(a))
                .collect();
            if changed.is_empty() && self.rollout.as_ref() == Some(&shown) {
                continue;
            }
            self.assignments
                .extend(changed.iter().map(|a| (a.database.clone(), a.clone())));
            self.rollout = Some(shown.clone());
            self.ended = rollout.phase().is_ended();
            return Ok(v1::WatchRolloutResponse {
                rollout: Some(shown),
                changed,
            });
        }
    }

    /// Waits for news, and until the pause after the last message is over.
    async fn wait(&self, last: Instant) -> Result<(), Status> {
        let mut seat = self.context.seat.clone();
        let moved = async {
            // The sender lives as long as the coordinator serves.
            let _ = seat.wait_for(|seat| !seat.is_same(&self.seat)).await;
        };
        let news = async {
            match &self.seat {
                Seat::Leading(reigning) => drop(reigning.book.clone().changed().await),
                Seat::Following { .. } => drop(self.context.mirror.hints().changed().await),
            }
        };
        tokio::select! {
            () = self.context.stop.cancelled() => Err(status::stopping()),
            () = moved => Err(status::leadership_moved()),
            () = async {
                let _: Result<(), _> = tokio::time::timeout(PATIENCE, news).await;
                tokio::time::sleep_until(last + PAUSE).await;
            } => Ok(()),
        }
    }
}
