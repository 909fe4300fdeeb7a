//! What becomes of an index that no query uses.

use super::{Purpose, Temporary};

/// An index that is not valid, or has a name of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Schema and name, quoted for SQL.
    pub full_name: String,
    /// Its table, quoted in full.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The statement that would create it, in the server's own words.
    pub definition: String,
    /// Whether queries use it.
    pub valid: bool,
    /// Whether it is of a partitioned table.
    pub partitioned: bool,
    /// Whether somebody is at work on its table, or on it.
    pub busy: bool,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Drop it, concurrently.
    Drop {
        /// What it is, for people.
        what: &'static str,
    },
    /// Build it anew beside itself, and let it change places.
    Rebuild,
    /// Leave it.
    Leave {
        /// Why, for people.
        why: &'static str,
    },
}

impl Broken {
    /// Whether it is of a run of ours.
    pub fn is_ours(&self) -> bool {
        Temporary::read(&self.name).is_some()
    }

    /// What is to be done about it.
    pub fn repair(&self) -> Repair {
        if self.busy {
            return Repair::Leave {
                why: "somebody is at work on it or on its table: see `confiture index progress`",
            };
        }
        match Temporary::read(&self.name).map(|(purpose, _)| purpose) {
            Some(Purpose::Build) if self.valid => Repair::Leave {
                why: "a run of ours built it and has not published it yet: the next run of its migration does",
            },
            Some(Purpose::Build) => Repair::Drop {
                what: "left by a build of ours, which the next run of its migration begins again",
            },
            Some(Purpose::Drop) => Repair::Drop {
                what: "given up by a run of ours",
            },
            None if self.partitioned => Repair::Leave {
                why: "an index of a partitioned table is valid once each partition has its part: a `create_index` step with its name and definition completes it",
            },
            None if is_leftover_of_reindex(&self.name) => Repair::Drop {
                what: "left by a REINDEX CONCURRENTLY; the index itself is there",
            },
            None => Repair::Rebuild,
        }
    }
}

/// `name_ccnew`, `name_ccold`, with a number where that was taken.
pub(super) fn is_leftover_of_reindex(name: &str) -> bool {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.ends_with("_ccnew") || name.ends_with("_ccold")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(name: &str) -> Broken {
        Broken {
            full_name: format!("public.{name}"),
            table: "public.t".to_owned(),
            name: name.to_owned(),
            definition: String::new(),
            valid: false,
            partitioned: false,
            busy: false,
        }
    }

    #[test]
    fn leftovers_are_dropped_and_others_are_rebuilt() {
        for name in [
            "confiture_b_0123abcd_1_2_3",
            "confiture_d_0123abcd_1_2_3",
            "i_ccnew",
            "i_ccold2",
        ] {
            assert!(matches!(broken(name).repair(), Repair::Drop { .. }), "{name}");
        }
        assert_eq!(broken("confiture_b_x").repair(), Repair::Rebuild);
        assert_eq!(broken("ccnew").repair(), Repair::Rebuild);
    }

    #[test]
    fn what_somebody_works_on_or_is_of_use_stays() {
        let busy = Broken {
            busy: true,
            ..broken("i")
        };
        let built = Broken {
            valid: true,
            ..broken("confiture_b_0123abcd_1_2_3")
        };
        for index in [
            busy,
            built,
            Broken {
                partitioned: true,
                ..broken("p")
            },
        ] {
            assert!(matches!(index.repair(), Repair::Leave { .. }), "{index:?}");
        }
    }
}
