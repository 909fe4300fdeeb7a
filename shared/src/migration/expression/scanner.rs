//! A reading of PostgreSQL's scanner (`scan.l`) of its own, to check what was accepted: it shares no code with the
//! lexer and the parser.

/// Whether a text ends outside quotes and comments, with all brackets closed, none closed too early, and without a
/// semicolon. `standard` is the server's `standard_conforming_strings`.
pub(super) fn contained(text: &str, standard: bool) -> bool {
    let scanner = Scanner {
        c: text.chars().collect(),
        i: 0,
        standard,
    };
    scanner.run().is_some()
}

struct Scanner {
    c: Vec<char>,
    i: usize,
    standard: bool,
}

impl Scanner {
    fn at(&self, i: usize) -> char {
        self.c.get(i).copied().unwrap_or('\0')
    }

    fn ended(&self) -> bool {
        self.i >= self.c.len()
    }

    /// `None` when the text reaches beyond itself.
    fn run(mut self) -> Option<()> {
        let mut open = Vec::new();
        while !self.ended() {
            match self.at(self.i) {
                '-' if self.at(self.i + 1) == '-' => {
                    self.i = self.line_end(self.i);
                    // What follows would be swallowed.
                    (!self.ended()).then_some(())?;
                }
                '/' if self.at(self.i + 1) == '*' => self.comment()?,
                '"' => {
                    self.i += 1;
                    while self.at(self.i) != '"' {
                        (!self.ended()).then_some(())?;
                        self.i += 1;
                    }
                    self.i += 1;
                }
                '\'' => self.string()?,
                '$' if self.i == 0 || !is_word(self.at(self.i - 1)) => self.dollar()?,
                bracket @ ('(' | '[') => {
                    open.push(bracket);
                    self.i += 1;
                }
                bracket @ (')' | ']') => {
                    let opener = if bracket == ')' { '(' } else { '[' };
                    open.pop().filter(|top| *top == opener)?;
                    self.i += 1;
                }
                ';' => return None,
                _ => self.i += 1,
            }
        }
        open.is_empty().then_some(())
    }

    fn line_end(&self, from: usize) -> usize {
        (from..self.c.len())
            .find(|i| matches!(self.at(*i), '\n' | '\r'))
            .unwrap_or(self.c.len())
    }

    fn comment(&mut self) -> Option<()> {
        let mut depth = 1;
        self.i += 2;
        while depth > 0 {
            (!self.ended()).then_some(())?;
            match (self.at(self.i), self.at(self.i + 1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.i += 1;
                    continue;
                }
            }
            self.i += 2;
        }
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let before = |n: usize| self.i.checked_sub(n).map_or(' ', |i| self.at(i));
        let escapes = match before(1) {
            'e' | 'E' if !is_word(before(2)) => true,
            'b' | 'B' | 'x' | 'X' if !is_word(before(2)) => false,
            _ => !self.standard,
        };
        loop {
            self.i += 1;
            loop {
                (!self.ended()).then_some(())?;
                match self.at(self.i) {
                    '\\' if escapes => self.i += 2,
                    '\'' if self.at(self.i + 1) == '\'' => self.i += 2,
                    '\'' => break,
                    _ => self.i += 1,
                }
            }
            self.i += 1;
            match self.continued() {
                Some(next) => self.i = next,
                None => return Some(()),
            }
        }
    }

    /// Where a string goes on: after white space and line comments that hold a line feed.
    fn continued(&self) -> Option<usize> {
        let mut next = self.i;
        let mut line = false;
        loop {
            match self.at(next) {
                '\n' | '\r' => line = true,
                ' ' | '\t' | '\u{b}' | '\u{c}' => {}
                '-' if self.at(next + 1) == '-' => {
                    next = self.line_end(next);
                    continue;
                }
                '\'' if line => return Some(next),
                _ => return None,
            }
            next += 1;
        }
    }

    fn dollar(&mut self) -> Option<()> {
        let mut end = self.i + 1;
        while is_word(self.at(end)) && self.at(end) != '$' {
            end += 1;
        }
        if self.at(end) != '$' || self.at(self.i + 1).is_ascii_digit() {
            self.i += 1;
            return Some(());
        }
        let tag = self.c[self.i..=end].to_vec();
        let found = self.c[end + 1..]
            .windows(tag.len())
            .position(|part| part == tag)?;
        self.i = end + 1 + found + tag.len();
        Some(())
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[test]
fn the_scanner_itself_tells_what_reaches_beyond() {
    for text in [
        "a",
        "(a)",
        "'(' || E'\\'('",
        "$a$ ( $a$",
        "/* ( /* */ */",
        "\"(\"",
        "a -- (\n",
        "'a\\' || 'b'",
    ] {
        assert!(contained(text, true), "{text}");
    }
    for text in [
        "(a", "a)", "'", "E'\\'", "$a$", "/* /* */", "\"", "a -- (", "a;", "(]",
    ] {
        assert!(!contained(text, true), "{text}");
    }
    assert!(!contained("'a\\'", false));
    assert!(!contained("E'a'\n'\\'", true));
}
