//! What is to be done next about indexes to be built anew, each by `REINDEX INDEX CONCURRENTLY`.
//!
//! ```text
//! as it was --build beside it--> name_ccnew, not valid --they change places--> the new one under the name, the old one
//!     ^                            |                                            as name_ccold, not valid --drop--> done
//!     +---drop, when broken off----+
//! ```
//! An index that was rebuilt is another relation with the same name. So the step remembers the oids it found when it began:
//! what has none of them any more is done, whoever did it, and is not done again after a crash.

use super::{Temporary, is_leftover_of_reindex};
use crate::name::{Ident, Table};
use crate::plan::Refusal;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Indexes to be built anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuild {
    /// Which.
    pub target: Target,
    /// How long each rebuild may wait for other sessions, in all.
    pub wait: Duration,
}

/// Which indexes are to be built anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One; where it is of a partitioned table, those of the partitions.
    Index(Table),
    /// All of a table or of its partitions; quoted in full.
    Table(String),
}

/// A relation that the name led to, or an index below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// As `pg_class.relkind` spells it.
    pub kind: String,
    /// Its table, quoted in full; its own name where it is none of an index.
    pub table: String,
    /// Whether queries use it.
    pub valid: bool,
    /// Whether it is the index of an exclusion constraint.
    pub exclusion: bool,
    /// What makes it the index it is, in the server's own words.
    pub essence: String,
    /// Its keys, in the server's own words.
    pub keys: Vec<String>,
    /// Which rows it holds, in the server's own words; all when there is none.
    pub condition: Option<String>,
    /// What it has to do with what was named.
    pub role: Role,
}

/// What a relation has to do with what the step names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is that.
    Target,
    /// An index of the table that is named, or a part of the index.
    Within,
    /// Another index of the same table.
    Beside,
}

/// What the step remembers from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// The oids of the indexes to be built anew, in order.
    pub indexes: Vec<u32>,
    /// Those of what others had left broken by then: it is not ours to drop.
    pub others: Vec<u32>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextRebuild<'a> {
    /// Nothing: all are rebuilt.
    Done,
    /// Drop this index, concurrently.
    Drop(&'a Found),
    /// Rebuild this one.
    Rebuild(&'a Found),
}

impl Found {
    /// The relation, quoted in full.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn is_leftover(&self) -> bool {
        !self.valid && is_leftover_of_reindex(self.name.as_str())
    }
}

impl Target {
    /// The name to be looked for, quoted.
    pub fn name(&self) -> String {
        match self {
            Self::Index(name) => name.to_string(),
            Self::Table(name) => name.clone(),
        }
    }
}

impl Rebuild {
    /// What the step has to remember, from what the name led to and the indexes there.
    ///
    /// # Errors
    /// When `REINDEX CONCURRENTLY` cannot do it.
    pub fn begin(&self, found: &[Found]) -> Result<Began, Refusal> {
        let Some(target) = found.iter().find(|found| found.role == Role::Target) else {
            return Err(Refusal::Input {
                what: format!("{} does not exist", self.target.name()),
                advice: Some("check the name and its schema".to_owned()),
            });
        };
        refuse_system(&target.schema)?;
        let indexes = || found.iter().filter(|found| found.kind == "i");
        match &self.target {
            Target::Index(_) => one_index(target)?,
            Target::Table(_) => {}
        }
        // Nobody uses what a broken rebuild or build left: it has its own ways to go.
        let is_used = |index: &Found| {
            let ours = Temporary::read(index.name.as_str()).is_some();
            index.role == Role::Target || !(ours || index.is_leftover())
        };
        let rebuilt: Vec<&Found> = indexes()
            .filter(|index| index.role != Role::Beside && is_used(index))
            .collect();
        if let Some(exclusion) = rebuilt.iter().find(|index| index.exclusion) {
            return Err(Refusal::Unsafe {
                what: format!(
                    "index {} enforces an exclusion constraint of {}: PostgreSQL cannot rebuild such an index while applications write",
                    exclusion.full_name(),
                    exclusion.table
                ),
                advice: Some(match self.target {
                    Target::Index(_) => "REINDEX INDEX without CONCURRENTLY can, in a `sql` step: the table is locked meanwhile".to_owned(),
                    Target::Table(_) => "rebuild the other indexes of the table, each by a `reindex` step with `index`".to_owned(),
                }),
            });
        }
        Ok(Began {
            indexes: rebuilt.iter().map(|index| index.oid).collect(),
            others: (indexes().filter(|index| index.is_leftover()))
                .map(|index| index.oid)
                .collect(),
        })
    }
}

