//! A throw-away PgBouncer before a test server, set up as the tuning guide does: users with passwords, 200 clients, a
//! reserve of five connections, and nothing that makes it easier for us.
//!
//! It takes any database of its server, and every pair of role and database has a pool of its own.

use crate::directory::Directory;
use crate::port::Port;
use crate::postgres::account::Account;
use crate::postgres::{Database, OWNER, SUPERUSER, Server};
use crate::process::Process;
use anyhow::{Context as _, bail};
use std::path::Path;
use std::time::Duration;

const PROGRAM: &str = "/usr/sbin/pgbouncer";

const START: Duration = Duration::from_secs(30);

/// For how long a server connection belongs to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// Until the client goes.
    Session,
    /// For one transaction.
    Transaction,
    /// For one statement; transactions of several are refused.
    Statement,
}

/// What may differ between test poolers.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// For how long a server connection belongs to a client.
    pub pool_mode: PoolMode,
    /// Server connections for each role in each database.
    pub pool_size: u32,
    /// Further ones for clients that have waited for five seconds.
    pub reserve: u32,
    /// Startup parameters that it leaves out instead of refusing the client: names with commas.
    pub ignored: &'static str,
}

impl Default for Options {
    /// The smallest pool in which one may look while another works.
    fn default() -> Self {
        Self {
            pool_mode: PoolMode::Transaction,
            pool_size: 2,
            reserve: 5,
            ignored: "",
        }
    }
}

/// One PgBouncer, running or stopped; gone when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    process: Option<Process>,
    port: Port,
    folder: Directory,
    account: Account,
}

impl PgBouncer {
    /// Starts one before a server and waits until it takes clients.
    pub async fn start(server: &Server, options: Options) -> anyhow::Result<Self> {
        let account = Account::for_servers()?;
        let folder = Directory::new()?;
        let port = Port::claim()?;
        let mut pgbouncer = Self {
            process: None,
            port,
            folder,
            account,
        };
        let users = [OWNER, SUPERUSER].map(|role| format!("\"{role}\" \"{}\"\n", server.password()));
        let users = pgbouncer.write("userlist.txt", &users.concat())?;
        let settings = settings(server.port(), pgbouncer.port.number(), &users, options);
        pgbouncer.write("pgbouncer.ini", &settings)?;
        pgbouncer.resume().await?;
        Ok(pgbouncer)
    }

    /// The URL of a database of its server, by way of it.
    pub fn url(&self, server: &Server, database: &Database) -> String {
        let (there, here) = (server.port(), self.port.number());
        (database.url()).replacen(&format!(":{there}/"), &format!(":{here}/"), 1)
    }

    /// A database of its server, whose owner comes by way of it.
    pub fn database(&self, server: &Server, database: &Database) -> Database {
        database.by_way_of(self.url(server, database))
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What it has logged since it was last started.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// SIGKILL: all connections of its clients and to its server end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("PgBouncer is not running")?;
        process.kill();
        Ok(())
    }

    /// Starts it again after [`PgBouncer::kill`] and waits until it takes clients.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("PgBouncer is running already");
        }
        let mut command = self.account.command_of(Path::new(PROGRAM))?;
        command.arg(self.folder.path().join("pgbouncer.ini"));
        let process = Process::start(&format!("PgBouncer on port {}", self.port()), command)?;
        process.wait_for_line("process up", START).await?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGSTOP: connections stay open, nobody answers.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.process
            .as_mut()
            .context("PgBouncer is not running")?
            .freeze()
    }

    /// Ends [`PgBouncer::freeze`].
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.process
            .as_mut()
            .context("PgBouncer is not running")?
            .resume()
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<String> {
        let path = self.folder.write(name, content)?;
        self.account.give(&path)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// The guide's settings, with the sizes of a test.
fn settings(server: u16, port: u16, users: &str, options: Options) -> String {
    let pool_mode = match options.pool_mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    format!(
        "[databases]
* = host=127.0.0.1 port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = md5
auth_file = {users}
pool_mode = {pool_mode}
max_client_conn = 200
default_pool_size = {}
reserve_pool_size = {}
ignore_startup_parameters = {}
",
        options.pool_size, options.reserve, options.ignored
    )
}
