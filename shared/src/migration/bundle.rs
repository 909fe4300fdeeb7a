//! What of a folder travels to a fleet, and how much that may be.

use super::discover::{base_name, is_ignored};
use super::{File, Problem, Problems};
use crate::id::SetName;
use crate::rollout::Bundle;

/// The largest bundle in bytes, paths included. It travels in one gRPC message (64 MiB at most) and is kept in the
/// store in pieces.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The most files in a bundle.
pub const MAX_FILES: usize = 20_000;

impl Bundle {
    /// The bundle of a folder: the files that play a part, by their names alone and in order of them. So the same set
    /// has the same digest wherever it lies, whatever its README says.
    ///
    /// # Errors
    /// When it is larger than a fleet is given at a time.
    pub fn of(set: SetName, files: &[File]) -> Result<Self, Problems> {
        let mut files: Vec<File> = files
            .iter()
            .filter(|file| !is_ignored(base_name(&file.path)))
            .map(|file| File {
                path: base_name(&file.path).to_owned(),
                content: file.content.clone(),
            })
            .collect();
        files.sort_by(|a, b| (&a.path, &a.content).cmp(&(&b.path, &b.content)));
        let bytes: usize = files
            .iter()
            .map(|file| file.path.len() + file.content.len())
            .sum();
        let mut problems = Vec::new();
        let mut refuse = |what: String, advice: &str| {
            problems.push(Problem {
                file: format!("set {set}"),
                at: None,
                what,
                advice: Some(advice.to_owned()),
            });
        };
        if bytes > MAX_BYTES {
            let advice = "load large data by other means, or split the set";
            refuse(
                format!("its files have {bytes} bytes, and at most {MAX_BYTES} travel to a fleet"),
                advice,
            );
        }
        if files.len() > MAX_FILES {
            let advice = "replace old migrations by one that makes the schema they lead to";
            refuse(
                format!(
                    "it has {} files, and at most {MAX_FILES} travel to a fleet",
                    files.len()
                ),
                advice,
            );
        }
        if problems.is_empty() {
            Ok(Self { set, files })
        } else {
            Err(Problems(problems))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> File {
        File {
            path: path.to_owned(),
            content: content.as_bytes().to_vec(),
        }
    }

    fn bundle(files: &[File]) -> Bundle {
        Bundle::of(SetName::default_set(), files).unwrap()
    }

    #[test]
    fn the_same_set_has_the_same_digest_wherever_it_lies() {
        let here = [
            file("db/migrations/2_b.up.sql", "SELECT 2"),
            file("db/migrations/1_a.up.sql", "SELECT 1"),
        ];
        let there = [
            file("1_a.up.sql", "SELECT 1"),
            file("2_b.up.sql", "SELECT 2"),
            file("README.md", "new"),
            file(".x", ""),
        ];
        assert_eq!(bundle(&here).digest(), bundle(&there).digest());
        assert_ne!(bundle(&here).digest(), bundle(&here[..1]).digest());
        let edited = [here[0].clone(), file("1_a.up.sql", "SELECT 1 ")];
        assert_ne!(
            bundle(&here).digest(),
            bundle(&edited).digest(),
            "what travels is bytes, comments and all"
        );
    }

    #[test]
    fn more_than_a_fleet_is_given_at_a_time_is_refused() {
        let half = "x".repeat(MAX_BYTES / 2);
        let told = Bundle::of(
            SetName::default_set(),
            &[file("1_a.up.sql", &half), file("2_b.up.sql", &half)],
        )
        .unwrap_err();
        assert!(
            told.to_string().starts_with("set default: its files have"),
            "{told}"
        );
        let many: Vec<File> = (0..=MAX_FILES)
            .map(|n| file(&format!("{n}_a.up.sql"), ""))
            .collect();
        assert!(Bundle::of(SetName::default_set(), &many).is_err());
    }
}
