//! Agents in this process over databases that do not exist: streams, leases and orders are real, the work is a pause.
//!
//! ```text
//!   coordinator <== real streams ==> agent::link, one per agent --> Served --> Databases: what is done, who is at work
//! ```

use agent::link::{self, Standing, Worker};
use agent::work::Control;
use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shared::fence::Fence;
use shared::id::{AgentId, DatabaseName, StoreId};
use shared::inquiry::{Answer, Inquiry};
use shared::migration::{Set, Version};
use shared::rollout::message::Located;
use shared::rollout::work::{Aim, Finish, Identity, Look, Order, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Databases of one server.
const PER_SERVER: usize = 10;

/// How large a simulated fleet is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Agents.
    pub agents: usize,
    /// Databases of each agent.
    pub databases_each: usize,
    /// What a migration of one database takes.
    pub work: Duration,
}

/// What was done on all databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Orders carried out to their end.
    pub orders: usize,
    /// Migrations run; each counts once for each database.
    pub migrations: usize,
    /// Databases that were given to two agents at once, or with an older lease than before, or for something that was
    /// done already.
    pub doubled: BTreeSet<DatabaseName>,
    /// Most databases at work at the same time.
    pub most_in_flight: usize,
    /// .. on one server.
    pub most_per_server: usize,
}

/// The agents; ended when dropped.
#[derive(Debug)]
pub struct Simulated {
    databases: Arc<Databases>,
    size: Size,
    stop: CancellationToken,
    agents: JoinSet<Result<(), link::Error>>,
}

impl Size {
    /// All databases.
    pub fn databases(self) -> usize {
        self.agents * self.databases_each
    }
}

impl Simulated {
    /// Starts them for a coordinator; they connect meanwhile.
    pub fn start(coordinator: &str, size: Size) -> anyhow::Result<Self> {
        let databases = Arc::new(Databases {
            work: size.work,
            state: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let mut agents = JoinSet::new();
        for number in 0..size.agents {
            let first = number * size.databases_each;
            let numbers = (first..first + size.databases_each).map(|number| Ok((name(number)?, number)));
            let worker = Served {
                numbers: numbers.collect::<anyhow::Result<_>>()?,
                databases: databases.clone(),
            };
            let settings = link::Settings {
                id: AgentId::try_from(format!("simulated-{number:04}"))?,
                coordinators: vec![coordinator.to_owned()],
            };
            let standing = watch::Sender::new(Standing::Seeking);
            agents.spawn(link::serve(settings, Arc::new(worker), standing, stop.clone()));
        }
        Ok(Self {
            databases,
            size,
            stop,
            agents,
        })
    }

    /// The names of all databases.
    pub fn names(&self) -> anyhow::Result<Vec<String>> {
        let names = (0..self.size.databases()).map(|number| Ok(name(number)?.into()));
        names.collect()
    }

    /// What was done on them so far.
    pub fn record(&self) -> Record {
        self.databases.lock().record.clone()
    }

    /// Ends them, and waits for their end.
    ///
    /// # Errors
    /// When one of them has failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.agents.join_next().await {
            ended.context("a simulated agent panicked")??;
        }
        Ok(())
    }
}

fn name(number: usize) -> anyhow::Result<DatabaseName> {
    Ok(DatabaseName::try_from(format!("db-{number:05}"))?)
}

/// All databases, as if they had ledgers.
#[derive(Debug)]
struct Databases {
    work: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ledgers: BTreeMap<DatabaseName, Ledger>,
    /// At work on each server.
    servers: BTreeMap<usize, usize>,
    in_flight: usize,
    record: Record,
}

#[derive(Debug, Default)]
struct Ledger {
    done: BTreeSet<Version>,
    fence: Option<Fence>,
    at_work: usize,
}

impl Databases {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pending(&self, database: &DatabaseName, set: &Set) -> Vec<Version> {
        let done = |version: &Version| {
            let ledger = self.ledgers.get(database);
            ledger.is_some_and(|ledger| ledger.done.contains(version))
        };
        let versions = set.migrations.iter().map(|migration| migration.version.clone());
        versions.filter(|version| !done(version)).collect()
    }

    fn begin(&mut self, order: &Order, server: usize) {
        let ledger = self.ledgers.entry(order.database.clone()).or_default();
        ledger.at_work += 1;
        if ledger.at_work > 1 || ledger.fence.is_some_and(|earlier| earlier >= order.fence) {
            self.record.doubled.insert(order.database.clone());
        }
        ledger.fence = Some(order.fence);
        let at_work = self.servers.entry(server).or_default();
        *at_work += 1;
        self.in_flight += 1;
        self.record.most_per_server = self.record.most_per_server.max(*at_work);
        self.record.most_in_flight = self.record.most_in_flight.max(self.in_flight);
    }

    fn end(&mut self, order: &Order, server: usize, pending: Vec<Version>) {
        let ledger = self.ledgers.entry(order.database.clone()).or_default();
        ledger.at_work -= 1;
        *self.servers.entry(server).or_default() -= 1;
        self.in_flight -= 1;
        self.record.orders += 1;
        for version in pending {
            self.record.migrations += 1;
            if !ledger.done.insert(version) {
                self.record.doubled.insert(order.database.clone());
            }
        }
    }
}

/// The databases of one agent.
struct Served {
    numbers: BTreeMap<DatabaseName, usize>,
    databases: Arc<Databases>,
}

impl Served {
    fn number(&self, database: &DatabaseName) -> usize {
        self.numbers[database]
    }

    fn server(&self, database: &DatabaseName) -> usize {
        self.number(database) / PER_SERVER
    }
}

impl Worker for Served {
    fn databases(&self) -> BTreeMap<DatabaseName, BTreeMap<String, String>> {
        let names = self.numbers.keys();
        names.map(|name| (name.clone(), BTreeMap::new())).collect()
    }

    fn locate(&self, database: DatabaseName) -> BoxFuture<'_, Located> {
        let system = i64::try_from(self.server(&database)).expect("few servers") + 1;
        let oid = u32::try_from(self.number(&database)).expect("few databases") + 1;
        let identity = Identity {
            system,
            database: oid,
        };
        let located = Located {
            database,
            identity: Ok(identity),
            epoch: None,
        };
        ready(located).boxed()
    }

    fn inquire(
        &self,
        _: DatabaseName,
        _: Inquiry,
        _: Option<Arc<Set>>,
    ) -> BoxFuture<'_, Result<Answer, String>> {
        ready(Err("a simulated database has no answers".to_owned())).boxed()
    }

    fn look(&self, database: DatabaseName, set: Arc<Set>, _: Aim, _: StoreId) -> BoxFuture<'_, Look> {
        let versions = self.databases.lock().pending(&database, &set);
        let look = if versions.is_empty() {
            Look::UpToDate { ahead: Vec::new() }
        } else {
            Look::Pending { versions }
        };
        ready(look).boxed()
    }

    fn execute(&self, order: Order, set: Arc<Set>, _: StoreId, _: Control) -> BoxFuture<'_, Finish> {
        let server = self.server(&order.database);
        async move {
            let pending = {
                let mut state = self.databases.lock();
                state.begin(&order, server);
                state.pending(&order.database, &set)
            };
            tokio::time::sleep(self.databases.work).await;
            let migrations = u32::try_from(pending.len()).expect("few migrations");
            self.databases.lock().end(&order, server, pending);
            Finish::Done(Summary {
                migrations,
                steps: migrations,
                ..Summary::default()
            })
        }
        .boxed()
    }
}
