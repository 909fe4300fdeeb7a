//! All that the leader knows, in memory: rollouts, fleet, who is connected and what each was told.
//!
//! ```text
//!   messages, requests --> hear, attach, found, abort --+
//!   time ----------------> advance ---------------------+--> changes --> (commit) --> granted
//!                                                                                       |
//!   agents <-- instructions <-- what the state says and the agents do not know yet <----+
//! ```
//! The store holds rollouts and fleet; the rest (looks, what agents were told, progress) is found out again after a
//! restart, by the same `instructions` as on every day. Whoever calls must write the changes before acting on
//! anything, and throw the book away when that fails.

use super::assignment::{Assignment, clipped};
use super::board::{Board, Found, Glance, Link, Snapshot, Told};
use super::control::Verb;
use super::course::NextWave;
use super::decision::Decision;
use super::event::{Effect, Error, Event, Verdict};
use super::fleet::Fleet;
use super::machine::Rollout;
use super::message::{FromAgent, Hello, Holding};
use super::phase::Phase;
use super::policy::Check;
use super::spec::Spec;
use super::story::Story;
use super::time::Time;
use super::work::{Look, Progress};
use crate::id::{AgentId, DatabaseName, Holder, RequestId, RolloutId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rollouts, fleet, connections. Cheap to clone: what is large is shared.
#[derive(Debug, Clone, Default)]
pub struct Book {
    rollouts: BTreeMap<RolloutId, Arc<Rollout>>,
    /// Those that have not ended, by number.
    live: BTreeMap<u64, RolloutId>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) links: BTreeMap<AgentId, Link>,
    pub(super) glances: BTreeMap<DatabaseName, Glance>,
    progress: BTreeMap<DatabaseName, (Holding, Progress)>,
    /// What has happened to those at work, as told last.
    stories: BTreeMap<DatabaseName, (Holding, Arc<Attempt>)>,
    /// Whether it was read by one who does not lead, and lacks what only the leader knows.
    from_afar: bool,
    /// Since when agents are not connected that were, or have a lease.
    gone: BTreeMap<AgentId, Time>,
    /// When something of a rollout was last seen to get anywhere.
    moved: BTreeMap<RolloutId, Time>,
    /// Since when no agent serves databases that must not hold their wave up.
    unserved: BTreeMap<DatabaseName, Time>,
    /// The waves whose checks are being asked.
    checking: BTreeMap<RolloutId, usize>,
    /// The number of the last look.
    pub(super) looks: u64,
}

/// What must be written. The effects of one change belong into one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A rollout's or its databases' state.
    Rollout {
        /// Which rollout.
        rollout: RolloutId,
        /// What of it.
        effects: Vec<Effect>,
    },
    /// An agent has another lease or version.
    Agent(AgentId),
    /// What agents say about a database.
    Database(DatabaseName),
    /// An agent is drained, or not any more.
    Drain(AgentId),
    /// An agent has said goodbye, or is back.
    Goodbye(AgentId),
    /// A database is taken out of the inventory, or is back.
    Forgotten(DatabaseName),
    /// What happened to an assignment that has ended.
    Story {
        /// Which.
        of: Holding,
        /// What.
        attempt: Arc<Attempt>,
    },
}

/// An attempt at a database, as its agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who worked.
    pub agent: AgentId,
    /// Which it was, from 1.
    pub number: u32,
    /// What happened.
    pub story: Story,
}

/// What came of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// To be written.
    pub changes: Vec<Change>,
    /// To be acknowledged once that is written.
    pub acknowledge: Option<Holding>,
    /// Why the message was of no interest; late and repeated ones are ordinary.
    pub ignored: Option<Error>,
}

/// What came of a round of decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advance {
    /// To be written.
    pub changes: Vec<Change>,
    /// Databases whose lease had ended with their work unfinished.
    pub lost: u64,
    /// Decisions that did not fit their rollout; each is a fault in the scheduler.
    pub refused: Vec<(Decision, Error)>,
}

/// What is to be checked after a wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    /// Of which rollout.
    pub rollout: RolloutId,
    /// Which wave, from 0.
    pub wave: usize,
    /// What is asked.
    pub checks: Vec<Check>,
    /// Its databases that are done.
    pub databases: Vec<DatabaseName>,
}

