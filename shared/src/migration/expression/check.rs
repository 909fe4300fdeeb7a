//! Whether a text is exactly one expression, query or type.

use super::{Expression, Query, names};
use crate::migration::lexer::{Flaw, escapes_quote, lex, scan};
use crate::migration::{Position, parser};
use crate::name::{self, Ident};
use squawk_lexer::{LiteralKind, TokenKind};
use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SyntaxKind, SyntaxNode};
use std::ops::Range;

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing but white space and comments.
    #[error("{kind} is expected, and there is nothing")]
    Empty {
        /// What was expected.
        kind: Kind,
    },
    /// It is not exactly what was expected.
    #[error("`{text}` is not {kind} that can stand here: {why} (line {}, column {} of it)", .at.line, .at.column)]
    Refused {
        /// What was expected.
        kind: Kind,
        /// As written.
        text: String,
        /// Why not.
        why: String,
        /// Where in the text.
        at: Position,
    },
}

/// What a text was expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One expression.
    Expression,
    /// One query.
    Query,
    /// One data type.
    Type,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expression => "a SQL expression",
            Self::Query => "a query",
            Self::Type => "a data type",
        })
    }
}

/// A refusal: offset and why.
type Refusal = (usize, String);

/// What every kind of text must pass; then `read` says what it is.
fn checked<T>(kind: Kind, text: &str, read: impl FnOnce(&str) -> Result<T, Refusal>) -> Result<T, Error> {
    let text = text.trim();
    if scan(text).first.is_none() {
        return Err(Error::Empty { kind });
    }
    enclosed(text)
        .and_then(|()| read(text))
        .map_err(|(offset, why)| Error::Refused {
            kind,
            text: text.to_owned(),
            why,
            at: Position::of_offset(text, offset),
        })
}

/// What stands around an expression when it is parsed.
const AROUND: (&str, &str) = ("SELECT (", "\n)");

/// The tree of exactly one expression.
fn only_expression(text: &str) -> Result<SyntaxNode, Refusal> {
    let (before, after) = AROUND;
    let tree = parsed(before, text, after)?;
    let end = before.len() + text.len() + after.len();
    let inner = only_target(&tree)
        .filter(|target| target.kind() == SyntaxKind::PAREN_EXPR && spans(target, before.len() - 1, end))
        .and_then(|paren| only_child(&paren))
        .ok_or_else(|| (0, "it must be exactly one expression".to_owned()))?;
    if ast::Expr::can_cast(inner.kind()) {
        Ok(inner)
    } else {
        Err((
            0,
            "put a sub-select in brackets of its own: `(SELECT ...)`".to_owned(),
        ))
    }
}

/// An expression with another name for a column.
pub(super) fn renamed(text: &str, from: &Ident, to: &Ident) -> Result<Expression, Error> {
    let renamed = checked(Kind::Expression, text, |text| {
        let mut places: Vec<Range<usize>> = names::places(&only_expression(text)?, from).collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.start));
        let mut renamed = text.to_owned();
        for place in places {
            let begin = AROUND.0.len();
            renamed.replace_range(place.start - begin..place.end - begin, &to.to_string());
        }
        Ok(renamed)
    })?;
    expression(&renamed)
}

/// Reads one expression.
pub(super) fn expression(text: &str) -> Result<Expression, Error> {
    checked(Kind::Expression, text, |text| {
        let inner = only_expression(text)?;
        harmless(&inner, AROUND.0.len())?;
        let name = |error: name::Error| (0, error.to_string());
        let columns = names::columns(&inner).map_err(name)?;
        Ok(Expression {
            text: text.to_owned(),
            hides_columns: names::hides_columns(&inner, &columns),
            columns,
            relations: names::relations(&inner).map_err(name)?,
            functions: names::functions(&inner),
            constant: names::is_constant(&inner),
            subquery: inner
                .descendants()
                .any(|node| ast::SelectVariant::can_cast(node.kind())),
        })
    })
}

/// Reads one query.
pub(super) fn query(text: &str) -> Result<Query, Error> {
    checked(Kind::Query, text, |text| {
        let tree = parsed("", text, "\n")?;
        let statement = only_child(&tree)
            .filter(|statement| ast::SelectVariant::can_cast(statement.kind()))
            .ok_or_else(|| (0, "it must be exactly one SELECT".to_owned()))?;
        harmless(&statement, 0)?;
        Ok(Query {
            text: text.to_owned(),
        })
    })
}

