//! What is to be done next about an index to be built.

use super::{Definition, Kind, Next, Present, Purpose, Seen, Temporary, Worker};
use crate::fence::Fence;
use crate::name::Ident;
use crate::plan::Refusal;
use crate::sql;
use std::time::Duration;

/// An index to be built, on one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    /// The table's schema, and the index'.
    pub schema: Ident,
    /// The table.
    pub table: Ident,
    /// The index.
    pub name: Ident,
    /// What it is.
    pub definition: Definition,
    /// What it becomes when it is built.
    pub published: Published,
    /// How long it may wait for other sessions, in all.
    pub wait: Duration,
}

/// What an index becomes when it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// An index.
    Index,
    /// The index of a unique constraint.
    Constraint,
    /// A part of the index of a partitioned table.
    Part {
        /// That index, quoted in full.
        of: String,
    },
}

impl Create {
    /// The table, quoted in full.
    pub fn full_table(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The index, quoted in full.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The names it has while it is built.
    pub fn temporary(&self) -> Temporary {
        Temporary::of(Purpose::Build, &self.full_name())
    }

    /// The statement that builds it under a name.
    pub fn statement(&self, name: &Ident) -> String {
        sql::index::create(name, &self.full_table(), &self.definition)
    }

    /// As people know the statement that creates it.
    fn wanted(&self, essence: &str) -> String {
        let (unique, rest) = match essence.strip_prefix("UNIQUE ") {
            Some(rest) => ("UNIQUE ", rest),
            None => ("", essence),
        };
        format!(
            "CREATE {unique}INDEX {} ON {} {rest}",
            self.name,
            self.full_table()
        )
    }

    /// What is to be done next.
    pub fn next(&self, seen: &Seen) -> Next {
        if let Some(named) = &seen.named {
            return match self.standing(named, seen) {
                Ok(()) => seen.leftover().unwrap_or(Next::Done),
                Err(refusal) => Next::Refuse(refusal),
            };
        }
        if let Some(other) = seen.workers.iter().find(|worker| !self.is_mine(worker)) {
            return Next::Cancel(other.clone());
        }
        if !seen.workers.is_empty() {
            return Next::Adopt;
        }
        let usable = |index: &&Present| {
            index.valid && index.essence == seen.wanted && index.table == self.full_table()
        };
        let Some(built) = seen.temporary.iter().find(usable) else {
            return seen.leftover().unwrap_or(Next::Build);
        };
        match seen.temporary.iter().find(|index| index.name != built.name) {
            Some(other) => Next::Drop(other.full_name.clone()),
            None => Next::Publish(built.full_name.clone()),
        }
    }

    /// Passes when nothing has the final name, or an index of a partitioned table that is what was asked for, be it valid
    /// or not: with its last partition it becomes so.
    ///
    /// # Errors
    /// When it is something else.
    pub fn may_go_on(&self, seen: &Seen) -> Result<(), Refusal> {
        let Some(named) = &seen.named else {
            return Ok(());
        };
        let as_if_valid = Present {
            valid: true,
            ..named.clone()
        };
        self.standing(&as_if_valid, seen)
    }

    /// Passes when what has the final name is what was asked for.
    fn standing(&self, named: &Present, seen: &Seen) -> Result<(), Refusal> {
        if named.kind == Kind::Other {
            return Err(Refusal::Input {
                what: format!("{} is there already, and is no index", named.full_name),
                advice: Some("choose another name for the index".to_owned()),
            });
        }
        let is_constraint = named.unique && named.constraint.as_deref() == Some(self.name.as_str());
        let fits = match self.published {
            Published::Index | Published::Part { .. } => true,
            Published::Constraint => is_constraint,
        };
        if named.table != self.full_table() || named.essence != seen.wanted || !fits {
            let wanted = match self.published {
                Published::Index | Published::Part { .. } => self.wanted(&seen.wanted),
                Published::Constraint => format!(
                    "ALTER TABLE {} ADD CONSTRAINT {} UNIQUE, by {}",
                    self.full_table(),
                    self.name,
                    self.wanted(&seen.wanted)
                ),
            };
            return Err(Refusal::Unsafe {
                what: format!(
                    "index {} is there already, with another definition\n  is:     {}\n  wanted: {wanted}",
                    named.full_name, named.definition,
                ),
                advice: Some(
                    "choose another name; or drop the one that is there with a `drop_index` step first; or write the step as the index is"
                        .to_owned(),
                ),
            });
        }
        if !named.valid {
            return Err(Refusal::Unsafe {
                what: format!(
                    "index {} is there already, with this definition, but is not valid: a build by somebody else was broken off, or is at work",
                    named.full_name
                ),
                advice: Some(
                    "`confiture index progress` shows builds at work; if there is none, `confiture index repair --yes` drops and rebuilds it"
                        .to_owned(),
                ),
            });
        }
        Ok(())
    }

    /// Whether a backend builds this very index, or drops a leftover of it. A statement may be cut off at its end.
    fn is_mine(&self, worker: &Worker) -> bool {
        let start = self.temporary();
        let Some(name) = worker
            .statement
            .find(start.start())
            .and_then(|at| worker.statement[at..].split('"').next())
            .and_then(|name| Ident::exact(name).ok())
        else {
            return true;
        };
        !worker.statement.starts_with("CREATE")
            || self.statement(&name).starts_with(worker.statement.trim_end())
    }

    /// The name under which a run with this fence builds it.
    pub fn name_for(&self, fence: Fence) -> Ident {
        self.temporary().name(fence)
    }
}

impl Seen {
    /// An index under a name of ours that is of no use.
    fn leftover(&self) -> Option<Next> {
        if self.workers.is_empty() {
            self.temporary
                .first()
                .map(|index| Next::Drop(index.full_name.clone()))
        } else {
            Some(Next::Adopt)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Element;

    const WANTED: &str = "USING btree (a)";

    fn create() -> Create {
        let ident = |name| Ident::parse(name).unwrap();
        Create {
            schema: ident("public"),
            table: ident("t"),
            name: ident("t_a"),
            definition: Definition {
                elements: vec![Element::of(ident("a"))],
                ..Definition::default()
            },
            published: Published::Index,
            wait: Duration::from_secs(1),
        }
    }

    fn fence(local: i64) -> Fence {
        Fence {
            epoch: 0,
            token: 0,
            local,
        }
    }

    fn present(name: &str, valid: bool) -> Present {
        Present {
            full_name: format!("\"public\".\"{name}\""),
            name: name.to_owned(),
            kind: Kind::Index,
            valid,
            essence: WANTED.to_owned(),
            definition: format!("CREATE INDEX {name} ON public.t {WANTED}"),
            table: "\"public\".\"t\"".to_owned(),
            constraint: None,
            unique: false,
            part_of: None,
            replica_identity: false,
        }
    }

    fn temporary(local: i64, valid: bool) -> Present {
        present(create().name_for(fence(local)).as_str(), valid)
    }

    fn worker(statement: String) -> Worker {
        Worker { pid: 7, statement }
    }

    fn seen(named: Option<Present>, temporary: Vec<Present>, workers: Vec<Worker>) -> Seen {
        Seen {
            named,
            temporary,
            workers,
            wanted: WANTED.to_owned(),
        }
    }

    #[test]
    fn nothing_there_is_built_and_what_is_built_is_published() {
        assert_eq!(create().next(&seen(None, vec![], vec![])), Next::Build);
        let built = temporary(1, true);
        let next = create().next(&seen(None, vec![built.clone()], vec![]));
        assert_eq!(next, Next::Publish(built.full_name));
        assert_eq!(
            create().next(&seen(Some(present("t_a", true)), vec![], vec![])),
            Next::Done
        );
    }

    #[test]
    fn an_invalid_leftover_is_dropped_before_anything_is_built() {
        let left = temporary(1, false);
        let next = create().next(&seen(None, vec![left.clone()], vec![]));
        assert_eq!(next, Next::Drop(left.full_name.clone()));
        let next = create().next(&seen(None, vec![left.clone(), temporary(2, true)], vec![]));
        assert_eq!(next, Next::Drop(left.full_name));
    }

    #[test]
    fn a_build_at_work_is_adopted_also_where_its_statement_is_cut_off() {
        let whole = create().statement(&create().name_for(fence(1)));
        let cut = whole[..whole.len() - 3].to_owned();
        for statement in [whole, cut, "DROP INDEX CONCURRENTLY x".to_owned()] {
            let next = create().next(&seen(None, vec![temporary(1, false)], vec![worker(statement)]));
            assert_eq!(next, Next::Adopt);
        }
    }

    #[test]
    fn a_build_of_another_definition_is_ended() {
        let mut other = create();
        other.definition.unique = true;
        let worker = worker(other.statement(&create().name_for(fence(1))));
        let next = create().next(&seen(None, vec![], vec![worker.clone()]));
        assert_eq!(next, Next::Cancel(worker));
    }

    #[test]
    fn what_has_the_name_and_is_something_else_is_refused_with_both() {
        let mut other = present("t_a", true);
        other.essence = "USING hash (a)".to_owned();
        let Next::Refuse(Refusal::Unsafe { what, .. }) = create().next(&seen(Some(other), vec![], vec![]))
        else {
            panic!("it was not refused");
        };
        assert!(
            what.contains("is:     CREATE INDEX t_a") && what.contains("wanted: CREATE INDEX \"t_a\""),
            "{what}"
        );
        let invalid = create().next(&seen(Some(present("t_a", false)), vec![], vec![]));
        assert!(
            matches!(invalid, Next::Refuse(Refusal::Unsafe { advice: Some(advice), .. }) if advice.contains("confiture index repair"))
        );
    }
}
