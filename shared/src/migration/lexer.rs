//! SQL as tokens, and what can be said wrong of a text before it is parsed.
//!
//! The tokens are squawk's, which follow PostgreSQL's `scan.l`. Two differences are made good here: operators of several
//! characters are one token ([`split_operators`]), and texts that the two would cut differently are refused
//! ([`Flaw::Ambiguous`]).

use squawk_lexer::{LiteralKind, TokenKind, tokenize};
use std::fmt;

/// A token and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: TokenKind,
    /// As written.
    pub(crate) text: &'a str,
    /// Offset in bytes.
    pub(super) at: usize,
}

impl<'a> Token<'a> {
    /// White space or a comment.
    pub(crate) fn is_trivia(&self) -> bool {
        matches!(
            self.kind,
            TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment { .. }
        )
    }

    /// Whether it is this keyword (or an unquoted name spelled like it).
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Ident && self.text.eq_ignore_ascii_case(word)
    }

    /// The text between its quotes, as written; `None` when it is no string.
    pub(super) fn string_content(&self) -> Option<&'a str> {
        match self.kind {
            TokenKind::Literal {
                kind: LiteralKind::Str { .. } | LiteralKind::EscStr { .. },
            } => {
                let opening = self.text.find('\'')? + 1;
                self.text.get(opening..self.text.len() - 1)
            }
            TokenKind::Literal {
                kind: LiteralKind::DollarQuotedString { .. },
            } => {
                let tag = self.text[1..].find('$')? + 2;
                self.text.get(tag..self.text.len().checked_sub(tag)?)
            }
            _ => None,
        }
    }
}

/// The tokens of a text, trivia included, without gaps.
pub(crate) fn lex(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    tokenize(text).map(move |token| {
        let start = at;
        at += token.len as usize;
        Token {
            kind: token.kind,
            text: &text[start..at],
            at: start,
        }
    })
}

/// Whether PostgreSQL builds operators of this character.
fn is_operator(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::Plus
            | TokenKind::Minus
            | TokenKind::Star
            | TokenKind::Slash
            | TokenKind::Lt
            | TokenKind::Gt
            | TokenKind::Eq
            | TokenKind::Tilde
            | TokenKind::Bang
            | TokenKind::At
            | TokenKind::Pound
            | TokenKind::Percent
            | TokenKind::Caret
            | TokenKind::And
            | TokenKind::Or
            | TokenKind::Backtick
            | TokenKind::Question
    )
}

/// Whether a token may be part of a symbol of several characters.
pub(super) fn is_symbol(kind: TokenKind) -> bool {
    is_operator(kind) || kind == TokenKind::Colon
}

/// Cuts a run of symbols that touch each other as PostgreSQL does: `::` and `:=` first, otherwise the longest operator,
/// which ends in `+` or `-` only if it holds one of `~!@#%^&|?` and the back quote (so that `=-1` is `=` and `-`).
pub(super) fn split_operators(mut run: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let length = if run.starts_with("::") || run.starts_with(":=") {
            2
        } else if run.starts_with(':') {
            1
        } else {
            operator_length(&run[..run.find(':').unwrap_or(run.len())])
        };
        let (first, rest) = run.split_at(length);
        run = rest;
        (!first.is_empty()).then_some(first)
    })
}

fn operator_length(run: &str) -> usize {
    let keeps_sign = |operator: &str| operator.contains(['~', '!', '@', '#', '%', '^', '&', '|', '?', '`']);
    let mut operator = run;
    while operator.len() > 1 && operator.ends_with(['+', '-']) && !keeps_sign(&operator[..operator.len() - 1])
    {
        operator = &operator[..operator.len() - 1];
    }
    operator.len()
}

