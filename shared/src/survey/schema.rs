//! A schema in named parts. Two schemas are the same when all their parts are; else each difference has a name.
//!
//! A part is text that a database of the same shape gives too: names and definitions as PostgreSQL writes them with an
//! empty `search_path`, no oids, no order of columns, nothing of ours.

use crate::id::Digest;
use std::collections::BTreeMap;
use std::fmt;

/// Definitions longer than this are not repeated in a message.
const LONGEST_SHOWN_CHARS: usize = 100;

/// All parts of a schema: by object (`table public.orders`) and part of it (`column total`; empty for the object itself),
/// what it is (`numeric(10,2) NOT NULL`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    parts: BTreeMap<(String, String), String>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Kind and name: `table public.orders`.
    pub object: String,
    /// Which part of it: `column total`; empty for the object itself.
    pub part: String,
    /// What it is.
    pub definition: String,
}

/// Where a schema is not as another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// An object is there only here.
    Extra {
        /// Which.
        object: String,
    },
    /// An object is only there.
    Missing {
        /// Which.
        object: String,
    },
    /// A part is there only here.
    ExtraPart(Part),
    /// A part is only there.
    MissingPart(Part),
    /// A part is something else.
    Changed {
        /// What it is here.
        here: Part,
        /// What it is there.
        there: String,
    },
}

impl FromIterator<Part> for Schema {
    fn from_iter<T: IntoIterator<Item = Part>>(parts: T) -> Self {
        let parts = parts
            .into_iter()
            .map(|part| ((part.object, part.part), part.definition));
        Self {
            parts: parts.collect(),
        }
    }
}

impl Schema {
    /// All parts, in order of their names.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().map(part)
    }

    /// The same for the same parts, whatever order they came in.
    pub fn fingerprint(&self) -> Digest {
        let mut bytes = Vec::new();
        for ((object, part), definition) in &self.parts {
            for text in [object, part, definition] {
                // With its length, so that no two schemas run together to the same bytes.
                bytes.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
        Digest::of(&bytes)
    }

    /// How this schema differs from another, in order of names. Of an object that only one of them has, the parts are not
    /// listed.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for entry in &self.parts {
            let ((object, _), definition) = entry;
            match other.parts.get(entry.0) {
                Some(there) if there == definition => {}
                Some(there) => differences.push(Difference::Changed {
                    here: part(entry),
                    there: there.clone(),
                }),
                None if other.has(object) => differences.push(Difference::ExtraPart(part(entry))),
                None => differences.push(Difference::Extra {
                    object: object.clone(),
                }),
            }
        }
        for entry in &other.parts {
            let (key @ (object, _), _) = entry;
            if self.parts.contains_key(key) {
                continue;
            }
            differences.push(if self.has(object) {
                Difference::MissingPart(part(entry))
            } else {
                Difference::Missing {
                    object: object.clone(),
                }
            });
        }
        differences.sort_by(|one, other| one.place().cmp(&other.place()));
        differences.dedup();
        differences
    }

    fn has(&self, object: &str) -> bool {
        let first = self.parts.range((object.to_owned(), String::new())..).next();
        first.is_some_and(|((found, _), _)| found == object)
    }
}

fn part(((object, part), definition): (&(String, String), &String)) -> Part {
    Part {
        object: object.clone(),
        part: part.clone(),
        definition: definition.clone(),
    }
}

impl Difference {
    /// Which object.
    pub fn object(&self) -> &str {
        self.place().0
    }

