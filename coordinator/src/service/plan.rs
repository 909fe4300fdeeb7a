//! What a rollout would do: its waves, and what each database's agent says would be run there.

use super::create::{Parsed, parse};
use super::{Context, status};
use crate::inquiries::Found;
use crate::reign;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::convert::inquiry::outlook_to_wire;
use proto::convert::request::Plan;
use proto::v1;
use shared::id::DatabaseName;
use shared::inquiry::{Answer, Inquiry};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What whoever asked is told.
type Told = Result<v1::PlanRolloutResponse, Status>;

impl Context {
    pub(super) async fn plan(
        self: &Arc<Self>,
        request: v1::PlanRolloutRequest,
    ) -> Result<BoxStream<'static, Told>, Status> {
        let reigning = self.reigning()?;
        let plan = Plan::from_wire(request).map_err(|error| status::invalid(&error.chain()))?;
        let Plan {
            bundle,
            selector,
            policy,
        } = plan;
        let strategies = policy.strategies.clone();
        let parsed = tokio::task::spawn_blocking(move || parse(bundle, &strategies)).await;
        let parsed = parsed.map_err(|_| Status::internal("reading the migrations ended unexpectedly"))??;
        let Parsed { bundle, .. } = parsed;
        let digest = bundle.digest();
        let book = reigning.book.borrow().clone();
        let waves = reign::waves(&book, &bundle.set, digest, &selector, &policy);
        let waves = waves.map_err(|refusal| status::of_refusal(&refusal))?;
        let places: BTreeMap<DatabaseName, (u32, String)> = (waves.into_iter().zip(0..))
            .flat_map(|(wave, place)| {
                let names = wave.databases.into_iter();
                names.map(move |database| (database, (place, wave.name.clone())))
            })
            .collect();
        let databases = places.keys().cloned().collect();
        let what = Inquiry::Plan {
            bundle: digest,
            strategies: policy.strategies,
        };
        let bundle = Some(Arc::new(bundle));
        let found = self.inquire(&reigning, databases, what, bundle).await?;
        let told = ReceiverStream::new(found).map(move |found| Ok(planned(found, &places)));
        Ok(told.boxed())
    }
}

fn planned(found: Found, places: &BTreeMap<DatabaseName, (u32, String)>) -> v1::PlanRolloutResponse {
    let Found {
        database,
        agent,
        result,
    } = found;
    let (wave_number, wave) = places.get(&database).cloned().unwrap_or_default();
    let (problem, plan) = match result {
        Ok(Answer::Plan(outlook)) => (String::new(), Some(outlook_to_wire(outlook))),
        Ok(Answer::Survey(_) | Answer::Check(_) | Answer::Pools(_)) => {
            ("its agent answered another question".to_owned(), None)
        }
        Err(problem) => (problem, None),
    };
    v1::PlanRolloutResponse {
        database: database.into(),
        wave,
        wave_number,
        agent: agent.map(String::from).unwrap_or_default(),
        problem,
        plan,
    }
}
