//! The service for operators and platform tooling.

use super::forward::Leader;
use super::{Context, create, status, watch};
use crate::reign::{Command, Controlled, Founded, FoundedBy};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::convert::request::Undo;
use proto::convert::{control, fleet, view};
use proto::v1;
use proto::v1::operator_server;
use shared::rollout::timeline::timeline;
use shared::rollout::{Time, Verb, show};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers operators.
pub(crate) struct Operator(pub(crate) Arc<Context>);

#[tonic::async_trait]
impl operator_server::Operator for Operator {
    type WatchRolloutStream = BoxStream<'static, Result<v1::WatchRolloutResponse, Status>>;

    async fn create_rollout(
        &self,
        request: Request<v1::CreateRolloutRequest>,
    ) -> Result<Response<v1::CreateRolloutResponse>, Status> {
        let caller = create::caller(&request);
        self.0
            .create(request.into_inner(), caller)
            .await
            .map(Response::new)
    }

    type PlanRolloutStream = BoxStream<'static, Result<v1::PlanRolloutResponse, Status>>;

    async fn plan_rollout(
        &self,
        request: Request<v1::PlanRolloutRequest>,
    ) -> Result<Response<Self::PlanRolloutStream>, Status> {
        self.0.plan(request.into_inner()).await.map(Response::new)
    }

    async fn get_rollout(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Result<Response<v1::GetRolloutResponse>, Status> {
        let ask = |mut leader: Leader, request| async move { leader.get_rollout(request).await };
        if let Some(answer) = self.0.by_leader(&request, ask).await {
            return answer;
        }
        let book = self.0.book().await?;
        let rollout = book
            .find(&request.into_inner().id)
            .map_err(|error| status::of_search(&error))?;
        let assignments = book.show_assignments(rollout, now());
        Ok(Response::new(v1::GetRolloutResponse {
            rollout: Some(view::rollout_to_wire(show::show_rollout(rollout, now()))),
            assignments: assignments.into_iter().map(view::assignment_to_wire).collect(),
            timeline: timeline(rollout, now())
                .into_iter()
                .map(view::stretch_to_wire)
                .collect(),
        }))
    }

    async fn list_rollouts(
        &self,
        _request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let rollouts = self.0.book().await?.show_rollouts(now());
        let rollouts = rollouts.into_iter().map(view::rollout_to_wire).collect();
        Ok(Response::new(v1::ListRolloutsResponse { rollouts }))
    }

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let seat = self.0.seat.borrow().clone();
        let ask = |mut leader: Leader, request| async move { leader.watch_rollout(request).await };
        if let Some(answer) = self.0.by_leader(&request, ask).await {
            return answer.map(|stream| Response::new(self.0.passed_on(seat, stream.into_inner())));
        }
        let book = self.0.book().await?;
        let rollout = book
            .find(&request.into_inner().id)
            .map_err(|error| status::of_search(&error))?;
        let id = rollout.spec().id.to_string();
        Ok(Response::new(watch::stream(self.0.clone(), seat, id)))
    }

    type TraceRolloutStream = BoxStream<'static, Result<v1::TraceRolloutResponse, Status>>;

    async fn trace_rollout(
        &self,
        request: Request<v1::TraceRolloutRequest>,
    ) -> Result<Response<Self::TraceRolloutStream>, Status> {
        // Of work in progress the leader alone has heard.
        let ask = |mut leader: Leader, request| async move { leader.trace_rollout(request).await };
        if let Some(answer) = self.0.by_leader(&request, ask).await {
            return answer.map(|stream| Response::new(stream.into_inner().boxed()));
        }
        self.0.trace(request.into_inner()).await.map(Response::new)
    }

    async fn control_rollout(
        &self,
        request: Request<v1::ControlRolloutRequest>,
    ) -> Result<Response<v1::ControlRolloutResponse>, Status> {
        let v1::ControlRolloutRequest {
            id,
            verb,
            reason,
            requested_by: by,
        } = request.into_inner();
        let verb = control::verb_from_wire(verb.unwrap_or_default());
        let verb = verb.map_err(|error| status::invalid(&error.chain()))?;
        if let Verb::Undo { .. } = verb {
            return Err(status::invalid("a rollout is undone by UndoRollout"));
        }
        let reigning = self.0.reigning()?;
        let controlled = self
            .0
            .ask(&reigning, |reply| Command::Control {
                id,
                verb,
                by,
                reason,
                reply,
            })
            .await?;
        let Controlled { rollout, changed } = controlled.map_err(|error| status::of_control(&error))?;
        Ok(Response::new(v1::ControlRolloutResponse {
            rollout: Some(view::rollout_to_wire(rollout)),
            changed,
        }))
    }

    async fn undo_rollout(
        &self,
        request: Request<v1::UndoRolloutRequest>,
    ) -> Result<Response<v1::UndoRolloutResponse>, Status> {
        let caller = create::caller(&request);
        let Undo { id, mut wish } =
            Undo::from_wire(request.into_inner()).map_err(|error| status::invalid(&error.chain()))?;
        wish.trace = caller;
        let reigning = self.0.reigning()?;
        // Before anything is aborted: what is refused should change nothing.
        self.0.keeps_data(&reigning, &id, &wish).await?;
        let founded = self
            .0
            .ask(&reigning, |reply| Command::Undo { id, wish, reply })
            .await?;
        let Founded { rollout, by } = founded.map_err(|refusal| status::of_refusal(&refusal))?;
        Ok(Response::new(v1::UndoRolloutResponse {
            rollout: Some(view::rollout_to_wire(rollout)),
            created: by == FoundedBy::This,
        }))
    }

    async fn recover(
        &self,
        request: Request<v1::RecoverRequest>,
    ) -> Result<Response<v1::RecoverResponse>, Status> {
        let v1::RecoverRequest {
            reason,
            requested_by: by,
        } = request.into_inner();
        let reigning = self.0.reigning()?;
        let recovered = self
            .0
            .ask(&reigning, |reply| Command::Recover { by, reason, reply })
            .await?;
        Ok(Response::new(v1::RecoverResponse {
            epoch_before: recovered.epoch_before,
            epoch: recovered.epoch,
            unasked: recovered.unasked.into_iter().map(Into::into).collect(),
        }))
    }

    async fn list_databases(
        &self,
        request: Request<v1::ListDatabasesRequest>,
    ) -> Result<Response<v1::ListDatabasesResponse>, Status> {
        let ask = |mut leader: Leader, request| async move { leader.list_databases(request).await };
        if let Some(answer) = self.0.by_leader(&request, ask).await {
            return answer;
        }
        let book = self.0.book().await?;
        let databases = book.show_databases().into_iter().map(view::database_to_wire);
        let forgotten = book.fleet().forgotten().iter();
        Ok(Response::new(v1::ListDatabasesResponse {
            databases: databases.collect(),
            forgotten: forgotten
                .map(|(name, of)| fleet::forgotten_to_wire(name.clone(), of.clone()))
                .collect(),
        }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let ask = |mut leader: Leader, request| async move { leader.list_agents(request).await };
        if let Some(answer) = self.0.by_leader(&request, ask).await {
            return answer;
        }
        let agents = self.0.book().await?.show_agents();
        let agents = agents.into_iter().map(view::agent_to_wire).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }
}

pub(super) fn now() -> Time {
    Time::since_1970(runtime::unix_now())
}
