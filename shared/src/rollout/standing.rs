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
    /// Agents that served databases which nobody serves now, and went without a goodbye.
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
            .filter(|agent| !fleet.goodbyes().contains(*agent))
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
    use crate::rollout::book::Change;
    use crate::rollout::drain::{Drain, Running};
    use crate::rollout::fleet::Fleet;
    use crate::rollout::message::{FromAgent, Located};
    use crate::rollout::policy::Policy;
    use crate::rollout::sample::{self, agent, database, hello};
    use crate::rollout::work::Identity;

    #[test]
    fn an_empty_fleet_has_nothing_to_show() {
        assert_eq!(Book::default().standing(Time(0)), Standing::default());
    }

    #[test]
    fn agents_that_went_without_a_goodbye_are_missing() {
        let hello = hello("x", ["a"]);
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

    fn located(name: &str, found: Result<Identity, String>) -> Located {
        Located {
            database: database(name),
            identity: found,
            epoch: None,
        }
    }

    fn there(number: usize) -> Identity {
        Identity {
            system: 7,
            database: u32::try_from(number).unwrap(),
        }
    }

    #[test]
    fn a_goodbye_outlives_the_leader_that_heard_it() {
        let hello = hello("x", ["a"]);
        let mut book = Book::default();
        book.attach(&hello, 1, Time(0));
        let said = book.hear(&agent("x"), FromAgent::Leaving, Time(0)).changes;
        assert_eq!(said, [Change::Goodbye(agent("x"))]);
        // What the next leader reads.
        let stored = book.fleet();
        let fleet = Fleet::restored(BTreeMap::new(), stored.databases().clone())
            .with_goodbyes(stored.goodbyes().clone());
        let mut next = Book::restored([], fleet);
        assert_eq!(next.standing(Time(0)).missing, 0);
        // Who comes back takes it back, once.
        let back = next.attach(&hello, 2, Time(0));
        assert!(back.contains(&Change::Goodbye(agent("x"))), "{back:?}");
        let again = next.attach(&hello, 2, Time(0));
        assert!(!again.contains(&Change::Goodbye(agent("x"))), "{again:?}");
        next.detach(&agent("x"), Time(0));
        assert_eq!(next.standing(Time(0)).missing, 1);
    }

    #[test]
    fn goodbyes_of_agents_that_nobody_knows_any_more_are_forgotten() {
        let mut book = Book::default();
        book.attach(&hello("x", ["a"]), 1, Time(0));
        book.hear(&agent("x"), FromAgent::Leaving, Time(0));
        // Its next life serves nothing, and its lease ends.
        book.attach(&hello("x", []), 2, Time(0));
        book.hear(&agent("x"), FromAgent::Leaving, Time(0));
        book.detach(&agent("x"), Time(0));
        book.attach(&hello("y", ["b"]), 3, Time(0));
        book.leases(&BTreeMap::from([(agent("y"), 3)]));
        let said = book.hear(&agent("y"), FromAgent::Leaving, Time(0)).changes;
        assert_eq!(said, [Change::Goodbye(agent("x")), Change::Goodbye(agent("y"))]);
        assert_eq!(book.fleet().goodbyes(), &BTreeSet::from([agent("y")]));
    }

    #[test]
    fn databases_are_counted_by_whether_a_connected_agent_reaches_them() {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        let mut book = Book::default();
        book.attach(&hello("x", names.iter().map(String::as_str)), 1, Time(0));
        let numbers = |book: &Book| {
            let standing = book.standing(Time(0));
            (standing.reachable, standing.unreachable)
        };
        // Nobody has asked where they are yet.
        assert_eq!(numbers(&book), (0, 4));
        let down = Err("connection refused".to_owned());
        let found = vec![
            located("a", Ok(there(1))),
            located("b", Ok(there(2))),
            located("c", down),
            // The same database under two names is worked on under neither.
            located("d", Ok(there(2))),
        ];
        book.hear(&agent("x"), FromAgent::Inventory(found), Time(0));
        assert_eq!(numbers(&book), (1, 3));
        // Another agent may reach what the first one cannot.
        book.attach(&hello("y", ["c"]), 2, Time(0));
        let found = vec![located("c", Ok(there(3)))];
        book.hear(&agent("y"), FromAgent::Inventory(found), Time(0));
        assert_eq!(numbers(&book), (2, 2));
        book.detach(&agent("x"), Time(0));
        assert_eq!(numbers(&book), (1, 3));
        let agents = book.standing(Time(0));
        assert_eq!((agents.connected, agents.draining, agents.missing), (1, 0, 1));
    }

    #[test]
    fn drained_agents_are_counted_apart() {
        let mut book = Book::default();
        for (name, lease) in [("x", 1), ("y", 2)] {
            book.attach(&hello(name, ["a"]), lease, Time(0));
        }
        let drain = Drain {
            by: "ada".to_owned(),
            reason: String::new(),
            at: Time(0),
            running: Running::Finishes,
        };
        book.drain(&agent("x"), drain).unwrap();
        let agents = book.standing(Time(0));
        assert_eq!((agents.connected, agents.draining, agents.missing), (1, 1, 0));
    }

    #[test]
    fn ten_thousand_databases_are_a_few_numbers() {
        let names: Vec<String> = (0..10_000).map(|n| format!("db{n}")).collect();
        let mut book = Book::default();
        book.attach(&hello("x", names.iter().map(String::as_str)), 1, Time(0));
        let found = names.iter().enumerate();
        let found = found.map(|(n, name)| located(name, Ok(there(n + 1))));
        book.hear(&agent("x"), FromAgent::Inventory(found.collect()), Time(0));
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut spec = sample::spec(1, &all[1..], Policy::default());
        spec.waves.insert(0, sample::wave("canary", &all[..1]));
        book.found(spec);
        let standing = book.standing(Time(9));
        assert_eq!((standing.reachable, standing.unreachable), (10_000, 0));
        let [course] = &standing.rollouts[..] else {
            panic!("one rollout: {standing:?}")
        };
        assert_eq!((course.state, course.wave, course.waves), ("running", 1, 2));
        assert_eq!((course.counts.total(), course.counts.waiting), (10_000, 10_000));
        // The canary may begin, and has no place yet.
        let blocked = BTreeMap::from([("wave", 9_999), ("limit", 1)]);
        assert_eq!(course.blocked, blocked);
        assert_eq!(course.moved, Time(0));
    }
}
