//! Which coordinator leads: a key in the store, created if absent, bound to a lease that the leader renews.
//!
//! The revision at which the key came to be is the leader's term; every write of the leader is conditional on it
//! (`Condition::Created(leader::KEY, term)`), so the store itself refuses one who no longer leads. What happens here
//! only saves work: at most one coordinator *believes* that it leads, by its own clock, which runs on during a suspend.
//! Validity is counted from before a renewal was sent, less a margin, and only an answer counts.
//!
//! ```text
//!              key absent, created by us
//! Following ------------------------------> Leading { term }
//!     ^                                        |
//!     +----------------------------------------+
//!       validity over, lease or key gone, or asked to stop
//! ```
//!
//! The loop is woken by the store's hints and by time, and reads the key again each time. Whatever it lost sight of (an
//! answer, a lease after stepping down) it ends by revoking its last lease before it competes again.

use crate::store::{Bound, Condition, Entry, Error, LeaseId, Outcome, Store, Transaction, Write};
use runtime::clock::{Boot, sleep_until};
use serde::{Deserialize, Serialize};
use shared::retry::Retryability;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The key that the leader holds.
pub const KEY: &str = "leader";

/// Hints that come together are answered by one reading.
const SETTLE: Duration = Duration::from_millis(50);

/// The pause after the store failed.
const TROUBLE_PAUSE: Duration = Duration::from_millis(500);

/// How long the last lease may take to be revoked when the process ends; after that it expires by itself.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// What this coordinator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leading {
        /// Its time in office: grows with each leader, never comes again.
        term: i64,
    },
    /// Another leads, or nobody does at the moment.
    Following {
        /// The URL of the one that leads.
        leader: Option<String>,
    },
}

/// What stands under [`KEY`], as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    url: String,
    /// One candidacy: tells our own claim, whose answer was lost, from one of an earlier life at the same URL.
    instance: Uuid,
}

/// A running election. Resign before the process ends, so that another can lead at once.
pub struct Election {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Election {
    /// Competes for leadership until `stop` is cancelled. `url` is where others reach this coordinator; `lease` is how
    /// long a leader that died is still taken for alive.
    ///
    /// The receiver shows the present role; it closes when the election has ended.
    pub fn start(
        store: Arc<dyn Store>,
        url: String,
        lease: Duration,
        stop: &CancellationToken,
    ) -> (watch::Receiver<Role>, Self) {
        let stop = stop.child_token();
        let (role, roles) = watch::channel(Role::Following { leader: None });
        let changes = store.changes();
        let candidate = Candidate {
            store,
            url,
            lease,
            role,
            changes,
            held: None,
            troubled: false,
        };
        let task = tokio::spawn(candidate.run(stop.clone()));
        (roles, Self { stop, task })
    }

