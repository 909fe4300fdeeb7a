//! The README is true: its commands are the program's, and its tour of one database works as written.

use anyhow::{Context as _, anyhow, ensure};
use shared::migration::{Change, File, Set};
use shared::rollout::work::Exit;
use std::path::{Path, PathBuf};
use tests::directory::Directory;
use tests::postgres::Server;
use tests::process::Confiture;

#[tokio::test]
async fn every_command_and_flag_is_one_the_program_has() -> anyhow::Result<()> {
    let readme = readme()?;
    let commands: Vec<_> = blocks(&readme, "sh").flat_map(commands).collect();
    ensure!(commands.len() > 10, "few commands were found: {commands:?}");
    for words in commands {
        // A migration's name is a value, not the name of a command.
        let words: Vec<&str> = if words[0] == "new" {
            [&words[..1], &words[2..]].concat()
        } else {
            words
        };
        Confiture::check_usage(&words).await?;
    }
    Ok(())
}

#[test]
fn every_step_it_shows_is_one_that_can_be_read() -> anyhow::Result<()> {
    let readme = readme()?;
    let steps = blocks(&readme, "yaml")
        .find(|block| block.starts_with("- create_table"))
        .context("no steps")?;
    let file = File {
        path: "1_a.yaml".to_owned(),
        content: format!("up:\n{steps}").into_bytes(),
    };
    let set = Set::parse(None, &[file]).map_err(|problems| anyhow!("{problems}"))?;
    assert_eq!(set.migrations[0].up.steps.len(), 8);
    for name in Change::KNOWN {
        ensure!(
            readme.contains(&format!("`{name}`")),
            "the step {name} is not named"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_tour_of_one_database_works_as_written() -> anyhow::Result<()> {
    let readme = readme()?;
    let tour = blocks(&readme, "sh")
        .find(|block| block.contains("confiture init"))
        .context("no tour")?;
    let steps = blocks(&readme, "yaml").next().context("no migration")?;
    let server = Server::start().await?;
    let database = server.database("shop").await?;
    let folder = Directory::new()?;

    for words in commands(tour) {
        if words[0] == "migrate" {
            fill(
                &folder.path().join("db/migrations"),
                "create_orders.up.sql",
                "CREATE TABLE orders (id int PRIMARY KEY, total int);",
            )?;
            fill(
                &folder.path().join("db/migrations"),
                "create_orders.down.sql",
                "DROP TABLE orders;",
            )?;
            fill(&folder.path().join("db/migrations"), "order_totals.yaml", steps)?;
        }
        Confiture::new(&words)
            .folder(folder.path())
            .env("DATABASE_URL", database.url())
            .succeed()
            .await?;
    }

    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'total_with_tax'";
    assert_eq!(
        database.number(columns).await?,
        0,
        "the tour ends by taking the last migration back"
    );
    Ok(())
}

#[test]
fn the_exit_codes_are_the_programs() -> anyhow::Result<()> {
    let readme = readme()?;
    let told: Vec<u8> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    let codes = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Refused,
        Exit::Stopped,
    ]
    .map(Exit::code);
    assert_eq!(told, codes);
    Ok(())
}

#[test]
fn every_path_and_make_target_is_there() -> anyhow::Result<()> {
    let readme = readme()?;
    let makefile = std::fs::read_to_string(root().join("Makefile"))?;
    let code = readme.split('`').skip(1).step_by(2);
    for word in code.filter(|word| word.contains('/') && !word.contains([' ', ':', '\n'])) {
        let made = word.starts_with("target/");
        ensure!(made || root().join(word).exists(), "there is no {word}");
    }
    for target in readme
        .split("make ")
        .skip(1)
        .filter_map(|rest| rest.split(['`', ' ', '\n']).next())
    {
        ensure!(
            makefile.contains(&format!("\n{target}:")),
            "there is no `make {target}`"
        );
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> anyhow::Result<String> {
    std::fs::read_to_string(root().join("README.md")).context("reading the README")
}

/// The fenced blocks in one language.
fn blocks<'a>(readme: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    readme
        .split("```")
        .skip(1)
        .step_by(2)
        .filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}

/// The calls of the program in a block, in words, without the program and without comments.
fn commands(block: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = block.lines().filter_map(|line| line.strip_prefix("confiture "));
    lines.map(|line| {
        line.split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect()
    })
}

/// Writes what an author would write into the file that `confiture new` made.
fn fill(folder: &Path, ends_with: &str, content: &str) -> anyhow::Result<()> {
    let mut files = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.to_string_lossy().ends_with(ends_with));
    let file = file.with_context(|| format!("`confiture new` made no file ..{ends_with}"))?;
    std::fs::write(&file, content).with_context(|| format!("writing {}", file.display()))
}
