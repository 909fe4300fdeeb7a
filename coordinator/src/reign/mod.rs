//! The leader's loop around the pure [`Book`]: hear what came, decide, commit, and only then act on it.
//!
//! ```text
//!   +-> wait -> hear all that came -> decide -> commit, in few transactions -> answer, tell agents -> publish --+
//!   +-----------------------------------------------------------------------------------------------------------+
//! ```
//! One task owns the book, so nothing is locked. What came meanwhile is taken in one go, so the store is asked about
//! once per round, not once per message. When a write fails, or nobody knows whether it was written, the reign ends
//! and the next one begins from what the store says: there is no other way of recovery.

mod command;
mod found;
mod sessions;
mod tidy;

pub(crate) use command::{Attach, Attached, Command, Founded, FoundedBy, Refusal, Wish};

use crate::bundles::{Bundles, Error as BundleError};
use crate::chain::chain;
use crate::load::{self, Loaded};
use crate::pack::{self, Group};
use crate::store::{Error as StoreError, Outcome, Store};
use found::Finding;
use sessions::{Claim, Sent, Sessions};
use shared::id::{AgentId, Digest, Holder, RolloutId, StoreId};
use shared::rollout::book::{Change, Heard};
use shared::rollout::instruct;
use shared::rollout::message::{FromAgent, Holding, ToAgent, Welcome};
use shared::rollout::{Book, Phase, Rollout, Time, invariant, show};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
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
}

/// To be said after the commit.
enum Answer {
    Welcome(AgentId, Welcome),
    Attached(oneshot::Sender<Attached>, Attached),
    Acknowledge(AgentId, Holding),
    Founded(RolloutId, FoundedBy, oneshot::Sender<Result<Founded, Refusal>>),
    Aborting(
        RolloutId,
        oneshot::Sender<Result<shared::rollout::view::Rollout, show::Error>>,
    ),
}

