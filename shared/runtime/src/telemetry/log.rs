//! The log: to standard error, so that standard output stays data.
//!
//! `CONFITURE_LOG` filters it, in the syntax of `tracing_subscriber::EnvFilter` (`debug`, `info,coordinator=trace`);
//! without it everything from INFO on is shown. PostgreSQL's notices, and what its driver tells of statements and their
//! parameters, may hold values of rows: they are for those who name the driver in the filter, or ask for details of errors.

use opentelemetry_sdk::trace::SdkTracer;
use std::io::IsTerminal as _;
use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// The variable that holds the filter.
pub const VARIABLE: &str = "CONFITURE_LOG";

/// Our own words from INFO on.
const DEFAULT: &str = "info,opentelemetry=warn";

/// The driver, which tells values of rows below WARN.
const DRIVER: &str = "tokio_postgres";

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

/// Whether values of rows may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Details {
    /// They may: the user asked for details of errors.
    Shown,
    /// They must not.
    Hidden,
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
pub(super) fn init(format: Format, details: Details, spans: Option<SdkTracer>) -> Result<(), Error> {
    let given = std::env::var(VARIABLE).ok();
    let cap = cap(given.as_deref(), details);
    // Beside the filter and not in it: what a filter says of a span counts for all that is told within.
    let filter = filter(given)?.and(cap);
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

/// What no filter shows unless it names the driver.
fn cap(given: Option<&str>, details: Details) -> Targets {
    let named = given.is_some_and(|given| given.contains(DRIVER));
    let driver = match details {
        Details::Shown if given.is_some() => Level::TRACE,
        Details::Shown => Level::INFO,
        Details::Hidden if named => Level::TRACE,
        Details::Hidden => Level::WARN,
    };
    Targets::new()
        .with_default(Level::TRACE)
        .with_target(DRIVER, driver)
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
            assert!(shown.contains("info"), "{shown}");
        }
        assert_eq!(filter(Some("warn".to_owned())).unwrap().to_string(), "warn");
    }

    #[test]
    fn what_the_driver_tells_is_for_those_who_name_it() {
        let tells =
            |given, details, level| cap(given, details).would_enable("tokio_postgres::connection", &level);
        for given in [None, Some("info"), Some("trace"), Some("[order]=debug")] {
            assert!(!tells(given, Details::Hidden, Level::INFO), "{given:?}");
            assert!(tells(given, Details::Hidden, Level::WARN), "{given:?}");
            assert!(tells(given, Details::Shown, Level::INFO), "{given:?}");
            assert!(cap(given, Details::Hidden).would_enable("agent::run", &Level::TRACE));
        }
        assert!(tells(
            Some("info,tokio_postgres=debug"),
            Details::Hidden,
            Level::DEBUG
        ));
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