/// Why nothing is done about what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The rollout is where that makes no sense.
    #[error(transparent)]
    Impossible(#[from] Error),
    /// It has ended, and a later one has its databases now.
    #[error(
        "rollout {0}, which came later, is not finished with the same databases: let it end, or abort it, and retry then"
    )]
    Overtaken(RolloutId),
    /// It has been taken back.
    #[error("rollout {0} takes it back: start a new rollout of the same migrations instead")]
    Undone(RolloutId),
}

impl Book {
    /// A book of what was stored. A `Leasing` with a lease must have been granted, and one without must have lost it,
    /// before anything is decided.
    pub fn restored(rollouts: impl IntoIterator<Item = Rollout>, fleet: Fleet) -> Self {
        let mut book = Self {
            fleet: Arc::new(fleet),
            ..Self::default()
        };
        for rollout in rollouts {
            book.insert(rollout);
        }
        book
    }

    fn insert(&mut self, rollout: Rollout) {
        let id = rollout.spec().id.clone();
        if !rollout.phase().is_ended() {
            self.live.insert(rollout.spec().number, id.clone());
        }
        self.rollouts.insert(id, Arc::new(rollout));
    }

    /// All rollouts.
    pub fn rollouts(&self) -> &BTreeMap<RolloutId, Arc<Rollout>> {
        &self.rollouts
    }

    /// Rollouts that have not ended, in order of their numbers.
    pub fn live(&self) -> Vec<&Rollout> {
        self.live
            .values()
            .filter_map(|id| self.rollouts.get(id))
            .map(AsRef::as_ref)
            .collect()
    }

    /// Databases and agents.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Connected agents.
    pub fn links(&self) -> &BTreeMap<AgentId, Link> {
        &self.links
    }

    /// How far a running database is, as last heard.
    pub fn progress(&self, rollout: &RolloutId, database: &DatabaseName) -> Option<&Progress> {
        self.progress
            .get(database)
            .filter(|(of, _)| of.rollout == *rollout)
            .map(|(_, progress)| progress)
    }

    /// Whether a report says more than the one before.
    fn got_on(&self, of: &Holding, progress: &Progress) -> bool {
        self.progress.get(&of.database).is_none_or(|(before, then)| {
            let place = |progress: &Progress| (progress.migrations_done, progress.step, progress.rows);
            before != of || place(then) != place(progress)
        })
    }

    /// When something of a rollout was last seen to get anywhere; after a change of leaders, when its last database began
    /// or ended.
    pub(super) fn moved(&self, rollout: &Rollout) -> Time {
        self.moved.get(&rollout.spec().id).copied().unwrap_or_else(|| {
            let last = |assignment: &Assignment| assignment.ended_at().or(assignment.began_at());
            let times = rollout.assignments().values().filter_map(last);
            times.max().unwrap_or(rollout.spec().created_at)
        })
    }

    /// What has happened to those of a rollout that are at work, as told last.
    pub fn stories(&self, rollout: &RolloutId) -> impl Iterator<Item = (&Holding, &Attempt)> {
        let stories = self.stories.values();
        stories
            .filter(move |(of, _)| of.rollout == *rollout)
            .map(|(of, attempt)| (of, attempt.as_ref()))
    }

    /// The rollout that a request founded.
    pub fn founded_by(&self, request: &RequestId) -> Option<&Rollout> {
        self.rollouts
            .values()
            .find(|rollout| rollout.spec().request == *request)
            .map(AsRef::as_ref)
    }

    /// The book as one who does not lead sees it: it takes every agent with a lease for connected to the leader.
    #[must_use]
    pub fn from_afar(mut self) -> Self {
        self.from_afar = true;
        self.links = self
            .fleet
            .agents()
            .keys()
            .map(|agent| (agent.clone(), Link::default()))
            .collect();
        self
    }

    /// Whether it lacks what only the leader knows.
    pub(super) fn is_from_afar(&self) -> bool {
        self.from_afar
    }

    /// The number for the next rollout.
    pub fn next_number(&self) -> u64 {
        self.rollouts
            .values()
            .map(|rollout| rollout.spec().number + 1)
            .max()
            .unwrap_or(1)
    }

    /// Adds a rollout; the caller writes it.
    pub fn found(&mut self, spec: Spec) {
        self.insert(Rollout::new(spec));
    }

