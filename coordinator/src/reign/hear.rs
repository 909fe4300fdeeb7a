//! What comes in: agents and their messages, wishes of operators. Changes the book; nothing is written or said here.

use super::command::{
    Attach, Attached, Command, Drained, Forgot, Founded, FoundedBy, NoControl, Recovered, Refusal, Wish,
};
use super::found::{self, Finding};
use super::sessions::Claim;
use super::tell::Answer;
use super::{Reign, Round};
use crate::pack::{self, Group};
use crate::store;
use shared::id::{AgentId, DatabaseName, RolloutId};
use shared::rollout::book::{Change, Heard};
use shared::rollout::drain::{self, Drain};
use shared::rollout::forget::{self, Forgotten};
use shared::rollout::message::{FromAgent, Welcome};
use shared::rollout::work::Finish;
use shared::rollout::{Course, Time, Verb, release, undo};
use std::time::Instant;
use tokio::sync::oneshot;
use uuid::Uuid;

impl Reign {
    /// Takes what came into the book.
    pub(super) fn hear(&mut self, command: Command, now: Time, round: &mut Round) {
        match command {
            Command::Attach(attach) => self.attach(*attach, now, round),
            Command::Detach { agent, stream } => {
                if self.sessions.is_present(&agent, stream) {
                    tracing::info!(%agent, "disconnected");
                    self.sessions.end(&agent);
                    self.book.detach(&agent, now);
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
            Command::Undo { id, wish, reply } => match self.undo(&id, wish, now, round) {
                Ok((id, by)) => round.answers.push(Answer::Founded(id, by, reply)),
                // Whoever asked may have gone.
                Err(refusal) => drop(reply.send(Err(refusal))),
            },
            Command::Control {
                id,
                verb,
                by,
                reason,
                reply,
            } => {
                let word = verb.word();
                let asked = self.control(&id, verb, by, reason, now);
                match asked {
                    Ok((rollout, changes)) => {
                        let effective = !changes.is_empty();
                        tracing::info!(%rollout, verb = word, effective, "asked");
                        round.changes.extend(changes);
                        round.answers.push(Answer::Controlled(rollout, effective, reply));
                    }
                    // Whoever asked may have gone.
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Drain {
                agent,
                by,
                reason,
                running,
                reply,
            } => {
                let drain = Drain {
                    by,
                    reason,
                    at: now,
                    running,
                };
                self.drain(&agent, drain, reply, round);
            }
            Command::Undrain {
                agent,
                by,
                reason,
                reply,
            } => self.undrain(&agent, &by, &reason, reply, round),
            Command::Forget {
                database,
                by,
                reason,
                reply,
            } => {
                let forgotten = Forgotten { by, reason, at: now };
                self.forget_database(&database, forgotten, reply, round);
            }
            Command::Inquire {
                inquiry,
                databases,
                what,
                bundle,
                reply,
            } => {
                // Whoever asked may have gone.
                drop(reply.send(self.inquire(inquiry, databases, &what, bundle.as_deref())));
            }
            Command::Recover { by, reason, reply } => self.recover(&by, &reason, reply, round),
        }
    }

    fn control(
        &mut self,
        id: &str,
        verb: Verb,
        by: String,
        reason: String,
        now: Time,
    ) -> Result<(RolloutId, Vec<Change>), NoControl> {
        let rollout = self.book.find(id)?.spec().id.clone();
        let changes = self.book.ask(&rollout, verb, by, reason, now)?;
        Ok((rollout, changes))
    }

    /// The new epoch counts from the next reign on: this one ends once it is written.
    fn recover(&mut self, by: &str, reason: &str, reply: oneshot::Sender<Recovered>, round: &mut Round) {
        let (reported, unasked) = self.book.fleet().epochs();
        let epoch_before = self.identity.epoch;
        let largest = reported.map_or(epoch_before, |reported| reported.max(epoch_before));
        let epoch = runtime::unix_seconds().max(largest.saturating_add(1));
        tracing::warn!(
            by,
            reason,
            epoch_before,
            epoch,
            "the store becomes the newest one"
        );
        round
            .groups
            .push(Group::of(store::renewal(self.identity.store, epoch)));
        let recovered = Recovered {
            epoch_before,
            epoch,
            unasked,
        };
        round.answers.push(Answer::Recovered(reply, recovered));
        round.ends = true;
    }

    fn drain(
        &mut self,
        agent: &AgentId,
        drain: Drain,
        reply: oneshot::Sender<Result<Drained, drain::Unknown>>,
        round: &mut Round,
    ) {
        match self.book.drain(agent, drain) {
            Ok((outcome, changes)) => {
                // It is drained now, whether by this request or an earlier one.
                let Some(drain) = self.book.fleet().drains().get(agent).cloned() else {
                    return;
                };
                tracing::info!(%agent, by = drain.by, reason = drain.reason, ?outcome, "drained");
                round.changes.extend(changes);
                let running = self.book.running(agent);
                let drained = Drained {
                    drain,
                    outcome,
                    running,
                };
                round.answers.push(Answer::Drained(reply, drained));
            }
            // Whoever asked may have gone.
            Err(unknown) => drop(reply.send(Err(unknown))),
        }
    }

    fn undrain(
        &mut self,
        agent: &AgentId,
        by: &str,
        reason: &str,
        reply: oneshot::Sender<Result<drain::Outcome, drain::Unknown>>,
        round: &mut Round,
    ) {
        match self.book.undrain(agent) {
            Ok((outcome, changes)) => {
                tracing::info!(%agent, by, reason, ?outcome, "undrained");
                round.changes.extend(changes);
                round.answers.push(Answer::Undrained(reply, outcome));
            }
            // Whoever asked may have gone.
            Err(unknown) => drop(reply.send(Err(unknown))),
        }
    }

    fn forget_database(
        &mut self,
        database: &DatabaseName,
        forgotten: Forgotten,
        reply: oneshot::Sender<Result<Forgot, forget::Error>>,
        round: &mut Round,
    ) {
        match self.book.forget_database(database, forgotten) {
            Ok((outcome, changes)) => {
                // It is forgotten now, whether by this request or an earlier one.
                let Some(forgotten) = self.book.fleet().forgotten().get(database).cloned() else {
                    return;
                };
                tracing::info!(%database, by = forgotten.by, reason = forgotten.reason, ?outcome, "forgotten");
                round.changes.extend(changes);
                round
                    .answers
                    .push(Answer::Forgot(reply, Forgot { forgotten, outcome }));
            }
            // Whoever asked may have gone.
            Err(error) => drop(reply.send(Err(error))),
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
        if let Some(note) = release::note(&hello.version, release::OURS) {
            tracing::warn!(agent = %hello.agent, "{note}");
        }
        tracing::info!(agent = %hello.agent, version = hello.version, databases = hello.databases.len(), held = hello.held.len(), "connected");
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
            version: release::OURS.to_owned(),
        };
        round.answers.push(Answer::Welcome(hello.agent, welcome));
        round
            .answers
            .push(Answer::Attached(reply, Attached::Taken { earlier }));
    }

    fn said(&mut self, agent: AgentId, message: FromAgent, now: Time, round: &mut Round) {
        if let FromAgent::Finished { of, finish } = &message {
            let (outcome, why, spent) = match finish {
                Finish::Done(spent) => ("done", None, spent),
                Finish::Failed(failure, spent) => ("failed", Some(&failure.message), spent),
                Finish::Replaced { by, spent, .. } => ("replaced", Some(by), spent),
                Finish::Stopped(spent) => ("stopped", None, spent),
            };
            tracing::info!(
                %agent, rollout = %of.rollout, database = %of.database, token = of.token, outcome, why,
                migrations = spent.migrations, steps = spent.steps, rows = spent.rows, retries = spent.cost.retries,
                "finished"
            );
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
        match found::found(&self.book, wish, now, random) {
            Ok(finding) => {
                let (id, by) = self.founded(finding, round);
                round.answers.push(Answer::Founded(id, by, reply));
            }
            // Whoever asked may have gone.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    /// Aborts a rollout, and founds the one that takes it back.
    fn undo(
        &mut self,
        id: &str,
        wish: undo::Wish,
        now: Time,
        round: &mut Round,
    ) -> Result<(RolloutId, FoundedBy), Refusal> {
        let undone = self.book.find(id)?.spec().id.clone();
        let (by, reason) = (wish.by.clone(), wish.reason.clone());
        let finding = found::undo(&self.book, &undone, wish, now, random)?;
        // Also where its undo is under way: the abort may not have been written with that. What has ended stays so.
        if let Ok(changes) = (self.book).ask(&undone, Verb::Abort, by.clone(), reason.clone(), now) {
            round.changes.extend(changes);
        }
        let is_new = finding.by() == FoundedBy::This;
        let (id, founded) = self.founded(finding, round);
        let verb = Verb::Undo { rollout: id.clone() };
        if is_new && let Ok(changes) = self.book.ask(&undone, verb, by, reason, now) {
            round.changes.extend(changes);
        }
        Ok((id, founded))
    }

    fn founded(&mut self, finding: Finding, round: &mut Round) -> (RolloutId, FoundedBy) {
        let by = finding.by();
        let id = match finding {
            Finding::Known(id) => id,
            Finding::New(spec) => {
                let id = spec.id.clone();
                tracing::info!(
                    rollout = %id, set = %spec.set, databases = spec.size(), waves = spec.waves.len(),
                    selector = %spec.selector, undoes = spec.undoes().map(RolloutId::as_str), by = spec.created_by,
                    "founded"
                );
                round.groups.extend(pack::founding(&spec, &Course::new()));
                self.book.found(*spec);
                id
            }
        };
        (id, by)
    }
}

/// Bits for an id.
fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}
