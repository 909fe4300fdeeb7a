//! Which statements take rows or values away for good, as far as they can be read: what functions do is not known.

use super::statement::has;
use squawk_syntax::{SyntaxElement, SyntaxKind, SyntaxNode};

/// Words that hardly anything goes away without.
const WORDS: [&str; 3] = ["delete", "drop", "truncate"];

/// Whether a statement takes rows or values away.
pub(super) fn of(statement: &SyntaxNode) -> bool {
    let below = |wanted: &[SyntaxKind]| statement.descendants().any(|node| wanted.contains(&node.kind()));
    match statement.kind() {
        SyntaxKind::DROP_TABLE | SyntaxKind::DROP_OWNED | SyntaxKind::TRUNCATE => true,
        // What is dropped along may be a column.
        SyntaxKind::DROP_SCHEMA
        | SyntaxKind::DROP_TYPE
        | SyntaxKind::DROP_DOMAIN
        | SyntaxKind::DROP_EXTENSION => cascades(statement),
        SyntaxKind::ALTER_TABLE => has(statement, SyntaxKind::DROP_COLUMN),
        SyntaxKind::DO => in_words(&statement.text().to_string()),
        // Their statements run some other time.
        SyntaxKind::CREATE_FUNCTION
        | SyntaxKind::CREATE_PROCEDURE
        | SyntaxKind::CREATE_RULE
        | SyntaxKind::CREATE_TRIGGER => false,
        _ => below(&[SyntaxKind::DELETE, SyntaxKind::MERGE_DELETE]),
    }
}

fn cascades(statement: &SyntaxNode) -> bool {
    let tokens = statement.descendants_with_tokens();
    let mut tokens = tokens.filter_map(SyntaxElement::into_token);
    tokens.any(|token| token.kind() == SyntaxKind::CASCADE_KW)
}

/// Whether a text that is not parsed holds words by which something goes away.
pub(super) fn in_words(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| WORDS.iter().any(|loses| word.eq_ignore_ascii_case(loses)))
}