    /// Ended rollouts beyond the newest `keep`, oldest first.
    pub fn outdated(&self, keep: usize) -> Vec<RolloutId> {
        let mut ended: Vec<_> = self
            .rollouts
            .values()
            .filter(|rollout| rollout.phase().is_ended())
            .collect();
        ended.sort_by_key(|rollout| rollout.spec().number);
        let beyond = ended.len().saturating_sub(keep);
        ended
            .into_iter()
            .take(beyond)
            .map(|rollout| rollout.spec().id.clone())
            .collect()
    }

    /// Forgets an ended rollout; the caller removes it from the store.
    pub fn forget(&mut self, rollout: &RolloutId) {
        if self
            .rollouts
            .get(rollout)
            .is_some_and(|rollout| rollout.phase().is_ended())
        {
            self.rollouts.remove(rollout);
        }
    }

    /// Asks something of a rollout. Nothing changes where it is so already.
    ///
    /// # Errors
    /// When the rollout is where that makes no sense.
    pub fn ask(
        &mut self,
        rollout: &RolloutId,
        verb: Verb,
        by: String,
        reason: String,
        now: Time,
    ) -> Result<Vec<Change>, AskError> {
        if let Verb::Retry { databases } = &verb {
            if let Some(undo) = self.taken_back_by(rollout) {
                return Err(AskError::Undone(undo.spec().id.clone()));
            }
            if let Some(later) = self.overtaken(rollout, databases) {
                return Err(AskError::Overtaken(later));
            }
        }
        let mut heard = Heard::default();
        self.apply(rollout, Event::Asked { verb, by, reason }, now, &mut heard);
        match heard.ignored {
            Some(error) => Err(AskError::Impossible(error)),
            None => Ok(heard.changes),
        }
    }

    /// A later rollout that is not finished with databases of one that has ended.
    fn overtaken(&self, rollout: &RolloutId, databases: &BTreeSet<DatabaseName>) -> Option<RolloutId> {
        let ended = self
            .rollouts
            .get(rollout)
            .filter(|rollout| rollout.phase().is_ended())?;
        let wants = |database: &DatabaseName| match ended.assignments().get(database) {
            Some(Assignment::Failed { .. }) => databases.is_empty() || databases.contains(database),
            Some(Assignment::Aborted { .. }) => true,
            _ => false,
        };
        let meets = |later: &&Rollout| {
            let mut unfinished = later.assignments().iter().filter(|(_, a)| !a.is_over());
            later.spec().number > ended.spec().number && unfinished.any(|(database, _)| wants(database))
        };
        self.live()
            .into_iter()
            .find(meets)
            .map(|later| later.spec().id.clone())
    }

    /// An agent is connected, with this lease.
    pub fn attach(&mut self, hello: &Hello, lease: i64, now: Time) -> Vec<Change> {
        self.detach(&hello.agent, now);
        self.gone.remove(&hello.agent);
        let orders = hello.held.iter().map(|held| (held.clone(), Told::Work)).collect();
        let leaving = false;
        self.links.insert(hello.agent.clone(), Link { orders, leaving });
        let before = self.fleet.agents().get(&hello.agent).cloned();
        let fleet = Arc::make_mut(&mut self.fleet);
        let mut changes: Vec<_> = fleet.remember(hello).into_iter().map(Change::Forgotten).collect();
        let databases = fleet.welcome(hello, lease, now);
        changes.extend(databases.into_iter().map(Change::Database));
        if fleet.take_back_goodbye(&hello.agent) {
            changes.push(Change::Goodbye(hello.agent.clone()));
        }
        if self.fleet.agents().get(&hello.agent) != before.as_ref() {
            changes.push(Change::Agent(hello.agent.clone()));
        }
        changes
    }

    /// An agent's stream has ended. Its lease lives on for a while, and so does its work.
    pub fn detach(&mut self, agent: &AgentId, now: Time) {
        if self.links.remove(agent).is_some() {
            self.gone.insert(agent.clone(), now);
        }
        self.forget_looks(agent);
    }

    /// A leader begins: of agents with a lease it knows only that none has come to it yet.
    pub fn await_agents(&mut self, now: Time) {
        let agents = self.fleet.agents().keys();
        self.gone = agents.map(|agent| (agent.clone(), now)).collect();
    }

    /// Since when an agent is not connected; `None` where it is, or that is not known.
    pub(super) fn gone_since(&self, agent: &AgentId) -> Option<Time> {
        self.gone.get(agent).copied()
    }

