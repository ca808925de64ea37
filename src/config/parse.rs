//! The parsers of values.

use std::net::SocketAddr;
use std::time::Duration;

use crate::domain::span;

/// Parses an address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be IP:PORT, such as 127.0.0.1:7700 or [::1]:7700".to_owned())
}

/// Parses a time span.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    span::parse(text)
        .map_err(|error| error.or("must be a time span such as `500ms`, `30s`, `10min` or `1h`"))
}

/// Parses a number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "must be a size such as `64MiB`, `1GiB` or `0`".to_owned())
}

/// Parses a time that is not zero. An interval of zero would keep a core busy, and a timeout of zero would fail every time.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match span(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        interval => Ok(interval),
    }
}

/// Parses the interval of usage writes; zero disables counting. No counter of the recorder overflows within an hour.
pub(super) fn usage_interval(text: &str) -> Result<Duration, String> {
    match span(text)? {
        interval if interval > Duration::from_hours(1) => {
            Err("must be at most one hour".to_owned())
        }
        interval => Ok(interval),
    }
}

/// Parses the name of a server.
pub(super) fn replica_name(text: &str) -> Result<String, String> {
    let is_shown = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(is_shown) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits or one of `._:@-`".to_owned())
    }
}
