//! A coordinator that can be killed: it has a runtime of its own, and all its tasks die with that.

use crate::{SOON, eventually};
use coordinator::serve::Bound;
use coordinator::store::Store;
use coordinator::store::embedded::Embedded;
use proto::convert::request::Create;
use proto::convert::view;
use proto::v1;
use proto::v1::operator_client::OperatorClient;
use shared::id::{RequestId, SetName};
use shared::migration::File;
use shared::rollout::view::{Assignment, AssignmentState, Rollout};
use shared::rollout::{Bundle, Policy, Selector};
use shared::settings::{self, StoreUrl};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) const LEADER_LEASE: Duration = Duration::from_secs(2);
pub(crate) const AGENT_LEASE: Duration = Duration::from_secs(4);

pub(crate) struct Coordinator {
    pub(crate) url: String,
    stop: CancellationToken,
    task: JoinHandle<Result<(), coordinator::serve::Error>>,
    runtime: Option<Runtime>,
}

pub(crate) async fn memory() -> Arc<dyn Store> {
    Arc::new(Embedded::in_memory().await.unwrap())
}

pub(crate) fn settings(listen: &str) -> settings::Coordinator {
    settings::Coordinator {
        listen: listen.parse().unwrap(),
        advertise: format!("http://{listen}"),
        store: StoreUrl::Memory,
        leader_lease: LEADER_LEASE,
        agent_lease: AGENT_LEASE,
    }
}

impl Coordinator {
    pub(crate) async fn start(store: &Arc<dyn Store>) -> Self {
        let bound = Bound::new(&settings("127.0.0.1:0")).await.unwrap();
        let url = format!("http://{}", bound.address());
        drop(bound);
        Self::start_at(store, url.strip_prefix("http://").unwrap()).await
    }

    /// At a known address, as one that is started again.
    pub(crate) async fn start_at(store: &Arc<dyn Store>, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (settings, store, stop) = (settings(address), store.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = runtime.spawn(async move { coordinator::serve(&settings, store, stopped).await });
        let url = format!("http://{address}");
        let started = Self {
            url,
            stop,
            task,
            runtime: Some(runtime),
        };
        eventually("the coordinator to listen", async || started.connect().await.ok()).await;
        started
    }

    /// As by SIGKILL: nothing is given back.
    pub(crate) fn kill(mut self) -> String {
        self.end();
        self.url.strip_prefix("http://").unwrap().to_owned()
    }

    /// Ends all its tasks and waits for that: its port is free then.
    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not be waited for on a thread of another one.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(SOON)).join();
            ended.expect("the runtime ends");
        }
    }

    /// As by SIGTERM.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, &mut self.task)
            .await
            .expect("it stops")
            .unwrap()
            .unwrap();
    }

    async fn connect(&self) -> Result<OperatorClient<Channel>, tonic::transport::Error> {
        OperatorClient::connect(self.url.clone()).await
    }

    pub(crate) async fn client(&self) -> OperatorClient<Channel> {
        self.connect().await.unwrap()
    }

    /// Waits until it leads.
    pub(crate) async fn leads(&self) {
        eventually("the coordinator to lead", async || {
            // Refused for its content by one who leads, and before that by one who does not.
            let status = self
                .create_wire(v1::CreateRolloutRequest::default())
                .await
                .unwrap_err();
            (status.code() == tonic::Code::InvalidArgument).then_some(())
        })
        .await;
    }

    pub(crate) async fn create_wire(
        &self,
        request: v1::CreateRolloutRequest,
    ) -> Result<v1::CreateRolloutResponse, Status> {
        Ok(self.client().await.create_rollout(request).await?.into_inner())
    }

    pub(crate) async fn create(&self, create: Create) -> Result<(Rollout, bool), Status> {
        let response = self.create_wire(create.to_wire()).await?;
        Ok((
            view::rollout_from_wire(response.rollout.unwrap()).unwrap(),
            response.created,
        ))
    }

    pub(crate) async fn show(&self, id: &str) -> Result<(Rollout, Vec<Assignment>), Status> {
        let request = v1::GetRolloutRequest { id: id.to_owned() };
        let response = self.client().await.get_rollout(request).await?.into_inner();
        let assignments = response
            .assignments
            .into_iter()
            .map(|a| view::assignment_from_wire(a).unwrap());
        Ok((
            view::rollout_from_wire(response.rollout.unwrap()).unwrap(),
            assignments.collect(),
        ))
    }

    pub(crate) async fn assignment(&self, rollout: &Rollout, database: &str) -> Assignment {
        let (_, assignments) = self.show(rollout.id.as_str()).await.unwrap();
        assignments
            .into_iter()
            .find(|a| a.database.as_str() == database)
            .unwrap()
    }

    pub(crate) async fn abort(&self, rollout: &Rollout) -> Result<Rollout, Status> {
        let request = v1::ControlRolloutRequest {
            verb: Some(v1::Verb {
                verb: Some(v1::verb::Verb::Abort(v1::verb::Abort {})),
            }),
            id: rollout.id.to_string(),
            reason: "wrong set".to_owned(),
            requested_by: "ada".to_owned(),
        };
        let response = self.client().await.control_rollout(request).await?.into_inner();
        Ok(view::rollout_from_wire(response.rollout.unwrap()).unwrap())
    }

    /// Waits until a database of a rollout is in a state.
    pub(crate) async fn wait_for(
        &self,
        rollout: &Rollout,
        database: &str,
        state: AssignmentState,
    ) -> Assignment {
        eventually(&format!("{database} to be {}", state.as_str()), async || {
            let (_, assignments) = self.show(rollout.id.as_str()).await.ok()?;
            assignments
                .into_iter()
                .find(|a| a.database.as_str() == database && a.state == state)
        })
        .await
    }

    /// Waits until a rollout has ended.
    pub(crate) async fn wait_for_end(&self, rollout: &Rollout) -> Rollout {
        eventually("the rollout to end", async || {
            let (rollout, _) = self.show(rollout.id.as_str()).await.ok()?;
            rollout.state.is_ended().then_some(rollout)
        })
        .await
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end();
    }
}

/// A request for all databases.
pub(crate) fn request(id: &str) -> Create {
    let content = format!(
        "CREATE TABLE made_by_{} (id bigint PRIMARY KEY);",
        id.replace('-', "_")
    );
    Create {
        request: RequestId::try_from(id).unwrap(),
        bundle: Bundle {
            set: SetName::default_set(),
            files: vec![File {
                path: "001_make.up.sql".to_owned(),
                content: content.into_bytes(),
            }],
        },
        selector: Selector::All,
        policy: Policy::default(),
        created_by: "ada".to_owned(),
    }
}