    /// Steps down if it leads, gives the lease back, and waits for all that, a few seconds at most.
    pub async fn resign(mut self) {
        self.stop.cancel();
        if let Err(panic) = (&mut self.task).await {
            tracing::error!(%panic, "the election failed");
        }
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The task behind an [`Election`].
struct Candidate {
    store: Arc<dyn Store>,
    url: String,
    lease: Duration,
    role: watch::Sender<Role>,
    changes: watch::Receiver<u64>,
    /// Our last lease, as long as a key may be bound to it.
    held: Option<LeaseId>,
    /// The store failed last time; said once.
    troubled: bool,
}

/// A won election.
struct Office {
    term: i64,
    lease: LeaseId,
    /// Until when we may believe in it.
    valid_until: Boot,
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        // Cancelling a round at any point is safe: what it may have left in the store hangs on the lease in `held`.
        let _: Option<()> = stop.run_until_cancelled(self.compete()).await;
        self.become_role(Role::Following { leader: None });
        if let Some(lease) = self.held {
            match tokio::time::timeout(RESIGN_TIMEOUT, self.store.revoke(lease)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn(
                    "the leadership could not be given back; it expires by itself",
                    &error,
                ),
                Err(_late) => {
                    tracing::warn!("the leadership was not given back in time; it expires by itself");
                }
            }
        }
    }

    async fn compete(&mut self) {
        loop {
            match self.round().await {
                Ok(()) => self.troubled = false,
                Err(error) => {
                    self.become_role(Role::Following { leader: None });
                    self.note_trouble(&error);
                    tokio::time::sleep(TROUBLE_PAUSE).await;
                }
            }
        }
    }

    /// One turn: looks who leads; follows that one until something changes, or competes, and leads until that ends.
    async fn round(&mut self) -> Result<(), Error> {
        if let Some(lease) = self.held {
            self.store.revoke(lease).await?;
            self.held = None;
        }
        // Marked as seen before reading: what changes from here on wakes us.
        self.changes.borrow_and_update();
        if let Some(entry) = self.store.read(KEY).await? {
            self.become_role(Role::Following {
                leader: self.url_of(&entry),
            });
            self.wait_for_change().await;
            return Ok(());
        }
        if let Some(office) = self.campaign().await? {
            self.lead(office).await;
        }
        Ok(())
    }

    /// Tries to create the key. `None` when another was faster.
    async fn campaign(&mut self) -> Result<Option<Office>, Error> {
        let asked = Boot::now();
        let lease = self.store.grant(self.lease, Bound::Process).await?;
        self.held = Some(lease);
        let claim = Claim {
            url: self.url.clone(),
            instance: Uuid::new_v4(),
        };
        let value = serde_json::to_vec(&claim).expect("a text and a uuid are always JSON");
        let transaction = Transaction {
            conditions: vec![Condition::Absent(KEY.to_owned())],
            writes: vec![Write::Put {
                key: KEY.to_owned(),
                value,
                lease: Some(lease),
            }],
        };
        let term = match self.store.commit(transaction).await {
            Ok(Outcome::Committed { revision }) => Some(revision),
            Ok(Outcome::Refused) | Err(Error::LeaseGone(_)) => None,
            // The answer was lost: the key tells whether it was written, and by whom. If it cannot be read either, the
            // next round revokes the lease, and the key, if it is ours, with it.
            Err(error) if error.retryability() == Retryability::Retry => {
                let entry = self.store.read(KEY).await?;
                entry
                    .filter(|entry| parse(entry).is_some_and(|found| found == claim))
                    .map(|entry| entry.created)
            }
            Err(error) => return Err(error),
        };
        Ok(term.map(|term| Office {
            term,
            lease,
            valid_until: valid_until(asked, self.lease),
        }))
    }

    /// Leads until that ends.
    async fn lead(&mut self, mut office: Office) {
        let mut next = Boot::now() + self.lease / 3;
        if Boot::now() < office.valid_until {
            self.become_role(Role::Leading { term: office.term });
        }
        let end = loop {
            tokio::select! {
                biased;
                () = sleep_until(office.valid_until) => break "the store did not confirm the leadership in time",
                () = sleep_until(next) => {}
            }
            let asked = Boot::now();
            let renewed = tokio::select! {
                biased;
                () = sleep_until(office.valid_until) => break "the store did not confirm the leadership in time",
                renewed = self.renew(&office) => renewed,
            };
            match renewed {
                Ok(Some(ttl)) => {
                    office.valid_until = office.valid_until.max(valid_until(asked, ttl));
                    next = asked + self.lease / 3;
                    self.troubled = false;
                }
                Ok(None) => break "the lease or the key is gone",
                Err(error) => {
                    self.note_trouble(&error);
                    next = Boot::now() + TROUBLE_PAUSE.min(self.lease / 10);
                }
            }
        };
        tracing::warn!(term = office.term, reason = end, "stepped down");
        self.become_role(Role::Following { leader: None });
    }

    /// The time the lease lives from now on; `None` when it or the key is gone. The key is looked at because somebody
    /// may have deleted it, and our writes would be refused from then on while we went on believing.
    async fn renew(&self, office: &Office) -> Result<Option<Duration>, Error> {
        let Some(ttl) = self.store.renew(office.lease).await? else {
            return Ok(None);
        };
        let ours = self
            .store
            .read(KEY)
            .await?
            .is_some_and(|entry| entry.created == office.term);
        Ok(ours.then_some(ttl))
    }

    /// Waits for a hint, or as long as a follower may go without looking.
    async fn wait_for_change(&mut self) {
        let patience = self.lease / 3;
        match tokio::time::timeout(patience, self.changes.changed()).await {
            // The store is busy: one reading answers all that comes within a moment.
            Ok(Ok(())) => tokio::time::sleep(SETTLE).await,
            Ok(Err(_closed)) => tokio::time::sleep(patience).await,
            Err(_elapsed) => {}
        }
    }

    /// The URL of whoever claims to lead. A claim with our own URL is of an earlier life of ours that nobody answers
    /// for: sending anybody there would send them in a circle.
    fn url_of(&self, entry: &Entry) -> Option<String> {
        parse(entry).map(|claim| claim.url).filter(|url| *url != self.url)
    }

    fn become_role(&self, role: Role) {
        let changed = self.role.send_if_modified(|current| {
            let changes = *current != role;
            current.clone_from(&role);
            changes
        });
        if changed {
            match role {
                Role::Leading { term } => tracing::info!(term, "leading"),
                Role::Following { leader } => tracing::info!(leader, "following"),
            }
        }
    }

    fn note_trouble(&mut self, error: &Error) {
        if !self.troubled {
            warn("the election cannot use the store; trying again", error);
        }
        self.troubled = true;
    }
}

/// Until when a lease may be believed in that was renewed for `ttl` by a request sent at `asked`.
fn valid_until(asked: Boot, ttl: Duration) -> Boot {
    asked + ttl.saturating_sub(margin(ttl))
}

/// What is taken off a lease's life: a second, or a tenth of a long one, for timers that are late and clocks that run
/// differently; never more than half.
fn margin(ttl: Duration) -> Duration {
    (ttl / 10).max(Duration::from_secs(1)).min(ttl / 2)
}

/// What stands under the key. Something else than a claim is as good as an unknown leader.
fn parse(entry: &Entry) -> Option<Claim> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::debug!(key = KEY, %error, "the leader's entry cannot be read"))
        .ok()
}

fn warn(what: &'static str, error: &Error) {
    let cause: &(dyn std::error::Error + 'static) = error;
    tracing::warn!(error = cause, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_believed_in_for_less_than_it_lives() {
        let start = Boot::from_start(Duration::from_secs(100));
        let left = |ttl| valid_until(start, ttl).saturating_since(start);
        assert_eq!(left(Duration::from_secs(8)), Duration::from_secs(7));
        assert_eq!(left(Duration::from_secs(30)), Duration::from_secs(27));
        assert_eq!(left(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(left(Duration::ZERO), Duration::ZERO);
    }
}
