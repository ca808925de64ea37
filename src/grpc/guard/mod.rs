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
mod permits;

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use body::{Metered, Until};
use deadline::TimeLimit;
pub use destination::Destination;
use errors::with_error_info;
pub(super) use hand_over::hand_over;
use hyper::body::{Body as HttpBody, Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Request, Response};
use permits::{AnonymousCallPermit, CallPermit, OpenCallPermit, VerifyStreamPermit, WithPermit};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::status;
use crate::auth::{AuthError, Principal, bearer_key};
use crate::transport::Peer;

/// The services behind a guard.
pub trait Dispatch {
    /// The answer to a call.
    type Answer: Future<Output = Result<Response<Body>, Infallible>> + Send + Unpin;

    /// Returns what a caller's API key proves.
    fn prove(&self, plain_key: &str, peer: IpAddr) -> Result<Principal, AuthError>;

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

/// The services of one thread and the limits for their calls.
pub struct Guard<S> {
    services: Arc<S>,
    max_calls: usize,
    call_timeout: Duration,
    stop: CancellationToken,
}

/// The guarded services for one connection.
pub struct Guarded<S> {
    guard: Guard<S>,
    peer: Arc<Peer>,
}

impl<S> Guard<S> {
    /// Guards services. At most `max_calls` calls are in progress at once, each for at most `call_timeout`. `stop` ends the
    /// streams of reflection.
    pub fn new(
        services: S,
        max_calls: usize,
        call_timeout: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self {
            services: Arc::new(services),
            max_calls,
            call_timeout,
            stop,
        }
    }

    /// Returns the services for a connection from this peer.
    pub fn for_peer(&self, peer: Peer) -> Guarded<S> {
        Guarded {
            guard: self.clone(),
            peer: Arc::new(peer),
        }
    }
}

// Not derived, because the services need not be cloned.
impl<S> Clone for Guard<S> {
    fn clone(&self) -> Self {
        Self {
            services: Arc::clone(&self.services),
            stop: self.stop.clone(),
            ..*self
        }
    }
}

impl<S: Dispatch> Guarded<S> {
    fn answer<B>(&self, request: Request<B>) -> Call<S::Answer>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        self.let_in(request)
            .unwrap_or_else(|refusal| Call::Refused(Some(refusal)))
    }

    fn let_in<B>(&self, mut request: Request<B>) -> Result<Call<S::Answer>, Status>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let guard = &self.guard;
        let path = request.uri().path();
        let destination = Destination::of(path);
        if let Some(destination) = destination.filter(|destination| destination.is_anonymous()) {
            let must_be_answered = path == "/grpc.health.v1.Health/Check";
            let permit = AnonymousCallPermit::take(&self.peer, must_be_answered)
                .ok_or_else(status::too_many_calls)?;
            let until = (destination == Destination::Reflect).then(|| {
                let stop = guard.stop.clone();
                Box::pin(stop.cancelled_owned())
            });
            return Ok(Call::Open {
                handler: self.forward(destination, request, until),
                permit: Some(OpenCallPermit::Anonymous(permit)),
            });
        }
        // gRPC uses only POST, and a method name has no query. Anything else is refused and not ignored.
        let destination = destination
            .filter(|_| request.method() == Method::POST && request.uri().query().is_none())
            .ok_or_else(status::no_such_method)?;
        // What another thread does takes time. Most other calls are answered at once and need no permit.
        let permit = match destination {
            Destination::Administer => Some(self.permit()?),
            _ => None,
        };
        let principal = self.prove(request.headers())?;
        let limit = TimeLimit::of(request.headers(), guard.call_timeout);
        request.extensions_mut().insert(principal);
        if destination == Destination::VerifyStream {
            let permit = VerifyStreamPermit::take(&self.peer).ok_or_else(status::too_many_calls)?;
            let closing = Closing(self.peer.closing.clone());
            request.extensions_mut().insert(closing);
            return Ok(Call::Open {
                handler: self.forward(destination, request, None),
                permit: Some(OpenCallPermit::VerifyStream(permit)),
            });
        }
        Ok(Call::Admitted(Admitted {
            limit,
            timer: None,
            handler: self.forward(destination, request, None),
            peer: Arc::clone(&self.peer),
            max_calls: guard.max_calls,
            permit,
        }))
    }

    fn permit(&self) -> Result<CallPermit, Status> {
        CallPermit::take(&self.peer, self.guard.max_calls).ok_or_else(status::too_many_calls)
    }

    fn prove(&self, headers: &HeaderMap) -> Result<Principal, Status> {
        let values = headers.get_all(AUTHORIZATION);
        let key = bearer_key(values.iter().map(AsRef::as_ref))?;
        Ok(self.guard.services.prove(key, self.peer.remote.ip())?)
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
    type Future = Call<S::Answer>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.answer(request)
    }
}

