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

/// A text with what stands in the place of a password in a URL (`scheme://user:HERE@host`) or after `password=` covered:
/// for texts that repeat what a user wrote, where a URL may have been given by mistake.
pub fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, end)) = password(rest) {
        shown.push_str(&rest[..start]);
        shown.push_str("***");
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown
}

/// Where the first password of a text stands, if there is one that is not covered.
fn password(text: &str) -> Option<(usize, usize)> {
    const KEY: &str = "password=";
    let ends = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '`' | '"' | '\'' | '<' | '>');
    let open = |start: usize, end: usize| {
        let password = &text[start..end];
        (!matches!(password, "" | "***" | "PASSWORD")).then_some((start, end))
    };
    let in_url = text.match_indices("://").find_map(|(at, separator)| {
        let authority = at + separator.len();
        let length = text[authority..].find(ends).unwrap_or(text.len() - authority);
        let whole = &text[authority..authority + length];
        // A password may hold any of `@/?:` when it was not encoded: all up to the last `@` counts.
        let user_info = &whole[..whole.rfind('@')?];
        let colon = user_info.find(':')?;
        open(authority + colon + 1, authority + user_info.len())
    });
    let in_pair = text
        .to_ascii_lowercase()
        .match_indices(KEY)
        .find_map(|(at, key)| {
            let start = at + key.len();
            let length = text[start..].find(|c| ends(c) || c == '&');
            open(start, start + length.unwrap_or(text.len() - start))
        });
    in_url.into_iter().chain(in_pair).min()
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
    fn passwords_in_texts_are_covered_and_nothing_else() {
        for (text, shown) in [
            (
                "`postgres://app:s3cret@db:5432/x` is wrong",
                "`postgres://app:***@db:5432/x` is wrong",
            ),
            (
                "postgres://app:a@b/c:d@h/x and postgres://u:v@h",
                "postgres://app:***@h/x and postgres://u:***@h",
            ),
            ("host=h password=abc dbname=d", "host=h password=*** dbname=d"),
            ("?password=abc&x=1", "?password=***&x=1"),
            (
                "postgres://app@h/x http://h:80/y",
                "postgres://app@h/x http://h:80/y",
            ),
            (
                "etcd://root:pw@h:2379,h2:2379/p",
                "etcd://root:***@h:2379,h2:2379/p",
            ),
            (
                "postgres://app:***@h/x, postgres://u:v@h",
                "postgres://app:***@h/x, postgres://u:***@h",
            ),
            ("a:b@c // d", "a:b@c // d"),
        ] {
            assert_eq!(masked(text), shown);
        }
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
