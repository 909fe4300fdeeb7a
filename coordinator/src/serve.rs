//! From the settings to a serving coordinator, and its orderly end.

use crate::bundles::Bundles;
use crate::chain::chain;
use crate::inquiries::Inquiries;
use crate::leader::Election;
use crate::metrics;
use crate::mirror::Mirror;
use crate::office::Office;
use crate::reign::Identity;
use crate::seat::Seat;
use crate::service::{Context, Fleet, Link, MAX_MESSAGE_BYTES, Operator};
use crate::store::{self, Error as StoreError, Store, Timed};
use proto::v1;
use proto::v1::agent_link_server::AgentLinkServer;
use proto::v1::fleet_server::FleetServer;
use proto::v1::operator_server::OperatorServer;
use runtime::telemetry::http::Unready;
use shared::id::StoreId;
use shared::retry::Retryability;
use shared::settings;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use uuid::Uuid;

/// HTTP/2 pings, so that a cut connection is noticed though nothing is sent on it.
const PING: Duration = Duration::from_secs(5);

/// How long streams and connections may take to end once asked to.
const FAREWELL: Duration = Duration::from_secs(5);

/// The pause before a store that does not answer is asked again at the start.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// Why a coordinator could not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {address}: {}", listen_advice(.source))]
    Listen {
        /// `coordinator.listen`.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The store's identity could not be read.
    #[error("cannot read which store this is")]
    Identity(#[source] StoreError),
    /// The gRPC descriptors cannot be served.
    #[error("cannot describe the services")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server ended by itself.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

fn listen_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "the port is in use; is another coordinator running? Else choose another with `coordinator.listen`"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose another with `coordinator.listen`"
        }
        std::io::ErrorKind::PermissionDenied => {
            "this user may not use the port; choose one above 1023 with `coordinator.listen`"
        }
        _ => "the system refuses it",
    }
}

/// A coordinator that has its port and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    url: String,
    agent_lease: Duration,
    leader_lease: Duration,
    seat: watch::Sender<Seat>,
}

/// Serves operators and agents until `stop` is cancelled.
///
/// # Errors
/// When the port cannot be had, or the store can never be used.
pub async fn serve(
    settings: &settings::Coordinator,
    store: Arc<dyn Store>,
    stop: CancellationToken,
) -> Result<(), Error> {
    Bound::new(settings).await?.serve(store, stop).await
}

impl Bound {
    /// Takes the port. With port 0 the system chooses one, and the URL for others follows it.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn new(settings: &settings::Coordinator) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            address: settings.listen,
            source,
        };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let url = if settings.listen.port() == 0 {
            format!("http://{address}")
        } else {
            settings.advertise.clone()
        };
        let (agent_lease, leader_lease) = (settings.agent_lease, settings.leader_lease);
        Ok(Self {
            listener,
            address,
            url,
            agent_lease,
            leader_lease,
            seat: watch::Sender::new(Seat::Following { leader: None }),
        })
    }

    /// Where it will serve.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says why nothing can be asked of this coordinator at the moment; nothing where it leads, or knows who does.
    pub fn unready(&self) -> Unready {
        let seat = self.seat.subscribe();
        Arc::new(move || {
            match &*seat.borrow() {
            Seat::Leading(_) | Seat::Following { leader: Some(_) } => Vec::new(),
            Seat::Following { leader: None } => vec![
                "no coordinator leads: the store does not answer, or the lease of the last leader has not ended".to_owned(),
            ],
        }
        })
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    /// When the store can never be used, or the server fails.
    pub async fn serve(self, store: Arc<dyn Store>, stop: CancellationToken) -> Result<(), Error> {
        let store: Arc<dyn Store> = Arc::new(Timed(store));
        let Some(identity) = stop.run_until_cancelled(identity(store.as_ref())).await else {
            return Ok(());
        };
        let identity = identity?;
        tracing::info!(
            address = %self.address, url = self.url, store = %identity.store, epoch = identity.epoch, "coordinator started"
        );
        // The office and the election outlive the streams, so that what they report last is still written.
        let office_stop = CancellationToken::new();
        let (roles, election) =
            Election::start(store.clone(), self.url.clone(), self.leader_lease, &office_stop);
        let (seat, seats) = (self.seat.clone(), self.seat.subscribe());
        metrics::started(seats.clone());
        let bundles = Arc::new(Bundles::new(store.clone()));
        let inquiries = Arc::<Inquiries>::default();
        let office = Office {
            store: store.clone(),
            bundles: bundles.clone(),
            inquiries: inquiries.clone(),
            seat,
        };
        let office = tokio::spawn(office.hold(roles, office_stop.clone()));
        let tasks = TaskTracker::new();
        let context = Arc::new(Context {
            mirror: Mirror::new(store.clone()),
            inquiries,
            store,
            bundles,
            seat: seats,
            url: self.url.clone(),
            agent_lease: self.agent_lease,
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let served = self.listen(context, &stop).await;
        tasks.close();
        if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
            tracing::warn!("some agents' streams did not end in time");
        }
        office_stop.cancel();
        if let Err(panic) = office.await {
            tracing::error!(%panic, "the office failed");
        }
        election.resign().await;
        tracing::info!("coordinator stopped");
        served
    }

    /// Takes connections until `stop` is cancelled and they have ended, or a while has passed.
    ///
    /// The health of the whole server, which has no name, is that of `/readyz`; its services are there as long as it is.
    async fn listen(self, context: Arc<Context>, stop: &CancellationToken) -> Result<(), Error> {
        let operator =
            OperatorServer::new(Operator(context.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let fleet = FleetServer::new(Fleet(context.clone()));
        let link = AgentLinkServer::new(Link::new(context)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<OperatorServer<Operator>>().await;
        health_reporter.set_serving::<FleetServer<Fleet>>().await;
        health_reporter.set_serving::<AgentLinkServer<Link>>().await;
        let health_kept = keep_health(health_reporter, self.unready(), self.seat.subscribe());
        // Older clients know only the alpha of the reflection service.
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = described().build_v1().map_err(Error::Reflection)?;
        let reflection_alpha = described().build_v1alpha().map_err(Error::Reflection)?;
        let server = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .add_service(operator)
            .add_service(fleet)
            .add_service(link)
            .add_service(health)
            .add_service(reflection)
            .add_service(reflection_alpha)
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listener), stop.cancelled());
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            ended = server => ended.map_err(Error::Server),
            never = health_kept => match never {},
            () = too_long => {
                tracing::warn!("some connections did not end in time");
                Ok(())
            }
        }
    }
}

/// Which store it is; a new one is founded. Waits for one that does not answer.
async fn identity(store: &dyn Store) -> Result<Identity, Error> {
    let mut troubled = false;
    loop {
        match store::identity(store, StoreId(Uuid::new_v4()), runtime::unix_seconds()).await {
            Ok((store, epoch)) => return Ok(Identity { store, epoch }),
            Err(error) if error.retryability() == Retryability::Retry => {
                if !troubled {
                    tracing::warn!(error = chain(&error), "waiting for the store");
                }
                troubled = true;
                tokio::time::sleep(STORE_AGAIN).await;
            }
            Err(error) => return Err(Error::Identity(error)),
        }
    }
}

/// Keeps the health of the server in step with what this coordinator is.
async fn keep_health(
    reporter: HealthReporter,
    unready: Unready,
    mut seats: watch::Receiver<Seat>,
) -> Infallible {
    loop {
        let status = if unready().is_empty() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
        if seats.changed().await.is_err() {
            // It does not change any more.
            std::future::pending::<()>().await;
        }
    }
}