/// A call in progress.
pub enum Call<F> {
    /// A call of health or reflection, or a stream of questions.
    Open {
        /// The handler.
        handler: F,
        /// The permit, which the call holds until its answer is complete.
        permit: Option<OpenCallPermit>,
    },
    /// A refused call.
    Refused(Option<Status>),
    /// A call that was let in.
    Admitted(Admitted<F>),
}

impl<F> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Open { handler, permit } => Pin::new(handler).poll(cx).map_ok(|answer| {
                let permit = permit.take();
                answer.map(|body| {
                    Body::new(WithPermit {
                        body,
                        _permit: permit,
                    })
                })
            }),
            Self::Refused(status) => {
                let status = status.take().expect("polled once");
                Poll::Ready(Ok(status.into_http()))
            }
            Self::Admitted(call) => call.poll(cx).map(Ok),
        }
    }
}

/// A call that was let in. A call that has to wait holds a permit until its answer starts. The transport limits how long the
/// answer is sent.
pub struct Admitted<F> {
    handler: F,
    limit: TimeLimit,
    /// Created when the handler has to wait, which is rare for a Verify.
    timer: Option<Pin<Box<Sleep>>>,
    peer: Arc<Peer>,
    max_calls: usize,
    /// Taken at the latest when the handler has to wait: the counters belong to all threads, and a Verify should not write them.
    permit: Option<CallPermit>,
}

impl<F> Admitted<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
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
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::domain::ids::KeyId;
    use crate::domain::key::Digest;
    use crate::transport::{Allowance, CallQuota};

    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// A service that always does the same, for callers with the key "good".
    struct Does(fn(Request<Body>) -> Answer);

    impl Dispatch for Does {
        type Answer = Answer;

        fn prove(&self, plain_key: &str, peer: IpAddr) -> Result<Principal, AuthError> {
            if plain_key != "good" {
                return Err(AuthError::Unauthenticated("not good"));
            }
            Ok(Principal {
                key: KeyId::from_bytes([7; 16]),
                secret: Digest {
                    pepper: 1,
                    mac: [7; 32],
                },
                peer: Some(peer),
            })
        }

        fn call(&self, _: Destination, request: Request<Body>) -> Answer {
            (self.0)(request)
        }
    }

    fn guarded(does: fn(Request<Body>) -> Answer, max_calls: usize) -> Guarded<Does> {
        let guard = Guard::new(
            Does(does),
            max_calls,
            Duration::from_millis(50),
            CancellationToken::new(),
        );
        guard.for_peer(Peer {
            remote: ([192, 0, 2, 1], 7).into(),
            local: None,
            quota: CallQuota::default(),
            allowance: Arc::new(Allowance::default()),
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

    async fn status_of(call: Call<Answer>) -> Status {
        let answer = call.await.unwrap();
        Status::from_header_map(answer.headers()).expect("an error")
    }

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    /// Seen red without `catch_unwind`.
    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_says_nothing() {
        let services = guarded(|_| Box::pin(async { panic!("a secret") }), 1);
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
            assert!(matches!(
                services.answer(request("/grpc.health.v1.Health/Check")),
                Call::Open { .. }
            ));
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
