//! An index of a partitioned table: that of the table itself holds nothing, and is valid once each partition's is attached.
//!
//! ```text
//! no index --CREATE INDEX ON ONLY--> not valid --one partition after the other: build, attach--> valid with the last
//! ```
//! A partition that comes meanwhile gets its index from PostgreSQL, attached; one that came just before is found with the
//! next look.

use super::{Create, Published};
use crate::id::Digest;
use crate::name::Ident;

/// One relation of a partitioned table, as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its schema.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// What it is.
    pub kind: PartKind,
    /// Its own index that belongs to the one we build, quoted in full.
    pub index: Option<String>,
    /// Whether that is valid.
    pub valid: bool,
    /// The index of the relation it is a partition of, quoted in full; none for the table itself.
    pub parent_index: Option<String>,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// It holds rows.
    Leaf,
    /// It is partitioned itself.
    Partitioned,
}

/// What is to be done next about the tree of indexes.
#[derive(Debug, Clone, PartialEq)]
pub enum NextPart {
    /// All are there, and the table's is valid.
    Done,
    /// Create that of the partitioned table itself.
    Root,
    /// Create that of a partition that is partitioned itself, and attach it.
    Inner(Box<Create>),
    /// Build that of a partition, and attach it.
    Leaf(Box<Create>),
    /// This index is attached, and not valid: it cannot become so by what we do.
    Broken(String),
}

impl Create {
    /// What is to be done next, given the table and all its partitions, parents first.
    pub fn next_part(&self, tree: &[Part]) -> NextPart {
        let Some(root) = tree.first() else {
            return NextPart::Root;
        };
        if root.index.is_none() {
            return NextPart::Root;
        }
        let missing = tree[1..]
            .iter()
            .find_map(|part| match (&part.index, &part.parent_index) {
                (None, Some(parent)) => Some((part, parent)),
                (Some(_), _) | (None, None) => None,
            });
        if let Some((part, parent)) = missing {
            let create = Box::new(self.of_part(part, parent));
            return match part.kind {
                PartKind::Leaf => NextPart::Leaf(create),
                PartKind::Partitioned => NextPart::Inner(create),
            };
        }
        if root.valid {
            return NextPart::Done;
        }
        let broken = tree
            .iter()
            .rev()
            .find(|part| !part.valid)
            .and_then(|part| part.index.clone());
        NextPart::Broken(broken.unwrap_or_else(|| self.full_name()))
    }

    fn of_part(&self, part: &Part, parent: &str) -> Self {
        Self {
            schema: part.schema.clone(),
            table: part.name.clone(),
            name: self.name_of_part(&part.name),
            definition: self.definition.clone(),
            published: Published::Part {
                of: parent.to_owned(),
            },
            wait: self.wait,
        }
    }

    /// The name of a partition's index.
    fn name_of_part(&self, part: &Ident) -> Ident {
        name_of_part(&self.name, part)
    }
}

/// The name of the index of a partition: that of the whole index and that of the partition, cut where they are too long.
pub fn name_of_part(index: &Ident, part: &Ident) -> Ident {
    let whole = format!("{}_{}", index.as_str(), part.as_str());
    Ident::exact(whole.as_str()).unwrap_or_else(|_| {
        let digest = Digest::of(whole.as_bytes()).short();
        let mut end = 50;
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        Ident::exact(format!("{}_{digest}", &whole[..end])).expect("63 bytes at most are a name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Definition, Element};
    use std::time::Duration;

    fn ident(name: &str) -> Ident {
        Ident::exact(name).unwrap()
    }

    fn create() -> Create {
        Create {
            schema: ident("public"),
            table: ident("p"),
            name: ident("p_a"),
            definition: Definition {
                elements: vec![Element::of(ident("a"))],
                ..Definition::default()
            },
            published: Published::Index,
            wait: Duration::from_secs(1),
        }
    }

    fn part(name: &str, kind: PartKind, index: Option<&str>, valid: bool) -> Part {
        Part {
            schema: ident("public"),
            name: ident(name),
            kind,
            index: index.map(str::to_owned),
            valid,
            parent_index: (name != "p").then(|| "\"public\".\"p_a\"".to_owned()),
        }
    }

    #[test]
    fn the_table_comes_first_then_each_partition_then_nothing() {
        let (leaf, root) = (PartKind::Leaf, PartKind::Partitioned);
        let none = [part("p", root, None, false), part("p1", leaf, None, false)];
        assert_eq!(create().next_part(&none), NextPart::Root);
        let some = [
            part("p", root, Some("i"), false),
            part("p1", leaf, Some("i1"), true),
            part("p2", leaf, None, false),
        ];
        let NextPart::Leaf(next) = create().next_part(&some) else {
            panic!("no leaf is next");
        };
        assert_eq!(
            (next.full_name(), next.full_table()),
            ("\"public\".\"p_a_p2\"".to_owned(), "\"public\".\"p2\"".to_owned())
        );
        let all = [
            part("p", root, Some("i"), true),
            part("p1", leaf, Some("i1"), true),
        ];
        assert_eq!(create().next_part(&all), NextPart::Done);
        let broken = [
            part("p", root, Some("i"), false),
            part("p1", leaf, Some("i1"), false),
        ];
        assert_eq!(create().next_part(&broken), NextPart::Broken("i1".to_owned()));
    }

    #[test]
    fn names_of_parts_fit_and_differ() {
        let long = |last: &str| {
            name_of_part(
                &ident(&"ü".repeat(30)),
                &ident(&format!("{}{last}", "x".repeat(60))),
            )
        };
        assert!(long("1").as_str().len() <= 63);
        assert_ne!(long("1"), long("2"));
    }
}
