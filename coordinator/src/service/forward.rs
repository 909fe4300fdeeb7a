//! Reads that need what only the leader knows (who is connected, how far work is) go on to it.
//!
//! Where it does not answer soon, whoever was asked answers from the store, and says what is unknown. A read goes on once at
//! most, so that two coordinators that take each other for the leader do not send it round.

use super::{Context, status};
use crate::seat::Seat;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use proto::v1;
use proto::v1::operator_client::OperatorClient;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

/// Marks what was sent on.
const FORWARDED: &str = "confiture-forwarded";

/// Until the leader takes a connection; one that was killed or cut off must not hold up who asks.
const CONNECT: Duration = Duration::from_secs(1);

/// Until it has answered.
const ANSWER: Duration = Duration::from_secs(3);

/// How often a silent connection is asked whether it still lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(5);

/// The largest answer taken: a rollout over thousands of databases.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// A client of the leader.
pub(super) type Leader = OperatorClient<Channel>;

impl Context {
    /// The leader's answer to a read; `None` where this coordinator is to answer by itself.
    pub(super) async fn by_leader<Q, A, F>(
        &self,
        request: &Request<Q>,
        ask: impl FnOnce(Leader, Request<Q>) -> F,
    ) -> Option<Result<Response<A>, Status>>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let leader = match &*self.seat.borrow() {
            Seat::Following { leader: Some(leader) } if *leader != self.url => leader.clone(),
            Seat::Leading(_) | Seat::Following { .. } => return None,
        };
        if request.metadata().contains_key(FORWARDED) {
            return None;
        }
        let mut forwarded = Request::new(request.get_ref().clone());
        forwarded
            .metadata_mut()
            .insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
        let asked = async {
            let endpoint = Endpoint::from_shared(leader.clone()).ok()?;
            // A stream that nothing comes over must not outlive its connection.
            let endpoint = endpoint
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .keep_alive_while_idle(true);
            let channel = endpoint.connect().await.ok()?;
            let client = OperatorClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Some(ask(client, forwarded).await)
        };
        let answer = tokio::time::timeout(ANSWER, asked).await.ok().flatten()?;
        match answer {
            Ok(answer) => Some(Ok(answer)),
            // It knows, and says no.
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
                Some(Err(status))
            }
            Err(status) => {
                tracing::debug!(leader, %status, "the leader did not answer; answering from the store");
                None
            }
        }
    }

    /// The leader's stream of a watched rollout, until it ends or the leadership moves.
    pub(super) fn passed_on(
        self: &Arc<Self>,
        seat: Seat,
        stream: Streaming<v1::WatchRolloutResponse>,
    ) -> BoxStream<'static, Result<v1::WatchRolloutResponse, Status>> {
        let (context, mut changes) = (self.clone(), self.seat.clone());
        let ended = async move {
            tokio::select! {
                () = context.stop.cancelled() => status::stopping(),
                // The sender lives as long as the coordinator serves.
                _ = changes.wait_for(|now| !now.is_same(&seat)) => status::leadership_moved(),
            }
        };
        let messages = stream.map(|message| message.map_err(|_| status::leadership_moved()));
        let end = stream::once(ended).map(Err);
        stream::select(messages.map(Some).chain(stream::iter([None])), end.map(Some))
            .take_while(|message| std::future::ready(message.is_some()))
            .filter_map(std::future::ready)
            .scan(false, |over, message| {
                let was_over = std::mem::replace(over, message.is_err());
                std::future::ready((!was_over).then_some(message))
            })
            .boxed()
    }
}
