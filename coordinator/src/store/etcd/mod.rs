//! The store in etcd: every key below one prefix, every transaction one of etcd's, every lease one of etcd's.
//!
//! Each call has a deadline of its own. What certainly did not reach etcd is sent again, and so is what may be done
//! twice without harm; a commit whose answer was lost is reported as such, because doing it again would be refused by
//! its own first success. The connection is checked by pings, and a watch that is rebuilt when it ends feeds the hint.
//!
//! - `call`: deadlines, tries, and which member is asked;
//! - `connect`: the clients of the members;
//! - `failure`: what a failed call means;
//! - `transaction`: ours in etcd's terms;
//! - `watch`: the hint.

mod call;
mod connect;
mod failure;
mod transaction;
mod watch;

use super::{Bound, Entry, Error, LeaseId, Listing, Outcome, Store, Transaction, limits};
use async_trait::async_trait;
use call::{Choice, Repeat, call};
use connect::Members;
use etcd_client::{Client, GetOptions, KeyValue};
use shared::settings::{self, StoreUrl};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use watch::Watch;

/// Entries in one page of a listing. With values at their limit a page has 16 MiB.
const PAGE: i64 = 256;

/// The largest answer that is read: a page of the largest entries.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// How often a listing starts anew because etcd compacted the revision under it.
const LISTING_TRIES: usize = 3;

/// How many leases' times to live are remembered; beyond it all are forgotten and asked for again.
const MAX_KNOWN_LEASES: usize = 20_000;

/// A store in etcd.
pub struct Etcd {
    store: String,
    /// With a slash at the end.
    prefix: String,
    members: Arc<Members>,
    choice: Arc<Choice>,
    /// What etcd granted. It never changes in the life of a lease.
    ttls: Mutex<BTreeMap<LeaseId, Duration>>,
    hint: tokio::sync::watch::Sender<u64>,
    watch: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    stop: DropGuard,
}

/// Why there is no answer, besides what the client says.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the store is closed")]
    Closed,
    #[error("the listing was overtaken by compactions {LISTING_TRIES} times")]
    Compacted,
    #[error("it said that a lease is gone, but all of them live")]
    Contradiction,
}

impl Etcd {
    /// Connects, and reads one key to see that etcd answers and the login may read.
    ///
    /// # Errors
    /// [`Error::Open`] when a file of the settings cannot be read or an endpoint is no URL, [`Error::Unavailable`] when
    /// etcd does not answer, [`Error::Refused`] when it does not accept the login.
    pub async fn open(settings: &settings::Etcd) -> Result<Self, Error> {
        let store = StoreUrl::Etcd(settings.clone()).to_string();
        let members = Arc::new(Members::new(settings, &store)?);
        let choice = Arc::new(Choice::new(members.count()));
        let stop = CancellationToken::new();
        let etcd = Self {
            prefix: format!("{}/", settings.prefix.trim_matches('/')),
            store,
            members,
            choice,
            ttls: Mutex::new(BTreeMap::new()),
            hint: tokio::sync::watch::Sender::new(0),
            watch: tokio::sync::Mutex::new(None),
            stop: stop.clone().drop_guard(),
        };
        let prefix = etcd.prefix.as_str();
        etcd.call(Repeat::Harmless, |client| async move {
            let options = GetOptions::new().with_prefix().with_limit(1).with_keys_only();
            client.kv_client().get(prefix, Some(options)).await
        })
        .await?;
        let watch = Watch {
            members: Arc::clone(&etcd.members),
            choice: Arc::clone(&etcd.choice),
            prefix: etcd.prefix.clone(),
            hint: etcd.hint.clone(),
            stop,
        };
        *etcd.watch.lock().await = Some(tokio::spawn(watch.run()));
        Ok(etcd)
    }

    /// One call to etcd, sent again where that is right.
    async fn call<'s, T, F>(&'s self, repeat: Repeat, request: impl Fn(&'s Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        if self.stop.token().is_cancelled() {
            return Err(self.unanswered(NoAnswer::Closed));
        }
        let request = &request;
        call(&self.store, &self.choice, repeat, |member| async move {
            request(self.members.client(member).await?).await
        })
        .await
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, Error> {
        let (created, modified) = (found.create_revision(), found.mod_revision());
        let key = found.key_str().map_err(|error| Error::Unreadable {
            key: String::from_utf8_lossy(found.key()).into_owned(),
            source: error.into(),
        })?;
        let key = key.strip_prefix(&self.prefix).unwrap_or(key).to_owned();
        Ok(Entry {
            key,
            value: found.value().to_vec(),
            created,
            modified,
        })
    }

