//! Reads a folder of migrations.

use crate::failure::Failure;
use shared::id::SetName;
use shared::migration::{File, Set};
use std::path::Path;

/// All files of a folder, not of the folders in it, in order of their names.
pub(crate) fn read(folder: &Path) -> Result<Vec<File>, Failure> {
    let unreadable = |error: &std::io::Error| {
        let help = if error.kind() == std::io::ErrorKind::NotFound {
            "\n  help: name the folder with --migrations DIR, or make one with `confiture init`"
        } else {
            ""
        };
        Failure::usage(format!(
            "cannot read the migrations in `{}`: {error}{help}",
            folder.display()
        ))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(&e))? {
        let path = entry.map_err(|e| unreadable(&e))?.path();
        // Follows links, so that a link to a file counts as one; a link into nowhere is reported by the read below.
        if !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let content = runtime::files::read(&path)?;
            Ok(File {
                path: path.display().to_string(),
                content,
            })
        })
        .collect()
}

/// The set in a folder.
pub(crate) fn set(folder: &Path, name: Option<SetName>) -> Result<Set, Failure> {
    let files = read(folder)?;
    if files.is_empty() {
        return Err(Failure::usage(format!(
            "there is no migration in `{}`\n  help: make one with `confiture new NAME`",
            folder.display()
        )));
    }
    Ok(Set::parse(name, &files)?)
}
