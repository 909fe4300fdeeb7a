//! What must hold after every step and at the end, and what must be seen at all.

use super::World;
use crate::id::{AgentId, DatabaseName, RolloutId};
use crate::rollout::Course;
use crate::rollout::assignment::{Assignment, Setback, Skip};
use crate::rollout::machine::Rollout;
use crate::rollout::phase::{Pause, Phase};
use crate::rollout::policy::Hours;
use std::collections::BTreeMap;
use std::sync::Arc;

/// States and outcomes that some seed must reach.
pub(super) const MUST_BE_SEEN: [&str; 39] = [
    "rollout done",
    "rollout failed",
    "rollout aborted",
    "database done",
    "database done by a look",
    "database failed",
    "database aborted",
    "attempt after an error",
    "lease lost",
    "replaced",
    "stopped",
    "write refused",
    "unknown commit",
    "work given by a later leader",
    "paused by someone",
    "paused by a budget",
    "paused by the budget of a wave",
    "resumed",
    "failures retried",
    "opened again",
    "database skipped",
    "database left out",
    "second wave begun",
    "wave soaked",
    "wave approved",
    "stale leader refused",
    "database undone",
    "database not undone",
    "paused by a check",
    "checks passed",
    "checks ignored",
    "agent drained",
    "agent joined",
    "clock set back",
    "kept to its hours",
    "limit of an agent reached",
    "lease ran out",
    "stopped by its own clock",
    "worked beyond its lease",
];

/// What a rollout shows of [`MUST_BE_SEEN`].
pub(super) fn reached(rollout: &Rollout) -> Vec<&'static str> {
    let phase = match rollout.phase() {
        Phase::Done { .. } => Some("rollout done"),
        Phase::Failed { .. } => Some("rollout failed"),
        Phase::Aborted { .. } => Some("rollout aborted"),
        Phase::Paused {
            pause: Pause::Asked { .. },
        } => Some("paused by someone"),
        Phase::Paused {
            pause: Pause::Budget { wave: None, .. },
        } => Some("paused by a budget"),
        Phase::Paused {
            pause: Pause::Budget { wave: Some(_), .. },
        } => Some("paused by the budget of a wave"),
        Phase::Paused {
            pause: Pause::Check { .. },
        } => Some("paused by a check"),
        Phase::Running | Phase::Aborting { .. } => None,
    };
    let databases = rollout
        .assignments()
        .values()
        .filter_map(|assignment| match assignment {
            Assignment::Waiting {
                last: Some(Setback::LeaseLost { .. }),
                ..
            } => Some("lease lost"),
            Assignment::Waiting {
                last: Some(Setback::Replaced { .. }),
                ..
            } => Some("replaced"),
            Assignment::Waiting {
                last: Some(Setback::Stopped { .. }),
                ..
            } => Some("stopped"),
            Assignment::Waiting { .. } => None,
            Assignment::Leasing(work) | Assignment::Running { work, .. } => {
                (work.attempt() > 1).then_some("attempt after an error")
            }
            Assignment::Done { attempt: 1.., .. } if rollout.spec().undoes().is_some() => {
                Some("database undone")
            }
            Assignment::Done { attempt: 0, .. } => Some("database done by a look"),
            Assignment::Done { .. } => Some("database done"),
            Assignment::Failed { .. } => Some("database failed"),
            Assignment::Skipped {
                skip: Skip::Unreachable,
                ..
            } => Some("database left out"),
            Assignment::Skipped {
                skip: Skip::Declined { .. },
                ..
            } => Some("database not undone"),
            Assignment::Skipped { .. } => Some("database skipped"),
            Assignment::Aborted { .. } => Some("database aborted"),
        });
    phase.into_iter().chain(databases).collect()
}

impl World {
    pub(super) fn check_store(&self) {
        let agrees = self
            .leader
            .as_ref()
            .is_none_or(|book| self.store.agrees_with(book));
        assert!(agrees, "the leader and the store disagree");
    }

    /// All rollouts as the leader sees them.
    pub(super) fn standing(&self) -> BTreeMap<RolloutId, Arc<Rollout>> {
        self.leader
            .as_ref()
            .map(|book| book.rollouts().clone())
            .unwrap_or_default()
    }

