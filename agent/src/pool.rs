//! Pools of connections, one for each database, with one bound over all databases of a server.
//!
//! A hundred idle databases must not eat a server's `max_connections`: every open connection, idle or not, has a place
//! on its server. Where all places are taken, an idle connection of another database makes room: rather of one that has
//! nothing to do than of one that was looked at and waits for its turn.
//!
//! | module | owns |
//! |---|---|
//! | `database` | one pool: how many may wait, which connections are kept open |
//! | `counts` | what a pool counts |

mod counts;
mod database;

use crate::connect::{self, Use};
use crate::error::Error;
use crate::pooler::{Mark, Standing};
use counts::Counts;
use deadpool::Runtime;
use deadpool::managed::{self, Hook, HookError, Metrics, PoolConfig, QueueMode, RecycleResult, Timeouts};
use deadpool_postgres::{ClientWrapper, ManagerConfig, RecyclingMethod};
pub use shared::pool::{Places, Pools, Stats};
use shared::settings;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Statement;
use tokio_postgres::types::Type;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How often a place on a full server is looked for: connections of others come back without telling.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Statements that a connection keeps on its server: a step has some six for each relation that it is at.
const MOST_KEPT: usize = 32;

pub(crate) use database::{Pool, Work};

/// The connections of a pool.
type Inner = managed::Pool<Manager>;

/// A connection out of a pool.
pub(crate) type Object = managed::Object<Manager>;

/// Why no connection could be had.
pub(crate) type PoolError = managed::PoolError<Trouble>;

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// PostgreSQL or the way to it.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// The server took the connection and then said nothing.
    #[error("the server did not answer in time")]
    Silent,
    /// All places on the server stayed taken.
    #[error("all {0} connections to this server stayed in use")]
    Full(usize),
    /// Too many wait already.
    #[error("{0} requests wait for a connection of the pool already")]
    Crowded(usize),
}

/// The servers of one process, each with its places.
#[derive(Debug)]
pub struct Servers {
    places: usize,
    known: Mutex<BTreeMap<String, Arc<Server>>>,
}

/// One server, by its address.
#[derive(Debug)]
struct Server {
    places: Arc<Semaphore>,
    most: usize,
    pools: Mutex<Vec<Member>>,
}

/// One pool of a server.
#[derive(Debug)]
struct Member {
    pool: Weak<Inner>,
    wanted: Arc<AtomicBool>,
}

/// A connection with its place on the server.
#[derive(Debug)]
pub(crate) struct Connection {
    client: ClientWrapper,
    standing: Standing,
    /// Statements that the server keeps, by their texts.
    kept: BTreeMap<String, Statement>,
    /// When it was used last.
    used: Instant,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// It goes back to its pool.
    pub(crate) fn rests(&mut self) {
        self.used = Instant::now();
    }

    /// For how long nobody has used it, where it is in its pool.
    fn idle(&self) -> Duration {
        self.used.elapsed()
    }

    /// Whose the server's session is.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The server's session is not known to be ours alone after all.
    pub(crate) fn set_lent(&mut self) {
        self.standing = Standing::Lent;
    }

    /// A statement that the server keeps, where it keeps this one.
    pub(crate) fn kept(&self, text: &str) -> Option<Statement> {
        self.kept.get(text).cloned()
    }

