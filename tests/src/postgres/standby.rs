//! Hot standbys. `pg_basebackup` belongs to one major, and what `CONFITURE_POSTGRES` names may have none: the copy is made as
//! the server's manual says, between two calls of it, which every major has.

use super::{START, SUPERUSER, Server};
use crate::directory::Directory;
use crate::port::Port;
use crate::process::Process;
use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::Command;

/// What a copy must not have: it says that the original runs, and in `pg_stat_tmp` files come and go.
const OF_THE_ORIGINAL: [&str; 3] = ["postmaster.pid", "postmaster.opts", "pg_stat_tmp"];

impl Server {
    /// A hot standby of this server, which then catches up with it.
    pub async fn standby(&self) -> anyhow::Result<Self> {
        let folder = Directory::new()?;
        self.account.give(folder.path())?;
        let mut standby = Self {
            process: None,
            port: Port::claim()?,
            folder,
            account: self.account.clone(),
            password: self.password.clone(),
            options: self.options.clone(),
        };
        let data = standby.folder.path().join("data");
        self.copy_data(&data).await?;
        let conf = data.join("postgresql.auto.conf");
        let settings = std::fs::read_to_string(&conf).context("reading the copy's settings")?;
        let primary = self.url_as(SUPERUSER, &self.password, "postgres");
        let own = format!("port = {}\nprimary_conninfo = '{primary}'\n", standby.port());
        std::fs::write(&conf, settings + &own).with_context(|| format!("writing {}", conf.display()))?;
        standby.resume().await?;
        Ok(standby)
    }

    async fn copy_data(&self, to: &Path) -> anyhow::Result<()> {
        let (begin, end) = if self.known("postgres").server_version().await? < 150_000 {
            (
                "pg_start_backup('standby', true, false)",
                "pg_stop_backup(false, false)",
            )
        } else {
            ("pg_backup_start('standby', true)", "pg_backup_stop(false)")
        };
        // Both in one session.
        let admin = self.admin("postgres").await?;
        admin.batch_execute(&format!("SELECT {begin}")).await?;
        copied(&self.folder.path().join("data"), to).await?;
        let end = format!("SELECT labelfile FROM {end}");
        let label: String = admin.query_one(&end, &[]).await?.try_get(0)?;

        std::fs::create_dir(to.join("pg_stat_tmp"))?;
        std::fs::write(to.join("backup_label"), label)?;
        std::fs::write(to.join("standby.signal"), "")?;
        for made in ["", "pg_stat_tmp", "backup_label", "standby.signal"] {
            self.account.give(&to.join(made))?;
        }
        Ok(())
    }
}

/// All but [`OF_THE_ORIGINAL`], with owners and modes. What goes away meanwhile is not needed.
async fn copied(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("cp");
    command
        .env("LC_ALL", "C")
        .args(["--archive", "--target-directory"]);
    command.arg(to);
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        if !OF_THE_ORIGINAL.iter().any(|name| entry.file_name() == *name) {
            command.arg(entry.path());
        }
    }
    let mut mode = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut mode, 0o700).create(to)?;
    let mut copy = Process::start("cp", command)?;
    let gone = |line: &str| line.contains("No such file or directory");
    if !copy.wait(START).await?.success() && !copy.stderr().lines().all(gone) {
        bail!("copying {} failed: {}", from.display(), copy.stderr());
    }
    Ok(())
}
