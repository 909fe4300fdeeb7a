//! What one statement may do, by its syntax tree.

use crate::migration::parser::{has_token, name, path};
use crate::migration::steps::{Session, Verify};
use crate::migration::{lexer::Scan, parser};
use crate::name::{Ident, Table};
use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SyntaxKind, SyntaxNode};

/// How a statement may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// Inside a transaction, alone or with others.
    Inside(Session),
    /// Inside a transaction, and it only means something to the statements around it.
    Together(Session),
    /// Inside a transaction, or outside of one, where it is safe to repeat.
    Either,
    /// Outside a transaction only.
    Outside(Verify),
}

/// Why a statement is refused wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is wrong, in lower case, without a full stop.
    pub(super) what: String,
    /// What to do about it.
    pub(super) advice: String,
}

fn refuse<T>(what: impl Into<String>, advice: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        what: what.into(),
        advice: advice.into(),
    })
}

/// Says how a statement may run.
pub(super) fn classify(statement: &SyntaxNode, scan: &Scan<'_>) -> Result<Class, Refusal> {
    let clean = Ok(Class::Inside(Session::Clean));
    let repeatable = Ok(Class::Outside(Verify::Repeat));
    match statement.kind() {
        SyntaxKind::BEGIN
        | SyntaxKind::COMMIT_TRANSACTION
        | SyntaxKind::COMMIT_PREPARED
        | SyntaxKind::ROLLBACK_TRANSACTION
        | SyntaxKind::ROLLBACK_PREPARED
        | SyntaxKind::PREPARE_TRANSACTION => refuse(
            format!(
                "{} is not allowed: the file runs in one transaction, which records it as applied",
                verb(statement, 2)
            ),
            "remove it; to run each statement in a transaction of its own, put `-- confiture: transaction=off` at the top",
        ),
        SyntaxKind::COPY => copy(statement),
        SyntaxKind::DISCARD if child(statement, SyntaxKind::DISCARD_ALL).is_some() => refuse(
            "DISCARD ALL cannot run inside a transaction, and would change nothing that lasts",
            "remove it",
        ),

        SyntaxKind::SAVEPOINT_CREATE
        | SyntaxKind::RELEASE_SAVEPOINT
        | SyntaxKind::ROLLBACK_TO_SAVEPOINT
        | SyntaxKind::SET_CONSTRAINTS
        | SyntaxKind::LOCK
        | SyntaxKind::FETCH
        | SyntaxKind::MOVE
        | SyntaxKind::CLOSE
        | SyntaxKind::EXECUTE => Ok(Class::Together(Session::Clean)),
        SyntaxKind::SET | SyntaxKind::SET_ROLE | SyntaxKind::SET_SESSION_AUTH => {
            Ok(Class::Together(match child(statement, SyntaxKind::LOCAL_SCOPE) {
                Some(_) => Session::Clean,
                None => Session::Changed,
            }))
        }
        SyntaxKind::SET_TRANSACTION => Ok(Class::Together(
            match child(statement, SyntaxKind::SESSION_CHARACTERISTICS) {
                Some(_) => Session::Changed,
                None => Session::Clean,
            },
        )),
        SyntaxKind::RESET
        | SyntaxKind::RESET_ROLE
        | SyntaxKind::RESET_SESSION_AUTH
        | SyntaxKind::DISCARD
        | SyntaxKind::LISTEN
        | SyntaxKind::UNLISTEN
        | SyntaxKind::LOAD
        | SyntaxKind::PREPARE
        | SyntaxKind::DEALLOCATE => Ok(Class::Together(Session::Changed)),
        SyntaxKind::DECLARE => Ok(Class::Together(match child(statement, SyntaxKind::WITH_HOLD) {
            Some(_) => Session::Changed,
            None => Session::Clean,
        })),

        SyntaxKind::CREATE_INDEX if has_token(statement, SyntaxKind::CONCURRENTLY_KW) => {
            create_index(statement)
        }
        SyntaxKind::DROP_INDEX if has_token(statement, SyntaxKind::CONCURRENTLY_KW) => drop_index(statement),
        SyntaxKind::REINDEX => reindex(statement),
        SyntaxKind::CLUSTER => match [SyntaxKind::TABLE_NAME_REF, SyntaxKind::CLUSTER_LEGACY]
            .iter()
            .any(|kind| child(statement, *kind).is_some())
        {
            true => Ok(Class::Either),
            false => repeatable,
        },
        SyntaxKind::REPACK => match child(statement, SyntaxKind::TABLE_AND_COLUMNS_LIST).is_some()
            && child(statement, SyntaxKind::OPTION_ITEM_LIST).is_none()
        {
            true => Ok(Class::Either),
            false => repeatable,
        },
        SyntaxKind::VACUUM | SyntaxKind::ALTER_SYSTEM => repeatable,
        SyntaxKind::ALTER_DATABASE if child(statement, SyntaxKind::SET_TABLESPACE).is_some() => repeatable,
        SyntaxKind::DROP_DATABASE | SyntaxKind::DROP_TABLESPACE
            if child(statement, SyntaxKind::IF_EXISTS).is_some() =>
        {
            repeatable
        }
        SyntaxKind::CREATE_DATABASE
        | SyntaxKind::CREATE_TABLESPACE
        | SyntaxKind::DROP_DATABASE
        | SyntaxKind::DROP_TABLESPACE => unverifiable(statement, "run it by hand, outside of migrations"),
        SyntaxKind::ALTER_TABLE if below(statement, SyntaxKind::DETACH_CONCURRENTLY) => unverifiable(
            statement,
            "use DETACH PARTITION without CONCURRENTLY: its lock is short",
        ),
        SyntaxKind::CREATE_SUBSCRIPTION
            if !is_off(statement, "create_slot") && !is_off(statement, "connect") =>
        {
            unverifiable(
                statement,
                "create the slot on the publisher, and the subscription WITH (create_slot = false)",
            )
        }
        SyntaxKind::ALTER_SUBSCRIPTION => alter_subscription(statement),
        // It needs no transaction of its own once its slot is taken away; PostgreSQL says so where it does.
        SyntaxKind::DROP_SUBSCRIPTION if child(statement, SyntaxKind::IF_EXISTS).is_some() => {
            Ok(Class::Either)
        }

        // What these hold runs later, if ever.
        SyntaxKind::CREATE_FUNCTION
        | SyntaxKind::CREATE_PROCEDURE
        | SyntaxKind::CREATE_RULE
        | SyntaxKind::CREATE_POLICY
        | SyntaxKind::ALTER_POLICY
        | SyntaxKind::CREATE_TRIGGER => match is_temporary(statement) {
            true => Ok(Class::Inside(Session::Changed)),
            false => clean,
        },
        SyntaxKind::CREATE_TABLE | SyntaxKind::CREATE_VIEW | SyntaxKind::CREATE_SEQUENCE => {
            match is_temporary(statement) {
                true => Ok(Class::Inside(Session::Changed)),
                false => clean,
            }
        }
        SyntaxKind::CREATE_TABLE_AS
        | SyntaxKind::SELECT
        | SyntaxKind::SELECT_INTO
        | SyntaxKind::COMPOUND_SELECT
        | SyntaxKind::PAREN_SELECT
            if is_temporary(statement) =>
        {
            Ok(Class::Inside(Session::Changed))
        }
        _ => Ok(set_config(statement, scan)),
    }
}

