//! What is known about a pooler between us and the server: whether one is there, and what it cannot do for us.
//!
//! Transactions need no such knowledge: all they set ends with them. A setting of the session does: see
//! [`shared::sql::pooler`] for how a session of our own is told from one that is lent.

use crate::error::Error;
use shared::plan::Refusal;
use shared::sql::pooler as texts;
use tokio_postgres::error::SqlState;

/// Whose the server's session at the end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody asked.
    Unknown,
    /// Ours alone, as long as the connection is open.
    Own,
    /// A pooler's, which lends it to us for a transaction, and to others.
    Lent,
}

/// What one connection is opened with, and no other.
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As libpq has it.
    pub(crate) fn option(&self) -> String {
        texts::option(&self.0)
    }

    /// Whether the session that answers has it.
    pub(crate) async fn standing(
        &self,
        client: &tokio_postgres::Client,
    ) -> Result<Standing, tokio_postgres::Error> {
        let rows = client.query_typed(texts::MARK, &[]).await?;
        let found = rows.first().and_then(|row| row.get::<_, Option<&str>>(0));
        Ok(if found == Some(&self.0) {
            Standing::Own
        } else {
            Standing::Lent
        })
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
