//! The service for agents and databases themselves, whatever rollouts do.

use super::{Context, create, status};
use crate::reign::Command;
use futures_util::stream::BoxStream;
use proto::convert::fleet;
use proto::v1;
use proto::v1::fleet_server;
use shared::id::{AgentId, DatabaseName};
use shared::rollout::drain::Outcome;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers operators about agents.
pub(crate) struct Fleet(pub(crate) Arc<Context>);

#[tonic::async_trait]
impl fleet_server::Fleet for Fleet {
    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let request = request.into_inner();
        let agent = agent(request.agent)?;
        let (by, reason) = (create::clip(request.requested_by), create::clip(request.reason));
        let running = fleet::running_from_wire(request.now);
        let reigning = self.0.reigning()?;
        let drained = self
            .0
            .ask(&reigning, |reply| Command::Drain {
                agent,
                by,
                reason,
                running,
                reply,
            })
            .await?
            .map_err(|unknown| status::of_agent(&unknown))?;
        Ok(Response::new(v1::DrainAgentResponse {
            drain: Some(fleet::drain_to_wire(drained.drain)),
            changed: drained.outcome == Outcome::Changed,
            running: drained.running.into_iter().map(Into::into).collect(),
        }))
    }

    async fn forget_database(
        &self,
        request: Request<v1::ForgetDatabaseRequest>,
    ) -> Result<Response<v1::ForgetDatabaseResponse>, Status> {
        let request = request.into_inner();
        let database =
            DatabaseName::try_from(request.database).map_err(|error| status::invalid(&error.to_string()))?;
        let (by, reason) = (create::clip(request.requested_by), create::clip(request.reason));
        let (reigning, asked) = (self.0.reigning()?, database.clone());
        let forgot = self
            .0
            .ask(&reigning, |reply| Command::Forget {
                database: asked,
                by,
                reason,
                reply,
            })
            .await?
            .map_err(|error| status::of_forget(&error))?;
        Ok(Response::new(v1::ForgetDatabaseResponse {
            forgotten: Some(fleet::forgotten_to_wire(database, forgot.forgotten)),
            changed: forgot.outcome == Outcome::Changed,
        }))
    }

    type SurveyDatabasesStream = BoxStream<'static, Result<v1::SurveyDatabasesResponse, Status>>;

    async fn survey_databases(
        &self,
        request: Request<v1::SurveyDatabasesRequest>,
    ) -> Result<Response<Self::SurveyDatabasesStream>, Status> {
        self.0.survey(request.into_inner()).await.map(Response::new)
    }

    type ShowPoolsStream = BoxStream<'static, Result<v1::ShowPoolsResponse, Status>>;

    async fn show_pools(
        &self,
        request: Request<v1::ShowPoolsRequest>,
    ) -> Result<Response<Self::ShowPoolsStream>, Status> {
        self.0.pools(request.into_inner()).await.map(Response::new)
    }

    async fn undrain_agent(
        &self,
        request: Request<v1::UndrainAgentRequest>,
    ) -> Result<Response<v1::UndrainAgentResponse>, Status> {
        let request = request.into_inner();
        let (agent, by) = (agent(request.agent)?, create::clip(request.requested_by));
        let reason = request.reason;
        let reigning = self.0.reigning()?;
        let outcome = self
            .0
            .ask(&reigning, |reply| Command::Undrain {
                agent,
                by,
                reason,
                reply,
            })
            .await?
            .map_err(|unknown| status::of_agent(&unknown))?;
        Ok(Response::new(v1::UndrainAgentResponse {
            changed: outcome == Outcome::Changed,
        }))
    }
}

fn agent(given: String) -> Result<AgentId, Status> {
    AgentId::try_from(given).map_err(|error| status::invalid(&error.to_string()))
}
