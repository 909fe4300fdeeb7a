//! The built program as a coordinator, and as its client, without any database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A folder with a coordinator's store, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("confiture-coordinator-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("db/migrations")).unwrap();
        std::fs::write(
            path.join("db/migrations/001_a.up.sql"),
            "CREATE TABLE a (id bigint PRIMARY KEY)",
        )
        .unwrap();
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_confiture"));
        command.args(arguments).current_dir(&self.0).env_clear();
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A coordinator that serves; killed in the end.
struct Coordinator {
    process: Child,
    listen: String,
    url: String,
}

impl Coordinator {
    fn start(folder: &Folder, more: &[&str]) -> Self {
        let listen = free_address();
        let arguments = [&["coordinator", "--listen", &listen], more].concat();
        let mut process = folder.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        assert!(
            log.any(|line| line.unwrap().contains("leading")),
            "the coordinator ended"
        );
        // Whatever else it logs must not fill the pipe.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            process,
            url: format!("http://{listen}"),
            listen,
        }
    }

    fn terminate(&mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the coordinator does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[track_caller]
fn assert_prints(output: &Output, stdout: &str, stderr: &str) {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), stdout);
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), stderr);
}

#[test]
fn a_store_is_founded_only_when_that_is_said() {
    let folder = Folder::new();
    let listen = free_address();
    let refused = folder.run(&["coordinator", "--listen", &listen]);
    assert_fails(&refused, 2, &["confiture.redb", "--init"]);
    assert!(!folder.0.join("confiture.redb").exists());
    let mut coordinator = Coordinator::start(&folder, &["--init"]);
    assert_eq!(coordinator.terminate(), Some(0));
    Coordinator::start(&folder, &[]);
}

#[test]
fn a_port_in_use_is_said_and_no_store_is_touched() {
    let folder = Folder::new();
    let coordinator = Coordinator::start(&folder, &["--init"]);
    let second = folder.run(&[
        "coordinator",
        "--listen",
        &coordinator.listen,
        "--store",
        "file:other.redb",
        "--init",
    ]);
    assert_fails(&second, 1, &[&coordinator.listen, "in use"]);
    assert!(!folder.0.join("other.redb").exists());
}

#[test]
fn a_bad_address_or_store_is_wrong_input() {
    let folder = Folder::new();
    assert_fails(
        &folder.run(&["coordinator", "--listen", "7070"]),
        2,
        &["--listen", "127.0.0.1:7070"],
    );
    assert_fails(
        &folder.run(&["coordinator", "--store", "mysql://x"]),
        2,
        &["--store", "etcd://host:2379"],
    );
    assert_fails(
        &folder.run(&["coordinator", "--listen", "192.0.2.1:7070"]),
        2,
        &["192.0.2.1:7070", "no such address"],
    );
}

#[test]
fn an_empty_fleet_is_told_as_such() {
    let folder = Folder::new();
    let coordinator = Coordinator::start(&folder, &["--init"]);
    let ask = |arguments: &[&str]| folder.run(&[arguments, &["--coordinator", &coordinator.url]].concat());
    assert_prints(&ask(&["fleet", "agents"]), "", "no agent has connected yet");
    assert_prints(&ask(&["fleet", "databases", "--output", "json"]), "[]", "");
    assert_prints(&ask(&["rollout", "list"]), "", "there is no rollout yet");
    assert_prints(&ask(&["rollout", "list", "--output", "json"]), "[]", "");
    for verb in ["show", "watch", "abort"] {
        assert_fails(
            &ask(&["rollout", verb, "nope"]),
            2,
            &[&format!("cannot {verb} rollout nope"), "rollout list"],
        );
    }
    assert_fails(
        &ask(&["rollout", "start", "--all"]),
        2,
        &["cannot start the rollout", "is an agent running"],
    );
}

#[test]
fn the_environment_names_the_coordinator_too() {
    let folder = Folder::new();
    let coordinator = Coordinator::start(&folder, &["--init"]);
    let mut command = folder.command(&["fleet", "agents"]);
    let output = command
        .env(
            "CONFITURE_COORDINATOR",
            format!("http://127.0.0.1:9,{}", coordinator.url),
        )
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("http://127.0.0.1:9: connection refused; trying again"),
        "{stderr}"
    );
}