    /// All keys below a prefix at one revision, page by page; `None` when etcd compacted that revision meanwhile.
    async fn list_once(&self, prefix: &str) -> Result<Option<Listing>, Error> {
        let mut entries = Vec::new();
        let mut from = prefix.to_owned().into_bytes();
        let end = end_of(prefix);
        let mut revision = None;
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            let options = revision.map_or(options.clone(), |revision| options.with_revision(revision));
            let page = self
                .call(Repeat::Harmless, |client| {
                    let mut kv = client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES);
                    let (from, options) = (from.clone(), options.clone());
                    async move {
                        match kv.get(from, Some(options)).await {
                            Err(error) if failure::has_code(&error, Code::OutOfRange) => Ok(None),
                            answer => answer.map(Some),
                        }
                    }
                })
                .await?;
            let Some(page) = page else { return Ok(None) };
            let at = *revision.get_or_insert(self::revision(page.header()));
            for found in page.kvs() {
                entries.push(self.entry(found)?);
            }
            match page.kvs().last() {
                Some(last) if page.more() => {
                    // The least key after the last one.
                    from = [last.key(), &[0]].concat();
                }
                _ => {
                    return Ok(Some(Listing {
                        entries,
                        revision: at,
                    }));
                }
            }
        }
    }

    /// What etcd granted a lease; `None` when it is gone.
    async fn granted(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        let answer = self
            .call(Repeat::Harmless, |client| async move {
                client.lease_client().time_to_live(lease.0, None).await
            })
            .await?;
        if answer.ttl() <= 0 {
            self.ttls().remove(&lease);
            return Ok(None);
        }
        Ok(Some(self.remember(lease, answer.granted_ttl())))
    }

    fn remember(&self, lease: LeaseId, ttl_seconds: i64) -> Duration {
        let ttl = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(0));
        let mut ttls = self.ttls();
        // Leases that other coordinators end are never seen to end here; do not collect them for ever.
        if ttls.len() >= MAX_KNOWN_LEASES {
            ttls.clear();
        }
        ttls.insert(lease, ttl);
        ttl
    }

    fn ttls(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Duration>> {
        // Every change is one insertion or removal.
        self.ttls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of a transaction's leases etcd meant when it said that one is gone.
    async fn gone_of(&self, transaction: &Transaction) -> Result<LeaseId, Error> {
        let leases = transaction::leases(transaction);
        if let [only] = leases.as_slice() {
            return Ok(*only);
        }
        for lease in leases {
            if self.granted(lease).await?.is_none() {
                return Ok(lease);
            }
        }
        Err(self.unanswered(NoAnswer::Contradiction))
    }

    fn unanswered(&self, why: NoAnswer) -> Error {
        Error::Unavailable {
            store: self.store.clone(),
            source: why.into(),
        }
    }
}

#[async_trait]
impl Store for Etcd {
    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        limits::check_key(key)?;
        let key = self.key(key);
        let answer = self
            .call(Repeat::Harmless, |client| {
                let key = key.as_str();
                async move { client.kv_client().get(key, None).await }
            })
            .await?;
        answer.kvs().first().map(|found| self.entry(found)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let prefix = self.key(prefix);
        for _ in 0..LISTING_TRIES {
            if let Some(listing) = self.list_once(&prefix).await? {
                return Ok(listing);
            }
        }
        Err(self.unanswered(NoAnswer::Compacted))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        limits::check(&transaction)?;
        let Some(asked) = transaction::to_etcd(&transaction, |key| self.key(key)) else {
            return Ok(Outcome::Refused);
        };
        let answer = self
            .call(Repeat::Harmful, |client| {
                let asked = asked.clone();
                async move {
                    match client.kv_client().txn(asked).await {
                        // The only thing a transaction can fail to find is a lease.
                        Err(error) if failure::has_code(&error, Code::NotFound) => Ok(None),
                        answer => answer.map(Some),
                    }
                }
            })
            .await?;
        match answer {
            None => Err(Error::LeaseGone(self.gone_of(&transaction).await?)),
            Some(answer) if answer.succeeded() => Ok(Outcome::Committed {
                revision: revision(answer.header()),
            }),
            Some(_) => Ok(Outcome::Refused),
        }
    }

    async fn grant(&self, ttl: Duration, _bound: Bound) -> Result<LeaseId, Error> {
        limits::check_ttl(ttl)?;
        // etcd counts whole seconds; never give less than was asked for.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        // A lease whose grant was not heard of holds no keys and ends by itself.
        let answer = self
            .call(Repeat::Harmless, |client| async move {
                client.lease_client().grant(seconds, None).await
            })
            .await?;
        let lease = LeaseId(answer.id());
        self.remember(lease, answer.ttl());
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        let known = self.ttls().get(&lease).copied();
        let ttl = match known {
            Some(ttl) => ttl,
            None => match self.granted(lease).await? {
                Some(ttl) => ttl,
                None => return Ok(None),
            },
        };
        // A stream for one question: an answer on a stream that is kept could be the late one to an earlier question,
        // and the caller counts from when it asked. The client hands out the stream only when an answer with a
        // positive time to live has come.
        let renewed = self
            .call(Repeat::Harmless, |client| async move {
                match client.lease_client().keep_alive(lease.0).await {
                    Ok(_answered) => Ok(true),
                    Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await?;
        if renewed {
            return Ok(Some(ttl));
        }
        match self.granted(lease).await? {
            None => Ok(None),
            Some(_) => Err(self.unanswered(NoAnswer::Contradiction)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.call(Repeat::Harmless, |client| async move {
            match client.lease_client().revoke(lease.0).await {
                Err(error) if failure::has_code(&error, Code::NotFound) => Ok(()),
                answer => answer.map(drop),
            }
        })
        .await?;
        self.ttls().remove(&lease);
        Ok(())
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.hint.subscribe()
    }

    async fn close(&self) {
        self.stop.token().cancel();
        if let Some(watch) = self.watch.lock().await.take()
            && let Err(panic) = watch.await
        {
            tracing::error!(store = self.store, %panic, "the watch on the store failed");
        }
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, etcd_client::ResponseHeader::revision)
}

/// The least key above all that begin with a prefix. Ours never ends in the one byte that has no successor, since
/// keys are UTF-8.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