/// Why the indexes in a schema cannot be rebuilt by their names; `None` where they can.
pub fn rebuild_refused_in(schema: &Ident) -> Option<&'static str> {
    match schema.as_str() {
        "pg_toast" => Some(
            "the index of a TOAST table cannot be named by the owner of its table: a superuser may run REINDEX TABLE CONCURRENTLY on that table, by a `sql` step",
        ),
        name if name.starts_with("pg_") || name == "information_schema" => Some(
            "PostgreSQL cannot rebuild the indexes of system catalogs while they are in use: run REINDEX by hand when nobody is at work",
        ),
        _ => None,
    }
}

/// Passes a schema whose indexes can be rebuilt by their names.
fn refuse_system(schema: &Ident) -> Result<(), Refusal> {
    match rebuild_refused_in(schema) {
        None => Ok(()),
        Some(why) => Err(Refusal::Unsafe {
            what: why.to_owned(),
            advice: None,
        }),
    }
}

fn one_index(target: &Found) -> Result<(), Refusal> {
    let refused = |what: String, advice: &str| {
        Err(Refusal::Input {
            what,
            advice: Some(advice.to_owned()),
        })
    };
    let name = target.full_name();
    if !["i", "I"].contains(&target.kind.as_str()) {
        return refused(
            format!("{name} is no index"),
            "write `table:` to rebuild all indexes of a table",
        );
    }
    if target.is_leftover() {
        return refused(
            format!("index {name} is what a broken REINDEX CONCURRENTLY left"),
            "`confiture index repair --yes` drops it; name the index itself here",
        );
    }
    Ok(())
}

impl Began {
    /// What is to be done next; `found` are all indexes of the tables in question, while nobody is at work on them for us.
    pub fn next<'a>(&self, found: &'a [Found]) -> NextRebuild<'a> {
        for oid in &self.indexes {
            let Some(index) = found.iter().find(|index| index.oid == *oid) else {
                continue;
            };
            if index.is_leftover() {
                return NextRebuild::Drop(index);
            }
            let left = found.iter().find(|left| self.is_copy(left, index));
            return left.map_or(NextRebuild::Rebuild(index), NextRebuild::Drop);
        }
        NextRebuild::Done
    }

    /// How many there are, and how many of them are done.
    pub fn progress(&self, found: &[Found]) -> (usize, usize) {
        let left = (self.indexes.iter())
            .filter(|oid| found.iter().any(|index| index.oid == **oid))
            .count();
        (self.indexes.len() - left, self.indexes.len())
    }

    /// Whether an index is what an earlier try of ours to rebuild another one left.
    fn is_copy(&self, left: &Found, index: &Found) -> bool {
        left.is_leftover()
            && !self.indexes.contains(&left.oid)
            && !self.others.contains(&left.oid)
            && left.table == index.table
            && left.essence == index.essence
            && is_copy_of(left.name.as_str(), index.name.as_str())
    }
}

