//! Decodes the fields that requests of more than one service have.
//!
//! A decoder adds a wrong field to the [`Violations`] and returns the field as absent. `Violations::finish` then refuses the
//! request.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::authority::{ChangeRequest, Wait};
use crate::domain::ids::{RequestId, ScopeName};
use crate::domain::key::{LevelKind, MAX_LABELS};
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;

const MAX_NAME_LENGTH: usize = 128;
const MAX_REASON_LENGTH: usize = 256;
const MAX_SCOPES_OF_A_KEY: usize = 64;
const MAX_LABEL_NAME_LENGTH: usize = 64;
const MAX_LABEL_VALUE_LENGTH: usize = 256;
const MAX_CIDRS: usize = 32;

/// Decodes a field with `parse`. Returns `None` if the field is empty.
pub(super) fn optional<T>(
    bad: &mut Violations,
    field: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Option<T> {
    if text.is_empty() {
        None
    } else {
        bad.check(field, parse(text))
    }
}

/// Decodes the options that every request for a change has.
pub(super) fn change(bad: &mut Violations, wait: i32, request_id: &str) -> ChangeRequest {
    let wait = match pb::Wait::try_from(wait) {
        Ok(pb::Wait::Unspecified | pb::Wait::Committed) => Wait::Committed,
        Ok(pb::Wait::Everywhere) => Wait::Everywhere,
        Err(_) => {
            bad.add("wait", "must be WAIT_COMMITTED or WAIT_EVERYWHERE");
            Wait::Committed
        }
    };
    ChangeRequest {
        request_id: optional(bad, "request_id", request_id, RequestId::parse),
        wait,
    }
}

/// Decodes a level. Returns `None` if the level is unspecified.
pub(super) fn level(bad: &mut Violations, field: &str, level: i32) -> Option<LevelKind> {
    match pb::KeyLevel::try_from(level) {
        Ok(pb::KeyLevel::Unspecified) => None,
        Ok(pb::KeyLevel::Partner) => Some(LevelKind::Partner),
        Ok(pb::KeyLevel::Project) => Some(LevelKind::Project),
        Err(_) => {
            bad.add(field, "must be KEY_LEVEL_PARTNER or KEY_LEVEL_PROJECT");
            None
        }
    }
}

/// Decodes text for people, of at most `max` characters.
fn text(bad: &mut Violations, field: &str, text: String, max: usize, rule: &str) -> String {
    if text.chars().count() > max || text.chars().any(char::is_control) {
        bad.add(field, rule);
    }
    text
}

/// Decodes a display name.
pub(super) fn name(bad: &mut Violations, field: &str, name: String) -> String {
    let rule = "must have at most 128 characters and no control character";
    text(bad, field, name, MAX_NAME_LENGTH, rule)
}

/// Decodes the id that another system has for a key. Returns `None` if it is empty.
pub(super) fn external_id(
    bad: &mut Violations,
    field: &str,
    external_id: String,
) -> Option<String> {
    Some(name(bad, field, external_id)).filter(|id| !id.is_empty())
}

/// Decodes a reason or a description.
pub(super) fn reason(bad: &mut Violations, field: &str, reason: String) -> String {
    let rule = "must have at most 256 characters and no control character";
    text(bad, field, reason, MAX_REASON_LENGTH, rule)
}

/// Decodes the scopes of a key.
pub(super) fn scopes(bad: &mut Violations, scopes: &[String]) -> Vec<ScopeName> {
    if scopes.len() > MAX_SCOPES_OF_A_KEY {
        bad.add("scopes", "must have at most 64 entries");
        return Vec::new();
    }
    scopes
        .iter()
        .enumerate()
        .filter_map(|(i, scope)| bad.check(format!("scopes[{i}]"), ScopeName::parse(scope)))
        .collect()
}

/// Decodes the labels of a key.
pub(super) fn labels(
    bad: &mut Violations,
    labels: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    if labels.len() > MAX_LABELS {
        bad.add("labels", "must have at most 16 entries");
    }
    let fits = |text: &str, max| text.chars().count() <= max && !text.chars().any(char::is_control);
    if labels
        .keys()
        .any(|name| name.is_empty() || !fits(name, MAX_LABEL_NAME_LENGTH))
    {
        bad.add(
            "labels",
            "must have names of 1 to 64 characters without a control character",
        );
    }
    if labels
        .values()
        .any(|value| !fits(value, MAX_LABEL_VALUE_LENGTH))
    {
        bad.add(
            "labels",
            "must have values of at most 256 characters without a control character",
        );
    }
    labels
}

/// Decodes address ranges. A range of IPv4-mapped IPv6 addresses becomes the IPv4 range.
pub(super) fn cidrs(bad: &mut Violations, cidrs: &[String]) -> Vec<IpNet> {
    if cidrs.len() > MAX_CIDRS {
        bad.add("allowed_cidrs", "must have at most 32 entries");
        return Vec::new();
    }
    cidrs
        .iter()
        .enumerate()
        .filter_map(|(i, text)| match cidr(text) {
            Ok(range) => Some(range),
            Err(why) => {
                bad.add(format!("allowed_cidrs[{i}]"), why);
                None
            }
        })
        .collect()
}

/// Decodes a range, or one address.
fn cidr(text: &str) -> Result<IpNet, String> {
    let rule = "must be a range such as 192.0.2.0/24 or 2001:db8::/32, or one address";
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    // The standard library accepts no leading zeros, which some programs read as octal.
    let address: IpAddr = address.parse().map_err(|_| rule)?;
    let range = match length {
        None => IpNet::from(address),
        Some(length) => {
            let is_number =
                !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
            let length = length.parse().ok().filter(|_| is_number).ok_or(rule)?;
            IpNet::new(address, length).map_err(|_| rule)?
        }
    };
    if range.addr() != range.network() {
        return Err(format!(
            "has bits set after the prefix length: use {} for the range, or {address} for the address alone",
            range.trunc()
        ));
    }
    Ok(match range {
        IpNet::V6(v6) if is_mapped(v6.addr()) && v6.prefix_len() >= 96 => {
            match v6.addr().to_canonical() {
                IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, v6.prefix_len() - 96)),
                IpAddr::V6(_) => range,
            }
        }
        other => other,
    })
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Decodes a time.
pub(super) fn timestamp(
    bad: &mut Violations,
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Option<Timestamp> {
    let time = time?;
    let micros = u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .and_then(|nanos| {
            time.seconds
                .checked_mul(1_000_000)?
                .checked_add(i64::from(nanos / 1_000))
        })
        .filter(|micros| (0..=Timestamp::MAX.as_micros()).contains(micros));
    if micros.is_none() {
        bad.add(field, "must be a time from 1970 to 9999");
    }
    micros.map(Timestamp::from_micros)
}

/// Decodes a duration. An absent duration is zero.
pub(super) fn span(
    bad: &mut Violations,
    field: &str,
    span: Option<prost_types::Duration>,
) -> Duration {
    match span.map(duration) {
        None => Duration::ZERO,
        Some(Some(span)) => span,
        Some(None) => {
            bad.add(field, "must be from 0 to about 10,000 years");
            Duration::ZERO
        }
    }
}

/// Converts a valid `google.protobuf.Duration` that is not negative. (The conversion of the crate overflows for the smallest
/// value.)
fn duration(span: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(span.seconds).ok()?;
    let nanos = u32::try_from(span.nanos).ok()?;
    (seconds <= MAX_SECONDS && nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// The longest valid `google.protobuf.Duration`, in seconds: about 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// Decodes a duration that must be longer than zero. Returns `None` if the duration is absent.
pub(super) fn span_or_none(
    bad: &mut Violations,
    field: &str,
    span: Option<prost_types::Duration>,
) -> Option<Duration> {
    let span = duration(span?).filter(|span| !span.is_zero());
    bad.check(
        field,
        span.ok_or("must be longer than 0 and at most about 10,000 years"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_range_has_its_exact_form() {
        assert_eq!(cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(cidr("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert_eq!(
            cidr("::ffff:10.0.0.0/104").unwrap().to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(cidr("::/0").unwrap().to_string(), "::/0");
        for (address, range) in [
            ("203.0.113.5", "203.0.113.5/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ] {
            assert_eq!(cidr(address).unwrap().to_string(), range);
        }
        let refused = cidr("203.0.113.5/24").unwrap_err();
        assert!(refused.contains("use 203.0.113.0/24"), "{refused}");
        for odd in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/8 ",
            "x/8",
            "010.0.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/",
        ] {
            assert!(cidr(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_refused() {
        let decode = |seconds, nanos| {
            let mut bad = Violations::default();
            let time = timestamp(
                &mut bad,
                "t",
                Some(prost_types::Timestamp { seconds, nanos }),
            );
            bad.is_empty().then_some(time).flatten()
        };
        assert_eq!(decode(1, 2_999), Some(Timestamp::from_micros(1_000_002)));
        assert_eq!(decode(253_402_300_799, 999_999_999), Some(Timestamp::MAX));
        for (seconds, nanos) in [
            (-1, 0),
            (253_402_300_800, 0),
            (i64::MAX, 0),
            (0, -1),
            (0, 1_000_000_000),
        ] {
            assert_eq!(decode(seconds, nanos), None);
        }
    }
}
