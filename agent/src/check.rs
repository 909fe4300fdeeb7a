//! Whether a query gives true, in a transaction that can change nothing.

use crate::database::Database;
use crate::error::Error;
use shared::inquiry::Checked;
use shared::sql::{Commit, Limits, Tag, assertion as texts};
use std::time::Duration;
use tokio_postgres::Row;

/// A check stands in nobody's way, and in nobody's wave for long.
const LIMITS: Limits = Limits {
    lock: Duration::from_secs(1),
    statement: Some(Duration::from_secs(15)),
    commit: Commit::Deferred,
};

/// It claims nothing.
const TAG: Tag = Tag::OF_NO_RUN;

/// Whether a query that must give one row with one boolean gives true. NULL is no answer; errors are for people, and may
/// pass.
pub(crate) async fn holds(database: &Database, query: &str) -> Result<Checked, String> {
    let mut session = database.session().await.map_err(|error| problem(&error))?;
    let opening = "opening a transaction";
    let begun = session
        .begin_with(&TAG, LIMITS, opening, "SET TRANSACTION READ ONLY", &[])
        .await;
    begun.map_err(|error| problem(&error))?;
    let statement = format!("{TAG}{}", texts::assertion(query));
    let rows = session.client().query_typed(&statement, &[]).await;
    session.rollback(&TAG).await;
    let rows = match rows.map_err(Error::statement("the query")) {
        Ok(rows) => rows,
        Err(error) if error.sqlstate().is_some_and(is_wrong) => return Ok(Checked::Wrong(problem(&error))),
        Err(error) => return Err(problem(&error)),
    };
    match truth(&rows)? {
        Some(true) => Ok(Checked::Holds),
        Some(false) => Ok(Checked::Fails),
        None => Err("its query gives no row, or NULL".to_owned()),
    }
}

/// Whether an error lies in the text of the query: class 42, syntax error or access rule violation; several rows where one is
/// asked for; an attempt to write.
fn is_wrong(sqlstate: &str) -> bool {
    sqlstate.starts_with("42") || matches!(sqlstate, "21000" | "25006")
}

/// What [`texts::assertion`] gave: `None` for no row, and for NULL.
///
/// # Errors
/// When it is not one boolean.
pub(crate) fn truth(rows: &[Row]) -> Result<Option<bool>, &'static str> {
    match rows {
        [] => Ok(None),
        [row] if row.get::<_, i64>(0) == 1 => match row.get::<_, Option<&str>>(1) {
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some("null") | None => Ok(None),
            Some(_) => Err("its query must give a boolean"),
        },
        _ => Err("its query must give one row with one boolean"),
    }
}

fn problem(error: &Error) -> String {
    error.failure().message
}
