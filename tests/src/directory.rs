//! Folders that go away with the value that holds them.

use crate::reaper;
use anyhow::Context as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A folder of its own under the system's temporary folder.
#[derive(Debug)]
pub struct Directory(tempfile::TempDir);

impl Directory {
    /// Makes an empty one that this user alone can write to; others may pass through, so that a server under
    /// another user can reach what it owns inside.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("confiture-")
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()
            .context("making a temporary folder")?;
        reaper::made(folder.path());
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file in it, with the folders on the way, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("making the folder {}", parent.display()))?;
        }
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A server that is just dying may still add files; the reaper keeps what could not be removed.
        if std::fs::remove_dir_all(self.path()).is_ok() || !self.path().exists() {
            reaper::removed(self.path());
        }
    }
}
