//! An `ErrorInfo` for each error.

use hyper::Response;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::grpc::status;

/// Adds an `ErrorInfo` to an error that has none. Errors of this server have one already; errors of tonic have none.
pub(super) fn with_error_info(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers();
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        return answer;
    };
    let code = Code::from_bytes(code.as_bytes());
    if code == Code::Ok || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return answer;
    }
    let original = answer.extensions_mut().remove::<Status>();
    let message = original.as_ref().map(Status::message).unwrap_or_default();
    let status = status::from_tonic(code, message);
    // The other headers of tonic stay, for example the accepted encodings.
    status
        .add_header(answer.headers_mut())
        .expect("a fixed reason fits into a header");
    answer
}
