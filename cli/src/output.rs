//! Standard output is data, standard error is everything else. The only place that writes to either.

use clap::ValueEnum;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON document, or one a line for what goes on over time.
    Json,
}

/// Prints data. A reader that went away (`| head`) is no error.
pub(crate) fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
}

/// Prints a JSON document as data.
pub(crate) fn json(value: &serde_json::Value) {
    data(&value.to_string());
}

/// Says something that is no data. What a user wrote is repeated in messages, and may be a URL in the wrong place.
pub(crate) fn note(text: &str) {
    let mut out = std::io::stderr().lock();
    let _gone = writeln!(out, "{}", shared::settings::masked(text));
}

/// What the reader of the command line says: help on standard output, mistakes on standard error.
pub(crate) fn told(told: &clap::Error) -> ExitCode {
    if told.use_stderr() {
        let colour = std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let text = told.render();
        let text = if colour {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        error(text.trim_end());
    } else {
        // A reader that went away is no error.
        let _gone = told.print();
    }
    ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
}

/// Says why a command fails.
pub(crate) fn error(text: &str) {
    note(text);
}

/// Columns of text under a head, as wide as they need to be. The last column is not padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(std::iter::once(head[column].chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let padded: Vec<String> = (cells.iter().zip(&widths).enumerate())
            .map(|(i, (cell, width))| {
                if i + 1 == cells.len() {
                    (*cell).to_owned()
                } else {
                    format!("{cell:width$}")
                }
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let rows = rows
        .iter()
        .map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    std::iter::once(line(head))
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["1".to_owned(), "längst".to_owned(), "x".to_owned()],
            vec!["22".to_owned(), String::new(), String::new()],
        ];
        assert_eq!(table(&["A", "B", "C"], &rows), "A   B       C\n1   längst  x\n22");
    }
}
