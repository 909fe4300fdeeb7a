//! The names that an expression reads.

use crate::migration::parser;
use crate::name::{self, Ident, Table};
use squawk_syntax::ast::{self, AstNode, BinOp, PrefixOp};
use squawk_syntax::{SyntaxKind, SyntaxNode};
use std::collections::BTreeSet;
use std::ops::Range;

/// Unqualified names and the last parts of qualified ones, but no functions, types, arguments' names or relations.
pub(super) fn columns(expression: &SyntaxNode) -> Result<BTreeSet<Ident>, name::Error> {
    column_nodes(expression)
        .map(|node| Ident::exact(parser::name(&node)))
        .collect()
}

/// Where a column is named.
pub(super) fn places(expression: &SyntaxNode, column: &Ident) -> impl Iterator<Item = Range<usize>> {
    column_nodes(expression)
        .filter(|node| parser::name(node) == column.as_str())
        .filter_map(|node| {
            let range = node.first_token()?.text_range();
            Some(range.start().into()..range.end().into())
        })
}

fn column_nodes(expression: &SyntaxNode) -> impl Iterator<Item = SyntaxNode> {
    values(expression).filter(|node| match node.kind() {
        SyntaxKind::NAME_REF => {
            is_name(node)
                && !is_callee(node)
                && !is_normal_form(node)
                && !is_predicate(node)
                && is_last_part(node)
        }
        // `USING (a)` of a join in a sub-select.
        SyntaxKind::COLUMN_NAME_REF => true,
        _ => false,
    })
}

/// The functions it calls, without their schemas. `current_timestamp` and the like count as `now`.
pub(super) fn functions(expression: &SyntaxNode) -> BTreeSet<String> {
    values(expression)
        .filter(|node| node.kind() == SyntaxKind::NAME_REF)
        .filter_map(|node| {
            if !is_name(&node) {
                return Some("now".to_owned());
            }
            let is_function = is_callee(&node) && {
                let dotted = node.parent().filter(|p| p.kind() == SyntaxKind::FIELD_EXPR);
                dotted.is_none_or(|dotted| dotted.first_child().as_ref() != Some(&node))
            };
            is_function.then(|| parser::name(&node))
        })
        .collect()
}

/// The relations that sub-selects read.
pub(super) fn relations(expression: &SyntaxNode) -> Result<BTreeSet<Table>, name::Error> {
    values(expression)
        .filter(|node| node.kind() == SyntaxKind::RELATION_NAME_REF)
        .filter_map(|node| {
            let mut path = parser::path(&node).into_iter().rev();
            Some((path.next()?, path.next()))
        })
        .map(|(name, schema)| {
            Ok(Table {
                schema: schema.map(Ident::exact).transpose()?,
                name: Ident::exact(name)?,
            })
        })
        .collect()
}

/// Whether a sub-select may read columns without naming them, or by other names.
pub(super) fn hides_columns(expression: &SyntaxNode, columns: &BTreeSet<Ident>) -> bool {
    values(expression).any(|node| match node.kind() {
        // `t AS x (a, b)`; `row_to_json(x)`.
        SyntaxKind::FROM_ALIAS => node.children().any(|part| match part.kind() {
            SyntaxKind::TABLE_ALIAS => columns.iter().any(|c| c.as_str() == parser::name(&part)),
            kind => ast::FromAliasColumns::can_cast(kind),
        }),
        // `WITH x (a, b) AS ..`
        SyntaxKind::WITH_TABLE => node.children().any(|part| part.kind() == SyntaxKind::COLUMN_LIST),
        SyntaxKind::TARGET => parser::has_token(&node, SyntaxKind::STAR) && !is_of_exists(&node),
        SyntaxKind::TABLE => true,
        _ => false,
    })
}

/// The `*` of `EXISTS (SELECT * ..)`.
fn is_of_exists(target: &SyntaxNode) -> bool {
    let within = target.ancestors().skip(1).find(|node| {
        !matches!(
            node.kind(),
            SyntaxKind::TARGET_LIST
                | SyntaxKind::SELECT_CLAUSE
                | SyntaxKind::SELECT
                | SyntaxKind::PAREN_SELECT
        )
    });
    within.is_some_and(|node| node.kind() == SyntaxKind::EXISTS_FN)
}

