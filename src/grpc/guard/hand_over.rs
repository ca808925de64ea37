//! Hands calls over to another runtime.

use std::convert::Infallible;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use hyper::{HeaderMap, Request, Response};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tracing::{Instrument, Span};

use crate::grpc::status;
use crate::telemetry::{request_id_text, trace_id};

/// The number of frames of a body that are on their way from one runtime to the other.
const FRAMES: usize = 4;

/// Answers a call on another runtime. Only frames of bodies pass between the runtimes: messages are decoded and encoded there.
/// Dropping the future cancels the call.
pub(in crate::grpc) async fn hand_over<S>(
    runtime: Handle,
    mut services: S,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let span = call_span(request.headers());
    let request = request.map(transferred);
    let (sender, answer) = oneshot::channel();
    let work = async move {
        let Ok(answer) = services.call(request).await;
        // If the client is gone, nobody waits for the answer.
        let _ = sender.send(answer.map(transferred));
    };
    let _cancelled_on_drop = AbortOnDropHandle::new(runtime.spawn(work.instrument(span)));
    // Without an answer the handler has panicked, and the panic hook has logged the panic.
    Ok(answer
        .await
        .unwrap_or_else(|_| status::internal().into_http()))
}

/// The span that gives the lines of the log the ids of the call, if it has any.
fn call_span(headers: &HeaderMap) -> Span {
    let request_id = request_id_text(headers);
    let trace_id = trace_id(headers);
    if request_id.is_none() && trace_id.is_none() {
        return Span::none();
    }
    tracing::info_span!("call", request_id, trace_id)
}

/// Returns a body that another runtime can read while a task of this runtime produces it. The task ends with the body, or when
/// nobody reads the result any more.
fn transferred(mut body: Body) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    let (sender, frames) = mpsc::channel::<Result<Frame<Bytes>, Status>>(FRAMES);
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                biased;
                () = sender.closed() => break,
                frame = body.frame() => frame,
            };
            let Some(frame) = frame else { break };
            if sender.send(frame).await.is_err() {
                break;
            }
        }
    });
    Body::new(StreamBody::new(ReceiverStream::new(frames)))
}
