//! One stream to one coordinator: messages out of a queue onto the wire, messages off the wire into events. Decides
//! nothing.

use super::ConnectionId;
use super::event::Event;
use futures_util::StreamExt as _;
use proto::convert;
use proto::v1::agent_link_client::AgentLinkClient;
use shared::rollout::message::FromAgent;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Until the other end takes a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Until the first answer to Hello. A leader asks its store first; one that takes longer is of no use while a lease runs
/// out.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// HTTP/2 pings; servers take more frequent ones for an attack.
const PING: Duration = Duration::from_secs(5);

/// Until the other end has closed its half of the stream after we closed ours.
pub(super) const CLOSE: Duration = Duration::from_secs(1);

/// The largest message taken: a bundle, with room to spare.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("`{url}` is not a coordinator's URL: write http://host:port")]
    Url {
        url: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("cannot connect to the coordinator {url}: {}", proto::reason(cause))]
    Connect {
        url: String,
        cause: tonic::transport::Error,
    },
    #[error("the coordinator {url} did not take the connection within {} s", CONNECT.as_secs())]
    ConnectTimeout { url: String },
    #[error("the coordinator {url} ended the connection: {}", of_status(status))]
    Ended { url: String, status: Status },
    #[error("the coordinator {url} closed the connection")]
    Closed { url: String },
    #[error("the coordinator {url} did not answer within {} s", FIRST_ANSWER.as_secs())]
    Silent { url: String },
}

/// Keeps one connection until it ends, or until a moment after `close` is cancelled (dropping the other end of
/// `outbox` as well lets what is queued go out first).
///
/// # Errors
/// Always one when the connection ended by itself; the machine is told of the end by whoever joins this task.
pub(super) async fn keep(
    id: ConnectionId,
    url: String,
    outbox: mpsc::Receiver<FromAgent>,
    events: mpsc::Sender<Event>,
    close: CancellationToken,
) -> Result<(), Error> {
    let mut talking = pin!(talk(id, &url, outbox, &events));
    tokio::select! {
        ended = &mut talking => ended,
        () = close.cancelled() => {
            // Whether it still ended well does not matter: nothing more is expected of it.
            let _ = tokio::time::timeout(CLOSE, talking).await;
            Ok(())
        }
    }
}

async fn talk(
    id: ConnectionId,
    url: &str,
    outbox: mpsc::Receiver<FromAgent>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Error> {
    let ended = |status| Error::Ended {
        url: url.to_owned(),
        status,
    };
    let mut client = AgentLinkClient::new(connect(url).await?).max_decoding_message_size(MAX_MESSAGE_BYTES);
    tell(events, Event::Opened(id)).await;
    let outbound = ReceiverStream::new(outbox).map(convert::from_agent::to_wire);
    let first = async {
        let mut inbound = client.attach(outbound).await?.into_inner();
        let first = inbound.message().await?;
        Ok((inbound, first))
    };
    let first = tokio::time::timeout(FIRST_ANSWER, first).await;
    let (mut inbound, mut next) = first
        .map_err(|_| Error::Silent { url: url.to_owned() })?
        .map_err(ended)?;
    while let Some(message) = next {
        match convert::to_agent::from_wire(message) {
            Ok(message) => tell(events, Event::Received(id, message)).await,
            // A newer coordinator may say things we need not understand.
            Err(error) => {
                tracing::warn!(
                    coordinator = url,
                    error = error.chain(),
                    "ignored a message of the coordinator"
                );
            }
        }
        next = inbound.message().await.map_err(ended)?;
    }
    Err(Error::Closed { url: url.to_owned() })
}

/// What a coordinator said, or the transport in its place.
fn of_status(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), proto::reason)
}

/// Tells the machine; when it is gone there is nobody left to tell.
async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    let _ = events.send(event).await;
}

async fn connect(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|source| Error::Url {
            url: url.to_owned(),
            source,
        })?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true);
    // The timeout of the endpoint is for TCP alone; something may take the connection and never speak HTTP/2.
    match tokio::time::timeout(CONNECT, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|cause| Error::Connect {
            url: url.to_owned(),
            cause,
        }),
        Err(_) => Err(Error::ConnectTimeout { url: url.to_owned() }),
    }
}
