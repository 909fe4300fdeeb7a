//! The endpoint for Prometheus and for whoever watches over the process: `/metrics`, `/healthz`, `/readyz`.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use prometheus::Registry;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The pause before a port that is taken is tried again: whoever had it may be about to end.
const AGAIN: Duration = Duration::from_secs(5);

/// Why the process cannot do its work at this moment; nothing where it can.
pub type Unready = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Serves until `stop` is cancelled. A port that cannot be had is no reason not to work: it is said once, and tried again.
///
/// # Cancel safety
/// When dropped, requests at work are cut off.
pub async fn serve(address: SocketAddr, registry: Registry, unready: Unready, stop: CancellationToken) {
    let Some(listener) = stop.run_until_cancelled(listen(address)).await else {
        return;
    };
    let metrics = move || {
        let registry = registry.clone();
        async move {
            // What is observed may take a moment to be counted: not on the thread of others.
            let text = tokio::task::spawn_blocking(move || super::text(&registry)).await;
            match text {
                Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
                Err(_panic) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    let ready = move || {
        let reasons = unready();
        async move {
            if reasons.is_empty() {
                (StatusCode::OK, "ready\n".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
            }
        }
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready));
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%address, %error, "the metrics endpoint failed");
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "serving /metrics, /healthz and /readyz");
                return listener;
            }
            Err(error) if !told => {
                tracing::warn!(%address, %error, "cannot serve metrics there, trying again; {}", advice(error.kind()));
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What to do about an address that cannot be had.
fn advice(why: ErrorKind) -> &'static str {
    match why {
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: set `observability.prometheus.address` to one that it has, to 127.0.0.1 for itself alone, or to 0.0.0.0 for all"
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 take a right that this process has not: choose another with `observability.prometheus.port`"
        }
        _ => "choose another with `observability.prometheus.port`",
    }
}
