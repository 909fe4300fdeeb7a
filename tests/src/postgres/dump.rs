//! Databases as SQL, by `pg_dump`.

use super::{Database, START, Server};
use crate::process::Process;
use anyhow::{Context as _, bail};

/// Comments, the settings of the session, and a word that differs each time.
const NOISE: [&str; 5] = [
    "--",
    "SET ",
    "SELECT pg_catalog.set_config",
    r"\restrict",
    r"\unrestrict",
];

impl Server {
    /// Schema and rows of a database as SQL, but for the schemas named.
    pub async fn dump(&self, database: &Database, but: &[&str]) -> anyhow::Result<String> {
        let but = but.iter().map(|schema| format!("--exclude-schema={schema}"));
        self.dumped(database, but.chain(["--inserts".to_owned()]).collect())
            .await
    }

    /// The catalog of a database as SQL without our own schema, line by line; without what says nothing about it.
    ///
    /// # Errors
    /// Also where [`Server::is_dumped`] is false.
    pub async fn catalog(&self, database: &Database) -> anyhow::Result<Vec<String>> {
        let options = ["--schema-only", "--exclude-schema=confiture"].map(str::to_owned);
        let dump = self.dumped(database, options.to_vec()).await?;
        let lines = dump.lines().filter(|line| !line.trim().is_empty());
        let lines = lines.filter(|line| !NOISE.iter().any(|noise| line.starts_with(noise)));
        Ok(lines.map(str::to_owned).collect())
    }

    /// Whether the `pg_dump` that is installed reads this server: it does those of its own major and of earlier ones.
    pub async fn is_dumped(&self) -> anyhow::Result<bool> {
        let mut command = self.account.installed()?.command("pg_dump")?;
        command.arg("--version");
        let mut version = Process::start("pg_dump", command)?;
        version.wait(START).await?;
        let said = version.stdout();
        let major = said.split([' ', '.']).find_map(|word| word.parse::<i64>().ok());
        let major = major.with_context(|| format!("which pg_dump is {said}?"))?;
        let server = self.known("postgres").server_version().await?;
        Ok(server / 10_000 <= major)
    }

    async fn dumped(&self, database: &Database, options: Vec<String>) -> anyhow::Result<String> {
        let mut command = self.account.installed()?.command("pg_dump")?;
        command.args(["--no-owner", "--no-privileges"]).args(options);
        command.arg("--dbname").arg(database.url());
        let mut dump = Process::start("pg_dump", command)?;
        if !dump.wait(START).await?.success() {
            bail!("pg_dump failed: {}", dump.stderr());
        }
        Ok(dump.stdout())
    }
}