/// Something wrong with a text that its tokens show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A NUL byte: PostgreSQL's protocol ends a text there.
    Nul,
    /// A quote, dollar quote or comment that is never closed; what it is called.
    Unclosed(&'static str),
    /// A backslash outside quotes: a command for psql.
    Backslash,
    /// A string with a backslash before a quote, whose end depends on a setting of the server, or on the string that
    /// it continues.
    Ambiguous,
    /// Nested deeper than the parser's stack allows.
    Deep,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul => f.write_str("there is a NUL byte, where PostgreSQL would stop reading"),
            Self::Unclosed(what) => write!(f, "this {what} is never closed"),
            Self::Backslash => f.write_str("a backslash outside quotes is a command for psql, not SQL"),
            Self::Ambiguous => f.write_str(
                "where this string ends depends on a setting of the server, because a backslash stands before a quote",
            ),
            Self::Deep => f.write_str("this is nested too deeply to be read"),
        }
    }
}

/// What the tokens of a text show.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    /// Flaws, each with its offset, in ascending order.
    pub(super) flaws: Vec<(usize, Flaw)>,
    /// The comments, in order.
    pub(super) comments: Vec<Token<'a>>,
    /// Offset of the first token that is no trivia; `None` when there is none.
    pub(super) first: Option<usize>,
    /// Whether `set_config` occurs as a name.
    pub(super) names_set_config: bool,
}

/// Reads a text once.
pub(super) fn scan(text: &str) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut nesting = Nesting::default();
    let mut previous: Option<Token<'_>> = None;
    // Whether the strings that touch the current place began as E'..': PostgreSQL reads all of them by its rules.
    let mut escapes = false;
    if let Some(at) = text.find('\0') {
        scan.flaws.push((at, Flaw::Nul));
    }
    for token in lex(text) {
        if let Some(flaw) = unclosed(token.kind) {
            scan.flaws.push((token.at, flaw));
        }
        if token.is_trivia() {
            if token.kind != TokenKind::Whitespace {
                scan.comments.push(token);
            }
            continue;
        }
        scan.first.get_or_insert(token.at);
        match token.kind {
            TokenKind::Unknown if token.text == "\\" => scan.flaws.push((token.at, Flaw::Backslash)),
            TokenKind::Literal {
                kind: LiteralKind::Str { .. },
            } if escapes && escapes_quote(token.text) => scan.flaws.push((token.at, Flaw::Ambiguous)),
            TokenKind::Ident | TokenKind::QuotedIdent { .. }
                if token.text.trim_matches('"').eq_ignore_ascii_case("set_config") =>
            {
                scan.names_set_config = true;
            }
            _ => {}
        }
        escapes = match token.kind {
            TokenKind::Literal {
                kind: LiteralKind::EscStr { .. },
            } => true,
            TokenKind::Literal {
                kind: LiteralKind::Str { .. },
            } => escapes,
            _ => false,
        };
        if nesting.add(&token) {
            scan.flaws.push((token.at, Flaw::Deep));
        }
        // The parser also reads the body of a function in SQL.
        if previous.is_some_and(|previous| previous.is_word("as"))
            && let Some(body) = token.string_content()
        {
            let mut inner = Nesting::default();
            if lex(body).any(|token| !token.is_trivia() && inner.add(&token)) {
                scan.flaws.push((token.at, Flaw::Deep));
            }
        }
        previous = Some(token);
    }
    scan.flaws.sort_by_key(|(at, _)| *at);
    scan
}

fn unclosed(kind: TokenKind) -> Option<Flaw> {
    match kind {
        TokenKind::BlockComment { terminated: false } => Some(Flaw::Unclosed("comment")),
        TokenKind::QuotedIdent {
            terminated: false, ..
        } => Some(Flaw::Unclosed("double quote")),
        TokenKind::Literal {
            kind: LiteralKind::DollarQuotedString { terminated: false },
        } => Some(Flaw::Unclosed("dollar quote")),
        TokenKind::Literal {
            kind:
                LiteralKind::Str { terminated: false }
                | LiteralKind::EscStr { terminated: false }
                | LiteralKind::NationalStr { terminated: false }
                | LiteralKind::ByteStr { terminated: false }
                | LiteralKind::BitStr { terminated: false }
                | LiteralKind::UnicodeEscStr { terminated: false },
        } => Some(Flaw::Unclosed("quote")),
        _ => None,
    }
}

