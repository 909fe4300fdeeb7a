//! Surveys under way, and the last answer of each database. In memory only: what a database looks like is for the agent to
//! say, not for the store.
//!
//! Answers come on the agents' streams and go straight to whoever asked; the reign only says who is to be asked, so rollouts
//! wait for nothing here.

use shared::id::DatabaseName;
use shared::survey::Survey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What an agent said about a database.
pub(crate) type Answer = (DatabaseName, Result<Survey, String>);

/// All surveys of this coordinator.
#[derive(Default)]
pub(crate) struct Surveys(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the last survey.
    last: u64,
    waiting: BTreeMap<u64, mpsc::Sender<Answer>>,
    known: BTreeMap<DatabaseName, (Instant, Survey)>,
}

/// One survey; it is over when this is dropped.
pub(crate) struct Asking {
    surveys: Arc<Surveys>,
    pub(crate) number: u64,
    pub(crate) answers: mpsc::Receiver<Answer>,
}

impl Surveys {
    /// Begins a survey of so many databases. Of those that are no more, the last answers are forgotten.
    pub(crate) fn begin(self: &Arc<Self>, databases: usize, fleet: &BTreeSet<DatabaseName>) -> Asking {
        // Each answers once, so nothing waits for room; what an agent says more than that is dropped.
        let (sender, answers) = mpsc::channel(databases.max(1));
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, sender);
        state.known.retain(|database, _| fleet.contains(database));
        Asking {
            surveys: self.clone(),
            number,
            answers,
        }
    }

    /// An agent has answered. Late answers and those to nobody are dropped.
    pub(crate) fn answer(&self, survey: u64, database: DatabaseName, result: Result<Survey, String>) {
        let mut state = self.state();
        let Some(sender) = state.waiting.get(&survey).cloned() else {
            return;
        };
        if let Ok(found) = &result {
            let found = Survey {
                schema: None,
                ..found.clone()
            };
            state.known.insert(database.clone(), (Instant::now(), found));
        }
        // Whoever asked may have gone.
        let _ = sender.try_send((database, result));
    }

    /// The last answer of a database, without its schema, and how old it is.
    pub(crate) fn last(&self, database: &DatabaseName) -> Option<(Duration, Survey)> {
        let state = self.state();
        let (at, survey) = state.known.get(database)?;
        Some((at.elapsed(), survey.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.surveys.state().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::survey::Schema;

    fn name(text: &str) -> DatabaseName {
        text.try_into().unwrap()
    }

    fn survey() -> Survey {
        let schema = Schema::default();
        Survey {
            fingerprint: schema.fingerprint(),
            sets: Vec::new(),
            schema: Some(schema),
        }
    }

    fn fleet() -> BTreeSet<DatabaseName> {
        BTreeSet::from([name("a"), name("b")])
    }

    #[test]
    fn an_answer_reaches_its_own_survey_only() {
        let surveys = Arc::new(Surveys::default());
        let mut one = surveys.begin(1, &fleet());
        let mut other = surveys.begin(1, &fleet());
        surveys.answer(one.number, name("a"), Ok(survey()));
        assert_eq!(one.answers.try_recv().unwrap().0, name("a"));
        assert!(other.answers.try_recv().is_err());
        let number = one.number;
        drop(one);
        surveys.answer(number, name("b"), Ok(survey()));
        assert!(surveys.last(&name("b")).is_none(), "nobody asked any more");
    }

    #[test]
    fn an_agent_that_answers_again_and_again_fills_nothing() {
        let surveys = Arc::new(Surveys::default());
        let mut asking = surveys.begin(2, &fleet());
        for _ in 0..100 {
            surveys.answer(asking.number, name("a"), Ok(survey()));
        }
        let answers = std::iter::from_fn(|| asking.answers.try_recv().ok());
        assert_eq!(answers.count(), 2);
    }

    #[test]
    fn the_last_answer_stays_through_a_failure_until_its_database_is_gone() {
        let surveys = Arc::new(Surveys::default());
        let asking = surveys.begin(1, &fleet());
        surveys.answer(asking.number, name("a"), Ok(survey()));
        surveys.answer(asking.number, name("a"), Err("down".to_owned()));
        let (_, last) = surveys.last(&name("a")).unwrap();
        assert_eq!((last.fingerprint, last.schema), (survey().fingerprint, None));
        drop(surveys.begin(1, &BTreeSet::from([name("b")])));
        assert!(surveys.last(&name("a")).is_none());
    }
}
