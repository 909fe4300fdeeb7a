//! The book as people and programs read it.

use super::assignment::{Assignment, Work};
use super::book::Book;
use super::course::NextWave;
use super::fleet::{Claim, Place};
use super::machine::Rollout;
use super::phase::{Pause, Phase, Why};
use super::release;
use super::tally::Counts;
use super::time::Time;
use super::view;
use super::waves::Wave;
use super::work::Summary;
use crate::id::{AgentId, DatabaseName, RolloutId};

/// Why an id or the beginning of one names no rollout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None has it.
    #[error("there is no rollout `{0}`: `confiture rollout list` shows all")]
    Unknown(String),
    /// Several begin with it.
    #[error("`{given}` is the beginning of several rollouts: {}", names(.candidates))]
    Ambiguous {
        /// What was given.
        given: String,
        /// Those that begin with it.
        candidates: Vec<RolloutId>,
    },
}

fn names(ids: &[RolloutId]) -> String {
    ids.iter().map(RolloutId::as_str).collect::<Vec<_>>().join(", ")
}

/// How many names a summary lists before it only counts.
const NAMED: usize = 5;

impl Book {
    /// The rollout with this id, or the only one whose id begins so.
    pub fn find(&self, given: &str) -> Result<&Rollout, Error> {
        let unknown = || Error::Unknown(given.to_owned());
        if given.is_empty() {
            return Err(unknown());
        }
        if let Some((_, exact)) = self.rollouts().iter().find(|(id, _)| id.as_str() == given) {
            return Ok(exact);
        }
        let candidates: Vec<_> = self
            .rollouts()
            .iter()
            .filter(|(id, _)| id.as_str().starts_with(given))
            .collect();
        match candidates.as_slice() {
            [] => Err(unknown()),
            [(_, only)] => Ok(only),
            several => {
                let candidates = several.iter().map(|(id, _)| (*id).clone()).collect();
                Err(Error::Ambiguous {
                    given: given.to_owned(),
                    candidates,
                })
            }
        }
    }

    /// All databases of a rollout.
    pub fn show_assignments(&self, rollout: &Rollout, now: Time) -> Vec<view::Assignment> {
        let board = self.board(now);
        let show = |(database, assignment): (&DatabaseName, &Assignment)| {
            let mut shown = show_assignment(database, assignment);
            shown.wave = rollout
                .wave_of(database)
                .map(|wave| wave.name.clone())
                .unwrap_or_default();
            if let Some(by) = board.blocked(rollout, database) {
                shown.blocked = by.to_string();
            }
            if let Some(work) = assignment.work() {
                shown.progress = self.progress(&rollout.spec().id, database).cloned();
                shown.progress_unknown = self.is_from_afar() && shown.progress.is_none();
                shown.agent_gone_since = self.gone_since(&work.agent);
            }
            shown
        };
        rollout.assignments().iter().map(show).collect()
    }

    /// All rollouts, newest first.
    pub fn show_rollouts(&self, now: Time) -> Vec<view::Rollout> {
        let mut rollouts: Vec<_> = self.rollouts().values().collect();
        rollouts.sort_by_key(|rollout| std::cmp::Reverse(rollout.spec().number));
        rollouts
            .into_iter()
            .map(|rollout| show_rollout(rollout, now))
            .collect()
    }

    /// All databases of the fleet.
    pub fn show_databases(&self) -> Vec<view::Database> {
        let fleet = self.fleet();
        let show = |name: &DatabaseName| view::Database {
            name: name.clone(),
            labels: fleet
                .databases()
                .get(name)
                .map(super::fleet::Database::labels)
                .unwrap_or_default(),
            agents: self.serving(name).map(|(agent, _)| agent.clone()).collect(),
            identity: fleet.claims(name).find_map(|(_, claim)| claim.identity()),
            rollout: self.at_work(name).map(|rollout| rollout.spec().id.clone()),
            problem: self.problem(name),
        };
        fleet.databases().keys().map(show).collect()
    }

