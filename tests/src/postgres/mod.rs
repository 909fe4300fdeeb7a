//! Throw-away PostgreSQL servers.
//!
//! Each is made by its own `initdb` (half a second), never copied from another: copies share one system identifier,
//! and a fleet refuses what looks like a clone. Everybody logs in with a password (SCRAM), over TCP on 127.0.0.1. The
//! databases belong to the ordinary role [`OWNER`], with which Confiture works; [`SUPERUSER`] is for the tests.

pub(crate) mod account;
mod database;
mod dump;
mod options;
mod standby;

pub use database::{Database, Session};
pub use options::{Durability, Options};

use crate::directory::Directory;
use crate::port::Port;
use crate::process::Process;
use crate::reaper::Ending;
use crate::wait::eventually;
use account::Account;
use anyhow::{Context as _, bail};
use rustix::process::Signal;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;

/// The role that owns the databases and with which Confiture works: no superuser, as in real life.
pub const OWNER: &str = "confiture";
/// The role that may do everything.
pub const SUPERUSER: &str = "postgres";

const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_mins(1);
const COPY: Duration = Duration::from_secs(20);

/// One server, running or stopped; gone with its data when dropped.
#[derive(Debug)]
pub struct Server {
    process: Option<Process>,
    port: Port,
    folder: Directory,
    account: Account,
    password: String,
    options: Options,
}

/// How a server goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGINT: open transactions are rolled back, sessions closed, everything written.
    Fast,
    /// SIGQUIT: as in a crash; what was not in the write-ahead log on disk is lost, recovery follows at the start.
    Immediate,
    /// SIGKILL of every process: a crash without warning.
    Kill,
}

impl Server {
    /// Starts one with [`Options::default`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one and waits until it answers.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let account = Account::for_servers()?;
        let folder = Directory::new()?;
        account.give(folder.path())?;
        let port = Port::claim()?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        let mut server = Self {
            process: None,
            port,
            folder,
            account,
            password,
            options,
        };
        server.initialise().await?;
        server.resume().await?;
        let admin = server.admin(SUPERUSER).await?;
        admin
            .batch_execute(&format!(
                "CREATE ROLE {OWNER} LOGIN PASSWORD '{}'",
                server.password
            ))
            .await?;
        Ok(server)
    }

    /// The one server of this test process, for tests that do nothing to the server itself.
    ///
    /// Use databases of your own ([`Server::fresh_database`]): other tests run there at the same time.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process
            .as_ref()
            .map(Process::pid)
            .context("the server is not running")
    }

    /// The password of both roles.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The URL with which Confiture connects to a database (as [`OWNER`]).
    pub fn url(&self, database: &str) -> String {
        self.url_as(OWNER, &self.password, database)
    }

    /// The URL of a database for any role.
    pub fn url_as(&self, role: &str, password: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{password}@127.0.0.1:{}/{database}",
            self.port()
        )
    }

    /// Creates a database that belongs to [`OWNER`]. `name` must be a plain lower-case identifier.
    pub async fn database(&self, name: &str) -> anyhow::Result<Database> {
        let create = format!("CREATE DATABASE {name} OWNER {OWNER}");
        self.admin(SUPERUSER)
            .await?
            .batch_execute(&create)
            .await
            .context(create)?;
        Ok(self.known(name))
    }

    /// Makes a copy of a database, as one does for a staging system. Waits until nobody is connected to the original.
    pub async fn copy(&self, original: &Database) -> anyhow::Result<Database> {
        let name = format!("{}_copy", original.name());
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE {} OWNER {OWNER}",
            original.name()
        );
        let admin = self.admin(SUPERUSER).await?;
        let (admin, create) = (&admin, &create);
        eventually("nobody to be connected to the original", COPY, || async move {
            match admin.batch_execute(create).await {
                Ok(()) => Ok(Some(())),
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        Ok(self.known(&name))
    }

    fn known(&self, name: &str) -> Database {
        let administrator = self.url_as(SUPERUSER, &self.password, name);
        Database::new(name, self.url(name), administrator)
    }

    /// Creates a database with a name that nobody else uses.
    pub async fn fresh_database(&self) -> anyhow::Result<Database> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        self.database(&format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed)))
            .await
    }

    /// A session of [`SUPERUSER`] in a database.
    pub async fn admin(&self, database: &str) -> anyhow::Result<Session> {
        Session::open(&self.url_as(SUPERUSER, &self.password, database)).await
    }

    /// What the server has logged since it was last started.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Stops it; the data stays.
    pub async fn stop(&mut self, how: Shutdown) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("the server is not running")
        };
        match how {
            Shutdown::Fast => process.signal(Signal::INT)?,
            Shutdown::Immediate => process.signal(Signal::QUIT)?,
            Shutdown::Kill => process.signal_tree(Signal::KILL)?,
        }
        process.wait(STOP).await?;
        Ok(())
    }

    /// Starts it again after [`Server::stop`] and waits until it answers.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("the server is running already");
        }
        let mut command = self.account.command("postgres")?;
        command.arg("-D").arg(self.folder.path().join("data"));
        let name = format!("PostgreSQL on port {}", self.port());
        let process = Process::start_with(&name, command, Ending::Quit)?;
        process
            .wait_for_line("database system is ready to accept", START)
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// [`Server::stop`], then [`Server::resume`].
    pub async fn restart(&mut self, how: Shutdown) -> anyhow::Result<()> {
        self.stop(how).await?;
        self.resume().await
    }

    /// SIGSTOP to every process of the server: connections stay open, nobody answers.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.process
            .as_mut()
            .context("the server is not running")?
            .signal_tree(Signal::STOP)
    }

    /// Ends [`Server::freeze`].
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.process
            .as_mut()
            .context("the server is not running")?
            .signal_tree(Signal::CONT)
    }

    /// Waits until the number of rows of `query` in `database` is at least one; for "until somebody works there".
    pub async fn wait_until(&self, database: &str, query: &str, deadline: Duration) -> anyhow::Result<()> {
        let admin = self.admin(database).await?;
        let admin = &admin;
        eventually(query, deadline, || async move {
            Ok(admin.query_opt(query, &[]).await?.map(drop))
        })
        .await
    }

    async fn initialise(&self) -> anyhow::Result<()> {
        let secret = self.folder.write("password", &self.password)?;
        self.account.give(&secret)?;
        let data = self.folder.path().join("data");
        let mut command = self.account.command("initdb")?;
        command.args(["--no-sync", "--no-locale", "--encoding=UTF8"]);
        command.args(["--auth=scram-sha-256", &format!("--username={SUPERUSER}")]);
        command.arg("--pwfile").arg(&secret).arg("-D").arg(&data);
        let mut initdb = Process::start("initdb", command)?;
        let status = initdb.wait(START).await?;
        std::fs::remove_file(&secret).context("removing initdb's password file")?;
        if !status.success() {
            bail!("initdb failed: {}{}", initdb.stdout(), initdb.stderr());
        }
        let conf = data.join("postgresql.auto.conf");
        std::fs::write(&conf, self.options.file(self.port()))
            .with_context(|| format!("writing {}", conf.display()))?;
        if let Some(certificate) = &self.options.certificate {
            for (name, content) in [
                ("server.crt", certificate.chain()),
                ("server.key", certificate.key()),
            ] {
                let path = data.join(name);
                certificate_file(&path, content)?;
                self.account.give(&path)?;
            }
        }
        Ok(())
    }
}

/// PostgreSQL refuses a key that others may read.
fn certificate_file(path: &std::path::Path, content: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}