impl Reign {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        bundles: Arc<Bundles>,
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
            self.decide(now, &mut round);
            self.commit(&mut round, now).await?;
            // Before any answer: whoever is told of a change and asks finds it.
            self.publish();
            self.answer(round.answers);
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
            () = tokio::time::sleep(due.min(longest)) => Ok(Vec::new()),
        }
    }

    fn hear(&mut self, command: Command, now: Time, round: &mut Round) {
        match command {
            Command::Attach(attach) => self.attach(*attach, now, round),
            Command::Detach { agent, stream } => {
                if self.sessions.is_present(&agent, stream) {
                    tracing::info!(%agent, "disconnected");
                    self.sessions.end(&agent);
                    self.book.detach(&agent);
                }
            }
            Command::Said {
                agent,
                stream,
                message,
            } => {
                if self.sessions.is_present(&agent, stream) {
                    self.said(agent, message, now, round);
                }
            }
            Command::Found { wish, reply } => self.found(*wish, reply, now, round),
            Command::Abort {
                id,
                by,
                reason,
                reply,
            } => {
                let found = self.book.find(&id).map(|rollout| rollout.spec().id.clone());
                match found {
                    Ok(id) => {
                        tracing::info!(rollout = %id, by, reason, "asked to abort");
                        round.changes.extend(self.book.abort(&id, by, reason, now));
                        round.answers.push(Answer::Aborting(id, reply));
                    }
                    // Whoever asked may have gone.
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
    }

    fn attach(&mut self, attach: Attach, now: Time, round: &mut Round) {
        let Attach {
            stream,
            hello,
            lease,
            ttl,
            heartbeat_interval,
            heard,
            outbound,
            reply,
        } = attach;
        // Whoever asked may have gone.
        match self.sessions.claim(&hello.agent, hello.instance, Instant::now()) {
            Claim::Free => {}
            Claim::Contested => return drop(reply.send(Attached::Contested)),
            Claim::Taken => {
                tracing::warn!(agent = %hello.agent, "refused: another living process serves under this id");
                return drop(reply.send(Attached::IdInUse));
            }
        }
        let known = self.book.fleet().agents().get(&hello.agent);
        let earlier = known.map(|known| known.lease).filter(|known| *known != lease);
        tracing::info!(agent = %hello.agent, databases = hello.databases.len(), held = hello.held.len(), "connected");
        round.changes.extend(self.book.attach(&hello, lease, now));
        self.sessions
            .begin(hello.agent.clone(), hello.instance, stream, heard, outbound);
        let welcome = Welcome {
            term: self.term,
            lease,
            ttl,
            heartbeat_interval,
            store: self.identity.store,
            epoch: self.identity.epoch,
        };
        round.answers.push(Answer::Welcome(hello.agent, welcome));
        round
            .answers
            .push(Answer::Attached(reply, Attached::Taken { earlier }));
    }

    fn said(&mut self, agent: AgentId, message: FromAgent, now: Time, round: &mut Round) {
        if let FromAgent::Finished { of, finish } = &message {
            tracing::info!(%agent, rollout = %of.rollout, database = %of.database, token = of.token, ?finish, "finished");
        }
        let Heard {
            changes,
            acknowledge,
            ignored,
        } = self.book.hear(&agent, message, now);
        if let Some(reason) = ignored {
            tracing::debug!(%agent, %reason, "a message came too late");
        }
        round.changes.extend(changes);
        round
            .answers
            .extend(acknowledge.map(|of| Answer::Acknowledge(agent, of)));
    }

    fn found(
        &mut self,
        wish: Wish,
        reply: oneshot::Sender<Result<Founded, Refusal>>,
        now: Time,
        round: &mut Round,
    ) {
        let random = || Uuid::new_v4().as_u64_pair().0;
        match found::found(&self.book, wish, now, random) {
            Ok(finding) => {
                let by = finding.by();
                let id = match finding {
                    Finding::Known(id) => id,
                    Finding::New(spec) => {
                        let id = spec.id.clone();
                        tracing::info!(
                            rollout = %id, set = %spec.set, databases = spec.databases.len(),
                            selector = %spec.selector, by = spec.created_by, "founded"
                        );
                        round.groups.extend(pack::founding(&spec, &Phase::Running));
                        self.book.found(*spec);
                        id
                    }
                };
                round.answers.push(Answer::Founded(id, by, reply));
            }
            // Whoever asked may have gone.
            Err(refusal) => drop(reply.send(Err(refusal))),
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
        for (decision, error) in advance.refused {
            tracing::error!(?decision, %error, "a decision did not fit its rollout");
        }
        round.changes.extend(advance.changes);
    }

    /// Writes the round. Nothing of it may be acted on before.
    async fn commit(&mut self, round: &mut Round, now: Time) -> Result<(), End> {
        let touched = touched(&round.changes);
        let changes = std::mem::take(&mut round.changes);
        let groups = std::mem::take(&mut round.groups).into_iter();
        let groups = groups.chain(
            changes
                .into_iter()
                .map(|change| pack::group(change, self.book.fleet())),
        );
        self.write(groups.collect(), now).await?;
        self.log_ends(&touched);
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
            tracing::error!(
                invariant = violation.invariant.number(),
                violations_total = self.violations,
                "{violation}"
            );
        }
    }

    /// Answers that waited for the commit. Whoever asked may have gone.
    fn answer(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Welcome(agent, welcome) => self.say(&agent, ToAgent::Welcome(welcome)),
                Answer::Attached(reply, attached) => drop(reply.send(attached)),
                Answer::Acknowledge(agent, of) => self.say(&agent, ToAgent::Acknowledged(of)),
                Answer::Founded(id, by, reply) => {
                    if let Some(rollout) = self.book.rollouts().get(&id) {
                        let rollout = show::show_rollout(rollout);
                        drop(reply.send(Ok(Founded { rollout, by })));
                    }
                }
                Answer::Aborting(id, reply) => {
                    if let Some(rollout) = self.book.rollouts().get(&id) {
                        drop(reply.send(Ok(show::show_rollout(rollout))));
                    }
                }
            }
        }
    }

    fn say(&mut self, agent: &AgentId, message: ToAgent) {
        match self.sessions.say(agent, message) {
            Sent::Yes => {}
            Sent::Later | Sent::Gone => self.book.detach(agent),
        }
    }

    /// Tells agents what the book says and they do not know yet. How much was told.
    fn instruct(&mut self, now: Time) -> usize {
        let office = instruct::Office {
            term: self.term,
            epoch: self.identity.epoch,
        };
        self.slow = false;
        let mut told = 0;
        for instruction in self.book.instructions(office, now) {
            let agent = &instruction.agent;
            let needed = instruction
                .needs
                .filter(|digest| !self.sessions.has_bundle(agent, *digest));
            let kept = needed.map(|digest| (digest, self.bundles.kept(digest)));
            let bundle = match &kept {
                None => None,
                Some((digest, Some(bundle))) => Some((*digest, bundle.as_ref())),
                Some((digest, None)) => {
                    self.fetch(*digest);
                    continue;
                }
            };
            match self.sessions.instruct(agent, bundle, instruction.message.clone()) {
                Sent::Yes => {
                    self.book.told(&instruction, now);
                    told += 1;
                }
                Sent::Later => self.slow = true,
                // The end of its stream is on its way to us.
                Sent::Gone => {}
            }
        }
        told
    }

    /// Begins to read a bundle; what needs it is said once it is here.
    fn fetch(&mut self, digest: Digest) {
        if !self.fetching.insert(digest) {
            return;
        }
        let bundles = self.bundles.clone();
        self.fetches.spawn(async move {
            if let Err(error) = bundles.fetch(digest).await {
                tracing::error!(error = chain(&error), "a bundle cannot be read; trying again");
                tokio::time::sleep(BUNDLE_AGAIN).await;
            }
            digest
        });
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.book.clone()));
    }
}

/// The rollouts that changed.
fn touched(changes: &[Change]) -> BTreeSet<RolloutId> {
    let rollout = |change: &Change| match change {
        Change::Rollout { rollout, .. } => Some(rollout.clone()),
        Change::Agent(_) | Change::Database(_) => None,
    };
    changes.iter().filter_map(rollout).collect()
}
