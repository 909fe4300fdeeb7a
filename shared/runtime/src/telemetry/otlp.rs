//! The way to a collector. That it does not answer is logged once, and once that it does again.

use super::Error;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::SpanData;
use shared::settings::Otlp;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long one message may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A collector, and how it is reached.
pub(super) struct Collector {
    endpoint: String,
    tls: Option<ClientTlsConfig>,
}

impl Collector {
    /// That of the settings, where there is one.
    pub(super) fn of(settings: &Otlp) -> Result<Option<Self>, Error> {
        let Some(endpoint) = settings.endpoint.clone() else {
            return Ok(None);
        };
        let tls = if endpoint.starts_with("https://") {
            Some(match &settings.ca_file {
                Some(file) => ClientTlsConfig::new().ca_certificate(authorities(file)?),
                None => ClientTlsConfig::new().with_native_roots(),
            })
        } else {
            None
        };
        Ok(Some(Self { endpoint, tls }))
    }

    pub(super) fn spans(&self) -> Result<Told<SpanExporter>, Error> {
        let builder = SpanExporter::builder().with_tonic();
        let built = self.reached(builder).build();
        Told::new(&self.endpoint, "traces", built)
    }

    pub(super) fn metrics(&self) -> Result<Told<MetricExporter>, Error> {
        let builder = MetricExporter::builder().with_tonic();
        let built = self.reached(builder).build();
        Told::new(&self.endpoint, "metrics", built)
    }

    fn reached<B: WithExportConfig + WithTonicConfig>(&self, builder: B) -> B {
        let builder = builder.with_endpoint(&self.endpoint).with_timeout(TIMEOUT);
        match &self.tls {
            Some(tls) => builder.with_tls_config(tls.clone()),
            None => builder,
        }
    }
}

/// The certificates of a file. One without any would trust nobody, and say so at each message only.
fn authorities(file: &Path) -> Result<Certificate, Error> {
    let pem = crate::files::read(file).map_err(Error::CaFile)?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|text| text == begin) {
        return Err(Error::NoCertificate {
            path: file.to_owned(),
        });
    }
    Ok(Certificate::from_pem(pem))
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
