//! Under which user and from which folder the server's programs run.

use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// PostgreSQL refuses to run as root; then the user `postgres`, which the package made, runs it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    programs: PathBuf,
    /// User and group id to change to, when we are root.
    other: Option<(u32, u32)>,
}

impl Account {
    pub(crate) fn for_servers() -> anyhow::Result<Self> {
        let programs = programs()?;
        let root = rustix::process::geteuid().is_root();
        let other = if root { Some((id("-u")?, id("-g")?)) } else { None };
        Ok(Self { programs, other })
    }

    /// The same with the programs that Debian installed: what `CONFITURE_POSTGRES` names may be a server alone.
    pub(super) fn installed(&self) -> anyhow::Result<Self> {
        Ok(Self {
            programs: installed()?,
            ..self.clone()
        })
    }

    /// A command that runs one of PostgreSQL's programs under the account.
    pub(super) fn command(&self, program: &str) -> anyhow::Result<Command> {
        self.command_of(&self.programs.join(program))
    }

    /// A command that runs any program under the account.
    pub(crate) fn command_of(&self, path: &Path) -> anyhow::Result<Command> {
        if !path.exists() {
            bail!("there is no {}; `.ci/setup` installs it", path.display());
        }
        let mut command = match self.other {
            None => Command::new(path),
            // setpriv becomes the program: the pid is the server's own.
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([
                    "--reuid",
                    &user.to_string(),
                    "--regid",
                    &group.to_string(),
                    "--clear-groups",
                    "--",
                ]);
                command.arg(path);
                command
            }
        };
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok(command)
    }

    /// Makes the account the owner of a file or folder.
    pub(crate) fn give(&self, path: &Path) -> anyhow::Result<()> {
        let Some((user, group)) = self.other else {
            return Ok(());
        };
        std::os::unix::fs::chown(path, Some(user), Some(group))
            .with_context(|| format!("giving {} to the user postgres", path.display()))
    }
}

/// The newest server installed, or the one that `CONFITURE_POSTGRES` names (a folder with `initdb` in it).
fn programs() -> anyhow::Result<PathBuf> {
    match std::env::var_os("CONFITURE_POSTGRES") {
        Some(given) => Ok(given.into()),
        None => installed(),
    }
}

fn installed() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let found = versions
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, folder)| folder.join("initdb").exists());
    let newest = found.max_by_key(|(version, _)| *version);
    newest
        .map(|(_, folder)| folder)
        .context("no PostgreSQL server under /usr/lib/postgresql; run `.ci/setup`")
}

fn id(which: &str) -> anyhow::Result<u32> {
    let output = Command::new("id")
        .args([which, "postgres"])
        .output()
        .context("asking for the user postgres")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .context("root cannot run PostgreSQL and there is no user `postgres`; run `.ci/setup`")
}
