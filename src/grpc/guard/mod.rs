//! The guard around the services: the limits that hold for every call.
//!
//! A call needs a permit, and the API key of a caller, before anything reads its body. A call with a permit is answered within
//! its time limit, even if its handler panics or its body never arrives. Each error has an `ErrorInfo`. Health and reflection keep
//! the errors of their standards, need no key and have their own permits, so that a full server still answers health checks.

mod body;
mod deadline;
mod destination;
mod errors;
mod hand_over;
mod open_answer;
mod permits;
mod whole;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use body::{Metered, Until};
use deadline::TimeLimit;
pub use destination::Destination;
use errors::with_error_info;
pub(super) use hand_over::hand_over;
use hyper::body::{Body as HttpBody, Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Request, Response};
use open_answer::OpenAnswer;
use permits::{AnonymousCallPermit, CallPermit, OpenCallPermit, VerifyStreamPermit};
use subtle::ConstantTimeEq;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use whole::{Handler, Waiting};
use zeroize::Zeroizing;

use super::call_metrics::{CallMetrics, CallRecord};
use super::gateway_refusal::log_refusal;
use super::status;
use crate::auth::{AuthError, Principal, bearer_key};
use crate::domain::ids::KeyId;
use crate::gateway::{CLIENT_CERTIFICATE_REQUIRED, log_misconfigured};
use crate::telemetry::request_id_text;
use crate::transport::Peer;

/// The services behind a guard.
pub trait Dispatch {
    /// The answer to a call.
    type Answer: Future<Output = Result<Response<Body>, Infallible>> + Send + Unpin;

    /// Returns what a caller's API key proves.
    fn prove(&self, plain_key: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError>;

    /// Answers a whole message at once with an encoded message. Returns `None` if [`call`](Self::call) must answer the call, for
    /// example because it has to wait, or because the message cannot be decoded.
    fn answer(
        &self,
        destination: Destination,
        principal: &Principal,
        message: &[u8],
    ) -> Option<Result<Vec<u8>, Status>>;

    /// Answers a call.
    fn call(&self, destination: Destination, request: Request<Body>) -> Self::Answer;
}

/// Returns what the caller of a request proved to the guard.
///
/// # Errors
/// If no guard has let the request in, which is a bug.
pub(super) fn principal<T>(request: &tonic::Request<T>) -> Result<&Principal, Status> {
    request.extensions().get().ok_or_else(status::internal)
}

/// Cancelled when the server begins to close the connection of a stream of questions.
#[derive(Clone)]
struct Closing(CancellationToken);

/// Returns what is cancelled when the server begins to close the connection of a stream of questions.
///
/// # Errors
/// If no guard has let the request in, which is a bug.
pub(super) fn closing<T>(request: &tonic::Request<T>) -> Result<CancellationToken, Status> {
    let Closing(closing) = request.extensions().get().ok_or_else(status::internal)?;
    Ok(closing.clone())
}

/// The services that only clients with a certificate may call. Health and reflection are for everybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertifiedClients {
    /// `KeyVerify` and Envoy's `Authorization`.
    pub verify: bool,
    /// `KeyAdmin`, `RealmAdmin` and `AuthorityAdmin`.
    pub admin: bool,
}

impl CertifiedClients {
    fn only(self, destination: Destination, path: &str) -> bool {
        match destination {
            Destination::Verify
            | Destination::KeyVerify
            | Destination::VerifyStream
            | Destination::Check => self.verify,
            // `Explain` is administration, and a method of `KeyVerify`.
            Destination::Administer if path.starts_with("/claviger.v1.KeyVerify/") => self.verify,
            Destination::Administer => self.admin,
            Destination::Health | Destination::Reflect => false,
        }
    }
}

/// The services of one thread and the limits for their calls.
pub struct Guard<S> {
    services: Arc<S>,
    metrics: Arc<CallMetrics>,
    certified_clients: CertifiedClients,
    /// Whether administration and reflection are served elsewhere.
    is_for_gateways_only: bool,
    max_calls: usize,
    call_timeout: Duration,
    stop: CancellationToken,
}

