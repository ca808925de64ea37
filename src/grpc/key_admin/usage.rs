//! Decodes the request of `GetKeyUsage` and encodes its answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::request;
use crate::authority::{KeyReference, KeyUsage, Refusal};
use crate::domain::time::{Hour, Timestamp};
use crate::domain::violation::Violations;
use crate::grpc::{decode, encode};
use crate::pb::claviger::v1 as pb;

/// The default length of the range.
const DEFAULT_RANGE: Duration = Duration::from_hours(24);

/// The longest range.
const MAX_RANGE: Duration = Duration::from_hours(400 * 24);

/// Decodes the key and the range of hours.
pub(super) fn key_and_hours(
    request: pb::GetKeyUsageRequest,
    now: Timestamp,
) -> Result<(KeyReference, Range<Hour>), Refusal> {
    let pb::GetKeyUsageRequest {
        key_id,
        start_time,
        end_time,
        if_partner,
    } = request;
    let mut bad = Violations::default();
    let key = request::key(&mut bad, &key_id, &if_partner);
    let is_until_now = end_time.is_none();
    let end = decode::timestamp(&mut bad, "end_time", end_time).unwrap_or(now);
    let start = decode::timestamp(&mut bad, "start_time", start_time)
        .unwrap_or_else(|| end.saturating_sub(DEFAULT_RANGE));
    // Invalid times are not compared.
    if bad.is_empty() && end < start {
        bad.add("end_time", "must not be before `start_time`");
    } else if bad.is_empty() && end.since(start) > MAX_RANGE {
        bad.add("start_time", "must be at most 400 days before `end_time`");
    }
    bad.finish(key.map(|key| (key, hours(start, end, is_until_now))))
        .map_err(Refusal::Invalid)
}

/// Returns the hours between two times. The hour that contains the end belongs to the range, except if the end is a full hour:
/// then two ranges that meet at this hour share no hour. With `is_until_now` the current hour always belongs to the range.
fn hours(start: Timestamp, end: Timestamp, is_until_now: bool) -> Range<Hour> {
    let last = Hour::of(end);
    let until = if end > last.start() || is_until_now {
        last.next()
    } else {
        last
    };
    Hour::of(start)..until
}

pub(super) fn usage(usage: &KeyUsage) -> pb::GetKeyUsageResponse {
    // By the number of the verdict in the proto.
    let mut totals = BTreeMap::new();
    let mut hours: BTreeMap<Hour, BTreeMap<i32, u64>> = BTreeMap::new();
    for count in &usage.counts {
        let verdict = i32::from(encode::verdict(count.verdict));
        *totals.entry(verdict).or_default() += count.count;
        hours
            .entry(count.hour)
            .or_default()
            .insert(verdict, count.count);
    }
    let bucket = |(hour, counts): (Hour, _)| pb::UsageBucket {
        start_time: Some(encode::time(hour.start())),
        counts: verdicts(counts),
    };
    pb::GetKeyUsageResponse {
        totals: verdicts(totals),
        buckets: hours.into_iter().map(bucket).collect(),
        last_used_time: usage.last_used_at.map(encode::time),
    }
}

fn verdicts(counts: BTreeMap<i32, u64>) -> Vec<pb::VerdictCount> {
    let counts = counts.into_iter();
    counts
        .map(|(verdict, count)| pb::VerdictCount { verdict, count })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::KeyId;

    fn at(hour: i64, micros: i64) -> Timestamp {
        Timestamp::from_micros(Hour::from_number(hour).start().as_micros() + micros)
    }

    fn range(start: Timestamp, end: Timestamp, is_until_now: bool) -> (i64, i64) {
        let Range { start, end } = hours(start, end, is_until_now);
        (start.number(), end.number())
    }

    #[test]
    fn hours_are_whole_and_ranges_that_meet_share_none() {
        assert_eq!(range(at(10, 5), at(11, 0), false), (10, 11));
        assert_eq!(range(at(11, 0), at(11, 1), false), (11, 12));
        assert_eq!(range(at(11, 7), at(11, 7), false), (11, 12));
        assert_eq!(range(at(11, 0), at(11, 0), false), (11, 11));
        assert_eq!(range(at(11, 0), at(11, 0), true), (11, 12));
    }

    #[test]
    fn a_range_is_at_most_400_days_and_ends_after_it_begins() {
        let now = at(500 * 24, 0);
        let read = |start: Option<Timestamp>, end: Option<Timestamp>| {
            let request = pb::GetKeyUsageRequest {
                key_id: KeyId::from_bytes([1; 16]).to_string(),
                start_time: start.map(encode::time),
                end_time: end.map(encode::time),
                if_partner: String::new(),
            };
            key_and_hours(request, now).map(|(_, hours)| hours.start.number()..hours.end.number())
        };
        assert_eq!(read(None, None).unwrap(), 499 * 24..500 * 24 + 1);
        assert_eq!(read(Some(at(100 * 24, 0)), None).unwrap().start, 100 * 24);
        assert!(read(Some(at(100 * 24, -1)), None).is_err());
        assert!(read(Some(at(5, 1)), Some(at(5, 0))).is_err());
        assert!(read(Some(at(5, 0)), Some(at(5, 0))).is_ok());
        assert_eq!(read(None, Some(at(30, 0))).unwrap(), 6..30);
    }
}