/// Whether a string would end elsewhere if a backslash in it escaped the next character.
pub(super) fn escapes_quote(string: &str) -> bool {
    let mut escaped = false;
    for c in string.chars() {
        if escaped && c == '\'' {
            return true;
        }
        escaped = c == '\\' && !escaped;
    }
    false
}

/// How deep the parser may have to descend, estimated from above.
///
/// Its stack grows with brackets and CASE, and with chains of operators. Within one bracket, commas and the like end a
/// chain, set operations do not. *Measured* with 2 MiB of stack, in these units: 5,000 to 20,000 were no problem.
#[derive(Debug, Default)]
struct Nesting {
    open: Vec<Level>,
    outer: Level,
    total: u32,
    reported: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    closer: Closer,
    /// Units of the current chain.
    chain: u32,
    /// Units that last: of the bracket itself, and of the set operations so far.
    lasting: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Closer {
    #[default]
    None,
    Paren,
    Bracket,
    End,
}

impl Nesting {
    /// With room for what the caller has on the stack already.
    const MOST: u32 = 3_000;
    /// Units of one bracket.
    const BRACKET: u32 = 8;

    /// Adds a token; whether the limit is crossed now, for the first time.
    fn add(&mut self, token: &Token<'_>) -> bool {
        let opened = match token.kind {
            TokenKind::OpenParen => Closer::Paren,
            TokenKind::OpenBracket => Closer::Bracket,
            TokenKind::Ident if token.is_word("case") => Closer::End,
            _ => Closer::None,
        };
        if opened != Closer::None {
            self.grow(1);
            self.open.push(Level {
                closer: opened,
                chain: 0,
                lasting: Self::BRACKET,
            });
            self.total += Self::BRACKET;
            return self.crossed();
        }
        let level = self.open.last().map_or(Closer::None, |level| level.closer);
        let closes = match token.kind {
            TokenKind::CloseParen => level == Closer::Paren,
            TokenKind::CloseBracket => level == Closer::Bracket,
            TokenKind::Ident => level == Closer::End && token.is_word("end"),
            _ => false,
        };
        let in_case = level == Closer::End;
        match token.kind {
            _ if closes => {
                if let Some(level) = self.open.pop() {
                    self.total -= level.chain + level.lasting;
                }
            }
            // At the top a statement ends here, and all that was left open with it.
            TokenKind::Semi if self.open.iter().all(|level| level.closer == Closer::End) => {
                let reported = self.reported;
                *self = Self {
                    reported,
                    ..Self::default()
                };
            }
            TokenKind::Semi | TokenKind::Comma => self.end_chain(),
            TokenKind::Ident if in_case && ["when", "then", "else"].iter().any(|w| token.is_word(w)) => {
                self.end_chain();
            }
            TokenKind::Ident if ["union", "intersect", "except"].iter().any(|w| token.is_word(w)) => {
                let level = self.open.last_mut().unwrap_or(&mut self.outer);
                level.lasting += 1;
                self.total += 1;
                // What each branch holds is nested in none of the others.
                self.end_chain();
            }
            _ => self.grow(1),
        }
        self.crossed()
    }

    fn crossed(&mut self) -> bool {
        let crossed = self.total > Self::MOST && !self.reported;
        self.reported |= crossed;
        crossed
    }

    fn grow(&mut self, units: u32) {
        self.open.last_mut().unwrap_or(&mut self.outer).chain += units;
        self.total += units;
    }

    fn end_chain(&mut self) {
        let level = self.open.last_mut().unwrap_or(&mut self.outer);
        self.total -= level.chain;
        level.chain = 0;
    }
}
