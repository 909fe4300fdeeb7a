//! The leader's loop around the pure [`Book`]: hear what came, decide, commit, and only then act on it.
//!
//! ```text
//!   +-> wait -> hear all that came -> decide -> commit, in few transactions -> publish -> answer, tell agents --+
//!   +-----------------------------------------------------------------------------------------------------------+
//! ```
//! One task owns the book, so nothing is locked. What came meanwhile is taken in one go, so the store is asked about
//! once per round, not once per message. When a write fails, or nobody knows whether it was written, the reign ends
//! and the next one begins from what the store says: there is no other way of recovery.

mod checks;
mod command;
mod found;
mod hear;
mod inquire;
mod sessions;
mod tell;
mod tidy;

pub(crate) use command::{
    Attach, Attached, Command, Controlled, Founded, FoundedBy, NoControl, Refusal, Wish,
};
pub(crate) use found::waves;

use crate::bundles::{Bundles, Error as BundleError};
use crate::inquiries::Inquiries;
use crate::load::{self, Loaded};
use crate::metrics;
use crate::pack::{self, Group};
use crate::store::{Error as StoreError, Outcome, Store};
use crate::traces::Ends;
use sessions::Sessions;
use shared::id::{Digest, Holder, RolloutId, StoreId};
use shared::rollout::book::Change;
use shared::rollout::{Book, Rollout, Time, invariant};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tell::Answer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

/// The most commands of one round: the rest waits until these are committed and answered.
const MOST_COMMANDS: usize = 1024;

/// Agents' leases are read again this often while anything changes in the store..
const LEASES_AFTER_HINT: Duration = Duration::from_secs(1);

/// .. and this often at least.
const LEASES_AT_LEAST: Duration = Duration::from_secs(5);

/// How soon an agent is tried again whose queue was full.
const SLOW_AGENT: Duration = Duration::from_millis(50);

/// How soon a bundle is read again that could not be.
const BUNDLE_AGAIN: Duration = Duration::from_secs(2);

/// Which founding of a store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store: StoreId,
    pub(crate) epoch: i64,
}

