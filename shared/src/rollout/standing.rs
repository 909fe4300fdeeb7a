//! How the fleet and its rollouts stand, in numbers: what the coordinator's metrics show of a [`Book`].

use super::assignment::Assignment;
use super::book::Book;
use super::course::NextWave;
use super::fleet::Place;
use super::gate::Blocked;
use super::machine::Rollout;
use super::phase::Phase;
use super::tally::Counts;
use super::time::Time;
use crate::id::{AgentId, RolloutId};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Agents that are connected and take work.
    pub connected: u64,
    /// Agents that are connected and drained.
    pub draining: u64,
    /// Agents that served databases which nobody serves now, and went without a goodbye; those that said goodbye to an
    /// earlier leader are among them.
    pub missing: u64,
    /// Databases that a connected agent reaches.
    pub reachable: u64,
    /// The others.
    pub unreachable: u64,
    /// Rollouts that have not ended, in order of their numbers.
    pub rollouts: Vec<Course>,
}

/// A rollout that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Which.
    pub id: RolloutId,
    /// `running`, `paused` or `aborting`.
    pub state: &'static str,
    /// Its databases.
    pub counts: Counts,
    /// The wave at work, from 1.
    pub wave: usize,
    /// All waves.
    pub waves: usize,
    /// How many databases wait for what, in [`Blocked::word`]'s words, and in [`NextWave::word`]'s where waves have not begun.
    pub blocked: BTreeMap<&'static str, u64>,
    /// When one of its databases was last seen to get anywhere.
    pub moved: Time,
}

impl Book {
    /// How everything stands at `now`.
    pub fn standing(&self, now: Time) -> Standing {
        let mut standing = Standing::default();
        let fleet = self.fleet();
        // One that was replaced by another for all of its databases is no loss, nor one that has said goodbye.
        let lost: BTreeSet<&AgentId> = (fleet.databases().iter())
            .filter(|(name, _)| self.serving(name).next().is_none())
            .flat_map(|(_, database)| database.claims.keys())
            .filter(|agent| !self.has_left(agent))
            .collect();
        for agent in fleet.known_agents() {
            let counted = match (
                self.links().contains_key(agent),
                fleet.drains().contains_key(agent),
            ) {
                (true, false) => &mut standing.connected,
                (true, true) => &mut standing.draining,
                (false, _) if lost.contains(agent) => &mut standing.missing,
                (false, _) => continue,
            };
            *counted += 1;
        }
        for name in fleet.databases().keys() {
            let reaches = self
                .serving(name)
                .any(|(_, claim)| matches!(claim.place, Place::Known(_)));
            if reaches && fleet.conflict(name).is_none() {
                standing.reachable += 1;
            } else {
                standing.unreachable += 1;
            }
        }
        let board = self.board(now);
        standing.rollouts = self
            .live()
            .into_iter()
            .map(|rollout| {
                let mut blocked = BTreeMap::new();
                let next = rollout.next_wave(now);
                for (database, assignment) in rollout.assignments() {
                    if let Assignment::Waiting { .. } = assignment
                        && let Some(by) = board.blocked(rollout, database)
                    {
                        let word = match &by {
                            // All that have not begun wait for what the next wave waits for.
                            Blocked::Wave(_) => next.as_ref().map_or(by.word(), NextWave::word),
                            by => by.word(),
                        };
                        *blocked.entry(word).or_default() += 1;
                    }
                }
                Course {
                    id: rollout.spec().id.clone(),
                    state: state(rollout),
                    counts: *rollout.counts(),
                    wave: (rollout.course().wave + 1).min(rollout.spec().waves.len()),
                    waves: rollout.spec().waves.len(),
                    blocked,
                    moved: self.moved(rollout),
                }
            })
            .collect();
        standing
    }
}

fn state(rollout: &Rollout) -> &'static str {
    match rollout.phase() {
        Phase::Running => "running",
        Phase::Paused { .. } => "paused",
        Phase::Aborting { .. } => "aborting",
        Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. } => "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Instance;
    use crate::rollout::message::{FromAgent, Hello};
    use crate::rollout::sample::{agent, database};
    use uuid::Uuid;

    #[test]
    fn an_empty_fleet_has_nothing_to_show() {
        assert_eq!(Book::default().standing(Time(0)), Standing::default());
    }

    #[test]
    fn agents_that_went_without_a_goodbye_are_missing() {
        let hello = Hello {
            agent: agent("x"),
            instance: Instance(Uuid::nil()),
            version: "1".to_owned(),
            databases: BTreeMap::from([(database("a"), BTreeMap::new())]),
            lease: None,
            held: Vec::new(),
        };
        let numbers = |book: &Book| {
            let standing = book.standing(Time(0));
            (standing.connected, standing.missing)
        };
        let mut book = Book::default();
        book.attach(&hello, 1, Time(0));
        assert_eq!(numbers(&book), (1, 0));
        book.detach(&agent("x"), Time(0));
        assert_eq!(numbers(&book), (0, 1));
        book.attach(&hello, 2, Time(0));
        book.hear(&agent("x"), FromAgent::Leaving, Time(0));
        book.detach(&agent("x"), Time(0));
        assert_eq!(numbers(&book), (0, 0));
        // Whoever comes back may be lost again.
        book.attach(&hello, 3, Time(0));
        book.detach(&agent("x"), Time(0));
        assert_eq!(numbers(&book), (0, 1));
    }
}
