//! People: what they ask of rollouts, and which they found.

use super::World;
use super::random::Random;
use crate::id::{DatabaseName, RolloutId};
use crate::ledger::DataLoss;
use crate::rollout::control::Verb;
use crate::rollout::phase::Phase;
use crate::rollout::policy::{Asks, Budget, Check, Rule, Take, Unreachable};
use crate::rollout::spec::Spec;
use crate::rollout::undo::Wish;
use crate::rollout::{Policy, sample, undo, waves};
use crate::settings::duration::WithUnit;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A wave of any kind.
fn some_rule(
    random: &mut Random,
    place: usize,
    chosen: &BTreeMap<DatabaseName, BTreeMap<String, String>>,
) -> Rule {
    let mut some = |most| u32::try_from(1 + random.below(most)).unwrap();
    let take = match some(4) {
        1 => Take::Count(some(3)),
        2 => Take::Percent(some(60)),
        3 => Take::Databases(
            chosen
                .keys()
                .take(usize::try_from(some(2)).unwrap())
                .cloned()
                .collect(),
        ),
        _ => Take::Labels(BTreeMap::from([("tier".to_owned(), "gold".to_owned())])),
    };
    let budgets = [None, None, Some(Budget::Count(2)), Some(Budget::Percent(50))];
    Rule {
        name: Some(format!("w{place}")),
        take,
        soak: Duration::from_secs(random.next() % 3 * 4),
        approval: random.percent(20),
        failure_budget: budgets[random.below(budgets.len())],
        checks: some_checks(random),
    }
}

/// Some waves have checks.
fn some_checks(random: &mut Random) -> Vec<Check> {
    let check = Check {
        name: "whole".to_owned(),
        asks: Asks::Sql("SELECT true".to_owned()),
    };
    if random.percent(25) {
        vec![check]
    } else {
        Vec::new()
    }
}

impl World {
    /// Someone looks after rollouts that wait for it.
    pub(super) fn settle(&mut self) {
        let Some(book) = &self.leader else { return };
        let mut asks = Vec::new();
        for rollout in book.live() {
            let id = rollout.spec().id.clone();
            let next = rollout.course().wave + 1;
            if let Phase::Paused { .. } = rollout.phase() {
                asks.push((id, Verb::Resume));
            } else if rollout.spec().waves.get(next).is_some_and(|wave| wave.approval) {
                asks.push((id, Verb::Approve { wave: None }));
            }
        }
        let drained: Vec<_> = book.fleet().drains().keys().cloned().collect();
        for (id, verb) in asks {
            self.ask(&id, verb);
        }
        for id in drained {
            if self.leader.is_some() {
                self.drain(&id);
            }
        }
    }

    pub(super) fn ask(&mut self, id: &RolloutId, verb: Verb) {
        let Some(book) = &mut self.leader else { return };
        let ended = book.rollouts()[id].phase().is_ended();
        let wave = book.rollouts()[id].course().wave;
        let ignores = verb == Verb::IgnoreChecks;
        let seen = match &verb {
            Verb::Resume => "resumed",
            Verb::Retry { .. } if ended => "opened again",
            Verb::Retry { .. } => "failures retried",
            Verb::Skip { .. } => "database skipped",
            _ => "asked",
        };
        if let Ok(changes) = book.ask(id, verb, "ada".to_owned(), String::new(), self.now) {
            if !changes.is_empty() {
                self.seen.insert(seen);
            }
            if ignores && book.rollouts()[id].course().checked {
                self.passed.insert((id.clone(), wave));
                self.seen.insert("checks ignored");
            }
            self.commit(changes);
        }
    }

