//! Whether a statement leaves something behind in its session, beyond what its kind says.
//!
//! A pooled connection that carries another's setting or lock misleads whoever gets it next, so what may leave one is
//! found here, rather once too often: the connection is then closed.

use crate::migration::lexer::{Flaw, Scan, lex, scan};
use crate::migration::parser;
use crate::migration::steps::Session;
use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SyntaxKind, SyntaxNode};

/// More blocks than this in one DO are not read: the parser descends on the stack for each.
const MOST_BLOCKS: usize = 500;

/// Whether a statement that evaluates expressions calls `set_config`, and whether that outlives the transaction.
pub(super) fn set_config(statement: &SyntaxNode, scan: &Scan<'_>) -> Option<Session> {
    if !scan.names_set_config || is_evaluated_later(statement.kind()) {
        return None;
    }
    let calls: Vec<ast::CallExpr> = calls(statement)
        .filter(|call| parser::calls(call.syntax(), "set_config"))
        .collect();
    let outlives = || calls.iter().any(|call| !is_local(call));
    (!calls.is_empty()).then(|| {
        if outlives() {
            Session::Changed
        } else {
            Session::Clean
        }
    })
}

/// Whether a statement takes a lock that its session keeps, or is a DO block that may change the session.
pub(super) fn changes(statement: &SyntaxNode) -> bool {
    match statement.kind() {
        SyntaxKind::DO => changes_in_block(statement),
        kind if is_evaluated_later(kind) => false,
        _ => calls(statement).any(|call| locks_session(&call)),
    }
}

/// Statements whose expressions are stored, not evaluated.
fn is_evaluated_later(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::CREATE_FUNCTION
            | SyntaxKind::CREATE_PROCEDURE
            | SyntaxKind::CREATE_VIEW
            | SyntaxKind::CREATE_RULE
            | SyntaxKind::CREATE_POLICY
            | SyntaxKind::ALTER_POLICY
            | SyntaxKind::CREATE_TRIGGER
            | SyntaxKind::CREATE_TABLE
    )
}

fn calls(node: &SyntaxNode) -> impl Iterator<Item = ast::CallExpr> {
    node.descendants().filter_map(ast::CallExpr::cast)
}

/// Whether the argument `is_local` of `set_config`, the last unless it is named, is `true` and nothing else.
fn is_local(call: &ast::CallExpr) -> bool {
    let arguments: Vec<SyntaxNode> = (call.arg_list().into_iter())
        .flat_map(|arguments| arguments.args())
        .filter_map(|argument| argument.syntax().first_child())
        .collect();
    let value = |argument: &SyntaxNode| match ast::NamedArg::cast(argument.clone()) {
        Some(named) => named.expr().map(|value| value.syntax().clone()),
        None => Some(argument.clone()),
    };
    let by_name = arguments.iter().find(|argument| {
        let name = ast::NamedArg::cast((*argument).clone()).and_then(|named| named.name());
        name.is_some_and(|name| parser::name(name.syntax()) == "is_local")
    });
    by_name.or(arguments.last()).and_then(value).is_some_and(|value| {
        value.kind() == SyntaxKind::LITERAL && parser::has_token(&value, SyntaxKind::TRUE_KW)
    })
}

/// Advisory locks end with the transaction only where their name says so (`pg_advisory_xact_lock`).
fn locks_session(call: &ast::CallExpr) -> bool {
    const SESSION_LOCKS: [&str; 4] = [
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
    ];
    SESSION_LOCKS
        .iter()
        .any(|name| parser::calls(call.syntax(), name))
}

/// A DO block that the parser reads holds ordinary statements; one it cannot read may hold anything.
fn changes_in_block(block: &SyntaxNode) -> bool {
    let is_readable = block
        .descendants_with_tokens()
        .filter_map(squawk_syntax::SyntaxElement::into_token)
        .all(|token| {
            lex(token.text())
                .filter_map(|token| token.string_content())
                .all(is_shallow)
        });
    let body = ast::Do::cast(block.clone())
        .filter(|_| is_readable)
        .and_then(|block| {
            parser::guarded(|| {
                block
                    .plpgsql()
                    .filter(|body| body.errors().is_empty())
                    .map(|body| body.syntax())
            })
            .flatten()
        });
    body.is_none_or(|body| body.descendants().any(|node| changes_in(&node)))
}

/// Whether a body can be parsed without fear for the stack.
fn is_shallow(body: &str) -> bool {
    let opens = |word: &&str| {
        ["begin", "loop", "if", "case"]
            .iter()
            .any(|open| word.eq_ignore_ascii_case(open))
    };
    let blocks = lex(body).map(|token| token.text).filter(opens).count();
    blocks <= MOST_BLOCKS && !scan(body).flaws.iter().any(|(_, flaw)| *flaw == Flaw::Deep)
}

