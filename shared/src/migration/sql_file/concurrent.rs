//! Statements that build, drop and rebuild indexes concurrently, as the steps that do the same: so an index of a SQL file
//! gets there by the same states as one of a YAML file, and what a crash left of it is found the same way.

use super::statement::{Class, Refusal, child, has, refuse};
use crate::index::{Element, Missing};
use crate::migration::expression::Expression;
use crate::migration::parser::{has_token, name, path};
use crate::migration::steps::{Change, CreateIndex, DropIndex, Extent, Reindex};
use crate::name::{Ident, Table};
use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SyntaxElement, SyntaxKind, SyntaxNode};
use std::collections::BTreeMap;

/// `CREATE INDEX CONCURRENTLY`. IF NOT EXISTS says what is done anyway: an index that is there is looked at.
pub(super) fn create_index(statement: &SyntaxNode) -> Result<Class, Refusal> {
    let Some(index) = child(statement, SyntaxKind::INDEX).and_then(|index| path(&index).pop()) else {
        return refuse(
            "CREATE INDEX CONCURRENTLY needs a name here: without one its outcome cannot be verified after a crash",
            "write the name of the index after CONCURRENTLY",
        );
    };
    let table = child(statement, SyntaxKind::TABLE_RELATION_NAME)
        .or_else(|| child(statement, SyntaxKind::TABLE_NAME_REF));
    let items = child(statement, SyntaxKind::PARTITION_ITEM_LIST);
    let (Some(table), Some(items)) = (table, items) else {
        return unreadable();
    };
    let columns = items.children().map(|item| key(&item));
    Ok(step(Change::CreateIndex(CreateIndex {
        extent: if has_token(&table, SyntaxKind::ONLY_KW) {
            Extent::Only
        } else {
            Extent::Whole
        },
        name: ident(index)?,
        columns: columns.collect::<Option<Vec<_>>>().map_or_else(unreadable, Ok)?,
        unique: has_token(statement, SyntaxKind::UNIQUE_KW),
        condition: child(statement, SyntaxKind::WHERE_CLAUSE)
            .and_then(|condition| condition.children().find_map(|node| expression(&node))),
        written: Some(after(statement, &table)),
        table: relation(path(&table))?,
        method: None,
        include: Vec::new(),
        with: BTreeMap::new(),
        tablespace: None,
        wait: None,
    })))
}

/// `DROP INDEX CONCURRENTLY`.
pub(super) fn drop_index(statement: &SyntaxNode) -> Result<Class, Refusal> {
    let indexes: Vec<SyntaxNode> = statement
        .children()
        .filter(|child| child.kind() == SyntaxKind::INDEX_REF)
        .collect();
    let [index] = indexes.as_slice() else {
        return refuse(
            "DROP INDEX CONCURRENTLY takes one index",
            "write one statement for each",
        );
    };
    if has(statement, SyntaxKind::CASCADE) {
        return refuse(
            "DROP INDEX CONCURRENTLY cannot drop what needs the index along with it",
            "remove CASCADE, and drop that before",
        );
    }
    Ok(step(Change::DropIndex(DropIndex {
        name: relation(path(index))?,
        table: None,
        wait: None,
        missing: if has(statement, SyntaxKind::IF_EXISTS) {
            Missing::Fine
        } else {
            Missing::Refused
        },
    })))
}

/// `REINDEX INDEX CONCURRENTLY` and `REINDEX TABLE CONCURRENTLY`; `None` for others, and where it moves them too.
pub(super) fn reindex(statement: &SyntaxNode) -> Result<Option<Class>, Refusal> {
    let concurrently = ast::Reindex::cast(statement.clone()).is_some_and(|reindex| reindex.is_concurrently());
    let moves = statement
        .descendants()
        .any(|node| node.kind() == SyntaxKind::REINDEX_OPTION_TABLESPACE);
    if !concurrently || moves {
        return Ok(None);
    }
    let named = |target: SyntaxKind| {
        let parts = child(statement, target).map(|target| path(&target));
        parts.filter(|parts| !parts.is_empty()).map(relation).transpose()
    };
    let (index, table) = (
        named(SyntaxKind::REINDEX_TARGET_INDEX)?,
        named(SyntaxKind::REINDEX_TARGET_TABLE)?,
    );
    Ok((index.is_some() || table.is_some()).then(|| {
        step(Change::Reindex(Reindex {
            index,
            table,
            wait: None,
        }))
    }))
}

fn step(change: Change) -> Class {
    Class::Step(Box::new(change))
}

fn unreadable<T>() -> Result<T, Refusal> {
    refuse(
        "the keys of this index cannot be read",
        "write them in parentheses after the name of the table; or use a `create_index` step in a YAML file",
    )
}

/// One key, for those who look for rows in which it is the same.
fn key(item: &SyntaxNode) -> Option<Element> {
    let node = item.first_child()?;
    if node.kind() == SyntaxKind::NAME_REF {
        return Ident::exact(name(&node)).ok().map(Element::of);
    }
    expression(&node).map(Element::of_expression)
}

fn expression(node: &SyntaxNode) -> Option<Expression> {
    Expression::parse(&node.text().to_string()).ok()
}

/// What stands behind a part of a statement, as it is written.
fn after(statement: &SyntaxNode, part: &SyntaxNode) -> String {
    let end = part.text_range().end();
    let tokens = (statement.descendants_with_tokens()).filter_map(SyntaxElement::into_token);
    let text: String = tokens
        .filter(|token| token.text_range().start() >= end && token.kind() != SyntaxKind::SEMICOLON)
        .map(|token| token.text().to_owned())
        .collect();
    text.trim().to_owned()
}

/// The last two parts of a dotted name: PostgreSQL takes the database's own name before them too.
fn relation(mut parts: Vec<String>) -> Result<Table, Refusal> {
    let name = ident(parts.pop().unwrap_or_default())?;
    let schema = parts.pop().map(ident).transpose()?;
    Ok(Table { schema, name })
}

fn ident(name: String) -> Result<Ident, Refusal> {
    Ident::exact(name).or_else(|error| refuse(error.to_string(), "choose another name"))
}
