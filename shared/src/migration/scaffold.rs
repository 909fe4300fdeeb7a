//! What `confiture init` and `confiture new` write: contents as values; who writes them is elsewhere.

use super::discover::base_name;
use super::{File, Version};

/// A way a new migration may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Two files of SQL.
    Sql,
    /// One file of YAML.
    Yaml,
}

/// Why no migration can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing of the name can be in a file's name.
    #[error("`{0}` holds no letter and no digit, so no file can be named after it")]
    Name(String),
    /// The caller's time has another form.
    #[error("`{0}` is not a time: 14 digits are expected (YYYYMMDDHHMMSS)")]
    Now(String),
    /// The next version would have too many digits.
    #[error("there is no version after {0}")]
    Last(Version),
}

/// The most characters of a name that go into a file's name.
const LONGEST_NAME: usize = 80;

/// Digits of a version that is a time.
const TIME_DIGITS: usize = 14;

/// The files of a new project; paths are relative to its folder.
pub fn project() -> Vec<File> {
    vec![
        file("confiture.yaml", SETTINGS),
        file("db/migrations/README.md", README),
    ]
}

/// The files of a new migration; paths are relative to the folder of migrations, of which `existing` are the paths.
///
/// The version is the next number, as wide as the widest, where the newest version is a number, and the time otherwise
/// (`now`: YYYYMMDDHHMMSS in UTC); in any case it is larger than all there are.
///
/// # Errors
/// When the name or the time cannot be used, or no version is left.
pub fn migration(existing: &[String], name: &str, now: &str, form: Form) -> Result<Vec<File>, Error> {
    let slug = slug(name).ok_or_else(|| Error::Name(name.to_owned()))?;
    let version = next_version(existing, now)?;
    Ok(match form {
        Form::Sql => vec![
            file(&format!("{version}_{slug}.up.sql"), UP),
            file(&format!("{version}_{slug}.down.sql"), DOWN),
        ],
        Form::Yaml => vec![file(
            &format!("{version}_{slug}.yaml"),
            &YAML.replace("NAME", &quoted(name)),
        )],
    })
}

fn file(path: &str, content: &str) -> File {
    File {
        path: path.to_owned(),
        content: content.as_bytes().to_vec(),
    }
}

/// A text as YAML in double quotes, on one line.
fn quoted(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line: String = line
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_NAME)
        .collect();
    format!(
        "\"{}\"",
        line.trim_end().replace('\\', "\\\\").replace('"', "\\\"")
    )
}

/// A name as part of a file's name: letters and digits in lower case, everything else one `_`.
fn slug(name: &str) -> Option<String> {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('_') {
            slug.push('_');
        }
    }
    let slug: String = slug.chars().take(LONGEST_NAME).collect();
    let slug = slug.trim_end_matches('_');
    (!slug.is_empty()).then(|| slug.to_owned())
}

fn next_version(existing: &[String], now: &str) -> Result<Version, Error> {
    let time: Version = now
        .parse()
        .ok()
        .filter(|_| now.len() == TIME_DIGITS)
        .ok_or_else(|| Error::Now(now.to_owned()))?;
    let versions: Vec<Version> = existing
        .iter()
        .filter_map(|path| version_of(base_name(path)))
        .collect();
    let Some(newest) = versions.iter().max() else {
        return Ok(time);
    };
    let is_time = newest.as_str().len() == TIME_DIGITS && newest.key().len() == TIME_DIGITS;
    if is_time && *newest < time {
        return Ok(time);
    }
    let width = versions
        .iter()
        .map(|version| version.as_str().len())
        .max()
        .unwrap_or(1);
    increment(newest, width).ok_or_else(|| Error::Last(newest.clone()))
}

/// The version in a file's name, whatever follows it.
fn version_of(name: &str) -> Option<Version> {
    let digits = name.find(|c: char| !c.is_ascii_digit())?;
    name[digits..]
        .starts_with('_')
        .then(|| name[..digits].parse().ok())
        .flatten()
}

