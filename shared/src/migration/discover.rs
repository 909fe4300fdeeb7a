//! From files to a set: which file is what, which belong together, in which order.

use super::{File, Migration, Problem, Problems, Script, Set, Version, sql_file, yaml};
use crate::id::SetName;
use crate::yaml as tree;
use std::collections::BTreeMap;

/// The file that names the set.
const SET_FILE: &str = "confiture.set.yaml";

/// The largest file that is read: beyond it a migration is no longer text written by people.
pub const MAX_FILE_BYTES: usize = 20 * 1024 * 1024;

/// What a file's name says.
enum Kind {
    Up,
    Down,
    Yaml,
}

/// The files of one version.
#[derive(Default)]
struct Parts<'a> {
    up: Vec<Part<'a>>,
    down: Vec<Part<'a>>,
}

/// One file of a version.
struct Part<'a> {
    file: &'a File,
    version: Version,
    name: String,
    is_yaml: bool,
}

impl Set {
    /// Reads the files of a set. A name given goes before the one in `confiture.set.yaml`; without either the set is
    /// `default`.
    ///
    /// # Errors
    /// All problems at once, in the order of the files.
    pub fn parse(set: Option<SetName>, files: &[File]) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut named = None;
        let mut versions: BTreeMap<Version, Parts<'_>> = BTreeMap::new();
        for file in files {
            let base = base_name(&file.path);
            if base == SET_FILE {
                match set_name(file) {
                    Ok(name) => named = Some(name),
                    Err(found) => problems.extend(found),
                }
            } else if !is_ignored(base) {
                match part(file, base) {
                    Ok((Kind::Up | Kind::Yaml, part)) => {
                        versions.entry(part.version.clone()).or_default().up.push(part);
                    }
                    Ok((Kind::Down, part)) => {
                        versions.entry(part.version.clone()).or_default().down.push(part);
                    }
                    Err(problem) => problems.push(problem),
                }
            }
        }
        let mut migrations = Vec::new();
        for parts in versions.into_values() {
            match migration(&parts) {
                Ok(migration) => migrations.push(migration),
                Err(found) => problems.extend(found),
            }
        }
        if migrations.is_empty() && problems.is_empty() {
            problems.push(Problem {
                file: files
                    .first()
                    .map_or_else(|| ".".to_owned(), |file| folder(&file.path).to_owned()),
                at: None,
                what: "there is no migration here".to_owned(),
                advice: Some("make one with `confiture new NAME`".to_owned()),
            });
        }
        if problems.is_empty() {
            let name = set.or(named).unwrap_or_else(SetName::default_set);
            Ok(Self { name, migrations })
        } else {
            problems.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
            Err(Problems(problems))
        }
    }
}

/// The last part of a path, whichever way its parts are separated.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn folder(path: &str) -> &str {
    path.rsplit_once(['/', '\\']).map_or(".", |(folder, _)| folder)
}

/// Files that lie beside migrations and are none: hidden ones, notes, and the settings.
pub(super) fn is_ignored(base: &str) -> bool {
    let lower = base.to_ascii_lowercase();
    base.starts_with('.')
        || lower.starts_with("readme")
        || lower.rsplit('.').next() == Some("md")
        || base == "confiture.yaml"
}

/// What is said about a file that is not named as one of ours.
const FORMS: &str = "name it VERSION_name.up.sql, VERSION_name.down.sql or VERSION_name.yaml, such as 001_add_tax.up.sql; hidden files and *.md are ignored";

/// What a file is, by its name.
fn part<'a>(file: &'a File, base: &str) -> Result<(Kind, Part<'a>), Problem> {
    let wrong = |what: &str, advice: &str| Problem {
        file: file.path.clone(),
        at: None,
        what: what.to_owned(),
        advice: Some(advice.to_owned()),
    };
    let (stem, kind) = if let Some(stem) = base.strip_suffix(".up.sql") {
        (stem, Kind::Up)
    } else if let Some(stem) = base.strip_suffix(".down.sql") {
        (stem, Kind::Down)
    } else if let Some(stem) = base.strip_suffix(".yaml").or_else(|| base.strip_suffix(".yml")) {
        (stem, Kind::Yaml)
    } else {
        return Err(wrong("this is no migration by its name", FORMS));
    };
    let (version, name) = stem.split_once('_').unwrap_or((stem, ""));
    let version = version
        .parse::<Version>()
        .map_err(|error| wrong(&format!("its name does not begin with a version: {error}"), FORMS))?;
    if name.is_empty() {
        return Err(wrong("its name has no words after the version", FORMS));
    }
    let is_yaml = matches!(kind, Kind::Yaml);
    Ok((
        kind,
        Part {
            file,
            version,
            name: name.to_owned(),
            is_yaml,
        },
    ))
}

