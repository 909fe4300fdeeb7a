//! `sql`: statements as the author wrote them, whole in one transaction.

use super::{Change, Kind, Undo};
use crate::lock::Mode;
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::sql_file::{self, excerpt};
use crate::name::Table;
use crate::plan::{Action, Alone, Facts, Length, Refusal, Transaction};
use serde::{Deserialize, Deserializer};

/// A SQL file, one statement of a file with `transaction=off`, or `sql: "..."` in YAML.
#[derive(Debug, Clone, PartialEq)]
pub struct Sql {
    /// The text as written.
    pub text: String,
    /// How it runs.
    pub execution: Execution,
    /// The tables it names, with the locks it takes on them, as far as they can be read.
    pub locks: Vec<(Mode, Table)>,
    /// Whether it surely creates only what nobody knows yet, and locks nothing that others may want.
    pub creates_only: bool,
    /// Whether it takes rows or values away for good, as far as that can be read.
    pub loses_data: bool,
}

/// How a `sql` step runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Execution {
    /// In one fenced transaction.
    Transaction(Session),
    /// PostgreSQL refuses it inside a transaction, and it is safe to repeat (VACUUM).
    Outside(Outside),
    /// It does what this step does, and is carried out as that: CREATE INDEX CONCURRENTLY.
    Step(Box<Change>),
}

/// What a statement outside of transactions does to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Nobody waits for it.
    Weak,
    /// It writes tables or indexes anew, with all others shut out (VACUUM FULL, CLUSTER, REINDEX).
    Rewrite,
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
        match &self.execution {
            Execution::Transaction(_) | Execution::Outside(_) => Vec::new(),
            Execution::Step(change) => change.tables(),
        }
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let locks = || {
            let named = self.locks.iter();
            named.map(|(mode, table)| (*mode, table.to_string())).collect()
        };
        Ok(vec![match &self.execution {
            Execution::Transaction(session) => Action::Transaction(Transaction {
                statements: vec![self.text.clone()],
                session: *session,
                lock: Mode::AccessExclusive,
                length: Length::Bounded,
                withdraw: None,
                on: Vec::new(),
                also: locks(),
                creates_only: self.creates_only,
            }),
            Execution::Outside(outside) => Action::Outside(Alone {
                statement: self.text.clone(),
                outside: *outside,
                locks: locks(),
            }),
            Execution::Step(change) => return change.plan(facts),
        }])
    }

    fn effect(&self, facts: &mut Facts) {
        // What the statements do to a table is not known: later steps of a dry run are planned on what is there now.
        facts.uncertain = true;
    }

    fn loses_data(&self) -> bool {
        match &self.execution {
            Execution::Transaction(_) | Execution::Outside(_) => self.loses_data,
            Execution::Step(change) => change.loses_data(),
        }
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "what the statements did is not known",
        }
    }
}