/// The guarded services for one connection.
pub struct Guarded<S> {
    guard: Guard<S>,
    peer: Arc<Peer>,
    last_proof: RefCell<Option<LastProof>>,
}

/// What the last caller of a connection proved. A gateway sends the same key with each call, and a look at its text costs less than
/// its HMAC. Nothing else is remembered: whether the key still has this secret, and what it may do, is read for each call.
struct LastProof {
    plain_key: Zeroizing<Vec<u8>>,
    principal: Principal,
}

impl<S> Guard<S> {
    /// Guards services, whose calls are counted by `metrics`. At most `max_calls` calls are in progress at once, each for at most
    /// `call_timeout`. `stop` ends the streams of reflection.
    pub fn new(
        services: S,
        metrics: Arc<CallMetrics>,
        max_calls: usize,
        call_timeout: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self {
            services: Arc::new(services),
            metrics,
            certified_clients: CertifiedClients::default(),
            is_for_gateways_only: false,
            max_calls,
            call_timeout,
            stop,
        }
    }

    /// Refuses calls of clients without a certificate.
    #[must_use]
    pub fn with_certified_clients(self, certified_clients: CertifiedClients) -> Self {
        Self {
            certified_clients,
            ..self
        }
    }

    /// Serves only what gateways call: no administration, no explanation and no reflection.
    #[must_use]
    pub fn for_gateways_only(self) -> Self {
        Self {
            is_for_gateways_only: true,
            ..self
        }
    }

    /// Returns the services for a connection from this peer.
    pub fn for_peer(&self, peer: Peer) -> Guarded<S> {
        Guarded {
            guard: self.clone(),
            peer: Arc::new(peer),
            last_proof: RefCell::default(),
        }
    }
}

// Not derived, because the services need not be cloned.
impl<S> Clone for Guard<S> {
    fn clone(&self) -> Self {
        Self {
            services: Arc::clone(&self.services),
            metrics: Arc::clone(&self.metrics),
            stop: self.stop.clone(),
            ..*self
        }
    }
}

