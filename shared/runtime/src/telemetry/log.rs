//! The log: to standard error, so that standard output stays data.
//!
//! `CONFITURE_LOG` filters it, in the syntax of `tracing_subscriber::EnvFilter` (`debug`, `info,coordinator=trace`);
//! without it everything from INFO on is shown, but for PostgreSQL's notices.

use opentelemetry_sdk::trace::SdkTracer;
use std::io::IsTerminal as _;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// The variable that holds the filter.
pub const VARIABLE: &str = "CONFITURE_LOG";

/// Our own words from INFO on; PostgreSQL's notices are for those who ask for them.
const DEFAULT: &str = "info,tokio_postgres=warn,opentelemetry=warn";

/// Whose spans make traces: ours, and nobody's below.
const TRACED: [&str; 4] = ["agent", "coordinator", "confiture", "runtime"];

/// How each line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people. Coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable holds no filter.
    #[error(
        "{VARIABLE}=`{given}` is not a log filter: write a level (error, warn, info, debug, trace) or `module=level,...`"
    )]
    Filter {
        /// What it holds.
        given: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something in this process set up a log before.
    #[error("the log is already set up")]
    Again(#[source] TryInitError),
}

/// Sets up the log of this process, and beside it the traces where there is somebody to take them.
pub(super) fn init(format: Format, spans: Option<SdkTracer>) -> Result<(), Error> {
    let filter = filter(std::env::var(VARIABLE).ok())?;
    let lines = fmt::layer().with_writer(|| Masked(std::io::stderr()));
    let lines = match format {
        Format::Text => {
            let colour = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.with_ansi(colour).boxed()
        }
        Format::Json => lines.json().boxed(),
    };
    let traces = spans.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_filter(Targets::new().with_targets(TRACED.map(|of| (of, Level::INFO))))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces)
        .try_init()
        .map_err(Error::Again)
}

/// Covers passwords in what is written: the text of an error may repeat what a user wrote.
struct Masked(std::io::Stderr);

impl std::io::Write for Masked {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // A line is written whole.
        let text = String::from_utf8_lossy(line);
        self.0.write_all(shared::settings::masked(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The filter that a user gave, or the default.
fn filter(given: Option<String>) -> Result<EnvFilter, Error> {
    match given.filter(|text| !text.trim().is_empty()) {
        None => Ok(EnvFilter::new(DEFAULT)),
        Some(given) => EnvFilter::try_new(&given).map_err(|source| Error::Filter { given, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_filter_our_words_from_info_on_are_shown() {
        for given in [None, Some("  ".to_owned())] {
            let shown = filter(given).unwrap().to_string();
            assert!(
                shown.contains("info") && shown.contains("tokio_postgres=warn"),
                "{shown}"
            );
        }
        assert_eq!(filter(Some("warn".to_owned())).unwrap().to_string(), "warn");
    }

    #[test]
    fn a_bad_filter_is_refused_with_the_variable_named() {
        let error = filter(Some("coordinator=loud".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("CONFITURE_LOG=`coordinator=loud` is not a log filter"),
            "{error}"
        );
    }
}
