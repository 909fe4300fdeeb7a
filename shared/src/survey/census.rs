//! Databases by the shape of their schema.

use crate::id::{DatabaseName, Digest};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The shapes of a fleet, the one with most databases first; of two with as many, that with the first name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Never empty of databases.
    pub shapes: Vec<Shape>,
}

/// One shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// What all its databases have.
    pub fingerprint: Digest,
    /// In order of their names.
    pub databases: Vec<DatabaseName>,
}

impl FromIterator<(DatabaseName, Digest)> for Census {
    fn from_iter<T: IntoIterator<Item = (DatabaseName, Digest)>>(surveyed: T) -> Self {
        let mut shapes: BTreeMap<Digest, Vec<DatabaseName>> = BTreeMap::new();
        for (database, fingerprint) in surveyed {
            shapes.entry(fingerprint).or_default().push(database);
        }
        let mut shapes: Vec<_> = shapes
            .into_iter()
            .map(|(fingerprint, mut databases)| {
                databases.sort();
                Shape {
                    fingerprint,
                    databases,
                }
            })
            .collect();
        shapes.sort_by(|one, other| {
            let key = |shape: &Shape| Reverse(shape.databases.len());
            key(one)
                .cmp(&key(other))
                .then_with(|| one.databases.cmp(&other.databases))
        });
        Self { shapes }
    }
}

impl Census {
    /// How many databases were counted.
    pub fn databases(&self) -> usize {
        self.shapes.iter().map(|shape| shape.databases.len()).sum()
    }

    /// The shape that has more databases than any other; `None` when the first two have as many, or there is none.
    pub fn majority(&self) -> Option<&Shape> {
        let (first, rest) = self.shapes.split_first()?;
        let next = rest.first().map_or(0, |next| next.databases.len());
        (first.databases.len() > next).then_some(first)
    }

    /// The shape of a database.
    pub fn shape_of(&self, database: &DatabaseName) -> Option<&Shape> {
        self.shapes
            .iter()
            .find(|shape| shape.databases.contains(database))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DatabaseName {
        DatabaseName::try_from(text).unwrap()
    }

    fn census(databases: &[(&str, &[u8])]) -> Census {
        databases
            .iter()
            .map(|(database, shape)| (name(database), Digest::of(shape)))
            .collect()
    }

    fn names(shape: &Shape) -> Vec<&str> {
        shape.databases.iter().map(DatabaseName::as_str).collect()
    }

    #[test]
    fn shapes_are_counted_the_largest_first_and_outliers_named() {
        let census = census(&[
            ("c", b"1"),
            ("x", b"3"),
            ("a", b"1"),
            ("d", b"2"),
            ("b", b"2"),
            ("e", b"1"),
        ]);
        let all: Vec<_> = census.shapes.iter().map(names).collect();
        assert_eq!(all, [vec!["a", "c", "e"], vec!["b", "d"], vec!["x"]]);
        assert_eq!(census.databases(), 6);
        assert_eq!(census.majority(), census.shape_of(&name("a")));
        assert_eq!(census.shape_of(&name("nowhere")), None);
    }

    #[test]
    fn two_shapes_with_as_many_databases_have_no_majority() {
        let tied = census(&[("b", b"1"), ("a", b"2")]);
        assert_eq!(tied.majority(), None);
        assert_eq!(
            names(&tied.shapes[0]),
            ["a"],
            "the first name, whatever the fingerprints are"
        );
        assert_eq!(census(&[]).majority(), None);
        assert!(census(&[("a", b"1")]).majority().is_some());
    }
}
