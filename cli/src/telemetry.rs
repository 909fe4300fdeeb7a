//! What a command tells about itself besides its output: log, metrics, traces.

use crate::context::{self, Global};
use crate::failure::Failure;
use runtime::telemetry::http::{self, Unready};
use runtime::telemetry::{self, Kept, Process, Telemetry, span};
use shared::settings::{Observability, Settings};
use shared::trace::Place;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// How log lines are written (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for telemetry::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// The log alone: for commands that look.
pub(crate) fn log(global: &Global) -> Result<(), Failure> {
    Ok(telemetry::log(global.log_format().into())?)
}

/// Log, metrics and traces of a process that serves.
pub(crate) fn of_server(
    global: &Global,
    settings: &Settings,
    service: &'static str,
    instance: &str,
) -> Result<Telemetry, Failure> {
    let kept = if settings.observability.prometheus.enabled {
        Kept::Metrics
    } else {
        Kept::Nothing
    };
    start(global, settings, kept, &Process { service, instance })
}

/// Log, metrics and traces of a command that works and ends. Its metrics go to `file` where one is named: one that cannot
/// be written is refused before anything is done.
pub(crate) fn of_command(
    global: &Global,
    settings: &Settings,
    file: Option<PathBuf>,
) -> Result<OfCommand, Failure> {
    let kept = if file.is_some() {
        Kept::Metrics
    } else {
        Kept::Nothing
    };
    let process = Process {
        service: "confiture",
        instance: &context::host(),
    };
    let telemetry = start(global, settings, kept, &process)?;
    agent::metrics::build("cli");
    if let Some(file) = &file {
        telemetry.write(file)?;
    }
    Ok(OfCommand { telemetry, file })
}

/// Where CI and other tools that run us say under which span of theirs they do.
const CALLER: &str = "TRACEPARENT";

/// Hangs a command's span under its caller's, where there is one.
pub(crate) fn of_caller(span: &Span) {
    if let Some(place) = context::variable(CALLER).and_then(|text| text.parse().ok()) {
        span::hang(span, place);
    }
}

/// A request that tells under which span it is made: ours, or else our caller's.
pub(crate) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let caller = || context::variable(CALLER).and_then(|text| text.parse::<Place>().ok());
    if let Some(place) = span::here().or_else(caller)
        && let Ok(value) = place.to_string().parse()
    {
        request.metadata_mut().insert("traceparent", value);
    }
    request
}

fn start(
    global: &Global,
    settings: &Settings,
    kept: Kept,
    process: &Process<'_>,
) -> Result<Telemetry, Failure> {
    if settings.observability.error_details {
        agent::error::repeat_details();
    }
    let format = global.log_format().into();
    Ok(telemetry::start(format, &settings.observability, kept, process)?)
}

/// What a command tells, until it ends.
pub(crate) struct OfCommand {
    telemetry: Telemetry,
    file: Option<PathBuf>,
}

impl OfCommand {
    /// Writes and sends what is left.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        let written = match &self.file {
            Some(file) => self.telemetry.write(file),
            None => Ok(()),
        };
        self.telemetry.end().await;
        Ok(written?)
    }
}

/// Serves the metrics, where they are, beside `work`.
pub(crate) async fn served_beside<T>(
    telemetry: &Telemetry,
    settings: &Observability,
    unready: Unready,
    work: impl Future<Output = T>,
) -> T {
    let Some(registry) = telemetry.registry() else {
        return work.await;
    };
    let address = SocketAddr::new(settings.prometheus.address, settings.prometheus.port);
    let stop = CancellationToken::new();
    let endpoint = async {
        http::serve(address, registry, unready, stop.clone()).await;
        // It failed, which it said; the work is worth more.
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        done = work => done,
        never = endpoint => match never {},
    }
}