/// One migration from the files of one version.
fn migration(parts: &Parts<'_>) -> Result<Migration, Vec<Problem>> {
    let problem = |file: &File, what: String, advice: &str| Problem {
        file: file.path.clone(),
        at: None,
        what,
        advice: Some(advice.to_owned()),
    };
    let mut problems = Vec::new();
    for same in [&parts.up, &parts.down] {
        if let Some((first, others)) = same.split_first() {
            problems.extend(others.iter().map(|other| {
                let what = format!("version {} stands in {} already", other.version, first.file.path);
                problem(other.file, what, "give one of the two another version")
            }));
        }
    }
    let Some(up) = parts.up.first() else {
        problems.extend(parts.down.iter().map(|down| {
            problem(
                down.file,
                format!("there is no up for version {}", down.version),
                "a down file needs an up file of the same version",
            )
        }));
        return Err(problems);
    };
    let down = parts.down.first();
    if let Some(down) = down {
        if up.is_yaml {
            problems.push(problem(
                down.file,
                format!("version {} is a YAML file", up.version),
                "write the `down:` steps into the YAML file",
            ));
        } else if down.name != up.name {
            let what = format!(
                "version {} is called `{}` in {}",
                up.version, up.name, up.file.path
            );
            problems.push(problem(
                down.file,
                what,
                "give both files of a version the same name",
            ));
        }
    }
    let scripts = if up.is_yaml {
        text(up.file)
            .and_then(|text| yaml::parse(&up.file.path, text))
            .map(|parsed| (parsed.name, parsed.up, parsed.down))
    } else {
        let up = sql(up.file);
        let down = down.map(|down| sql(down.file)).transpose();
        match (up, down) {
            (Ok(up), Ok(down)) => Ok((None, up, down)),
            (up, down) => Err([up.err(), down.err()].into_iter().flatten().flatten().collect()),
        }
    };
    match scripts {
        Ok((name, up_script, down)) if problems.is_empty() => Ok(Migration {
            version: up.version.clone(),
            name: name.unwrap_or_else(|| up.name.clone()),
            up: up_script,
            down,
        }),
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(found);
            Err(problems)
        }
    }
}

fn sql(file: &File) -> Result<Script, Vec<Problem>> {
    let text = text(file)?;
    let parsed = sql_file::parse(&file.path, text)?;
    Ok(Script {
        file: file.path.clone(),
        text: text.to_owned(),
        checksum: parsed.checksum,
        options: parsed.options,
        steps: parsed.steps,
    })
}

