//! Answers that may be sent for a long time: of health, of reflection and of streams of questions.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::header_code;
use super::permits::OpenCallPermit;
use crate::grpc::call_metrics::CallRecord;

/// The body of an answer that may be sent for a long time. It holds the permit of its call, and the call is over when it ends.
pub(super) struct OpenAnswer {
    body: Body,
    record: Option<CallRecord>,
    _permit: Option<OpenCallPermit>,
}

impl OpenAnswer {
    /// The answer with its permit and its record.
    pub(super) fn of(
        mut answer: Response<Body>,
        permit: Option<OpenCallPermit>,
        mut record: Option<CallRecord>,
    ) -> Response<Body> {
        if let Some(record) = &record {
            record.add_request_id(answer.headers_mut());
        }
        // The headers of an answer without a message end the call.
        if let Some(code) = header_code(answer.headers()) {
            end(&mut record, code);
        }
        answer.map(|body| {
            Body::new(Self {
                body,
                record,
                _permit: permit,
            })
        })
    }
}

fn end(record: &mut Option<CallRecord>, code: Code) {
    if let Some(mut record) = record.take() {
        record.end(code);
    }
}

impl HttpBody for OpenAnswer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(header_code) {
                    end(&mut self.record, code);
                }
            }
            Some(Err(status)) => end(&mut self.record, status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
