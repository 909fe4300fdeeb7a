//! The guard of the pure core sees what it is there to see.

use anyhow::Context as _;
use std::path::Path;
use std::process::{Command, Output};
use tests::directory::Directory;

#[test]
fn the_core_is_pure() -> anyhow::Result<()> {
    let output = purity(&checkout()?)?;
    assert!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn a_runtime_in_the_core_is_refused() -> anyhow::Result<()> {
    let copy = checkout()?;
    edit(copy.path(), "shared/Cargo.toml", |text| {
        text.replace("[dependencies]", "[dependencies]\ntokio.workspace = true")
    })?;
    // The copy's lock file must say so too.
    let update = Command::new("cargo")
        .args(["update", "--offline", "--workspace"])
        .current_dir(copy.path())
        .output()?;
    assert!(update.status.success(), "{update:?}");

    let output = purity(&copy)?;

    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`shared` depends on tokio"), "{said}");
    Ok(())
}

#[test]
fn a_clock_or_a_file_in_the_core_is_refused() -> anyhow::Result<()> {
    for line in [
        "use std::time::Instant;",
        "fn f() { std::fs::remove_file(\"x\").ok(); }",
        "type M = HashMap<u8, u8>;",
    ] {
        let copy = checkout()?;
        edit(copy.path(), "shared/src/lib.rs", |text| format!("{text}{line}\n"))?;
        let output = purity(&copy)?;
        assert!(!output.status.success(), "{line} passed");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(line),
            "{line}: {output:?}"
        );
    }
    Ok(())
}

/// A copy of the sources, without history and build results.
fn checkout() -> anyhow::Result<Directory> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace")?;
    let copy = Directory::new()?;
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "clippy.toml",
        ".ci",
        "shared",
        "proto",
        "coordinator",
        "agent",
        "cli",
        "tests",
    ] {
        let status = Command::new("cp")
            .arg("-r")
            .arg(root.join(part))
            .arg(copy.path())
            .status()?;
        anyhow::ensure!(status.success(), "copying {part}: {status}");
    }
    Ok(copy)
}

fn purity(copy: &Directory) -> anyhow::Result<Output> {
    let script = copy.path().join(".ci/purity");
    Command::new(&script)
        .output()
        .with_context(|| format!("running {}", script.display()))
}

fn edit(root: &Path, file: &str, change: impl Fn(&str) -> String) -> anyhow::Result<()> {
    let path = root.join(file);
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, change(&text)).with_context(|| format!("writing {}", path.display()))
}
