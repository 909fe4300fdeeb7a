//! SQL as a syntax tree, and the parser's messages in plain words.
//!
//! A text must have passed [`super::lexer::scan`] without [`super::lexer::Flaw::Deep`]: the parser descends on the
//! stack.

use squawk_syntax::ast::SourceFile;
use squawk_syntax::{SyntaxKind, SyntaxNode};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A text that was parsed.
pub(super) struct Tree {
    /// The file; its children are the statements.
    pub(super) root: SyntaxNode,
    /// What the parser could not read, in ascending order: offset and message.
    pub(super) errors: Vec<(usize, String)>,
}

thread_local! {
    static PARSING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the SQL parser, whose panics are caught and told as ordinary problems. A panic hook
/// asks it, to keep silent about them.
pub fn is_parsing() -> bool {
    PARSING.get()
}

/// Runs the parser; `None` when it gave up: it panics where it makes no progress (measured: on one of 300,000 random
/// texts, none of them SQL).
pub(super) fn guarded<T>(parse: impl FnOnce() -> T) -> Option<T> {
    let before = PARSING.replace(true);
    let parsed = catch_unwind(AssertUnwindSafe(parse));
    PARSING.set(before);
    parsed.ok()
}

/// Parses a text.
pub(super) fn parse(text: &str) -> Tree {
    let parsed = guarded(|| {
        let parsed = SourceFile::parse(text);
        (parsed.syntax_node(), parsed.errors())
    });
    let Some((root, errors)) = parsed else {
        // Its tree for no text at all has no statements.
        return Tree {
            root: SourceFile::parse("").syntax_node(),
            errors: vec![(0, "the parser makes no sense of it".to_owned())],
        };
    };
    let errors = errors
        .into_iter()
        .map(|error| (usize::from(error.range().start()), error))
        // The body of a function is PostgreSQL's to check, or not (`check_function_bodies`).
        .filter(|(at, _)| !in_function_body(&root, *at))
        .map(|(at, error)| (at, plain(error.message())))
        .collect();
    Tree { root, errors }
}

fn in_function_body(root: &SyntaxNode, at: usize) -> bool {
    u32::try_from(at).is_ok_and(|at| {
        root.token_at_offset(at.into()).any(|token| {
            // The place where a definition begins or ends belongs to the statement.
            u32::from(token.text_range().start()) < at
                && at < u32::from(token.text_range().end())
                && token
                    .parent_ancestors()
                    .any(|node| node.kind() == SyntaxKind::AS_DEFINITION)
        })
    })
}

/// What is read of a name: folded, or exact when it is quoted.
pub(super) fn name(node: &SyntaxNode) -> String {
    squawk_syntax::ast::normalize_name_node(node)
}

/// The parts of a dotted name below a node, in order.
pub(super) fn path(node: &SyntaxNode) -> Vec<String> {
    node.descendants()
        .filter(|part| {
            matches!(
                part.kind(),
                SyntaxKind::PATH_SEGMENT | SyntaxKind::PATH_SEGMENT_REF
            )
        })
        .map(|part| name(&part))
        .collect()
}

/// Whether a node holds a token of a kind itself.
pub(super) fn has_token(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children_with_tokens()
        .any(|part| part.as_token().is_some_and(|token| token.kind() == kind))
}

/// Whether a call is one of this function, in whatever schema.
pub(super) fn calls(call: &SyntaxNode, function: &str) -> bool {
    call.first_child()
        .and_then(|callee| {
            callee
                .descendants()
                .filter(|part| part.kind() == SyntaxKind::NAME_REF)
                .last()
        })
        .is_some_and(|last| name(&last) == function)
}

/// The parser's message without the names of its token kinds, as part of a sentence.
fn plain(message: &str) -> String {
    let words: Vec<String> = message.split(' ').map(plain_word).collect();
    let mut plain = words.join(" ");
    if message.starts_with(|c: char| c.is_ascii_uppercase())
        && message.chars().nth(1).is_some_and(|c| c.is_ascii_lowercase())
    {
        plain[..1].make_ascii_lowercase();
    }
    plain.trim_end_matches('.').to_owned()
}

fn plain_word(word: &str) -> String {
    let (core, end) = match word.strip_suffix([',', '.', ';']) {
        Some(core) => (core, &word[core.len()..]),
        None => (word, ""),
    };
    let plain = match core {
        "L_PAREN" => "`(`",
        "R_PAREN" => "`)`",
        "L_BRACK" => "`[`",
        "R_BRACK" => "`]`",
        "L_CURLY" => "`{`",
        "R_CURLY" => "`}`",
        "SEMICOLON" => "`;`",
        "COMMA" => "`,`",
        "COLON" => "`:`",
        "DOT" => "`.`",
        "EQ" => "`=`",
        "STAR" => "`*`",
        "PLUS" => "`+`",
        "MINUS" => "`-`",
        "SLASH" => "`/`",
        "L_ANGLE" => "`<`",
        "R_ANGLE" => "`>`",
        "FAT_ARROW" => "`=>`",
        "EOF" => "the end",
        "IDENT" => "a name",
        "STRING" | "ESC_STRING" | "DOLLAR_QUOTED_STRING" => "a string",
        "INT_NUMBER" | "NUMERIC_NUMBER" => "a number",
        "POSITIONAL_PARAM" => "a parameter",
        "ERROR" => "a character that SQL does not have",
        other => match other.strip_suffix("_KW") {
            Some(keyword) => return format!("{keyword}{end}"),
            None => other,
        },
    };
    format!("{plain}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn messages_name_no_token_kinds() {
        assert_eq!(
            plain("expected command, found R_PAREN"),
            "expected command, found `)`"
        );
        assert_eq!(
            plain("expected an expression, found AS_KW"),
            "expected an expression, found AS"
        );
        assert_eq!(
            plain("Missing semicolon between statements"),
            "missing semicolon between statements"
        );
    }

    #[test]
    fn a_text_on_which_the_parser_gives_up_is_an_ordinary_error() {
        static TOLD_APART: AtomicBool = AtomicBool::new(false);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|info| {
            if is_parsing() {
                TOLD_APART.store(true, Ordering::SeqCst);
            } else {
                eprintln!("{info}");
            }
        }));
        let errors = parse("ALTER TABLE t merge current_date ").errors;
        std::panic::set_hook(hook);
        assert_eq!(errors, [(0, "the parser makes no sense of it".to_owned())]);
        assert!(
            TOLD_APART.load(Ordering::SeqCst),
            "a panic hook can keep silent about it"
        );
        assert!(!is_parsing());
    }

    #[test]
    fn errors_in_the_body_of_a_function_are_left_to_postgresql() {
        let body = "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT FROM WHERE $$;";
        assert_eq!(parse(body).errors, []);
        assert_eq!(parse("CREATE FUNCTION f( RETURNS int").errors.len(), 1);
    }
}