impl<S: Dispatch> Guarded<S> {
    fn answer<B>(&self, request: Request<B>) -> Call<S, B>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let (path, headers) = (request.uri().path(), request.headers());
        let mut record = Some(self.guard.metrics.begin(path, headers));
        self.let_in(request, &mut record).unwrap_or_else(|refusal| {
            self.peer.pace.call_without_a_key();
            if let Some(record) = &record {
                record.log_refused_administrator(refusal.code(), None, self.peer.address);
            }
            Call {
                stage: Stage::Refused(Some(refusal)),
                record: record.map(CallRecord::untraced),
            }
        })
    }

    /// Takes the record for the call, if the call is let in.
    fn let_in<B>(
        &self,
        mut request: Request<B>,
        record: &mut Option<CallRecord>,
    ) -> Result<Call<S, B>, Status>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let guard = &self.guard;
        let path = request.uri().path();
        let destination = Destination::of(path);
        let is_administration = matches!(
            destination,
            Some(Destination::Administer | Destination::Reflect)
        );
        if guard.is_for_gateways_only && is_administration {
            return Err(status::administration_elsewhere());
        }
        if let Some(destination) = destination.filter(|destination| destination.is_anonymous()) {
            self.peer.pace.call_without_a_key();
            let must_be_answered = path == "/grpc.health.v1.Health/Check";
            let permit = AnonymousCallPermit::take(&self.peer, must_be_answered)
                .ok_or_else(status::too_many_calls)?;
            let until = (destination == Destination::Reflect).then(|| {
                let stop = guard.stop.clone();
                Box::pin(stop.cancelled_owned())
            });
            let stage = Stage::Open {
                handler: self.forward(destination, request, until),
                permit: Some(OpenCallPermit::Anonymous(permit)),
            };
            let record = record.take().map(CallRecord::untraced);
            return Ok(Call { stage, record });
        }
        // gRPC uses only POST, and a method name has no query. Anything else is refused and not ignored.
        let destination = destination
            .filter(|_| request.method() == Method::POST && request.uri().query().is_none())
            .ok_or_else(status::no_such_method)?;
        if !self.peer.has_client_certificate && guard.certified_clients.only(destination, path) {
            if destination == Destination::Check {
                let peer = self.peer.address;
                let request_id = request_id_text(request.headers());
                log_misconfigured(CLIENT_CERTIFICATE_REQUIRED, peer, None, request_id);
            }
            return Err(status::client_certificate_required());
        }
        // What another thread does takes time. Most other calls are answered at once and need no permit.
        let permit = match destination {
            Destination::Administer => Some(self.permit()?),
            _ => None,
        };
        let principal = self.prove(request.headers()).inspect_err(|refusal| {
            if destination == Destination::Check {
                let request_id = request_id_text(request.headers());
                log_refusal(self.peer.address, None, request_id, refusal);
            }
        })?;
        let limit = TimeLimit::of(request.headers(), guard.call_timeout);
        let caller = principal.key;
        if destination == Destination::VerifyStream {
            request.extensions_mut().insert(principal);
            let permit = VerifyStreamPermit::take(&self.peer).ok_or_else(status::too_many_calls)?;
            let closing = Closing(self.peer.closing.clone());
            request.extensions_mut().insert(closing);
            let stage = Stage::Open {
                handler: self.forward(destination, request, None),
                permit: Some(OpenCallPermit::VerifyStream(permit)),
            };
            let record = record.take();
            return Ok(Call { stage, record });
        }
        let handler = if matches!(destination, Destination::Verify | Destination::Check) {
            Handler::Waiting(Some(Waiting {
                services: Arc::clone(&guard.services),
                destination,
                principal,
                request: request.map(|body| Metered::new(body, Arc::clone(&self.peer), None)),
            }))
        } else {
            let answer_by = Some(tokio::time::Instant::now() + limit.time);
            request.extensions_mut().insert(Principal {
                answer_by,
                ..principal
            });
            Handler::Answering(self.forward(destination, request, None))
        };
        Ok(Call {
            stage: Stage::Admitted(Admitted {
                limit,
                timer: None,
                handler,
                caller,
                peer: Arc::clone(&self.peer),
                max_calls: guard.max_calls,
                permit,
            }),
            record: record.take(),
        })
    }

    fn permit(&self) -> Result<CallPermit, Status> {
        CallPermit::take(&self.peer, self.guard.max_calls).ok_or_else(status::too_many_calls)
    }

    fn prove(&self, headers: &HeaderMap) -> Result<Principal, Status> {
        let values = headers.get_all(AUTHORIZATION);
        let key = bearer_key(values.iter().map(AsRef::as_ref))?;
        let mut last = self.last_proof.borrow_mut();
        if let Some(last) = &*last
            && last.plain_key.ct_eq(key.as_bytes()).into()
        {
            return Ok(last.principal.clone());
        }
        let principal = self.guard.services.prove(key, self.peer.address)?;
        *last = Some(LastProof {
            plain_key: Zeroizing::new(key.as_bytes().to_vec()),
            principal: principal.clone(),
        });
        Ok(principal)
    }

    fn forward<B>(
        &self,
        destination: Destination,
        request: Request<B>,
        until: Option<Until>,
    ) -> S::Answer
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let request = request.map(|body| {
            let peer = Arc::clone(&self.peer);
            Body::new(match destination {
                // Its permit limits what it may hold, and most of what it has received is answered already.
                Destination::VerifyStream => Metered::endless(body, peer),
                _ => Metered::new(body, peer, until),
            })
        });
        self.guard.services.call(destination, request)
    }
}

impl<S: Dispatch> hyper::service::Service<Request<Incoming>> for Guarded<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call<S, Incoming>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.answer(request)
    }
}

