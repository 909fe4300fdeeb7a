//! A store that fails on demand, in front of a real one.

use async_trait::async_trait;
use coordinator::store::{Bound, Entry, Error, LeaseId, Listing, Outcome, Store, Transaction, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::{self, Receiver};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It answers every call with an error, at once.
    Fails,
    /// It answers nothing as long as this lasts; who waited then gets an error.
    Hangs,
    /// It carries out the next commit, and the answer is lost; then it is well.
    LosesCommits,
    /// The same, but then it fails.
    LosesCommitsThenFails,
    /// Before the next commit somebody else writes this value to its keys, and the answer is lost; then it is well.
    Outruns(&'static str),
}

pub(super) struct Faulty {
    real: Arc<dyn Store>,
    fault: watch::Sender<Fault>,
}

impl Faulty {
    pub(super) fn new(real: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            real,
            fault: watch::Sender::new(Fault::None),
        })
    }

    pub(super) fn store(self: &Arc<Self>) -> Arc<dyn Store> {
        Arc::clone(self) as Arc<dyn Store>
    }

    pub(super) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    fn fault(&self) -> Fault {
        *self.fault.borrow()
    }

    /// Writes the keys that the transaction would write, as somebody else.
    async fn outrun(&self, transaction: &Transaction, theirs: &str) -> Result<(), Error> {
        let mut writes = transaction.writes.clone();
        for write in &mut writes {
            if let Write::Put { value, lease, .. } = write {
                (*value, *lease) = (theirs.into(), None);
            }
        }
        self.real
            .commit(Transaction {
                conditions: Vec::new(),
                writes,
            })
            .await
            .map(drop)
    }

    async fn check(&self) -> Result<(), Error> {
        match self.fault() {
            Fault::None | Fault::LosesCommits | Fault::LosesCommitsThenFails | Fault::Outruns(_) => Ok(()),
            Fault::Fails => Err(unavailable()),
            Fault::Hangs => {
                self.fault
                    .subscribe()
                    .wait_for(|fault| *fault != Fault::Hangs)
                    .await
                    .unwrap();
                Err(unavailable())
            }
        }
    }
}

fn unavailable() -> Error {
    Error::Unavailable {
        store: "faulty".to_owned(),
        source: "by order of the test".into(),
    }
}

#[async_trait]
impl Store for Faulty {
    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.check().await?;
        self.real.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.check().await?;
        self.real.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        self.check().await?;
        if let Fault::Outruns(theirs) = self.fault() {
            self.outrun(&transaction, theirs).await?;
        }
        let outcome = self.real.commit(transaction).await?;
        let next = match self.fault() {
            Fault::None | Fault::Fails | Fault::Hangs => return Ok(outcome),
            Fault::LosesCommits | Fault::Outruns(_) => Fault::None,
            Fault::LosesCommitsThenFails => Fault::Fails,
        };
        self.set(next);
        Err(unavailable())
    }

    async fn grant(&self, ttl: Duration, bound: Bound) -> Result<LeaseId, Error> {
        self.check().await?;
        self.real.grant(ttl, bound).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        self.check().await?;
        self.real.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.check().await?;
        self.real.revoke(lease).await
    }

    fn changes(&self) -> Receiver<u64> {
        self.real.changes()
    }

    async fn close(&self) {
        self.real.close().await;
    }
}
