//! Our binary, built from this tree in our own profile.
//!
//! Cargo gives the binary's path only to tests of the package it belongs to, and a binary found lying about may be
//! older than the code under test. So cargo is asked to build it, once per process; when there is nothing to do that
//! takes a fraction of a second.

use super::outcome;
use anyhow::{Context as _, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which build of our program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Build {
    /// As it is shipped. `CONFITURE_BINARY` names another one, to test an installed program.
    #[default]
    Plain,
    /// With points at which the environment can make it die, stand still or fail.
    Faults,
    /// With mistakes, one of which the environment chooses, that tests must notice.
    PlantedBugs,
}

impl Build {
    /// Builds it, which can take minutes, before anything begins that must not wait so long.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn make(self) -> anyhow::Result<()> {
        let made = tokio::task::spawn_blocking(move || self.path().map(drop));
        made.await.context("the build panicked")?
    }

    /// The path of the binary. Blocks while it is built.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn path(self) -> anyhow::Result<&'static Path> {
        static PLAIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        static FAULTS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        static PLANTED_BUGS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let (path, build): (_, fn() -> _) = match self {
            Self::Plain => (&PLAIN, plain),
            Self::Faults => (&FAULTS, || featured("faults")),
            Self::PlantedBugs => (&PLANTED_BUGS, || featured("planted-bugs")),
        };
        match path.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
            Ok(path) => Ok(path),
            Err(error) => bail!("building the confiture binary: {error}"),
        }
    }
}

/// The path of the plain build.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> anyhow::Result<&'static Path> {
    Build::Plain.path()
}

fn plain() -> anyhow::Result<PathBuf> {
    match std::env::var_os("CONFITURE_BINARY") {
        Some(given) => Ok(given.into()),
        None => made("plain", &[]),
    }
}

fn featured(feature: &str) -> anyhow::Result<PathBuf> {
    let made = made(feature, &["--features", &format!("confiture/{feature}")])?;
    // Cargo puts all builds in one place: whoever looks there expects the plain one.
    plain()?;
    Ok(made)
}

/// Builds it and gives it a folder of its own, where no other build takes its place. All builds share what they have in
/// common, so it takes the time of our own crates.
fn made(name: &str, args: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = target().join("tested").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let lock = File::create(folder.with_file_name("lock")).context("opening the lock of the build")?;
    // Other test processes build too. Let go when it is closed.
    lock.lock().context("waiting for another build")?;
    // Over the whole workspace, so that the crates have the features that the tests were built with and are not built again.
    let built = cargo(&[&["--workspace"], args].concat())?;
    let path = folder.join("confiture");
    let fresh = folder.join("confiture.new");
    drop(std::fs::remove_file(&fresh));
    std::fs::hard_link(&built, &fresh).with_context(|| format!("naming {}", built.display()))?;
    // At once: a process may be started from the old one at this moment. Two names of one file are left as they are.
    std::fs::rename(&fresh, &path).with_context(|| format!("naming {}", path.display()))?;
    drop(std::fs::remove_file(&fresh));
    Ok(path)
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// Builds the binary and gives its path.
fn cargo(args: &[&str]) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--bin", "confiture"])
        .args(args);
    command.args([
        "--message-format",
        "json-render-diagnostics",
        "--manifest-path",
        manifest,
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo tells us about our own package is not for the build of another: some build scripts (ring's) run again
    // for it, and then everything above them is compiled anew.
    let ours = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_NAME",
        "OUT_DIR",
        "LD_LIBRARY_PATH",
    ];
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| ours.iter().any(|ours| name.starts_with(ours)))
        {
            command.env_remove(name);
        }
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo build ended with {}", outcome(output.status));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .context("cargo named no executable")
}
