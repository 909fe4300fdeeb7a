//! The client of the coordinators: asks one after the other, follows the leader, is patient for a bounded time.
//!
//! Everything it asks may be asked twice: reads change nothing, a rollout is founded once for its request id, and an
//! abort of an aborting rollout changes nothing.

mod verdict;

use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output;
use proto::v1::fleet_client::FleetClient;
use proto::v1::operator_client::OperatorClient;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use verdict::Verdict;

/// How long to go on asking when no coordinator answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Until a coordinator takes a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Until it has answered one question; founding a rollout of a large set takes longest.
const ANSWER: Duration = Duration::from_secs(15);

/// HTTP/2 pings; servers take more frequent ones for an attack.
const PING: Duration = Duration::from_secs(5);

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The largest answer taken: a rollout over thousands of databases.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// A client of the service for rollouts.
pub(crate) type Client = OperatorClient<Channel>;

/// A client of the service for agents and databases themselves.
pub(crate) type Fleet = FleetClient<Channel>;

/// Where the coordinators are.
#[derive(Debug, clap::Args)]
pub(crate) struct At {
    /// URLs of coordinators [default: `agent.coordinator` of the settings, else `http://127.0.0.1:7070`]
    #[arg(
        long,
        value_name = "URL",
        env = "CONFITURE_COORDINATOR",
        value_delimiter = ','
    )]
    coordinator: Vec<String>,
}

/// The coordinators, and which of them to ask.
#[derive(Debug)]
pub(crate) struct Operator {
    coordinators: Vec<String>,
    /// Index of the one to ask.
    at: usize,
    /// Who leads, when one of them said so; asked before the others.
    leader: Option<String>,
    channels: BTreeMap<String, Channel>,
    /// How long to go on asking when nobody answers.
    patience: Duration,
}

impl At {
    /// Whether flag or environment name one.
    pub(crate) fn is_given(&self) -> bool {
        self.coordinator.iter().any(|url| !url.trim().is_empty())
    }
}

impl Operator {
    /// The coordinators that the user named, or those of the settings.
    pub(crate) fn new(at: &At, global: &Global) -> Result<Self, Failure> {
        let given: Vec<String> = (at.coordinator.iter())
            .map(|url| url.trim().to_owned())
            .filter(|url| !url.is_empty())
            .collect();
        let coordinators = if given.is_empty() {
            context::settings(global, Vec::new())?.agent.coordinators
        } else {
            given
        };
        for url in &coordinators {
            check(url)?;
        }
        Ok(Self {
            coordinators,
            at: 0,
            leader: None,
            channels: BTreeMap::new(),
            patience: PATIENCE,
        })
    }

