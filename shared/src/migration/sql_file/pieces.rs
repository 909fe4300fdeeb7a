//! Where a long text can be cut, so that the parser is shown a part at a time.

use crate::migration::lexer::lex;
use squawk_lexer::TokenKind;
use std::ops::Range;

/// Enough for the parser at a time: its tree takes about 25 times the memory of the text.
const PIECE_BYTES: usize = 256 * 1024;

/// Cuts a text between statements into pieces of about [`PIECE_BYTES`]; together they are the whole text. A wrong cut
/// makes a piece that the parser refuses, never one that it misreads.
pub(super) fn pieces(text: &str) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut brackets = 0_usize;
    let mut atomic = 0_usize;
    let mut after_begin = false;
    for token in lex(text).filter(|token| !token.is_trivia()) {
        let was_begin = std::mem::replace(&mut after_begin, token.is_word("begin"));
        match token.kind {
            TokenKind::OpenParen => brackets += 1,
            TokenKind::CloseParen => brackets = brackets.saturating_sub(1),
            // The body of a function holds semicolons: BEGIN ATOMIC .. END.
            TokenKind::Ident if was_begin && token.is_word("atomic") => atomic += 1,
            TokenKind::Ident if atomic > 0 && token.is_word("case") => atomic += 1,
            TokenKind::Ident if atomic > 0 && token.is_word("end") => atomic -= 1,
            TokenKind::Semi if brackets == 0 && atomic == 0 && token.at + 1 - start >= PIECE_BYTES => {
                pieces.push(start..token.at + 1);
                start = token.at + 1;
            }
            _ => {}
        }
    }
    if start < text.len() {
        pieces.push(start..text.len());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole_text_and_end_between_statements() {
        let statement = "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN ';' END; SELECT 2; END;\n";
        let text = format!("{}\nSELECT 1", statement.repeat(10_000));
        let pieces = pieces(&text);
        assert!(pieces.len() > 3);
        assert_eq!(
            pieces
                .iter()
                .map(|piece| &text[piece.clone()])
                .collect::<String>(),
            text
        );
        for piece in &pieces[..pieces.len() - 1] {
            assert!(
                text[piece.clone()].ends_with("END;"),
                "{}",
                &text[piece.end - 40..piece.end]
            );
        }
    }
}