/// The next number, at least as wide; `None` when it would have more digits than a version may.
fn increment(version: &Version, width: usize) -> Option<Version> {
    let mut digits: Vec<u8> = version.key().bytes().collect();
    let mut carry = true;
    for digit in digits.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == b'9';
        *digit = if carry { b'0' } else { *digit + 1 };
    }
    if carry {
        digits.insert(0, b'1');
    }
    let digits: String = digits.into_iter().map(char::from).collect();
    format!("{digits:0>width$}").parse().ok()
}

const SETTINGS: &str = r#"# Settings of Confiture. What is not written has its default, shown here behind `#`.
# Every key can also be given in the environment: migration.lock_timeout is CONFITURE_MIGRATION_LOCK_TIMEOUT.

migration:
  # Where the migrations are, relative to this file.
  directory: db/migrations
  # How long to wait for locks in all, and the longest single statement.
  # lock_timeout: 30s
  # statement_timeout: 5min

# The databases. A URL may also come from the environment (url_env) or a file (url_file), so that no password stands here.
# databases:
#   - name: orders
#     url_env: ORDERS_DATABASE_URL
#     labels: { env: dev }

# connection:
#   pool: { min_size: 2, max_size: 10, max_idle_time: 300, max_lifetime: 3600 }

# For a fleet: the coordinator, and an agent beside the databases.
# coordinator: { listen: "127.0.0.1:7070", store: "file:./confiture.redb" }
# agent: { id: agent-a, coordinator: ["http://127.0.0.1:7070"] }
"#;

const README: &str = r"# Migrations

Each migration is one version:

- `VERSION_name.up.sql` with an optional `VERSION_name.down.sql`, or
- `VERSION_name.yaml`, whose steps Confiture runs without long locks and undoes by itself where it can.

VERSION is a number or a time and sorts. Make the next one with `confiture new NAME` (or `confiture new NAME --yaml`),
see what it would do with `confiture migrate up --dry-run`, and apply it with `confiture migrate up`.

A version that was applied anywhere is history: do not change it, make a new one.
";

const UP: &str = r"-- What this migration does. It runs in one transaction, together with its record: write no BEGIN and no COMMIT.
-- Settings of its own, if it needs any, stand in a comment up here: `confiture:` and then lock_timeout=60s
ALTER TABLE your_table ADD COLUMN your_column text;
";

const DOWN: &str = r"-- Takes back what the way up did. Remove this file if there is no way back.
ALTER TABLE your_table DROP COLUMN your_column;
";

const YAML: &str = r"name: NAME
up:
  - add_column: { table: your_table, column: your_column, type: text }
