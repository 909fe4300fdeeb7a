//! `-- confiture: lock_timeout=60s transaction=off` in the head of a SQL file.

use super::Finding;
use crate::migration::Options;
use crate::migration::lexer::{Scan, Token};
use crate::settings::duration;
use crate::yaml;
use squawk_lexer::TokenKind;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the head of a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directives {
    /// What is overridden.
    pub(super) options: Options,
    /// How statements share transactions.
    pub(super) transaction: Transaction,
    /// Whether the file is read.
    pub(super) parse: Parse,
}

/// How the statements of a file share transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Transaction {
    /// All run in one.
    #[default]
    One,
    /// Each is a step of its own (`transaction=off`).
    Each,
}

/// Whether a file is read by the parser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Parse {
    /// It is.
    #[default]
    On,
    /// It is run whole, unread (`parse=off`).
    Off,
}

/// The directives there are.
const KNOWN: [&str; 5] = [
    "lock_timeout",
    "statement_timeout",
    "cancel_idle_in_transaction",
    "transaction",
    "parse",
];

/// Reads the comments before the first statement. All that is wrong is added to `findings`.
pub(super) fn read(scan: &Scan<'_>, findings: &mut Vec<Finding>) -> Directives {
    let mut directives = Directives::default();
    let mut seen = BTreeSet::new();
    let mut off = Vec::new();
    for comment in &scan.comments {
        let Some((text, start)) = content(comment) else {
            continue;
        };
        if scan.first.is_some_and(|first| comment.at > first) {
            findings.push(Finding::new(
                comment.at,
                "this directive comes after the first statement, where it has no effect",
                "move it to the top of the file",
            ));
            continue;
        }
        if comment.kind != TokenKind::LineComment {
            findings.push(Finding::new(
                comment.at,
                "directives are not read from this kind of comment",
                "write `-- confiture: ...` on a line of its own",
            ));
            continue;
        }
        for (at, word) in words(text, start) {
            let mut refuse = |what: String, advice: String| findings.push(Finding { at, what, advice });
            let Some((key, value)) = word
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            else {
                refuse(
                    format!("`{word}` is not a directive"),
                    "write `key=value`, without white space around the `=`".to_owned(),
                );
                continue;
            };
            if KNOWN.contains(&key) && !seen.insert(key.to_owned()) {
                refuse(
                    format!("the directive `{key}` stands there twice"),
                    "keep one of them".to_owned(),
                );
                continue;
            }
            let problem = match key {
                "lock_timeout" => timeout(value, &mut directives.options.lock_timeout).or_else(|| {
                    (directives.options.lock_timeout == Some(Duration::ZERO)).then(|| {
                        "`lock_timeout=0` would never wait and never get a lock: give a time such as 30s"
                            .to_owned()
                    })
                }),
                "statement_timeout" => timeout(value, &mut directives.options.statement_timeout),
                "cancel_idle_in_transaction" => {
                    let target = &mut directives.options.cancel_idle_in_transaction;
                    timeout(value, target).or_else(|| {
                        (*target == Some(Duration::ZERO)).then(|| {
                            "it would end every session in the way: give a time such as 5min".to_owned()
                        })
                    })
                }
                "transaction" => switch(value, |on| {
                    directives.transaction = if on { Transaction::One } else { Transaction::Each };
                }),
                "parse" => switch(value, |on| {
                    directives.parse = if on { Parse::On } else { Parse::Off };
                }),
                _ => {
                    refuse(
                        format!("the directive `{key}` is not known"),
                        yaml::advice(key, &KNOWN),
                    );
                    continue;
                }
            };
            if let Some(problem) = problem {
                refuse(
                    format!("the value of `{key}` is wrong: {problem}"),
                    format!("correct `{word}`"),
                );
            } else if value == "off" {
                off.push(at);
            }
        }
    }
    if let (Transaction::Each, Parse::Off, Some(at)) = (directives.transaction, directives.parse, off.last())
    {
        findings.push(Finding::new(
            *at,
            "`transaction=off` and `parse=off` exclude each other: what is not read cannot be cut into statements",
            "remove one of them",
        ));
    }
    directives
}

/// What follows `confiture:` in a comment, and its offset in the file; `None` when it is no directive.
pub(super) fn content<'a>(comment: &Token<'a>) -> Option<(&'a str, usize)> {
    const WORD: &str = "confiture";
    let text = comment.text.get(2..)?.trim_start();
    let rest = text
        .get(..WORD.len())
        .filter(|word| word.eq_ignore_ascii_case(WORD))
        .and_then(|_| text[WORD.len()..].trim_start().strip_prefix(':'))?;
    Some((rest, comment.at + comment.text.len() - rest.len()))
}

/// The words of a text, separated by white space or commas, with their offsets.
fn words(text: &str, start: usize) -> impl Iterator<Item = (usize, &str)> {
    text.split([' ', '\t', ',', '\r', '\u{b}', '\u{c}'])
        .filter(|word| !word.is_empty())
        .map(move |word| (start + (word.as_ptr() as usize - text.as_ptr() as usize), word))
}

/// Reads a duration; what is wrong with it.
fn timeout(value: &str, target: &mut Option<Duration>) -> Option<String> {
    match duration::parse(value, Duration::from_millis(1)) {
        Ok(duration) => {
            *target = Some(duration);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Reads `on` or `off`; what is wrong with it.
fn switch(value: &str, set: impl FnOnce(bool)) -> Option<String> {
    match value {
        "on" => set(true),
        "off" => set(false),
        _ => return Some(format!("`{value}` is neither `on` nor `off`")),
    }
    None
}
