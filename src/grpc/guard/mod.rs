//! The guard around the services: the limits that hold for every call.
//!
//! A call without a permit is refused. A call with a permit is answered within its time limit, even if its handler panics or its
//! body never arrives. Each error has an `ErrorInfo`. Health and reflection keep the errors of their standards and have their own
//! permits, so that a full server still answers health checks.

mod body;
mod deadline;
mod errors;
mod permits;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use body::{Metered, Until};
use deadline::TimeLimit;
use errors::with_error_info;
use hyper::body::{Body as HttpBody, Bytes, Incoming};
use hyper::{Method, Request, Response};
use permits::{AnonymousCallPermit, CallPermit, WithPermit};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;

use super::status;
use crate::transport::Peer;

/// The services and the limits for their calls.
#[derive(Clone)]
pub struct Guard<S = Routes> {
    services: S,
    max_calls: usize,
    call_timeout: Duration,
    stop: CancellationToken,
}

/// The guarded services for one connection.
pub struct Guarded<S = Routes> {
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
            services,
            max_calls,
            call_timeout,
            stop,
        }
    }

    /// Returns the services for a connection from this peer.
    pub fn for_peer(&self, peer: Peer) -> Guarded<S>
    where
        S: Clone,
    {
        Guarded {
            guard: self.clone(),
            peer: Arc::new(peer),
        }
    }
}

impl<S> Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    fn answer<B>(&self, mut request: Request<B>) -> Call<S::Future>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let guard = &self.guard;
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: self.peer.local,
            remote_addr: Some(self.peer.remote),
        });
        let path = request.uri().path();
        let is_reflection = path.starts_with("/grpc.reflection.");
        if is_reflection || path.starts_with("/grpc.health.v1.Health/") {
            let must_be_answered = path == "/grpc.health.v1.Health/Check";
            let Some(permit) = AnonymousCallPermit::take(&self.peer, must_be_answered) else {
                return Call::Refused(Some(status::too_many_calls()));
            };
            let stop = guard.stop.clone();
            let until = is_reflection.then(|| Box::pin(stop.cancelled_owned()));
            return Call::Anonymous {
                handler: self.forward(request, until),
                permit: Some(permit),
            };
        }
        // gRPC uses only POST, and a method name has no query. Anything else is refused and not ignored.
        if request.method() != Method::POST || request.uri().query().is_some() {
            return Call::Refused(Some(status::no_such_method()));
        }
        let Some(permit) = CallPermit::take(&self.peer, guard.max_calls) else {
            return Call::Refused(Some(status::too_many_calls()));
        };
        Call::Admitted(Admitted {
            limit: TimeLimit::of(request.headers(), guard.call_timeout),
            timer: None,
            handler: self.forward(request, None),
            _permit: permit,
        })
    }

    fn forward<B>(&self, request: Request<B>, until: Option<Until>) -> S::Future
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let request = request.map(|body| {
            let peer = Arc::clone(&self.peer);
            Body::new(Metered::new(body, peer, until))
        });
        // The services are always ready, because the guard limits the calls.
        self.guard.services.clone().call(request)
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.answer(request)
    }
}

/// A call in progress.
pub enum Call<F> {
    /// A call of health or reflection.
    Anonymous {
        /// The handler.
        handler: F,
        /// The permit, which the call holds until its answer is complete.
        permit: Option<AnonymousCallPermit>,
    },
    /// A refused call.
    Refused(Option<Status>),
    /// A call with a permit.
    Admitted(Admitted<F>),
}

impl<F> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Anonymous { handler, permit } => Pin::new(handler).poll(cx).map_ok(|answer| {
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

/// A call with a permit, which the call holds until its answer starts. The transport limits how long the answer is sent.
pub struct Admitted<F> {
    handler: F,
    limit: TimeLimit,
    /// Created when the handler has to wait, which is rare for a Verify.
    timer: Option<Pin<Box<Sleep>>>,
    _permit: CallPermit,
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
    use crate::transport::{Allowance, CallQuota};

    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Services that all do the same.
    #[derive(Clone)]
    struct Does(fn(Request<Body>) -> Answer);

    impl Service<Request<Body>> for Does {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Answer;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Answer {
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
        })
    }

    fn request(path: &str) -> Request<Body> {
        Request::post(path).body(Body::empty()).unwrap()
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
        for _ in 0..3 {
            let status = status_of(services.answer(request("/x"))).await;
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
            let mut request = request("/x");
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
        for _ in 0..3 {
            let held = services.answer(request("/x"));
            let refused = status_of(services.answer(request("/x"))).await;
            assert_eq!(refused.code(), Code::ResourceExhausted);
            assert!(refused.get_details_retry_info().is_some());
            assert!(matches!(
                services.answer(request("/grpc.health.v1.Health/Check")),
                Call::Anonymous { .. }
            ));
            drop(held);
            let overdue = status_of(services.answer(request("/x"))).await;
            assert_eq!(overdue.code(), Code::DeadlineExceeded);
        }
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
        let answer = services.answer(request("/x")).await.unwrap();
        assert_eq!(answer.headers()["grpc-accept-encoding"], "identity");
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unimplemented, "not gzip")
        );
        assert_eq!(reason(&status), "UNIMPLEMENTED");
    }
}
