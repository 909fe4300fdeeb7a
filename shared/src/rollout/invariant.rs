//! What must always hold of all rollouts together, numbered. Used by unit tests, the simulation and the coordinator
//! (which logs and counts a violation, and goes on: the fence in the databases is what keeps them safe).

use super::assignment::{Assignment, Work};
use super::machine::Rollout;
use super::phase::Phase;
use crate::id::DatabaseName;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// 1: a database is leased at most once over all rollouts.
    LeasedOnce,
    /// 2: a rollout has never more databases at work than its policy allows.
    WithinLimit,
    /// 3: an ended rollout has nothing waiting and nothing at work.
    EndedIsOver,
    /// 4: no database has more attempts that count than its policy allows.
    AttemptsBounded,
    /// 5: a rollout works on a database only when every earlier live one is done with it, or leaves it out.
    TurnsTaken,
    /// 6: a rollout is done only when every database is done or left out, and failed only when at least one failed.
    EndIsTrue,
    /// 7: nothing is done with a database whose wave has not begun.
    WavesInOrder,
    /// 8: a rollout whose failure budget is spent does not go on while databases wait.
    BudgetKept,
    /// 9: a rollout has never more databases at work on one server than its policy allows.
    WithinServerLimit,
    /// 10: what is counted as it changes is what counting gives.
    CountsTrue,
    /// 11: nothing is taken back while the rollout that did it lives.
    UndoneIsOver,
}

/// All of them.
pub const ALL: [Invariant; 11] = [
    Invariant::LeasedOnce,
    Invariant::WithinLimit,
    Invariant::EndedIsOver,
    Invariant::AttemptsBounded,
    Invariant::TurnsTaken,
    Invariant::EndIsTrue,
    Invariant::WavesInOrder,
    Invariant::BudgetKept,
    Invariant::WithinServerLimit,
    Invariant::CountsTrue,
    Invariant::UndoneIsOver,
];

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Where.
    pub detail: String,
}

impl Invariant {
    /// Its number, as in the docs, the log and the counter.
    pub fn number(self) -> u8 {
        match self {
            Self::LeasedOnce => 1,
            Self::WithinLimit => 2,
            Self::EndedIsOver => 3,
            Self::AttemptsBounded => 4,
            Self::TurnsTaken => 5,
            Self::EndIsTrue => 6,
            Self::WavesInOrder => 7,
            Self::BudgetKept => 8,
            Self::WithinServerLimit => 9,
            Self::CountsTrue => 10,
            Self::UndoneIsOver => 11,
        }
    }

    /// Where it does not hold. `rollouts` are all, in order of their numbers.
    pub fn broken(self, rollouts: &[&Rollout]) -> Vec<String> {
        match self {
            Self::LeasedOnce => leased_twice(rollouts),
            Self::WithinLimit => beyond_limit(rollouts),
            Self::EndedIsOver => ended_not_over(rollouts),
            Self::AttemptsBounded => too_many_attempts(rollouts),
            Self::TurnsTaken => out_of_turn(rollouts),
            Self::EndIsTrue => untrue_end(rollouts),
            Self::WavesInOrder => before_its_wave(rollouts),
            Self::BudgetKept => beyond_budget(rollouts),
            Self::WithinServerLimit => beyond_server_limit(rollouts),
            Self::CountsTrue => miscounted(rollouts),
            Self::UndoneIsOver => undone_too_early(rollouts),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invariant {} is broken: {}",
            self.invariant.number(),
            self.detail
        )
    }
}

/// All that does not hold. `rollouts` are all, in order of their numbers.
pub fn violations(rollouts: &[&Rollout]) -> Vec<Violation> {
    let broken = |invariant: Invariant| {
        invariant
            .broken(rollouts)
            .into_iter()
            .map(move |detail| Violation { invariant, detail })
    };
    ALL.into_iter().flat_map(broken).collect()
}

fn leased_twice(rollouts: &[&Rollout]) -> Vec<String> {
    let mut leased: BTreeMap<&DatabaseName, &Rollout> = BTreeMap::new();
    let mut broken = Vec::new();
    for rollout in rollouts {
        for (database, _) in rollout.assignments().iter().filter(|(_, a)| a.work().is_some()) {
            if let Some(other) = leased.insert(database, rollout) {
                broken.push(format!(
                    "{database} by {} and {}",
                    other.spec().id,
                    rollout.spec().id
                ));
            }
        }
    }
    broken
}

fn beyond_limit(rollouts: &[&Rollout]) -> Vec<String> {
    let limit =
        |rollout: &Rollout| usize::try_from(rollout.spec().policy.max_in_flight).unwrap_or(usize::MAX);
    rollouts
        .iter()
        .map(|rollout| (rollout, at_work(rollout).count()))
        .filter(|(rollout, count)| *count > limit(rollout))
        .map(|(rollout, count)| format!("rollout {} has {count} at work", rollout.spec().id))
        .collect()
}

