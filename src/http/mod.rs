//! The endpoints over HTTP/1.1: the probes, the authorizer for gateways that use HTTP, and the services as JSON.

mod gateway_auth;
mod gateway_metrics;
mod scrape;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

pub use gateway_metrics::GatewayMetrics;
pub use scrape::Scraper;

use crate::config::GatewayArgs;
use crate::gateway::GatewayAuthorizer;
use crate::grpc::{JsonApi, JsonConnection};
use crate::readiness::Readiness;
use crate::transport::Peer;

/// The router of all HTTP endpoints but the services as JSON. `/livez` returns 200 while the process runs. `/readyz` returns 200
/// while the server should get requests, else 503 and the reason. `/metrics` returns what is counted. If
/// `requires_client_certificate`, the gateways need a client certificate. Their questions are counted by `gateway_metrics`.
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

/// All HTTP endpoints of one thread.
#[derive(Clone)]
pub struct HttpServices {
    /// The probes, `/metrics`, and what gateways ask.
    pub router: Router,
    /// The services as JSON.
    pub json: JsonApi,
}

/// All HTTP endpoints for one connection.
pub struct HttpConnection {
    router: TowerToHyperService<Router>,
    json: JsonConnection,
    peer: ConnectInfo<Option<IpAddr>>,
    has_certificate: HasClientCertificate,
}

/// Whether the peer of a request has proven itself by a certificate too. An extension of each request of the router.
#[derive(Clone, Copy, Debug, Default)]
struct HasClientCertificate(bool);

impl HttpServices {
    /// Returns the endpoints for a connection from this peer.
    pub fn for_peer(&self, peer: Peer) -> HttpConnection {
        HttpConnection {
            router: TowerToHyperService::new(self.router.clone()),
            peer: ConnectInfo(peer.address),
            has_certificate: HasClientCertificate(peer.has_client_certificate),
            json: self.json.for_peer(peer),
        }
    }
}

impl Service<Request<Incoming>> for HttpConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if JsonApi::has(request.uri().path()) {
            let answer = self.json.call(request);
            return Box::pin(async move { Ok(answer.await.map(Body::new)) });
        }
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.has_certificate);
        Box::pin(self.router.call(request))
    }
}
