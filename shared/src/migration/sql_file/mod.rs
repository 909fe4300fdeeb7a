//! SQL files: what they may contain and how they run.
//!
//! ```text
//! text --scan (tokens)--> flaws --directives--> how it runs --parser--> statements --classify--> steps
//! ```
//! Everything is decided from tokens and the syntax tree, never by searching the text: what stands in strings, dollar
//! quotes, comments and quoted names is never taken for a statement.

mod directives;
mod statement;

use super::lexer::{Flaw, Scan, scan};
use super::steps::{Change, Execution, Outside, Session, Sql, Verify};
use super::{Options, Position, Problem, Step, checksum, parser};
use crate::id::Digest;
use directives::{Parse, Transaction};
use squawk_syntax::{SyntaxKind, SyntaxNode};
use statement::Class;
use std::ops::Range;

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

/// Something wrong, at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    at: usize,
    what: String,
    advice: String,
}

impl Finding {
    fn new(at: usize, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            advice: advice.into(),
        }
    }
}

/// A statement and how it may run.
struct Statement {
    /// Without the semicolon and what surrounds it.
    range: Range<usize>,
    class: Class,
    /// The words it begins with.
    verb: String,
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
            vec![(first, whole(text, Session::Changed))]
        }
        Parse::On => {
            let statements = statements(text, &scan, &mut findings);
            match directives.transaction {
                Transaction::One => together(text, &statements, &mut findings),
                Transaction::Each => separately(text, &statements, &mut findings),
            }
        }
    };
    finish(text, directives.options, executed, findings)
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
    let statements = statements(text, &scan, &mut findings);
    let sql = if let [
        Statement {
            range,
            class: Class::Outside(verify),
            ..
        },
    ] = statements.as_slice()
    {
        outside(&text[range.clone()], verify.clone())
    } else {
        for statement in &statements {
            if let Class::Outside(_) = statement.class {
                findings.push(Finding::new(
                    statement.range.start,
                    format!("{} cannot run inside a transaction with others", statement.verb),
                    "give it a `sql` step of its own",
                ));
            }
        }
        whole(text, session(&statements))
    };
    if !findings.is_empty() || statements.is_empty() {
        findings.sort_by_key(|finding| finding.at);
        return Err(findings);
    }
    Ok(sql)
}

/// All statements of a text; what is wrong with it is added to `findings`.
fn statements(text: &str, scan: &Scan<'_>, findings: &mut Vec<Finding>) -> Vec<Statement> {
    let mut found = flaws(text, scan);
    let unreadable = |flaw: &(usize, Flaw)| matches!(flaw.1, Flaw::Nul | Flaw::Deep);
    if scan.flaws.iter().any(unreadable) {
        findings.append(&mut found);
        return Vec::new();
    }
    let tree = parser::parse(text);
    let mut statements = Vec::new();
    // Behind COPY FROM STDIN stand rows, not SQL: nothing can be said about them.
    let mut rows = None;
    for node in tree.root.children() {
        if matches!(node.kind(), SyntaxKind::EMPTY_STMT | SyntaxKind::ERROR) {
            continue;
        }
        let range = extent(&node);
        match statement::classify(&node, scan) {
            Ok(class) => statements.push(Statement {
                verb: statement::verb(&node, 3),
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
    found.extend(unread(text, scan, tree));
    if let Some(rows) = rows {
        found.retain(|finding| finding.at <= rows);
    }
    findings.append(&mut found);
    statements
}

/// What the parser could not read: the first place in each statement.
fn unread(text: &str, scan: &Scan<'_>, tree: parser::Tree) -> Vec<Finding> {
    // The parser stumbles over these too.
    if scan.flaws.iter().any(|(_, flaw)| *flaw == Flaw::Backslash) {
        return Vec::new();
    }
    let end = scan.flaws.first().map_or(usize::MAX, |(at, _)| *at);
    let mut statements = tree.root.children().map(|node| extent(&node).end).peekable();
    let mut last = None;
    let mut findings = Vec::new();
    for (at, message) in tree.errors {
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
                "correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of the file to run it unread",
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
fn flaws(text: &str, scan: &Scan<'_>) -> Vec<Finding> {
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
                    "simplify it, or put `-- confiture: parse=off` at the top of the file to run it unread"
                }
            };
            Finding::new(*at, flaw.to_string(), advice)
        })
        .collect()
}

/// One step for all statements.
fn together(text: &str, statements: &[Statement], findings: &mut Vec<Finding>) -> Vec<(usize, Sql)> {
    for statement in statements {
        if let Class::Outside(_) = statement.class {
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
        .map(|first| (first.range.start, whole(text, session(statements))))
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
                Class::Inside(Session::Clean) => whole(own, Session::Clean),
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
                    whole(own, Session::Changed)
                }
                Class::Either => outside(own, Verify::Repeat),
                Class::Outside(verify) => outside(own, verify.clone()),
            };
            (statement.range.start, sql)
        })
        .collect()
}

fn whole(text: &str, session: Session) -> Sql {
    Sql {
        text: text.to_owned(),
        execution: Execution::Transaction(session),
    }
}

fn outside(text: &str, verify: Verify) -> Sql {
    Sql {
        text: text.to_owned(),
        execution: Execution::Outside(Outside {
            text: text.to_owned(),
            verify,
        }),
    }
}

fn session(statements: &[Statement]) -> Session {
    let changed = |statement: &Statement| match statement.class {
        Class::Inside(session) | Class::Together(session) => session == Session::Changed,
        Class::Either | Class::Outside(_) => false,
    };
    if statements.iter().any(changed) {
        Session::Changed
    } else {
        Session::Clean
    }
}

/// From the first token to the last, without trivia and semicolons around them.
fn extent(node: &SyntaxNode) -> Range<usize> {
    let surrounds = |kind: SyntaxKind| kind.is_trivia() || kind == SyntaxKind::SEMICOLON;
    let mut first = node.first_token();
    while let Some(token) = first.as_ref().filter(|token| surrounds(token.kind())) {
        first = token.next_token();
    }
    let mut last = node.last_token();
    while let Some(token) = last.as_ref().filter(|token| surrounds(token.kind())) {
        last = token.prev_token();
    }
    match (first, last) {
        (Some(first), Some(last)) if first.text_range().start() < last.text_range().end() => {
            first.text_range().start().into()..last.text_range().end().into()
        }
        _ => node.text_range().start().into()..node.text_range().end().into(),
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
            }
        })
        .collect();
    Ok(Parsed {
        checksum: checksum::script(&options, &steps),
        options,
        steps,
    })
}

/// Positions of ascending offsets: each part of the text is counted once.
struct Places<'a> {
    rest: &'a str,
    offset: usize,
    position: Position,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            offset: 0,
            position: Position { line: 1, column: 1 },
        }
    }

    fn at(&mut self, offset: usize) -> Position {
        let mut length = offset.saturating_sub(self.offset).min(self.rest.len());
        while !self.rest.is_char_boundary(length) {
            length -= 1;
        }
        let (passed, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.offset += length;
        let within = Position::of_offset(passed, length);
        self.position = if within.line == 1 {
            Position {
                line: self.position.line,
                column: self.position.column + within.column - 1,
            }
        } else {
            Position {
                line: self.position.line + within.line - 1,
                column: within.column,
            }
        };
        self.position
    }
}

#[cfg(test)]
mod tests;
