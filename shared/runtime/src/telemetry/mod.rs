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
use opentelemetry_sdk::metrics::{
    Instrument, MeterProviderBuilder, PeriodicReader, SdkMeterProvider, Stream,
};
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
    /// The authorities that the collector is trusted by.
    #[error("`observability.otlp.ca_file` cannot be used")]
    CaFile(#[source] crate::files::Error),
    /// Others than certificates.
    #[error("`observability.otlp.ca_file`: `{}` holds no certificate\n  help: name a PEM file of the authority that signed the collector's certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
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
    let collector = otlp::Collector::of(&settings.otlp)?;
    let tracers = collector
        .as_ref()
        .map(|collector| {
            let built = SdkTracerProvider::builder()
                .with_batch_exporter(collector.spans()?)
                .with_id_generator(ids::Ids)
                .with_resource(resource.clone())
                .build();
            Ok::<_, Error>(built)
        })
        .transpose()?;
    let registry = (kept == Kept::Metrics).then(Registry::new);
    let mut meters = meters(registry.as_ref())?.with_resource(resource);
    if let Some(collector) = &collector {
        meters = meters.with_reader(PeriodicReader::builder(collector.metrics()?).build());
    }
    let meters = (registry.is_some() || collector.is_some()).then(|| meters.build());
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

/// What keeps the numbers, within bounds, for a registry where there is one.
fn meters(registry: Option<&Registry>) -> Result<MeterProviderBuilder, Error> {
    let meters = SdkMeterProvider::builder()
        .with_view(|_: &Instrument| Stream::builder().with_cardinality_limit(MOST_SERIES).build().ok());
    let Some(registry) = registry else {
        return Ok(meters);
    };
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        // Names are what GUIDE and dashboards say, whole.
        .without_units()
        .without_counter_suffixes()
        .without_target_info()
        .scope_info_enabled(false)
        .build()
        .map_err(Error::Metrics)?;
    Ok(meters.with_reader(exporter))
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

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::KeyValue;
    use opentelemetry::metrics::MeterProvider as _;

    #[test]
    fn ten_thousand_databases_are_series_within_a_bound_and_no_count_is_lost() {
        let registry = Registry::new();
        let provider = meters(Some(&registry)).unwrap().build();
        let counter = provider
            .meter(SCOPE)
            .u64_counter("confiture_ended_total")
            .with_description("By database, kind and outcome.")
            .build();
        for n in 0..10_000 {
            for kind in ["up", "down"] {
                for outcome in ["done", "failed", "stopped"] {
                    let labels = [
                        KeyValue::new("database", format!("db{n}")),
                        KeyValue::new("kind", kind),
                        KeyValue::new("outcome", outcome),
                    ];
                    counter.add(1, &labels);
                }
            }
        }
        let text = String::from_utf8(text(&registry)).unwrap();
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("confiture_ended_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        assert!(values.len() <= MOST_SERIES + 1, "{}", values.len());
        assert!(values.len() > 10_000, "{}", values.len());
        let sum: f64 = values.iter().sum();
        assert!((sum - 60_000.0).abs() < 0.5, "{sum}");
    }
}
