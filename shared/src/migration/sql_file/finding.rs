//! What is wrong with a text, and where.

use crate::migration::Position;

/// Something wrong, at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) at: usize,
    pub(super) what: String,
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn new(at: usize, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            advice: advice.into(),
        }
    }
}

/// Positions of ascending offsets: each part of the text is counted once.
pub(super) struct Places<'a> {
    rest: &'a str,
    offset: usize,
    position: Position,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            offset: 0,
            position: Position { line: 1, column: 1 },
        }
    }

    pub(super) fn at(&mut self, offset: usize) -> Position {
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