/// A call in progress, from its headers to the headers of its answer.
pub struct Call<S: Dispatch, B> {
    stage: Stage<S, B>,
    /// `None` once the answer has begun.
    record: Option<CallRecord>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the common variant is the large one, and an allocation for it would cost more than it saves"
)]
enum Stage<S: Dispatch, B> {
    /// A call of health or reflection, or a stream of questions.
    Open {
        handler: S::Answer,
        /// The permit, which the call holds until its answer is complete.
        permit: Option<OpenCallPermit>,
    },
    /// A refused call.
    Refused(Option<Status>),
    /// A call that was let in.
    Admitted(Admitted<S, B>),
}

impl<S, B> Future for Call<S, B>
where
    S: Dispatch,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stage, record } = self.get_mut();
        let mut answer = match stage {
            Stage::Open { handler, permit } => {
                let Ok(answer) = ready!(Pin::new(handler).poll(cx));
                let (permit, record) = (permit.take(), record.take());
                return Poll::Ready(Ok(OpenAnswer::of(answer, permit, record)));
            }
            Stage::Refused(status) => status.take().expect("polled once").into_http(),
            Stage::Admitted(call) => {
                let answer = ready!(call.poll(cx));
                if let Some(record) = record.as_ref().filter(|record| record.is_administration())
                    && let Some(code) = header_code(answer.headers())
                {
                    record.log_refused_administrator(code, Some(call.caller), call.peer.address);
                }
                answer
            }
        };
        if let Some(record) = record {
            record.add_request_id(answer.headers_mut());
            record.end(header_code(answer.headers()).unwrap_or(Code::Ok));
        }
        Poll::Ready(Ok(answer))
    }
}

/// The code in the headers, or trailers, of an answer. The headers of an answer with a message have none.
fn header_code(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(code.as_bytes()))
}

/// A call that was let in. A call that has to wait holds a permit until its answer starts. The transport limits how long the
/// answer is sent.
struct Admitted<S: Dispatch, B> {
    handler: Handler<S, B>,
    caller: KeyId,
    limit: TimeLimit,
    /// Created when the handler has to wait, which is rare for a Verify.
    timer: Option<Pin<Box<Sleep>>>,
    peer: Arc<Peer>,
    max_calls: usize,
    /// Taken at the latest when the handler has to wait: the counters belong to all threads, and a Verify should not write them.
    permit: Option<CallPermit>,
}