/// Why a reign ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the store failed")]
    Store(#[source] StoreError),
    #[error("the store refused a write: the term is over, or a lease has ended")]
    Refused,
    #[error("a bundle could not be removed")]
    Bundle(#[source] BundleError),
    #[error("the store has a later epoch")]
    Recovered,
    #[error("nobody can reach this reign any more")]
    Unreachable,
}

/// One reign.
pub(crate) struct Reign {
    store: Arc<dyn Store>,
    bundles: Arc<Bundles>,
    identity: Identity,
    term: i64,
    inbox: mpsc::Receiver<Command>,
    published: watch::Sender<Arc<Book>>,
    hints: watch::Receiver<u64>,
    book: Book,
    sessions: Sessions,
    leases_read: Instant,
    /// Bundles on their way from the store.
    fetches: JoinSet<Digest>,
    fetching: BTreeSet<Digest>,
    inquiries: Arc<Inquiries>,
    /// Checks that are being asked.
    checks: JoinSet<checks::Asked>,
    /// How often those of a wave were asked that have no answer.
    tries: BTreeMap<(RolloutId, usize), u32>,
    /// What came of checks since the last round.
    asked: Vec<checks::Asked>,
    /// An agent's queue was full in the last round.
    slow: bool,
    /// Invariants found broken so far.
    violations: u64,
}

/// What came of one round and has to be done once it is written.
#[derive(Default)]
struct Round {
    groups: Vec<Group>,
    changes: Vec<Change>,
    answers: Vec<Answer>,
    /// The reign ends with this round.
    ends: bool,
}

impl Reign {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        bundles: Arc<Bundles>,
        inquiries: Arc<Inquiries>,
        identity: Identity,
        term: i64,
        inbox: mpsc::Receiver<Command>,
        published: watch::Sender<Arc<Book>>,
    ) -> Self {
        Self {
            hints: store.changes(),
            store,
            bundles,
            identity,
            term,
            inbox,
            published,
            book: Book::default(),
            sessions: Sessions::default(),
            leases_read: Instant::now(),
            fetches: JoinSet::new(),
            fetching: BTreeSet::new(),
            inquiries,
            checks: JoinSet::new(),
            tries: BTreeMap::new(),
            asked: Vec::new(),
            slow: false,
            violations: 0,
        }
    }

    /// Reigns until a write is lost. `announce` is called once what was found is in order.
    pub(crate) async fn run(mut self, loaded: Loaded, announce: impl FnOnce()) -> End {
        match self.rounds(loaded, announce).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn rounds(
        &mut self,
        loaded: Loaded,
        announce: impl FnOnce(),
    ) -> Result<std::convert::Infallible, End> {
        self.begin(loaded).await?;
        announce();
        loop {
            let commands = self.wait().await?;
            // Before anything is heard: the key of an agent that comes in this round is not in the store yet.
            self.read_leases().await?;
            let now = Time::since_1970(runtime::unix_now());
            let mut round = Round::default();
            for command in commands {
                self.hear(command, now, &mut round);
            }
            for asked in std::mem::take(&mut self.asked) {
                self.checked(asked, now, &mut round);
            }
            self.decide(now, &mut round);
            self.commit(&mut round, now).await?;
            // Before any answer: whoever is told of a change and asks finds it.
            self.publish();
            self.answer(round.answers, now);
            if round.ends {
                return Err(End::Recovered);
            }
            self.begin_checks(now);
            if self.instruct(now) > 0 {
                self.publish();
            }
            self.tidy().await?;
        }
    }

    /// Waits until there is something to do: commands, if any came.
    async fn wait(&mut self) -> Result<Vec<Command>, End> {
        let now = Time::since_1970(runtime::unix_now());
        let due = self
            .book
            .next_wake(now)
            .map_or(LEASES_AFTER_HINT, |at| now.until(at));
        let longest = if self.slow { SLOW_AGENT } else { LEASES_AFTER_HINT };
        tokio::select! {
            command = self.inbox.recv() => {
                let mut commands = vec![command.ok_or(End::Unreachable)?];
                while commands.len() < MOST_COMMANDS
                    && let Ok(command) = self.inbox.try_recv()
                {
                    commands.push(command);
                }
                Ok(commands)
            }
            Some(fetched) = self.fetches.join_next() => {
                match fetched {
                    Ok(digest) => {
                        self.fetching.remove(&digest);
                    }
                    Err(panic) => {
                        tracing::error!(%panic, "reading a bundle failed");
                        self.fetching.clear();
                    }
                }
                Ok(Vec::new())
            }
            Some(asked) = self.checks.join_next() => {
                match asked {
                    Ok(asked) => self.asked.push(asked),
                    Err(panic) => tracing::error!(%panic, "asking checks failed; please report this"),
                }
                Ok(Vec::new())
            }
            () = tokio::time::sleep(due.min(longest)) => Ok(Vec::new()),
        }
    }

    /// Reads which agents still have their lease, when that is due.
    async fn read_leases(&mut self) -> Result<(), End> {
        let age = self.leases_read.elapsed();
        let hinted = self.hints.has_changed().unwrap_or(false);
        if age < LEASES_AFTER_HINT || (age < LEASES_AT_LEAST && !hinted) {
            return Ok(());
        }
        self.hints.mark_unchanged();
        self.leases_read = Instant::now();
        let leases = load::agent_leases(self.store.as_ref())
            .await
            .map_err(End::Store)?;
        self.book.leases(&leases);
        Ok(())
    }

    fn decide(&mut self, now: Time, round: &mut Round) {
        let advance = self.book.advance(now, || Holder(Uuid::new_v4()));
        metrics::leases_expired(advance.lost);
        for (decision, error) in advance.refused {
            tracing::error!(?decision, %error, "a decision did not fit its rollout");
        }
        round.changes.extend(advance.changes);
    }

    /// Writes the round. Nothing of it may be acted on before.
    async fn commit(&mut self, round: &mut Round, now: Time) -> Result<(), End> {
        let touched = touched(&round.changes);
        let ends = Ends::of(&round.changes, now);
        let changes = std::mem::take(&mut round.changes);
        let groups = std::mem::take(&mut round.groups).into_iter();
        let groups = groups.chain(
            changes
                .into_iter()
                .map(|change| pack::group(change, self.book.fleet())),
        );
        self.write(groups.collect(), now).await?;
        self.log_ends(&touched);
        ends.tell(&self.book);
        self.check(&touched);
        Ok(())
    }

    async fn write(&mut self, groups: Vec<Group>, now: Time) -> Result<(), End> {
        for packed in pack::pack(self.term, groups) {
            match self.store.commit(packed.transaction).await.map_err(End::Store)? {
                Outcome::Committed { revision } => {
                    for (rollout, database) in packed.grants {
                        self.book.granted(&rollout, &database, revision, now);
                    }
                }
                Outcome::Refused => return Err(End::Refused),
            }
        }
        Ok(())
    }

    fn log_ends(&self, touched: &BTreeSet<RolloutId>) {
        let ended = touched.iter().filter_map(|id| self.book.rollouts().get(id));
        for rollout in ended.filter(|rollout| rollout.phase().is_ended()) {
            tracing::info!(rollout = %rollout.spec().id, phase = rollout.phase().word(), "ended");
        }
    }

    /// Says loudly when an invariant is broken, and goes on: the fences in the databases keep them safe.
    fn check(&mut self, touched: &BTreeSet<RolloutId>) {
        if touched.is_empty() {
            return;
        }
        let known = touched
            .iter()
            .filter_map(|id| self.book.rollouts().get(id))
            .map(AsRef::as_ref);
        let mut rollouts: Vec<&Rollout> = known.chain(self.book.live()).collect();
        rollouts.sort_by_key(|rollout| rollout.spec().number);
        rollouts.dedup_by_key(|rollout| rollout.spec().number);
        for violation in invariant::violations(&rollouts) {
            self.violations += 1;
            metrics::violated(violation.invariant);
            tracing::error!(
                invariant = violation.invariant.number(),
                violations_total = self.violations,
                "{violation}"
            );
        }
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.book.clone()));
    }
}

/// The rollouts that changed.
fn touched(changes: &[Change]) -> BTreeSet<RolloutId> {
    let rollout = |change: &Change| match change {
        Change::Rollout { rollout, .. } => Some(rollout.clone()),
        Change::Agent(_)
        | Change::Database(_)
        | Change::Drain(_)
        | Change::Goodbye(_)
        | Change::Forgotten(_)
        | Change::Story { .. } => None,
    };
    changes.iter().filter_map(rollout).collect()
}
