//! The ids of a request, by which its lines are found in the logs of everything that it passes.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The header that carries the id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id, in bytes. An API key of this authority is longer, so none gets into a log.
const MAX_LENGTH: usize = 64;

/// The id of a request with these headers. An id that is longer than 64 bytes, or has other characters than letters, digits and
/// `-._:/+=`, is ignored.
pub fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    is_request_id(id.as_bytes()).then_some(id)
}

/// The same as text.
pub fn request_id_text(headers: &HeaderMap) -> Option<&str> {
    request_id(headers)?.to_str().ok()
}

/// Whether this may be the id of a request.
pub fn is_request_id(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:/+=".contains(byte);
    (1..=MAX_LENGTH).contains(&text.len()) && text.iter().all(fits)
}

/// The id of the trace to which a request with these headers belongs (W3C Trace Context, section 3.2): `traceparent` is
/// `VERSION-TRACE-PARENT-FLAGS` in hexadecimal digits. Anything else is ignored.
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    (version.len() == 2 && trace.len() == 32 && is_hex(version) && is_hex(trace)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_trace_is_32_digits() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (value, expected) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), Some(TRACE)),
            (format!("00-{TRACE}"), Some(TRACE)),
            (TRACE.to_owned(), None),
            (
                format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
                None,
            ),
            (format!("00-{TRACE}0-00f067aa0ba902b7-01"), None),
            (String::new(), None),
        ] {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("traceparent"),
                HeaderValue::from_str(&value).unwrap(),
            )]);
            assert_eq!(trace_id(&headers), expected, "{value}");
        }
    }

    #[test]
    fn what_could_be_something_else_is_no_request_id() {
        for (id, accepted) in [
            ("b6d6b5a2-2b9c-4f2e-9d5c-1d7d9f3a0c11", true),
            ("Root=1-67891233-abcdef012345678912345678", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            (&"a".repeat(64), true),
            (&"a".repeat(65), false),
            (&format!("demo_live_{}", "a".repeat(71)), false),
        ] {
            assert_eq!(is_request_id(id.as_bytes()), accepted, "{id}");
        }
    }
}
