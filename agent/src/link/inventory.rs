//! Where the agent's databases are: whom to ask, when, and what to tell the leader. Pure.
//!
//! After each Welcome the leader is told what is known at once (it schedules by it), and every database is asked
//! anew: a database may have moved to another server meanwhile. Those with a problem are asked again every minute.

use runtime::clock::Boot;
use shared::id::DatabaseName;
use shared::rollout::message::Located;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long after the first answer the rest may join it in one message.
const GATHER: Duration = Duration::from_millis(100);

/// When a database with a problem is asked again.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// What is known of the databases' places.
#[derive(Debug)]
pub(super) struct Inventory {
    databases: BTreeSet<DatabaseName>,
    known: BTreeMap<DatabaseName, Located>,
    asking: BTreeSet<DatabaseName>,
    /// Answers the leader has not been told.
    unsent: BTreeSet<DatabaseName>,
    send_at: Option<Boot>,
    ask_again_at: Option<Boot>,
}

impl Inventory {
    pub(super) fn new(databases: impl IntoIterator<Item = DatabaseName>) -> Self {
        Self {
            databases: databases.into_iter().collect(),
            known: BTreeMap::new(),
            asking: BTreeSet::new(),
            unsent: BTreeSet::new(),
            send_at: None,
            ask_again_at: None,
        }
    }

    /// A leader has welcomed us: what to tell it, and whom to ask.
    pub(super) fn welcomed(&mut self) -> (Vec<Located>, Vec<DatabaseName>) {
        self.unsent = self.known.keys().cloned().collect();
        let tell = self.take_unsent();
        self.ask_again_at = None;
        let ask: Vec<_> = self.databases.difference(&self.asking).cloned().collect();
        self.asking.extend(ask.iter().cloned());
        (tell, ask)
    }

    /// Why a database could not be asked, if it could be before or for another reason.
    pub(super) fn new_problem<'a>(&self, located: &'a Located) -> Option<&'a str> {
        let problem = located.identity.as_ref().err()?;
        let before = self.known.get(&located.database);
        before
            .is_none_or(|before| before.identity.as_ref().err() != Some(problem))
            .then_some(problem)
    }

    /// A database answered, or could not be asked.
    pub(super) fn located(&mut self, located: Located, now: Boot) {
        let database = located.database.clone();
        self.asking.remove(&database);
        if located.identity.is_err() {
            self.ask_again_at.get_or_insert(now + ASK_AGAIN);
        }
        self.unsent.insert(database.clone());
        self.known.insert(database, located);
        let send_at = *self.send_at.get_or_insert(now + GATHER);
        if self.asking.is_empty() {
            self.send_at = Some(send_at.min(now));
        }
    }

    /// Time has passed, and there is a leader: what to tell it, and whom to ask again.
    pub(super) fn tick(&mut self, now: Boot) -> (Vec<Located>, Vec<DatabaseName>) {
        let tell = if self.send_at.is_some_and(|at| at <= now) {
            self.take_unsent()
        } else {
            Vec::new()
        };
        let mut ask = Vec::new();
        if self.ask_again_at.is_some_and(|at| at <= now) {
            self.ask_again_at = None;
            let problems = self
                .known
                .iter()
                .filter(|(_, located)| located.identity.is_err())
                .map(|(name, _)| name);
            ask = problems
                .filter(|name| !self.asking.contains(*name))
                .cloned()
                .collect();
            self.asking.extend(ask.iter().cloned());
        }
        (tell, ask)
    }

    /// When [`Inventory::tick`] has something to do.
    pub(super) fn wake_at(&self) -> Option<Boot> {
        [self.send_at, self.ask_again_at].into_iter().flatten().min()
    }

    fn take_unsent(&mut self) -> Vec<Located> {
        self.send_at = None;
        std::mem::take(&mut self.unsent)
            .into_iter()
            .filter_map(|database| self.known.get(&database).cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::rollout::work::Identity;

    fn at(milliseconds: u64) -> Boot {
        Boot::from_start(Duration::from_millis(milliseconds))
    }

    fn name(text: &str) -> DatabaseName {
        text.try_into().unwrap()
    }

    fn found(database: &str) -> Located {
        Located {
            database: name(database),
            identity: Ok(Identity {
                system: 1,
                database: 2,
            }),
            epoch: None,
        }
    }

    fn lost(database: &str) -> Located {
        Located::lost(name(database), "server down".to_owned())
    }

    fn inventory() -> Inventory {
        let mut inventory = Inventory::new([name("a"), name("b")]);
        assert_eq!(inventory.welcomed(), (vec![], vec![name("a"), name("b")]));
        inventory
    }

    #[test]
    fn answers_are_gathered_and_sent_once_all_are_there() {
        let mut inventory = inventory();
        inventory.located(found("a"), at(0));
        assert_eq!(inventory.tick(at(50)), (vec![], vec![]));
        inventory.located(found("b"), at(60));
        assert_eq!(inventory.tick(at(60)), (vec![found("a"), found("b")], vec![]));
        assert_eq!(inventory.wake_at(), None);
    }

    #[test]
    fn a_slow_database_does_not_hold_back_the_others() {
        let mut inventory = inventory();
        inventory.located(found("a"), at(0));
        assert_eq!(inventory.wake_at(), Some(at(100)));
        assert_eq!(inventory.tick(at(100)), (vec![found("a")], vec![]));
    }

    #[test]
    fn only_databases_with_a_problem_are_asked_again() {
        let mut inventory = inventory();
        inventory.located(found("a"), at(0));
        inventory.located(lost("b"), at(0));
        assert_eq!(inventory.tick(at(0)), (vec![found("a"), lost("b")], vec![]));
        assert_eq!(inventory.tick(at(59_999)), (vec![], vec![]));
        assert_eq!(inventory.tick(at(60_000)), (vec![], vec![name("b")]));
        assert_eq!(inventory.tick(at(200_000)), (vec![], vec![]), "it is being asked");
    }

    #[test]
    fn a_new_leader_is_told_what_is_known_and_everybody_is_asked_anew() {
        let mut inventory = inventory();
        inventory.located(found("a"), at(0));
        inventory.tick(at(100));
        assert_eq!(
            inventory.welcomed(),
            (vec![found("a")], vec![name("a")]),
            "b is still being asked"
        );
    }
}
