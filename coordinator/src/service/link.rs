//! The service for agents: each stream gets a task of its own, owned by the server.

use super::Context;
use super::stream::Stream;
use proto::v1;
use proto::v1::agent_link_server::AgentLink;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages waiting for the wire; the stream's own queue is before it.
const OUTBOX: usize = 16;

/// Takes agents.
pub(crate) struct Link {
    context: Arc<Context>,
    streams: AtomicU64,
}

impl Link {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            streams: AtomicU64::new(0),
        }
    }
}

#[tonic::async_trait]
impl AgentLink for Link {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let stream = Stream::new(self.context.clone(), number, outbox);
        let inbound = request.into_inner();
        self.context.tasks.spawn(stream.run(inbound));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
