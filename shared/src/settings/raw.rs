//! The raw layers: which keys were given, where, as what text. Nothing is interpreted here.
//!
//! A later layer replaces a key of an earlier one; unknown keys are problems, each with the nearest known key.

use crate::migration::{Position, Problem};
use crate::yaml::{self, Entry, Node, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every key that holds one value (or a list of texts). `databases` is a list of its own.
pub(super) const KEYS: &[&str] = &[
    "coordinator.listen",
    "coordinator.advertise",
    "coordinator.store",
    "coordinator.store_password",
    "coordinator.store_password_env",
    "coordinator.store_password_file",
    "coordinator.store_ca_file",
    "coordinator.store_cert_file",
    "coordinator.store_key_file",
    "coordinator.leader_lease",
    "coordinator.agent_lease",
    "agent.id",
    "agent.coordinator",
    "agent.connections_per_server",
    "connection.pool.profile",
    "connection.pool.min_size",
    "connection.pool.max_size",
    "connection.pool.max_idle_time",
    "connection.pool.max_lifetime",
    "connection.pool.wait_timeout",
    "connection.pool.create_timeout",
    "connection.pool.recycle_timeout",
    "migration.lock_timeout",
    "migration.statement_timeout",
    "migration.cancel_blockers.idle_in_transaction",
    "migration.batch_log_retention",
    "migration.max_replica_lag",
    "migration.throttle_query",
    "migration.directory",
    "migration.set",
    "observability.prometheus.enabled",
    "observability.prometheus.address",
    "observability.prometheus.port",
    "observability.otlp.endpoint",
    "observability.otlp.ca_file",
    "observability.error_details",
];

/// The list of databases.
const DATABASES: &str = "databases";

/// Variables that other parts read (the command line, the log): no keys, but no mistakes either.
const OTHER_VARIABLES: &[&str] = &[
    "CONFITURE_CONFIG",
    "CONFITURE_COORDINATOR",
    "CONFITURE_LOG",
    "CONFITURE_LOG_FORMAT",
];

/// A settings file as the caller read it.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its path; relative paths in it are resolved against its folder.
    pub path: &'a Path,
    /// Its text.
    pub text: &'a str,
}

/// A key given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The key it stands for, such as `migration.lock_timeout`.
    pub key: &'static str,
    /// The flag as the user wrote it, such as `--lock-timeout`.
    pub flag: &'static str,
    /// Its value.
    pub value: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    File { path: String, at: Position },
    Environment(String),
    Flag(&'static str),
}

impl Origin {
    /// A problem with the value that came from here.
    pub(super) fn problem(&self, what: String) -> Problem {
        let (file, at) = match self {
            Self::File { path, at } => (path.clone(), Some(*at)),
            Self::Environment(name) => (format!("environment variable {name}"), None),
            Self::Flag(flag) => (format!("flag {flag}"), None),
        };
        Problem {
            file,
            at,
            what,
            advice: None,
        }
    }
}

/// A key's value, from the last layer that gives it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) node: Node,
    pub(super) origin: Origin,
}

/// All layers on top of each other.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) databases: Vec<Given>,
    /// The folder of the settings file; empty without one.
    pub(super) folder: PathBuf,
    pub(super) problems: Vec<Problem>,
}

impl Raw {
    /// The file's layer.
    pub(super) fn file(&mut self, file: File<'_>) {
        self.folder = file.path.parent().map(Path::to_path_buf).unwrap_or_default();
        let path = file.path.display().to_string();
        match yaml::parse(file.text.strip_prefix('\u{feff}').unwrap_or(file.text)) {
            Ok(None) => {}
            Ok(Some(root)) => self.mapping(&path, "", &root),
            Err(error) => self.problems.push(Problem {
                file: path,
                at: error.position,
                what: error.what,
                advice: error.advice,
            }),
        }
    }

    /// The environment's layer. Empty variables count as not set.
    pub(super) fn environment(&mut self, variables: &[(String, String)]) {
        let known: BTreeMap<String, &'static str> = KEYS.iter().map(|key| (variable(key), *key)).collect();
        for (name, value) in variables {
            if !name.starts_with("CONFITURE_") || value.is_empty() || OTHER_VARIABLES.contains(&name.as_str())
            {
                continue;
            }
            if let Some(key) = known.get(name) {
                self.text(key, value, Origin::Environment(name.clone()));
            } else if !is_service_link(name)
                && let Some(near) = meant(name)
            {
                let mut problem =
                    Origin::Environment(name.clone()).problem("no setting has this name".to_owned());
                problem.advice = Some(format!("did you mean {near}?"));
                self.problems.push(problem);
            }
        }
    }

