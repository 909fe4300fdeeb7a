//! Which databases of the fleet a rollout is for.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Chooses databases by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// Every database; must be said (`--all`).
    All,
    /// Those whose labels hold every pair; never empty.
    Labels(BTreeMap<String, String>),
}

/// Why a selector was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither labels nor all.
    #[error("no database is selected: give label pairs such as `env=prod`, or all databases with `--all`")]
    Nothing,
    /// Both labels and all.
    #[error("label pairs and `--all` are both given: give one of them")]
    Both,
    /// A part without `=`, or with nothing on one side.
    #[error("`{0}` is no label pair: write `label=value`, several with a comma between them")]
    Pair(String),
    /// One label with two values can match nothing.
    #[error("label `{label}` is asked to be both `{one}` and `{other}`, which no database can be")]
    Contradiction {
        /// The label.
        label: String,
        /// Its first value.
        one: String,
        /// Its second value.
        other: String,
    },
}

impl Selector {
    /// Reads `k=v,k=v`.
    ///
    /// # Errors
    /// When it is empty, a part is no pair, or one label is given two values.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut labels = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (label, value) = part.split_once('=').ok_or_else(|| Error::Pair(part.to_owned()))?;
            let (label, value) = (label.trim().to_owned(), value.trim().to_owned());
            if label.is_empty() || value.is_empty() {
                return Err(Error::Pair(part.to_owned()));
            }
            match labels.insert(label.clone(), value.clone()) {
                Some(one) if one != value => {
                    return Err(Error::Contradiction {
                        label,
                        one,
                        other: value,
                    });
                }
                Some(_) | None => {}
            }
        }
        Self::of_labels(labels)
    }

    /// A selector of label pairs already taken apart.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_labels(labels: BTreeMap<String, String>) -> Result<Self, Error> {
        if labels.is_empty() {
            Err(Error::Nothing)
        } else {
            Ok(Self::Labels(labels))
        }
    }

    /// Whether a database with these labels is chosen.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Labels(wanted) => wanted
                .iter()
                .all(|(label, value)| labels.get(label) == Some(value)),
        }
    }
}

/// As on the command line.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all databases"),
            Self::Labels(labels) => {
                let pairs: Vec<_> = labels
                    .iter()
                    .map(|(label, value)| format!("{label}={value}"))
                    .collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_pair_must_hold() {
        let selector = Selector::parse("env=prod, tier=gold").unwrap();
        assert!(selector.matches(&labels(&[("env", "prod"), ("tier", "gold"), ("x", "y")])));
        assert!(!selector.matches(&labels(&[("env", "prod")])));
        assert!(!selector.matches(&labels(&[("env", "prod"), ("tier", "silver")])));
        assert!(Selector::All.matches(&BTreeMap::new()));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        assert_eq!(Selector::parse(" , "), Err(Error::Nothing));
        for bad in ["env", "=prod", "env=", "env=prod,tier"] {
            assert!(matches!(Selector::parse(bad), Err(Error::Pair(_))), "{bad}");
        }
        assert!(matches!(
            Selector::parse("env=a,env=b"),
            Err(Error::Contradiction { .. })
        ));
        assert!(Selector::parse("env=a,env=a").is_ok());
    }

    #[test]
    fn a_selector_is_shown_as_it_is_written() {
        assert_eq!(
            Selector::parse("tier=gold,env=prod").unwrap().to_string(),
            "env=prod,tier=gold"
        );
    }
}