    fn place(&self) -> (&str, &str) {
        match self {
            Self::Extra { object } | Self::Missing { object } => (object, ""),
            Self::ExtraPart(part) | Self::MissingPart(part) | Self::Changed { here: part, .. } => {
                (&part.object, &part.part)
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_short = |text: &str| text.chars().count() <= LONGEST_SHOWN_CHARS && !text.contains('\n');
        let shown = |text: &str| {
            if is_short(text) {
                format!(" ({text})")
            } else {
                String::new()
            }
        };
        match self {
            Self::Extra { object } => write!(f, "{object}: only here"),
            Self::Missing { object } => write!(f, "{object}: missing"),
            Self::ExtraPart(part) => write!(
                f,
                "{}: {}{} only here",
                part.object,
                part.part,
                shown(&part.definition)
            ),
            Self::MissingPart(part) => write!(
                f,
                "{}: {}{} missing",
                part.object,
                part.part,
                shown(&part.definition)
            ),
            Self::Changed { here, there } => {
                let named = if here.part.is_empty() {
                    format!("{}:", here.object)
                } else {
                    format!("{}: {}", here.object, here.part)
                };
                if is_short(&here.definition) && is_short(there) {
                    write!(f, "{named} {} instead of {there}", here.definition)
                } else {
                    write!(f, "{named} is defined differently")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(parts: &[(&str, &str, &str)]) -> Schema {
        let part = |(object, part, definition): &(&str, &str, &str)| Part {
            object: (*object).to_owned(),
            part: (*part).to_owned(),
            definition: (*definition).to_owned(),
        };
        parts.iter().map(part).collect()
    }

    fn texts(here: &Schema, there: &Schema) -> Vec<String> {
        here.differences(there).iter().map(ToString::to_string).collect()
    }

    const ORDERS: &str = "table public.orders";

    #[test]
    fn the_order_in_which_parts_come_does_not_matter_and_each_of_their_texts_does() {
        let parts = [
            (ORDERS, "", "table"),
            (ORDERS, "column id", "bigint"),
            ("type public.t", "", "enum (a)"),
        ];
        let mut turned = parts;
        turned.reverse();
        let fingerprint = schema(&parts).fingerprint();
        assert_eq!(fingerprint, schema(&turned).fingerprint());
        let others = [
            (ORDERS, "column id", "bigint NOT NULL"),
            (ORDERS, "column ids", "bigint"),
            ("table public.order", "column id", "bigint"),
        ];
        for other in others {
            let mut changed = parts;
            changed[1] = other;
            assert_ne!(fingerprint, schema(&changed).fingerprint(), "{other:?}");
        }
        // The same letters, divided in another way.
        let (one, other) = ([("ab", "c", "d")], [("a", "bc", "d")]);
        assert_ne!(schema(&one).fingerprint(), schema(&other).fingerprint());
    }

    #[test]
    fn a_difference_names_object_part_and_both_definitions() {
        let there = schema(&[
            (ORDERS, "", "table"),
            (ORDERS, "column total", "numeric"),
            (ORDERS, "column note", "text"),
            ("table public.audit", "", "table"),
            ("table public.audit", "column id", "bigint"),
        ]);
        let here = schema(&[
            (ORDERS, "", "unlogged table"),
            (ORDERS, "column total", "numeric(10,2)"),
            (ORDERS, "index orders_total", "CREATE INDEX ..."),
            ("table public.orders_old", "", "table"),
            ("table public.orders_old", "column id", "bigint"),
        ]);
        assert_eq!(
            texts(&here, &there),
            [
                "table public.audit: missing",
                "table public.orders: unlogged table instead of table",
                "table public.orders: column note (text) missing",
                "table public.orders: column total numeric(10,2) instead of numeric",
                "table public.orders: index orders_total (CREATE INDEX ...) only here",
                "table public.orders_old: only here",
            ]
        );
        assert!(texts(&here, &here).is_empty());
    }

    #[test]
    fn long_definitions_are_not_repeated() {
        let long = "SELECT ".repeat(20);
        let (here, there) = (
            schema(&[("view public.v", "definition", &long)]),
            schema(&[("view public.v", "definition", "SELECT 1")]),
        );
        assert_eq!(
            texts(&here, &there),
            ["view public.v: definition is defined differently"]
        );
    }

    #[test]
    fn schemas_differ_exactly_when_their_fingerprints_do() {
        let pieces = [
            ("a", "", "1"),
            ("a", "", "2"),
            ("a", "x", "1"),
            ("b", "", "1"),
            ("b", "y", "1"),
        ];
        let subsets: Vec<Schema> = (0_u32..32)
            .map(|bits| {
                let chosen = (0..5).filter(|bit| bits & (1 << bit) != 0);
                schema(&chosen.map(|bit| pieces[bit]).collect::<Vec<_>>())
            })
            .collect();
        for one in &subsets {
            for other in &subsets {
                let same = one.fingerprint() == other.fingerprint();
                assert_eq!(one.differences(other).is_empty(), same, "{one:?} {other:?}");
                assert_eq!(one.differences(other).len(), other.differences(one).len());
            }
        }
    }
}