    /// The command line's layer.
    pub(super) fn flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            let origin = Origin::Flag(flag.flag);
            match KEYS.iter().find(|key| **key == flag.key) {
                Some(key) => self.text(key, &flag.value, origin),
                None => self
                    .problems
                    .push(origin.problem(format!("no setting is called `{}`", flag.key))),
            }
        }
    }

    fn text(&mut self, key: &'static str, value: &str, origin: Origin) {
        let scalar = yaml::Scalar {
            text: value.to_owned(),
            style: yaml::Style::Plain,
        };
        let node = Node {
            at: Position { line: 1, column: 1 },
            value: Value::Scalar(scalar),
        };
        self.values.insert(key, Given { node, origin });
    }

    /// One level of the file: `prefix` is empty or ends with a dot.
    fn mapping(&mut self, path: &str, prefix: &str, node: &Node) {
        let entries = match &node.value {
            Value::Mapping(entries) => entries,
            Value::Scalar(scalar) if scalar.is_null() => return,
            Value::Scalar(_) | Value::Sequence(_) => {
                let what = match prefix.strip_suffix('.') {
                    Some(key) => format!("`{key}` must hold keys, not {}", node.describe()),
                    None => format!("the settings must be keys, not {}", node.describe()),
                };
                let mut problem = origin(path, node).problem(what);
                problem.advice = Some(format!("known here: {}", children(prefix).join(", ")));
                self.problems.push(problem);
                return;
            }
        };
        for entry in entries {
            self.entry(path, prefix, entry);
        }
    }

    fn entry(&mut self, path: &str, prefix: &str, entry: &Entry) {
        let full = format!("{prefix}{}", entry.key);
        if full == DATABASES {
            self.database_list(path, &entry.value);
        } else if let Some(key) = KEYS.iter().find(|key| **key == full) {
            if entry.value.is_null() {
                let at = Origin::File {
                    path: path.to_owned(),
                    at: entry.at,
                };
                self.problems
                    .push(at.problem(format!("`{full}` has no value: write one or remove the key")));
            } else {
                let given = Given {
                    node: entry.value.clone(),
                    origin: origin(path, &entry.value),
                };
                self.values.insert(key, given);
            }
        } else if KEYS.iter().any(|key| key.starts_with(&format!("{full}."))) {
            self.mapping(path, &format!("{full}."), &entry.value);
        } else {
            let at = Origin::File {
                path: path.to_owned(),
                at: entry.at,
            };
            let mut problem = at.problem(format!("the key `{full}` is not known"));
            let here = children(prefix);
            problem.advice = Some(match yaml::nearest(&entry.key, here.iter().copied()) {
                Some(near) => format!("did you mean `{prefix}{near}`?"),
                // Right name, wrong place: the whole path is more alike than any name here.
                None => match KEYS
                    .iter()
                    .find(|key| key.rsplit('.').next() == Some(entry.key.as_str()))
                {
                    Some(key) => format!("did you mean `{key}`?"),
                    None => yaml::advice(&entry.key, &here),
                },
            });
            self.problems.push(problem);
        }
    }

    fn database_list(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::Sequence(items) => self.databases.extend(items.iter().map(|item| Given {
                node: item.clone(),
                origin: origin(path, item),
            })),
            Value::Scalar(scalar) if scalar.is_null() => {}
            Value::Scalar(_) | Value::Mapping(_) => {
                let mut problem = origin(path, node)
                    .problem(format!("`databases` must be a list, not {}", node.describe()));
                problem.advice = Some("write one `- { name: .., url: .. }` for each database".to_owned());
                self.problems.push(problem);
            }
        }
    }
}

/// The environment variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("CONFITURE_{}", key.to_uppercase().replace('.', "_"))
}

/// The variable that a wrong one was probably meant to be.
fn meant(name: &str) -> Option<String> {
    let flat: Vec<String> = KEYS.iter().map(|key| key.replace('.', "_")).collect();
    let rest = name.strip_prefix("CONFITURE_").unwrap_or(name);
    yaml::nearest(rest, flat.iter().map(String::as_str)).map(variable)
}

fn origin(path: &str, node: &Node) -> Origin {
    Origin::File {
        path: path.to_owned(),
        at: node.at,
    }
}

/// The names that may stand below a prefix.
fn children(prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.strip_prefix(prefix))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    names.dedup();
    if prefix.is_empty() {
        names.push(DATABASES);
    }
    names
}

/// Kubernetes sets such variables for every service of a namespace; one is likely to be called `confiture-..`.
fn is_service_link(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"]
        .iter()
        .any(|part| name.contains(part))
        || name.ends_with("_PORT")
}
