//! The guard round the services: what holds for every call, whatever it asks.
//!
//! A call has a place or is turned away, is answered in its time, though its handler panics or its body never comes, and each
//! error says why in an `ErrorInfo`. The answers of health and reflection are as their standards have them, and they have
//! places of their own: a server that is full is not dead.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Method, Request, Response};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use super::status;
use crate::transport::Peer;

/// How many bytes of a body are not counted: what every call has, as a Verify; the bound on calls bounds them.
const UNCOUNTED: usize = 1024;

/// The services behind their guard.
#[derive(Clone)]
pub struct Guard<S = Routes> {
    services: S,
    max_calls: usize,
    call_timeout: Duration,
    stop: CancellationToken,
}

/// The services as a connection's peer may call them.
pub struct Guarded<S = Routes> {
    guard: Guard<S>,
    peer: Arc<Peer>,
}

impl<S> Guard<S> {
    /// Guards services that work on so many calls at once, for so long at the most each. Streams of reflection end at the
    /// stop.
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

    /// The services as this peer may call them.
    pub fn towards(&self, peer: Peer) -> Guarded<S>
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
            let is_look = path == "/grpc.health.v1.Health/Check";
            let Some(place) = OpenPlace::take(&self.peer, is_look) else {
                return Call::Refused(Some(status::too_many_calls()));
            };
            let stop = guard.stop.clone();
            let until = is_reflection.then(|| Box::pin(stop.cancelled_owned()));
            return Call::Open {
                handler: self.forward(request, until),
                place: Some(place),
            };
        }
        // The one form in which gRPC names a method. What else stands there is not part of the name, and is not overlooked.
        if request.method() != Method::POST || request.uri().query().is_some() {
            return Call::Refused(Some(status::no_such_method()));
        }
        let Some(place) = Place::take(&self.peer, guard.max_calls) else {
            return Call::Refused(Some(status::too_many_calls()));
        };
        Call::Admitted(Admitted {
            limit: Limit::of(request.headers(), guard.call_timeout),
            timer: None,
            handler: self.forward(request, None),
            _place: place,
        })
    }

    fn forward<B>(&self, request: Request<B>, until: Option<Until>) -> S::Future
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let request = request.map(|body| {
            Body::new(Metered {
                body,
                peer: Arc::clone(&self.peer),
                came: 0,
                until,
            })
        });
        // It is always ready: what limits calls stands here.
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

/// A call under way.
pub enum Call<F> {
    /// Of health or reflection.
    Open {
        /// What answers it.
        handler: F,
        /// Its place, which it has until its answer is complete.
        place: Option<OpenPlace>,
    },
    /// Turned away.
    Refused(Option<Status>),
    /// Worked on.
    Admitted(Admitted<F>),
}

