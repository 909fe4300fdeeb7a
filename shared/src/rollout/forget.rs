//! Databases that are taken out of the inventory: they are gone, and nothing is to wait for them any more.
//!
//! Only a database that no agent serves and that no live rollout has left to do can be forgotten. Who asked and why is
//! kept until an agent serves a database of that name again: then it is simply back.

use super::assignment::Assignment;
use super::book::{Book, Change};
use super::drain::Outcome;
use super::time::Time;
use crate::id::{AgentId, DatabaseName, RolloutId};
use crate::yaml;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// That a database was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Who asked for it first.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub at: Time,
}

/// Why a database is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody knows a database of this name.
    #[error("there is no database `{given}`: {advice}")]
    Unknown {
        /// What was given.
        given: DatabaseName,
        /// The name it was probably meant to be, or where all are.
        advice: String,
    },
    /// It would be back at once.
    #[error(
        "agent {agent} serves database {database}\n  help: take it out of that agent's settings and start the agent again; of an agent that is gone, wait until its lease has ended"
    )]
    Served {
        /// Which.
        database: DatabaseName,
        /// Who does.
        agent: AgentId,
    },
    /// A rollout would wait for it for ever.
    #[error(
        "rollout {rollout} is not finished with database {database}\n  help: leave it out there with `confiture rollout skip {rollout} {database}`, or abort that rollout; then forget it"
    )]
    Unfinished {
        /// Which.
        database: DatabaseName,
        /// The rollout.
        rollout: RolloutId,
    },
}

impl Book {
    /// Takes a database out of the inventory. One that is forgotten already stays as it was.
    ///
    /// # Errors
    /// When it is not known, served by an agent with a lease, or a live rollout is not finished with it.
    pub fn forget_database(
        &mut self,
        database: &DatabaseName,
        forgotten: Forgotten,
    ) -> Result<(Outcome, Vec<Change>), Error> {
        let fleet = self.fleet();
        if !fleet.databases().contains_key(database) {
            return if fleet.forgotten().contains_key(database) {
                Ok((Outcome::AlreadySo, Vec::new()))
            } else {
                Err(self.unknown(database))
            };
        }
        // Who said goodbye serves nothing any more, though its lease lives on for a while.
        let serves = |agent: &&AgentId| !fleet.goodbyes().contains(*agent);
        if let Some(agent) = fleet.claims(database).map(|(agent, _)| agent).find(serves) {
            return Err(Error::Served {
                database: database.clone(),
                agent: agent.clone(),
            });
        }
        let has_left = |rollout: &&super::Rollout| {
            let assignment = rollout.assignments().get(database);
            // What failed may be tried again.
            assignment.is_some_and(|assignment| {
                !assignment.is_over() || matches!(assignment, Assignment::Failed { .. })
            })
        };
        if let Some(rollout) = self.live().into_iter().find(has_left) {
            return Err(Error::Unfinished {
                database: database.clone(),
                rollout: rollout.spec().id.clone(),
            });
        }
        Arc::make_mut(&mut self.fleet).forget(database, forgotten);
        Ok((Outcome::Changed, vec![Change::Forgotten(database.clone())]))
    }

    fn unknown(&self, given: &DatabaseName) -> Error {
        let known = self.fleet().databases().keys().map(DatabaseName::as_str);
        let advice = match yaml::nearest(given.as_str(), known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`confiture fleet databases` shows all".to_owned(),
        };
        Error::Unknown {
            given: given.clone(),
            advice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::sample::{agent, database, hello};
    use crate::rollout::{Policy, sample};
    use std::collections::BTreeMap;

    fn forgotten(by: &str) -> Forgotten {
        Forgotten {
            by: by.to_owned(),
            reason: "dropped".to_owned(),
            at: Time(1),
        }
    }

    /// A book whose only agent has gone for good.
    fn abandoned(databases: &[&str]) -> Book {
        let mut book = Book::default();
        book.attach(&hello("x", databases.iter().copied()), 1, Time(0));
        book.detach(&agent("x"), Time(0));
        book.leases(&BTreeMap::new());
        book
    }

    #[test]
    fn what_nobody_serves_is_forgotten_once_and_comes_back_with_its_agent() {
        let mut book = abandoned(&["a"]);
        let mut ask = |by| book.forget_database(&database("a"), forgotten(by)).unwrap();
        assert_eq!(
            ask("ada"),
            (Outcome::Changed, vec![Change::Forgotten(database("a"))])
        );
        assert_eq!(ask("bob"), (Outcome::AlreadySo, Vec::new()));
        assert!(book.fleet().databases().is_empty());
        assert_eq!(book.fleet().forgotten()[&database("a")].by, "ada");
        let changes = book.attach(&hello("x", ["a"]), 2, Time(2));
        assert!(changes.contains(&Change::Database(database("a"))), "{changes:?}");
        assert!(changes.contains(&Change::Forgotten(database("a"))), "{changes:?}");
        assert!(book.fleet().forgotten().is_empty());
        assert!(book.fleet().databases().contains_key(&database("a")));
    }

    #[test]
    fn what_is_served_or_left_to_do_is_not_forgotten() {
        let mut book = Book::default();
        book.attach(&hello("x", ["a"]), 1, Time(0));
        let refused = |book: &mut Book, name: &str| {
            book.forget_database(&database(name), forgotten("ada"))
                .unwrap_err()
        };
        let served = refused(&mut book, "a");
        assert!(matches!(served, Error::Served { .. }), "{served}");
        let mut book = abandoned(&["orders"]);
        book.found(sample::rollout(1, &["orders"], Policy::default()).spec().clone());
        let unfinished = refused(&mut book, "orders");
        assert!(matches!(unfinished, Error::Unfinished { .. }), "{unfinished}");
        let unknown = refused(&mut book, "oders");
        assert!(
            unknown.to_string().ends_with("did you mean `orders`?"),
            "{unknown}"
        );
    }
}
