//! A migration as YAML: `name`, overrides, and the steps of `up` and `down`.

use super::{Change, Options, Position, Problem, Script, Step, checksum};
use crate::settings::duration::{self, Milliseconds, Zero};
use crate::yaml::{self, Entry, Node, Value};
use serde::Deserialize;
use std::time::Duration;

/// What a YAML file says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parsed {
    /// Its `name`, when it gives one.
    pub(super) name: Option<String>,
    /// Its `up`.
    pub(super) up: Script,
    /// Its `down`, when it has one.
    pub(super) down: Option<Script>,
}

const KEYS: &[&str] = &[
    "name",
    "lock_timeout",
    "statement_timeout",
    "cancel_blockers",
    "up",
    "down",
];

/// What a migration overrides, and each of its steps.
const OPTIONS: &[&str] = &["lock_timeout", "statement_timeout", "cancel_blockers"];

/// `cancel_blockers: { idle_in_transaction }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelBlockers {
    idle_in_transaction: Milliseconds,
}

/// Reads a file.
///
/// # Errors
/// All that is wrong with it, in the order of the file.
pub(super) fn parse(file: &str, text: &str) -> Result<Parsed, Vec<Problem>> {
    let mut reader = Reader {
        file,
        problems: Vec::new(),
    };
    let root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => {
            reader.problem(
                None,
                "the file is empty",
                Some("write at least `up:` with one step"),
            );
            return Err(reader.problems);
        }
        Err(error) => {
            reader.error(error);
            return Err(reader.problems);
        }
    };
    let parsed = reader.migration(&root, text);
    match parsed {
        Some(parsed) if reader.problems.is_empty() => Ok(parsed),
        _ => Err(reader.problems),
    }
}

