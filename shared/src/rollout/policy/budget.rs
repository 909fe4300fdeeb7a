//! How many databases may fail.

use crate::yaml::Text;
use serde::{Deserialize, Serialize};
use std::fmt;

/// So many failed databases, and nothing new begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub enum Budget {
    /// This many; at least 1.
    Count(u32),
    /// This share of all there are, rounded up, of 100; at most 100.
    Percent(u32),
}

/// The text is no budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no budget: write a number of databases, at least 1, or a share such as 5%, at most 100%")]
pub struct Error(String);

impl Budget {
    /// Reads `3` or `5%`.
    ///
    /// # Errors
    /// When it is neither, 0, or more than 100 %.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number > 0);
        let budget = match text.strip_suffix('%') {
            Some(share) => number(share).filter(|share| *share <= 100).map(Self::Percent),
            None => number(text).map(Self::Count),
        };
        budget.ok_or_else(|| Error(text.to_owned()))
    }

    /// How many of so many databases; at least 1.
    pub fn of(self, databases: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => share(percent, databases),
        }
    }
}

/// A share of 100 of so many, rounded up; at least 1.
pub(in crate::rollout) fn share(percent: u32, of: usize) -> usize {
    let percent = usize::try_from(percent).unwrap_or(usize::MAX);
    of.saturating_mul(percent).div_ceil(100).max(1)
}

impl TryFrom<Text> for Budget {
    type Error = Error;

    fn try_from(Text(text): Text) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_nothing() {
        assert_eq!(Budget::parse("5%").unwrap().of(100), 5);
        assert_eq!(Budget::parse("5%").unwrap().of(101), 6);
        assert_eq!(Budget::parse("5%").unwrap().of(1), 1);
        assert_eq!(Budget::parse(" 7").unwrap().of(1), 7);
        for bad in ["", "%", "0", "0%", "101%", "-1", "1.5", "many"] {
            assert!(Budget::parse(bad).is_err(), "{bad}");
        }
    }
}
