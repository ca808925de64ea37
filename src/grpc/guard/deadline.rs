//! The time limit of a call.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// The header in which a caller sets the deadline of its call.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time limit of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeLimit {
    pub(super) time: Duration,
    /// Whether it is the caller's `grpc-timeout`, not the server's limit.
    pub(super) is_from_caller: bool,
}

impl TimeLimit {
    /// Returns the shorter of the caller's valid `grpc-timeout` and the server's limit.
    pub(super) fn of(headers: &HeaderMap, server_limit: Duration) -> Self {
        match headers
            .get(GRPC_TIMEOUT)
            .and_then(|text| grpc_timeout(text.as_bytes()))
        {
            Some(time) if time < server_limit => Self {
                time,
                is_from_caller: true,
            },
            _ => Self {
                time: server_limit,
                is_from_caller: false,
            },
        }
    }
}

/// Parses `TimeoutValue TimeoutUnit` of the gRPC protocol over HTTP/2: at most eight digits and a letter.
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

#[cfg(test)]
mod tests {
    use super::*;

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
