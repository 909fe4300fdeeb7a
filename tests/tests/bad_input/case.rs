//! One thing done wrong.

use expect_test::Expect;
use std::path::Path;
use tests::process::Confiture;

/// Stands in every URL, and in no message.
pub(crate) const PASSWORD: &str = "hunter2";

/// One thing done wrong, in a folder of its own.
pub(crate) struct Case {
    files: Vec<(String, Vec<u8>)>,
    words: Vec<String>,
    env: Vec<(String, String)>,
    /// What is different each time, and what stands for it in the message.
    covered: Vec<(String, String)>,
    times: Times,
}

/// What becomes of the log's lines.
enum Times {
    Shown,
    Covered,
    OnlyErrors,
}

/// A line of the log without its time.
fn without_time(line: &str) -> String {
    let rest = line.split_once("Z ").filter(|(time, _)| time.starts_with("20"));
    format!("{}\n", rest.map_or(line, |(_, rest)| rest.trim_start()))
}

impl Case {
    /// A call of the program.
    pub(crate) fn of(words: &[&str]) -> Self {
        Self {
            files: Vec::new(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            covered: Vec::new(),
            times: Times::Shown,
        }
    }

    /// `confiture migrate up` over these files, with a database that nobody reaches for.
    pub(crate) fn up(files: &[(&str, &str)]) -> Self {
        let case = Self::of(&["migrate", "up", "--migrations", "db"]).env(
            "DATABASE_URL",
            &format!("postgres://app:{PASSWORD}@127.0.0.1:1/app"),
        );
        files.iter().fold(case, |case, (name, content)| {
            case.file(&format!("db/{name}"), content.as_bytes())
        })
    }

    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A text that is different each time.
    pub(crate) fn covering(mut self, text: impl std::fmt::Display, by: &str) -> Self {
        self.covered.push((format!("{text}"), by.to_owned()));
        self
    }

    pub(crate) fn arg(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Times at the beginning of lines of the log are different each time.
    pub(crate) fn covering_times(mut self) -> Self {
        self.times = Times::Covered;
        self
    }

    /// The log before the error is of no interest.
    pub(crate) fn only_errors(mut self) -> Self {
        self.times = Times::OnlyErrors;
        self
    }

    /// Runs it, and it works.
    pub(crate) async fn succeeds(self) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        self.call(folder.path())?.succeed().await.map(drop)
    }

    fn call(&self, folder: &Path) -> anyhow::Result<Confiture> {
        std::fs::create_dir(folder.join("db"))?;
        for (name, content) in &self.files {
            std::fs::write(folder.join(name), content)?;
        }
        let call = Confiture::new(&self.words).folder(folder);
        Ok(self
            .env
            .iter()
            .fold(call, |call, (name, value)| call.env(name, value)))
    }

    /// Runs it. `code` is its exit code; nothing is on standard output.
    pub(crate) async fn says(self, code: i32, message: Expect) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let ended = self.call(folder.path())?.run().await?;
        let mut said = match self.times {
            Times::Shown => ended.stderr.clone(),
            Times::Covered => ended.stderr.lines().map(without_time).collect(),
            Times::OnlyErrors => {
                let start = ended.stderr.find("error: ").unwrap_or_default();
                ended.stderr[start..].to_owned()
            }
        };
        for (text, by) in &self.covered {
            said = said.replace(text, by);
        }
        for never in [
            "panicked",
            "RUST_BACKTRACE",
            "state it holds impossible",
            PASSWORD,
        ] {
            assert!(!said.contains(never), "{:?}: {said}", self.words);
        }
        assert_eq!(ended.stdout, "", "{:?}", self.words);
        message.assert_eq(&said);
        assert_eq!(ended.code, Some(code), "{:?}: {said}", self.words);
        Ok(())
    }
}
