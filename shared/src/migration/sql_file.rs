//! SQL files: what they may contain and how they run.

use super::steps::{Execution, Session, Sql};

/// Reads `sql: "..."` of a YAML file.
///
/// # Errors
/// What is wrong with it.
pub fn inline(text: &str) -> Result<Sql, String> {
    Ok(Sql {
        text: text.to_owned(),
        execution: Execution::Transaction(Session::Clean),
    })
}
