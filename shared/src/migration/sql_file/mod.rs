//! SQL files: what they may contain and how they run.
//!
//! ```text
//! text --scan (tokens)--> flaws --directives--> how it runs --parser--> statements --classify--> steps
//! ```
//! Everything is decided from tokens and the syntax tree, never by searching the text: what stands in strings, dollar
//! quotes, comments and quoted names is never taken for a statement.

mod concurrent;
mod directives;
mod finding;
mod locks;
mod losses;
mod pieces;
mod reading;
mod session;
mod statement;

use super::lexer::{Flaw, lex, scan};
use super::steps::{Change, Execution, Outside, Session, Sql};
use super::{Options, Position, Problem, Step, checksum};
use crate::id::Digest;
use directives::{Parse, Transaction};
use finding::{Finding, Places};
use reading::{Statement, flaws, statements};
use statement::Class;

/// A SQL file as a script's parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What its head overrides.
    pub options: Options,
    /// One step, or with `transaction=off` one for each statement; never empty.
    pub steps: Vec<Step>,
    /// Of its tokens and directives.
    pub checksum: Digest,
}

/// More than these in one file are not shown: who has so many begins with the first ones.
const MOST_SHOWN: usize = 20;

/// Reads a SQL file.
///
/// # Errors
/// All that is wrong with it, in the order of the file, at most twenty.
pub fn parse(file: &str, text: &str) -> Result<Parsed, Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    read(text).map_err(|findings| {
        let mut places = Places::new(text);
        findings
            .into_iter()
            .take(MOST_SHOWN)
            .map(|finding| Problem {
                file: file.to_owned(),
                at: Some(places.at(finding.at)),
                what: finding.what,
                advice: Some(finding.advice),
            })
            .collect()
    })
}

/// Reads `sql: "..."` of a YAML file: the same rules, without directives. A single statement that cannot run in a
/// transaction runs outside of one.
///
/// # Errors
/// The first thing that is wrong with it, with its place in the text.
pub fn inline(text: &str) -> Result<Sql, String> {
    let whole = text.trim_start_matches('\u{feff}');
    read_inline(whole).map_err(|mut findings| {
        if findings.is_empty() {
            return "there is no statement".to_owned();
        }
        let Finding { at, what, advice } = findings.swap_remove(0);
        let at = Position::of_offset(whole, at);
        format!(
            "{what} (line {}, column {} of the text); {advice}",
            at.line, at.column
        )
    })
}

fn read(text: &str) -> Result<Parsed, Vec<Finding>> {
    let mut scan = scan(text);
    let mut findings = Vec::new();
    let directives = directives::read(&scan, &mut findings);
    let Some(first) = scan.first else {
        findings.push(no_statement());
        return Err(findings);
    };
    let executed = match directives.parse {
        Parse::Off => {
            // All else PostgreSQL may judge; a NUL byte it would never see.
            scan.flaws.retain(|(_, flaw)| *flaw == Flaw::Nul);
            findings.extend(flaws(text, &scan));
            let sql = Sql {
                loses_data: losses::in_words(text),
                ..executed(text, Execution::Transaction(Session::Changed))
            };
            vec![(first, sql)]
        }
        Parse::On => {
            let statements = statements(text, directives.transaction, &scan, &mut findings);
            match directives.transaction {
                Transaction::One => together(text, &statements, &mut findings),
                Transaction::Each => separately(text, &statements, &mut findings),
            }
        }
    };
    finish(text, directives.options, executed, findings)
}

/// Where the statements of a text are, without semicolons and what surrounds them; as far as they can be read.
pub fn extents(text: &str) -> Vec<std::ops::Range<usize>> {
    let statements = statements(text, Transaction::One, &scan(text), &mut Vec::new());
    statements.into_iter().map(|statement| statement.range).collect()
}

/// The beginning of a text on one line, without comments: at most `most` characters.
pub fn excerpt(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut characters = 0;
    for token in lex(text) {
        let words = if token.is_trivia() { " " } else { token.text };
        for c in words.chars().map(|c| if c.is_whitespace() { ' ' } else { c }) {
            if c == ' ' && (line.is_empty() || line.ends_with(' ')) {
                continue;
            }
            if characters == most {
                return format!("{}…", line.trim_end());
            }
            line.push(c);
            characters += 1;
        }
    }
    line.trim_end().to_owned()
}

fn no_statement() -> Finding {
    Finding::new(0, "the file holds no statement", "write one, or remove the file")
}

fn read_inline(text: &str) -> Result<Sql, Vec<Finding>> {
    let scan = scan(text);
    let mut findings = Vec::new();
    if let Some(comment) = scan.comments.iter().find(|c| directives::content(c).is_some()) {
        findings.push(Finding::new(
            comment.at,
            "directives are read in SQL files only",
            "say it in the YAML file (`lock_timeout: 60s` beside `up`), or move the statements to a SQL file",
        ));
    }
    let statements = statements(text, Transaction::One, &scan, &mut findings);
    let alone = match statements.as_slice() {
        [statement] => outside(&text[statement.range.clone()], statement),
        _ => None,
    };
    let sql = if let Some(sql) = alone {
        sql
    } else {
        for statement in &statements {
            if let Class::Outside | Class::Step(_) = statement.class {
                findings.push(Finding::new(
                    statement.range.start,
                    format!("{} cannot run inside a transaction with others", statement.verb),
                    "give it a `sql` step of its own",
                ));
            }
        }
        whole(text, &statements)
    };
    if !findings.is_empty() || statements.is_empty() {
        findings.sort_by_key(|finding| finding.at);
        return Err(findings);
    }
    Ok(sql)
}