    /// Another agent is to look.
    pub(super) fn forget_looks(&mut self, agent: &AgentId) {
        self.glances.retain(|_, glance| match glance.found {
            Found::Asked(_) | Found::Pending => glance.agent != *agent,
            Found::Held { .. } => true,
        });
    }

    /// The leases that agents have, as read from the store. Whose is gone loses its work in the next `advance`.
    pub fn leases(&mut self, leases: &BTreeMap<AgentId, i64>) {
        let same = |(id, agent): (&AgentId, &super::fleet::Agent)| leases.get(id) == Some(&agent.lease);
        if !self.fleet.agents().iter().all(same) {
            Arc::make_mut(&mut self.fleet).retain(leases);
            self.gone.retain(|agent, _| leases.contains_key(agent));
        }
    }

    /// A connected agent said something. Hello, heartbeats and answers to inquiries are not for the book.
    pub fn hear(&mut self, agent: &AgentId, message: FromAgent, now: Time) -> Heard {
        let mut heard = Heard::default();
        match message {
            FromAgent::Hello(_) | FromAgent::Heartbeat { .. } | FromAgent::Answered { .. } => {}
            FromAgent::Inventory(located) => {
                let databases = Arc::make_mut(&mut self.fleet).locate(agent, located);
                heard.changes.extend(databases.into_iter().map(Change::Database));
            }
            FromAgent::Looked {
                look,
                database,
                result,
            } => {
                self.looked(agent, look, database, result, now, &mut heard);
            }
            FromAgent::Progress { of, progress } => {
                if self.is_at_work(agent, &of) {
                    if self.got_on(&of, &progress) {
                        self.moved.insert(of.rollout.clone(), now);
                    }
                    self.progress.insert(of.database.clone(), (of, progress));
                }
            }
            FromAgent::Told { of, story } => {
                if let Some(number) = self.attempt(agent, &of) {
                    let agent = agent.clone();
                    let attempt = Attempt { agent, number, story };
                    self.stories.insert(of.database.clone(), (of, Arc::new(attempt)));
                }
            }
            FromAgent::Finished { of, finish } => {
                if let Some(link) = self.links.get_mut(agent) {
                    link.orders.remove(&of);
                }
                if self.is_at_work(agent, &of) {
                    let event = Event::Finished {
                        database: of.database.clone(),
                        token: of.token,
                        finish,
                        progress: self.progress(&of.rollout, &of.database).cloned(),
                    };
                    self.apply(&of.rollout, event, now, &mut heard);
                }
                // Of no interest any more, or recorded: either way it need not be repeated.
                heard.acknowledge = Some(of);
            }
            FromAgent::Leaving => {
                if let Some(link) = self.links.get_mut(agent) {
                    link.leaving = true;
                    let changed = Arc::make_mut(&mut self.fleet).say_goodbye(agent);
                    heard.changes.extend(changed.into_iter().map(Change::Goodbye));
                }
                self.forget_looks(agent);
            }
        }
        heard
    }

    fn looked(
        &mut self,
        agent: &AgentId,
        look: u64,
        database: DatabaseName,
        result: Look,
        now: Time,
        heard: &mut Heard,
    ) {
        let asked = |glance: &&mut Glance| glance.found == Found::Asked(look) && glance.agent == *agent;
        let Some(glance) = self.glances.get_mut(&database).filter(asked) else {
            return;
        };
        let rollout = glance.rollout.clone();
        glance.at = now;
        let agent = agent.clone();
        match result {
            Look::Pending { versions: _ } => glance.found = Found::Pending,
            Look::Held { by } => glance.found = Found::Held { by: clipped(by) },
            Look::UpToDate { ahead: _ } => {
                self.apply(&rollout, Event::FoundUpToDate { database, agent }, now, heard);
            }
            Look::Declined { why } => {
                self.apply(&rollout, Event::Declined { database, agent, why }, now, heard);
            }
            Look::Failed(failure) => {
                self.apply(
                    &rollout,
                    Event::LookFailed {
                        database,
                        agent,
                        failure,
                    },
                    now,
                    heard,
                );
            }
        }
    }

    /// Whether this is the work of this agent now.
    pub(super) fn is_at_work(&self, agent: &AgentId, of: &Holding) -> bool {
        self.attempt(agent, of).is_some()
    }

