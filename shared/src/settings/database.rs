//! One entry of `databases:`.

use super::raw::Given;
use super::reader::scalar;
use super::secret::{self, Lookups, Secret, Source};
use super::{Database, Machine, raw};
use crate::id::DatabaseName;
use crate::migration::Problem;
use crate::yaml::{self, Entry, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The keys of one entry.
const KEYS: &[&str] = &[
    "name",
    "url",
    "url_env",
    "url_file",
    "direct_url",
    "direct_url_env",
    "direct_url_file",
    "labels",
    "cores",
    "memory",
];

/// A database as the settings name it; its secrets are not fetched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: DatabaseName,
    url: Source,
    direct_url: Option<Source>,
    labels: BTreeMap<String, String>,
    machine: Machine,
    pub(super) origin: raw::Origin,
}

impl Declared {
    /// Reads one entry.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn read(given: &Given, folder: &Path) -> Result<Self, Vec<Problem>> {
        let mut entry = Reading {
            given,
            folder,
            problems: Vec::new(),
        };
        let Value::Mapping(entries) = &given.node.value else {
            let mut problem = given
                .origin
                .problem(format!("a database is a mapping, not {}", given.node.describe()));
            problem.advice = Some("write `- { name: orders, url_env: ORDERS_URL }`".to_owned());
            return Err(vec![problem]);
        };
        for key in entries.iter().filter(|e| !KEYS.contains(&e.key.as_str())) {
            let what = format!("the key `databases.{}` is not known", key.key);
            entry.refuse(key, what, Some(yaml::advice(&key.key, KEYS)));
        }
        let name = entry.name(entries);
        let url = entry.source(entries, "url");
        let direct_url = entry.source(entries, "direct_url");
        let labels = entry.labels(entries);
        let machine = Machine {
            cores: entry.cores(entries),
            memory_bytes: entry.memory(entries),
        };
        if url.is_none()
            && !["url", "url_env", "url_file"]
                .iter()
                .any(|key| find(entries, key).is_some())
        {
            let mut problem = given.origin.problem("this database has no URL".to_owned());
            problem.advice =
                Some("give it one of url, url_env (a variable's name) or url_file (a path)".to_owned());
            entry.problems.push(problem);
        }
        match (name, url) {
            (Some(name), Some(url)) if entry.problems.is_empty() => Ok(Self {
                name,
                url,
                direct_url,
                labels,
                machine,
                origin: given.origin.clone(),
            }),
            _ => Err(entry.problems),
        }
    }

    /// Fetches the URLs.
    ///
    /// # Errors
    /// When one cannot be had, or is not a PostgreSQL URL.
    pub(super) fn resolve(&self, lookups: &Lookups<'_>) -> Result<Database, Problem> {
        let fetch = |source: &Source, what: &str| -> Result<Secret, Problem> {
            let wrong = |why: String| {
                self.origin
                    .problem(format!("the {what} of database {}: {why}", self.name))
            };
            let secret = source
                .fetch(lookups)
                .map_err(|error: secret::Error| wrong(error.to_string()))?;
            match url_problem(secret.expose()) {
                None => Ok(secret),
                Some(why) => Err(wrong(why.to_owned())),
            }
        };
        Ok(Database {
            name: self.name.clone(),
            url: fetch(&self.url, "url")?,
            direct_url: self
                .direct_url
                .as_ref()
                .map(|source| fetch(source, "direct_url"))
                .transpose()?,
            labels: self.labels.clone(),
            machine: self.machine,
        })
    }
}

/// Why a text cannot be a PostgreSQL URL (or a `key=value` connection string); never repeats it.
pub(super) fn url_problem(url: &str) -> Option<&'static str> {
    if url.contains('\0') {
        return Some("it holds a NUL byte");
    }
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let is_pairs = url.contains('=') && !url.contains("://");
    (!is_url && !is_pairs)
        .then_some("it is not a PostgreSQL URL: it must begin with postgres:// or postgresql://")
}

fn find<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key == key)
}