/// Whether it is made of literals, signs, casts and arrays alone.
pub(super) fn is_constant(expression: &SyntaxNode) -> bool {
    values(expression).all(|node| match node.kind() {
        SyntaxKind::LITERAL
        | SyntaxKind::PAREN_EXPR
        | SyntaxKind::CAST_EXPR
        | SyntaxKind::COLON_COLON
        | SyntaxKind::ARRAY_EXPR => true,
        SyntaxKind::PREFIX_EXPR => ast::PrefixExpr::cast(node)
            .and_then(|prefix| prefix.op())
            .is_some_and(|op| matches!(op, PrefixOp::Minus(_) | PrefixOp::Plus(_))),
        kind => ast::IntervalQualifier::can_cast(kind),
    })
}

/// The nodes below, without what types are made of: `geometry(Point, 4326)` reads no column `point`.
fn values(expression: &SyntaxNode) -> impl Iterator<Item = SyntaxNode> {
    let mut waiting = vec![expression.clone()];
    std::iter::from_fn(move || {
        loop {
            let node = waiting.pop()?;
            if !ast::Type::can_cast(node.kind()) {
                waiting.extend(node.children());
                return Some(node);
            }
        }
    })
}

/// A name, not `current_date` and the like. Quoted, these are names as well.
fn is_name(node: &SyntaxNode) -> bool {
    node.first_token().is_some_and(|token| {
        !matches!(
            token.kind(),
            SyntaxKind::CURRENT_CATALOG_KW
                | SyntaxKind::CURRENT_DATE_KW
                | SyntaxKind::CURRENT_ROLE_KW
                | SyntaxKind::CURRENT_SCHEMA_KW
                | SyntaxKind::CURRENT_TIME_KW
                | SyntaxKind::CURRENT_TIMESTAMP_KW
                | SyntaxKind::CURRENT_USER_KW
                | SyntaxKind::LOCALTIME_KW
                | SyntaxKind::LOCALTIMESTAMP_KW
                | SyntaxKind::SESSION_USER_KW
                | SyntaxKind::SYSTEM_USER_KW
                | SyntaxKind::USER_KW
        )
    })
}

/// `f` and `s.f` in `f(..)` and `s.f(..)`.
fn is_callee(name: &SyntaxNode) -> bool {
    let outermost = name
        .ancestors()
        .take_while(|node| matches!(node.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR))
        .last();
    outermost.is_some_and(|callee| {
        callee.parent().is_some_and(|parent| {
            parent.kind() == SyntaxKind::CALL_EXPR && parent.first_child().as_ref() == Some(&callee)
        })
    })
}

/// `NFC` in `normalize(a, NFC)`.
fn is_normal_form(name: &SyntaxNode) -> bool {
    let is_keyword = name.first_token().is_some_and(|token| {
        matches!(
            token.kind(),
            SyntaxKind::NFC_KW | SyntaxKind::NFD_KW | SyntaxKind::NFKC_KW | SyntaxKind::NFKD_KW
        )
    });
    is_keyword
        && name
            .ancestors()
            .nth(3)
            .is_some_and(|call| call.kind() == SyntaxKind::CALL_EXPR && parser::calls(&call, "normalize"))
}

/// `UNKNOWN` in `a IS UNKNOWN`, `DOCUMENT` in `a IS NOT DOCUMENT`.
fn is_predicate(name: &SyntaxNode) -> bool {
    let is_keyword = name
        .first_token()
        .is_some_and(|token| matches!(token.kind(), SyntaxKind::UNKNOWN_KW | SyntaxKind::DOCUMENT_KW));
    is_keyword
        && name
            .parent()
            .and_then(ast::BinExpr::cast)
            .and_then(|comparison| comparison.op())
            .is_some_and(|op| matches!(op, BinOp::Is(_) | BinOp::IsNot(_)))
}

/// Whether it is the last part of a dotted name: `c` of `a.b.c`, `t` of `t.*`; not the field of a value, as `f` of
/// `(v).f`.
fn is_last_part(name: &SyntaxNode) -> bool {
    let field_of = |node: &SyntaxNode| node.parent().filter(|p| p.kind() == SyntaxKind::FIELD_EXPR);
    let mut part = name.clone();
    if let Some(field) = field_of(&part)
        && field.first_child().as_ref() != Some(&part)
    {
        let dotted_names_only = field.first_child().is_some_and(|base| is_dotted_name(&base));
        if !dotted_names_only {
            return false;
        }
        part = field;
    }
    match field_of(&part) {
        Some(outer) => parser::has_token(&outer, SyntaxKind::STAR),
        None => true,
    }
}

fn is_dotted_name(node: &SyntaxNode) -> bool {
    let mut node = node.clone();
    while node.kind() == SyntaxKind::FIELD_EXPR {
        match node.first_child() {
            Some(base) => node = base,
            None => return false,
        }
    }
    node.kind() == SyntaxKind::NAME_REF
}
