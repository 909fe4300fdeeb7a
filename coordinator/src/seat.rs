//! What this coordinator is at the moment, for the handlers and the agents' streams.

use crate::reign::Command;
use shared::rollout::Book;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What this coordinator is.
#[derive(Debug, Clone)]
pub(crate) enum Seat {
    /// It leads: everything goes to its reign.
    Leading(Reigning),
    /// It does not lead (yet, or any more).
    Following {
        /// The URL of the one that does.
        leader: Option<String>,
    },
}

/// How to reach the reign.
#[derive(Debug, Clone)]
pub(crate) struct Reigning {
    /// Tells reigns apart; one term can have several, since a reign that lost a write begins anew.
    pub(crate) number: u64,
    /// The term, under which all is written.
    pub(crate) term: i64,
    /// What it is to hear.
    pub(crate) inbox: mpsc::Sender<Command>,
    /// What it knows, as of its last commit.
    pub(crate) book: watch::Receiver<Arc<Book>>,
}

impl Seat {
    /// Whether everything learned from one of them is still so under the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leading(one), Self::Leading(other)) => one.number == other.number,
            (Self::Following { leader: one }, Self::Following { leader: other }) => one == other,
            (Self::Leading(_), Self::Following { .. }) | (Self::Following { .. }, Self::Leading(_)) => false,
        }
    }
}
