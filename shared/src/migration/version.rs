//! Versions: the leading number of a file's name, compared as numbers of any length.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// The version of a migration: digits as written (`007`, `20260102030405`), compared by value.
///
/// `7` and `007` are the same version, so that a set can never hold both; the text as written is kept for display.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// The text was not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version: write 1 to 40 digits")]
pub struct Error(pub String);

impl Version {
    /// Digits without leading zeros: what is compared, and the ledger's key.
    pub fn key(&self) -> &str {
        let trimmed = self.0.trim_start_matches('0');
        if trimmed.is_empty() { "0" } else { trimmed }
    }

    /// As the author wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Version {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        if (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(text))
        } else {
            Err(Error(text))
        }
    }
}

impl std::str::FromStr for Version {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::try_from(text.to_owned())
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.key(), other.key());
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Version {}

impl std::hash::Hash for Version {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_compare_by_value_at_any_length() {
        assert_eq!(version("7"), version("007"));
        assert!(version("9") < version("10"));
        assert!(version(&"9".repeat(39)) < version(&format!("1{}", "0".repeat(39))));
        assert_eq!(version("000").key(), "0");
    }

    #[test]
    fn only_digits_are_a_version() {
        for bad in ["", "1a", "v1", "-1", &"1".repeat(41)] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
