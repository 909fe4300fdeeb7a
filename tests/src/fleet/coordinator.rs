//! A coordinator, and what one asks it.

use super::daemon::Daemon;
use crate::migrations::Migrations;
use crate::port::Port;
use crate::process::Confiture;
use crate::wait::eventually;
use anyhow::{Context as _, ensure};
use proto::v1;
use proto::v1::operator_client::OperatorClient;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tonic::transport::Channel;

const START: Duration = Duration::from_secs(30);

/// A client of the service for operators.
pub type Operator = OperatorClient<Channel>;

/// A running (or killed) coordinator; its process is the [`Daemon`] it derefs to.
#[derive(Debug)]
pub struct Coordinator {
    daemon: Daemon,
    port: Port,
}

impl Coordinator {
    /// Starts one on a store (`etcd://..`, or `file:..` in its own folder) and waits until it serves.
    pub async fn start(name: &str, store: &str) -> anyhow::Result<Self> {
        Self::start_with(name, store, |_| {}).await
    }

    /// Starts one whose settings are changed first: `|s| s["coordinator"]["leader_lease"] = "2s".into()`.
    pub async fn start_with(
        name: &str,
        store: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        Self::start_program(&Confiture::default(), name, store, change).await
    }

    /// Starts one of another build, or with an environment: a call without arguments.
    pub async fn start_program(
        program: &Confiture,
        name: &str,
        store: &str,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        let port = Port::claim()?;
        let listen = format!("127.0.0.1:{}", port.number());
        let mut settings = json!({ "coordinator": { "listen": listen, "store": store } });
        change(&mut settings);
        let mut coordinator = Self {
            daemon: Daemon::new(program, name, "coordinator", &settings)?,
            port,
        };
        coordinator.launch(&["--init"])?;
        coordinator.serves().await?;
        Ok(coordinator)
    }

    /// Starts it again with its old settings and store, and waits until it serves.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.restart_with(&[]).await
    }

    /// The same with further arguments.
    pub async fn restart_with(&mut self, args: &[&str]) -> anyhow::Result<()> {
        self.launch(args)?;
        self.serves().await
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// A client.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        let url = self.url();
        Operator::connect(url.clone())
            .await
            .with_context(|| format!("connecting to the coordinator at {url}"))
    }

    /// `confiture COMMAND.. --coordinator URL`.
    pub fn command(&self, args: &[&str]) -> Confiture {
        Confiture::new(args).arg("--coordinator").arg(self.url())
    }

    /// `confiture rollout start` for all databases; add `--watch` and the like.
    pub fn rollout(&self, migrations: &Migrations) -> Confiture {
        self.command(&["rollout", "start", "--all"])
            .arg("--migrations")
            .arg(migrations.path())
    }

    /// Waits until these databases are each served by an agent and could be asked where they are.
    pub async fn wait_for_databases(&self, names: &[&str]) -> anyhow::Result<()> {
        eventually("agents to serve all databases", START, || async {
            let known = self.databases().await?.into_iter();
            let known: BTreeMap<_, _> = known.map(|database| (database.name.clone(), database)).collect();
            for name in names {
                let database = known.get(*name).with_context(|| format!("{name} is not known"))?;
                ensure!(!database.agents.is_empty(), "nobody serves {name}");
                ensure!(
                    database.system_identifier != 0,
                    "{name} could not be asked: {}",
                    database.problem
                );
            }
            Ok(Some(()))
        })
        .await
    }

    /// What it knows about the databases.
    pub async fn databases(&self) -> anyhow::Result<Vec<v1::Database>> {
        let answer = self
            .operator()
            .await?
            .list_databases(v1::ListDatabasesRequest {})
            .await?;
        Ok(answer.into_inner().databases)
    }

    /// One rollout with its databases; `id` may be the beginning of one.
    pub async fn show(&self, id: &str) -> anyhow::Result<v1::GetRolloutResponse> {
        let request = v1::GetRolloutRequest { id: id.to_owned() };
        Ok(self.operator().await?.get_rollout(request).await?.into_inner())
    }

    /// All rollouts, newest first.
    pub async fn rollouts(&self) -> anyhow::Result<Vec<v1::Rollout>> {
        let answer = self
            .operator()
            .await?
            .list_rollouts(v1::ListRolloutsRequest {})
            .await?;
        Ok(answer.into_inner().rollouts)
    }

    /// Waits until a rollout has ended, and returns how.
    pub async fn wait_for_end_of(
        &self,
        id: &str,
        deadline: Duration,
    ) -> anyhow::Result<v1::GetRolloutResponse> {
        eventually(&format!("rollout {id} to end"), deadline, || async {
            let shown = self.show(id).await?;
            let ended = shown
                .rollout
                .as_ref()
                .is_some_and(|rollout| rollout.ended_at_unix_ms != 0);
            Ok(ended.then_some(shown))
        })
        .await
    }

    async fn serves(&mut self) -> anyhow::Result<()> {
        let address = ("127.0.0.1", self.port.number());
        let listens = eventually("the coordinator to listen", START, || async move {
            tokio::net::TcpStream::connect(address).await?;
            Ok(Some(()))
        });
        listens.await.with_context(|| self.daemon.log())
    }
}

impl Deref for Coordinator {
    type Target = Daemon;
    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Coordinator {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
