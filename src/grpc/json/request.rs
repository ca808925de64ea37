//! The headers of a request, from those of Connect to those of gRPC.

use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tonic::Code;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;

use super::methods::JsonMethod;
use super::{JSON, encode};
use crate::grpc::status;

const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The headers that mean something to gRPC only.
const OF_GRPC: [HeaderName; 3] = [
    GRPC_TIMEOUT,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// Gives a request the headers of gRPC. Its body stays as it is.
///
/// # Errors
/// The response to a request that Connect does not have, or that this server does not support. The body of the request has not been
/// looked at.
pub(super) fn with_grpc_headers<B>(mut request: Request<B>) -> Result<Request<B>, Response<Body>> {
    if request.method() != Method::POST {
        let why = "call methods with POST, and the message as JSON in the body";
        let mut response = unsupported(StatusCode::METHOD_NOT_ALLOWED, why);
        let headers = response.headers_mut();
        let post = HeaderValue::from_str(Method::POST.as_str());
        headers.insert(ALLOW, post.expect("capitals"));
        return Err(response);
    }
    let has_stream = JsonMethod::find(request.uri().path()).is_some_and(|method| !method.is_unary);
    if has_stream {
        let why =
            "this method is a stream: call it over gRPC, or call the method for single messages";
        return Err(unsupported(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if !is_json(request.headers()) {
        let why = "the body must be JSON: send the header \"content-type: application/json\"";
        let mut response = unsupported(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
        let headers = response.headers_mut();
        headers.insert(ACCEPT_POST, HeaderValue::from_static(JSON));
        return Err(response);
    }
    let headers = request.headers_mut();
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        let why = "the body must not be compressed: the only content-encoding is identity";
        let mut response = unsupported(encode::http_status(Code::Unimplemented), why);
        let headers = response.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return Err(response);
    }
    if headers.get(VERSION).is_some_and(|version| version != "1") {
        return Err(invalid(
            &VERSION,
            "must be 1, which is the only version, or left out",
        ));
    }
    let timeout = match headers.get(TIMEOUT).map(grpc_timeout) {
        Some(None) => return Err(invalid(&TIMEOUT, "must have one to ten digits")),
        Some(timeout) => timeout,
        None => None,
    };
    for name in OF_GRPC {
        headers.remove(name);
    }
    if let Some(timeout) = timeout {
        headers.insert(GRPC_TIMEOUT, timeout);
    }
    headers.insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    Ok(request)
}

fn unsupported(http: StatusCode, why: &str) -> Response<Body> {
    encode::error(&status::unsupported(why), http)
}

fn invalid(header: &HeaderName, problem: &'static str) -> Response<Body> {
    let status = status::invalid_header(header.as_str(), problem);
    encode::error(&status, encode::http_status(status.code()))
}

/// Whether the content type is JSON, in UTF-8 if it names a character set.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    let Some(content_type) = content_type.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|name| name.eq_ignore_ascii_case(JSON));
    is_json
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, set)) if name.eq_ignore_ascii_case("charset") => {
                set.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// Writes a number of milliseconds as gRPC's header has it, which has at most eight digits.
fn grpc_timeout(milliseconds: &HeaderValue) -> Option<HeaderValue> {
    let text = milliseconds.to_str().ok()?;
    if text.len() > 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let milliseconds: u64 = text.parse().ok()?;
    let timeout = if milliseconds < 100_000_000 {
        format!("{milliseconds}m")
    } else {
        format!("{}S", milliseconds / 1000)
    };
    Some(HeaderValue::try_from(timeout).expect("digits and a letter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_keeps_its_length() {
        for (sent, expected) in [
            ("0", Some("0m")),
            ("1500", Some("1500m")),
            ("0000001500", Some("1500m")),
            ("99999999", Some("99999999m")),
            ("100000000", Some("100000S")),
            ("9999999999", Some("9999999S")),
            ("10000000000", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1s", None),
        ] {
            let timeout = grpc_timeout(&HeaderValue::from_static(sent));
            assert_eq!(timeout, expected.map(HeaderValue::from_static), "{sent}");
        }
    }

    #[test]
    fn only_json_in_utf_8_is_json() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"", true),
            ("application/json; charset=utf-16", false),
            ("application/jsonp", false),
            ("application/connect+json", false),
            ("application/proto", false),
            ("application/grpc", false),
            ("text/plain", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(content_type);
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value)]);
            assert_eq!(is_json(&headers), expected, "{content_type}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
