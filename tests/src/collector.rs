//! A stand-in for a collector: takes spans over OTLP and keeps them.

use crate::port::Port;
use crate::tls::Certificate;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinHandle;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// A collector; ends when dropped.
#[derive(Debug)]
pub struct Collector {
    url: String,
    _port: Port,
    taken: Arc<Taken>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// A span as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Who told it: `service.name`.
    pub service: String,
    /// What it was.
    pub name: String,
    /// The trace's id, in hexadecimal.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The span it hangs under; empty for the first of a trace.
    pub parent: String,
    /// What is known of it, as text.
    pub about: BTreeMap<String, String>,
    /// Everything of it as text: attributes, events, status.
    pub whole: String,
}

#[derive(Debug, Default)]
struct Taken {
    spans: Mutex<Vec<Span>>,
    metrics: Mutex<BTreeSet<String>>,
}

impl Collector {
    /// Starts one.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(None)
    }

    /// Starts one that speaks TLS with this certificate alone.
    pub fn start_with_tls(certificate: &Certificate) -> anyhow::Result<Self> {
        let identity = Identity::from_pem(certificate.chain(), certificate.key());
        Self::start_with(Some(ServerTlsConfig::new().identity(identity)))
    }

    fn start_with(tls: Option<ServerTlsConfig>) -> anyhow::Result<Self> {
        let port = Port::claim()?;
        let taken = Arc::<Taken>::default();
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut builder = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            builder = builder.tls_config(tls)?;
        }
        let server = builder
            .add_service(TraceServiceServer::from_arc(taken.clone()))
            .add_service(MetricsServiceServer::from_arc(taken.clone()))
            .serve(address);
        Ok(Self {
            url: format!("{scheme}://127.0.0.1:{}", port.number()),
            _port: port,
            taken,
            server: tokio::spawn(server),
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// All spans so far, in the order they came.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.taken.spans).clone()
    }

    /// The names of all metrics so far.
    pub fn metrics(&self) -> BTreeSet<String> {
        lock(&self.taken.metrics).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let service = texts(&resource.attributes)
                .remove("service.name")
                .unwrap_or_default();
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            lock(&self.spans).extend(spans.map(|span| Span {
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                about: texts(&span.attributes),
                whole: format!("{span:?}"),
                name: span.name,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taken {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let of_scopes = request
            .into_inner()
            .resource_metrics
            .into_iter()
            .flat_map(|of| of.scope_metrics);
        let names = of_scopes
            .flat_map(|scope| scope.metrics)
            .map(|metric| metric.name);
        lock(&self.metrics).extend(names);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|attribute| {
            let value = match &attribute.value {
                Some(AnyValue {
                    value: Some(Value::StringValue(text)),
                }) => text.clone(),
                Some(AnyValue {
                    value: Some(Value::IntValue(number)),
                }) => number.to_string(),
                Some(AnyValue {
                    value: Some(Value::DoubleValue(number)),
                }) => number.to_string(),
                other => format!("{other:?}"),
            };
            (attribute.key.clone(), value)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
