//! Inquiries under way, and what each database looked like when it was surveyed last. In memory only: how a database is, is
//! for the agent to say, not for the store.
//!
//! Answers come on the agents' streams and go straight to whoever asked; the reign only says who is to be asked, so rollouts
//! wait for nothing here.

use shared::id::{AgentId, DatabaseName};
use shared::inquiry::{Answer, Inquiry};
use shared::survey::Survey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What an agent said about a database.
pub(crate) type Answered = (AgentId, DatabaseName, Result<Answer, String>);

/// Who is asked about each database, or why nobody is; some are asked of several agents.
pub(crate) type Asked = Vec<(DatabaseName, Result<AgentId, String>)>;

/// When agents say nothing for so long they are silent, all that have not answered: databases take turns.
const SILENCE: Duration = Duration::from_secs(25);

/// The same where an agent need ask no database.
const SHORT_SILENCE: Duration = Duration::from_secs(5);

/// What came of the question about one database.
pub(crate) struct Found {
    pub(crate) database: DatabaseName,
    /// Who was asked.
    pub(crate) agent: Option<AgentId>,
    /// The answer, or why there is none, for people.
    pub(crate) result: Result<Answer, String>,
}

/// All inquiries of this coordinator.
#[derive(Default)]
pub(crate) struct Inquiries(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the last inquiry.
    last: u64,
    waiting: BTreeMap<u64, mpsc::Sender<Answered>>,
    known: BTreeMap<DatabaseName, (Instant, Survey)>,
}

/// One inquiry; it is over when this is dropped.
pub(crate) struct Asking {
    inquiries: Arc<Inquiries>,
    pub(crate) number: u64,
    silence: Duration,
    answers: mpsc::Receiver<Answered>,
}

impl Inquiries {
    /// Begins an inquiry that has so many answers. Of databases that are no more, the last surveys are forgotten.
    pub(crate) fn begin(
        self: &Arc<Self>,
        what: &Inquiry,
        answers: usize,
        fleet: &BTreeSet<DatabaseName>,
    ) -> Asking {
        // Each comes once, so nothing waits for room; what an agent says more than that is dropped.
        let (sender, answers) = mpsc::channel(answers.max(1));
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, sender);
        state.known.retain(|database, _| fleet.contains(database));
        Asking {
            inquiries: self.clone(),
            number,
            silence: match what {
                Inquiry::Survey(_) | Inquiry::Plan { .. } | Inquiry::Check(_) => SILENCE,
                Inquiry::Pools => SHORT_SILENCE,
            },
            answers,
        }
    }

    /// An agent has answered. Late answers and those to nobody are dropped.
    pub(crate) fn answer(
        &self,
        inquiry: u64,
        agent: AgentId,
        database: DatabaseName,
        result: Result<Answer, String>,
    ) {
        let mut state = self.state();
        let Some(sender) = state.waiting.get(&inquiry).cloned() else {
            return;
        };
        if let Ok(Answer::Survey(found)) = &result {
            let found = Survey {
                schema: None,
                ..found.clone()
            };
            state.known.insert(database.clone(), (Instant::now(), found));
        }
        // Whoever asked may have gone.
        let _ = sender.try_send((agent, database, result));
    }

    /// What a database looked like last, without its schema, and how old that is.
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

impl Asking {
    /// Passes answers on until all are there, those that miss are silent, or nobody listens any more.
    pub(crate) async fn collect(mut self, asked: Asked, longest: Duration, outbox: mpsc::Sender<Found>) {
        let mut open = BTreeSet::new();
        for (database, asked) in asked {
            match asked {
                Ok(agent) => {
                    open.insert((database, agent));
                }
                Err(problem) => {
                    let found = Found {
                        database,
                        agent: None,
                        result: Err(problem),
                    };
                    if outbox.send(found).await.is_err() {
                        return;
                    }
                }
            }
        }
        let end = tokio::time::Instant::now() + longest;
        while !open.is_empty() {
            let until = end.min(tokio::time::Instant::now() + self.silence);
            let answer = tokio::time::timeout_at(until, self.answers.recv()).await;
            let Ok(Some((agent, database, result))) = answer else {
                break;
            };
            let question = (database, agent);
            if !open.remove(&question) {
                continue;
            }
            let (database, agent) = question;
            let found = Found {
                database,
                agent: Some(agent),
                result,
            };
            if outbox.send(found).await.is_err() {
                return;
            }
        }
        for (database, agent) in open {
            let problem = format!(
                "agent {agent} did not answer in time: its program may be too old for this question (`confiture fleet agents` shows versions), else see its log"
            );
            let found = Found {
                database,
                agent: Some(agent),
                result: Err(problem),
            };
            if outbox.send(found).await.is_err() {
                return;
            }
        }
    }

