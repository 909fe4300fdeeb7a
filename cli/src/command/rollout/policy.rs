//! What a rollout is to keep to: a file, and flags that go before it.

use crate::failure::Failure;
use shared::migration::Problems;
use shared::plan::Strategy;
use shared::plan::strategy::{self, Tables};
use shared::rollout::Policy;
use shared::rollout::policy::{Budget, Rule, Take};
use std::path::PathBuf;

/// The flags of `rollout start` that are about its policy.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Policy")]
pub(super) struct Flags {
    /// File with waves, limits and hours (YAML, see below); flags go before it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// First so many databases, or a share such as 5%, before the waves of the file; the rest only if none of them fails
    #[arg(long, value_name = "N|N%", value_parser = Take::parse)]
    canary: Option<Take>,
    /// Databases at work at the same time [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: Option<u32>,
    /// Databases at work at the same time on one server, those of other rollouts included [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_server: Option<u32>,
    /// Databases at work at the same time by one agent, those of other rollouts included [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_agent: Option<u32>,
    /// Attempts for each database, the first included; only passing troubles are tried again [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// So many failed databases, or a share such as 5%, and nothing new begins [default: 3]
    #[arg(long, value_name = "N|N%", value_parser = Budget::parse)]
    failure_budget: Option<Budget>,
    /// How rows are gone about, of one table or of all, see `strategies` below; can be given several times
    #[arg(long = "strategy", value_name = "[TABLE=]STRATEGY", value_parser = strategy::said)]
    strategies: Vec<(Tables, Strategy)>,
}

/// What `--help` says about the file.
pub(super) const HELP: &str = "\
Policy file (--policy), each key optional:
  max_in_flight: 8          # databases at work at the same time
  max_per_server: 2         # .. on one server
  max_per_agent: 4          # .. by one agent
  max_attempts: 8           # per database
  initial_retry_delay: 1s   # before the second attempt; doubles with each, a fifth more or less
  max_retry_delay: 30s      # .. up to this
  failure_budget: 5%        # or a number: so many failed databases, and nothing new begins
  ramp_up: true             # a wave begins with one database; each that is done makes room for one more
  unreachable: wait         # or skip: what becomes of databases that no agent serves
  windows:                  # hours in which work may go on
    - { days: [mon, tue, wed, thu], from: 22:00, to: 05:00, zone: Europe/Berlin }
  waves:                    # in this order; what is left over comes last, in a wave `rest`
    - { name: canary, count: 1, soak: 10m }
    - { name: tenth, percent: 10%, approval: true, failure_budget: 1 }
    - { name: gold, select: { tier: gold } }
    - { name: named, databases: [orders, billing] }
  checks:                   # asked once a wave is over; what fails or has no answer pauses the rollout
    - { name: whole, sql: 'SELECT count(*) = 0 FROM orders WHERE total IS NULL' }   # on each database that is done
    - { name: errors, promql: 'sum(rate(errors_total[5m]))', condition: '< 0.1', prometheus: 'http://prometheus:9090' }
  strategies:               # how rows are gone about, of these tables (`*`: of all others), whatever the steps say
    orders: batched_off_peak
  A wave may have `checks` of its own besides. The strategies are: direct (batches at full speed), batched and online (batches
  as the server's health allows), batched_off_peak (the same, and only with `windows`), blue_green (a step that would change
  the table in batches is refused).";

impl Flags {
    /// The file, with the flags.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let mut policy = match &self.policy {
            None => Policy::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("--policy: cannot read {name}: {error}")))?;
                Policy::read(&name, &text)
                    .map_err(|problems| Failure::usage(Problems(problems).to_string()))?
            }
        };
        if let Some(take) = &self.canary {
            policy.waves.insert(0, Rule::canary(take.clone()));
        }
        let or = |flag: Option<u32>, limit: &mut u32| *limit = flag.unwrap_or(*limit);
        or(self.max_in_flight, &mut policy.max_in_flight);
        or(self.max_per_server, &mut policy.max_per_server);
        or(self.max_attempts, &mut policy.max_attempts);
        policy.max_per_agent = self.max_per_agent.or(policy.max_per_agent);
        policy.failure_budget = self.failure_budget.unwrap_or(policy.failure_budget);
        for (tables, strategy) in &self.strategies {
            policy.strategies.say(tables.clone(), *strategy);
        }
        policy
            .check()
            .map_err(|error| Failure::usage(error.texts().join("\n")))?;
        Ok(policy)
    }
}
