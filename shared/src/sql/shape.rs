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

/// What servers quote with, in all their languages.
const QUOTES: [char; 17] = [
    '"', '\'', '`', '«', '»', '‹', '›', '“', '”', '„', '‟', '‘', '’', '‚', '「', '」', '\u{ff02}',
];

/// A message with all covered from its first quotation mark to its last, since PostgreSQL repeats a value that it cannot
/// read, and the value may have marks of its own; and with the bytes covered that it could not read as text.
pub fn unquoted(message: &str) -> String {
    let marks = message.matches(QUOTES).count();
    let covered = match (
        message.find(QUOTES),
        message.char_indices().rfind(|(_, c)| QUOTES.contains(c)),
    ) {
        (Some(first), Some((last, mark))) => {
            // Of a text that was cut off in a value, there is no end.
            let end = if marks % 2 == 1 {
                message.len()
            } else {
                last + mark.len_utf8()
            };
            format!("{}\"..\"{}", &message[..first], &message[end..])
        }
        (None, _) | (_, None) => message.to_owned(),
    };
    let words = covered
        .split(' ')
        .map(|word| if word.starts_with("0x") { "0x.." } else { word });
    words.collect::<Vec<_>>().join(" ")
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
        assert_eq!(unquoted("value \"a\" of \"b"), "value \"..\"");
        assert_eq!(unquoted("value \"a"), "value \"..\"");
        assert_eq!(
            unquoted("invalid input syntax for type integer: \"ab\"secret\"cd\""),
            "invalid input syntax for type integer: \"..\""
        );
        for translated in ["ungültig: »geheim«", "invalide : « geheim »", "无效: “geheim”"] {
            assert!(!unquoted(translated).contains("geheim"), "{translated}");
        }
        assert_eq!(
            unquoted("invalid byte sequence for encoding \"UTF8\": 0xc3 0x28"),
            "invalid byte sequence for encoding \"..\": 0x.. 0x.."
        );
        assert_eq!(unquoted("division by zero"), "division by zero");
    }
}
