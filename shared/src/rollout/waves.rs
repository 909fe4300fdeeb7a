//! Which databases come first: from the policy's rules and the fleet's databases to waves.

use super::backoff;
use super::policy::{Check, Policy, Rule, Take};
use crate::id::DatabaseName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Its name; no other wave of the rollout has it.
    pub name: String,
    /// Its databases; never empty, and no other wave has them.
    pub databases: BTreeSet<DatabaseName>,
    /// How long everything must have been over before the next wave.
    pub soak: Duration,
    /// Whether someone must approve before it begins.
    pub approval: bool,
    /// So many failed databases of it, and nothing new begins; `None` where only the rollout's own budget counts.
    pub failure_budget: Option<usize>,
    /// What must hold once it is over.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// A rule that takes nothing, though someone meant something by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Most likely misspelt.
    #[error("wave `{wave}` names {}, which the rollout does not have", list(.missing))]
    Missing {
        /// The wave.
        wave: String,
        /// Those that the rollout does not have.
        missing: Vec<DatabaseName>,
    },
    /// Most likely a label or value is misspelt, or earlier waves have them all.
    #[error("wave `{wave}` is empty: no database that earlier waves leave over has the labels {labels}")]
    Empty {
        /// The wave.
        wave: String,
        /// What it asked for, as `label=value`, with commas between.
        labels: String,
    },
}

fn list(names: &[DatabaseName]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// The waves of a rollout over these databases, in their order; together they are all of them. Which databases a count
/// or a share takes is drawn by `seed`: the same seed and fleet always give the same waves, and a database that joins
/// the fleet changes as little as it can.
///
/// # Errors
/// All rules that take nothing though they name something.
pub fn plan(
    policy: &Policy,
    databases: &BTreeMap<DatabaseName, BTreeMap<String, String>>,
    seed: &str,
) -> Result<Vec<Wave>, Vec<Error>> {
    let mut errors = Vec::new();
    let mut left: BTreeSet<&DatabaseName> = databases.keys().collect();
    let mut waves = Vec::new();
    for (place, rule) in policy.waves.iter().enumerate() {
        let name = rule.name_at(place);
        let taken: BTreeSet<DatabaseName> = match &rule.take {
            Take::Count(count) => draw(&left, usize::try_from(*count).unwrap_or(usize::MAX), seed),
            Take::Percent(percent) => draw(&left, super::policy::share(*percent, databases.len()), seed),
            Take::Databases(names) => {
                let missing: Vec<_> = names
                    .iter()
                    .filter(|name| !databases.contains_key(*name))
                    .cloned()
                    .collect();
                if !missing.is_empty() {
                    errors.push(Error::Missing {
                        wave: name.clone(),
                        missing,
                    });
                }
                names.iter().filter(|name| left.contains(name)).cloned().collect()
            }
            Take::Labels(wanted) => {
                let has = |name: &DatabaseName| {
                    let labels = &databases[name];
                    wanted
                        .iter()
                        .all(|(label, value)| labels.get(label) == Some(value))
                };
                let taken: BTreeSet<_> = left.iter().copied().filter(|name| has(name)).cloned().collect();
                if taken.is_empty() {
                    let pairs: Vec<_> = wanted
                        .iter()
                        .map(|(label, value)| format!("{label}={value}"))
                        .collect();
                    errors.push(Error::Empty {
                        wave: name.clone(),
                        labels: pairs.join(","),
                    });
                }
                taken
            }
        };
        left.retain(|name| !taken.contains(*name));
        waves.push(Wave {
            name,
            soak: rule.soak,
            approval: rule.approval,
            failure_budget: rule.failure_budget.map(|budget| budget.of(taken.len())),
            checks: rule.checks.iter().chain(&policy.checks).cloned().collect(),
            databases: taken,
        });
    }
    waves.push(Wave {
        name: Rule::REST.to_owned(),
        databases: left.into_iter().cloned().collect(),
        soak: Duration::ZERO,
        approval: false,
        failure_budget: None,
        checks: policy.checks.clone(),
    });
    // A count or share finds nothing where earlier waves took everything; that harms nobody.
    waves.retain(|wave| !wave.databases.is_empty());
    if let [first, _, ..] = waves.as_mut_slice() {
        // Canaries are there to be watched: the first that falls is reason enough to stop.
        first.failure_budget.get_or_insert(1);
    }
    if errors.is_empty() { Ok(waves) } else { Err(errors) }
}

/// What someone may not have meant about waves that were planned, given with their names and sizes: a rule that found
/// nothing left to take, and a first one that took everything, so that nothing waits for it.
pub fn remarks<'a>(policy: &Policy, planned: impl IntoIterator<Item = (&'a str, usize)>) -> Vec<String> {
    let planned: Vec<_> = planned.into_iter().collect();
    let names = policy
        .waves
        .iter()
        .enumerate()
        .map(|(place, rule)| rule.name_at(place));
    let mut remarks: Vec<_> = names
        .filter(|name| !planned.iter().any(|(planned, _)| planned == name))
        .map(|name| format!("wave {name} is empty: the waves before it have all databases"))
        .collect();
    if let ([(first, size)], false) = (planned.as_slice(), policy.waves.is_empty())
        && *first != Rule::REST
    {
        let all = if *size == 1 {
            "the only database".to_owned()
        } else {
            format!("all {size} databases")
        };
        remarks.push(format!(
            "wave {first} has {all}: no later wave waits for it, so a failure there protects nothing"
        ));
    }
    remarks
}

