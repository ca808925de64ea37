//! The time in which a certificate is valid.
//!
//! rustls does not check it: a server uses any certificate. So the few elements before it are read here (RFC 5280, section 4.1).

use std::ops::Range;
use std::time::SystemTime;

use crate::domain::time::Timestamp;

pub(super) const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
/// The optional version of the certificate.
pub(super) const VERSION: u8 = 0xa0;

/// Returns from when to when a certificate in DER is valid. Returns `None` if its times cannot be read.
pub(super) fn validity(certificate: &[u8]) -> Option<Range<Timestamp>> {
    let mut to_be_signed =
        Elements(Elements(Elements(certificate).next(SEQUENCE)?).next(SEQUENCE)?);
    let _version = to_be_signed.next(VERSION);
    let _serial_number = to_be_signed.next(INTEGER)?;
    let _signature_algorithm = to_be_signed.next(SEQUENCE)?;
    let _issuer = to_be_signed.next(SEQUENCE)?;
    let mut validity = Elements(to_be_signed.next(SEQUENCE)?);
    Some(validity.time()?..validity.time()?)
}

/// A sequence of DER elements.
pub(super) struct Elements<'d>(pub(super) &'d [u8]);

impl<'d> Elements<'d> {
    /// Returns the contents of the next element. Returns `None`, and skips nothing, if it has another tag or is incomplete.
    pub(super) fn next(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        if head[0] != tag {
            return None;
        }
        let (length, rest) = match head[1] {
            short @ 0..=0x7f => (usize::from(short), rest),
            long => {
                // As many bytes of length follow. No certificate needs more than four.
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                if bytes.len() > 4 {
                    return None;
                }
                let length = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                (length, rest)
            }
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(contents)
    }

    /// Returns the next element, a time: `YYMMDDhhmmssZ` or, from 2050 on, `YYYYMMDDhhmmssZ`.
    fn time(&mut self) -> Option<Timestamp> {
        let digits = match self.next(UTC_TIME) {
            Some(text) => {
                let text = str::from_utf8(text).ok()?;
                // RFC 5280: 50 to 99 are years of the last century.
                let century = if text >= "50" { "19" } else { "20" };
                format!("{century}{text}")
            }
            None => str::from_utf8(self.next(GENERALIZED_TIME)?)
                .ok()?
                .to_owned(),
        };
        let digits = digits.strip_suffix('Z')?;
        if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if digits < "1970" {
            return Some(Timestamp::from_micros(0));
        }
        let part = |from, to| &digits[from..to];
        let time = humantime::parse_rfc3339(&format!(
            "{}-{}-{}T{}:{}:{}Z",
            part(0, 4),
            part(4, 6),
            part(6, 8),
            part(8, 10),
            part(10, 12),
            part(12, 14)
        ));
        let since_1970 = time.ok()?.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since_1970.ok()?.as_micros();
        Some(Timestamp::from_micros(i64::try_from(micros).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = contents.len();
        let mut element = match length {
            0..128 => vec![tag, length as u8],
            128..256 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        element.extend(contents);
        element
    }

    /// The part of a certificate up to its validity, with another element behind it.
    fn certificate(not_after: &[u8], version: bool) -> Vec<u8> {
        let times = [&element(UTC_TIME, b"260101000000Z"), not_after].concat();
        let to_be_signed = [
            if version {
                element(VERSION, &[2, 1, 2])
            } else {
                Vec::new()
            },
            element(INTEGER, &[7; 20]),
            element(SEQUENCE, &[5; 10]),
            element(SEQUENCE, &[9; 300]),
            element(SEQUENCE, &times),
            element(SEQUENCE, &[1; 200]),
        ];
        element(SEQUENCE, &element(SEQUENCE, &to_be_signed.concat()))
    }

    fn time(text: &str) -> Timestamp {
        let time = humantime::parse_rfc3339(text).unwrap();
        let micros = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_micros();
        Timestamp::from_micros(micros as i64)
    }

    /// Seen red with the first of the two times as the end.
    #[test]
    fn both_times_of_the_validity_are_read() {
        for version in [true, false] {
            let valid = |tag, text: &[u8]| validity(&certificate(&element(tag, text), version));
            let expires = |tag, text| valid(tag, text).map(|valid| valid.end);
            assert_eq!(
                valid(UTC_TIME, b"491231235959Z").unwrap().start,
                time("2026-01-01T00:00:00Z")
            );
            assert_eq!(
                expires(UTC_TIME, b"491231235959Z"),
                Some(time("2049-12-31T23:59:59Z"))
            );
            assert_eq!(
                expires(UTC_TIME, b"991231235959Z"),
                Some(time("1999-12-31T23:59:59Z"))
            );
            assert_eq!(
                expires(GENERALIZED_TIME, b"99991231235959Z"),
                Some(time("9999-12-31T23:59:59Z"))
            );
            assert_eq!(
                expires(UTC_TIME, b"500101000000Z"),
                Some(Timestamp::from_micros(0))
            );
            for wrong in [
                &b"4912312359Z"[..],
                b"49123123595xZ",
                b"491331235959Z",
                b"\xff",
                b"",
            ] {
                assert_eq!(expires(UTC_TIME, wrong), None);
            }
        }
    }

    #[test]
    fn an_incomplete_certificate_has_no_time() {
        let whole = certificate(&element(UTC_TIME, b"491231235959Z"), true);
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None, "{length}");
        }
        assert!(validity(&whole).is_some());
    }
}