struct Reader<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn migration(&mut self, root: &Node, text: &str) -> Option<Parsed> {
        let Value::Mapping(entries) = &root.value else {
            self.problem(
                Some(root.at),
                "a migration is a mapping of keys",
                Some("begin with `up:` and a list of steps"),
            );
            return None;
        };
        let (mut name, mut options, mut up, mut down) = (None, Options::default(), None, None);
        for entry in entries {
            match entry.key.as_str() {
                "name" => name = self.name(entry),
                key if OPTIONS.contains(&key) => self.option(entry, &mut options),
                "up" => up = Some(self.steps(entry)),
                "down" => down = Some(self.steps(entry)),
                unknown => {
                    let advice = yaml::advice(unknown, KEYS);
                    self.problem(Some(entry.at), &format!("unknown key `{unknown}`"), Some(&advice));
                }
            }
        }
        if up.is_none() {
            self.problem(
                Some(root.at),
                "the key `up` is missing",
                Some("write `up:` with a list of steps"),
            );
        }
        let script = |steps: Vec<Step>| Script {
            file: self.file.to_owned(),
            text: text.to_owned(),
            checksum: checksum::script(&options, &steps),
            options: options.clone(),
            steps,
        };
        Some(Parsed {
            name,
            up: script(up?),
            down: down.map(script),
        })
    }

    fn name(&mut self, entry: &Entry) -> Option<String> {
        /// As much as fits a line of `status`.
        const LONGEST: usize = 200;
        let name = self.value::<String>(entry)?;
        let name = name.trim();
        let why = if name.is_empty() {
            "it is empty"
        } else if name.chars().any(char::is_control) {
            "it must be one line"
        } else if name.chars().count() > LONGEST {
            "it is longer than 200 characters"
        } else {
            return Some(name.to_owned());
        };
        self.problem(Some(entry.value.at), &format!("name: {why}"), None);
        None
    }

    fn timeout(&mut self, entry: &Entry, zero: Zero) -> Option<Duration> {
        let duration = self.value::<Milliseconds>(entry)?.0;
        duration::bounded(duration, zero)
            .map_err(|why| self.problem(Some(entry.value.at), &format!("{}: {why}", entry.key), None))
            .ok()
    }

    fn option(&mut self, entry: &Entry, options: &mut Options) {
        match entry.key.as_str() {
            "lock_timeout" => options.lock_timeout = self.timeout(entry, Zero::Refused),
            "statement_timeout" => options.statement_timeout = self.timeout(entry, Zero::Off),
            _ => options.cancel_idle_in_transaction = self.cancel_blockers(entry),
        }
    }

    fn cancel_blockers(&mut self, entry: &Entry) -> Option<Duration> {
        let duration = self.value::<CancelBlockers>(entry)?.idle_in_transaction.0;
        let key = "cancel_blockers.idle_in_transaction";
        duration::bounded(duration, Zero::Refused)
            .map_err(|why| self.problem(Some(entry.value.at), &format!("{key}: {why}"), None))
            .ok()
    }

    fn value<'de, T: serde::Deserialize<'de>>(&mut self, entry: &'de Entry) -> Option<T> {
        match yaml::read(&entry.value) {
            Ok(value) => Some(value),
            Err(error) => {
                let what = format!("{}: {}", entry.key, error.what);
                self.problem(
                    error.position.or(Some(entry.value.at)),
                    &what,
                    error.advice.as_deref(),
                );
                None
            }
        }
    }

    fn steps(&mut self, entry: &Entry) -> Vec<Step> {
        let Value::Sequence(items) = &entry.value.value else {
            let what = format!(
                "{}: expected a list of steps, found {}",
                entry.key,
                entry.value.describe()
            );
            self.problem(Some(entry.value.at), &what, Some("begin each step with `- `"));
            return Vec::new();
        };
        if items.is_empty() {
            self.problem(
                Some(entry.value.at),
                &format!("{}: there is no step", entry.key),
                None,
            );
        }
        let steps: Vec<Step> = items.iter().filter_map(|item| self.step(item)).collect();
        self.contracts_later(&steps);
        steps
    }

    /// Between the swap of a `change_type` and its end there must be time to see that all is well.
    fn contracts_later(&mut self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            let Change::Contract(contract) = &step.change else {
                continue;
            };
            let changed = steps[..index].iter().any(|earlier| {
                matches!(&earlier.change, Change::ChangeType(change)
                    if change.table == contract.table && change.column == contract.column)
            });
            if changed {
                self.problem(
                    Some(step.at),
                    &format!(
                        "contract: the type of {} is changed in this very migration, and could not be undone any more",
                        contract.column
                    ),
                    Some("write it in a later migration, for when all applications work with the new type"),
                );
            }
        }
    }

    fn step(&mut self, item: &Node) -> Option<Step> {
        let known = || format!("known steps are {}", Change::KNOWN.join(", "));
        let Value::Mapping(entries) = &item.value else {
            let what = format!("expected a step, found {}", item.describe());
            self.problem(Some(item.at), &what, Some(&known()));
            return None;
        };
        let (overrides, kinds): (Vec<&Entry>, Vec<&Entry>) =
            (entries.iter()).partition(|entry| OPTIONS.contains(&entry.key.as_str()));
        let [entry] = kinds.as_slice() else {
            let what = format!(
                "a step has exactly one key, its kind, and beside it at most {}",
                OPTIONS.join(", ")
            );
            let advice = "begin each step with a `- ` of its own, and indent what belongs to it";
            self.problem(Some(item.at), &what, Some(advice));
            return None;
        };
        let mut options = Options::default();
        for entry in overrides {
            self.option(entry, &mut options);
        }
        let change = match Change::deserialize(&entry.key, &entry.value) {
            None => {
                let nearest = yaml::nearest(&entry.key, Change::KNOWN.iter().copied());
                let meant = nearest.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
                self.problem(
                    Some(entry.at),
                    &format!("unknown step `{}`", entry.key),
                    Some(&(meant + &known())),
                );
                return None;
            }
            Some(Err(error)) => {
                for error in error.all() {
                    let what = format!("{}: {}", entry.key, error.what);
                    self.problem(error.position.or(Some(entry.at)), &what, error.advice.as_deref());
                }
                return None;
            }
            Some(Ok(change)) => change,
        };
        if let Err(problems) = change.check() {
            for problem in problems {
                let at = place(&entry.value, &problem).unwrap_or(entry.at);
                self.problem(Some(at), &format!("{}: {problem}", entry.key), None);
            }
            return None;
        }
        let checksum = change.checksum();
        Some(Step {
            at: entry.at,
            checksum,
            change,
            options,
        })
    }

    fn error(&mut self, error: yaml::Error) {
        for error in error.all() {
            self.problem(error.position, &error.what, error.advice.as_deref());
        }
    }

    fn problem(&mut self, at: Option<Position>, what: &str, advice: Option<&str>) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            at,
            what: what.to_owned(),
            advice: advice.map(str::to_owned),
        });
    }
}