/// Whether a text is one data type and nothing else.
pub fn is_type(text: &str) -> bool {
    checked(Kind::Type, text, |text| {
        // It stands in our statements without brackets, where a comment could swallow what follows.
        if let Some(comment) = scan(text).comments.first() {
            return Err((comment.at, "no comment can be in it".to_owned()));
        }
        let (select, cast, after) = ("SELECT ", "CAST(NULL AS ", "\n)");
        let start = select.len() + cast.len();
        let tree = parsed(&format!("{select}{cast}"), text, after)?;
        only_target(&tree)
            .filter(|target| {
                target.kind() == SyntaxKind::CAST_EXPR
                    && spans(target, select.len(), start + text.len() + after.len())
            })
            .and_then(|target| target.children().find(|child| ast::Type::can_cast(child.kind())))
            .filter(|data_type| {
                spans(data_type, start, start + text.len())
                    && data_type
                        .descendants_with_tokens()
                        .all(|part| part.kind() != SyntaxKind::SETOF_KW)
            })
            .map(drop)
            .ok_or_else(|| (0, "it must be exactly one type".to_owned()))
    })
    .is_ok()
}

/// Whether nothing in a text can reach beyond it: brackets match, every quote and comment is closed under every
/// setting of the server, and no token stands for something else.
fn enclosed(text: &str) -> Result<(), Refusal> {
    if let Some((at, flaw)) = scan(text).flaws.first() {
        return Err((*at, flaw.to_string()));
    }
    let mut open = Vec::new();
    for token in lex(text) {
        let refuse = |why: &str| Err((token.at, why.to_owned()));
        match token.kind {
            TokenKind::OpenParen => open.push((TokenKind::CloseParen, token.at)),
            TokenKind::OpenBracket => open.push((TokenKind::CloseBracket, token.at)),
            TokenKind::CloseParen | TokenKind::CloseBracket
                if open.pop().is_none_or(|(closer, _)| closer != token.kind) =>
            {
                return refuse("this bracket closes none");
            }
            TokenKind::Semi => return refuse("remove the `;`"),
            TokenKind::PositionalParam { .. } => return refuse("a parameter has no value here"),
            TokenKind::Unknown => return refuse("this character does not belong to SQL"),
            // `E'..'` is the same under every setting. These end elsewhere without `standard_conforming_strings`.
            TokenKind::Literal {
                kind:
                    LiteralKind::Str { .. }
                    | LiteralKind::NationalStr { .. }
                    | LiteralKind::BitStr { .. }
                    | LiteralKind::ByteStr { .. }
                    | LiteralKind::UnicodeEscStr { .. },
            } if escapes_quote(token.text) => return Err((token.at, Flaw::Ambiguous.to_string())),
            _ => {}
        }
    }
    match open.pop() {
        Some((_, at)) => Err((at, "this bracket is never closed".to_owned())),
        None => Ok(()),
    }
}

/// The tree of a text between two others.
fn parsed(before: &str, text: &str, after: &str) -> Result<SyntaxNode, Refusal> {
    let tree = parser::parse(&format!("{before}{text}{after}"));
    match tree.errors.into_iter().next() {
        Some((at, message)) => Err((at.saturating_sub(before.len()), message)),
        None => Ok(tree.root),
    }
}

fn only_child(node: &SyntaxNode) -> Option<SyntaxNode> {
    let mut children = node.children();
    children.next().filter(|_| children.next().is_none())
}

/// The only target of `SELECT target` without any clause.
fn only_target(root: &SyntaxNode) -> Option<SyntaxNode> {
    [
        SyntaxKind::SELECT,
        SyntaxKind::SELECT_CLAUSE,
        SyntaxKind::TARGET_LIST,
        SyntaxKind::TARGET,
    ]
    .into_iter()
    .try_fold(root.clone(), |node, kind| {
        only_child(&node).filter(|child| child.kind() == kind)
    })
    .and_then(|target| only_child(&target))
}

fn spans(node: &SyntaxNode, start: usize, end: usize) -> bool {
    let range = node.text_range();
    usize::from(range.start()) == start && usize::from(range.end()) == end
}

/// Refuses what writes, locks, changes the session, has no value here or is not complete.
fn harmless(node: &SyntaxNode, before: usize) -> Result<(), Refusal> {
    for part in node.descendants() {
        let why = match part.kind() {
            SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE => {
                "it must not change data"
            }
            // The parser lets these pass.
            SyntaxKind::BIN_EXPR
                if part
                    .children()
                    .filter(|side| ast::Expr::can_cast(side.kind()))
                    .count()
                    < 2 =>
            {
                "this operator has nothing on its right"
            }
            SyntaxKind::FIELD_EXPR
                if part.children().count() < 2 && !parser::has_token(&part, SyntaxKind::STAR) =>
            {
                "a name must follow the dot"
            }
            SyntaxKind::SELECT_INTO => "it must not create a table",
            SyntaxKind::LOCKING_CLAUSE => "it must not lock rows",
            SyntaxKind::LITERAL if parser::has_token(&part, SyntaxKind::DEFAULT_KW) => {
                "DEFAULT has no value here"
            }
            SyntaxKind::CALL_EXPR if parser::calls(&part, "set_config") => {
                "it must not change settings of the session"
            }
            _ => continue,
        };
        let at = usize::from(part.text_range().start()).saturating_sub(before);
        return Err((at, why.to_owned()));
    }
    Ok(())
}