    /// Which attempt it is, where this is the work of this agent now.
    fn attempt(&self, agent: &AgentId, of: &Holding) -> Option<u32> {
        let assignment = self
            .rollouts
            .get(&of.rollout)
            .and_then(|rollout| rollout.assignments().get(&of.database));
        match assignment {
            Some(Assignment::Running { work, token }) => {
                (work.agent == *agent && *token == of.token).then(|| work.attempt())
            }
            Some(
                Assignment::Waiting { .. }
                | Assignment::Leasing(_)
                | Assignment::Done { .. }
                | Assignment::Failed { .. }
                | Assignment::Skipped { .. }
                | Assignment::Aborted { .. },
            )
            | None => None,
        }
    }

    /// The write that grants a database's lease is done, at this revision.
    pub fn granted(&mut self, rollout: &RolloutId, database: &DatabaseName, token: i64, now: Time) {
        let event = Event::Granted {
            database: database.clone(),
            token,
        };
        self.apply(rollout, event, now, &mut Heard::default());
    }

    /// A `Leasing` that was read from the store, and whose lease is not there.
    pub fn lost(&mut self, rollout: &RolloutId, database: &DatabaseName, now: Time) -> Vec<Change> {
        let mut heard = Heard::default();
        self.apply(
            rollout,
            Event::LeaseLost {
                database: database.clone(),
                progress: self.progress(rollout, database).cloned(),
            },
            now,
            &mut heard,
        );
        heard.changes
    }

    /// Changes the state by all that can be decided now. `mint` makes a random holder for each lease.
    pub fn advance(&mut self, now: Time, mut mint: impl FnMut() -> Holder) -> Advance {
        let mut advance = Advance::default();
        self.notice_unserved(now);
        loop {
            let mut applied = 0;
            for decision in self.board(now).changes() {
                let Some((rollout, event)) = self.event(&decision, &mut mint) else {
                    continue;
                };
                let mut heard = Heard::default();
                self.apply(&rollout, event, now, &mut heard);
                advance.changes.append(&mut heard.changes);
                if let Some(error) = heard.ignored {
                    advance.refused.push((decision, error));
                    continue;
                }
                applied += 1;
                if let Decision::Lose { .. } = decision {
                    advance.lost += 1;
                }
            }
            // One decision can make another possible: the last database abandoned ends its rollout.
            if applied == 0 {
                return advance;
            }
        }
    }

    /// Takes note of databases that no agent serves, and of those that one serves again.
    fn notice_unserved(&mut self, now: Time) {
        let unserved = self.board(now).unserved();
        self.unserved.retain(|database, _| unserved.contains(database));
        for database in unserved {
            self.unserved.entry(database).or_insert(now);
        }
    }

    /// What a decision that changes the state does to it.
    fn event(&self, decision: &Decision, mint: &mut impl FnMut() -> Holder) -> Option<(RolloutId, Event)> {
        match decision {
            Decision::Lease {
                rollout,
                database,
                server,
                agent,
            } => {
                let lease = self.fleet.agents().get(agent)?.lease;
                let (database, agent) = (database.clone(), agent.clone());
                Some((
                    rollout.clone(),
                    Event::Leased {
                        database,
                        agent,
                        lease,
                        server: *server,
                        holder: mint(),
                    },
                ))
            }
            Decision::Lose { rollout, database } => Some((
                rollout.clone(),
                Event::LeaseLost {
                    database: database.clone(),
                    progress: self.progress(rollout, database).cloned(),
                },
            )),
            Decision::Abandon { rollout, database } => Some((
                rollout.clone(),
                Event::Abandoned {
                    database: database.clone(),
                },
            )),
            Decision::WaveOver { rollout } => Some((rollout.clone(), Event::WaveOver)),
            Decision::BeginWave { rollout } => Some((rollout.clone(), Event::WaveBegun)),
            Decision::LeaveOut { rollout, database } => Some((
                rollout.clone(),
                Event::LeftOut {
                    database: database.clone(),
                },
            )),
            Decision::End { rollout } => Some((rollout.clone(), Event::Ended)),
            Decision::Look { .. } | Decision::Assign { .. } | Decision::Stop { .. } => None,
        }
    }

