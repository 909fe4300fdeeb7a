//! Ids and names that travel between the parts. Each is a type of its own, so that none is taken for another. Names share
//! their text: a coordinator has many copies of each of ten thousand.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// A name or id that was not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{given}` is not usable: {why}")]
pub struct Error {
    /// What kind of name it was, in the user's words.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// Why it was refused.
    pub why: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(given: String) -> Result<Self, Error> {
                match name_problem(&given) {
                    None => Ok(Self(given.into())),
                    Some(why) => Err(Error { what: $what, given, why }),
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(given: &str) -> Result<Self, Error> {
                Self::try_from(given.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The fleet's name for one database.
    DatabaseName = "database name";
    /// The name of an agent.
    AgentId = "agent id";
    /// The id of a rollout: 12 characters of lower case base 32.
    RolloutId = "rollout id";
    /// The id a client gives a request, so that repeating it does nothing.
    RequestId = "request id";
    /// The name of a migration set.
    SetName = "set name";
}

/// Why a name cannot be used; `None` when it can. Names become keys in the store, SQL comments and metric labels,
/// so they keep to 1..=128 characters of `[A-Za-z0-9._-]`, the first a letter or digit.
fn name_problem(given: &str) -> Option<&'static str> {
    if given.is_empty() {
        return Some("it is empty");
    }
    if given.len() > 128 {
        return Some("it is longer than 128 characters");
    }
    if !given.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some("it must begin with a letter or a digit");
    }
    if !given
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    {
        return Some("only letters, digits, `.`, `_` and `-` are allowed");
    }
    None
}

impl SetName {
    /// The set of files that name none.
    pub fn default_set() -> Self {
        Self("default".into())
    }
}

impl RolloutId {
    /// A rollout id from 60 random bits.
    pub fn from_random(bits: u64) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let text = (0..12).map(|i| char::from(ALPHABET[usize::try_from(bits >> (i * 5) & 31).unwrap_or(0)]));
        Self(text.collect::<String>().into())
    }
}

macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

uuids! {
    /// Who holds a fence: one per lease or local run, minted at random.
    Holder;
    /// One founding of a store; a store that was lost and rebuilt has another.
    StoreId;
    /// One life of an agent process.
    Instance;
}

/// A content hash (SHA-256), shown in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(given: String) -> Result<Self, Error> {
        let bytes = (given.len() == 64 && given.is_ascii())
            .then(|| {
                let mut bytes = [0_u8; 32];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&given[2 * i..2 * i + 2], 16).ok()?;
                }
                Some(bytes)
            })
            .flatten();
        bytes.map(Self).ok_or(Error {
            what: "digest",
            given,
            why: "64 hexadecimal digits are expected",
        })
    }
}

/// Which way a migration runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards newer versions.
    Up,
    /// Back.
    Down,
}

impl Direction {
    /// `up` or `down`, as the ledger stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_key_are_refused() {
        for bad in ["", "-x", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(DatabaseName::try_from(bad).is_err(), "{bad}");
        }
        assert_eq!(
            DatabaseName::try_from("orders-1.eu_west").unwrap().as_str(),
            "orders-1.eu_west"
        );
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"confiture");
        assert_eq!(Digest::try_from(digest.to_string()).unwrap(), digest);
        assert!(Digest::try_from("00".to_owned()).is_err());
    }
}
