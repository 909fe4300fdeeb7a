//! How a rollout may go about its work: limits, waves, hours.
//!
//! ```yaml
//! max_in_flight: 8          # databases at work at the same time
//! max_per_server: 2         # .. on one server, over all rollouts
//! max_per_agent: 4          # .. by one agent; without it an agent has no limit of its own
//! max_attempts: 8           # per database; only passing troubles are tried again
//! initial_retry_delay: 1s   # before the second attempt; doubles with each, a fifth more or less
//! max_retry_delay: 30s      # .. up to this
//! failure_budget: 5%        # or a number: so many failed databases, and nothing new begins
//! ramp_up: true             # a wave begins with one database, each that is done makes room for one more
//! unreachable: wait         # or skip: a database that no agent serves holds its wave up, or is left out
//! windows:                  # work goes on only within these hours
//!   - { days: [mon, tue, wed, thu], from: 22:00, to: 05:00, zone: Europe/Berlin }
//! waves:                    # in this order; what is left over comes last, in a wave `rest`
//!   - { name: canary, count: 1, soak: 10m }
//!   - { name: tenth, percent: 10%, approval: true }
//!   - { name: gold, select: { tier: gold } }
//! strategies:               # how the rows of tables are gone about, whatever their number and the authors of steps say
//!   orders: batched_off_peak
//! checks:                   # asked after every wave; those of one wave are written with it
//!   - { name: whole, sql: "SELECT count(*) = 0 FROM orders WHERE total IS NULL" }
//!   - { name: errors, promql: 'sum(rate(errors_total[5m]))', condition: '< 0.1', prometheus: 'http://prometheus:9090' }
//! ```
//! A file, JSON and the store have the same form.

mod budget;
mod check;
mod rule;
mod window;

pub use budget::Budget;
pub(super) use budget::share;
pub use check::{Asks, Check, Condition};
pub use rule::{Rule, Take};
use window::{Clock, Day, Zone};
pub use window::{Hours, Window};

use super::backoff::Backoff;
use crate::id::DatabaseName;
use crate::migration::{Position, Problem};
use crate::plan::{Strategies, Strategy};
use crate::settings::duration::WithUnit;
use crate::yaml::{self, Entry, Node, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a rollout keeps to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Databases at work at the same time; at least 1.
    pub max_in_flight: u32,
    /// Databases at work at the same time on one server, those of other rollouts included; at least 1.
    pub max_per_server: u32,
    /// Databases at work at the same time by one agent, those of other rollouts included; at least 1.
    pub max_per_agent: Option<u32>,
    /// Attempts per database that count, the first included; at least 1.
    pub max_attempts: u32,
    /// How long a database waits after its first failure; the wait doubles with each further one.
    pub initial_retry_delay: WithUnit,
    /// The longest such wait.
    pub max_retry_delay: WithUnit,
    /// So many failed databases, and no further one begins.
    pub failure_budget: Budget,
    /// Whether a wave begins with one database, and each that is done makes room for one more.
    pub ramp_up: bool,
    /// What becomes of databases that no agent serves.
    pub unreachable: Unreachable,
    /// When work may go on; always, where there are none.
    pub windows: Vec<Window>,
    /// Who comes first; what no rule takes comes last.
    pub waves: Vec<Rule>,
    /// What must hold after every wave.
    pub checks: Vec<Check>,
    /// How the rows of tables are gone about, before what their number and the authors of steps say.
    #[serde(skip_serializing_if = "Strategies::is_empty")]
    pub strategies: Strategies,
}

/// What becomes of databases that no agent serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreachable {
    /// They hold their wave up.
    Wait,
    /// They are left out when none has served them for two minutes.
    Skip,
}

/// All that is wrong with a policy; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.texts().join("; "))]
pub struct Error(pub Vec<Wrong>);

