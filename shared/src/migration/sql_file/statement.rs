//! What one statement may do, by its syntax tree.

use super::{concurrent, session};
use crate::migration::lexer::Scan;
use crate::migration::parser::{has_token, name, path};
use crate::migration::steps::{Change, Session};
use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SyntaxKind, SyntaxNode};

/// How a statement may run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Class {
    /// Inside a transaction, alone or with others.
    Inside(Session),
    /// Inside a transaction, and it only means something to the statements around it.
    Together(Session),
    /// Inside a transaction, or outside of one, where it is safe to repeat.
    Either,
    /// Outside a transaction only; safe to repeat.
    Outside,
    /// Outside a transaction only; it does what this step does, and is carried out as that.
    Step(Box<Change>),
}

/// Why a statement is refused wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is wrong, in lower case, without a full stop.
    pub(super) what: String,
    /// What to do about it.
    pub(super) advice: String,
}

pub(super) fn refuse<T>(what: impl Into<String>, advice: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        what: what.into(),
        advice: advice.into(),
    })
}

/// Says how a statement may run.
pub(super) fn classify(statement: &SyntaxNode, scan: &Scan<'_>) -> Result<Class, Refusal> {
    refused(statement)?;
    if let Some(session) = together(statement) {
        return Ok(Class::Together(session));
    }
    if let Some(class) = outside(statement)? {
        return Ok(class);
    }
    if is_temporary(statement) || session::changes(statement) {
        return Ok(Class::Inside(Session::Changed));
    }
    Ok(match session::set_config(statement, scan) {
        Some(session) => Class::Together(session),
        None => Class::Inside(Session::Clean),
    })
}

/// Refuses what ends our transaction, and what needs a client.
fn refused(statement: &SyntaxNode) -> Result<(), Refusal> {
    match statement.kind() {
        SyntaxKind::BEGIN
        | SyntaxKind::COMMIT_TRANSACTION
        | SyntaxKind::COMMIT_PREPARED
        | SyntaxKind::ROLLBACK_TRANSACTION
        | SyntaxKind::ROLLBACK_PREPARED
        | SyntaxKind::PREPARE_TRANSACTION => refuse(
            format!(
                "{} is not allowed: the step runs in one transaction together with its record",
                verb(statement, 2)
            ),
            "remove it; with `-- confiture: transaction=off` at the top of a SQL file each statement has a transaction of its own",
        ),
        SyntaxKind::COPY => {
            // `FROM STDOUT` means the same to PostgreSQL as `FROM STDIN`.
            let by_client =
                below(statement, SyntaxKind::COPY_STDIN) || below(statement, SyntaxKind::COPY_STDOUT);
            match (by_client, has(statement, SyntaxKind::COPY_FROM)) {
                (true, true) => refuse(
                    "COPY FROM STDIN is not allowed: a migration has no input",
                    "write the rows as INSERT statements (`pg_dump --inserts`)",
                ),
                (true, false) => refuse(
                    "COPY TO STDOUT is not allowed: a migration has no output",
                    "remove it",
                ),
                (false, _) => Ok(()),
            }
        }
        SyntaxKind::DISCARD if has(statement, SyntaxKind::DISCARD_ALL) => refuse(
            "DISCARD ALL cannot run inside a transaction, and would change nothing that lasts",
            "remove it",
        ),
        _ => Ok(()),
    }
}

