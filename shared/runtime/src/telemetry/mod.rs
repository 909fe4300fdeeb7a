//! What a process tells about itself: its log, metrics and traces.
//!
//! ```text
//!   tracing ──┬──> log ──────────────> standard error
//!             └──> traces ─┐
//!   instruments ──┬────────┴─ OTLP ──> a collector            observability.otlp.endpoint
//!                 └── registry ──────> /metrics (see `http`)  observability.prometheus
//!                            └───────> a text file            for commands that end
//! ```
//! Where nothing is asked for, instruments and spans cost next to nothing. Nothing here ever fails the work: a collector
//! that does not answer is said once in the log.

pub mod http;
mod ids;
mod instrument;
mod log;
mod otlp;
pub mod span;

pub use instrument::{Kind, Metric};
pub use log::{Details, Error as LogError, Format, VARIABLE};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Encoder as _, Registry, TextEncoder};
use shared::settings::Observability;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the instrumentation in what is exported.
const SCOPE: &str = "confiture";

/// Series of one instrument at most; the rest is summed up under one more. A process that serves a thousand databases has
/// some six thousand of the largest.
const MOST_SERIES: usize = 20_000;

/// How long the last spans and metrics may take on their way when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why telemetry could not be set up, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The exporter for Prometheus.
    #[error("cannot set up the metrics")]
    Metrics(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// The address of the collector.
    #[error("`observability.otlp.endpoint` ({endpoint}) cannot be used")]
    Otlp {
        /// As given.
        endpoint: String,
        /// Why not.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// A file of metrics.
    #[error("cannot write the metrics to `{}`: {source}\n  help: give --metrics-file a file in a folder that is there and that you may write to", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Who tells.
#[derive(Debug, Clone)]
pub struct Process<'a> {
    /// `confiture-agent`, `confiture-coordinator`, `confiture`.
    pub service: &'static str,
    /// Which of them.
    pub instance: &'a str,
}

/// Whether metrics are kept to be read here: at the endpoint or for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// They are.
    Metrics,
    /// Nobody would read them.
    Nothing,
}

/// The telemetry of this process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Option<Registry>,
    meters: Option<SdkMeterProvider>,
    tracers: Option<SdkTracerProvider>,
}

/// Sets up the log alone: for commands that look and end.
///
/// # Errors
/// When the filter in the environment cannot be parsed, or a log is already set up.
pub fn log(format: Format) -> Result<(), Error> {
    Ok(log::init(format, Details::Hidden, None)?)
}

/// Sets up log, metrics and traces of this process. Call it once, before any instrument is used.
///
/// # Errors
/// When the filter in the environment or the collector's address is not usable.
///
/// # Panics
/// When called outside a tokio runtime.
pub fn start(
    format: Format,
    settings: &Observability,
    kept: Kept,
    process: &Process<'_>,
) -> Result<Telemetry, Error> {
    let resource = Resource::builder()
        .with_service_name(process.service)
        .with_attributes([
            opentelemetry::KeyValue::new("service.instance.id", process.instance.to_owned()),
            opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build();
    let endpoint = settings.otlp.endpoint.as_deref();
    let tracers = endpoint
        .map(|endpoint| {
            let built = SdkTracerProvider::builder()
                .with_batch_exporter(otlp::spans(endpoint)?)
                .with_id_generator(ids::Ids)
                .with_resource(resource.clone())
                .build();
            Ok::<_, Error>(built)
        })
        .transpose()?;
    let registry = (kept == Kept::Metrics).then(Registry::new);
    let mut meters = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_view(|_: &Instrument| Stream::builder().with_cardinality_limit(MOST_SERIES).build().ok());
    if let Some(registry) = &registry {
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // Names are what GUIDE and dashboards say, whole.
            .without_units()
            .without_counter_suffixes()
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .map_err(Error::Metrics)?;
        meters = meters.with_reader(exporter);
    }
    if let Some(endpoint) = endpoint {
        meters = meters.with_reader(PeriodicReader::builder(otlp::metrics(endpoint)?).build());
    }
    let meters = (registry.is_some() || endpoint.is_some()).then(|| meters.build());
    if let Some(meters) = &meters {
        opentelemetry::global::set_meter_provider(meters.clone());
    }
    let details = if settings.error_details {
        Details::Shown
    } else {
        Details::Hidden
    };
    log::init(
        format,
        details,
        tracers.as_ref().map(|tracers| tracers.tracer(SCOPE)),
    )?;
    if let Some(tracers) = &tracers {
        opentelemetry::global::set_tracer_provider(tracers.clone());
        span::begin();
    }
    Ok(Telemetry {
        registry,
        meters,
        tracers,
    })
}

/// Of which all instruments of this process are made.
pub fn meter() -> opentelemetry::metrics::Meter {
    opentelemetry::global::meter(SCOPE)
}

impl Telemetry {
    /// The metrics as Prometheus reads them; empty where they are not kept.
    pub fn text(&self) -> Vec<u8> {
        self.registry.as_ref().map(text).unwrap_or_default()
    }

    /// The metrics, for the endpoint.
    pub fn registry(&self) -> Option<Registry> {
        self.registry.clone()
    }

    /// Writes the metrics to a file that the node exporter's textfile collector reads: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File {
            path: path.to_owned(),
            source,
        };
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = std::fs::File::create(&beside)
            .and_then(|mut file| file.write_all(&self.text()))
            .and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|error| {
            // It may not be there; what counts is why.
            let _ = std::fs::remove_file(&beside);
            failed(error)
        })
    }

    /// Sends what is left on its way, for a few seconds at most.
    pub async fn end(self) {
        let (meters, tracers) = (self.meters, self.tracers);
        // They wait for threads of their own, which need this runtime for their connections. Side by side, and on threads
        // that the end of the process does not wait for: not all that is underway keeps to the time it is given.
        let (told, ended) = tokio::sync::oneshot::channel();
        let end = move || {
            let spans = std::thread::spawn(move || {
                tracers.map_or(Ok(()), |tracers| tracers.shutdown_with_timeout(FAREWELL))
            });
            let metrics = meters.map_or(Ok(()), |meters| meters.shutdown_with_timeout(FAREWELL));
            // Nobody listens any more where it took too long.
            let _ = told.send([spans.join().unwrap_or(Ok(())), metrics]);
        };
        std::thread::spawn(end);
        match tokio::time::timeout(FAREWELL, ended).await {
            Ok(Ok(ends)) => {
                for problem in ends.into_iter().filter_map(Result::err) {
                    tracing::debug!(%problem, "the last telemetry may be lost");
                }
            }
            Ok(Err(_)) | Err(_) => {
                tracing::debug!("the last telemetry may be lost: the collector does not answer");
            }
        }
    }
}

fn text(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::error!(%error, "the metrics cannot be written down");
    }
    text
}
