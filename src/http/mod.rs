//! The endpoints over HTTP/1.1: the probes, and the authorizer for gateways that use HTTP.

mod gateway_auth;
mod gateway_metrics;
mod scrape;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use std::sync::Arc;

use tokio::sync::watch;

pub use gateway_metrics::GatewayMetrics;
pub use scrape::Scraper;

use crate::config::GatewayArgs;
use crate::gateway::GatewayAuthorizer;
use crate::readiness::Readiness;

/// The router of all HTTP endpoints. `/livez` returns 200 while the process runs. `/readyz` returns 200 while the server should
/// get requests, else 503 and the reason. `/metrics` returns what is counted. If `requires_client_certificate`, the gateways need a
/// client certificate. Their questions are counted by `gateway_metrics`.
pub fn router(
    readiness: watch::Receiver<Readiness>,
    authorizer: GatewayAuthorizer,
    gateway: GatewayArgs,
    requires_client_certificate: bool,
    gateway_metrics: Arc<GatewayMetrics>,
    scraper: Scraper,
) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness)
        .merge(
            Router::new()
                .route("/metrics", get(scrape::metrics))
                .with_state(scraper),
        )
        .merge(gateway_auth::router(
            authorizer,
            gateway,
            requires_client_certificate,
            gateway_metrics,
        ))
}

async fn ready(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, String) {
    let readiness = readiness.borrow();
    match &*readiness {
        Readiness::Ready => (StatusCode::OK, "ok\n".to_owned()),
        not_ready => (StatusCode::SERVICE_UNAVAILABLE, format!("{not_ready}\n")),
    }
}