impl Error {
    /// What is wrong, each in words.
    pub fn texts(&self) -> Vec<&str> {
        self.0.iter().map(|wrong| wrong.what.as_str()).collect()
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which key.
    pub key: &'static str,
    /// Which item of its list, from 0, where it is one.
    pub item: Option<usize>,
    /// What.
    pub what: String,
}

impl Policy {
    /// Eight databases at a time: two cores' worth of servers stay responsive, and a fleet still moves.
    pub const DEFAULT_MAX_IN_FLIGHT: u32 = 8;
    /// One migration uses a core or two of its server; the applications need the others.
    pub const DEFAULT_MAX_PER_SERVER: u32 = 2;
    /// With pauses of 1, 2, 4, 8, 16, 30 and 30 s between them, a server's restart or failover is survived.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 8;
    /// A person who looks on sees the second attempt.
    pub const DEFAULT_INITIAL_RETRY_DELAY: Duration = Duration::from_secs(1);
    /// A person who has repaired something should not wait longer than this to see it work.
    pub const DEFAULT_MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
    /// Shorter ones would only keep a server busy that is in trouble.
    pub const SHORTEST_RETRY_DELAY: Duration = Duration::from_millis(100);
    /// Beyond this an operator's `retry` is what is meant.
    pub const LONGEST_RETRY_DELAY: Duration = Duration::from_hours(24);
    /// One database that fails may have a trouble of its own; three have the migration's.
    pub const DEFAULT_FAILURE_BUDGET: Budget = Budget::Count(3);
    /// Beyond this a typing error is likelier than an intention.
    pub const MOST_IN_FLIGHT: u32 = 10_000;
    /// Likewise; at 30 s between attempts this is eight hours.
    pub const MOST_ATTEMPTS: u32 = 1_000;
    /// As many as a person can keep in mind; each is stored with the rollout.
    pub const MOST_WAVES: usize = 100;
    /// Likewise.
    pub const MOST_WINDOWS: usize = 100;
    /// After one wave; each is asked of every database.
    pub const MOST_CHECKS: usize = 20;

    /// Reads a policy file. `file` is its name, for messages.
    ///
    /// # Errors
    /// All that is wrong with it, with line and column where it is about one place.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader {
            file,
            places: BTreeMap::new(),
            problems: Vec::new(),
        };
        let policy = reader.policy(text);
        // Of what could not be read nothing is known, and nothing is wrong but that.
        let wrong = policy.check().err().into_iter().flat_map(|Error(wrong)| wrong);
        for Wrong { key, item, what } in wrong {
            let mut error = yaml::Error::new(what);
            error.position = reader.place(key, item);
            reader.error(error);
        }
        if reader.problems.is_empty() {
            Ok(policy)
        } else {
            Err(reader.problems)
        }
    }

    /// Whether its parts make sense, alone and together.
    ///
    /// # Errors
    /// All that does not.
    pub fn check(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let item = None;
        let mut limit = |key, given: u32, most: u32| match given {
            0 => {
                let what = format!("{key} is 0: with that nothing would ever happen");
                wrong.push(Wrong { key, item, what });
            }
            given if given > most => {
                let what = format!("{key} is {given}, but at most {most} is possible");
                wrong.push(Wrong { key, item, what });
            }
            _ => {}
        };
        limit("max_in_flight", self.max_in_flight, Self::MOST_IN_FLIGHT);
        limit("max_per_server", self.max_per_server, Self::MOST_IN_FLIGHT);
        if let Some(given) = self.max_per_agent {
            limit("max_per_agent", given, Self::MOST_IN_FLIGHT);
        }
        limit("max_attempts", self.max_attempts, Self::MOST_ATTEMPTS);
        wrong.extend(self.wrong_delays());
        let off_peak = (self.strategies.iter()).any(|(_, strategy)| strategy == Strategy::OffPeak);
        let mut many = |key, what: String| wrong.push(Wrong { key, item, what });
        if off_peak && self.windows.is_empty() {
            let what = "the strategy batched_off_peak is for hours of little traffic, and the policy has no `windows`: give them, or say batched";
            many("strategies", what.to_owned());
        }
        if self.windows.len() > Self::MOST_WINDOWS {
            let (given, most) = (self.windows.len(), Self::MOST_WINDOWS);
            many(
                "windows",
                format!("there are {given} windows, but at most {most} are possible"),
            );
        }
        if self.waves.len() > Self::MOST_WAVES {
            let (given, most) = (self.waves.len(), Self::MOST_WAVES);
            many(
                "waves",
                format!("there are {given} waves, but at most {most} are possible"),
            );
        }
        let most = (self.waves.iter().map(|rule| rule.checks.len()))
            .max()
            .unwrap_or(0);
        if most + self.checks.len() > Self::MOST_CHECKS {
            let (given, most) = (most + self.checks.len(), Self::MOST_CHECKS);
            many(
                "checks",
                format!("a wave has {given} checks, but at most {most} are possible"),
            );
        }
        let nothing: &[Check] = &[];
        let mut twice = BTreeSet::new();
        for own in (self.waves.iter().map(|rule| rule.checks.as_slice())).chain([nothing]) {
            let mut names = BTreeSet::new();
            let asked = self.checks.iter().chain(own).map(|check| check.name.as_str());
            twice.extend(asked.filter(|name| !names.insert(*name)));
        }
        for name in twice {
            many(
                "checks",
                format!("two checks after one wave are named `{name}`: give each a name of its own"),
            );
        }
        let mut names = BTreeSet::new();
        for (place, rule) in self.waves.iter().enumerate() {
            let name = rule.name_at(place);
            let mut misnamed = |what: String| {
                wrong.push(Wrong {
                    key: "waves",
                    item: Some(place),
                    what,
                });
            };
            if name == Rule::REST {
                misnamed(format!(
                    "a wave is named `{name}`: that is the name of the last one, which takes what is left over"
                ));
            }
            if !names.insert(name.clone()) {
                misnamed(format!(
                    "two waves are named `{name}`: give each a name of its own"
                ));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error(wrong))
        }
    }

    /// How long a database waits after errors.
    pub fn backoff(&self) -> Backoff {
        Backoff {
            initial: self.initial_retry_delay.0,
            longest: self.max_retry_delay.0,
        }
    }

    fn wrong_delays(&self) -> Vec<Wrong> {
        let (initial, longest) = (self.initial_retry_delay, self.max_retry_delay);
        let bounds = Self::SHORTEST_RETRY_DELAY..=Self::LONGEST_RETRY_DELAY;
        let delays = [("initial_retry_delay", initial), ("max_retry_delay", longest)];
        let out = delays.into_iter().filter(|(_, delay)| !bounds.contains(&delay.0));
        let mut wrong: Vec<_> = out
            .map(|(key, delay)| Wrong {
                key,
                item: None,
                what: format!("{key} is {delay}: it must be between 100ms and 24h"),
            })
            .collect();
        if wrong.is_empty() && initial > longest {
            wrong.push(Wrong {
                key: "max_retry_delay",
                item: None,
                what: format!("max_retry_delay is {longest}, less than initial_retry_delay ({initial})"),
            });
        }
        wrong
    }
}

