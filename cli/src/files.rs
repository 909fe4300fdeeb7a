//! Reads a folder of migrations.

use crate::failure::Failure;
use shared::id::SetName;
use shared::migration::{File, Set};
use shared::rollout::Bundle;
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
    parse(folder, name, &read(folder)?)
}

/// The files of a set for a coordinator, checked here first so that mistakes are shown with their place on this
/// machine. They travel under their names alone: the same set is the same bundle wherever it was checked out.
pub(crate) fn bundle(folder: &Path, name: Option<SetName>) -> Result<Bundle, Failure> {
    let files = read(folder)?;
    let set = parse(folder, name, &files)?;
    let files = files.into_iter().map(|file| File {
        path: Path::new(&file.path)
            .file_name()
            .map_or(file.path.clone(), |name| name.to_string_lossy().into_owned()),
        content: file.content,
    });
    Ok(Bundle {
        set: set.name,
        files: files.collect(),
    })
}

fn parse(folder: &Path, name: Option<SetName>, files: &[File]) -> Result<Set, Failure> {
    if files.is_empty() {
        return Err(Failure::usage(format!(
            "there is no migration in `{}`\n  help: make one with `confiture new NAME`",
            folder.display()
        )));
    }
    Ok(Set::parse(name, files)?)
}