fn ended_not_over(rollouts: &[&Rollout]) -> Vec<String> {
    let ended = rollouts.iter().filter(|rollout| rollout.phase().is_ended());
    ended
        .flat_map(|rollout| {
            rollout
                .assignments()
                .iter()
                .filter(|(_, assignment)| !assignment.is_over())
                .map(|(database, assignment)| {
                    format!(
                        "rollout {} has ended, but {database} is {}",
                        rollout.spec().id,
                        assignment.word()
                    )
                })
        })
        .collect()
}

fn undone_too_early(rollouts: &[&Rollout]) -> Vec<String> {
    let live: BTreeSet<_> = (rollouts.iter())
        .filter(|rollout| !rollout.phase().is_ended())
        .map(|rollout| &rollout.spec().id)
        .collect();
    (rollouts.iter())
        .filter(|undo| undo.in_flight() > 0)
        .filter_map(|undo| Some((undo, undo.spec().undoes().filter(|of| live.contains(of))?)))
        .map(|(undo, of)| format!("rollout {} is at work, and {of} has not ended", undo.spec().id))
        .collect()
}

fn too_many_attempts(rollouts: &[&Rollout]) -> Vec<String> {
    let mut broken = Vec::new();
    for rollout in rollouts {
        let most = rollout.spec().policy.max_attempts;
        for (database, assignment) in rollout.assignments() {
            let attempts = match assignment {
                // There must be one left, else it would have failed.
                Assignment::Waiting { failures, .. } => failures.saturating_add(1),
                Assignment::Leasing(work) | Assignment::Running { work, .. } => work.attempt(),
                Assignment::Done { attempt, .. }
                | Assignment::Failed { attempt, .. }
                | Assignment::Skipped { attempt, .. }
                | Assignment::Aborted { attempt, .. } => *attempt,
            };
            if attempts > most {
                broken.push(format!(
                    "rollout {}, {database}: attempt {attempts} of {most}",
                    rollout.spec().id
                ));
            }
        }
    }
    broken
}

fn out_of_turn(rollouts: &[&Rollout]) -> Vec<String> {
    let live: Vec<_> = rollouts
        .iter()
        .filter(|rollout| !rollout.phase().is_ended())
        .collect();
    let mut broken = Vec::new();
    for (place, rollout) in live.iter().enumerate() {
        let at_work = rollout.assignments().iter().filter(|(_, a)| a.work().is_some());
        for (database, _) in at_work {
            let mut earlier = live[..place].iter();
            if let Some(first) = earlier.find(|earlier| earlier.keeps_turn_of(database)) {
                broken.push(format!(
                    "{database} by {}, before {}",
                    rollout.spec().id,
                    first.spec().id
                ));
            }
        }
    }
    broken
}

fn untrue_end(rollouts: &[&Rollout]) -> Vec<String> {
    let wrong = |rollout: &&&Rollout| {
        let mut all = rollout.assignments().values();
        match rollout.phase() {
            Phase::Done { .. } => {
                !all.all(|a| matches!(a, Assignment::Done { .. } | Assignment::Skipped { .. }))
            }
            Phase::Failed { .. } => !all.any(|assignment| matches!(assignment, Assignment::Failed { .. })),
            Phase::Running | Phase::Paused { .. } | Phase::Aborting { .. } | Phase::Aborted { .. } => false,
        }
    };
    let told = |rollout: &&Rollout| format!("rollout {} is {}", rollout.spec().id, rollout.phase().word());
    rollouts.iter().filter(wrong).map(told).collect()
}

fn at_work(rollout: &Rollout) -> impl Iterator<Item = &Work> {
    rollout.assignments().values().filter_map(Assignment::work)
}

fn before_its_wave(rollouts: &[&Rollout]) -> Vec<String> {
    let mut broken = Vec::new();
    for rollout in rollouts {
        let spec = rollout.spec();
        for wave in spec.waves.iter().skip(rollout.course().wave + 1) {
            for database in &wave.databases {
                let untouched = match rollout.assignments().get(database) {
                    Some(
                        Assignment::Waiting { failures: 0, .. }
                        | Assignment::Skipped { .. }
                        // Given up before it was begun.
                        | Assignment::Aborted { attempt: 0, .. },
                    )
                    | None => true,
                    Some(_) => false,
                };
                if !untouched {
                    broken.push(format!(
                        "rollout {}, {database}: wave {} has not begun",
                        spec.id, wave.name
                    ));
                }
            }
        }
    }
    broken
}