    /// What is to be checked now and is not yet; each is to be answered by [`Self::checked`].
    pub fn begin_checks(&mut self, now: Time) -> Vec<Checks> {
        let mut due = Vec::new();
        for rollout in self.live() {
            let (id, course) = (&rollout.spec().id, rollout.course());
            let is_due = matches!(rollout.phase(), Phase::Running)
                && matches!(rollout.next_wave(now), Some(NextWave::Checking { .. }))
                && self.checking.get(id) != Some(&course.wave);
            if let Some(wave) = rollout.wave().filter(|_| is_due) {
                let done = |database: &&DatabaseName| {
                    matches!(
                        rollout.assignments().get(*database),
                        Some(Assignment::Done { .. })
                    )
                };
                due.push(Checks {
                    rollout: id.clone(),
                    wave: course.wave,
                    checks: wave.checks.clone(),
                    databases: wave.databases.iter().filter(done).cloned().collect(),
                });
            }
        }
        for checks in &due {
            self.checking.insert(checks.rollout.clone(), checks.wave);
        }
        due
    }

    /// Checks that had no answer are due again.
    pub fn ask_checks_again(&mut self, rollout: &RolloutId) {
        self.checking.remove(rollout);
    }

    /// What came of checks; late answers are ignored.
    pub fn checked(&mut self, rollout: &RolloutId, wave: usize, verdict: Verdict, now: Time) -> Vec<Change> {
        self.checking.remove(rollout);
        let mut heard = Heard::default();
        self.apply(rollout, Event::Checked { wave, verdict }, now, &mut heard);
        heard.changes
    }

    /// When there will be something to do though nothing has happened.
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        self.board(now).next_wake()
    }

    /// The scheduler at this moment.
    pub(super) fn board(&self, now: Time) -> Board<'_> {
        let snapshot = Snapshot {
            live: self.live(),
            fleet: &self.fleet,
            links: &self.links,
            glances: &self.glances,
            unserved: &self.unserved,
        };
        Board::new(snapshot, now)
    }

    /// Applies an event to a rollout and keeps the rest of the book in step.
    fn apply(&mut self, id: &RolloutId, event: Event, now: Time, heard: &mut Heard) {
        let Some(shared) = self.rollouts.get_mut(id) else {
            return;
        };
        let rollout = Arc::make_mut(shared);
        if let Event::LeaseLost { database, .. } = &event {
            note_loss(&mut self.stories, rollout, database, now);
        }
        let effects = match rollout.apply(event, now) {
            Ok(effects) => effects,
            Err(error) => {
                heard.ignored = Some(error);
                return;
            }
        };
        let changed: BTreeSet<_> = effects.iter().filter_map(Effect::recorded).collect();
        for database in changed {
            // Whatever a look found was about the state before; another rollout's look is not touched.
            if self
                .glances
                .get(database)
                .is_some_and(|glance| glance.rollout == *id)
            {
                self.glances.remove(database);
            }
            if self
                .progress
                .get(database)
                .is_some_and(|(of, _)| of.rollout == *id)
            {
                self.progress.remove(database);
            }
            if self
                .stories
                .get(database)
                .is_some_and(|(of, _)| of.rollout == *id)
                && let Some((of, attempt)) = self.stories.remove(database)
            {
                heard.changes.push(Change::Story { of, attempt });
            }
        }
        let (number, is_ended) = (rollout.spec().number, rollout.phase().is_ended());
        if is_ended {
            self.live.remove(&number);
            self.moved.remove(id);
        } else {
            if !effects.is_empty() {
                self.moved.insert(id.clone(), now);
            }
            self.live.insert(number, id.clone());
        }
        if !effects.is_empty() {
            heard.changes.push(Change::Rollout {
                rollout: id.clone(),
                effects,
            });
        }
    }
}

/// Adds to what was told last of a work that its agent's lease has ended with.
fn note_loss(
    stories: &mut BTreeMap<DatabaseName, (Holding, Arc<Attempt>)>,
    rollout: &Rollout,
    database: &DatabaseName,
    now: Time,
) {
    // A lease that was not confirmed yet is no work that anybody began.
    let Some(Assignment::Running { work, token, .. }) = rollout.assignments().get(database) else {
        return;
    };
    let of = Holding {
        rollout: rollout.spec().id.clone(),
        database: database.clone(),
        token: *token,
    };
    let told = match stories.remove(database) {
        Some((told, attempt)) if told == of => attempt,
        // What was told to a leader before us is not known.
        Some(_) | None => Arc::new(Attempt {
            agent: work.agent.clone(),
            number: work.attempt(),
            story: Story::default(),
        }),
    };
    let mut attempt = Arc::unwrap_or_clone(told);
    attempt.story.lose(work.started_at, now);
    stories.insert(database.clone(), (of, Arc::new(attempt)));
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