    /// All agents: connected, drained, or known from the databases they served.
    pub fn show_agents(&self) -> Vec<view::Agent> {
        let fleet = self.fleet();
        let show = |id: &AgentId| {
            let agent = fleet.agents().get(id);
            let serves = fleet
                .databases()
                .iter()
                .filter(|(_, database)| database.claims.contains_key(id));
            view::Agent {
                id: id.clone(),
                version: agent.map(|agent| agent.version.clone()).unwrap_or_default(),
                connected_at: agent
                    .filter(|_| self.links().contains_key(id))
                    .map(|agent| agent.connected_at),
                databases: serves.map(|(name, _)| name.clone()).collect(),
                running: self.running(id),
                drain: fleet.drains().get(id).cloned(),
                note: agent
                    .and_then(|agent| release::note(&agent.version, release::OURS))
                    .unwrap_or_default(),
            }
        };
        fleet.known_agents().into_iter().map(show).collect()
    }

    /// What an agent works on.
    pub fn running(&self, agent: &AgentId) -> Vec<DatabaseName> {
        self.work_of(agent)
            .map(|(database, _)| database.clone())
            .collect()
    }

    /// Agents that are connected and serve a database, with what they say about it.
    pub(super) fn serving<'a>(
        &'a self,
        database: &DatabaseName,
    ) -> impl Iterator<Item = (&'a AgentId, &'a Claim)> {
        self.fleet()
            .claims(database)
            .filter(|(agent, _)| self.links().contains_key(*agent))
    }

    fn at_work(&self, database: &DatabaseName) -> Option<&Rollout> {
        let works = |rollout: &&Rollout| {
            rollout
                .assignments()
                .get(database)
                .is_some_and(|a| a.work().is_some())
        };
        self.live().into_iter().find(works)
    }

    fn work_of<'a>(&'a self, agent: &'a AgentId) -> impl Iterator<Item = (&'a DatabaseName, &'a Work)> {
        let assignments = self.live().into_iter().flat_map(Rollout::assignments);
        let work = assignments.filter_map(|(database, assignment)| Some((database, assignment.work()?)));
        work.filter(move |(_, work)| work.agent == *agent)
    }

    /// Why a database cannot be worked on; empty when it can.
    fn problem(&self, database: &DatabaseName) -> String {
        if let Some(conflict) = self.fleet().conflict(database) {
            return conflict.to_string();
        }
        let places: Vec<_> = self
            .serving(database)
            .map(|(agent, claim)| (agent, &claim.place))
            .collect();
        if places.is_empty() {
            return "no agent that serves it is connected: start one, or forget a database that is gone with `confiture fleet forget`"
                .to_owned();
        }
        let unreachable = places.iter().map(|(agent, place)| match place {
            Place::Unreachable { problem, .. } => Some(format!("agent {agent}: {problem}")),
            Place::Unasked | Place::Known(_) => None,
        });
        // One agent that reaches it is enough.
        unreachable
            .collect::<Option<Vec<_>>>()
            .map(|problems| problems.join("; "))
            .unwrap_or_default()
    }
}

/// One rollout.
pub fn show_rollout(rollout: &Rollout, now: Time) -> view::Rollout {
    let spec = rollout.spec();
    let (state, ended_at) = match rollout.phase() {
        Phase::Running => (view::State::Running, None),
        Phase::Paused { .. } => (view::State::Paused, None),
        Phase::Aborting { .. } => (view::State::Aborting, None),
        Phase::Done { at } => (view::State::Done, Some(*at)),
        Phase::Failed { at, .. } => (view::State::Failed, Some(*at)),
        Phase::Aborted { at, .. } => (view::State::Aborted, Some(*at)),
    };
    view::Rollout {
        id: spec.id.clone(),
        set: spec.set.clone(),
        bundle: spec.bundle,
        versions: spec.versions.clone(),
        undoes: spec.undoes().cloned(),
        selector: spec.selector.clone(),
        policy: spec.policy.clone(),
        created_by: spec.created_by.clone(),
        created_reason: spec.reason.clone(),
        created_at: spec.created_at,
        ended_at,
        state,
        reason: reason(rollout),
        halted: matches!(
            rollout.phase(),
            Phase::Paused {
                pause: Pause::Budget { .. } | Pause::Check { .. }
            }
        ),
        databases: counts(rollout.counts()),
        waves: waves(rollout, now),
        actions: rollout.actions().to_vec(),
    }
}

