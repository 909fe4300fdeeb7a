//! The built program on wrong usage and input: one clear message on standard error, the right exit code, nothing on
//! standard output.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder of one test, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "confiture-cli-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::SeqCst)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(self, name: &str, content: &str) -> Self {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Runs the program here, with nothing in its environment.
    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_confiture"));
        command.args(arguments).current_dir(&self.0).env_clear();
        Run(command.output().unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Run(Output);

impl Run {
    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// It ended with this code, said all of these on standard error, and printed no data.
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        let stderr = self.stderr();
        assert_eq!(self.0.status.code(), Some(code), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
        }
        assert_eq!(self.stdout(), "");
        for bad in ["panicked", "RUST_BACKTRACE", "Error {", "hunter2"] {
            assert!(!stderr.contains(bad), "`{bad}` is in:\n{stderr}");
        }
    }
}

/// Nothing listens there, so whoever asks before checking would wait for long.
const NOBODY: &str = "http://127.0.0.1:9";

fn start<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["rollout", "start", "--coordinator", NOBODY]
        .into_iter()
        .chain(more.iter().copied())
        .collect()
}

#[test]
fn an_unknown_flag_or_command_is_wrong_usage() {
    let here = Folder::new();
    here.run(&["rollout", "start", "--everything"])
        .fails(2, &["--everything", "--help"]);
    here.run(&["rolout"]).fails(2, &["rolout", "rollout"]);
    here.run(&["rollout", "show"]).fails(2, &["<ID>"]);
    here.run(&["rollout", "start", "--all", "--max-in-flight", "0"])
        .fails(2, &["--max-in-flight"]);
}

#[test]
fn a_rollout_must_say_for_which_databases() {
    let here = Folder::new().with("db/migrations/001_a.up.sql", "SELECT 1");
    here.run(&start(&[]))
        .fails(2, &["which databases?", "--select", "--all"]);
    here.run(&start(&["--all", "--select", "env=prod"]))
        .fails(2, &["--all", "--select"]);
    here.run(&start(&["--select", "env"]))
        .fails(2, &["--select: `env` is no label pair"]);
    here.run(&start(&["--select", "env=a,env=b"]))
        .fails(2, &["--select: label `env`"]);
}

#[test]
fn migrations_are_read_before_anybody_is_asked() {
    let here = Folder::new()
        .with("bad/001_a.yaml", "name: a\nup:\n  - ad_column: { table: t }\n")
        .with("empty/sub/001_a.up.sql", "SELECT 1");
    here.run(&start(&["--all"]))
        .fails(2, &["`db/migrations`", "confiture init"]);
    here.run(&start(&["--all", "--migrations", "empty"]))
        .fails(2, &["no migration", "`empty`"]);
    here.run(&start(&["--all", "--migrations", "bad"]))
        .fails(2, &["bad/001_a.yaml:3:", "ad_column", "add_column"]);
}

#[cfg(unix)]
#[test]
fn a_link_into_nowhere_is_named() {
    let here = Folder::new().with("m/001_a.up.sql", "SELECT 1");
    std::os::unix::fs::symlink("/nowhere/002_b.up.sql", here.0.join("m/002_b.up.sql")).unwrap();
    here.run(&start(&["--all", "--migrations", "m"]))
        .fails(2, &["m/002_b.up.sql", "No such file"]);
}

#[test]
fn ids_and_limits_are_checked_first() {
    let here = Folder::new().with("db/migrations/001_a.up.sql", "SELECT 1");
    here.run(&start(&["--all", "--request-id", "a b"]))
        .fails(2, &["--request-id", "a b"]);
    here.run(&start(&["--all", "--set", "no/set"]))
        .fails(2, &["--set", "no/set"]);
    here.run(&start(&["--all", "--max-in-flight", "10001"]))
        .fails(2, &["max_in_flight", "10000"]);
}

#[test]
fn what_is_no_coordinator_is_refused_at_once() {
    let here = Folder::new();
    here.run(&["fleet", "agents", "--coordinator", "localhost:7070"])
        .fails(2, &["localhost:7070", "http://host:port"]);
    here.run(&["rollout", "list", "--coordinator", "http://ada:hunter2@h:1"])
        .fails(2, &["http://host:port"]);
}

#[test]
fn settings_are_checked_with_their_place() {
    let here = Folder::new()
        .with("confiture.yaml", "agent:\n  coordinatr: http://127.0.0.1:1\n")
        .with("url.yaml", "agent:\n  coordinator: seventy\n");
    here.run(&["fleet", "agents"])
        .fails(2, &["confiture.yaml:2:3", "coordinatr", "coordinator"]);
    here.run(&["fleet", "agents", "--config", "url.yaml"])
        .fails(2, &["url.yaml:2:16", "seventy"]);
    here.run(&["fleet", "agents", "--config", "none.yaml"])
        .fails(2, &["none.yaml", "No such file"]);
}

#[test]
fn an_agent_needs_databases_with_names_and_urls_of_their_own() {
    let twice = "databases:\n  - { name: a, url: \"postgres://u@h/a\" }\n  - { name: a, url: \"postgres://u@h/b\" }\n";
    let here = Folder::new()
        .with("none.yaml", "agent: { id: a }\n")
        .with("twice.yaml", twice)
        .with("unset.yaml", "databases:\n  - { name: a, url_env: NOT_SET }\n")
        .with(
            "bad.yaml",
            "databases:\n  - { name: a, url: \"mysql://u:hunter2@h/a\" }\n",
        );
    here.run(&["agent", "--config", "none.yaml"])
        .fails(2, &["no database", "databases:"]);
    here.run(&["agent", "--config", "twice.yaml"])
        .fails(2, &["twice.yaml:3:", "a name of its own"]);
    here.run(&["agent", "--config", "unset.yaml"])
        .fails(2, &["unset.yaml:2:", "NOT_SET"]);
    here.run(&["agent", "--config", "bad.yaml"])
        .fails(2, &["postgres://"]);
    here.run(&["agent", "--config", "unset.yaml", "--id", "no/id"])
        .fails(2, &["--id", "no/id"]);
}

#[test]
fn a_bad_log_filter_is_wrong_input() {
    let here = Folder::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_confiture"));
    command
        .args(["agent"])
        .current_dir(&here.0)
        .env_clear()
        .env("CONFITURE_LOG", "agent=loud");
    Run(command.output().unwrap()).fails(2, &["CONFITURE_LOG", "agent=loud"]);
}

#[test]
fn help_names_the_exit_codes_and_the_fields_of_json() {
    let here = Folder::new();
    let help = here.run(&["--help"]);
    assert_eq!(help.0.status.code(), Some(0));
    assert!(help.stdout().contains("Exit codes: 0 done"), "{}", help.stdout());
    let help = here.run(&["rollout", "show", "--help"]).stdout();
    for field in ["created_at_unix_ms", "changed_rows", "estimated_rows"] {
        assert!(help.contains(field), "{help}");
    }
}

#[test]
fn completions_know_the_commands() {
    let here = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = here.run(&["completions", shell]);
        assert_eq!(script.0.status.code(), Some(0));
        assert!(script.stdout().contains("rollout") && script.stdout().contains("fleet"));
    }
    assert!(
        Path::new(&here.0).read_dir().unwrap().next().is_none(),
        "completions write no file"
    );
}
