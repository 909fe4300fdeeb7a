//! Values that must never be printed, and where they come from.

use std::fmt;
use std::path::{Path, PathBuf};

/// A text that prints as `***`: a password, or a URL that may hold one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it to a server.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret comes from. It is fetched only by the process that needs it: a coordinator that shares its settings
/// file with agents has none of their passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It stands in the settings.
    Given(Secret),
    /// This environment variable holds it.
    Environment(String),
    /// This file holds it; white space around it does not count.
    File(PathBuf),
}

/// How [`Source`]s are fetched: the caller's environment and files, so that this crate touches neither.
#[derive(Clone, Copy)]
pub struct Lookups<'a> {
    /// The value of an environment variable, if it is set.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file, or why it cannot be read.
    pub file: &'a dyn Fn(&Path) -> Result<String, String>,
}

/// Why a secret could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// The file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
}

impl Source {
    /// Fetches the secret, without white space around it.
    ///
    /// # Errors
    /// When the variable is not set, the file cannot be read, or nothing is in it.
    pub fn fetch(&self, lookups: &Lookups<'_>) -> Result<Secret, Error> {
        let (text, of) = match self {
            Self::Given(secret) => return Ok(secret.clone()),
            Self::Environment(name) => {
                let text = (lookups.environment)(name).ok_or_else(|| Error::NotSet(name.clone()))?;
                (text, format!("the environment variable {name}"))
            }
            Self::File(path) => {
                let text = (lookups.file)(path).map_err(|why| Error::File {
                    path: path.clone(),
                    why,
                })?;
                (text, format!("the file {}", path.display()))
            }
        };
        match text.trim() {
            "" => Err(Error::Empty(of)),
            trimmed => Ok(Secret::new(trimmed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(source: &Source) -> Result<Secret, Error> {
        let environment = |name: &str| (name == "URL").then(|| "postgres://a:b@c/d\n".to_owned());
        let file = |path: &Path| match path.to_str() {
            Some("empty") => Ok(" \n".to_owned()),
            _ => Err("no such file".to_owned()),
        };
        source.fetch(&Lookups {
            environment: &environment,
            file: &file,
        })
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Source::Given(secret.clone())),
            "*** *** Given(***)"
        );
    }

    #[test]
    fn white_space_around_a_fetched_secret_does_not_count() {
        let fetched = fetch(&Source::Environment("URL".to_owned())).unwrap();
        assert_eq!(fetched.expose(), "postgres://a:b@c/d");
    }

    #[test]
    fn a_secret_that_is_not_there_says_what_was_looked_for() {
        let message = |source| fetch(&source).unwrap_err().to_string();
        assert_eq!(
            message(Source::Environment("X".to_owned())),
            "the environment variable X is not set"
        );
        assert_eq!(message(Source::File("empty".into())), "the file empty is empty");
        assert_eq!(
            message(Source::File("none".into())),
            "cannot read none: no such file"
        );
    }
}
