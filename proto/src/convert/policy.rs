//! How a rollout may go about its work, on the wire.

use super::{Error, millis, name};
use crate::v1;
use shared::plan::strategy::Tables;
use shared::plan::{Strategies, Strategy};
use shared::rollout::Policy;
use shared::rollout::policy::{self, Asks, Budget, Check, Condition, Rule, Take, Unreachable, Window};
use shared::settings::duration::WithUnit;
use std::collections::HashMap;
use std::time::Duration;

/// A policy, as sent.
pub fn policy_to_wire(policy: Policy) -> v1::Policy {
    let unreachable = match policy.unreachable {
        Unreachable::Wait => v1::UnreachablePolicy::Wait,
        Unreachable::Skip => v1::UnreachablePolicy::Skip,
    };
    v1::Policy {
        max_in_flight: policy.max_in_flight,
        max_attempts: policy.max_attempts,
        initial_retry_delay_ms: millis(policy.initial_retry_delay.0),
        max_retry_delay_ms: millis(policy.max_retry_delay.0),
        max_per_server: policy.max_per_server,
        max_per_agent: policy.max_per_agent.unwrap_or(0),
        failure_budget: policy.failure_budget.to_string(),
        ramp_up: policy.ramp_up,
        unreachable: unreachable.into(),
        windows: policy.windows.iter().map(window_to_wire).collect(),
        waves: policy.waves.into_iter().map(rule_to_wire).collect(),
        checks: policy.checks.into_iter().map(check_to_wire).collect(),
        strategies: strategies_to_wire(&policy.strategies),
    }
}

/// What is said of tables, as sent.
pub(super) fn strategies_to_wire(strategies: &Strategies) -> HashMap<String, String> {
    let said = strategies.iter();
    said.map(|(tables, strategy)| (tables.to_string(), strategy.as_str().to_owned()))
        .collect()
}

/// What is said of tables, as received.
pub(super) fn strategies_from_wire(
    field: &'static str,
    wire: HashMap<String, String>,
) -> Result<Strategies, Error> {
    let said = wire.into_iter().map(|(tables, strategy)| {
        let tables = Tables::try_from(tables).map_err(invalid(field))?;
        let strategy = Strategy::try_from(strategy).map_err(invalid(field))?;
        Ok((tables, strategy))
    });
    said.collect()
}

/// A policy, as received; what is not given is the default.
pub fn policy_from_wire(wire: v1::Policy) -> Result<Policy, Error> {
    let or = |given: u32, default: u32| if given == 0 { default } else { given };
    let delay = |given: u32, default: Duration| match given {
        0 => WithUnit(default),
        given => WithUnit(Duration::from_millis(given.into())),
    };
    let unreachable = match v1::UnreachablePolicy::try_from(wire.unreachable) {
        Ok(v1::UnreachablePolicy::Unspecified | v1::UnreachablePolicy::Wait) => Unreachable::Wait,
        Ok(v1::UnreachablePolicy::Skip) => Unreachable::Skip,
        Err(_) => {
            return Err(Error::Unknown {
                field: "policy.unreachable",
                value: wire.unreachable,
            });
        }
    };
    let policy = Policy {
        max_in_flight: or(wire.max_in_flight, Policy::DEFAULT_MAX_IN_FLIGHT),
        max_per_server: or(wire.max_per_server, Policy::DEFAULT_MAX_PER_SERVER),
        max_per_agent: Some(wire.max_per_agent).filter(|limit| *limit > 0),
        max_attempts: or(wire.max_attempts, Policy::DEFAULT_MAX_ATTEMPTS),
        initial_retry_delay: delay(wire.initial_retry_delay_ms, Policy::DEFAULT_INITIAL_RETRY_DELAY),
        max_retry_delay: delay(wire.max_retry_delay_ms, Policy::DEFAULT_MAX_RETRY_DELAY),
        failure_budget: budget_from_wire("policy.failure_budget", &wire.failure_budget)?
            .unwrap_or(Policy::DEFAULT_FAILURE_BUDGET),
        ramp_up: wire.ramp_up,
        unreachable,
        windows: wire
            .windows
            .iter()
            .map(window_from_wire)
            .collect::<Result<_, _>>()?,
        waves: wire
            .waves
            .into_iter()
            .map(rule_from_wire)
            .collect::<Result<_, _>>()?,
        checks: checks_from_wire("policy.checks", wire.checks)?,
        strategies: strategies_from_wire("policy.strategies", wire.strategies)?,
    };
    let checked: Result<(), policy::Error> = policy.check();
    checked.map_err(invalid("policy"))?;
    Ok(policy)
}

fn invalid<E: std::error::Error + Send + Sync + 'static>(field: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Invalid {
        field,
        source: Box::new(source),
    }
}

fn budget_from_wire(field: &'static str, wire: &str) -> Result<Option<Budget>, Error> {
    if wire.is_empty() {
        return Ok(None);
    }
    Budget::parse(wire).map(Some).map_err(invalid(field))
}

fn window_to_wire(window: &Window) -> v1::Window {
    v1::Window {
        days: window.days.iter().map(|day| day.word().to_owned()).collect(),
        from: window.from.to_string(),
        to: window.to.to_string(),
        zone: window.zone.to_string(),
    }
}