    /// Someone asks something of a rollout.
    pub(super) fn operate(&mut self) {
        let Some(book) = &self.leader else { return };
        let rollouts: Vec<_> = book.rollouts().keys().cloned().collect();
        if rollouts.is_empty() {
            return;
        }
        let id = rollouts[self.random.below(rollouts.len())].clone();
        let databases: Vec<_> = book.rollouts()[&id].assignments().keys().cloned().collect();
        let one = BTreeSet::from([databases[self.random.below(databases.len())].clone()]);
        let verb = match self.random.below(24) {
            0 => Verb::Abort,
            1..=4 => Verb::Pause,
            5..=8 => Verb::Resume,
            9..=14 => Verb::Retry {
                databases: BTreeSet::new(),
            },
            15 | 16 => Verb::Retry { databases: one },
            17 | 18 => Verb::Skip { databases: one },
            19 => Verb::IgnoreChecks,
            20 => Verb::Approve { wave: None },
            _ => Verb::Approve {
                wave: Some(format!("w{}", self.random.below(3))),
            },
        };
        self.ask(&id, verb);
    }

    /// A new rollout over a random part of the fleet.
    pub(super) fn request(&mut self) {
        let Some(book) = &self.leader else { return };
        let number = book.next_number();
        if number > 4 {
            return;
        }
        let chosen: BTreeMap<_, _> = (self.targets.keys().enumerate())
            .filter(|_| self.random.percent(60))
            .map(|(place, name)| {
                let tier = if place % 2 == 0 { "gold" } else { "bronze" };
                (
                    name.clone(),
                    BTreeMap::from([("tier".to_owned(), tier.to_owned())]),
                )
            })
            .collect();
        if chosen.is_empty() {
            return;
        }
        let mut policy = self.policy();
        policy.waves = (0..self.random.below(3))
            .map(|place| some_rule(&mut self.random, place, &chosen))
            .collect();
        policy.checks = some_checks(&mut self.random);
        // A rule that takes nothing is refused.
        let Ok(waves) = waves::plan(&policy, &chosen, &self.random.next().to_string()) else {
            return;
        };
        let spec = Spec {
            waves,
            ..sample::spec(number, &[], policy)
        };
        self.store.found(spec.clone());
        if let Some(book) = &mut self.leader {
            book.found(spec);
        }
    }

    /// A rollout is taken back.
    pub(super) fn undo(&mut self) {
        let Some(book) = &mut self.leader else { return };
        let rollouts: Vec<_> = book.rollouts().keys().cloned().collect();
        if rollouts.is_empty() || book.next_number() > 7 {
            return;
        }
        let of = rollouts[self.random.below(rollouts.len())].clone();
        if book.undo_under_way(&of).is_some() {
            return;
        }
        let number = book.next_number();
        let wish = Wish {
            request: sample::spec(number, &[], Policy::default()).request,
            data_loss: DataLoss::Refused,
            hours: undo::Hours::Kept,
            by: "ada".to_owned(),
            reason: String::new(),
            trace: None,
        };
        let id = sample::spec(number, &[], Policy::default()).id;
        let Ok(spec) = book.undo(&book.rollouts()[&of], wish, id, self.now) else {
            return;
        };
        let aborted = book.ask(&of, Verb::Abort, "ada".to_owned(), String::new(), self.now);
        if self.commit(aborted.unwrap_or_default()) {
            self.store.found(spec.clone());
            self.leader.as_mut().unwrap().found(spec);
        }
    }

    pub(super) fn policy(&mut self) -> Policy {
        let random = &mut self.random;
        let mut some = |most| u32::try_from(1 + random.below(most)).unwrap();
        let (max_in_flight, max_per_server, budget) = (some(3), some(2), some(3));
        // Closed for one minute in the middle of the run.
        let windows = r#"[
            { "from": "00:16", "to": "00:17", "zone": "UTC" },
            { "from": "00:18", "to": "00:16", "zone": "UTC" }
        ]"#;
        let windows = if random.percent(20) { windows } else { "[]" };
        Policy {
            max_in_flight,
            max_per_server,
            max_per_agent: random.percent(20).then_some(1),
            max_attempts: 3,
            max_retry_delay: WithUnit(Duration::from_secs(4)),
            failure_budget: if random.percent(30) {
                Budget::Percent(20 * budget)
            } else {
                Budget::Count(budget)
            },
            ramp_up: random.percent(20),
            unreachable: if random.percent(30) {
                Unreachable::Skip
            } else {
                Unreachable::Wait
            },
            windows: serde_json::from_str(windows).unwrap(),
            waves: Vec::new(),
            checks: Vec::new(),
            ..Policy::default()
        }
    }
}
