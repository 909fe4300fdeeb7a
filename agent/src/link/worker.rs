//! What the link needs of the databases. It is a trait because the link is tested against coordinators of every kind of
//! misbehaviour, with work that takes, fails or hangs as the test says; [`Databases`] is the real one.

use crate::database::Database;
use crate::inquiry;
use crate::metrics;
use crate::pool::Pools;
use crate::work::{self, Control};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all, pending};
use shared::id::{DatabaseName, StoreId};
use shared::inquiry::{Answer, Inquiry};
use shared::migration::Set;
use shared::retry::Retryability;
use shared::rollout::message::Located;
use shared::rollout::work::{Aim, Exit, Failure, Finish, Look, Order, Summary};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Who looks at databases and works on them.
pub trait Worker: Send + Sync + 'static {
    /// The databases served, with their labels.
    fn databases(&self) -> BTreeMap<DatabaseName, BTreeMap<String, String>>;

    /// Where a database is; the error is for people.
    fn locate(&self, database: DatabaseName) -> BoxFuture<'_, Located>;

    /// Answers a question about a database, with the set of its bundle where it names one; the error is for people.
    fn inquire(
        &self,
        database: DatabaseName,
        what: Inquiry,
        set: Option<Arc<Set>>,
    ) -> BoxFuture<'_, Result<Answer, String>>;

    /// What a set would do on a database.
    fn look(&self, database: DatabaseName, set: Arc<Set>, aim: Aim, store: StoreId) -> BoxFuture<'_, Look>;

    /// Does an order, until its end or until `control.stop` and the next safe point.
    fn execute(&self, order: Order, set: Arc<Set>, store: StoreId, control: Control)
    -> BoxFuture<'_, Finish>;
}

/// The databases of this agent.
#[derive(Clone)]
pub struct Databases {
    databases: BTreeMap<DatabaseName, Arc<Database>>,
    description: String,
}

impl Databases {
    /// All databases of an agent; names are unique, as the settings have checked. `description`: who works, for people
    /// who meet us as the holder of a database.
    pub fn new(databases: impl IntoIterator<Item = Database>, description: String) -> Self {
        let databases = databases
            .into_iter()
            .map(|database| (database.name().clone(), Arc::new(database)))
            .collect::<BTreeMap<_, _>>();
        databases.keys().for_each(metrics::served);
        Self {
            databases,
            description,
        }
    }

    /// Keeps the pools of all databases as the settings say, for ever.
    ///
    /// # Cancel safety
    /// It can be dropped at any time.
    pub async fn keep(&self) -> Infallible {
        let keeping = self.databases.values().map(|database| database.keep());
        match join_all(keeping).await.pop() {
            Some(never) => never,
            None => pending().await,
        }
    }

    /// The pools of all databases at this moment; asks nobody.
    pub fn pools(&self) -> BTreeMap<DatabaseName, Pools> {
        let databases = self.databases.iter();
        databases
            .map(|(name, database)| (name.clone(), database.pools()))
            .collect()
    }

    fn find(&self, name: &DatabaseName) -> Result<Arc<Database>, Failure> {
        self.databases.get(name).cloned().ok_or_else(|| Failure {
            message: format!("this agent has no database `{name}`"),
            retry: Retryability::Retry,
            exit: Exit::Failed,
        })
    }
}

impl Worker for Databases {
    fn databases(&self) -> BTreeMap<DatabaseName, BTreeMap<String, String>> {
        self.databases
            .iter()
            .map(|(name, database)| (name.clone(), database.labels().clone()))
            .collect()
    }

    fn locate(&self, database: DatabaseName) -> BoxFuture<'_, Located> {
        async move {
            match self.find(&database) {
                Ok(found) => work::locate(&found).await,
                Err(failure) => Located::lost(database, failure.message),
            }
        }
        .boxed()
    }

    fn inquire(
        &self,
        database: DatabaseName,
        what: Inquiry,
        set: Option<Arc<Set>>,
    ) -> BoxFuture<'_, Result<Answer, String>> {
        async move {
            match self.find(&database) {
                Ok(database) => inquiry::answer(&database, what, set.as_deref()).await,
                Err(failure) => Err(failure.message),
            }
        }
        .boxed()
    }

    fn look(&self, database: DatabaseName, set: Arc<Set>, aim: Aim, store: StoreId) -> BoxFuture<'_, Look> {
        async move {
            match self.find(&database) {
                Ok(database) => work::look(&database, &set, &aim, store).await,
                Err(failure) => Look::Failed(failure),
            }
        }
        .boxed()
    }

    fn execute(
        &self,
        order: Order,
        set: Arc<Set>,
        store: StoreId,
        control: Control,
    ) -> BoxFuture<'_, Finish> {
        async move {
            match self.find(&order.database) {
                Ok(database) => {
                    work::execute(&database, &set, &order, store, &self.description, &control).await
                }
                Err(failure) => Finish::Failed(failure, Summary::default()),
            }
        }
        .boxed()
    }
}
