//! PostgreSQL's complaint about a statement of the user's, with its place in the user's file.

use crate::error::{Error, statement_message};
use crate::step::Place;
use shared::migration::{Position, sql_file};
use shared::retry::{self, Retryability};
use shared::sql::Tag;
use tokio_postgres::error::ErrorPosition;

/// The longest part of a line that is shown.
const SHOWN: usize = 120;

/// The longest part of a statement that is shown.
const STATEMENT_SHOWN: usize = 400;

/// Says what PostgreSQL said: message, place, the line with a mark, the statement. `text` is what was sent behind the
/// tag: one statement, or several of which `passed` had passed.
pub(crate) fn of(
    error: &tokio_postgres::Error,
    text: &str,
    passed: usize,
    tag: &Tag,
    place: Place<'_>,
) -> Error {
    behind(error, text, passed, &tag.to_string(), place)
}

/// The same for a text that was sent behind something else.
pub(crate) fn behind(
    error: &tokio_postgres::Error,
    text: &str,
    passed: usize,
    lead: &str,
    place: Place<'_>,
) -> Error {
    let code = error.code().map(|code| code.code().to_owned());
    let position = error.as_db_error().and_then(|error| match error.position() {
        Some(ErrorPosition::Original(position)) => usize::try_from(*position).ok(),
        Some(ErrorPosition::Internal { .. }) | None => None,
    });
    let lead = lead.chars().count();
    let offset = position.and_then(|position| position.checked_sub(lead + 1));
    let marked = offset.map(|offset| text.char_indices().nth(offset).map_or(text.len(), |(at, _)| at));
    // An error without the server's word is the connection's: which statement was at work does not matter.
    let statement = error.as_db_error().and_then(|_| failing(text, passed, marked));
    let mut lines = vec![statement_message(error)];
    match (marked, statement) {
        (Some(at), _) => lines.push(excerpt(text, at, place)),
        (None, Some((start, _))) => lines.push(position_of(text, start, place)),
        (None, None) => {}
    }
    let statement = statement.map_or(text, |(_, statement)| statement);
    lines.push(format!(
        "in the statement: {}",
        sql_file::excerpt(statement, STATEMENT_SHOWN)
    ));
    let message = lines.join("\n");
    let retry = code.as_deref().map_or(Retryability::Retry, retry::of_sqlstate);
    Error::User { message, code, retry }
}

/// The statement that failed, and where it begins: the one with the mark, or the one after those that passed.
fn failing(text: &str, passed: usize, marked: Option<usize>) -> Option<(usize, &str)> {
    let extents = sql_file::extents(text);
    let range = match marked {
        Some(at) => extents.into_iter().find(|range| range.contains(&at)),
        None => extents.into_iter().nth(passed),
    }?;
    Some((range.start, &text[range]))
}

/// A place in the text that was sent: in the file where it stands there as it was sent.
fn position_of(text: &str, at: usize, place: Place<'_>) -> String {
    let script = place.todo.script;
    if let Some(start) = script.text.find(text) {
        let at = Position::of_offset(&script.text, start + at);
        format!("at {}:{}:{}", script.file, at.line, at.column)
    } else {
        let at = Position::of_offset(text, at);
        format!("at line {}, column {} of the step", at.line, at.column)
    }
}

/// The place of a mark, with its line.
fn excerpt(text: &str, mark: usize, place: Place<'_>) -> String {
    let at = Position::of_offset(text, mark);
    let line = text.lines().nth(at.line - 1).unwrap_or_default();
    // A window of the line around the mark.
    let skip = (at.column - 1).saturating_sub(SHOWN / 2);
    let window: String = line.chars().skip(skip).take(SHOWN).collect();
    format!(
        "{}\n  {window}\n  {}^",
        position_of(text, mark, place),
        " ".repeat(at.column - 1 - skip)
    )
}