/// One step for all statements.
fn together(text: &str, statements: &[Statement], findings: &mut Vec<Finding>) -> Vec<(usize, Sql)> {
    for statement in statements {
        if let Class::Outside | Class::Step(_) = statement.class {
            findings.push(Finding::new(
                statement.range.start,
                format!(
                    "{} cannot run inside a transaction, and the file runs in one",
                    statement.verb
                ),
                "put `-- confiture: transaction=off` at the top: each statement of the file is then a step of its own",
            ));
        }
    }
    statements
        .first()
        .map(|first| (first.range.start, whole(text, statements)))
        .into_iter()
        .collect()
}

/// One step for each statement.
fn separately(text: &str, statements: &[Statement], findings: &mut Vec<Finding>) -> Vec<(usize, Sql)> {
    statements
        .iter()
        .map(|statement| {
            let own = &text[statement.range.clone()];
            let sql = match &statement.class {
                Class::Inside(Session::Clean) => whole(own, std::slice::from_ref(statement)),
                Class::Inside(Session::Changed) | Class::Together(_) => {
                    findings.push(Finding::new(
                        statement.range.start,
                        format!(
                            "{} has no effect on the statements after it: with `transaction=off` each runs in a transaction, \
                             and maybe a session, of its own",
                            statement.verb
                        ),
                        "remove it, or move it with the statements that need it to a file without `transaction=off`",
                    ));
                    executed(own, Execution::Transaction(Session::Changed))
                }
                Class::Either | Class::Outside => alone(own, statement),
                Class::Step(change) => executed(own, Execution::Step(change.clone())),
            };
            (statement.range.start, sql)
        })
        .collect()
}

/// All of a text in one transaction.
fn whole(text: &str, statements: &[Statement]) -> Sql {
    // After a SET a name may lead elsewhere than it does for who looks from another session.
    let sets = |statement: &Statement| {
        matches!(
            statement.class,
            Class::Together(_) | Class::Inside(Session::Changed)
        )
    };
    let exact = statements.iter().any(sets);
    let locks = statements.iter().flat_map(|statement| &statement.locks);
    Sql {
        locks: locks
            .filter(|(_, table)| !exact || table.schema.is_some())
            .cloned()
            .collect(),
        creates_only: statements.iter().all(|statement| statement.creates_only),
        loses_data: statements.iter().any(|statement| statement.loses_data),
        ..executed(text, Execution::Transaction(session(statements)))
    }
}

fn executed(text: &str, execution: Execution) -> Sql {
    Sql {
        text: text.to_owned(),
        execution,
        locks: Vec::new(),
        creates_only: false,
        loses_data: false,
    }
}

/// One statement outside a transaction.
fn alone(text: &str, statement: &Statement) -> Sql {
    let outside = if statement.rewrites {
        Outside::Rewrite
    } else {
        Outside::Weak
    };
    Sql {
        locks: statement.locks.clone(),
        ..executed(text, Execution::Outside(outside))
    }
}

/// A statement that only runs outside a transaction.
fn outside(text: &str, statement: &Statement) -> Option<Sql> {
    match &statement.class {
        Class::Outside => Some(alone(text, statement)),
        Class::Step(change) => Some(executed(text, Execution::Step(change.clone()))),
        Class::Inside(_) | Class::Together(_) | Class::Either => None,
    }
}

fn session(statements: &[Statement]) -> Session {
    let changed = |statement: &Statement| match statement.class {
        Class::Inside(session) | Class::Together(session) => session == Session::Changed,
        Class::Either | Class::Outside | Class::Step(_) => false,
    };
    if statements.iter().any(changed) {
        Session::Changed
    } else {
        Session::Clean
    }
}

fn finish(
    text: &str,
    options: Options,
    executed: Vec<(usize, Sql)>,
    mut findings: Vec<Finding>,
) -> Result<Parsed, Vec<Finding>> {
    if findings.is_empty() && executed.is_empty() {
        findings.push(no_statement());
    }
    if !findings.is_empty() {
        findings.sort_by_key(|finding| finding.at);
        return Err(findings);
    }
    let mut places = Places::new(text);
    let steps: Vec<Step> = executed
        .into_iter()
        .map(|(at, sql)| {
            let change = Change::Sql(sql);
            Step {
                at: places.at(at),
                checksum: change.checksum(),
                change,
                options: Options::default(),
            }
        })
        .collect();
    Ok(Parsed {
        checksum: checksum::script(&options, &steps),
        options,
        steps,
    })
}

#[cfg(test)]
mod tests;
