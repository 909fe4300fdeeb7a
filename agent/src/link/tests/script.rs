//! Work that does what a test tells it to, on the databases `a` and `b`.

use crate::link::Worker;
use crate::work::Control;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shared::id::{DatabaseName, StoreId};
use shared::inquiry::{Answer, Checked, Inquiry};
use shared::migration::Set;
use shared::rollout::message::Located;
use shared::rollout::work::{Aim, Finish, Identity, Look, Order, Progress};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

#[derive(Clone)]
pub(super) struct Script(Arc<Inner>);

struct Inner {
    begun: AtomicUsize,
    looks: AtomicUsize,
    most_looks: AtomicUsize,
    works: mpsc::UnboundedSender<Work>,
    incoming: Mutex<mpsc::UnboundedReceiver<Work>>,
}

/// One order at work.
pub(super) struct Work {
    database: DatabaseName,
    control: Control,
    end: oneshot::Sender<Finish>,
}

impl Default for Script {
    fn default() -> Self {
        let (works, incoming) = mpsc::unbounded_channel();
        let none = AtomicUsize::default;
        let incoming = Mutex::new(incoming);
        Self(Arc::new(Inner {
            begun: none(),
            looks: none(),
            most_looks: none(),
            works,
            incoming,
        }))
    }
}

impl Script {
    /// The next order that is begun; it must be on this database.
    pub(super) async fn work(&self, name: &str) -> Work {
        let mut incoming = self.0.incoming.lock().await;
        let work = tokio::time::timeout(Duration::from_secs(10), incoming.recv())
            .await
            .expect("no work was begun");
        let work = work.unwrap();
        assert_eq!(work.database, database(name));
        work
    }

    /// How many orders were begun.
    pub(super) fn begun(&self) -> usize {
        self.0.begun.load(Ordering::SeqCst)
    }

    /// The most looks at the same time.
    pub(super) fn most_looks(&self) -> usize {
        self.0.most_looks.load(Ordering::SeqCst)
    }
}

impl Work {
    pub(super) fn progress(&self, rows: u64) {
        self.control.progress.send_replace(Progress {
            rows,
            ..Progress::default()
        });
    }

    pub(super) fn is_asked_to_stop(&self) -> bool {
        self.control.stop.is_cancelled()
    }

    pub(super) async fn asked_to_stop(&self) {
        tokio::time::timeout(Duration::from_secs(10), self.control.stop.cancelled())
            .await
            .expect("no stop came");
    }

    pub(super) fn finish(self, finish: Finish) {
        self.end.send(finish).unwrap();
    }

    /// Dropping the end makes the work panic.
    pub(super) fn panic(self) {
        drop(self.end);
    }
}

impl Worker for Script {
    fn databases(&self) -> BTreeMap<DatabaseName, BTreeMap<String, String>> {
        ["a", "b"]
            .map(|name| (database(name), BTreeMap::new()))
            .into_iter()
            .collect()
    }

    fn locate(&self, database: DatabaseName) -> BoxFuture<'_, Located> {
        async move {
            let identity = Identity {
                system: 1,
                database: 2,
            };
            Located {
                database,
                identity: Ok(identity),
                epoch: None,
            }
        }
        .boxed()
    }

    fn inquire(
        &self,
        _: DatabaseName,
        _: Inquiry,
        _: Option<Arc<Set>>,
    ) -> BoxFuture<'_, Result<Answer, String>> {
        async { Ok(Answer::Check(Checked::Holds)) }.boxed()
    }

    fn look(&self, _: DatabaseName, set: Arc<Set>, _: Aim, _: StoreId) -> BoxFuture<'_, Look> {
        async move {
            let now = self.0.looks.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.most_looks.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.0.looks.fetch_sub(1, Ordering::SeqCst);
            Look::Pending {
                versions: set
                    .migrations
                    .iter()
                    .map(|migration| migration.version.clone())
                    .collect(),
            }
        }
        .boxed()
    }

    fn execute(&self, order: Order, _: Arc<Set>, _: StoreId, control: Control) -> BoxFuture<'_, Finish> {
        async move {
            self.0.begun.fetch_add(1, Ordering::SeqCst);
            let (end, ended) = oneshot::channel();
            self.0
                .works
                .send(Work {
                    database: order.database,
                    control,
                    end,
                })
                .unwrap();
            ended.await.expect("the test wants a panic")
        }
        .boxed()
    }
}

pub(super) fn database(name: &str) -> DatabaseName {
    name.try_into().unwrap()
}
