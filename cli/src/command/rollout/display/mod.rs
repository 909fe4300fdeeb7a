//! How a watcher shows what it hears: live bars on a terminal, a line for each change elsewhere, JSON lines for
//! machines.

mod bars;
mod lines;

use super::board::{Board, Change};
use super::{text, view};
use crate::output::{self, Format};
use bars::Bars;
use lines::Lines;
use std::io::IsTerminal as _;

/// One of the ways.
pub(super) enum Display {
    /// On standard error, beside which standard output stays free for the summary.
    Bars(Box<Bars>),
    Lines(Lines),
    Json,
}

impl Display {
    pub(super) fn new(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            // Where one of the two goes into a file, bars would be mixed with lines, or be lost.
            Format::Text if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() => {
                Self::Bars(Box::default())
            }
            Format::Text => Self::Lines(Lines::default()),
        }
    }

    /// Shows what changed.
    pub(super) fn show(&mut self, board: &Board, changes: &[Change]) {
        match self {
            Self::Bars(bars) => bars.show(board, changes),
            Self::Lines(lines) => lines.show(board, changes),
            Self::Json => {
                let databases = changes.iter().map(|change| &change.after);
                output::json(&view::with_databases(&board.rollout, databases));
            }
        }
    }

    /// Says something that is no data.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.note(text),
            Self::Lines(_) | Self::Json => output::note(text),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        match self {
            Self::Bars(bars) => bars.tick(),
            Self::Lines(_) | Self::Json => {}
        }
    }

    /// Nothing more will be shown.
    pub(super) fn end(&mut self) {
        match self {
            Self::Bars(bars) => bars.end(),
            Self::Lines(_) | Self::Json => {}
        }
    }

    /// The last word; in JSON the last line has said it.
    pub(super) fn summary(&self, board: &Board) {
        match self {
            Self::Bars(_) | Self::Lines(_) => {
                let mut done = shared::rollout::work::Summary::default();
                for of in board.assignments.values() {
                    done.migrations += of.summary.migrations;
                    done.steps += of.summary.steps;
                    done.rows += of.summary.rows;
                    done.cost += of.summary.cost;
                }
                let standing = text::standing(&board.rollout);
                // Where not all is done, "nothing to do" would not be true.
                output::data(
                    &if done.steps == 0 && board.rollout.state != shared::rollout::view::State::Done {
                        standing
                    } else {
                        format!("{standing}; {}", text::summary(&done))
                    },
                );
            }
            Self::Json => {}
        }
    }
}