/// What only means something to the statements around it, and whether it outlives the transaction.
fn together(statement: &SyntaxNode) -> Option<Session> {
    match statement.kind() {
        SyntaxKind::SAVEPOINT_CREATE
        | SyntaxKind::RELEASE_SAVEPOINT
        | SyntaxKind::ROLLBACK_TO_SAVEPOINT
        | SyntaxKind::SET_CONSTRAINTS
        | SyntaxKind::LOCK
        | SyntaxKind::FETCH
        | SyntaxKind::MOVE
        | SyntaxKind::CLOSE
        | SyntaxKind::EXECUTE => Some(Session::Clean),
        SyntaxKind::SET | SyntaxKind::SET_ROLE | SyntaxKind::SET_SESSION_AUTH
            if has(statement, SyntaxKind::LOCAL_SCOPE) =>
        {
            Some(Session::Clean)
        }
        SyntaxKind::SET_TRANSACTION if !has(statement, SyntaxKind::SESSION_CHARACTERISTICS) => {
            Some(Session::Clean)
        }
        SyntaxKind::DECLARE if !has(statement, SyntaxKind::WITH_HOLD) => Some(Session::Clean),
        SyntaxKind::SET
        | SyntaxKind::SET_ROLE
        | SyntaxKind::SET_SESSION_AUTH
        | SyntaxKind::SET_TRANSACTION
        | SyntaxKind::DECLARE
        | SyntaxKind::RESET
        | SyntaxKind::RESET_ROLE
        | SyntaxKind::RESET_SESSION_AUTH
        | SyntaxKind::DISCARD
        | SyntaxKind::LISTEN
        | SyntaxKind::UNLISTEN
        | SyntaxKind::LOAD
        | SyntaxKind::PREPARE
        | SyntaxKind::DEALLOCATE => Some(Session::Changed),
        _ => None,
    }
}

/// What PostgreSQL refuses inside a transaction, or may refuse there; `None` for all else.
fn outside(statement: &SyntaxNode) -> Result<Option<Class>, Refusal> {
    Ok(Some(match statement.kind() {
        SyntaxKind::CREATE_INDEX if has_token(statement, SyntaxKind::CONCURRENTLY_KW) => {
            concurrent::create_index(statement)?
        }
        SyntaxKind::DROP_INDEX if has_token(statement, SyntaxKind::CONCURRENTLY_KW) => {
            concurrent::drop_index(statement)?
        }
        SyntaxKind::REINDEX => concurrent::reindex(statement)?.unwrap_or_else(|| reindex(statement)),
        SyntaxKind::CLUSTER
            if has(statement, SyntaxKind::TABLE_NAME_REF) || has(statement, SyntaxKind::CLUSTER_LEGACY) =>
        {
            Class::Either
        }
        SyntaxKind::REPACK
            if has(statement, SyntaxKind::TABLE_AND_COLUMNS_LIST)
                && !has(statement, SyntaxKind::OPTION_ITEM_LIST) =>
        {
            Class::Either
        }
        SyntaxKind::CLUSTER | SyntaxKind::REPACK | SyntaxKind::VACUUM | SyntaxKind::ALTER_SYSTEM => {
            Class::Outside
        }
        SyntaxKind::ALTER_DATABASE if has(statement, SyntaxKind::SET_TABLESPACE) => Class::Outside,
        SyntaxKind::DROP_DATABASE | SyntaxKind::DROP_TABLESPACE if has(statement, SyntaxKind::IF_EXISTS) => {
            Class::Outside
        }
        SyntaxKind::CREATE_DATABASE
        | SyntaxKind::CREATE_TABLESPACE
        | SyntaxKind::DROP_DATABASE
        | SyntaxKind::DROP_TABLESPACE => {
            return unverifiable(statement, "run it by hand, outside of migrations");
        }
        SyntaxKind::ALTER_TABLE if below(statement, SyntaxKind::DETACH_CONCURRENTLY) => {
            return unverifiable(
                statement,
                "use DETACH PARTITION without CONCURRENTLY: its lock is short",
            );
        }
        SyntaxKind::CREATE_SUBSCRIPTION
            if !is_off(statement, "create_slot") && !is_off(statement, "connect") =>
        {
            return unverifiable(
                statement,
                "create the slot on the publisher, and the subscription WITH (create_slot = false)",
            );
        }
        SyntaxKind::ALTER_SUBSCRIPTION => return alter_subscription(statement),
        // It needs no transaction of its own once its slot is taken away; PostgreSQL says so where it does.
        SyntaxKind::DROP_SUBSCRIPTION if has(statement, SyntaxKind::IF_EXISTS) => Class::Either,
        _ => return Ok(None),
    }))
}

/// The words a statement begins with, for messages.
pub(super) fn verb(statement: &SyntaxNode, most: usize) -> String {
    let words: Vec<String> = statement
        .descendants_with_tokens()
        .filter_map(squawk_syntax::SyntaxElement::into_token)
        .filter(|token| !token.kind().is_trivia())
        .take_while(|token| token.kind().is_keyword())
        .take(most)
        .map(|token| token.text().to_ascii_uppercase())
        .collect();
    words.join(" ")
}

