//! Checks after a wave: asked beside the reign, of its agents and of Prometheus servers, and answered to it.
//!
//! What has no answer is asked again a few times, since agents find a new leader within seconds; then the rollout waits for
//! someone to look at it.

mod prometheus;

use super::{Reign, Round};
use crate::chain::chain;
use crate::inquiries::{self, Asking, Found};
use shared::id::{DatabaseName, RolloutId};
use shared::inquiry::{Answer, Checked, Inquiry};
use shared::rollout::Time;
use shared::rollout::book::Checks;
use shared::rollout::event::Verdict;
use shared::rollout::policy::{Asks, Check};
use std::time::Duration;

/// How often what has no answer is asked.
const TRIES: u32 = 4;

/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// A check of so many databases ends after this, whatever is missing.
const LONGEST: Duration = Duration::from_mins(10);

/// Databases that are named before the rest is only counted.
const NAMED: usize = 3;

/// The checks of one wave, once they were asked.
pub(super) struct Asked {
    rollout: RolloutId,
    wave: usize,
    outcome: Outcome,
}

/// What came of the checks of a wave.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// One does not hold, or its query is wrong.
    Fails(String),
    /// All hold that have an answer.
    NoAnswer(String),
}

/// A check on its way.
enum Question {
    Agents(Asking, inquiries::Asked),
    Prometheus,
}

impl Reign {
    /// Asks what is to be checked now.
    pub(super) fn begin_checks(&mut self, now: Time) {
        for checks in self.book.begin_checks(now) {
            let Checks {
                rollout,
                wave,
                checks,
                databases,
            } = checks;
            tracing::info!(%rollout, wave, checks = checks.len(), databases = databases.len(), "checks are asked");
            let questions: Vec<_> = (checks.into_iter())
                .map(|check| (self.question(&check, &databases), check))
                .collect();
            self.checks.spawn(async move {
                let outcome = ask(questions).await;
                if let Outcome::NoAnswer(_) = outcome {
                    tokio::time::sleep(PAUSE).await;
                }
                Asked {
                    rollout,
                    wave,
                    outcome,
                }
            });
        }
    }

    fn question(&mut self, check: &Check, databases: &[DatabaseName]) -> Question {
        match &check.asks {
            Asks::Prometheus { .. } => Question::Prometheus,
            Asks::Sql(query) => {
                let known = self.book.fleet().databases().keys().cloned().collect();
                let what = Inquiry::Check(query.clone());
                let asking = self.inquiries.begin(&what, databases.len(), &known);
                let asked = self.inquire(asking.number, databases.to_vec(), &what, None);
                Question::Agents(asking, asked)
            }
        }
    }

    /// Takes what came of checks into the book; what has no answer is asked again.
    pub(super) fn checked(&mut self, asked: Asked, now: Time, round: &mut Round) {
        let Asked {
            rollout,
            wave,
            outcome,
        } = asked;
        let tries = self.tries.entry((rollout.clone(), wave)).or_default();
        *tries += 1;
        let verdict = match outcome {
            Outcome::NoAnswer(why) if *tries < TRIES => {
                tracing::warn!(%rollout, wave, why, "a check has no answer; it is asked again");
                return self.book.ask_checks_again(&rollout);
            }
            Outcome::Passed => Verdict::Passed,
            Outcome::Fails(why) | Outcome::NoAnswer(why) => Verdict::NotPassed(why),
        };
        self.tries.remove(&(rollout.clone(), wave));
        tracing::info!(%rollout, wave, ?verdict, "checks were asked");
        round
            .changes
            .extend(self.book.checked(&rollout, wave, verdict, now));
    }
}

