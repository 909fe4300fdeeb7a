//! Begins a reign when the election is won, ends it when it is lost, and begins anew when a reign lost a write.

use crate::bundles::Bundles;
use crate::chain::chain;
use crate::inquiries::Inquiries;
use crate::leader::Role;
use crate::load;
use crate::reign::{Identity, Reign};
use crate::seat::{Reigning, Seat};
use crate::store::{self, Store};
use shared::id::StoreId;
use shared::rollout::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Messages and requests waiting for the reign; who brings one waits while it is full.
const INBOX: usize = 4096;

/// The pause before a reign that failed begins anew: the election may be about to say that it is over.
const PAUSE: Duration = Duration::from_millis(500);

/// What an office needs.
pub(crate) struct Office {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bundles: Arc<Bundles>,
    pub(crate) inquiries: Arc<Inquiries>,
    pub(crate) seat: watch::Sender<Seat>,
}

impl Office {
    /// Holds office as the election goes, until `stop` is cancelled.
    pub(crate) async fn hold(self, mut roles: watch::Receiver<Role>, stop: CancellationToken) {
        let _: Option<()> = stop.run_until_cancelled(self.follow(&mut roles)).await;
        self.seat.send_replace(Seat::Following { leader: None });
    }

    async fn follow(&self, roles: &mut watch::Receiver<Role>) {
        let mut reigns = 0;
        loop {
            let role = roles.borrow_and_update().clone();
            let lost = match role {
                Role::Following { leader } => {
                    self.seat.send_replace(Seat::Following { leader });
                    roles.changed().await.is_err()
                }
                Role::Leading { term } => {
                    reigns += 1;
                    // Dropping a reign at any point is safe: whatever its last write did, the next leader reads it.
                    let closed = tokio::select! {
                        changed = roles.changed() => changed.is_err(),
                        () = self.reign(term, reigns) => false,
                    };
                    self.seat.send_replace(Seat::Following { leader: None });
                    closed
                }
            };
            if lost {
                return;
            }
        }
    }

    /// One reign, from reading the store to a lost write.
    async fn reign(&self, term: i64, number: u64) {
        let now = Time::since_1970(runtime::unix_now());
        let read = async {
            // Anew for each reign: another leader may have given the store a later epoch.
            let (store, epoch) = store::identity(
                self.store.as_ref(),
                StoreId(Uuid::new_v4()),
                runtime::unix_seconds(),
            )
            .await?;
            let loaded = load::load(self.store.as_ref(), now).await?;
            Ok::<_, store::Error>((Identity { store, epoch }, loaded))
        };
        let (identity, loaded) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(error = chain(&error), "the store cannot be read; trying again");
                tokio::time::sleep(PAUSE).await;
                return;
            }
        };
        let (inbox, commands) = mpsc::channel(INBOX);
        let (published, book) = watch::channel(Arc::new(loaded.book.clone()));
        let reign = Reign::new(
            self.store.clone(),
            self.bundles.clone(),
            self.inquiries.clone(),
            identity,
            term,
            commands,
            published,
        );
        let reigning = Reigning {
            number,
            term,
            inbox,
            book,
        };
        let announce = || {
            self.seat.send_replace(Seat::Leading(reigning));
        };
        let end = reign.run(loaded, announce).await;
        tracing::warn!(
            term,
            error = chain(&end),
            "reading the store again, and going on from there"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
