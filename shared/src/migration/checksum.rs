//! Checksums of what a migration means: comments, white space and the order of keys in YAML do not count.
//!
//! SQL counts by its tokens ([`tokens`]), a step by its kind and its canonical text ([`step`]), a script by its options
//! and the checksums of its steps ([`script`]). How a `sql` step is executed is not part of it: that follows from
//! tokens and directives, and a later version of Confiture may know better without changing what was applied.

use super::lexer::{Token, is_symbol, lex, split_operators};
use super::{Options, Step};
use crate::id::Digest;
use squawk_lexer::TokenKind;
use std::fmt::{Display, Write as _};
use std::time::Duration;

/// How checksums are made; recorded beside each. It grows when the same text would get another checksum.
pub const SCHEME: i32 = 1;

/// The tokens of a SQL text, one space between them: names and keywords without quotes in lower case, everything else
/// as written, comments and white space left out.
///
/// Two texts have the same tokens exactly when these are equal: read again, the result has the same tokens.
pub fn tokens(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    // Symbols that touch each other may be one operator; white space and comments between them keep them apart.
    let mut run = 0..0;
    for token in lex(sql) {
        if is_symbol(token.kind) {
            if run.is_empty() {
                run = token.at..token.at;
            }
            run.end = token.at + token.text.len();
            continue;
        }
        split_operators(&sql[run.clone()]).for_each(|operator| push(&mut out, operator));
        run = 0..0;
        match token {
            token if token.is_trivia() => {}
            Token {
                kind: TokenKind::Ident,
                text,
                ..
            } => {
                push(&mut out, text);
                let start = out.len() - text.len();
                // Only ASCII folds: what PostgreSQL does in UTF-8.
                out[start..].make_ascii_lowercase();
            }
            Token { text, .. } => push(&mut out, text),
        }
    }
    split_operators(&sql[run]).for_each(|operator| push(&mut out, operator));
    out
}

fn push(out: &mut String, token: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(token);
}

/// The canonical text of a step or of options: named fields in a fixed order, each with its length, so that no value
/// can be taken for another field.
#[derive(Debug, Default)]
pub struct Canonical(String);

impl Canonical {
    /// Without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        let value = value.to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name} {}:{value}", value.len());
        self
    }

    /// With a field where there is a value; without it, nothing.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// The checksum of one step.
pub fn step(kind: &str, canonical: &str) -> Digest {
    digest(
        Canonical::new()
            .field("step", kind)
            .field("is", canonical)
            .finish()
            .as_str(),
    )
}

/// The checksum of the steps of one direction with what they override.
pub fn script(options: &Options, steps: &[Step]) -> Digest {
    let nanoseconds = |duration: Duration| duration.as_nanos();
    let canonical = Canonical::new()
        .optional("lock_timeout", options.lock_timeout.map(nanoseconds))
        .optional("statement_timeout", options.statement_timeout.map(nanoseconds));
    let canonical = steps.iter().fold(canonical, |canonical, step| {
        canonical.field("step", step.checksum)
    });
    digest(&canonical.finish())
}

fn digest(canonical: &str) -> Digest {
    Digest::of(format!("confiture checksum {SCHEME}\n{canonical}").as_bytes())
}