/// The words a statement begins with, for messages.
pub(super) fn verb(statement: &SyntaxNode, most: usize) -> String {
    let words: Vec<String> = statement
        .descendants_with_tokens()
        .filter_map(|part| part.into_token())
        .filter(|token| !token.kind().is_trivia())
        .take_while(|token| token.kind().is_keyword())
        .take(most)
        .map(|token| token.text().to_ascii_uppercase())
        .collect();
    words.join(" ")
}

fn child(statement: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    statement.children().find(|child| child.kind() == kind)
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

fn copy(statement: &SyntaxNode) -> Result<Class, Refusal> {
    // `FROM STDOUT` means the same to PostgreSQL as `FROM STDIN`.
    let by_client = below(statement, SyntaxKind::COPY_STDIN) || below(statement, SyntaxKind::COPY_STDOUT);
    match (by_client, child(statement, SyntaxKind::COPY_FROM).is_some()) {
        (true, true) => refuse(
            "COPY FROM STDIN is not allowed: a migration has no input",
            "write the rows as INSERT statements (`pg_dump --inserts`)",
        ),
        (true, false) => refuse(
            "COPY TO STDOUT is not allowed: a migration has no output",
            "remove it",
        ),
        (false, _) => Ok(Class::Inside(Session::Clean)),
    }
}

fn create_index(statement: &SyntaxNode) -> Result<Class, Refusal> {
    if child(statement, SyntaxKind::IF_NOT_EXISTS).is_some() {
        return refuse(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS is not allowed: it would succeed over an index that is not valid",
            "remove IF NOT EXISTS: whether the index is there is looked at anyway",
        );
    }
    let Some(index) = child(statement, SyntaxKind::INDEX).and_then(|index| path(&index).pop()) else {
        return refuse(
            "CREATE INDEX CONCURRENTLY needs a name here: without one its outcome cannot be verified after a crash",
            "write the name of the index after CONCURRENTLY",
        );
    };
    let mut table = child(statement, SyntaxKind::TABLE_RELATION_NAME)
        .or_else(|| child(statement, SyntaxKind::TABLE_NAME_REF))
        .map(|table| path(&table))
        .unwrap_or_default();
    table.pop();
    // An index lives in the schema of its table.
    Ok(Class::Outside(Verify::IndexValid(relation(table.pop(), index)?)))
}

fn drop_index(statement: &SyntaxNode) -> Result<Class, Refusal> {
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
    let mut parts = path(index);
    let index = parts.pop().unwrap_or_default();
    Ok(Class::Outside(Verify::IndexGone(relation(parts.pop(), index)?)))
}

fn relation(schema: Option<String>, name: String) -> Result<Table, Refusal> {
    let ident =
        |name: String| Ident::exact(name).or_else(|error| refuse(error.to_string(), "choose another name"));
    Ok(Table {
        schema: schema.map(ident).transpose()?,
        name: ident(name)?,
    })
}

fn reindex(statement: &SyntaxNode) -> Result<Class, Refusal> {
    let one = [SyntaxKind::REINDEX_TARGET_TABLE, SyntaxKind::REINDEX_TARGET_INDEX]
        .iter()
        .any(|kind| child(statement, *kind).is_some());
    let concurrently = ast::Reindex::cast(statement.clone()).is_none_or(|reindex| reindex.is_concurrently());
    Ok(if one && !concurrently {
        Class::Either
    } else {
        Class::Outside(Verify::Repeat)
    })
}

fn alter_subscription(statement: &SyntaxNode) -> Result<Class, Refusal> {
    let refreshes = !is_off(statement, "refresh");
    let has = |kind| child(statement, kind).is_some();
    if has(SyntaxKind::REFRESH_PUBLICATION) || (has(SyntaxKind::SET_PUBLICATION) && refreshes) {
        Ok(Class::Outside(Verify::Repeat))
    } else if (has(SyntaxKind::ADD_PUBLICATION) || has(SyntaxKind::DROP_SUBSCRIPTION_PUBLICATION))
        && refreshes
    {
        unverifiable(
            statement,
            "write WITH (refresh = false), and refresh in a migration of its own",
        )
    } else {
        Ok(Class::Inside(Session::Clean))
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
    let mut into = statement.clone();
    if !matches!(
        statement.kind(),
        SyntaxKind::CREATE_TABLE | SyntaxKind::CREATE_TABLE_AS | SyntaxKind::CREATE_VIEW
    ) && let Some(clause) = statement
        .descendants()
        .find(|node| node.kind() == SyntaxKind::INTO_CLAUSE)
    {
        into = clause;
    }
    let dropped =
        child(&into, SyntaxKind::ON_COMMIT).is_some_and(|on| child(&on, SyntaxKind::DROP).is_some());
    let in_temporary_schema = into
        .descendants()
        .find(|node| node.kind() == SyntaxKind::PATH)
        .and_then(|name| path(&name).into_iter().next())
        .is_some_and(|first| first == "pg_temp");
    !dropped && (child(&into, SyntaxKind::TEMP).is_some() || in_temporary_schema)
}

/// Whether a statement that evaluates expressions calls `set_config`, and for how long.
fn set_config(statement: &SyntaxNode, scan: &Scan<'_>) -> Class {
    if !scan.names_set_config {
        return Class::Inside(Session::Clean);
    }
    let mut class = Class::Inside(Session::Clean);
    for call in statement.descendants().filter_map(ast::CallExpr::cast) {
        if !parser::calls(call.syntax(), "set_config") {
            continue;
        }
        let local = call
            .arg_list()
            .into_iter()
            .flat_map(|arguments| arguments.args())
            .last()
            .and_then(|last| last.syntax().last_token())
            .is_some_and(|token| token.kind() == SyntaxKind::TRUE_KW);
        if !local {
            return Class::Together(Session::Changed);
        }
        class = Class::Together(Session::Clean);
    }
    class
}
