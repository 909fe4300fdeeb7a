//! Statements of others as they may be shown: without the values in them.

use crate::migration::lexer;
use squawk_lexer::TokenKind;

/// A statement on one line, each literal as `?`, without comments. Of a text that was cut off in a literal, that is `?` too.
pub fn shape(statement: &str) -> String {
    let mut shape = String::with_capacity(statement.len());
    let mut apart = false;
    for token in lexer::lex(statement) {
        if token.is_trivia() {
            apart = true;
            continue;
        }
        if apart && !shape.is_empty() {
            shape.push(' ');
        }
        apart = false;
        match token.kind {
            TokenKind::Literal { .. } => shape.push('?'),
            _ => shape.push_str(token.text),
        }
    }
    shape
}

/// A message with what it quotes covered: PostgreSQL repeats a value that it cannot read.
pub fn unquoted(message: &str) -> String {
    let mut parts = message.split('"');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for (place, part) in parts.enumerate() {
        shown.push('"');
        shown.push_str(if place % 2 == 0 { ".." } else { part });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_comments_are_left_out() {
        let statement = "UPDATE users -- ada's\n SET mail = 'ada@example.org', n = 17.5 WHERE \"Id\" = $1 AND k = $$x$$ AND b = E'\\'y'";
        assert_eq!(
            shape(statement),
            "UPDATE users SET mail = ?, n = ? WHERE \"Id\" = $1 AND k = ? AND b = ?"
        );
    }

    #[test]
    fn a_literal_that_is_cut_off_is_left_out_too() {
        assert_eq!(shape("INSERT INTO t VALUES ('secre"), "INSERT INTO t VALUES (?");
        assert_eq!(shape("SELECT $tag$secr"), "SELECT ?");
        assert_eq!(shape(""), "");
    }

    #[test]
    fn what_a_message_quotes_is_covered() {
        assert_eq!(
            unquoted("invalid input syntax for type integer: \"4111-1111\""),
            "invalid input syntax for type integer: \"..\""
        );
        assert_eq!(unquoted("value \"a\" of \"b"), "value \"..\" of \"..");
        assert_eq!(unquoted("division by zero"), "division by zero");
    }
}