fn beyond_budget(rollouts: &[&Rollout]) -> Vec<String> {
    let mut broken = Vec::new();
    for rollout in rollouts
        .iter()
        .filter(|rollout| *rollout.phase() == Phase::Running)
    {
        let spec = rollout.spec();
        let all = rollout.assignments();
        let counts =
            |assignment: &Assignment| matches!(assignment, Assignment::Failed { forgiven: false, .. });
        let waits = all.values().any(|a| matches!(a, Assignment::Waiting { .. }));
        let failed = all.values().filter(|assignment| counts(assignment)).count();
        let mut spent = failed >= spec.policy.failure_budget.of(all.len());
        for wave in &spec.waves {
            let failed = wave
                .databases
                .iter()
                .filter_map(|name| all.get(name))
                .filter(|a| counts(a));
            spent |= wave.failure_budget.is_some_and(|budget| failed.count() >= budget);
        }
        if waits && spent {
            broken.push(format!(
                "rollout {} goes on with its failure budget spent",
                spec.id
            ));
        }
    }
    broken
}

fn beyond_server_limit(rollouts: &[&Rollout]) -> Vec<String> {
    let mut broken = Vec::new();
    for rollout in rollouts {
        let limit = usize::try_from(rollout.spec().policy.max_per_server).unwrap_or(usize::MAX);
        let mut servers: BTreeMap<i64, usize> = BTreeMap::new();
        for server in at_work(rollout).filter_map(|work| work.server) {
            *servers.entry(server).or_default() += 1;
        }
        broken.extend(
            servers
                .iter()
                .filter(|(_, count)| **count > limit)
                .map(|(server, count)| {
                    format!(
                        "rollout {} has {count} at work on server {server}",
                        rollout.spec().id
                    )
                }),
        );
    }
    broken
}

fn miscounted(rollouts: &[&Rollout]) -> Vec<String> {
    let wrong = |rollout: &&&Rollout| !rollout.is_counted();
    let told = |rollout: &&Rollout| format!("rollout {} has lost count", rollout.spec().id);
    rollouts.iter().filter(wrong).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::sample;
    use crate::rollout::{Event, Policy, Time};

    fn leased(number: u64, databases: &[&str]) -> Rollout {
        let mut rollout = sample::rollout(
            number,
            &["a", "b", "c"],
            Policy {
                max_in_flight: 2,
                max_attempts: 1,
                ..Policy::default()
            },
        );
        for database in databases {
            rollout.apply(sample::leased(database, "agent"), Time(0)).unwrap();
        }
        rollout
    }

    /// A rollout with parts that `apply` would never put together.
    fn forced(rollout: &Rollout, phase: Phase, policy: Policy) -> Rollout {
        let spec = crate::rollout::Spec {
            policy,
            ..rollout.spec().clone()
        };
        let course = crate::rollout::Course {
            phase,
            ..rollout.course().clone()
        };
        Rollout::restored(spec, course, rollout.assignments().clone(), Vec::new())
    }

    fn numbers(rollouts: &[&Rollout]) -> Vec<u8> {
        violations(rollouts)
            .iter()
            .map(|violation| violation.invariant.number())
            .collect()
    }

    #[test]
    fn what_apply_makes_breaks_none() {
        assert!(numbers(&[&leased(1, &["a", "b"]), &leased(2, &[])]).is_empty());
    }

    #[test]
    fn each_invariant_is_seen_when_broken() {
        let policy = || Policy {
            max_in_flight: 2,
            max_attempts: 1,
            ..Policy::default()
        };
        let (first, second) = (leased(1, &["a", "b"]), leased(2, &["a"]));
        assert_eq!(numbers(&[&first, &second]), [1, 5]);
        let tight = Policy {
            max_in_flight: 1,
            ..policy()
        };
        assert_eq!(numbers(&[&forced(&first, Phase::Running, tight)]), [2]);
        assert_eq!(
            numbers(&[&forced(&first, Phase::Done { at: Time(0) }, policy())]),
            [3, 3, 3, 6]
        );
        let none = Policy {
            max_attempts: 0,
            ..policy()
        };
        assert_eq!(
            numbers(&[&forced(&leased(1, &[]), Phase::Running, none)]),
            [4, 4, 4]
        );
    }

    #[test]
    fn a_failure_alone_makes_no_rollout_fail_before_its_end() {
        let mut rollout = leased(1, &[]);
        rollout.apply(sample::look_failed("a"), Time(0)).unwrap();
        assert_eq!(
            rollout.apply(Event::Ended, Time(0)),
            Err(crate::rollout::event::Error::Unfinished(2))
        );
        assert!(numbers(&[&rollout]).is_empty());
    }
}