pub(super) fn child(statement: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    statement.children().find(|child| child.kind() == kind)
}

pub(super) fn has(statement: &SyntaxNode, kind: SyntaxKind) -> bool {
    child(statement, kind).is_some()
}

fn below(statement: &SyntaxNode, kind: SyntaxKind) -> bool {
    statement.descendants().any(|node| node.kind() == kind)
}

fn unverifiable<T>(statement: &SyntaxNode, advice: &str) -> Result<T, Refusal> {
    refuse(
        format!(
            "{} cannot run inside a transaction, its outcome cannot be verified after a crash, and it is not safe to repeat",
            verb(statement, 3)
        ),
        advice,
    )
}

fn reindex(statement: &SyntaxNode) -> Class {
    let one =
        has(statement, SyntaxKind::REINDEX_TARGET_TABLE) || has(statement, SyntaxKind::REINDEX_TARGET_INDEX);
    let concurrently = ast::Reindex::cast(statement.clone()).is_none_or(|reindex| reindex.is_concurrently());
    if one && !concurrently {
        Class::Either
    } else {
        Class::Outside
    }
}

fn alter_subscription(statement: &SyntaxNode) -> Result<Option<Class>, Refusal> {
    let refreshes = !is_off(statement, "refresh");
    let sets = has(statement, SyntaxKind::SET_PUBLICATION);
    let changes = has(statement, SyntaxKind::ADD_PUBLICATION)
        || has(statement, SyntaxKind::DROP_SUBSCRIPTION_PUBLICATION);
    if has(statement, SyntaxKind::REFRESH_PUBLICATION) || (sets && refreshes) {
        Ok(Some(Class::Outside))
    } else if changes && refreshes {
        unverifiable(
            statement,
            "write WITH (refresh = false), and refresh in a migration of its own",
        )
    } else {
        Ok(None)
    }
}

/// Whether `WITH (option = false)` is said, in one of the spellings of false.
fn is_off(statement: &SyntaxNode, option: &str) -> bool {
    statement
        .descendants()
        .filter(|node| node.kind() == SyntaxKind::ATTRIBUTE_OPTION)
        .filter(|node| child(node, SyntaxKind::ATTRIBUTE_NAME).is_some_and(|n| name(&n) == option))
        .filter_map(|node| child(&node, SyntaxKind::ATTRIBUTE_VALUE))
        .any(|value| {
            let value = value.text().to_string().to_ascii_lowercase();
            ["false", "off", "no", "0"].contains(&value.trim_matches('\''))
        })
}

/// Whether it leaves something in the session's own schema. `ON COMMIT DROP` leaves nothing.
fn is_temporary(statement: &SyntaxNode) -> bool {
    let creates = match statement.kind() {
        SyntaxKind::CREATE_TABLE
        | SyntaxKind::CREATE_TABLE_AS
        | SyntaxKind::CREATE_VIEW
        | SyntaxKind::CREATE_SEQUENCE
        | SyntaxKind::CREATE_FUNCTION
        | SyntaxKind::CREATE_PROCEDURE
        | SyntaxKind::CREATE_TYPE
        | SyntaxKind::CREATE_DOMAIN => Some(statement.clone()),
        SyntaxKind::SELECT_INTO | SyntaxKind::COMPOUND_SELECT | SyntaxKind::PAREN_SELECT => statement
            .descendants()
            .find(|node| node.kind() == SyntaxKind::INTO_CLAUSE),
        _ => None,
    };
    creates.is_some_and(|creates| {
        let dropped = child(&creates, SyntaxKind::ON_COMMIT).is_some_and(|on| has(&on, SyntaxKind::DROP));
        let in_temporary_schema = creates
            .descendants()
            .find(|node| node.kind() == SyntaxKind::PATH)
            .and_then(|name| path(&name).into_iter().next())
            .is_some_and(|first| first == "pg_temp");
        !dropped && (has(&creates, SyntaxKind::TEMP) || in_temporary_schema)
    })
}
