//! Where reads come from: the reign of this coordinator, or else the store.

use super::{Context, status};
use crate::seat::Seat;
use shared::rollout::Book;
use std::sync::Arc;
use tonic::Status;

impl Context {
    /// The book, a moment old at most.
    pub(super) async fn book(&self) -> Result<Arc<Book>, Status> {
        let seat = self.seat.borrow().clone();
        self.book_of(&seat).await
    }

    /// The book as seen from a seat.
    pub(super) async fn book_of(&self, seat: &Seat) -> Result<Arc<Book>, Status> {
        match seat {
            Seat::Leading(reigning) => Ok(reigning.book.borrow().clone()),
            Seat::Following { .. } => self.mirror.book().await.map_err(|error| status::of_store(&error)),
        }
    }

    /// A book that has the rollout, and its full id.
    pub(super) async fn book_with(&self, id: &str) -> Result<(Arc<Book>, String), Status> {
        let book = self.book().await?;
        if let Ok(rollout) = book.find(id) {
            let id = rollout.spec().id.to_string();
            return Ok((book, id));
        }
        let seat = self.seat.borrow().clone();
        let book = match seat {
            Seat::Leading(_) => book,
            // It may have been founded a moment ago.
            Seat::Following { .. } => self
                .mirror
                .fresh()
                .await
                .map_err(|error| status::of_store(&error))?,
        };
        let id = book
            .find(id)
            .map_err(|error| status::of_search(&error))?
            .spec()
            .id
            .to_string();
        Ok((book, id))
    }
}