/// Reads key by key, so that one that is wrong hides no other.
struct Reader<'a> {
    file: &'a str,
    /// Where the values of keys begin, and the items of lists that could be read.
    places: BTreeMap<String, (Position, Vec<Position>)>,
    problems: Vec<Problem>,
}

/// The keys of one item of a list, each with what reads it.
type Parts = &'static [(&'static str, fn(&mut Reader<'_>, &str, &Node))];

const WINDOW: Parts = &[
    ("days", |reader, key, node| {
        reader.each(key, node, Reader::part::<Day>);
    }),
    ("from", |reader, key, node| reader.part::<Clock>(key, node)),
    ("to", |reader, key, node| reader.part::<Clock>(key, node)),
    ("zone", |reader, key, node| reader.part::<Zone>(key, node)),
];

const WAVE: Parts = &[
    ("name", |reader, key, node| reader.part::<rule::Name>(key, node)),
    ("count", |reader, key, node| reader.part::<rule::Count>(key, node)),
    ("percent", |reader, key, node| {
        reader.part::<rule::Share>(key, node);
    }),
    ("databases", |reader, key, node| {
        reader.each(key, node, Reader::part::<DatabaseName>);
    }),
    ("select", |reader, key, node| {
        reader.part::<BTreeMap<String, String>>(key, node);
    }),
    ("soak", |reader, key, node| reader.part::<rule::Soak>(key, node)),
    ("approval", |reader, key, node| reader.part::<bool>(key, node)),
    ("failure_budget", |reader, key, node| {
        reader.part::<Budget>(key, node);
    }),
    ("checks", |reader, key, node| {
        reader.each(key, node, |reader, key, node| {
            reader.item::<Check>(key, node, CHECK);
        });
    }),
];

const CHECK: Parts = &[
    ("name", |reader, key, node| reader.part::<String>(key, node)),
    ("sql", |reader, key, node| reader.part::<String>(key, node)),
    ("promql", |reader, key, node| reader.part::<String>(key, node)),
    ("condition", |reader, key, node| {
        reader.part::<Condition>(key, node);
    }),
    ("prometheus", |reader, key, node| reader.part::<String>(key, node)),
];

const KEYS: &[&str] = &[
    "max_in_flight",
    "max_per_server",
    "max_per_agent",
    "max_attempts",
    "initial_retry_delay",
    "max_retry_delay",
    "failure_budget",
    "ramp_up",
    "unreachable",
    "windows",
    "waves",
    "checks",
    "strategies",
];

impl Reader<'_> {
    fn error(&mut self, error: yaml::Error) {
        let file = self.file;
        self.problems.extend(error.all().map(|error| Problem {
            file: file.to_owned(),
            at: error.position,
            what: error.what,
            advice: error.advice,
        }));
    }

    fn policy(&mut self, text: &str) -> Policy {
        let mut policy = Policy::default();
        let root = match yaml::parse(text) {
            Ok(Some(root)) => root,
            Ok(None) => return policy,
            Err(error) => {
                self.error(error);
                return policy;
            }
        };
        let Value::Mapping(entries) = &root.value else {
            let what = format!("a policy is a mapping of keys, this is {}", root.describe());
            self.error(yaml::Error::at(root.at, what));
            return policy;
        };
        for entry in entries {
            self.places
                .insert(entry.key.clone(), (entry.value.at, Vec::new()));
            match entry.key.as_str() {
                "max_in_flight" => self.value(entry, &mut policy.max_in_flight),
                "max_per_server" => self.value(entry, &mut policy.max_per_server),
                "max_per_agent" => self.value(entry, &mut policy.max_per_agent),
                "max_attempts" => self.value(entry, &mut policy.max_attempts),
                "initial_retry_delay" => self.value(entry, &mut policy.initial_retry_delay),
                "max_retry_delay" => self.value(entry, &mut policy.max_retry_delay),
                "failure_budget" => self.value(entry, &mut policy.failure_budget),
                "ramp_up" => self.value(entry, &mut policy.ramp_up),
                "unreachable" => self.value(entry, &mut policy.unreachable),
                "windows" => policy.windows = self.list(entry, WINDOW),
                "waves" => policy.waves = self.list(entry, WAVE),
                "checks" => policy.checks = self.list(entry, CHECK),
                "strategies" => self.value(entry, &mut policy.strategies),
                unknown => {
                    let error = yaml::Error::at(entry.at, format!("the key `{unknown}` is not known here"));
                    self.error(error.advise(yaml::advice(unknown, KEYS)));
                }
            }
        }
        policy
    }

    fn read<T: DeserializeOwned>(&mut self, key: &str, node: &Node) -> Option<T> {
        let mut error = match yaml::read(node) {
            Ok(read) => return Some(read),
            Err(error) => error.within(key),
        };
        error.position.get_or_insert(node.at);
        self.error(error);
        None
    }

    fn value<T: DeserializeOwned>(&mut self, entry: &Entry, value: &mut T) {
        if let Some(read) = self.read(&entry.key, &entry.value) {
            *value = read;
        }
    }

    fn list<T: DeserializeOwned>(&mut self, entry: &Entry, parts: Parts) -> Vec<T> {
        let mut all = Vec::new();
        self.each(&entry.key, &entry.value, |reader, key, node| {
            if let Some(read) = reader.item(key, node, parts) {
                all.push(read);
                if let Some((_, items)) = reader.places.get_mut(key) {
                    items.push(node.at);
                }
            }
        });
        all
    }

    fn each(&mut self, key: &str, node: &Node, mut read: impl FnMut(&mut Self, &str, &Node)) {
        let Value::Sequence(items) = &node.value else {
            let what = format!("{key}: a list is expected, not {}", node.describe());
            self.error(yaml::Error::at(node.at, what));
            return;
        };
        for item in items {
            read(self, key, item);
        }
    }

    /// One item of a list. One that cannot be read is gone through part by part, so that all that is wrong in it is said.
    fn item<T: DeserializeOwned>(&mut self, key: &str, node: &Node, parts: Parts) -> Option<T> {
        let mut error = match yaml::read(node) {
            Ok(read) => return Some(read),
            Err(error) => error.within(key),
        };
        let known = self.problems.len();
        if let Value::Mapping(entries) = &node.value {
            let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
            for entry in entries {
                let path = format!("{key}.{}", entry.key);
                if let Some((_, read)) = parts.iter().find(|(name, _)| *name == entry.key) {
                    read(self, &path, &entry.value);
                } else {
                    let what = format!("{key}: the key `{}` is not known here", entry.key);
                    self.error(yaml::Error::at(entry.at, what).advise(yaml::advice(&entry.key, &names)));
                }
            }
        }
        // Each part is right, but they do not fit together.
        if self.problems.len() == known {
            error.position.get_or_insert(node.at);
            self.error(error);
        }
        None
    }

    /// Says what is wrong with one part of an item.
    fn part<T: DeserializeOwned>(&mut self, key: &str, node: &Node) {
        self.read::<T>(key, node);
    }

    /// Where a key, or an item of its list, was written.
    fn place(&self, key: &str, item: Option<usize>) -> Option<Position> {
        let (at, items) = self.places.get(key)?;
        let item = item.and_then(|item| items.get(item));
        Some(*item.unwrap_or(at))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_in_flight: Self::DEFAULT_MAX_IN_FLIGHT,
            max_per_server: Self::DEFAULT_MAX_PER_SERVER,
            max_per_agent: None,
            max_attempts: Self::DEFAULT_MAX_ATTEMPTS,
            initial_retry_delay: WithUnit(Self::DEFAULT_INITIAL_RETRY_DELAY),
            max_retry_delay: WithUnit(Self::DEFAULT_MAX_RETRY_DELAY),
            failure_budget: Self::DEFAULT_FAILURE_BUDGET,
            ramp_up: false,
            unreachable: Unreachable::Wait,
            windows: Vec::new(),
            waves: Vec::new(),
            checks: Vec::new(),
            strategies: Strategies::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r"
max_in_flight: 4
max_per_server: 1
max_per_agent: 3
max_attempts: 2
initial_retry_delay: 500ms
max_retry_delay: 2m
failure_budget: 5%
ramp_up: true
unreachable: skip
windows:
  - { days: [mon, fri], from: 22:00, to: 05:30, zone: Europe/Berlin }
waves:
  - { name: canary, count: 1, soak: 10m }
  - { percent: 10%, approval: true, failure_budget: 2 }
  - { name: gold, select: { tier: gold } }
  - { name: two, databases: [orders, billing], checks: [{ name: ready, sql: SELECT true }] }
checks:
  - { name: errors, promql: sum(errors), condition: '< 0.1', prometheus: 'http://localhost:9090' }
strategies: { shop.orders: batched_off_peak, '*': online }
";

    fn said(text: &str) -> Vec<String> {
        let problems = Policy::read("policy.yaml", text).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_file_is_read_and_survives_the_store() {
        let policy = Policy::read("policy.yaml", WHOLE).unwrap();
        assert_eq!((policy.max_in_flight, policy.max_per_agent), (4, Some(3)));
        assert_eq!(policy.failure_budget, Budget::Percent(5));
        assert_eq!(policy.unreachable, Unreachable::Skip);
        assert_eq!(policy.waves[0].soak, Duration::from_mins(10));
        assert_eq!(policy.waves[1].take, Take::Percent(10));
        assert_eq!(policy.waves[1].failure_budget, Some(Budget::Count(2)));
        assert_eq!(policy.backoff().longest, Duration::from_mins(2));
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy, "{json}");
        assert_eq!(Policy::read("policy.yaml", &json).unwrap(), policy, "{json}");
    }

    #[test]
    fn a_file_without_keys_is_the_default() {
        assert_eq!(
            Policy::read("policy.yaml", "# nothing").unwrap(),
            Policy::default()
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let said = said("max_inflight: 4\nramp_upp: true\nfailure_budget: 120%\n");
        assert!(
            said[0].starts_with("policy.yaml:1:1: the key `max_inflight` is not known"),
            "{said:?}"
        );
        assert!(said[0].contains("did you mean `max_in_flight`?"), "{said:?}");
        assert!(said[1].starts_with("policy.yaml:2:1"), "{said:?}");
        assert!(said[2].starts_with("policy.yaml:3:17"), "{said:?}");
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, part) in [
            ("failure_budget: 120%", "at most 100%"),
            ("failure_budget: 0", "at least 1"),
            ("waves: [{ count: 1, percent: 2 }]", "exactly one of"),
            ("waves: [{ name: x }]", "exactly one of"),
            ("waves: [{ percent: 0 }]", "between 1% and 100%"),
            ("waves: [{ count: 0 }]", "at least 1"),
            (
                "windows: [{ days: [monday], from: 1:00, to: 2:00, zone: UTC }]",
                "monday",
            ),
            ("checks: [{ name: x }]", "check `x`: it asks either by"),
            ("checks: [{ sql: SELECT true }]", "needs a `name`"),
            ("checks: [{ name: x, sql: '' }]", "check `x`: its query"),
            (
                "checks: [{ name: x, promql: up, condition: many, prometheus: 'http://p' }]",
                "`many` is no condition",
            ),
            (
                "checks: [{ name: x, promql: up, condition: '> 0', prometheus: 'http://u:p@p' }]",
                "without user and password",
            ),
            ("waves: [{ count: 1, soak: 10 }]", "write a number with a unit"),
            ("waves: [{ count: 1, soak: 31d }]", "at most 30 days"),
            ("initial_retry_delay: 1", "write a number with a unit"),
            ("initial_retry_delay: 1ms", "between 100ms and 24h"),
            ("max_retry_delay: 500ms", "less than initial_retry_delay (1s)"),
            ("max_in_flight: 0", "max_in_flight is 0"),
            ("strategies: { orders: batched_off_peak }", "has no `windows`"),
            ("strategies: { orders: fast }", "no strategy `fast`"),
            ("strategies: { a.b.c: direct }", "a.b.c"),
            ("windows: [{ from: 25:00, to: 2:00, zone: UTC }]", "25:00"),
            (
                "windows: [{ from: 1:00, to: 2:00, zone: Mars/North }]",
                "Mars/North",
            ),
        ] {
            assert!(said(text)[0].contains(part), "{text}: {:?}", said(text));
            assert!(
                said(text)[0].starts_with("policy.yaml:1:"),
                "{text}: {:?}",
                said(text)
            );
        }
    }

    #[test]
    fn all_that_is_wrong_in_one_item_is_said() {
        let said = said(
            "windows:\n  - { days: [funday, mon, noday], from: 25:00, to: 2:00, zone: Mars/Phobos }\nwaves:\n  - { count: 0, percent: 0, soak: 10, cuont: 1 }\nchecks: [{ name: x, condition: many }]\n",
        );
        let places = [
            "2:14", "2:27", "2:41", "2:64", "4:14", "4:26", "4:35", "4:39", "5:32",
        ];
        for place in places {
            let place = format!("policy.yaml:{place}");
            assert!(
                said.iter().any(|said| said.starts_with(&place)),
                "{place}: {said:#?}"
            );
        }
        assert_eq!(said.len(), places.len(), "{said:#?}");
    }

    #[test]
    fn a_limit_that_does_not_fit_is_said_with_its_place() {
        let said = said(
            "ramp_up: true\nmax_in_flight: 0\nwaves:\n  - { name: a, count: 1 }\n  - { name: a, count: 1 }\n",
        );
        assert!(
            said[0].starts_with("policy.yaml:2:16: max_in_flight is 0"),
            "{said:?}"
        );
        assert!(said[1].starts_with("policy.yaml:5:5: two waves"), "{said:?}");
    }

    #[test]
    fn what_cannot_be_read_hides_no_limit_that_does_not_fit() {
        let said = said(
            "max_in_flight: 0\nfailure_budget: 120%\nwaves: [{ name: a, count: 1 }, { name: a, count: 1 }]",
        );
        assert_eq!(said.len(), 3, "{said:?}");
    }

    #[test]
    fn two_checks_after_one_wave_have_two_names() {
        let check = "{ name: whole, sql: SELECT true }";
        let said = said(&format!(
            "waves: [{{ count: 1, checks: [{check}] }}]\nchecks: [{check}]"
        ));
        assert!(
            said[0].contains("two checks after one wave are named `whole`"),
            "{said:?}"
        );
    }

    #[test]
    fn limits_that_do_not_fit_are_all_named_at_once() {
        let said = said(
            "max_in_flight: 0\nmax_attempts: 2000\nwaves: [{ name: a, count: 1 }, { name: a, count: 1 }, { name: rest, count: 1 }]",
        );
        assert_eq!(said.len(), 4, "{said:?}");
    }
}
