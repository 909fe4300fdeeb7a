//! The statements of a text, and all that is wrong with it.

use super::directives::Transaction;
use super::finding::Finding;
use super::locks::{self, Made};
use super::losses;
use super::pieces::pieces;
use super::statement::{self, Class};
use crate::lock::Mode;
use crate::migration::lexer::{Flaw, Scan};
use crate::migration::parser;
use crate::name::Table;
use squawk_syntax::{SyntaxKind, SyntaxNode};
use std::ops::Range;

/// A statement and how it may run.
pub(super) struct Statement {
    /// Without the semicolon and what surrounds it.
    pub(super) range: Range<usize>,
    pub(super) class: Class,
    /// The words it begins with.
    pub(super) verb: String,
    /// The tables it names that were there before the text, with the locks it takes on them.
    pub(super) locks: Vec<(Mode, Table)>,
    /// Whether it surely creates only what nobody knows yet, or is about what the text made before.
    pub(super) creates_only: bool,
    /// Whether it writes tables or indexes anew, with all others shut out.
    pub(super) rewrites: bool,
    /// Whether it takes rows or values away for good.
    pub(super) loses_data: bool,
}

/// All statements of a text; what is wrong with it is added to `findings`.
pub(super) fn statements(
    text: &str,
    transaction: Transaction,
    scan: &Scan<'_>,
    findings: &mut Vec<Finding>,
) -> Vec<Statement> {
    let mut found = flaws(text, scan);
    let unreadable = |flaw: &(usize, Flaw)| matches!(flaw.1, Flaw::Nul | Flaw::Deep);
    if scan.flaws.iter().any(unreadable) {
        findings.append(&mut found);
        return Vec::new();
    }
    let mut statements = Vec::new();
    let mut made = Made::default();
    // Behind COPY FROM STDIN stand rows, not SQL: nothing can be said about them.
    let mut rows = None;
    for piece in pieces(text) {
        let tree = parser::parse(&text[piece.clone()]);
        for node in tree.root.children() {
            if matches!(node.kind(), SyntaxKind::EMPTY_STMT | SyntaxKind::ERROR) {
                continue;
            }
            let range = extent(&node, piece.start);
            if transaction == Transaction::Each {
                // What the one before made is committed: others may know it.
                made = Made::default();
            }
            match statement::classify(&node, scan) {
                Ok(class) => statements.push(Statement {
                    verb: statement::verb(&node, 3),
                    locks: made.others(locks::of(&node)),
                    creates_only: made.is_added_to_by(&node),
                    rewrites: locks::rewrites(&node),
                    loses_data: losses::of(&node),
                    range,
                    class,
                }),
                Err(refusal) => {
                    if node.kind() == SyntaxKind::COPY {
                        rows.get_or_insert(range.start);
                    }
                    found.push(Finding::new(range.start, refusal.what, refusal.advice));
                }
            }
        }
        found.extend(unread(text, scan, tree, piece.start));
        if rows.is_some() {
            break;
        }
    }
    if let Some(rows) = rows {
        found.retain(|finding| finding.at <= rows);
    }
    findings.append(&mut found);
    statements
}

/// What the parser could not read of the piece that begins at `start`: the first place in each statement.
fn unread(text: &str, scan: &Scan<'_>, tree: parser::Tree, start: usize) -> Vec<Finding> {
    // The parser stumbles over these too.
    if scan.flaws.iter().any(|(_, flaw)| *flaw == Flaw::Backslash) {
        return Vec::new();
    }
    let end = scan.flaws.first().map_or(usize::MAX, |(at, _)| *at);
    let mut statements = tree
        .root
        .children()
        .map(|node| extent(&node, start).end)
        .peekable();
    let mut last = None;
    let mut findings = Vec::new();
    for (at, message) in tree.errors {
        let at = at + start;
        while statements.next_if(|end| *end < at).is_some() {}
        let statement = statements.peek().copied();
        if at >= end || (last.is_some() && last == Some(statement)) {
            continue;
        }
        last = Some(statement);
        let at = at + text[at.min(text.len())..].len() - text[at.min(text.len())..].trim_start().len();
        findings.push(if is_psql_variable(text, at) {
            Finding::new(
                at,
                "a psql variable (`:name`) has no value here",
                "write its value",
            )
        } else {
            Finding::new(
                at,
                format!("this cannot be read: {message}"),
                "correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of a SQL file to run it unread",
            )
        });
    }
    findings
}

fn is_psql_variable(text: &str, at: usize) -> bool {
    text.get(at..)
        .and_then(|rest| rest.strip_prefix(':'))
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '\'' | '"')))
}

/// What the tokens show to be wrong, psql's commands once for each line.
pub(super) fn flaws(text: &str, scan: &Scan<'_>) -> Vec<Finding> {
    let mut line_of_command = None;
    scan.flaws
        .iter()
        .filter(|(at, flaw)| {
            let line = text[..*at].rfind('\n');
            let same_line = line_of_command == Some(line);
            if *flaw == Flaw::Backslash {
                line_of_command = Some(line);
            }
            !(*flaw == Flaw::Backslash && same_line)
        })
        .map(|(at, flaw)| {
            let advice = match flaw {
                Flaw::Nul => "remove it: it may be UTF-16, where UTF-8 is expected",
                Flaw::Unclosed(_) => "close it",
                Flaw::Backslash => "remove the command, or write the SQL it stands for",
                Flaw::Ambiguous => "write the string as `E'...'`, or double the quote instead",
                Flaw::Deep => {
                    "simplify it, or put `-- confiture: parse=off` at the top of a SQL file to run it unread"
                }
            };
            Finding::new(*at, flaw.to_string(), advice)
        })
        .collect()
}

/// From the first token to the last, without trivia and semicolons around them, in a text of which the node's piece
/// begins at `start`.
fn extent(node: &SyntaxNode, start: usize) -> Range<usize> {
    let surrounds = |kind: SyntaxKind| kind.is_trivia() || kind == SyntaxKind::SEMICOLON;
    let mut first = node.first_token();
    while let Some(token) = first.as_ref().filter(|token| surrounds(token.kind())) {
        first = token.next_token();
    }
    let mut last = node.last_token();
    while let Some(token) = last.as_ref().filter(|token| surrounds(token.kind())) {
        last = token.prev_token();
    }
    let range = match (first, last) {
        (Some(first), Some(last)) if first.text_range().start() < last.text_range().end() => {
            first.text_range().cover(last.text_range())
        }
        _ => node.text_range(),
    };
    start + usize::from(range.start())..start + usize::from(range.end())
}