    /// As long as it may take from now.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            whole: self.patience,
            until: Instant::now() + self.patience,
            failures: 0,
            told: false,
        }
    }

    /// Asks until somebody answers, or [`PATIENCE`] has passed. `doing` completes "cannot ..".
    pub(crate) async fn ask<T>(
        &mut self,
        doing: &str,
        question: impl AsyncFn(Client) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.ask_on(doing, async |channel| question(client_on(channel)).await)
            .await
    }

    /// Asks the service for agents and databases in the same way.
    pub(crate) async fn ask_fleet<T>(
        &mut self,
        doing: &str,
        question: impl AsyncFn(Fleet) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.ask_on(doing, async |channel| question(fleet_on(channel)).await)
            .await
    }

    async fn ask_on<T>(
        &mut self,
        doing: &str,
        question: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut patience = self.patience();
        loop {
            let status = match self.channel().await {
                Ok(channel) => match tokio::time::timeout(ANSWER, question(channel)).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    Ok(Err(status)) => status,
                    Err(_) => Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs())),
                },
                Err(status) => status,
            };
            self.take(&status, doing, &mut patience, output::note).await?;
        }
    }

    /// Takes a failed answer: returns when the question is to be asked again. `tell` says once what is waited for.
    ///
    /// # Errors
    /// When it is final, or patience has ended.
    pub(crate) async fn take(
        &mut self,
        status: &Status,
        doing: &str,
        patience: &mut Patience,
        tell: impl FnOnce(&str),
    ) -> Result<(), Failure> {
        let url = self.url().to_owned();
        let why = match Verdict::of(status) {
            Verdict::Final(exit) => {
                let why = match status.code() {
                    Code::Unimplemented => format!(
                        "the coordinator at {url} does not know how\n  help: it is of another version than this program ({}): use the same one",
                        env!("CARGO_PKG_VERSION")
                    ),
                    _ => status.message().to_owned(),
                };
                return Err(Failure {
                    message: format!("cannot {doing}: {why}"),
                    exit,
                });
            }
            Verdict::Follow(leader) if leader != url && check(&leader).is_ok() => {
                self.leader = Some(leader);
                format!("{url}: it does not lead")
            }
            Verdict::Follow(_) | Verdict::Again => {
                self.next();
                // The first redirect is followed at once and silently.
                patience.failures = patience.failures.max(1);
                format!("{url}: {}", described(status))
            }
        };
        let whole = patience.whole.as_secs();
        let gave_up = |()| {
            Failure::failed(format!(
                "cannot {doing}: no coordinator answered within {whole} s\n  the last one asked was {why}\n  help: see whether one runs there, or name another with --coordinator"
            ))
        };
        patience.pause(&why, tell).await.map_err(gave_up)
    }

    /// A client of the coordinator to ask now.
    pub(crate) async fn client(&mut self) -> Result<Client, Status> {
        Ok(client_on(self.channel().await?))
    }

    async fn channel(&mut self) -> Result<Channel, Status> {
        let url = self.url().to_owned();
        if let Some(channel) = self.channels.get(&url) {
            return Ok(channel.clone());
        }
        let unavailable = |error: &tonic::transport::Error| Status::unavailable(proto::reason(error));
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| unavailable(&error))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let connected = tokio::time::timeout(CONNECT, endpoint.connect()).await;
        let channel = connected
            .map_err(|_| Status::unavailable(format!("no connection within {} s", CONNECT.as_secs())))?
            .map_err(|error| unavailable(&error))?;
        self.channels.insert(url, channel.clone());
        Ok(channel)
    }

    /// Whom to ask.
    fn url(&self) -> &str {
        self.leader
            .as_deref()
            .unwrap_or_else(|| &self.coordinators[self.at])
    }

    /// This one did not answer: the next.
    fn next(&mut self) {
        let url = self.url().to_owned();
        self.channels.remove(&url);
        if self.leader.take().is_none() {
            self.at = (self.at + 1) % self.coordinators.len();
        }
    }
}

fn client_on(channel: Channel) -> Client {
    Client::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn fleet_on(channel: Channel) -> Fleet {
    Fleet::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// How long to go on asking.
#[derive(Debug)]
pub(crate) struct Patience {
    whole: Duration,
    until: Instant,
    failures: u32,
    told: bool,
}

impl Patience {
    /// Waits a little before the next question.
    ///
    /// # Errors
    /// When patience has ended.
    async fn pause(&mut self, why: &str, tell: impl FnOnce(&str)) -> Result<(), ()> {
        if Instant::now() >= self.until {
            return Err(());
        }
        if self.failures > 0 {
            if !self.told {
                self.told = true;
                let seconds = self.whole.as_secs();
                tell(&format!(
                    "no answer from the coordinator {why}; trying again for up to {seconds} s"
                ));
            }
            let pause = (FIRST_PAUSE * 2_u32.pow(self.failures.min(8))).min(LONGEST_PAUSE);
            tokio::time::sleep_until((Instant::now() + pause).min(self.until)).await;
        }
        self.failures += 1;
        Ok(())
    }
}

/// What a failed answer says.
fn described(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => proto::reason(source),
        None => status.message().to_owned(),
    }
}

fn check(url: &str) -> Result<(), Failure> {
    let usable = url
        .strip_prefix("http://")
        .is_some_and(|rest| !rest.is_empty() && !rest.contains('@'));
    if usable && Endpoint::from_shared(url.to_owned()).is_ok_and(|at| at.uri().host().is_some()) {
        return Ok(());
    }
    // A URL with a password, given by mistake, is not repeated.
    let shown = if url.contains('@') {
        "the URL"
    } else {
        &format!("`{url}`")
    };
    Err(Failure::usage(format!(
        "--coordinator: {shown} is not the URL of a coordinator\n  help: write http://host:port, several with a comma between them"
    )))
}

#[cfg(test)]
mod tests;