impl<S, B> Admitted<S, B>
where
    S: Dispatch,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        // A handler that panicked is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.handler).poll(cx))) {
            Ok(Poll::Ready(Ok(answer))) => return Poll::Ready(with_error_info(answer)),
            Ok(Poll::Pending) => {}
            // The panic hook has logged the panic.
            Err(_) => return Poll::Ready(status::internal().into_http()),
        }
        if self.permit.is_none() {
            self.permit = CallPermit::take(&self.peer, self.max_calls);
            if self.permit.is_none() {
                return Poll::Ready(status::too_many_calls().into_http());
            }
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(self.limit.time)));
        timer.as_mut().poll(cx).map(|()| {
            let error = if self.limit.is_from_caller {
                status::deadline_exceeded()
            } else {
                status::call_too_long()
            };
            error.into_http()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;
    use hyper::body::Frame;
    use tonic_types::StatusExt;

    use super::*;
    use crate::domain::key::Digest;
    use crate::transport::{Allowance, CallQuota, Pace};

    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// A service that always does the same, for callers with the key "good".
    struct Does(fn(Request<Body>) -> Answer);

    impl Dispatch for Does {
        type Answer = Answer;

        fn prove(&self, plain_key: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError> {
            if plain_key != "good" {
                return Err(AuthError::Unauthenticated("not good"));
            }
            Ok(Principal {
                key: KeyId::from_bytes([7; 16]),
                secret: Digest {
                    pepper: 1,
                    mac: [7; 32],
                },
                peer,
                answer_by: None,
            })
        }

        /// Repeats a message that has two bytes.
        fn answer(
            &self,
            _: Destination,
            _: &Principal,
            message: &[u8],
        ) -> Option<Result<Vec<u8>, Status>> {
            (message.len() == 2).then(|| Ok([message, message].concat()))
        }

        fn call(&self, _: Destination, request: Request<Body>) -> Answer {
            (self.0)(request)
        }
    }

    fn guarded(does: fn(Request<Body>) -> Answer, max_calls: usize) -> Guarded<Does> {
        let guard = Guard::new(
            Does(does),
            CallMetrics::for_threads(1, None).remove(0),
            max_calls,
            Duration::from_millis(50),
            CancellationToken::new(),
        );
        guard.for_peer(Peer {
            address: Some([192, 0, 2, 1].into()),
            quota: CallQuota::default(),
            allowance: Arc::new(Allowance::default()),
            pace: Arc::new(Pace::default()),
            has_client_certificate: false,
            refusals: Arc::default(),
            closing: CancellationToken::new(),
        })
    }

    const VERIFY: &str = "/claviger.v1.KeyVerify/Verify";
    const ISSUE: &str = "/claviger.v1.KeyAdmin/IssueKey";

    fn request(path: &str) -> Request<Body> {
        Request::post(path)
            .header("authorization", "Bearer good")
            .body(Body::empty())
            .unwrap()
    }

    /// A body of these frames.
    struct Frames(VecDeque<Bytes>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// A whole message gets the quick answer, a message in two frames the service's. Seen red with the first frame left out of the
    /// body that the service gets.
    #[tokio::test]
    async fn a_message_is_answered_at_once_only_if_it_is_whole() {
        let repeats = |request: Request<Body>| -> Answer {
            Box::pin(async { Ok(Response::new(request.into_body())) })
        };
        let services = guarded(repeats, 9);
        for (frames, expected) in [
            (
                &[&[0, 0, 0, 0, 2, 7, 8][..]][..],
                &[0, 0, 0, 0, 4, 7, 8, 7, 8][..],
            ),
            (&[&[0, 0, 0, 0, 2, 7], &[8]], &[0, 0, 0, 0, 2, 7, 8]),
            (&[&[0, 0, 0, 0, 1, 7]], &[0, 0, 0, 0, 1, 7]),
        ] {
            let body = Frames(
                frames
                    .iter()
                    .map(|frame| Bytes::copy_from_slice(frame))
                    .collect(),
            );
            let call = services.answer(request(VERIFY).map(|_| Body::new(body)));
            let answer = call.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(answer.to_bytes(), expected);
        }
    }

    /// Seen red with the last proof taken for every key.
    #[tokio::test]
    async fn each_key_of_a_connection_is_proven() {
        let answered = |_| -> Answer { Box::pin(async { Ok(Response::new(Body::empty())) }) };
        let services = guarded(answered, 9);
        for (key, expected) in [
            ("good", None),
            ("good", None),
            ("bad", Some(Code::Unauthenticated)),
            ("goo", Some(Code::Unauthenticated)),
            ("good", None),
        ] {
            let mut request = request(VERIFY);
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert(AUTHORIZATION, bearer);
            let answer = services.answer(request).await.unwrap();
            let status = Status::from_header_map(answer.headers());
            assert_eq!(status.map(|status| status.code()), expected, "{key}");
        }
    }

    async fn status_of(call: Call<Does, Body>) -> Status {
        let answer = call.await.unwrap();
        Status::from_header_map(answer.headers()).expect("an error")
    }

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    /// Seen red without `catch_unwind`.
    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_says_nothing() {
        let services = guarded(
            |_| Box::pin(async { std::panic::resume_unwind(Box::new("a secret")) }),
            1,
        );
        for path in [VERIFY, ISSUE, VERIFY] {
            let status = status_of(services.answer(request(path))).await;
            assert_eq!(
                (status.code(), status.message()),
                (Code::Internal, "internal error: see the log of the server")
            );
            assert_eq!(reason(&status), "INTERNAL");
        }
    }

    #[tokio::test]
    async fn a_call_ends_after_the_shorter_of_its_deadline_and_the_servers_limit() {
        let services = guarded(|_| Box::pin(std::future::pending()), 9);
        for (timeout, expected) in [
            ("10m", "DEADLINE_EXCEEDED"),
            ("0n", "DEADLINE_EXCEEDED"),
            ("9H", "CALL_TOO_LONG"),
            ("soon", "CALL_TOO_LONG"),
        ] {
            let mut request = request(VERIFY);
            let timeout = timeout.parse().unwrap();
            request.headers_mut().insert("grpc-timeout", timeout);
            let status = status_of(services.answer(request)).await;
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert_eq!(reason(&status), expected);
        }
    }

    #[tokio::test]
    async fn a_permit_is_given_back_however_a_call_ends_and_health_needs_none() {
        let services = guarded(|_| Box::pin(std::future::pending()), 1);
        for path in [VERIFY, ISSUE, VERIFY] {
            let mut held = services.answer(request(path));
            assert!(futures_util::poll!(&mut held).is_pending());
            for path in [VERIFY, ISSUE] {
                let refused = status_of(services.answer(request(path))).await;
                assert_eq!(refused.code(), Code::ResourceExhausted);
                assert!(refused.get_details_retry_info().is_some());
            }
            let health = services.answer(request("/grpc.health.v1.Health/Check"));
            assert!(matches!(health.stage, Stage::Open { .. }));
            drop(held);
            let overdue = status_of(services.answer(request(path))).await;
            assert_eq!(overdue.code(), Code::DeadlineExceeded);
        }
    }

    /// Seen red with the permit taken before the handler is asked.
    #[tokio::test]
    async fn a_verify_that_is_answered_at_once_needs_no_permit_and_administration_does() {
        let answered = |_| -> Answer { Box::pin(async { Ok(Response::new(Body::empty())) }) };
        let services = guarded(answered, 0);
        let answer = services.answer(request(VERIFY)).await.unwrap();
        assert!(!answer.headers().contains_key("grpc-status"));
        let refused = status_of(services.answer(request(ISSUE))).await;
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }

    /// Seen red without the check in `let_in`.
    #[tokio::test]
    async fn nothing_reads_the_body_of_a_caller_that_proves_no_key() {
        let services = guarded(|_| panic!("called"), 1);
        for path in [VERIFY, ISSUE, "/envoy.service.auth.v3.Authorization/Check"] {
            for value in [None, Some("Bearer bad"), Some("Basic good"), Some("good")] {
                let mut request = request(path);
                let headers = request.headers_mut();
                headers.remove("authorization");
                if let Some(value) = value {
                    headers.insert("authorization", value.parse().unwrap());
                }
                let status = status_of(services.answer(request)).await;
                assert_eq!(status.code(), Code::Unauthenticated, "{path} {value:?}");
                assert_eq!(reason(&status), "NOT_AUTHENTICATED");
            }
        }
        let status = status_of(services.answer(request("/x"))).await;
        assert_eq!(status.code(), Code::Unimplemented);
    }

    #[tokio::test]
    async fn an_error_of_tonic_gets_a_reason_and_keeps_the_rest() {
        let services = guarded(
            |_| {
                let mut answer: Response<Body> = Status::unimplemented("not gzip").into_http();
                let encodings = "identity".parse().unwrap();
                answer
                    .headers_mut()
                    .insert("grpc-accept-encoding", encodings);
                Box::pin(async { Ok(answer) })
            },
            1,
        );
        let answer = services.answer(request(VERIFY)).await.unwrap();
        assert_eq!(answer.headers()["grpc-accept-encoding"], "identity");
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unimplemented, "not gzip")
        );
        assert_eq!(reason(&status), "UNIMPLEMENTED");
    }
}