fn window_from_wire(wire: &v1::Window) -> Result<Window, Error> {
    Window::parse(&wire.days, &wire.from, &wire.to, &wire.zone).map_err(invalid("policy.windows"))
}

fn rule_to_wire(rule: Rule) -> v1::WaveRule {
    use v1::wave_rule::Take as Wire;
    let take = match rule.take {
        Take::Count(count) => Wire::Count(count),
        Take::Percent(percent) => Wire::Percent(percent),
        Take::Databases(names) => Wire::Databases(v1::Names {
            names: names.into_iter().map(String::from).collect(),
        }),
        Take::Labels(labels) => Wire::Select(v1::Labels {
            labels: labels.into_iter().collect(),
        }),
    };
    v1::WaveRule {
        name: rule.name.unwrap_or_default(),
        take: Some(take),
        soak_ms: u64::try_from(rule.soak.as_millis()).unwrap_or(u64::MAX),
        approval: rule.approval,
        failure_budget: rule
            .failure_budget
            .map(|budget| budget.to_string())
            .unwrap_or_default(),
        checks: rule.checks.into_iter().map(check_to_wire).collect(),
    }
}

fn rule_from_wire(wire: v1::WaveRule) -> Result<Rule, Error> {
    use v1::wave_rule::Take as Wire;
    let take = match super::required("policy.waves.take", wire.take)? {
        Wire::Count(count) => Take::Count(count),
        Wire::Percent(percent) => Take::Percent(percent),
        Wire::Databases(v1::Names { names }) => Take::Databases(
            names
                .into_iter()
                .map(|given| name("policy.waves.databases", given))
                .collect::<Result<_, _>>()?,
        ),
        Wire::Select(v1::Labels { labels }) => Take::Labels(labels.into_iter().collect()),
    };
    let rule = Rule {
        name: Some(wire.name).filter(|name| !name.is_empty()),
        take,
        soak: Duration::from_millis(wire.soak_ms),
        approval: wire.approval,
        failure_budget: budget_from_wire("policy.waves.failure_budget", &wire.failure_budget)?,
        checks: checks_from_wire("policy.waves.checks", wire.checks)?,
    };
    rule.checked().map_err(invalid("policy.waves"))
}

fn check_to_wire(check: Check) -> v1::Check {
    use v1::check::Asks as Wire;
    let asks = match check.asks {
        Asks::Sql(query) => Wire::Sql(query),
        Asks::Prometheus {
            server,
            expression,
            condition,
        } => Wire::Prometheus(v1::check::Prometheus {
            server,
            expression,
            condition: condition.to_string(),
        }),
    };
    v1::Check {
        name: check.name,
        asks: Some(asks),
    }
}

fn checks_from_wire(field: &'static str, wire: Vec<v1::Check>) -> Result<Vec<Check>, Error> {
    use v1::check::Asks as Wire;
    let check = |wire: v1::Check| {
        let asks = match super::required(field, wire.asks)? {
            Wire::Sql(query) => Asks::Sql(query),
            Wire::Prometheus(asked) => Asks::Prometheus {
                condition: Condition::parse(&asked.condition).ok_or(Error::Missing(field))?,
                server: asked.server,
                expression: asked.expression,
            },
        };
        let name = wire.name;
        Check { name, asks }.checked().map_err(invalid(field))
    };
    wire.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "
max_in_flight: 4
max_per_server: 1
max_per_agent: 3
max_attempts: 2
failure_budget: 5%
ramp_up: true
unreachable: skip
windows: [{ days: [mon, fri], from: 22:00, to: 05:30, zone: Europe/Berlin }]
waves:
  - { name: canary, count: 1, soak: 10m }
  - { percent: 10%, approval: true, failure_budget: 2 }
  - { name: gold, select: { tier: gold } }
  - { name: two, databases: [orders, billing], checks: [{ name: ready, sql: SELECT true }] }
checks:
  - { name: errors, promql: sum(errors), condition: '< 0.1', prometheus: 'http://localhost:9090' }
strategies: { shop.orders: batched_off_peak, '*': online }
";

    #[test]
    fn a_whole_policy_survives_the_wire() {
        let policy = Policy::read("policy.yaml", WHOLE).unwrap();
        assert_eq!(policy_from_wire(policy_to_wire(policy.clone())).unwrap(), policy);
    }

    #[test]
    fn an_empty_policy_is_the_default() {
        assert_eq!(
            policy_from_wire(v1::Policy::default()).unwrap(),
            Policy::default()
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rule = |take| v1::WaveRule {
            take,
            ..v1::WaveRule::default()
        };
        let with = |wave| v1::Policy {
            waves: vec![wave],
            ..v1::Policy::default()
        };
        let said = |wire| policy_from_wire(wire).unwrap_err().chain();
        assert!(said(with(rule(None))).contains("policy.waves.take"));
        assert!(said(with(rule(Some(v1::wave_rule::Take::Percent(101))))).contains("101"));
        let many = v1::Policy {
            max_in_flight: 20_000,
            max_attempts: 2_000,
            ..v1::Policy::default()
        };
        assert!(said(many.clone()).contains("max_in_flight"));
        assert!(said(many).contains("max_attempts"));
        let budget = v1::Policy {
            failure_budget: "many".to_owned(),
            ..v1::Policy::default()
        };
        assert!(said(budget).contains("many"));
    }
}