/// Whether this is a name that PostgreSQL gives to a copy of an index: `name_ccnew` or `name_ccold`, with a number where
/// that was taken; the index' own part is cut off where it would be too long.
pub fn is_copy_of(copy: &str, index: &str) -> bool {
    /// A name of 63 bytes, less what a cut between characters of several bytes may leave free.
    const CUT: usize = 60;
    if !is_leftover_of_reindex(copy) {
        return false;
    }
    let stem = copy.rfind("_cc").map_or(copy, |at| &copy[..at]);
    stem == index || (index.starts_with(stem) && copy.len() >= CUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(oid: u32, name: &str, valid: bool) -> Found {
        let ident = |name: &str| Ident::exact(name).unwrap();
        Found {
            oid,
            schema: ident("public"),
            name: ident(name),
            kind: "i".to_owned(),
            table: "\"public\".\"t\"".to_owned(),
            valid,
            exclusion: false,
            essence: "USING btree (a)".to_owned(),
            keys: vec!["a".to_owned()],
            condition: None,
            role: Role::Within,
        }
    }

    fn table() -> Found {
        Found {
            kind: "r".to_owned(),
            role: Role::Target,
            ..index(1, "t", true)
        }
    }

    fn rebuild() -> Rebuild {
        Rebuild {
            target: Target::Table("\"public\".\"t\"".to_owned()),
            wait: Duration::from_secs(1),
        }
    }

    #[test]
    fn each_index_is_rebuilt_until_it_is_another_relation() {
        let (a, b) = (index(2, "a", true), index(3, "b", false));
        let began = rebuild().begin(&[table(), a.clone(), b.clone()]).unwrap();
        assert_eq!(began.indexes, [2, 3]);
        let before = [a.clone(), b.clone()];
        assert_eq!(began.next(&before), NextRebuild::Rebuild(&a));
        let after_first = [index(4, "a", true), b.clone()];
        assert_eq!(began.next(&after_first), NextRebuild::Rebuild(&b));
        assert_eq!(began.progress(&after_first), (1, 2));
        let after = [index(4, "a", true), index(5, "b", true)];
        assert_eq!(began.next(&after), NextRebuild::Done);
    }

    #[test]
    fn what_a_broken_try_left_is_dropped_and_what_others_left_stays() {
        let (a, theirs) = (index(2, "a", true), index(3, "a_ccnew", false));
        let began = rebuild().begin(&[table(), a.clone(), theirs.clone()]).unwrap();
        assert_eq!(
            (began.indexes.as_slice(), began.others.as_slice()),
            (&[2][..], &[3][..])
        );
        let found = [a.clone(), theirs.clone()];
        assert_eq!(began.next(&found), NextRebuild::Rebuild(&a));
        let ours = index(4, "a_ccnew1", false);
        let found = [a.clone(), theirs, ours.clone()];
        assert_eq!(began.next(&found), NextRebuild::Drop(&ours));
        // Of another definition, on another table, or of use: none of ours.
        for other in [
            Found {
                essence: "USING hash (a)".to_owned(),
                ..ours.clone()
            },
            Found {
                table: "\"public\".\"u\"".to_owned(),
                ..ours.clone()
            },
            Found {
                valid: true,
                ..ours.clone()
            },
            index(4, "b_ccnew", false),
        ] {
            assert_eq!(began.next(&[a.clone(), other]), NextRebuild::Rebuild(&a));
        }
    }

    #[test]
    fn an_old_one_that_has_changed_places_is_dropped_and_not_rebuilt() {
        let began = Began {
            indexes: vec![2],
            others: vec![],
        };
        let (old, new) = (index(2, "a_ccold", false), index(9, "a", true));
        let found = [old.clone(), new];
        assert_eq!(began.next(&found), NextRebuild::Drop(&old));
    }

    #[test]
    fn names_of_copies_are_known_also_where_they_are_cut_off() {
        let long = "i".repeat(63);
        assert!(is_copy_of(&format!("{}_ccnew", &long[..57]), &long));
        assert!(is_copy_of(&format!("{}_ccold12", &long[..55]), &long));
        assert!(is_copy_of("a_ccnew", "a") && is_copy_of("a_cc_ccnew3", "a_cc"));
        for (copy, index) in [
            ("a_ccnew", "ab"),
            ("ab_ccnew", "a"),
            ("a", "a"),
            ("a_ccnews", "a"),
        ] {
            assert!(!is_copy_of(copy, index), "{copy} of {index}");
        }
    }

    #[test]
    fn what_reindex_concurrently_cannot_do_is_refused() {
        let exclusion = Found {
            exclusion: true,
            ..index(2, "x", true)
        };
        let said = rebuild().begin(&[table(), exclusion]).unwrap_err().to_string();
        assert!(said.contains("\"x\" enforces an exclusion constraint"), "{said}");
        let one = Rebuild {
            target: Target::Index(Table::parse("t").unwrap()),
            ..rebuild()
        };
        assert!(
            one.begin(&[table()])
                .unwrap_err()
                .to_string()
                .contains("is no index")
        );
        assert!(one.begin(&[]).unwrap_err().to_string().contains("does not exist"));
        let left = Found {
            role: Role::Target,
            ..index(2, "a_ccnew", false)
        };
        assert!(
            one.begin(&[left])
                .unwrap_err()
                .to_string()
                .contains("REINDEX CONCURRENTLY left")
        );
    }
}