/// A file's text, without a byte order mark.
fn text(file: &File) -> Result<&str, Vec<Problem>> {
    let wrong = |offset: usize, what: &str, advice: &str| {
        let before = String::from_utf8_lossy(&file.content[..offset]);
        vec![Problem {
            file: file.path.clone(),
            at: Some(super::Position::of_offset(&before, before.len())),
            what: what.to_owned(),
            advice: Some(advice.to_owned()),
        }]
    };
    if file.content.len() > MAX_FILE_BYTES {
        return Err(vec![Problem {
            file: file.path.clone(),
            at: None,
            what: format!(
                "it has {} bytes, and at most {MAX_FILE_BYTES} are read",
                file.content.len()
            ),
            advice: Some("split it, or load large data by other means".to_owned()),
        }]);
    }
    let text = std::str::from_utf8(&file.content).map_err(|error| {
        wrong(
            error.valid_up_to(),
            "this is not UTF-8 text",
            "save the file as UTF-8",
        )
    })?;
    if let Some(offset) = text.find('\0') {
        return Err(wrong(
            offset,
            "there is a NUL byte",
            "PostgreSQL takes none: remove it",
        ));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The content of `confiture.set.yaml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFile {
    set: SetName,
}

/// The name in `confiture.set.yaml`.
fn set_name(file: &File) -> Result<SetName, Vec<Problem>> {
    let problem = |error: tree::Error| Problem {
        file: file.path.clone(),
        at: error.position,
        what: error.what,
        advice: error.advice.or_else(|| Some("write `set: NAME`".to_owned())),
    };
    let problems = |error: tree::Error| error.all().map(problem).collect::<Vec<_>>();
    let node = tree::parse(text(file)?).map_err(problems)?;
    let node = node.ok_or_else(|| problems(tree::Error::new("the file is empty")))?;
    tree::read::<SetFile>(&node)
        .map(|file| file.set)
        .map_err(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(files: &[(&str, &str)]) -> Result<Set, Problems> {
        let files: Vec<File> = (files.iter())
            .map(|(path, content)| File {
                path: (*path).to_owned(),
                content: content.as_bytes().to_vec(),
            })
            .collect();
        Set::parse(None, &files)
    }

    fn said(files: &[(&str, &str)]) -> String {
        parse(files).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_becomes_a_set_in_order_of_versions() {
        let set = parse(&[
            ("db/10_c.up.sql", "SELECT 3"),
            ("db/9_b.yaml", "name: two\nup:\n  - sql: SELECT 2\n"),
            ("db/001_a.down.sql", "SELECT 0"),
            ("db/001_a.up.sql", "\u{feff}SELECT 1\r\n"),
            ("db/README.md", "notes"),
            ("db/.hidden", "x"),
        ])
        .unwrap();
        let read: Vec<_> = set
            .migrations
            .iter()
            .map(|m| (m.version.as_str(), m.name.as_str(), m.down.is_some()))
            .collect();
        assert_eq!(
            read,
            [("001", "a", true), ("9", "two", false), ("10", "c", false)]
        );
        assert_eq!(set.name, SetName::default_set());
    }

    #[test]
    fn the_set_is_named_by_its_file_or_by_the_caller() {
        let files = [
            File {
                path: "confiture.set.yaml".to_owned(),
                content: b"set: audit\n".to_vec(),
            },
            File {
                path: "1_a.up.sql".to_owned(),
                content: b"SELECT 1".to_vec(),
            },
        ];
        assert_eq!(Set::parse(None, &files).unwrap().name.as_str(), "audit");
        let given = SetName::try_from("given").ok();
        assert_eq!(Set::parse(given, &files).unwrap().name.as_str(), "given");
        assert!(
            said(&[("confiture.set.yaml", "sett: x\n"), ("1_a.up.sql", "SELECT 1")])
                .contains("confiture.set.yaml:1:1")
        );
    }

    #[test]
    fn one_version_stands_once() {
        let said = said(&[
            ("7_a.up.sql", "SELECT 1"),
            ("007_b.up.sql", "SELECT 1"),
            ("7_c.yaml", "up:\n - sql: SELECT 1\n"),
        ]);
        assert_eq!(said.matches("stands in").count(), 2, "{said}");
    }

    #[test]
    fn files_that_do_not_fit_are_named_with_the_way_out() {
        assert!(said(&[("1_a.sql", "SELECT 1")]).contains("VERSION_name.up.sql"));
        assert!(said(&[("v1_a.up.sql", "SELECT 1")]).contains("does not begin with a version"));
        assert!(said(&[("1.up.sql", "SELECT 1")]).contains("no words after the version"));
        assert!(said(&[("1_a.down.sql", "SELECT 1")]).contains("no up for version 1"));
        assert!(said(&[("1_a.up.sql", "SELECT 1"), ("1_b.down.sql", "SELECT 1")]).contains("the same name"));
        assert!(
            said(&[
                ("1_a.yaml", "up:\n - sql: SELECT 1\n"),
                ("1_a.down.sql", "SELECT 1")
            ])
            .contains("`down:` steps")
        );
        assert!(said(&[]).contains("no migration"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        let bad = File {
            path: "1_a.up.sql".to_owned(),
            content: b"SELECT 1;\nSELECT '\xff'".to_vec(),
        };
        assert!(
            Set::parse(None, &[bad])
                .unwrap_err()
                .to_string()
                .contains("1_a.up.sql:2:9: this is not UTF-8")
        );
        assert!(said(&[("1_a.up.sql", "SELECT\0 1")]).contains("1_a.up.sql:1:7: there is a NUL byte"));
    }

    #[test]
    fn a_file_beyond_all_measure_is_refused() {
        let large = File {
            path: "1_a.up.sql".to_owned(),
            content: vec![b' '; MAX_FILE_BYTES + 1],
        };
        let said = Set::parse(None, &[large]).unwrap_err().to_string();
        assert!(said.starts_with("1_a.up.sql: it has"), "{said}");
    }

    #[test]
    fn the_parts_of_a_path_may_be_separated_either_way() {
        let set = parse(&[("db\\migrations\\1_a.up.sql", "SELECT 1")]).unwrap();
        assert_eq!(set.migrations[0].name, "a");
    }

    #[test]
    fn all_problems_are_said_at_once_in_the_order_of_the_files() {
        let said = said(&[
            ("2_b.up.sql", "COMMIT"),
            ("1_a.up.sql", "SELEC 1"),
            ("3_c.yaml", "up: 1\n"),
        ]);
        let order: Vec<_> = ["1_a.up.sql:1:1", "2_b.up.sql:1:1", "3_c.yaml:1:5"]
            .iter()
            .map(|place| said.find(place))
            .collect();
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{said}");
    }

    #[test]
    fn five_thousand_files_are_no_burden() {
        let files: Vec<File> = (1..=5000)
            .map(|i| File {
                path: format!("{i}_m.up.sql"),
                content: format!("ALTER TABLE t ADD COLUMN c{i} int;").into_bytes(),
            })
            .collect();
        assert_eq!(Set::parse(None, &files).unwrap().migrations.len(), 5000);
    }
}
