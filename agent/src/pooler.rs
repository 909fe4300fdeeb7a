//! What is known about a pooler between us and the server: whether one is there, and what it cannot do for us.
//!
//! Most transactions need no such knowledge: all they set ends with them. A setting of the session does, and a statement
//! that the server is to keep: see [`shared::sql::pooler`] for how a session of our own is told from one that is lent.

use crate::error::Error;
use shared::plan::Refusal;
use shared::sql::pooler as texts;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

/// Whose the server's session at the end of a connection is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody asked.
    Unknown,
    /// Ours alone, as long as the connection is open: it has the mark that this was opened with.
    Own(Mark),
    /// A pooler's, which lends it to us for a transaction, and to others.
    Lent,
}

impl Standing {
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Whether the session is ours alone and the one that gave these rows, by the mark in their first column.
    pub(crate) fn is_of(&self, rows: &[Row]) -> bool {
        matches!(self, Self::Own(mark) if mark.is_in(rows))
    }
}

/// What one connection is opened with, and no other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As libpq has it.
    pub(crate) fn option(&self) -> String {
        texts::option(&self.0)
    }

    /// Whose the session that answers is.
    pub(crate) async fn standing(
        self,
        client: &tokio_postgres::Client,
    ) -> Result<Standing, tokio_postgres::Error> {
        let rows = client.query_typed(texts::MARK, &[]).await?;
        Ok(if self.is_in(&rows) {
            Standing::Own(self)
        } else {
            Standing::Lent
        })
    }

    /// Whether the session has it that gave these rows, by their first column.
    fn is_in(&self, rows: &[Row]) -> bool {
        let found = rows.first().and_then(|row| row.try_get(0).ok().flatten());
        found == Some(self.0.as_str())
    }
}

/// Whether a connection was refused for what it was opened with: PostgreSQL takes the options of every client.
pub(crate) fn refuses_options(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::PROTOCOL_VIOLATION)
}

/// Why a transaction could not begin.
pub(crate) fn not_begun(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |source| {
        if refuses_transactions(&source) {
            Error::Refused(Refusal::Unsafe {
                what: STATEMENT_MODE.to_owned(),
                advice: Some(TRANSACTION_MODE.to_owned()),
            })
        } else {
            Error::Statement { doing, source }
        }
    }
}

const STATEMENT_MODE: &str =
    "the pooler on the way to this database is in statement mode, in which no transaction can begin";

const TRANSACTION_MODE: &str =
    "let it have `pool_mode = transaction` for this database, or give a URL past it";

/// PgBouncer has one code for all that it says; the test with a real one pins these words.
fn refuses_transactions(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::PROTOCOL_VIOLATION && error.message().contains("statement pooling mode")
    })
}

/// Why a step that needs a session of its own is refused.
pub(crate) fn needs_own_session(place: &str) -> Error {
    Error::Refused(Refusal::Unsafe {
        what: format!("{place}, may leave settings or locks behind in its session, which the pooler on the way to this database lends to others"),
        advice: Some(
            "use SET LOCAL, pg_advisory_xact_lock and the like, which end with the transaction; or give the database a `direct_url` past the pooler"
                .to_owned(),
        ),
    })
}