fn waves(rollout: &Rollout, now: Time) -> Vec<view::Wave> {
    let current = rollout.course().wave;
    let show = |(place, wave): (usize, &Wave)| view::Wave {
        name: wave.name.clone(),
        begun: place <= current,
        approval: match (wave.approval, rollout.course().approved.contains(&place)) {
            (false, _) => view::Approval::NotNeeded,
            (true, false) => view::Approval::Awaited,
            (true, true) => view::Approval::Given,
        },
        // The wave after the last one that has begun is the one that waits for something.
        blocked: match (rollout.next_wave(now), rollout.phase()) {
            (Some(NextWave::Checking { wave }), Phase::Paused { pause }) if place == current + 1 => {
                match pause {
                    Pause::Check { .. } => format!("a check of wave {wave} did not pass"),
                    Pause::Asked { .. } | Pause::Budget { .. } => {
                        format!("the checks of wave {wave} are asked once the rollout goes on")
                    }
                }
            }
            (Some(wait), _) if place == current + 1 && !rollout.phase().is_ended() => wait.to_string(),
            _ => String::new(),
        },
        databases: counts(rollout.counts_of(place)),
    };
    rollout.spec().waves.iter().enumerate().map(show).collect()
}

/// Why a rollout does not go on, or failed.
fn reason(rollout: &Rollout) -> String {
    let why: Option<&Why> = match rollout.phase() {
        Phase::Running | Phase::Done { .. } => return String::new(),
        Phase::Paused { pause } => return pause.to_string(),
        Phase::Aborting { why } | Phase::Aborted { why, .. } => Some(why),
        Phase::Failed { why, .. } => why.as_ref(),
    };
    let mut parts: Vec<_> = why.map(ToString::to_string).into_iter().collect();
    let failed = rollout
        .assignments()
        .iter()
        .filter(|(_, a)| matches!(a, Assignment::Failed { .. }));
    let failed: Vec<_> = failed.map(|(database, _)| database.as_str()).collect();
    if !failed.is_empty() {
        let more = if failed.len() > NAMED { ", .." } else { "" };
        let named = failed[..failed.len().min(NAMED)].join(", ");
        parts.push(format!(
            "{} of {} databases failed: {named}{more}",
            failed.len(),
            rollout.assignments().len()
        ));
    }
    parts.join("; ")
}

fn counts(of: &Counts) -> view::Counts {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    view::Counts {
        total: number(of.total()),
        waiting: number(of.waiting),
        running: number(of.in_flight),
        done: number(of.done),
        failed: number(of.failed + of.forgiven),
        skipped: number(of.skipped),
        aborted: number(of.aborted),
    }
}

/// What nothing more is known of.
fn blank(database: &DatabaseName, state: view::AssignmentState) -> view::Assignment {
    view::Assignment {
        database: database.clone(),
        wave: String::new(),
        state,
        agent: None,
        attempt: 0,
        blocked: String::new(),
        error: String::new(),
        interrupted: String::new(),
        progress: None,
        progress_unknown: false,
        agent_gone_since: None,
        started_at: None,
        ended_at: None,
        summary: Summary::default(),
        token: None,
    }
}