/// Takes up to `count` of the databases left.
fn draw(left: &BTreeSet<&DatabaseName>, count: usize, seed: &str) -> BTreeSet<DatabaseName> {
    let mut drawn: Vec<_> = left
        .iter()
        .map(|name| (backoff::mix(backoff::hash([seed, name.as_str()])), *name))
        .collect();
    drawn.sort_unstable();
    drawn
        .into_iter()
        .take(count)
        .map(|(_, name)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(size: usize) -> BTreeMap<DatabaseName, BTreeMap<String, String>> {
        let tier = |n: usize| if n.is_multiple_of(2) { "gold" } else { "silver" };
        (0..size)
            .map(|n| {
                let name = DatabaseName::try_from(format!("db{n:03}")).unwrap();
                (name, BTreeMap::from([("tier".to_owned(), tier(n).to_owned())]))
            })
            .collect()
    }

    fn policy(waves: &str) -> Policy {
        Policy::read("p", &format!("waves: {waves}")).unwrap()
    }

    fn sizes(waves: &str, of: usize) -> Vec<(String, usize)> {
        let waves = plan(&policy(waves), &fleet(of), "seed").unwrap();
        waves
            .into_iter()
            .map(|wave| (wave.name, wave.databases.len()))
            .collect()
    }

    #[test]
    fn waves_are_disjoint_and_together_everything() {
        let all = "[{count: 1}, {percent: 10%}, {select: {tier: gold}}, {databases: [db001, db003]}]";
        let waves = plan(&policy(all), &fleet(100), "seed").unwrap();
        let names: Vec<_> = waves.iter().flat_map(|wave| &wave.databases).collect();
        assert_eq!(names.len(), 100);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), 100);
        assert_eq!(waves[0].failure_budget, Some(1));
        assert_eq!(waves[1].failure_budget, None);
    }

    #[test]
    fn waves_take_what_their_rules_say() {
        let one = |name: &str, size| (name.to_owned(), size);
        assert_eq!(sizes("[]", 3), [one("rest", 3)]);
        assert_eq!(
            sizes("[{name: canary, count: 1}, {percent: 25%}]", 10),
            [one("canary", 1), one("wave 2", 3), one("rest", 6)]
        );
        assert_eq!(sizes("[{count: 5}, {count: 5}]", 4), [one("wave 1", 4)]);
    }

    #[test]
    fn a_wave_that_is_empty_and_one_that_has_everything_are_remarked_on() {
        let policy = policy("[{name: canary, count: 5}, {name: more, count: 5}]");
        let said = remarks(&policy, [("canary", 4)]);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("wave more is empty"), "{said:?}");
        assert!(said[1].starts_with("wave canary has all 4 databases"), "{said:?}");
        assert!(remarks(&policy, [("canary", 5), ("more", 1)]).is_empty());
        assert!(remarks(&Policy::default(), [("rest", 3)]).is_empty());
    }

    #[test]
    fn one_wave_alone_has_the_budget_of_the_rollout() {
        assert_eq!(
            plan(&policy("[]"), &fleet(3), "x").unwrap()[0].failure_budget,
            None
        );
    }

    #[test]
    fn the_draw_is_stable_and_depends_on_the_seed() {
        let canaries = |seed, of| {
            plan(&policy("[{count: 5}]"), &fleet(of), seed).unwrap()[0]
                .databases
                .clone()
        };
        assert_eq!(canaries("a", 100), canaries("a", 100));
        assert_ne!(canaries("a", 100), canaries("b", 100));
        let changed = canaries("a", 100)
            .symmetric_difference(&canaries("a", 101))
            .count();
        assert!(changed <= 2, "{changed}");
    }

    #[test]
    fn rules_that_name_what_is_not_there_are_refused() {
        let errors = plan(
            &policy("[{databases: [db000, ordres]}, {select: {tier: bronze}}]"),
            &fleet(3),
            "x",
        )
        .unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(
            texts[0].contains("`ordres`") && !texts[0].contains("db000"),
            "{texts:?}"
        );
        assert!(texts[1].contains("tier=bronze"), "{texts:?}");
    }
}