# Without `down` the steps are undone automatically, in reverse, where they can be.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Set;
    use crate::settings::{File as SettingsFile, Settings, Sources};
    use proptest::prelude::*;
    use std::path::Path;

    const NOW: &str = "20260102030405";

    fn names(existing: &[&str], name: &str, form: Form) -> Vec<String> {
        let existing: Vec<String> = existing.iter().map(|path| (*path).to_owned()).collect();
        let files = migration(&existing, name, NOW, form).unwrap();
        files.into_iter().map(|file| file.path).collect()
    }

    fn version(existing: &[&str]) -> String {
        names(existing, "x", Form::Yaml)[0].replace("_x.yaml", "")
    }

    #[test]
    fn the_settings_of_a_new_project_are_valid_and_find_its_migrations() {
        let files = project();
        let text = String::from_utf8(files[0].content.clone()).unwrap();
        let read = |text: &str| {
            let file = Some(SettingsFile {
                path: Path::new("confiture.yaml"),
                text,
            });
            Settings::read(&Sources {
                file,
                host: "h",
                ..Sources::default()
            })
            .unwrap_or_else(|problems| panic!("{problems}"))
        };
        assert_eq!(read(&text).migration.directory, Path::new("db/migrations"));
        assert!(files[1].path.starts_with("db/migrations/"));
    }

    #[test]
    fn what_stands_in_comments_of_the_settings_is_valid_too() {
        let text = String::from_utf8(project()[0].content.clone()).unwrap();
        let keys = text
            .lines()
            .map(|line| match line.trim_start().strip_prefix("# ") {
                // Prose has no key at its beginning.
                Some(rest) if rest.trim_start().starts_with(|c: char| c.is_ascii_uppercase()) => {
                    line.to_owned()
                }
                Some(_) => line.replacen("# ", "", 1),
                None => line.to_owned(),
            });
        let text = keys.collect::<Vec<_>>().join("\n");
        let file = Some(SettingsFile {
            path: Path::new("confiture.yaml"),
            text: &text,
        });
        let settings = Settings::read(&Sources {
            file,
            host: "h",
            ..Sources::default()
        })
        .unwrap_or_else(|p| panic!("{p}\n{text}"));
        assert_eq!(settings.database_names().count(), 1);
    }

    #[test]
    fn a_new_migration_parses_in_both_forms() {
        for form in [Form::Sql, Form::Yaml] {
            let files = migration(&[], "Add \"notes\": to C:\\orders", NOW, form).unwrap();
            let set = Set::parse(None, &files).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(set.migrations[0].version.as_str(), NOW);
            assert!(set.migrations[0].name.to_lowercase().contains("notes"));
        }
    }

    #[test]
    fn a_name_becomes_a_slug() {
        assert_eq!(
            names(&[], "Add  Notes-Column!", Form::Yaml),
            ["20260102030405_add_notes_column.yaml"]
        );
        assert_eq!(
            names(&[], "Größe", Form::Sql),
            ["20260102030405_größe.up.sql", "20260102030405_größe.down.sql"]
        );
        assert_eq!(
            migration(&[], "?!", NOW, Form::Sql),
            Err(Error::Name("?!".to_owned()))
        );
        assert_eq!(
            migration(&[], "../../etc/passwd", NOW, Form::Yaml).unwrap()[0].path,
            "20260102030405_etc_passwd.yaml"
        );
    }

    #[test]
    fn the_next_version_follows_the_folders_own_way() {
        assert_eq!(version(&[]), NOW);
        assert_eq!(
            version(&[
                "m/001_a.up.sql",
                "m/001_a.down.sql",
                "m/009_b.yaml",
                "m/README.md"
            ]),
            "010"
        );
        assert_eq!(version(&["1_a.up.sql", "9_b.up.sql"]), "10");
        assert_eq!(version(&["999_a.up.sql"]), "1000");
        assert_eq!(version(&["20250101000000_a.up.sql"]), NOW);
        assert_eq!(version(&["001_a.up.sql", "20250101000000_a.up.sql"]), NOW);
        assert_eq!(
            version(&["20270101000000_a.up.sql"]),
            "20270101000001",
            "a version from the future is still the newest"
        );
        assert_eq!(
            version(&["7.up.sql", "x_7.up.sql"]),
            NOW,
            "these are no migrations"
        );
    }

    #[test]
    fn a_time_that_is_none_and_a_version_without_a_next_are_refused() {
        assert_eq!(
            migration(&[], "x", "2026", Form::Sql),
            Err(Error::Now("2026".to_owned()))
        );
        let last = format!("{}_a.up.sql", "9".repeat(40));
        assert!(matches!(
            migration(&[last], "x", NOW, Form::Sql),
            Err(Error::Last(_))
        ));
    }

    proptest! {
        #[test]
        fn whatever_the_name_the_files_parse_or_it_is_refused(name in any::<String>()) {
            for form in [Form::Sql, Form::Yaml] {
                if let Ok(files) = migration(&[], &name, NOW, form) {
                    let parsed = Set::parse(None, &files);
                    prop_assert!(parsed.is_ok(), "{:?}: {:?}", files, parsed);
                }
            }
        }
    }
}