struct Reading<'a> {
    given: &'a Given,
    folder: &'a Path,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn refuse(&mut self, entry: &Entry, what: String, advice: Option<String>) {
        let mut problem = self.given.origin.problem(what);
        if problem.at.is_some() {
            problem.at = Some(entry.at);
        }
        problem.advice = advice;
        self.problems.push(problem);
    }

    fn text<'e>(&mut self, entries: &'e [Entry], key: &str) -> Option<(&'e Entry, &'e str)> {
        let entry = find(entries, key)?;
        match scalar(&entry.value) {
            Some(scalar) if !scalar.text.trim().is_empty() => Some((entry, scalar.text.trim())),
            Some(_) => {
                self.refuse(entry, format!("`{key}` is empty"), None);
                None
            }
            None => {
                self.refuse(
                    entry,
                    format!("`{key}`: expected a text, found {}", entry.value.describe()),
                    None,
                );
                None
            }
        }
    }

    fn name(&mut self, entries: &[Entry]) -> Option<DatabaseName> {
        if find(entries, "name").is_none() {
            let mut problem = self.given.origin.problem("this database has no name".to_owned());
            problem.advice = Some("add `name:`, the name by which the fleet knows it".to_owned());
            self.problems.push(problem);
        }
        let (entry, text) = self.text(entries, "name")?;
        DatabaseName::try_from(text)
            .map_err(|error| self.refuse(entry, error.to_string(), None))
            .ok()
    }

    /// A secret from at most one of `KEY`, `KEY_env`, `KEY_file`.
    fn source(&mut self, entries: &[Entry], key: &str) -> Option<Source> {
        let (env_key, file_key) = (format!("{key}_env"), format!("{key}_file"));
        let given: Vec<&Entry> = [key, &env_key, &file_key]
            .into_iter()
            .filter_map(|key| find(entries, key))
            .collect();
        if let [_, second, ..] = given.as_slice() {
            self.refuse(
                second,
                format!("give only one of {key}, {env_key} and {file_key}"),
                None,
            );
            return None;
        }
        let (entry, text) = self.text(entries, &given.first()?.key)?;
        if entry.key == env_key {
            return Some(Source::Environment(text.to_owned()));
        }
        if entry.key == file_key {
            return Some(Source::File(self.folder.join(text)));
        }
        match url_problem(text) {
            None => Some(Source::Given(Secret::new(text))),
            Some(why) => {
                self.refuse(entry, format!("`{key}`: {why}"), None);
                None
            }
        }
    }

    fn cores(&mut self, entries: &[Entry]) -> Option<u32> {
        let (entry, text) = self.text(entries, "cores")?;
        let cores = text.parse().ok().filter(|cores| (1..=4096).contains(cores));
        if cores.is_none() {
            let what = format!("`cores`: `{text}` is no whole number from 1 to 4096");
            self.refuse(entry, what, None);
        }
        cores
    }

    fn memory(&mut self, entries: &[Entry]) -> Option<u64> {
        let (entry, text) = self.text(entries, "memory")?;
        let bytes = bytes(text);
        if bytes.is_none() {
            let what = format!("`memory`: `{text}` is no size");
            self.refuse(entry, what, Some("write it with its unit: `16GB`".to_owned()));
        }
        bytes
    }

    fn labels(&mut self, entries: &[Entry]) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(entry) = find(entries, "labels") else {
            return labels;
        };
        let pairs = match &entry.value.value {
            Value::Mapping(pairs) => pairs,
            Value::Scalar(scalar) if scalar.is_null() => return labels,
            Value::Scalar(_) | Value::Sequence(_) => {
                let what = format!(
                    "`labels` must be a mapping (`env: prod`), not {}",
                    entry.value.describe()
                );
                self.refuse(entry, what, None);
                return labels;
            }
        };
        for pair in pairs {
            let Some(value) = scalar(&pair.value) else {
                self.refuse(
                    pair,
                    format!(
                        "the label `{}` must be a text, not {}",
                        pair.key,
                        pair.value.describe()
                    ),
                    None,
                );
                continue;
            };
            if let Some(bad) = [&pair.key, &value.text].into_iter().find(|text| !is_label(text)) {
                let advice =
                    "selectors are written `key=value,key=value`: use no space, `,` or `=`".to_owned();
                self.refuse(pair, format!("`{bad}` cannot be used in a label"), Some(advice));
                continue;
            }
            labels.insert(pair.key.clone(), value.text.clone());
        }
        labels
    }
}

/// A size with its unit, in bytes; units count by 1000, or by 1024 with an `i`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let unit: u64 = match text[end..].trim() {
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let number: u64 = text[..end].parse().ok()?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// Whether a text can stand on either side of a selector's `=`.
fn is_label(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '='))
}