    /// Lets the server keep a statement, as long as the connection is open and few others follow it.
    pub(crate) async fn keep(
        &mut self,
        text: &str,
        types: &[Type],
    ) -> Result<Statement, tokio_postgres::Error> {
        if let Some(kept) = self.kept(text) {
            return Ok(kept);
        }
        if self.kept.len() >= MOST_KEPT {
            self.kept.clear();
        }
        let statement = self.client.prepare_typed(text, types).await?;
        self.kept.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Deref for Connection {
    type Target = tokio_postgres::Client;
    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

/// Opens connections of one database.
pub(crate) struct Manager {
    inner: deadpool_postgres::Manager,
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    used: Use,
    server: Arc<Server>,
    counts: Arc<Counts>,
    /// How long to wait for a place.
    patience: Duration,
    /// How long the server may take to answer.
    answer_within: Duration,
}

// The pool wants it of its manager; the inner one knows a password.
impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

impl Servers {
    /// Each server gets this many places: open connections, over all databases.
    pub fn with_places(places: usize) -> Self {
        Self {
            places: places.min(Semaphore::MAX_PERMITS),
            known: Mutex::default(),
        }
    }

    /// No bound but those of the pools: for a process that works on one database.
    pub fn unbounded() -> Self {
        Self::with_places(Semaphore::MAX_PERMITS)
    }

    /// Sets a pool up; opens no connection yet. Also the address of its database, for messages. While it is `wanted` its
    /// idle connections make room for others last.
    ///
    /// # Errors
    /// When the URL or a certificate it names is not usable.
    pub(crate) fn pool(
        &self,
        url: &settings::Secret,
        used: Use,
        settings: &settings::Pool,
        wanted: &Arc<AtomicBool>,
    ) -> Result<(Pool, String), Error> {
        let target = connect::target_for(url, used)?;
        let host = target.address.rsplit_once('/').map_or("", |(host, _)| host);
        let server = self.server(host);
        let counts = Arc::<Counts>::default();
        let manager = Manager {
            inner: opener(&target.config, &target.tls),
            config: target.config,
            tls: target.tls,
            used,
            server: server.clone(),
            counts: counts.clone(),
            patience: settings.wait_timeout,
            answer_within: settings.create_timeout,
        };
        let (lifetime, recycled) = (settings.max_lifetime, counts.clone());
        let inner = Inner::builder(manager)
            .config(PoolConfig {
                max_size: settings.max_size,
                timeouts: Timeouts {
                    wait: Some(settings.wait_timeout),
                    // Both waits are bounded there, each by its own limit.
                    create: Some(settings.create_timeout + settings.wait_timeout),
                    recycle: Some(settings.recycle_timeout),
                },
                // In turn they would all be in use now and then, and none idle for long.
                queue_mode: QueueMode::Lifo,
            })
            .runtime(Runtime::Tokio1)
            .pre_recycle(Hook::sync_fn(move |_, metrics| {
                if metrics.age() < lifetime {
                    return Ok(());
                }
                recycled.recycled();
                Err(HookError::message("the connection reached its max_lifetime"))
            }))
            .build()
            .map_err(|_| Error::Broken("a pool without a runtime"))?;
        let inner = Arc::new(inner);
        lock(&server.pools).push(Member {
            pool: Arc::downgrade(&inner),
            wanted: wanted.clone(),
        });
        let pool = Pool::new(inner, server, counts, settings);
        Ok((pool, target.address))
    }

    fn server(&self, host: &str) -> Arc<Server> {
        lock(&self.known)
            .entry(host.to_owned())
            .or_insert_with(|| {
                Arc::new(Server {
                    places: Arc::new(Semaphore::new(self.places)),
                    most: self.places,
                    pools: Mutex::default(),
                })
            })
            .clone()
    }
}

fn opener(config: &tokio_postgres::Config, tls: &MakeRustlsConnect) -> deadpool_postgres::Manager {
    // Fast: nothing is sent on recycling. Anything more would reset other clients' sessions behind a pooler.
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    deadpool_postgres::Manager::from_config(config.clone(), tls.clone(), recycling)
}

impl Manager {
    /// Puts a connection that is opened with these `options` (as libpq has them, after those of the URL) in the place of one
    /// of the pool. Where there are any it is not to go back there.
    pub(crate) async fn reopen(&self, connection: &mut Connection, options: &str) -> Result<(), Trouble> {
        let (opened, standing) = self.open(self.open_marked(options)).await?;
        // The place on the server stays: the one before is closed.
        managed::Manager::detach(self, connection);
        (connection.client, connection.standing) = (opened, standing);
        connection.kept.clear();
        Ok(())
    }

    /// Opens a connection, and finds out whose the server's session is.
    async fn open_marked(&self, options: &str) -> Result<(ClientWrapper, Standing), Trouble> {
        let mark = Mark::random();
        let mut config = self.config.clone();
        let before = config.get_options().unwrap_or_default();
        config.options(format!("{before} {options} {}", mark.option()));
        let client = managed::Manager::create(&opener(&config, &self.tls)).await?;
        let standing = mark.standing(&client).await?;
        Ok((client, standing))
    }

    async fn open_plain(&self) -> Result<(ClientWrapper, Standing), Trouble> {
        Ok((managed::Manager::create(&self.inner).await?, Standing::Unknown))
    }

    /// Within the time that the server may take.
    async fn open<T>(&self, opening: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let opened = tokio::time::timeout(self.answer_within, opening).await;
        opened.map_err(|_elapsed| Trouble::Silent)?
    }
}

impl Server {
    /// A place for one more connection, if need be that of an idle one.
    async fn place(&self, patience: Duration) -> Result<OwnedSemaphorePermit, Trouble> {
        let since = Instant::now();
        loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return Ok(place);
            }
            if !self.close_idle() {
                if since.elapsed() >= patience {
                    return Err(Trouble::Full(self.most));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    fn has_free_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Its places, where they are bounded.
    fn bound(&self) -> Option<Places> {
        (self.most < Semaphore::MAX_PERMITS).then(|| Places {
            most: self.most,
            free: self.places.available_permits(),
        })
    }

    /// Closes an idle connection; whether there was one. Of a database that is not wanted if there is one, and the one that
    /// has been idle the longest among those.
    fn close_idle(&self) -> bool {
        let mut members = lock(&self.pools);
        members.retain(|member| member.pool.strong_count() > 0);
        let mut best: Option<((bool, Duration), Arc<Inner>)> = None;
        for member in members.iter() {
            let Some(pool) = member.pool.upgrade() else {
                continue;
            };
            let free = !member.wanted.load(Ordering::Relaxed);
            let mut longest = None;
            pool.retain(|connection, _| {
                longest = longest.max(Some(connection.idle()));
                true
            });
            if let Some(rank) = longest.map(|idle| (free, idle))
                && best.as_ref().is_none_or(|(known, _)| *known < rank)
            {
                best = Some((rank, pool));
            }
        }
        let Some((_, pool)) = best else {
            return false;
        };
        let mut closed = false;
        // The first one has been idle the longest.
        pool.retain(|_, _| std::mem::replace(&mut closed, true));
        closed
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Trouble;

    async fn create(&self) -> Result<Connection, Trouble> {
        let place = self.server.place(self.patience).await?;
        let _opening = self.counts.opening();
        // On the heap: whoever takes a connection has room for it, and few have to open one.
        let (client, standing) = match self.used {
            Use::Transactions => Box::pin(self.open(self.open_plain())).await?,
            Use::Outside => Box::pin(self.open(self.open_marked(""))).await?,
        };
        self.counts.created();
        Ok(Connection {
            client,
            standing,
            kept: BTreeMap::new(),
            used: Instant::now(),
            _place: place,
        })
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<Trouble> {
        let recycled = self.inner.recycle(&mut connection.client, metrics).await;
        recycled.map_err(|error| match error {
            managed::RecycleError::Message(message) => managed::RecycleError::Message(message),
            managed::RecycleError::Backend(error) => managed::RecycleError::Backend(error.into()),
        })
    }

    fn detach(&self, connection: &mut Connection) {
        self.inner.detach(&mut connection.client);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that can panic runs while it is locked, save for a lack of memory.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
