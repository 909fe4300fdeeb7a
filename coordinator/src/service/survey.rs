//! One survey: which databases, who is asked, and their answers as they come, each database once.

use super::{Context, status};
use crate::reign::{Asked, Command};
use crate::surveys::Asking;
use futures_util::stream::BoxStream;
use proto::convert::{fleet, request};
use proto::v1;
use shared::id::{AgentId, DatabaseName};
use shared::rollout::{Book, Selector};
use shared::survey::Survey;
use shared::yaml;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// An agent that says nothing for so long is silent, and so are all that have not answered: databases take turns.
const SILENCE: Duration = Duration::from_secs(25);

/// A survey ends after this, whatever is missing.
const LONGEST: Duration = Duration::from_mins(1);

/// Answers on their way to whoever asked.
const OUTBOX: usize = 16;

/// What whoever asked is told.
type Told = Result<v1::SurveyDatabasesResponse, Status>;

impl Context {
    pub(super) async fn survey(
        self: &Arc<Self>,
        request: v1::SurveyDatabasesRequest,
    ) -> Result<BoxStream<'static, Told>, Status> {
        let reigning = self.reigning()?;
        let book = reigning.book.borrow().clone();
        let detail = fleet::detail_from_wire(request.schema);
        let databases = wanted(&book, request)?;
        let known = book.fleet().databases().keys().cloned().collect();
        let asking = self.surveys.begin(databases.len(), &known);
        let survey = asking.number;
        let asked = self
            .ask(&reigning, |reply| Command::Survey {
                survey,
                databases,
                detail,
                reply,
            })
            .await?;
        let (outbox, told) = mpsc::channel(OUTBOX);
        let (context, stop) = (self.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            // Whoever asked sees the end of the stream.
            let _: Option<()> = stop
                .run_until_cancelled(context.collect(asked, asking, outbox))
                .await;
        });
        Ok(Box::pin(ReceiverStream::new(told)))
    }

    /// Passes answers on until all are there, or those that miss are silent.
    async fn collect(
        self: Arc<Self>,
        asked: BTreeMap<DatabaseName, Asked>,
        mut asking: Asking,
        outbox: mpsc::Sender<Told>,
    ) {
        let mut open = BTreeMap::new();
        for (database, asked) in asked {
            match asked {
                Ok(agent) => {
                    open.insert(database, agent);
                }
                Err(problem) => {
                    let missing = self.missing(&database, None, problem);
                    if outbox.send(Ok(missing)).await.is_err() {
                        return;
                    }
                }
            }
        }
        let end = Instant::now() + LONGEST;
        while !open.is_empty() {
            let until = end.min(Instant::now() + SILENCE);
            let answer = tokio::time::timeout_at(until, asking.answers.recv()).await;
            let Ok(Some((database, result))) = answer else {
                break;
            };
            let Some(agent) = open.remove(&database) else {
                continue;
            };
            let response = match result {
                Ok(survey) => found(&database, &agent, survey),
                Err(problem) => self.missing(&database, Some(&agent), problem),
            };
            if outbox.send(Ok(response)).await.is_err() {
                return;
            }
        }
        for (database, agent) in open {
            let problem = format!("agent {agent} did not answer in time: see its log and its version");
            let missing = self.missing(&database, Some(&agent), problem);
            if outbox.send(Ok(missing)).await.is_err() {
                return;
            }
        }
    }

    /// No answer, with the last one there was.
    fn missing(
        &self,
        database: &DatabaseName,
        agent: Option<&AgentId>,
        problem: String,
    ) -> v1::SurveyDatabasesResponse {
        let last = self.surveys.last(database);
        v1::SurveyDatabasesResponse {
            database: database.to_string(),
            agent: agent.map(ToString::to_string).unwrap_or_default(),
            problem,
            age_ms: last
                .as_ref()
                .map_or(0, |(age, _)| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            survey: last.map(|(_, survey)| fleet::survey_to_wire(survey)),
        }
    }
}

fn found(database: &DatabaseName, agent: &AgentId, survey: Survey) -> v1::SurveyDatabasesResponse {
    v1::SurveyDatabasesResponse {
        database: database.to_string(),
        agent: agent.to_string(),
        problem: String::new(),
        survey: Some(fleet::survey_to_wire(survey)),
        age_ms: 0,
    }
}

/// The databases to be surveyed; an error when one that is named is not there, or nothing is chosen.
fn wanted(book: &Book, request: v1::SurveyDatabasesRequest) -> Result<Vec<DatabaseName>, Status> {
    let known = book.fleet().databases();
    let mut wanted = BTreeSet::new();
    for given in request.databases {
        match known.keys().find(|name| name.as_str() == given) {
            Some(name) => {
                wanted.insert(name.clone());
            }
            None => return Err(unknown(book, &given)),
        }
    }
    if request.all || !request.labels.is_empty() || wanted.is_empty() {
        let selector = v1::Selector {
            labels: request.labels,
            all: request.all,
        };
        let selector =
            request::selector_from_wire(selector).map_err(|error| status::invalid(&error.chain()))?;
        let matching: Vec<_> = known
            .iter()
            .filter(|(_, database)| selector.matches(&database.labels()))
            .map(|(name, _)| name.clone())
            .collect();
        if matching.is_empty() && selector != Selector::All {
            let text = format!(
                "no database matches {selector}: `confiture fleet databases` shows all with their labels"
            );
            return Err(status::invalid(&text));
        }
        wanted.extend(matching);
    }
    Ok(wanted.into_iter().collect())
}

fn unknown(book: &Book, given: &str) -> Status {
    let names: Vec<&str> = book
        .fleet()
        .databases()
        .keys()
        .map(DatabaseName::as_str)
        .collect();
    let advice = match yaml::nearest(given, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`confiture fleet databases` shows all".to_owned(),
    };
    status::missing(&format!("there is no database `{given}`: {advice}"))
}
