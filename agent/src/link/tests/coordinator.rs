//! A coordinator that says what a test tells it to.

use proto::convert::{from_agent, to_agent};
use proto::v1;
use proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use shared::rollout::message::{FromAgent, Hello, Holding, ToAgent};
use shared::rollout::work::Finish;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Nothing in these tests takes longer, unless it never comes.
const SOON: Duration = Duration::from_secs(10);

pub(super) struct Coordinator {
    pub(super) url: String,
    streams: mpsc::Receiver<Stream>,
    server: JoinHandle<()>,
}

/// One agent's stream, seen from the coordinator.
pub(super) struct Stream {
    inbound: Streaming<v1::AgentMessage>,
    outbound: mpsc::Sender<Result<v1::CoordinatorMessage, Status>>,
}

struct Service(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl AgentLink for Service {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outbound, messages) = mpsc::channel(256);
        let inbound = request.into_inner();
        self.0.send(Stream { inbound, outbound }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

impl Coordinator {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, streams) = mpsc::channel(16);
        let service = AgentLinkServer::new(Service(sender));
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self { url, streams, server }
    }

    /// The next stream an agent opens.
    pub(super) async fn stream(&mut self) -> Stream {
        soon(self.streams.recv()).await.unwrap()
    }

    /// The next stream whose agent says Hello; earlier ones may have been given up.
    pub(super) async fn stream_that_says_hello(&mut self) -> Stream {
        let mut stream = self.stream().await;
        stream.expect_hello().await;
        stream
    }

    /// The next stream whose agent has no lease.
    pub(super) async fn stream_that_asks_for_a_lease(&mut self) -> Stream {
        loop {
            let mut stream = self.stream().await;
            if stream.expect_hello().await.lease.is_none() {
                return stream;
            }
        }
    }

    /// No more connections, as after a SIGKILL.
    pub(super) async fn die(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

impl Stream {
    pub(super) async fn say(&self, message: ToAgent) {
        self.outbound.send(Ok(to_agent::to_wire(message))).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> FromAgent {
        let message = soon(self.inbound.message())
            .await
            .unwrap()
            .expect("the agent closed the stream");
        from_agent::from_wire(message).unwrap()
    }

    pub(super) async fn expect_hello(&mut self) -> Hello {
        match self.hear().await {
            FromAgent::Hello(hello) => hello,
            other => panic!("the first message was {other:?}"),
        }
    }

    pub(super) async fn until(&mut self, wanted: impl Fn(&FromAgent) -> bool) -> FromAgent {
        loop {
            let message = self.hear().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    pub(super) async fn until_finished(&mut self) -> (Holding, Finish) {
        match self
            .until(|message| matches!(message, FromAgent::Finished { .. }))
            .await
        {
            FromAgent::Finished { of, finish } => (of, finish),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn until_closed(&mut self) {
        while let Ok(Some(_)) = soon(self.inbound.message()).await {}
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("it did not come in time")
}
