//! One raw key after the other as a value of its type. What is wrong is noted, and the default goes on in its place, so
//! that all problems are found at once.

use super::duration::{self, Zero};
use super::raw::{Given, Origin, Raw};
use super::secret::{Secret, Source};
use crate::migration::Problem;
use crate::yaml::{Node, Scalar, Value};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) struct Reader {
    raw: Raw,
    pub(super) problems: Vec<Problem>,
}

/// A value that was given, with its place, for checks that concern several keys.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl Reader {
    pub(super) fn new(mut raw: Raw) -> Self {
        let problems = std::mem::take(&mut raw.problems);
        Self { raw, problems }
    }

    pub(super) fn databases(&mut self) -> Vec<Given> {
        std::mem::take(&mut self.raw.databases)
    }

    /// Where a key was given, if it was.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        self.raw.values.get(key).map(|given| &given.origin)
    }

    /// Notes a problem of a key, at its place, or without one where the value is a default.
    pub(super) fn refuse(&mut self, key: &str, what: &str, advice: Option<&str>) {
        let what = format!("`{key}`: {what}");
        let mut problem = match self.origin(key) {
            Some(origin) => origin.problem(what),
            None => Problem {
                file: "settings".to_owned(),
                at: None,
                what,
                advice: None,
            },
        };
        problem.advice = advice.map(str::to_owned);
        self.problems.push(problem);
    }

    /// The text of a key that holds a single value.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let given = self.raw.values.get(key)?;
        if let Some(scalar) = scalar(&given.node) {
            return Some(scalar.text.clone());
        }
        let what = format!("expected a single value, found {}", given.node.describe());
        self.refuse(key, &what, None);
        None
    }

    /// A key whose text becomes a value, or a reason why not.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).map_err(|why| self.refuse(key, &why, None)).ok()
    }

    /// A text, or a list of texts; from the environment and flags separated by commas.
    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let given = self.raw.values.get(key)?;
        let items: Vec<Node> = match &given.node.value {
            Value::Sequence(items) => items.clone(),
            Value::Scalar(_) | Value::Mapping(_) => vec![given.node.clone()],
        };
        let mut texts = Vec::new();
        for item in &items {
            let Some(scalar) = scalar(item) else {
                let what = format!("expected a text or a list of texts, found {}", item.describe());
                self.refuse(key, &what, None);
                return None;
            };
            texts.extend(scalar.text.split(',').map(|text| text.trim().to_owned()));
        }
        Some(texts)
    }

    pub(super) fn whole(&mut self, key: &str, default: usize, allowed: RangeInclusive<usize>) -> usize {
        self.parsed(key, |text| match text.parse::<usize>() {
            Ok(number) if allowed.contains(&number) => Ok(number),
            Ok(_) | Err(_) => {
                let (least, most) = (allowed.start(), allowed.end());
                Err(format!(
                    "expected a whole number from {least} to {most}, found `{text}`"
                ))
            }
        })
        .unwrap_or(default)
    }

    pub(super) fn truth(&mut self, key: &str, default: bool) -> bool {
        self.parsed(key, |text| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("expected true or false, found `{text}`")),
        })
        .unwrap_or(default)
    }

    /// A duration whose plain numbers are of a unit.
    pub(super) fn duration(&mut self, key: &str, plain: Duration, default: Duration, zero: Zero) -> Duration {
        self.parsed(key, |text| {
            let duration = duration::parse(text, plain).map_err(|error| error.to_string())?;
            duration::bounded(duration, zero)
        })
        .unwrap_or(default)
    }

    /// The same where there is no default; never zero.
    pub(super) fn optional_duration(&mut self, key: &str, plain: Duration) -> Option<Duration> {
        self.parsed(key, |text| {
            let duration = duration::parse(text, plain).map_err(|error| error.to_string())?;
            duration::bounded(duration, Zero::Refused)
        })
    }

    /// A path; a relative one in the file is resolved against the file's folder, and so is the default.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        if text.is_empty() || text.contains('\0') {
            self.refuse(key, "it is not a path", None);
            return None;
        }
        let path = Path::new(&text);
        Some(match self.origin(key) {
            Some(Origin::File { .. }) => self.beside_the_file(path),
            Some(Origin::Environment(_) | Origin::Flag(_)) | None => path.to_path_buf(),
        })
    }

    /// A path relative to the settings file.
    pub(super) fn beside_the_file(&self, path: &Path) -> PathBuf {
        self.raw.folder.join(path)
    }

    /// A secret from at most one of `KEY`, `KEY_env`, `KEY_file`.
    pub(super) fn secret(&mut self, key: &str) -> Option<Placed<Source>> {
        let (env_key, file_key) = (format!("{key}_env"), format!("{key}_file"));
        let given: Vec<String> = [key, &env_key, &file_key]
            .into_iter()
            .filter(|k| self.origin(k).is_some())
            .map(str::to_owned)
            .collect();
        if let [_, second, ..] = given.as_slice() {
            self.refuse(second, &format!("give only one of {}", given.join(", ")), None);
        }
        let which = given.first()?.clone();
        let origin = self.origin(&which)?.clone();
        let value = if which == key {
            Source::Given(Secret::new(self.text(&which)?))
        } else if which == env_key {
            Source::Environment(self.text(&which)?)
        } else {
            Source::File(self.path(&which)?)
        };
        Some(Placed { value, origin })
    }
}

/// A single value that was written.
pub(super) fn scalar(node: &Node) -> Option<&Scalar> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => Some(scalar),
        Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => None,
    }
}