    /// All answers together.
    pub(crate) async fn all(self, asked: Asked, longest: Duration) -> Vec<Found> {
        let (outbox, mut found) = mpsc::channel(asked.len().max(1));
        self.collect(asked, longest, outbox).await;
        let mut all = Vec::new();
        while let Some(one) = found.recv().await {
            all.push(one);
        }
        all
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.inquiries.state().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::pool::Pools;
    use shared::survey::{Detail, Schema};

    const SURVEY: Inquiry = Inquiry::Survey(Detail::Fingerprint);

    fn agent(text: &str) -> AgentId {
        text.try_into().unwrap()
    }

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

    fn surveyed() -> Answer {
        Answer::Survey(survey())
    }

    fn fleet() -> BTreeSet<DatabaseName> {
        BTreeSet::from([name("a"), name("b")])
    }

    #[test]
    fn an_answer_reaches_its_own_inquiry_only() {
        let inquiries = Arc::new(Inquiries::default());
        let mut one = inquiries.begin(&SURVEY, 1, &fleet());
        let mut other = inquiries.begin(&SURVEY, 1, &fleet());
        inquiries.answer(one.number, agent("x"), name("a"), Ok(surveyed()));
        assert_eq!(one.answers.try_recv().unwrap().1, name("a"));
        assert!(other.answers.try_recv().is_err());
        let number = one.number;
        drop(one);
        inquiries.answer(number, agent("x"), name("b"), Ok(surveyed()));
        assert!(inquiries.last(&name("b")).is_none(), "nobody asked any more");
    }

    #[test]
    fn an_agent_that_answers_again_and_again_fills_nothing() {
        let inquiries = Arc::new(Inquiries::default());
        let mut asking = inquiries.begin(&SURVEY, 2, &fleet());
        for _ in 0..100 {
            inquiries.answer(asking.number, agent("x"), name("a"), Ok(surveyed()));
        }
        let answers = std::iter::from_fn(|| asking.answers.try_recv().ok());
        assert_eq!(answers.count(), 2);
    }

    #[test]
    fn the_last_answer_stays_through_a_failure_until_its_database_is_gone() {
        let inquiries = Arc::new(Inquiries::default());
        let asking = inquiries.begin(&SURVEY, 1, &fleet());
        inquiries.answer(asking.number, agent("x"), name("a"), Ok(surveyed()));
        inquiries.answer(asking.number, agent("x"), name("a"), Err("down".to_owned()));
        let (_, last) = inquiries.last(&name("a")).unwrap();
        assert_eq!((last.fingerprint, last.schema), (survey().fingerprint, None));
        drop(inquiries.begin(&SURVEY, 1, &BTreeSet::from([name("b")])));
        assert!(inquiries.last(&name("a")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn each_agent_of_a_database_is_heard_and_one_that_is_silent_is_told_apart() {
        let inquiries = Arc::new(Inquiries::default());
        let asking = inquiries.begin(&Inquiry::Pools, 3, &fleet());
        let number = asking.number;
        for of in ["x", "y", "not asked"] {
            let of = of.replace(' ', "-");
            inquiries.answer(number, agent(&of), name("a"), Ok(Answer::Pools(Pools::default())));
        }
        let asked = vec![
            (name("a"), Ok(agent("x"))),
            (name("a"), Ok(agent("y"))),
            (name("a"), Ok(agent("old"))),
            (name("b"), Err("nobody serves it".to_owned())),
        ];
        let found = asking.all(asked, Duration::from_mins(1)).await;
        let told: Vec<_> = found
            .iter()
            .map(|found| {
                let agent = found.agent.as_ref().map_or("-", AgentId::as_str);
                (found.database.as_str(), agent, found.result.is_ok())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("b", "-", false),
                ("a", "x", true),
                ("a", "y", true),
                ("a", "old", false)
            ]
        );
        let problem = found[3].result.as_ref().unwrap_err();
        assert!(problem.contains("too old for this question"), "{problem}");
    }
}
