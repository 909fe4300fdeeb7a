//! How the connections of agents to databases are.

use super::Context;
use super::survey::wanted;
use crate::inquiries::Found;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::convert::pool::pools_to_wire;
use proto::v1;
use shared::inquiry::{Answer, Inquiry};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What whoever asked is told.
type Told = Result<v1::ShowPoolsResponse, Status>;

impl Context {
    pub(super) async fn pools(
        self: &Arc<Self>,
        request: v1::ShowPoolsRequest,
    ) -> Result<BoxStream<'static, Told>, Status> {
        let reigning = self.reigning()?;
        let chosen = v1::Selector {
            labels: request.labels,
            all: request.all,
        };
        let databases = wanted(&reigning.book.borrow().clone(), request.databases, chosen)?;
        let found = self.inquire(&reigning, databases, Inquiry::Pools, None).await?;
        Ok(ReceiverStream::new(found).map(|found| Ok(told(found))).boxed())
    }
}

fn told(found: Found) -> v1::ShowPoolsResponse {
    let (problem, pools) = match found.result {
        Ok(Answer::Pools(pools)) => (String::new(), Some(pools_to_wire(&pools))),
        Ok(Answer::Survey(_) | Answer::Plan(_) | Answer::Check(_)) => {
            ("its agent answered another question".to_owned(), None)
        }
        Err(problem) => (problem, None),
    };
    v1::ShowPoolsResponse {
        database: found.database.into(),
        agent: found.agent.map(String::from).unwrap_or_default(),
        problem,
        pools,
    }
}
