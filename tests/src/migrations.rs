//! Sets of migration files in a folder.

use crate::directory::Directory;
use std::path::Path;

/// A folder with migration files, gone when dropped.
#[derive(Debug)]
pub struct Migrations(Directory);

impl Migrations {
    /// Writes a set: file names with their contents.
    pub fn write(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = Directory::new()?;
        for (name, content) in files {
            folder.write(name, content)?;
        }
        Ok(Self(folder))
    }

    /// Adds a file, or replaces it.
    pub fn put(&self, name: &str, content: &str) -> anyhow::Result<()> {
        self.0.write(name, content).map(drop)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
