//! The way to a collector. That it does not answer is logged once, and once that it does again.

use super::Error;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::SpanData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long one message may take.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn spans(endpoint: &str) -> Result<Told<SpanExporter>, Error> {
    let built = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(TIMEOUT)
        .build();
    Told::new(endpoint, "traces", built)
}

pub(super) fn metrics(endpoint: &str) -> Result<Told<MetricExporter>, Error> {
    let built = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(TIMEOUT)
        .build();
    Told::new(endpoint, "metrics", built)
}

/// An exporter whose troubles are told.
#[derive(Debug)]
pub(super) struct Told<E> {
    exporter: E,
    endpoint: String,
    what: &'static str,
    failing: AtomicBool,
}

impl<E> Told<E> {
    fn new(
        endpoint: &str,
        what: &'static str,
        built: Result<E, opentelemetry_otlp::ExporterBuildError>,
    ) -> Result<Self, Error> {
        let exporter = built.map_err(|source| Error::Otlp {
            endpoint: endpoint.to_owned(),
            source,
        })?;
        Ok(Self {
            exporter,
            endpoint: endpoint.to_owned(),
            what,
            failing: AtomicBool::new(false),
        })
    }

    fn tell(&self, result: OTelSdkResult) -> OTelSdkResult {
        let (endpoint, what) = (&self.endpoint, self.what);
        let before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !before => {
                tracing::warn!(endpoint, what, %error, "the OTLP collector takes nothing; work goes on without");
            }
            Ok(()) if before => {
                tracing::info!(endpoint, what, "the OTLP collector takes what it is sent again");
            }
            Err(_) | Ok(()) => {}
        }
        result
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Told<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.tell(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for Told<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.tell(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
