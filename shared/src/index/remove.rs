//! What is to be done next about an index to be dropped.
//!
//! ```text
//! there --fenced rename, recorded as begun--> under a name of ours --DROP INDEX CONCURRENTLY--> gone, recorded as done
//! ```
//! A statement of a run that was replaced and arrives late can only drop what was given up by then.

use super::{Kind, Next, Present, Purpose, Seen, Temporary};
use crate::name::Table;
use crate::plan::Refusal;
use std::time::Duration;

/// An index to be dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Remove {
    /// As the step names it.
    pub name: Table,
    /// The table it must belong to, quoted in full, where that is known.
    pub table: Option<String>,
    /// What it is.
    pub removed: Removed,
    /// The indexes of the partitions, quoted in full, whose builds are to be ended with it.
    pub parts: Vec<String>,
    /// Whether it may be missing.
    pub missing: Missing,
    /// How long dropping it may wait for other sessions, in all.
    pub wait: Duration,
}

/// What is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// An index, concurrently.
    Index,
    /// A unique constraint with its index, in a short transaction: PostgreSQL has no other way.
    Constraint,
}

/// What an index means that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A mistake.
    Refused,
    /// Nothing: what is taken back may not have come to an end. Leftovers of its build are dropped.
    Fine,
}

impl Removed {
    fn what(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Constraint => "unique constraint",
        }
    }
}

impl Remove {
    /// The names it has while it is dropped.
    pub fn temporary(&self) -> Temporary {
        Temporary::of(Purpose::Drop, &self.name.to_string())
    }

    /// The names it and its parts have while they are built, where the schema is known.
    pub fn building(&self) -> impl Iterator<Item = Temporary> {
        let built = self.missing == Missing::Fine && self.name.schema.is_some();
        let all = std::iter::once(self.name.to_string()).chain(self.parts.iter().cloned());
        all.filter(move |_| built)
            .map(|name| Temporary::of(Purpose::Build, &name))
    }

    /// Passes when what has the name may be dropped; `None` when nothing has it and that is fine.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check<'a>(&self, seen: &'a Seen) -> Result<Option<&'a Present>, Refusal> {
        let Some(named) = &seen.named else {
            return match self.missing {
                Missing::Fine => Ok(None),
                Missing::Refused => Err(Refusal::Input {
                    what: format!("{} {} does not exist", self.removed.what(), self.name),
                    advice: Some("check the name and its schema".to_owned()),
                }),
            };
        };
        let refused = |what: String, advice: &str| {
            Err(Refusal::Unsafe {
                what,
                advice: Some(advice.to_owned()),
            })
        };
        let name = &named.full_name;
        if named.kind == Kind::Other {
            return Err(Refusal::Input {
                what: format!("{name} is no {}", self.removed.what()),
                advice: None,
            });
        }
        if let Some(table) = self.table.as_ref().filter(|table| **table != named.table) {
            return refused(
                format!("index {name} is of table {}, not of {table}", named.table),
                "name the schema of the index too",
            );
        }
        if self.removed == Removed::Constraint {
            return match &named.constraint {
                Some(constraint) if constraint == self.name.name.as_str() && named.unique => Ok(Some(named)),
                Some(_) | None => Err(Refusal::Input {
                    what: format!("{name} is no unique constraint of {}", named.table),
                    advice: Some(
                        "an index without a constraint is dropped by a `drop_index` step".to_owned(),
                    ),
                }),
            };
        }
        if let Some(constraint) = &named.constraint {
            return refused(
                format!(
                    "index {name} belongs to constraint \"{constraint}\" of {}",
                    named.table
                ),
                "drop the constraint instead",
            );
        }
        if let Some(parent) = &named.part_of {
            return refused(
                format!("index {name} is a part of {parent}"),
                "drop that one instead",
            );
        }
        if named.replica_identity {
            return refused(
                format!(
                    "index {name} is the replica identity of {}: subscribers could no longer follow it",
                    named.table
                ),
                "give the table another replica identity first",
            );
        }
        Ok(Some(named))
    }

    /// What is to be done next once the index has no name but ours.
    pub fn next(&self, seen: &Seen) -> Next {
        if !seen.workers.is_empty() {
            return match (
                self.missing,
                seen.workers.iter().find(|w| w.statement.starts_with("CREATE")),
            ) {
                (Missing::Fine, Some(builder)) => Next::Cancel(builder.clone()),
                (Missing::Fine | Missing::Refused, _) => Next::Adopt,
            };
        }
        match seen.temporary.first() {
            Some(index) => Next::Drop(index.full_name.clone()),
            None => Next::Done,
        }
    }
}
