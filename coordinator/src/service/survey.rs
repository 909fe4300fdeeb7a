//! One survey: which databases, and what they look like.

use super::{Context, status};
use crate::inquiries::Found;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::convert::{fleet, request};
use proto::v1;
use shared::id::DatabaseName;
use shared::inquiry::{Answer, Inquiry};
use shared::rollout::{Book, Selector};
use shared::yaml;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What whoever asked is told.
type Told = Result<v1::SurveyDatabasesResponse, Status>;

impl Context {
    pub(super) async fn survey(
        self: &Arc<Self>,
        request: v1::SurveyDatabasesRequest,
    ) -> Result<BoxStream<'static, Told>, Status> {
        let reigning = self.reigning()?;
        let detail = fleet::detail_from_wire(request.schema);
        let chosen = v1::Selector {
            labels: request.labels,
            all: request.all,
        };
        let databases = wanted(&reigning.book.borrow().clone(), request.databases, chosen)?;
        let what = Inquiry::Survey(detail);
        let found = self.inquire(&reigning, databases, what, None).await?;
        let context = self.clone();
        let told = ReceiverStream::new(found).map(move |found| Ok(context.surveyed(found)));
        Ok(told.boxed())
    }

    /// What was found, or the last there was.
    fn surveyed(&self, found: Found) -> v1::SurveyDatabasesResponse {
        let Found {
            database,
            agent,
            result,
        } = found;
        let (problem, (age, survey)) = match result {
            Ok(Answer::Survey(survey)) => (String::new(), (Duration::ZERO, Some(survey))),
            Ok(Answer::Plan(_) | Answer::Check(_) | Answer::Pools(_)) => (
                "its agent answered another question".to_owned(),
                (Duration::ZERO, None),
            ),
            Err(problem) => {
                let last = self.inquiries.last(&database);
                let last = last.map_or((Duration::ZERO, None), |(age, survey)| (age, Some(survey)));
                (problem, last)
            }
        };
        v1::SurveyDatabasesResponse {
            database: database.into(),
            agent: agent.map(String::from).unwrap_or_default(),
            problem,
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            survey: survey.map(fleet::survey_to_wire),
        }
    }
}

/// The databases that are named and those that are chosen; an error when one that is named is not there, or nothing is
/// chosen.
pub(super) fn wanted(
    book: &Book,
    named: Vec<String>,
    chosen: v1::Selector,
) -> Result<Vec<DatabaseName>, Status> {
    let known = book.fleet().databases();
    let mut wanted = BTreeSet::new();
    for given in named {
        match known.keys().find(|name| name.as_str() == given) {
            Some(name) => {
                wanted.insert(name.clone());
            }
            None => return Err(unknown(book, &given)),
        }
    }
    if chosen.all || !chosen.labels.is_empty() || wanted.is_empty() {
        let selector =
            request::selector_from_wire(chosen).map_err(|error| status::invalid(&error.chain()))?;
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
