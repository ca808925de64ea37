//! An `ErrorInfo` for every error.

use hyper::Response;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::grpc::status;

/// An answer, of which an error has its `ErrorInfo`: our own have it already, tonic's have not.
pub(super) fn with_error_info(mut answer: Response<Body>) -> Response<Body> {
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