impl<F> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Open { handler, place } => Pin::new(handler).poll(cx).map_ok(|answer| {
                let place = place.take();
                answer.map(|body| {
                    Body::new(Held {
                        body,
                        _place: place,
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

/// A call that is worked on. It has its place until it is answered; that its answer is read is the transport's concern.
pub struct Admitted<F> {
    handler: F,
    limit: Limit,
    /// Made when the handler has to wait, which Verify seldom has.
    timer: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl<F> Admitted<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        // A handler that panicked is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.handler).poll(cx))) {
            Ok(Poll::Ready(Ok(answer))) => return Poll::Ready(explained(answer)),
            Ok(Poll::Pending) => {}
            // It was logged where it happened.
            Err(_) => return Poll::Ready(status::internal().into_http()),
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(self.limit.time)));
        timer.as_mut().poll(cx).map(|()| {
            let over = if self.limit.is_callers {
                status::deadline_exceeded()
            } else {
                status::call_too_long()
            };
            over.into_http()
        })
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    time: Duration,
    is_callers: bool,
}

impl Limit {
    /// The shorter of the caller's time, if there is one that can be read, and ours.
    fn of(headers: &HeaderMap, ours: Duration) -> Self {
        match headers
            .get("grpc-timeout")
            .and_then(|text| grpc_timeout(text.as_bytes()))
        {
            Some(time) if time < ours => Self {
                time,
                is_callers: true,
            },
            _ => Self {
                time: ours,
                is_callers: false,
            },
        }
    }
}

/// `TimeoutValue TimeoutUnit` of gRPC's protocol over HTTP/2: at most eight digits and a letter.
fn grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// One of the places for calls; given back when dropped.
struct Place(Arc<Peer>);

impl Place {
    fn take(peer: &Arc<Peer>, max: usize) -> Option<Self> {
        // One too many is given back by `drop`.
        let place = Self(Arc::clone(peer));
        place.0.share.begin_call(max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.share.end_call();
    }
}

/// A place among the calls of health and reflection; given back when dropped.
pub struct OpenPlace(Arc<Peer>);

impl OpenPlace {
    fn take(peer: &Arc<Peer>, is_look: bool) -> Option<Self> {
        let place = Self(Arc::clone(peer));
        place.0.share.begin_open_call(is_look).then_some(place)
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.0.share.end_open_call();
    }
}

/// The body of an answer that may go on for long, with the place that it takes.
struct Held {
    body: Body,
    _place: Option<OpenPlace>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer, of which an error has its `ErrorInfo`: our own have it already, tonic's have not.
fn explained(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers();
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        return answer;
    };
    let code = Code::from_bytes(code.as_bytes());
    if code == Code::Ok || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return answer;
    }
    let told = answer.extensions_mut().remove::<Status>();
    let message = told.as_ref().map(Status::message).unwrap_or_default();
    let status = status::of_tonic(code, message);
    // What else tonic said, as the encodings that it takes, stays.
    status
        .add_header(answer.headers_mut())
        .expect("a fixed reason fits into a header");
    answer
}

type Until = Pin<Box<WaitForCancellationFutureOwned>>;

/// The body of a request: counted as it comes, and ended early if there is something that ends it.
struct Metered<B> {
    body: B,
    peer: Arc<Peer>,
    came: usize,
    until: Option<Until>,
}

impl<B> Metered<B> {
    /// How many of the bytes that came are counted.
    fn counted(&self) -> usize {
        self.came.saturating_sub(UNCOUNTED)
    }
}

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.peer.allowance.body(data.len());
            let before = self.counted();
            self.came += data.len();
            let more = self.counted() - before;
            if more > 0 && !self.peer.share.keep(more) {
                return Poll::Ready(Some(Err(status::too_many_bodies().into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        let counted = self.counted();
        if counted > 0 {
            self.peer.share.give_back(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::transport::{Allowance, Share};

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
        guard.towards(Peer {
            remote: ([192, 0, 2, 1], 7).into(),
            local: None,
            share: Share::default(),
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
                (Code::Internal, "internal error")
            );
            assert_eq!(reason(&status), "INTERNAL");
        }
    }

    #[tokio::test]
    async fn a_call_ends_in_its_own_time_or_in_ours_whichever_is_shorter() {
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
    async fn a_place_is_given_back_however_a_call_ends_and_health_needs_none() {
        let services = guarded(|_| Box::pin(std::future::pending()), 1);
        for _ in 0..3 {
            let held = services.answer(request("/x"));
            let refused = status_of(services.answer(request("/x"))).await;
            assert_eq!(refused.code(), Code::ResourceExhausted);
            assert!(refused.get_details_retry_info().is_some());
            assert!(matches!(
                services.answer(request("/grpc.health.v1.Health/Check")),
                Call::Open { .. }
            ));
            drop(held);
            let overdue = status_of(services.answer(request("/x"))).await;
            assert_eq!(overdue.code(), Code::DeadlineExceeded);
        }
    }

    #[tokio::test]
    async fn what_tonic_answers_gets_a_reason_and_keeps_the_rest() {
        let services = guarded(
            |_| {
                let mut answer: Response<Body> = Status::unimplemented("not gzip").into_http();
                let takes = "identity".parse().unwrap();
                answer.headers_mut().insert("grpc-accept-encoding", takes);
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

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
            ("123456789n", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }
}