    /// What no single state shows: how a round may change it. Nothing is asked by anyone in it.
    pub(super) fn check_transitions(&mut self, before: &BTreeMap<RolloutId, Arc<Rollout>>) {
        for (id, after) in self.standing() {
            let Some(before) = before.get(&id) else { continue };
            let fresh = after.assignments().iter().filter(|(database, assignment)| {
                assignment.work().is_some() && before.assignments()[*database].work().is_none()
            });
            let fresh = fresh.count();
            let goes_on = matches!(before.phase(), Phase::Running);
            assert!(
                fresh == 0 || goes_on,
                "{id} is {} and begins",
                before.phase().word()
            );
            if fresh > 0 {
                self.check_limits(&id, &after);
            }
            self.check_checks(&id, before, &after);
            let Course { wave, .. } = *after.course();
            let Course { wave: had, .. } = *before.course();
            if wave == had {
                continue;
            }
            self.seen.insert("second wave begun");
            let spec = after.spec();
            for database in spec.waves.iter().take(wave).flat_map(|wave| &wave.databases) {
                assert!(
                    after.assignments()[database].is_over(),
                    "{id}: wave {wave} begins before {database} is over"
                );
            }
            for passed in had..wave {
                let soak = spec.waves[passed].soak;
                let over = before.course().over_since.filter(|_| passed == had);
                assert!(
                    soak.is_zero() || over.is_some_and(|over| over.after(soak) <= self.now),
                    "{id}: wave {passed} has not soaked"
                );
                if !soak.is_zero() {
                    self.seen.insert("wave soaked");
                }
                if spec.waves[passed + 1].approval {
                    let approved = after.course().approved.contains(&(passed + 1));
                    assert!(approved, "{id}: nobody approved wave {}", passed + 1);
                    self.seen.insert("wave approved");
                }
            }
        }
    }

    /// Where a rollout has just begun databases: within its hours, and no more than may be at work so early in a wave.
    pub(super) fn check_limits(&mut self, id: &RolloutId, rollout: &Rollout) {
        let policy = &rollout.spec().policy;
        let open = matches!(Hours::at(&policy.windows, self.now), Hours::Open { .. });
        assert!(open, "{id} begins outside of its hours");
        if !policy.windows.is_empty() {
            self.seen.insert("kept to its hours");
        }
        let is_done = |name: &&DatabaseName| matches!(rollout.assignments()[*name], Assignment::Done { .. });
        let wave = rollout.wave().unwrap();
        let room = 1 + wave.databases.iter().filter(is_done).count();
        let at_work = rollout
            .assignments()
            .values()
            .filter(|of| of.work().is_some())
            .count();
        assert!(
            !policy.ramp_up || at_work <= room,
            "{id} ramps up to {at_work}, with room for {room}"
        );
    }

    /// Nobody gets more than may be at work by one agent, and a drained agent gets nothing.
    pub(super) fn check_agents(&mut self, before: &BTreeMap<RolloutId, Arc<Rollout>>) {
        let Some(book) = &self.leader else { return };
        let mut at_work: BTreeMap<&AgentId, usize> = BTreeMap::new();
        // The loosest limit of those that have just given it something: the last of them was within its own.
        let mut limits: BTreeMap<&AgentId, usize> = BTreeMap::new();
        for (id, after) in book.rollouts() {
            let limit = after.spec().policy.max_per_agent;
            let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
            for (database, assignment) in after.assignments() {
                let Some(work) = assignment.work() else { continue };
                *at_work.entry(&work.agent).or_default() += 1;
                let earlier = before
                    .get(id)
                    .and_then(|before| before.assignments()[database].work());
                if earlier.is_some_and(|earlier| earlier.holder == work.holder) || !before.contains_key(id) {
                    continue;
                }
                let drained = book.fleet().drains().contains_key(&work.agent);
                assert!(!drained, "{id}: {} is drained, and begins {database}", work.agent);
                let loosest = limits.entry(&work.agent).or_default();
                *loosest = limit.max(*loosest);
            }
        }
        for (agent, limit) in limits {
            assert!(
                at_work[agent] <= limit,
                "{agent} is at work on {}, of {limit}",
                at_work[agent]
            );
            if at_work[agent] == limit {
                self.seen.insert("limit of an agent reached");
            }
        }
    }

    /// Neither a wave nor an end comes before the checks of the wave before have passed.
    pub(super) fn check_checks(&self, id: &RolloutId, before: &Rollout, after: &Rollout) {
        let went_on = after.course().wave > before.course().wave;
        let ended = matches!(after.phase(), Phase::Done { .. }) && !before.phase().is_ended();
        if !went_on && !ended {
            return;
        }
        let last = after.course().wave - usize::from(!ended);
        for wave in before.course().wave..=last {
            let free = after.spec().waves[wave].checks.is_empty();
            assert!(
                free || self.passed.contains(&(id.clone(), wave)),
                "{id}: the checks of wave {wave} have not passed"
            );
        }
    }

    pub(super) fn check_ends(&self) {
        self.check_store();
        for rollout in self.leader.as_ref().unwrap().rollouts().values() {
            for (database, assignment) in rollout.assignments() {
                if let Assignment::Done { .. } = assignment {
                    let (target, bundle) = (&self.targets[database], rollout.spec().bundle);
                    let undone = target.undone.contains(&bundle);
                    let done = target.applied.contains(&bundle) && rollout.spec().undoes().is_none();
                    assert!(done || undone, "{database} is not done");
                }
            }
        }
        assert!(
            self.store.leases.is_empty(),
            "a lease outlived all rollouts: {:?}",
            self.store.leases
        );
    }
}
