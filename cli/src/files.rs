//! Reads a folder of migrations.

use crate::failure::Failure;
use shared::id::SetName;
use shared::migration::{File, Set};
use shared::rollout::Bundle;
use std::collections::BTreeSet;
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
/// machine.
///
/// Only what is part of a migration travels: settings with passwords may lie beside. Files travel under their names
/// alone, so that the same set is the same bundle wherever it was checked out.
pub(crate) fn bundle(folder: &Path, name: Option<SetName>) -> Result<Bundle, Failure> {
    let files = read(folder)?;
    let set = parse(folder, name, &files)?;
    let scripts = set
        .migrations
        .iter()
        .flat_map(|of| [Some(&of.up), of.down.as_ref()]);
    let used: BTreeSet<&str> = scripts.flatten().map(|script| script.file.as_str()).collect();
    let files = files
        .into_iter()
        .filter(|file| used.contains(file.path.as_str()))
        .map(|file| File {
            path: Path::new(&file.path)
                .file_name()
                .map_or(file.path.clone(), |name| name.to_string_lossy().into_owned()),
            content: file.content,
        });
    Ok(Bundle {
        set: set.name.clone(),
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

/// The names of the files in a folder; none when there is no such folder yet.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Failure> {
    let unreadable =
        |error: &std::io::Error| Failure::usage(format!("cannot read `{}`: {error}", folder.display()));
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(&error)),
        Ok(entries) => entries
            .map(|entry| {
                Ok(entry
                    .map_err(|e| unreadable(&e))?
                    .file_name()
                    .to_string_lossy()
                    .into_owned())
            })
            .collect(),
    }
}

/// Writes files that are not there yet, saying which. One that is there is never overwritten, and then none is written.
pub(crate) fn write_new(folder: &Path, files: &[File]) -> Result<(), Failure> {
    let paths: Vec<_> = files.iter().map(|file| (folder.join(&file.path), file)).collect();
    if let Some((path, _)) = paths.iter().find(|(path, _)| path.exists()) {
        return Err(Failure::usage(format!(
            "`{}` is there already; nothing was written\n  help: move it away, or name another folder",
            path.display()
        )));
    }
    for (path, file) in paths {
        let failed =
            |error: std::io::Error| Failure::failed(format!("cannot write `{}`: {error}", path.display()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut new = std::fs::File::create_new(&path).map_err(failed)?;
        std::io::Write::write_all(&mut new, &file.content).map_err(failed)?;
        crate::output::data(&path.display().to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_migrations_travel_and_only_under_their_names() {
        let folder = std::env::temp_dir().join(format!("confiture-bundle-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        let files = [
            ("001_a.up.sql", "SELECT 1"),
            ("001_a.down.sql", "SELECT 2"),
            ("002_b.yaml", "up: [{ sql: SELECT 3 }]"),
            ("confiture.set.yaml", "set: audit"),
            (
                "confiture.yaml",
                "databases: [{ name: a, url: \"postgres://u:hunter2@h/a\" }]",
            ),
            ("README.md", "notes"),
            ("sub/003_c.up.sql", "SELECT 4"),
        ];
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let bundle = bundle(&folder, None).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(bundle.set.as_str(), "audit");
        let names: Vec<_> = bundle.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["001_a.down.sql", "001_a.up.sql", "002_b.yaml"]);
    }
}