/// Where the key stands with whose name a problem begins.
fn place(step: &Node, problem: &str) -> Option<Position> {
    let (key, _) = problem.strip_prefix('`')?.split_once('`')?;
    step.find(key).map(|node| node.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse("m.yaml", text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_migration_is_read_with_its_overrides_and_both_ways() {
        let parsed = parse(
            "m.yaml",
            "name: order totals\nlock_timeout: 60s\nstatement_timeout: 5000\nup:\n  - add_column: { table: orders, column: tax, type: numeric, default: 1.10 }\n  - backfill: { table: orders, set: { tax: total * 1.2 }, where: tax IS NULL, batch: { size: 10000, pause: 100ms } }\n  - set_not_null: { table: orders, column: tax }\ndown:\n  - drop_column: { table: orders, column: tax }\n",
        )
        .unwrap();
        assert_eq!(parsed.name.as_deref(), Some("order totals"));
        assert_eq!(
            parsed.up.options.lock_timeout,
            Some(std::time::Duration::from_mins(1))
        );
        assert_eq!(
            parsed.up.options.statement_timeout,
            Some(std::time::Duration::from_secs(5))
        );
        let names: Vec<_> = parsed.up.steps.iter().map(|step| step.change.name()).collect();
        assert_eq!(names, ["add_column", "backfill", "set_not_null"]);
        assert_eq!(parsed.up.steps[1].at, Position { line: 6, column: 5 });
        let Change::AddColumn(add) = &parsed.up.steps[0].change else {
            panic!()
        };
        assert_eq!(
            add.default
                .as_ref()
                .map(super::super::expression::Expression::text),
            Some("1.10")
        );
        assert_eq!(parsed.down.map(|down| down.steps.len()), Some(1));
    }

    #[test]
    fn comments_white_space_and_the_order_of_keys_do_not_change_a_checksum() {
        let checksum = |text: &str| parse("m.yaml", text).unwrap().up.checksum;
        let before = checksum("up:\n  - backfill: { table: t, set: { a: b + 1 }, where: c }\n");
        assert_eq!(
            before,
            checksum(
                "# why\nname: x\nup:\n  - backfill:\n      where: c -- only those\n      set:\n        a: 'B +  1'\n      table: T\n"
            )
        );
        assert_ne!(
            before,
            checksum("up:\n  - backfill: { table: t, set: { a: b + 2 }, where: c }\n")
        );
        assert_ne!(
            before,
            checksum("lock_timeout: 1s\nup:\n  - backfill: { table: t, set: { a: b + 1 }, where: c }\n")
        );
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_list_of_known_ones() {
        let said = problems("up:\n  - backfil: { table: t }\n");
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("m.yaml:2:5: unknown step `backfil`\n  help: did you mean `backfill`? known steps are sql, create_table"), "{}", said[0]);
    }

    #[test]
    fn every_problem_is_said_at_once_with_its_place() {
        let said = problems(
            "naem: x\nlock_timeout: soon\nup:\n  - drop_column: { table: a.b.c, column: x }\n  - drop_column: { table: t, colum: x }\n  - set_not_null: 3\n  - { sql: SELECT 1, assert: { query: SELECT 1 } }\n",
        );
        let places: Vec<_> = said.iter().map(|text| text.split(": ").next().unwrap()).collect();
        assert!(said.len() >= 6, "{said:#?}");
        for line in [
            "m.yaml:1:1",
            "m.yaml:2:",
            "m.yaml:4:",
            "m.yaml:5:",
            "m.yaml:6:",
            "m.yaml:7:",
        ] {
            assert!(
                places.iter().any(|place| place.starts_with(line)),
                "{line} is not in {said:#?}"
            );
        }
        assert!(said[0].contains("did you mean `name`?"), "{}", said[0]);
        assert!(said.iter().any(|text| text.contains("`column`")), "{said:#?}");
    }

    #[test]
    fn plain_scalars_are_sql_as_they_are_written() {
        let parsed = parse(
            "m.yaml",
            "up:\n- backfill: { table: t, set: { n: 5, m: null, k: -0x1F }, where: true }\n",
        )
        .unwrap();
        let Change::Backfill(backfill) = &parsed.up.steps[0].change else {
            panic!()
        };
        let texts: Vec<_> = backfill
            .set
            .values()
            .map(super::super::expression::Expression::text)
            .collect();
        assert_eq!(texts, ["-0x1F", "null", "5"]);
    }

    #[test]
    fn a_name_or_timeout_that_cannot_be_used_is_refused() {
        let said = |head: &str| problems(&format!("{head}\nup:\n- sql: SELECT 1\n"))[0].clone();
        assert!(said("lock_timeout: 0").starts_with("m.yaml:1:15: lock_timeout: it must be more than zero"));
        assert!(said("statement_timeout: 30d").contains("at most 24 days"));
        assert!(said("lock_timeout: soon").contains("`soon` is not a duration"));
        assert!(said("cancel_blockers: { idle_in_transaction: 0 }").contains("it must be more than zero"));
        assert!(said("cancel_blockers: { idle: 5min }").contains("idle_in_transaction"));
        let parsed = parse(
            "m.yaml",
            "cancel_blockers: { idle_in_transaction: 5min }\nup:\n- sql: SELECT 1\n",
        );
        assert_eq!(
            parsed.unwrap().up.options.cancel_idle_in_transaction,
            Some(Duration::from_mins(5))
        );
        let parsed = parse(
            "m.yaml",
            "lock_timeout: 9s\nup:\n- sql: SELECT 1\n  lock_timeout: 2s\n- sql: SELECT 2\n",
        );
        let steps = parsed.unwrap().up.steps;
        assert_eq!(steps[0].options.lock_timeout, Some(Duration::from_secs(2)));
        assert_eq!(steps[1].options, Options::default());
        assert!(said("name: ''").starts_with("m.yaml:1:7: name: it is empty"));
        assert!(said("name: \"a\\nb\"").contains("it must be one line"));
        assert!(parse("m.yaml", "statement_timeout: 0\nup:\n- sql: SELECT 1\n").is_ok());
    }

    #[test]
    fn a_column_that_is_set_twice_is_refused() {
        let said = problems("up:\n- backfill: { table: t, set: { a: 1, A: 2 } }");
        assert!(said[0].contains("\"a\" stands there twice"), "{}", said[0]);
    }

    #[test]
    fn a_file_without_steps_is_refused() {
        assert!(problems("")[0].contains("empty"));
        assert!(problems("name: x\n")[0].contains("`up` is missing"));
        assert!(problems("up: []\n")[0].contains("no step"));
        assert!(problems("up: x\n")[0].contains("expected a list"));
        assert!(problems("up:\n - sql: [\n")[0].starts_with("m.yaml:"));
    }
}
