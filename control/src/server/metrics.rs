use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics::{Unit, describe_counter, describe_gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use crate::service::Service;
use crate::stopping::Stopping;

/// Serves `/healthz`, `/readyz` and `/metrics` until the service stops.
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>, mut stopping: Stopping) {
    recorder();
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async || recorder().map_or(String::new(), PrometheusHandle::render)))
        .with_state(service);
    let stopped = async move { stopping.begun().await };
    let served = axum::serve(listener, routes).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "the metrics listener failed");
    }
}

/// See [`Service::check_ready`].
async fn ready(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    match service.check_ready().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// The process's recorder, made once; none when another was installed.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().install_recorder().ok();
            describe();
            recorder
        })
        .as_ref()
}

fn describe() {
    for (name, help) in [
        ("lanrage_control_requests_total", "Requests answered, by HTTP status"),
        ("lanrage_control_rate_limited_total", "Requests refused by a rate limit"),
        ("lanrage_control_connection_failures_total", "Connections that failed, TLS included"),
        (
            "lanrage_control_connections_refused_total",
            "Connections closed because their network has its share of them",
        ),
        ("lanrage_control_store_errors_total", "Failures of the database"),
        ("lanrage_control_stream_snapshots_total", "Streams that fell behind or could not resume"),
        ("lanrage_control_invites_redeemed_total", "Uses of invites"),
        ("lanrage_control_kicks_total", "Members put out"),
    ] {
        describe_counter!(name, Unit::Count, help);
        if name != "lanrage_control_requests_total" {
            metrics::counter!(name).absolute(0);
        }
    }
    describe_gauge!("lanrage_control_streams", Unit::Count, "Open streams, by kind of peer");
    for kind in ["device", "relay"] {
        metrics::gauge!("lanrage_control_streams", "kind" => kind).increment(0);
    }
}
