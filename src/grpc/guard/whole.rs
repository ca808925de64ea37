//! Requests that come whole, as nearly every Verify does: one frame holds the only message and ends the body.
//!
//! The service answers such a message at once. tonic would wrap the body and the answer into streams of messages first, which costs
//! as much as the decision itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;

use super::body::Metered;
use super::{Destination, Dispatch};
use crate::auth::Principal;

/// The header that names how messages are compressed.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The length of the prefix of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The handler of a call whose caller is proven.
#[expect(
    clippy::large_enum_variant,
    reason = "the common variant is the large one, and an allocation for it would cost more than it saves"
)]
pub(super) enum Handler<S: Dispatch, B> {
    /// Waits for the first frame of the body.
    Waiting(Option<Waiting<S, B>>),
    /// Answers.
    Answering(S::Answer),
}

/// A call whose request may come whole.
pub(super) struct Waiting<S, B> {
    pub(super) services: Arc<S>,
    pub(super) destination: Destination,
    pub(super) principal: Principal,
    pub(super) request: Request<Metered<B>>,
}

impl<S, B> Future for Handler<S, B>
where
    S: Dispatch,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handler = self.get_mut();
        if let Self::Waiting(waiting) = handler {
            let body = waiting
                .as_mut()
                .expect("not answered yet")
                .request
                .body_mut();
            let first = ready!(Pin::new(body).poll_frame(cx));
            let waiting = waiting.take().expect("not answered yet");
            match waiting.answer(first) {
                Ok(answer) => return Poll::Ready(Ok(answer)),
                Err(service) => *handler = Self::Answering(service),
            }
        }
        match handler {
            Self::Answering(service) => Pin::new(service).poll(cx),
            Self::Waiting(_) => unreachable!("the first frame has come"),
        }
    }
}

type FrameOrEnd = Option<Result<Frame<Bytes>, tonic::codegen::StdError>>;

impl<S, B> Waiting<S, B>
where
    S: Dispatch,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    /// Answers the request if this frame is all of it. Otherwise the service answers, which gets this frame too.
    fn answer(self, first: FrameOrEnd) -> Result<Response<Body>, S::Answer> {
        let Self {
            services,
            destination,
            principal,
            mut request,
        } = self;
        if let Some(Ok(frame)) = &first
            && let Some(data) = frame.data_ref()
            && request.body().is_end_stream()
            && let Some(message) = only_message(request.headers(), data)
            && let Some(answer) = services.answer(destination, &principal, message)
        {
            return Ok(match answer {
                Ok(message) => response(&message),
                Err(status) => status.into_http(),
            });
        }
        request.extensions_mut().insert(principal);
        let request = request.map(|rest| Body::new(Resumed { first, rest }));
        Err(services.call(destination, request))
    }
}

/// The message, if this data is one message that is not compressed.
fn only_message<'d>(headers: &HeaderMap, data: &'d Bytes) -> Option<&'d [u8]> {
    let (prefix, message) = data.split_first_chunk::<PREFIX>()?;
    let [0, length @ ..] = prefix else {
        return None;
    };
    let is_whole = u32::from_be_bytes(*length) as usize == message.len();
    // A client that names an encoding, which no service accepts, gets tonic's answer.
    (is_whole && !headers.contains_key(GRPC_ENCODING)).then_some(message)
}

/// The response with this encoded message.
fn response(message: &[u8]) -> Response<Body> {
    let mut data = Vec::with_capacity(PREFIX + message.len());
    data.push(0);
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(message);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from(data)), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// A body of which the first frame has been read.
struct Resumed<B> {
    first: FrameOrEnd,
    rest: Metered<B>,
}

impl<B> HttpBody for Resumed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FrameOrEnd> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_plain_message_is_taken() {
        let plain = HeaderMap::new();
        for (data, expected) in [
            (&[0, 0, 0, 0, 2, 7, 8][..], Some(&[7, 8][..])),
            (&[0, 0, 0, 0, 0], Some(&[])),
            // Compressed, incomplete, two messages, no whole prefix.
            (&[1, 0, 0, 0, 2, 7, 8], None),
            (&[0, 0, 0, 0, 3, 7, 8], None),
            (&[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 1, 8], None),
            (&[0, 0, 0, 0], None),
            (&[], None),
        ] {
            let data = Bytes::copy_from_slice(data);
            assert_eq!(only_message(&plain, &data), expected);
        }
        let gzip = HeaderMap::from_iter([(
            "grpc-encoding".parse().unwrap(),
            HeaderValue::from_static("gzip"),
        )]);
        assert_eq!(only_message(&gzip, &Bytes::from_static(&[0; 5])), None);
    }
}
