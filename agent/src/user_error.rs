//! PostgreSQL's complaint about a statement of the user's, with its place in the user's file.

use crate::error::{Error, statement_message};
use crate::step::Place;
use shared::migration::Position;
use shared::sql::Tag;
use tokio_postgres::error::ErrorPosition;

/// The longest part of a line that is shown.
const SHOWN: usize = 120;

/// What is said about a failed statement: message, place, the line with a mark.
pub(crate) fn of(error: &tokio_postgres::Error, statement: &str, tag: &Tag, place: Place<'_>) -> Error {
    let code = error.code().map(|code| code.code().to_owned());
    let message = statement_message(error);
    let position = error.as_db_error().and_then(|error| match error.position() {
        Some(ErrorPosition::Original(position)) => usize::try_from(*position).ok(),
        Some(ErrorPosition::Internal { .. }) | None => None,
    });
    let tag_length = tag.to_string().chars().count();
    let offset = position.and_then(|position| position.checked_sub(tag_length + 1));
    let message = match offset {
        Some(offset) => format!("{message}\n{}", excerpt(statement, offset, place)),
        None => format!("{message}\nin the statement: {}", first_line(statement)),
    };
    Error::User { message, code }
}

/// The place of a character in a statement, with its line.
fn excerpt(statement: &str, offset: usize, place: Place<'_>) -> String {
    let bytes = statement
        .char_indices()
        .nth(offset)
        .map_or(statement.len(), |(at, _)| at);
    let at = Position::of_offset(statement, bytes);
    let line = statement.lines().nth(at.line - 1).unwrap_or_default();
    let script = place.todo.script;
    let place = match script.text.find(statement) {
        // The statement stands in the file as it was sent, so the place in the file is known.
        Some(start) => {
            let at = Position::of_offset(&script.text, start + bytes);
            format!("at {}:{}:{}", script.file, at.line, at.column)
        }
        None => format!("at line {}, column {} of the statement", at.line, at.column),
    };
    // A window of the line around the mark.
    let skip = (at.column - 1).saturating_sub(SHOWN / 2);
    let window: String = line.chars().skip(skip).take(SHOWN).collect();
    format!("{place}\n  {window}\n  {}^", " ".repeat(at.column - 1 - skip))
}

fn first_line(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
