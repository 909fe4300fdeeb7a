//! Where reads come from: the reign of this coordinator, or else the store.

use super::{Context, status};
use crate::seat::Seat;
use shared::rollout::Book;
use std::sync::Arc;
use tonic::Status;

impl Context {
    /// The book as it is now.
    pub(super) async fn book(&self) -> Result<Arc<Book>, Status> {
        let seat = self.seat.borrow().clone();
        match seat {
            Seat::Leading(reigning) => Ok(reigning.book.borrow().clone()),
            Seat::Following { .. } => self
                .mirror
                .fresh()
                .await
                .map_err(|error| status::of_store(&error)),
        }
    }

    /// The book as seen from a seat, a moment old at most.
    pub(super) async fn book_of(&self, seat: &Seat) -> Result<Arc<Book>, Status> {
        match seat {
            Seat::Leading(reigning) => Ok(reigning.book.borrow().clone()),
            Seat::Following { .. } => self.mirror.book().await.map_err(|error| status::of_store(&error)),
        }
    }
}
