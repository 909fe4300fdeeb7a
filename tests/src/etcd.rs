//! Throw-away etcds: one alone, or several that are one.

use crate::directory::Directory;
use crate::port::Port;
use crate::process::Process;
use crate::tls::{Authority, Certificate};
use crate::wait::eventually;
use anyhow::{Context as _, bail};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

const START: Duration = Duration::from_secs(30);

/// One etcd, running or stopped; gone with its data when dropped.
#[derive(Debug)]
pub struct Etcd {
    process: Option<Process>,
    client: Port,
    peer: Port,
    folder: Directory,
    scheme: &'static str,
    /// Names and ports for peers of all members, itself included.
    members: Vec<(String, u16)>,
    name: String,
}

/// What was written to an etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writes {
    /// Keys put or deleted.
    pub keys: u64,
    /// Transactions that did so: each is one revision.
    pub transactions: u64,
}

impl Etcd {
    /// Starts one and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        let mut etcd = Self::stopped("http")?;
        etcd.resume().await?;
        Ok(etcd)
    }

    /// Starts one that speaks TLS and accepts only clients with a certificate of `authority`.
    pub async fn start_with_tls(authority: &Authority, certificate: &Certificate) -> anyhow::Result<Self> {
        let mut etcd = Self::stopped("https")?;
        etcd.folder.write("ca.pem", authority.pem())?;
        etcd.folder.write("server.pem", certificate.chain())?;
        etcd.folder.write("server.key", certificate.key())?;
        etcd.resume().await?;
        Ok(etcd)
    }

    /// Starts so many that are one together, and waits until all answer.
    pub async fn cluster(size: usize) -> anyhow::Result<Vec<Self>> {
        let mut cluster = Vec::new();
        for number in 1..=size {
            cluster.push(Self {
                name: format!("member{number}"),
                ..Self::stopped("http")?
            });
        }
        let members: Vec<_> = (cluster.iter())
            .map(|member| (member.name.clone(), member.peer.number()))
            .collect();
        for member in &mut cluster {
            member.members.clone_from(&members);
        }
        Self::resume_all(&mut cluster).await?;
        Ok(cluster)
    }

    /// Starts all members again and waits until they answer: none does before most are there.
    pub async fn resume_all(cluster: &mut [Self]) -> anyhow::Result<()> {
        let starting = cluster.iter_mut().map(Self::resume);
        futures_util::future::try_join_all(starting).await.map(drop)
    }

    /// The one etcd of this test process, for tests that do nothing to etcd itself and keep to a prefix of their own.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Etcd> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Its process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process
            .as_ref()
            .map(Process::pid)
            .context("etcd is not running")
    }

    /// Its address for clients: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client.number())
    }

    /// Its URL for clients.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// What a coordinator has as its `store`, under a key prefix of its own.
    pub fn store(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.address())
    }

    /// A key prefix that no other test uses.
    pub fn fresh_prefix() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!(
            "test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// The latest lines it has printed.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// What was written to it since it was started.
    pub async fn writes(&self) -> anyhow::Result<Writes> {
        let mut stream = TcpStream::connect(self.address()).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).await?;
        let total = |name: &str| {
            let value = metrics
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value = value.and_then(|value| value.parse::<f64>().ok());
            let value = value.with_context(|| format!("etcd has no metric {name}"))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count, written as a float"
            )]
            anyhow::Ok(value as u64)
        };
        Ok(Writes {
            keys: total("etcd_mvcc_put_total")? + total("etcd_mvcc_delete_total")?,
            transactions: total("etcd_debugging_mvcc_current_revision")?,
        })
    }

    /// SIGKILL; the data stays.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("etcd is not running")?;
        process.kill();
        Ok(())
    }

    /// SIGTERM, then waits for its end; the data stays.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("etcd is not running")?;
        process.terminate()?;
        process.wait(START).await?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, nobody answers.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().context("etcd is not running")?.freeze()
    }

    /// Ends [`Etcd::freeze`].
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().context("etcd is not running")?.resume()
    }

    /// Starts it again after [`Etcd::kill`] or [`Etcd::stop`] and waits until it answers.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("etcd is running already");
        }
        let mut process = Process::start(&format!("etcd on {}", self.address()), self.command())?;
        let address = self.address();
        let address = address.as_str();
        // It opens its port for clients when it has a leader, not before.
        let answers = eventually("etcd to answer", START, || async move {
            TcpStream::connect(address).await?;
            Ok(Some(()))
        });
        if let Err(error) = answers.await {
            process.kill();
            return Err(error.context(process.stderr()));
        }
        self.process = Some(process);
        Ok(())
    }

    fn stopped(scheme: &'static str) -> anyhow::Result<Self> {
        Ok(Self {
            process: None,
            client: Port::claim()?,
            peer: Port::claim()?,
            folder: Directory::new()?,
            scheme,
            members: Vec::new(),
            name: "test".to_owned(),
        })
    }

    fn command(&self) -> Command {
        let endpoint = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer.number());
        let mut command = Command::new("etcd");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--name", &self.name, "--logger", "zap", "--log-level", "warn"]);
        command.args([
            "--listen-client-urls",
            &endpoint,
            "--advertise-client-urls",
            &endpoint,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        if self.members.is_empty() {
            command.args(["--initial-cluster", &format!("{}={peer}", self.name)]);
            // One member elects itself as soon as this has passed.
            command.args(["--heartbeat-interval", "20", "--election-timeout", "200"]);
        } else {
            let members = self.members.iter();
            let members: Vec<_> = members
                .map(|(name, port)| format!("{name}=http://127.0.0.1:{port}"))
                .collect();
            command.args(["--initial-cluster", &members.join(",")]);
            command.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        }
        command.arg("--data-dir").arg(self.folder.path().join("data"));
        if self.scheme == "https" {
            let file = |name: &str| self.folder.path().join(name);
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(file("ca.pem"));
            command
                .arg("--cert-file")
                .arg(file("server.pem"))
                .arg("--key-file")
                .arg(file("server.key"));
        }
        command
    }
}
