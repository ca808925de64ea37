//! Decodes the fields that requests of more than one service have.
//!
//! A field that is wrong is added to the [`Violations`] once and reads as absent from then on. Finishing the violations refuses the
//! request.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::authority::{ChangeRequest, Refusal, Wait};
use crate::domain::ids::{RequestId, ScopeName};
use crate::domain::key::LevelKind;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;

const MAX_NAME: usize = 128;
const MAX_REASON: usize = 256;
const MAX_SCOPES_OF_A_KEY: usize = 64;
const MAX_LABELS: usize = 16;
const MAX_LABEL_NAME: usize = 64;
const MAX_LABEL_VALUE: usize = 256;
const MAX_CIDRS: usize = 32;

/// A word, or none if the field is empty.
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

/// What every request for a change carries besides the change.
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

/// Refuses fields that this version does not implement: `(name, is set)`.
pub(super) fn unimplemented(fields: &[(&str, bool)]) -> Result<(), Refusal> {
    match fields.iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(Refusal::Unimplemented((*field).to_owned())),
        None => Ok(()),
    }
}

/// The network address of the caller.
pub(super) fn peer_ip<T>(request: &Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|peer| peer.ip())
}

/// The values of the metadata entry `authorization`.
pub(super) fn authorization(metadata: &MetadataMap) -> impl Iterator<Item = &[u8]> {
    let values = metadata.get_all("authorization").into_iter();
    values.map(MetadataValue::as_bytes)
}

/// A level, or none if it is not said.
pub(super) fn level(bad: &mut Violations, field: &str, level: i32) -> Option<LevelKind> {
    match pb::KeyLevel::try_from(level) {
        Ok(pb::KeyLevel::Unspecified) => None,
        Ok(pb::KeyLevel::Partner) => Some(LevelKind::Partner),
        Ok(pb::KeyLevel::Project) => Some(LevelKind::Project),
        Err(_) => {
            bad.add(field, "is not a value of KeyLevel");
            None
        }
    }
}

/// Text for people.
fn text(bad: &mut Violations, field: &str, text: String, most: usize, rule: &str) -> String {
    if text.chars().count() > most || text.chars().any(char::is_control) {
        bad.add(field, rule);
    }
    text
}

/// A display name.
pub(super) fn name(bad: &mut Violations, field: &str, name: String) -> String {
    let rule = "must be at most 128 characters, none of them a control character";
    text(bad, field, name, MAX_NAME, rule)
}

/// A reason or a description.
pub(super) fn reason(bad: &mut Violations, field: &str, reason: String) -> String {
    let rule = "must be at most 256 characters, none of them a control character";
    text(bad, field, reason, MAX_REASON, rule)
}

/// The scopes of a key.
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

/// The labels of a key.
pub(super) fn labels(
    bad: &mut Violations,
    labels: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    if labels.len() > MAX_LABELS {
        bad.add("labels", "must have at most 16 entries");
    }
    let fits =
        |text: &str, most| text.chars().count() <= most && !text.chars().any(char::is_control);
    if labels
        .keys()
        .any(|name| name.is_empty() || !fits(name, MAX_LABEL_NAME))
    {
        bad.add(
            "labels",
            "names must be 1 to 64 characters, none of them a control character",
        );
    }
    if labels.values().any(|value| !fits(value, MAX_LABEL_VALUE)) {
        bad.add(
            "labels",
            "values must be at most 256 characters, none of them a control character",
        );
    }
    labels
}

/// Address ranges. One of v4-mapped v6 addresses becomes the v4 range that it stands for.
pub(super) fn cidrs(bad: &mut Violations, cidrs: &[String]) -> Vec<IpNet> {
    if cidrs.len() > MAX_CIDRS {
        bad.add("allowed_cidrs", "must have at most 32 entries");
        return Vec::new();
    }
    cidrs
        .iter()
        .enumerate()
        .filter_map(|(i, text)| bad.check(format!("allowed_cidrs[{i}]"), cidr(text)))
        .collect()
}

fn cidr(text: &str) -> Result<IpNet, &'static str> {
    let not_one = "must be a range such as 192.0.2.0/24 or 2001:db8::/32";
    let (address, length) = text.split_once('/').ok_or(not_one)?;
    // The standard library takes no leading zeros, which some read as octal.
    let address: IpAddr = address.parse().map_err(|_| not_one)?;
    let is_number = !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
    let length = length.parse().ok().filter(|_| is_number).ok_or(not_one)?;
    let range = IpNet::new(address, length).map_err(|_| not_one)?;
    if range.addr() != range.network() {
        return Err("has bits set beyond its prefix length");
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

/// An instant, or none.
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

/// A span; absent is zero.
pub(super) fn span(
    bad: &mut Violations,
    field: &str,
    span: Option<prost_types::Duration>,
) -> Duration {
    match span.map(duration) {
        None => Duration::ZERO,
        Some(Some(span)) => span,
        Some(None) => {
            bad.add(
                field,
                "must not be negative, and at most about 10,000 years",
            );
            Duration::ZERO
        }
    }
}

/// A span that `google.protobuf.Duration` may tell and that is not negative. (The conversion that comes with the type overflows
/// at the most negative one.)
fn duration(span: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(span.seconds).ok()?;
    let nanos = u32::try_from(span.nanos).ok()?;
    (seconds <= LONGEST && nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// The longest span that a `google.protobuf.Duration` may tell, in seconds: about ten thousand years.
const LONGEST: u64 = 315_576_000_000;

/// A span that is not nothing, or none if it is not said.
pub(super) fn span_or_none(
    bad: &mut Violations,
    field: &str,
    span: Option<prost_types::Duration>,
) -> Option<Duration> {
    let read = duration(span?).filter(|span| !span.is_zero());
    bad.check(
        field,
        read.ok_or("must be more than nothing, and at most about 10,000 years"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_if_it_is_one() {
        assert_eq!(cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(cidr("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert_eq!(
            cidr("::ffff:10.0.0.0/104").unwrap().to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(cidr("::/0").unwrap().to_string(), "::/0");
        for odd in [
            "",
            "10.0.0.0",
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
        let read = |seconds, nanos| {
            let mut bad = Violations::default();
            let time = timestamp(
                &mut bad,
                "t",
                Some(prost_types::Timestamp { seconds, nanos }),
            );
            bad.is_empty().then_some(time).flatten()
        };
        assert_eq!(read(1, 2_999), Some(Timestamp::from_micros(1_000_002)));
        assert_eq!(read(253_402_300_799, 999_999_999), Some(Timestamp::MAX));
        for (seconds, nanos) in [
            (-1, 0),
            (253_402_300_800, 0),
            (i64::MAX, 0),
            (0, -1),
            (0, 1_000_000_000),
        ] {
            assert_eq!(read(seconds, nanos), None);
        }
    }
}
