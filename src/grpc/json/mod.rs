//! The services as JSON over HTTP: the unary form of the Connect protocol (<https://connectrpc.com/docs/protocol>).
//!
//! A call becomes a call of gRPC and passes the same `Guard`, with the same limits, to the same handlers. So JSON is read only when
//! the caller has proven a key, and long JSON never on a Verify thread. An error stays one of gRPC until the headers of the response
//! are written, so that it is counted and logged like every other.

mod decode;
mod encode;
mod methods;
mod request;

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Request, Response};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use methods::JsonMethod;
pub use methods::error_details;

use super::guard::{Destination, Dispatch, Guard, Guarded, hand_over};
use super::page_limiter::hold_until_sent;
use super::services::{AdminPlane, Services};
use super::status;
use crate::auth::{AuthError, Principal};
use crate::pb::encoded::key_verify_server::KeyVerifyServer;
use crate::transport::{Pace, Peer};

const JSON: &str = "application/json";

/// What the paths of all methods begin with.
const PATHS: &str = "/claviger.v1.";

/// The longest `Verify` that is read on a Verify thread, in bytes. To read it takes at most 41 microseconds. A question has a few
/// hundred bytes, and takes two.
const MAX_SHORT: usize = 2 * 1024;

/// The length of the prefix of a message in gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The services of one thread, called with JSON.
#[derive(Clone)]
pub struct JsonApi(Guard<JsonServices>);

/// The services for one connection, called with JSON.
pub struct JsonConnection {
    services: Guarded<JsonServices>,
    pace: Arc<Pace>,
}

impl JsonApi {
    /// Wraps the guarded services.
    pub fn new(services: Guard<JsonServices>) -> Self {
        methods::prepare();
        Self(services)
    }

    /// Whether a path is one of a method, which may not exist.
    pub fn has(path: &str) -> bool {
        path.starts_with(PATHS)
    }

    /// Returns the services for a connection from this peer.
    pub fn for_peer(&self, peer: Peer) -> JsonConnection {
        JsonConnection {
            pace: Arc::clone(&peer.pace),
            services: self.0.for_peer(peer),
        }
    }
}

impl JsonConnection {
    /// Answers a call.
    pub fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        let call = request::with_grpc_headers(request)
            .map(|request| hyper::service::Service::call(&self.services, request))
            .inspect_err(|_| self.pace.call_without_a_key());
        async {
            match call {
                Ok(call) => {
                    let Ok(answer) = call.await;
                    encode::errors_as_json(answer)
                }
                Err(refusal) => refusal,
            }
        }
    }
}

/// The services of one thread, for requests with a body in JSON and otherwise in the form of gRPC. The body of an answer is JSON,
/// an error has gRPC's form.
#[derive(Clone)]
pub struct JsonServices(Services);

impl JsonServices {
    /// Wraps services.
    pub fn new(services: Services) -> Self {
        Self(services)
    }
}

impl Dispatch for JsonServices {
    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn prove(&self, plain_key: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError> {
        self.0.prove(plain_key, peer)
    }

    fn answer(&self, _: Destination, _: &Principal, _: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        None
    }

    fn call(&self, destination: Destination, request: Request<Body>) -> Self::Answer {
        let Some(method) = JsonMethod::find(request.uri().path()) else {
            return Box::pin(ready(Ok(status::no_such_method().into_http())));
        };
        if destination == Destination::Verify && is_short(request.headers()) {
            let service = KeyVerifyServer::new(self.0.key_verify.clone());
            return Translated { service, method }.call(request);
        }
        let AdminPlane { services, runtime } = self.0.admin.clone();
        let service = Translated {
            service: services,
            method,
        };
        let answer = hand_over(runtime, service, request);
        Box::pin(async { answer.await.map(hold_until_sent) })
    }
}

fn is_short(headers: &HeaderMap) -> bool {
    length(headers).is_some_and(|length| length <= MAX_SHORT)
}

/// The length of a body, which hyper has checked, if it is known from the beginning.
fn length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// A service of gRPC that is called with JSON.
struct Translated<S> {
    service: S,
    method: &'static JsonMethod,
}

impl<S> Service<Request<Body>> for Translated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = answer(self.service.clone(), self.method, request);
        Box::pin(async { Ok(answer.await.unwrap_or_else(Status::into_http)) })
    }
}

async fn answer<S>(
    mut service: S,
    method: &JsonMethod,
    request: Request<Body>,
) -> Result<Response<Body>, Status>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let (mut parts, body) = request.into_parts();
    let json = read(&parts.headers, body, method.max_request).await?;
    let message = decode::decode(&method.request, &json)?;
    drop(json);
    let message = Full::new(with_prefix(&message));
    parts.headers.remove(CONTENT_LENGTH);
    let request = Request::from_parts(parts, Body::new(message));
    let Ok(answer) = service.call(request).await;
    if answer.headers().contains_key(Status::GRPC_STATUS) {
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await?;
    if let Some(status) = body.trailers().and_then(Status::from_header_map)
        && status.code() != tonic::Code::Ok
    {
        return Err(status);
    }
    let message = body.to_bytes();
    // The only message of an answer, which no service compresses.
    let message = message.get(PREFIX..).ok_or_else(status::internal)?;
    let json = encode::message(&method.response, message)?;
    parts.headers.clear();
    let body = encode::set_json(&mut parts.headers, json);
    Ok(Response::from_parts(parts, body))
}

/// Reads a body of at most this many bytes.
async fn read(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Vec<u8>, Status> {
    let too_large = || status::message_too_large(&format!("it has more than {max} bytes"));
    let length = length(headers);
    if length.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(length.unwrap_or_default());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

fn with_prefix(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.push(0);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    message.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}