fn show_assignment(database: &DatabaseName, assignment: &Assignment) -> view::Assignment {
    let at_work = |work: &Work, token| view::Assignment {
        agent: Some(work.agent.clone()),
        attempt: work.attempt(),
        started_at: Some(work.started_at),
        token,
        ..blank(database, view::AssignmentState::Running)
    };
    let shown = match assignment {
        Assignment::Waiting { failures, last, .. } => view::Assignment {
            agent: last.as_ref().map(|setback| setback.agent().clone()),
            attempt: *failures,
            ..blank(database, view::AssignmentState::Waiting)
        },
        Assignment::Leasing(work) => at_work(work, None),
        Assignment::Running { work, token } => at_work(work, Some(*token)),
        Assignment::Done {
            agent,
            attempt,
            started_at,
            ended_at,
            summary: _,
        } => view::Assignment {
            agent: Some(agent.clone()),
            attempt: *attempt,
            started_at: *started_at,
            ended_at: Some(*ended_at),
            ..blank(database, view::AssignmentState::Done)
        },
        Assignment::Failed {
            agent,
            attempt,
            started_at,
            ended_at,
            failure,
            forgiven: _,
            spent: _,
        } => view::Assignment {
            agent: Some(agent.clone()),
            attempt: *attempt,
            error: failure.message.clone(),
            started_at: *started_at,
            ended_at: Some(*ended_at),
            ..blank(database, view::AssignmentState::Failed)
        },
        Assignment::Skipped {
            skip,
            agent,
            attempt,
            ended_at,
            last: _,
            spent: _,
        } => view::Assignment {
            agent: agent.clone(),
            attempt: *attempt,
            blocked: skip.to_string(),
            ended_at: Some(*ended_at),
            ..blank(database, view::AssignmentState::Skipped)
        },
        Assignment::Aborted {
            agent,
            attempt,
            started_at,
            ended_at,
            last: _,
            spent: _,
        } => view::Assignment {
            agent: agent.clone(),
            attempt: *attempt,
            started_at: *started_at,
            ended_at: Some(*ended_at),
            ..blank(database, view::AssignmentState::Aborted)
        },
    };
    let mut shown = view::Assignment {
        summary: assignment.spent(),
        ..shown
    };
    if let Some(last) = assignment.last() {
        match last.error() {
            Some(failure) => shown.error.clone_from(&failure.message),
            None => shown.interrupted = last.to_string(),
        }
        if assignment.work().is_none() {
            shown.progress = last.reached().cloned();
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Policy, sample};

    #[test]
    fn an_id_may_be_given_by_its_beginning_if_only_one_begins_so() {
        let mut book = Book::default();
        for id in ["abc", "abd", "ab"] {
            let rollout = sample::rollout(u64::from(id.as_bytes()[id.len() - 1]), &["x"], Policy::default());
            book.found(crate::rollout::Spec {
                id: RolloutId::try_from(id).unwrap(),
                ..rollout.spec().clone()
            });
        }
        assert_eq!(book.find("abd").unwrap().spec().id.as_str(), "abd");
        assert_eq!(
            book.find("ab").unwrap().spec().id.as_str(),
            "ab",
            "an exact id wins"
        );
        assert!(matches!(book.find("a"), Err(Error::Ambiguous { candidates, .. }) if candidates.len() == 3));
        assert!(matches!(book.find("x"), Err(Error::Unknown(_))));
        assert!(matches!(book.find(""), Err(Error::Unknown(_))));
    }

    #[test]
    fn a_failed_rollout_says_where() {
        let mut rollout = sample::rollout(1, &["a", "b"], Policy::default());
        rollout.apply(sample::look_failed("a"), Time(1)).unwrap();
        rollout.apply(sample::up_to_date("b"), Time(1)).unwrap();
        rollout.apply(crate::rollout::Event::Ended, Time(2)).unwrap();
        let shown = show_rollout(&rollout, Time(2));
        assert_eq!(shown.state, view::State::Failed);
        assert_eq!(shown.reason, "1 of 2 databases failed: a");
        assert_eq!((shown.databases.done, shown.databases.failed), (1, 1));
    }
}
