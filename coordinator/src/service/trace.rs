//! What happened to the databases of a rollout: stored of attempts that have ended, from the book of those at work.

use super::{Context, status};
use crate::keys;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use proto::convert::story;
use proto::v1;
use shared::rollout::book::Attempt;
use std::collections::BTreeSet;
use tonic::Status;

impl Context {
    pub(super) async fn trace(
        &self,
        request: v1::TraceRolloutRequest,
    ) -> Result<BoxStream<'static, Result<v1::TraceRolloutResponse, Status>>, Status> {
        let book = self.book().await?;
        let rollout = book
            .find(&request.id)
            .map_err(|error| status::of_search(&error))?;
        let id = &rollout.spec().id;
        let wanted: BTreeSet<String> = request.databases.into_iter().collect();
        for name in &wanted {
            if !rollout.assignments().keys().any(|known| known.as_str() == name) {
                return Err(status::invalid(&format!("rollout {id} has no database {name}")));
            }
        }
        let is_wanted = |database: &str| wanted.is_empty() || wanted.contains(database);
        // Those at work first: one that ends meanwhile is then among the stored ones too, and told twice rather than not.
        let running = book.stories(id).filter(|(of, _)| is_wanted(of.database.as_str()));
        let mut answers: Vec<_> = running
            .map(|(of, attempt)| answer(of.database.as_str(), attempt.clone(), true))
            .collect();
        let stored = self.store.list(&keys::stories(id)).await;
        for entry in stored.map_err(|error| status::of_store(&error))?.entries {
            let Some((database, _)) = keys::of_story(&entry.key, id).filter(|(name, _)| is_wanted(name))
            else {
                continue;
            };
            let attempt = keys::decode(&entry.key, &entry.value).map_err(|error| status::of_store(&error))?;
            answers.push(answer(database, attempt, false));
        }
        answers.sort_by(|one, other| (&one.database, one.attempt).cmp(&(&other.database, other.attempt)));
        Ok(stream::iter(answers.into_iter().map(Ok)).boxed())
    }
}

fn answer(database: &str, attempt: Attempt, running: bool) -> v1::TraceRolloutResponse {
    v1::TraceRolloutResponse {
        database: database.to_owned(),
        agent: attempt.agent.into(),
        attempt: attempt.number,
        running,
        story: Some(story::to_wire(attempt.story)),
    }
}
