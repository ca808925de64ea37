//! Answers and errors in JSON.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Response, StatusCode};
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Serialize;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::JSON;
use super::methods::MESSAGES;
use crate::grpc::status;
use crate::telemetry::{REQUEST_ID, limited};

/// Writes an encoded message as JSON, without the fields that have their default value.
///
/// # Errors
/// If the bytes are not this message, which is a fault of the server.
pub(super) fn message(descriptor: &MessageDescriptor, encoded: &[u8]) -> Result<Vec<u8>, Status> {
    let written = || {
        let message = DynamicMessage::decode(descriptor.clone(), encoded).ok()?;
        let mut json = Vec::with_capacity(2 * encoded.len());
        let mut serializer = serde_json::Serializer::new(&mut json);
        message
            .serialize_with_options(&mut serializer, &SerializeOptions::new())
            .ok()?;
        json.push(b'\n');
        Some(json)
    };
    written().ok_or_else(|| {
        let message = descriptor.full_name();
        limited!(error, message, "answer cannot be written as JSON");
        status::internal()
    })
}

/// Gives a response these bytes of JSON.
pub(super) fn set_json(headers: &mut HeaderMap, json: Vec<u8>) -> Body {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(json.len()));
    Body::new(http_body_util::Full::from(json))
}

/// Turns the gRPC form of an error, which is a status in the headers, into that of Connect. An answer stays as it is.
pub(super) fn errors_as_json(answer: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(answer.headers()) else {
        return answer;
    };
    let mut response = error(&status, http_status(status.code()));
    if let Some(id) = answer.headers().get(&REQUEST_ID) {
        response.headers_mut().insert(REQUEST_ID, id.clone());
    }
    response
}

/// An error as JSON, with this status of HTTP.
pub(super) fn error(status: &Status, http: StatusCode) -> Response<Body> {
    let details = status::as_message(status).details;
    let error = ErrorMessage {
        code: code_name(status.code()),
        message: status.message(),
        details: details.iter().map(Detail::of).collect(),
    };
    let mut json = serde_json::to_vec(&error).expect("it has only strings");
    json.push(b'\n');
    let mut response = Response::new(());
    *response.status_mut() = http;
    let headers = response.headers_mut();
    let body = set_json(headers, json);
    if http == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let retry = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    if let Some(delay) = retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
    }
    response.map(|()| body)
}

/// The header has no parts of seconds.
fn whole_seconds(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}

#[derive(Serialize)]
struct ErrorMessage<'s> {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'s str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// A detail of an error: the encoded message for programs, and the same for people.
#[derive(Serialize)]
struct Detail {
    #[serde(rename = "type")]
    name: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<serde_json::Value>,
}

impl Detail {
    fn of(detail: &prost_types::Any) -> Self {
        let (_, name) = detail.type_url.rsplit_once('/').unwrap_or_default();
        let debug = MESSAGES
            .get_message_by_name(name)
            .and_then(|descriptor| DynamicMessage::decode(descriptor, &*detail.value).ok())
            .and_then(|message| serde_json::to_value(message).ok());
        Self {
            name: name.to_owned(),
            value: STANDARD_NO_PAD.encode(&detail.value),
            debug,
        }
    }
}

/// The name of a code in Connect.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "canceled",
        // An error has another code than `Ok`.
        Code::Ok | Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The status of HTTP that Connect has for a code: <https://connectrpc.com/docs/protocol#error-codes>.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).expect("a number of three digits"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}
