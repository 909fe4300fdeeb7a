//! What the databases of a fleet look like: which versions are applied, and which shape their schemas have.
//!
//! An agent surveys a database (its ledger and its catalog, at one moment, changing nothing); the answers of many make a
//! census: few shapes, each with its databases, and what is different between two of them, object by object.
//!
//! | module | owns |
//! |---|---|
//! | [`schema`] | a schema in named parts, its fingerprint, and how two differ |
//! | [`census`] | databases by shape, and which shape is the majority's |

pub mod census;
pub mod schema;

pub use census::Census;
pub use schema::{Difference, Schema};

use crate::id::Digest;
use std::collections::BTreeSet;

/// How much of a database is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Versions and the fingerprint.
    Fingerprint,
    /// The parts of the schema as well: 100 bytes for each column, more for views.
    Schema,
}

/// What one database looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Of the schema, without our own.
    pub fingerprint: Digest,
    /// In order of their names; empty where Confiture never worked.
    pub sets: Vec<Versions>,
    /// Where it was asked for.
    pub schema: Option<Schema>,
}

/// How the versions of one database differ from those of another, for people; in order of sets.
pub fn version_differences(here: &[Versions], there: &[Versions]) -> Vec<String> {
    let sets: BTreeSet<&str> = here
        .iter()
        .chain(there)
        .map(|versions| versions.set.as_str())
        .collect();
    let of = |all: &[Versions], set: &str| {
        let found = all.iter().find(|versions| versions.set == set).cloned();
        found.unwrap_or_default()
    };
    let mut differences = Vec::new();
    for set in sets {
        let (here, there) = (of(here, set), of(there, set));
        let mut say = |from: &[String], but: &[String], words: &str| {
            let only: Vec<_> = from
                .iter()
                .filter(|version| !but.contains(version))
                .map(String::as_str)
                .collect();
            if !only.is_empty() {
                differences.push(format!("set {set}: {} {words}", only.join(", ")));
            }
        };
        say(&there.applied, &here.applied, "not applied");
        say(&here.applied, &there.applied, "applied only here");
        say(&here.partial, &there.partial, "half done");
    }
    differences
}

/// Where one migration set stands in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versions {
    /// Its name.
    pub set: String,
    /// Versions applied, as written, in their order.
    pub applied: Vec<String>,
    /// Versions half applied or half undone, in their order.
    pub partial: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(set: &str, applied: &[&str], partial: &[&str]) -> Versions {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Versions {
            set: set.to_owned(),
            applied: owned(applied),
            partial: owned(partial),
        }
    }

    #[test]
    fn versions_that_differ_are_named_by_set() {
        let there = [
            versions("audit", &["1"], &[]),
            versions("default", &["1", "2", "3"], &[]),
        ];
        let here = [versions("default", &["1", "9"], &["3"])];
        assert_eq!(
            version_differences(&here, &there),
            [
                "set audit: 1 not applied",
                "set default: 2, 3 not applied",
                "set default: 9 applied only here",
                "set default: 3 half done",
            ]
        );
        assert!(version_differences(&here, &here).is_empty());
    }
}