/// Whether a node of a block changes the session.
fn changes_in(node: &SyntaxNode) -> bool {
    match node.kind() {
        SyntaxKind::SET | SyntaxKind::SET_ROLE | SyntaxKind::SET_SESSION_AUTH => {
            !node.children().any(|child| child.kind() == SyntaxKind::LOCAL_SCOPE)
        }
        SyntaxKind::RESET
        | SyntaxKind::RESET_ROLE
        | SyntaxKind::RESET_SESSION_AUTH
        | SyntaxKind::DISCARD
        | SyntaxKind::LISTEN
        | SyntaxKind::LOAD
        // With ON COMMIT DROP it is gone with the transaction; that is not worth finding out here.
        | SyntaxKind::TEMP => true,
        SyntaxKind::CALL_EXPR => ast::CallExpr::cast(node.clone()).is_some_and(|call| {
            locks_session(&call) || (parser::calls(call.syntax(), "set_config") && !is_local(&call))
        }),
        SyntaxKind::PLPGSQL_DYN_EXECUTE_STMT => executes_change(node),
        _ => false,
    }
}

/// `EXECUTE 'SET ..'`: a text that is put together at run time is not known, but how its constant parts begin is.
fn executes_change(execute: &SyntaxNode) -> bool {
    execute
        .descendants()
        .filter_map(ast::Literal::cast)
        .filter_map(|literal| literal.string_value())
        .any(|text| begins_with_change(&text))
}

fn begins_with_change(text: &str) -> bool {
    let mut words = lex(text).filter(|token| !token.is_trivia());
    let Some(first) = words.next() else {
        return false;
    };
    if first.is_word("set") {
        return !words.next().is_some_and(|second| second.is_word("local"));
    }
    ["reset", "discard", "listen", "load"]
        .iter()
        .any(|word| first.is_word(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> bool {
        let scan = scan(text);
        let statement = parser::parse(text).root.first_child().unwrap();
        changes(&statement) || set_config(&statement, &scan) == Some(Session::Changed)
    }

    #[test]
    fn what_outlives_the_transaction_is_a_change() {
        for text in [
            "SELECT set_config('a', 'b', false)",
            "SELECT set_config('a', 'b', NOT true)",
            "SELECT set_config('a', 'b', is_local => false)",
            "SELECT pg_advisory_lock(1)",
            "SELECT 1 FROM (SELECT pg_catalog.pg_try_advisory_lock_shared(1, 2)) t",
            "DO $$ BEGIN SET x = 1; END $$",
            "DO $$ BEGIN IF true THEN PERFORM set_config('a', 'b', false); END IF; END $$",
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
            "DO $$ BEGIN CREATE TEMP TABLE t (a int); END $$",
            "DO $$ BEGIN EXECUTE 'SET x = 1'; END $$",
            "DO $$ BEGIN EXECUTE format('SET search_path = %I', 'a'); END $$",
            "DO $$ BEGIN EXECUTE 'RESET ' || a; END $$",
            "DO LANGUAGE plperl 'anything'",
            "DO $$ this is no block $$",
        ] {
            assert!(changed(text), "{text}");
        }
    }

    #[test]
    fn what_ends_with_the_transaction_or_runs_later_is_none() {
        for text in [
            "SELECT 1",
            "SELECT set_config('a', 'b', true)",
            "SELECT set_config(is_local => true, setting_name => 'a', new_value => 'b')",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
            "CREATE FUNCTION f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT set_config('a', 'b', false); END",
            "CREATE VIEW v AS SELECT pg_advisory_lock(1)",
            "SELECT 'pg_advisory_lock(1)', $$ SET x = 1 $$ -- SET x = 1",
            "DO $$ BEGIN SET LOCAL x = 1; UPDATE t SET a = 1; EXECUTE 'UPDATE t SET a = 1'; RAISE NOTICE 'SET x = 1'; END $$",
            "DO $$ BEGIN EXECUTE 'SET LOCAL x = 1'; END $$",
            "DO $$ BEGIN CREATE TYPE e AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "DO $$ BEGIN PERFORM set_config('a', 'b', true); END $$",
        ] {
            assert!(!changed(text), "{text}");
        }
    }

    #[test]
    fn a_block_too_deep_to_be_read_counts_as_a_change() {
        for text in [
            format!(
                "DO $$ {} NULL; {} $$",
                "BEGIN NULL; ".repeat(20_000),
                "END; ".repeat(20_000)
            ),
            format!(
                "DO $$ BEGIN x := {}1{}; END $$",
                "(".repeat(20_000),
                ")".repeat(20_000)
            ),
        ] {
            assert!(changed(&text), "{}", &text[..40]);
        }
    }
}
