//! `sql`: statements as the author wrote them, whole in one transaction.

use super::{Change, Kind, Undo};
use crate::lock::Mode;
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::sql_file::{self, excerpt};
use crate::name::Table;
use crate::plan::{Action, Facts, Length, Refusal, Transaction};
use serde::{Deserialize, Deserializer};

/// A SQL file, one statement of a file with `transaction=off`, or `sql: "..."` in YAML.
#[derive(Debug, Clone, PartialEq)]
pub struct Sql {
    /// The text as written.
    pub text: String,
    /// How it runs.
    pub execution: Execution,
}

/// How a `sql` step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution {
    /// In one fenced transaction.
    Transaction(Session),
    /// PostgreSQL refuses it inside a transaction.
    Outside(Outside),
}

/// Whether statements may leave something behind in their session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// They change nothing beyond the transaction.
    Clean,
    /// They hold a session `SET` or `set_config(.., false)`: the connection is closed afterwards, and behind a pooler
    /// they are refused, but where a direct URL leads past it.
    Changed,
}

/// A statement that runs outside a transaction, and how its outcome is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The statement.
    pub text: String,
    /// How its outcome is known after a crash.
    pub verify: Verify,
}

/// How the outcome of a statement outside a transaction is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// It is safe to repeat (VACUUM, REINDEX ... CONCURRENTLY, DROP INDEX CONCURRENTLY IF EXISTS).
    Repeat,
    /// A valid index of this name exists: `CREATE INDEX CONCURRENTLY`.
    IndexValid(Table),
    /// No index of this name exists: `DROP INDEX CONCURRENTLY`.
    IndexGone(Table),
}

impl<'de> Deserialize<'de> for Sql {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        sql_file::inline(&text).map_err(serde::de::Error::custom)
    }
}

impl Change {
    /// Whether it may leave something behind in its session.
    pub fn changes_session(&self) -> bool {
        matches!(
            self,
            Self::Sql(Sql {
                execution: Execution::Transaction(Session::Changed),
                ..
            })
        )
    }
}

impl Kind for Sql {
    fn check(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new().field("sql", tokens(&self.text)).finish()
    }

    fn title(&self) -> String {
        const SHOWN: usize = 60;
        format!("sql: {}", excerpt(&self.text, SHOWN))
    }

    fn tables(&self) -> Vec<&Table> {
        Vec::new()
    }

    fn plan(&self, _facts: &Facts) -> Result<Vec<Action>, Refusal> {
        Ok(vec![match &self.execution {
            Execution::Transaction(session) => Action::Transaction(Transaction {
                statements: vec![self.text.clone()],
                session: *session,
                lock: Mode::AccessExclusive,
                length: Length::Bounded,
                withdraw: None,
            }),
            Execution::Outside(outside) => Action::Outside(outside.clone()),
        }])
    }

    fn effect(&self, facts: &mut Facts) {
        // What the statements do to a table is not known: later steps of a dry run are planned on what is there now.
        facts.uncertain = true;
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "what the statements did is not known",
        }
    }
}