/// Waits for all answers.
async fn ask(questions: Vec<(Question, Check)>) -> Outcome {
    let mut no_answer = None;
    for (question, check) in questions {
        let outcome = match (question, &check.asks) {
            (Question::Agents(asking, asked), _) => of_agents(&check.name, asking.all(asked, LONGEST).await),
            (
                Question::Prometheus,
                Asks::Prometheus {
                    server,
                    expression,
                    condition,
                },
            ) => match prometheus::ask(server, expression).await {
                Ok(values) => match values.iter().find(|value| !condition.holds(**value)) {
                    Some(value) => Outcome::Fails(format!(
                        "check `{}` does not hold: {value} is not {condition}",
                        check.name
                    )),
                    None => Outcome::Passed,
                },
                Err(error) => {
                    Outcome::NoAnswer(format!("check `{}` has no answer: {}", check.name, chain(&error)))
                }
            },
            (Question::Prometheus, Asks::Sql(_)) => Outcome::Passed,
        };
        match outcome {
            Outcome::Passed => {}
            Outcome::Fails(why) => return Outcome::Fails(why),
            Outcome::NoAnswer(why) => {
                no_answer.get_or_insert(why);
            }
        }
    }
    no_answer.map_or(Outcome::Passed, Outcome::NoAnswer)
}

fn of_agents(check: &str, found: Vec<Found>) -> Outcome {
    let (mut failing, mut silent, mut why) = (Vec::new(), Vec::new(), None);
    let (mut wrong, mut mistake) = (Vec::new(), None);
    for Found { database, result, .. } in found {
        match result {
            Ok(Answer::Check(Checked::Holds)) => {}
            Ok(Answer::Check(Checked::Fails)) => failing.push(database),
            Ok(Answer::Check(Checked::Wrong(said))) => {
                mistake.get_or_insert(said);
                wrong.push(database);
            }
            Ok(Answer::Survey(_) | Answer::Plan(_) | Answer::Pools(_)) => silent.push(database),
            Err(problem) => {
                why.get_or_insert(problem);
                silent.push(database);
            }
        }
    }
    if !failing.is_empty() {
        return Outcome::Fails(format!("check `{check}` does not hold on {}", names(&failing)));
    }
    // Asked again it would be as wrong.
    if let Some(said) = mistake {
        let said = in_one_line(&said);
        return Outcome::Fails(format!(
            "the query of check `{check}` is wrong on {}: {said}",
            names(&wrong)
        ));
    }
    if silent.is_empty() {
        return Outcome::Passed;
    }
    let why = why.map_or(String::new(), |why| format!(" ({why})"));
    Outcome::NoAnswer(format!(
        "check `{check}` has no answer from {}{why}",
        names(&silent)
    ))
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn names(databases: &[DatabaseName]) -> String {
    let named: Vec<_> = databases.iter().take(NAMED).map(DatabaseName::as_str).collect();
    match databases.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(database: &str, result: Result<bool, &str>) -> Found {
        let checked = |holds| if holds { Checked::Holds } else { Checked::Fails };
        Found {
            database: database.try_into().unwrap(),
            agent: None,
            result: (result.map(checked).map(Answer::Check)).map_err(str::to_owned),
        }
    }

    #[test]
    fn a_check_passes_when_it_holds_on_all_databases() {
        let all = vec![found("a", Ok(true)), found("b", Ok(true))];
        assert_eq!(of_agents("whole", all), Outcome::Passed);
        assert_eq!(of_agents("whole", Vec::new()), Outcome::Passed);
    }

    #[test]
    fn a_query_that_is_wrong_is_not_asked_again() {
        let mut some = vec![found("a", Err("down")), found("b", Ok(true))];
        some[1].result = Ok(Answer::Check(Checked::Wrong("no such table (42P01)".to_owned())));
        let fails = "the query of check `whole` is wrong on b: no such table (42P01)".to_owned();
        assert_eq!(of_agents("whole", some), Outcome::Fails(fails));
    }

    #[test]
    fn one_that_fails_counts_before_those_without_an_answer() {
        let some = vec![found("a", Err("down")), found("b", Ok(false))];
        let fails = "check `whole` does not hold on b".to_owned();
        assert_eq!(of_agents("whole", some), Outcome::Fails(fails));
        let silent = ["a", "b", "c", "d"].map(|name| found(name, Err("down")));
        let text = "check `whole` has no answer from a, b, c and 1 more (down)".to_owned();
        assert_eq!(of_agents("whole", silent.into()), Outcome::NoAnswer(text));
    }
}
