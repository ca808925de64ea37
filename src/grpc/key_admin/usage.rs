//! Decodes the requests of `GetKeyUsage` and `GetUsage`, and encodes their answers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::request;
use crate::authority::{KeyReference, KeyUsage, OwnerUsage, Refusal};
use crate::domain::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::domain::violation::Violations;
use crate::grpc::{decode, encode};
use crate::pb::claviger::v1 as pb;
use crate::store::{HourCount, KeyOwner, OwnerCounts, RankBy, UsageFilter, UsageRanking, UsedKey};

/// The default length of the range.
const DEFAULT_RANGE: Duration = Duration::from_hours(24);

/// The longest range.
const MAX_RANGE: Duration = Duration::from_hours(400 * 24);

/// The default number of owners and keys.
const DEFAULT_TOP: u32 = 20;

/// The largest number of owners and keys.
const MAX_TOP: u32 = 1_000;

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
    let hours = range(&mut bad, start_time, end_time, now);
    bad.finish(key.map(|key| (key, hours)))
        .map_err(Refusal::Invalid)
}

/// Decodes the filter of `GetUsage`, and how owners and keys are ranked.
pub(super) fn filter_and_ranking(
    request: pb::GetUsageRequest,
    now: Timestamp,
) -> Result<(UsageFilter, UsageRanking), Refusal> {
    let pb::GetUsageRequest {
        realm,
        partner,
        project,
        environment,
        start_time,
        end_time,
        top,
        rank_by,
        with_keys,
    } = request;
    let mut bad = Violations::default();
    let realm = bad.check("realm", RealmId::parse(&realm));
    let partner = decode::optional(&mut bad, "partner", &partner, PartnerId::parse);
    let project = decode::optional(&mut bad, "project", &project, ProjectId::parse);
    let environment = decode::optional(
        &mut bad,
        "environment",
        &environment,
        EnvironmentName::parse,
    );
    let hours = range(&mut bad, start_time, end_time, now);
    if top > MAX_TOP {
        bad.add("top", "must be at most 1000");
    }
    let ranking = UsageRanking {
        by: rank(&mut bad, rank_by),
        top: if top == 0 { DEFAULT_TOP } else { top },
        with_keys,
    };
    let filter = realm.map(|realm| UsageFilter {
        realm,
        partner,
        project,
        environment,
        hours,
    });
    bad.finish(filter.map(|filter| (filter, ranking)))
        .map_err(Refusal::Invalid)
}

fn rank(bad: &mut Violations, by: i32) -> RankBy {
    match pb::UsageRank::try_from(by) {
        Ok(pb::UsageRank::Unspecified | pb::UsageRank::Presentations) => RankBy::Presentations,
        Ok(pb::UsageRank::Denials) => RankBy::Denials,
        Err(_) => {
            bad.add(
                "rank_by",
                "must be USAGE_RANK_PRESENTATIONS or USAGE_RANK_DENIALS",
            );
            RankBy::Presentations
        }
    }
}

/// Decodes the range of hours.
fn range(
    bad: &mut Violations,
    start_time: Option<prost_types::Timestamp>,
    end_time: Option<prost_types::Timestamp>,
    now: Timestamp,
) -> Range<Hour> {
    let is_until_now = end_time.is_none();
    let end = decode::timestamp(bad, "end_time", end_time).unwrap_or(now);
    let start = decode::timestamp(bad, "start_time", start_time)
        .unwrap_or_else(|| end.saturating_sub(DEFAULT_RANGE));
    // Invalid times are not compared.
    if bad.is_empty() && end < start {
        bad.add("end_time", "must not be before `start_time`");
    } else if bad.is_empty() && end.since(start) > MAX_RANGE {
        bad.add("start_time", "must be at most 400 days before `end_time`");
    }
    hours(start, end, is_until_now)
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

pub(super) fn of_key(usage: KeyUsage) -> pb::GetKeyUsageResponse {
    let KeyUsage {
        counts,
        last_used_at,
    } = usage;
    let (totals, buckets) = totals_and_buckets(&counts);
    pb::GetKeyUsageResponse {
        totals,
        buckets,
        last_used_time: last_used_at.map(encode::time),
    }
}

/// Encodes the answer of `GetUsage`, whose owners and keys are ranked by `by`.
pub(super) fn of_owners(usage: OwnerUsage, by: RankBy) -> pb::GetUsageResponse {
    let OwnerUsage {
        counts,
        owners,
        more_owners,
        keys,
        more_keys,
    } = usage;
    let (totals, buckets) = totals_and_buckets(&counts);
    pb::GetUsageResponse {
        totals,
        buckets,
        owners: owners.into_iter().map(owner).collect(),
        more_owners,
        keys: keys.into_iter().map(used_key).collect(),
        more_keys,
        ranked_by: match by {
            RankBy::Presentations => pb::UsageRank::Presentations,
            RankBy::Denials => pb::UsageRank::Denials,
        }
        .into(),
    }
}

fn used_key(usage: UsedKey) -> pb::KeyUsage {
    let UsedKey { id, key, counts } = usage;
    let of_id = pb::KeyUsage {
        key_id: id.to_string(),
        counts: verdicts(counts),
        ..pb::KeyUsage::default()
    };
    match key {
        None => of_id,
        Some(key) => pb::KeyUsage {
            name: key.name,
            realm: key.realm.to_string(),
            partner: key.partner.to_string(),
            project: key
                .level
                .project()
                .map(ToString::to_string)
                .unwrap_or_default(),
            environment: key.environment.to_string(),
            hint: key.hint,
            ..of_id
        },
    }
}

fn owner(usage: OwnerCounts) -> pb::OwnerUsage {
    let OwnerCounts {
        owner: KeyOwner { partner, project },
        counts,
    } = usage;
    pb::OwnerUsage {
        partner: partner.to_string(),
        project: project
            .as_ref()
            .map(ProjectId::to_string)
            .unwrap_or_default(),
        counts: verdicts(counts),
    }
}

fn totals_and_buckets(counts: &[HourCount]) -> (Vec<pb::VerdictCount>, Vec<pb::UsageBucket>) {
    let all = counts.iter().map(|each| (each.verdict, each.count));
    let bucket = |hour: &[HourCount]| pb::UsageBucket {
        start_time: Some(encode::time(hour[0].hour.start())),
        counts: verdicts(hour.iter().map(|each| (each.verdict, each.count))),
    };
    let hours = counts.chunk_by(|a, b| a.hour == b.hour);
    (verdicts(all), hours.map(bucket).collect())
}

/// Sums up by verdict, in the order of the numbers that the proto gives to verdicts.
fn verdicts(counts: impl IntoIterator<Item = (Verdict, u64)>) -> Vec<pb::VerdictCount> {
    let mut sums: BTreeMap<i32, u64> = BTreeMap::new();
    for (verdict, count) in counts {
        *sums.entry(encode::verdict(verdict).into()).or_default() += count;
    }
    let sums = sums.into_iter();
    sums.map(|(verdict, count)| pb::VerdictCount { verdict, count })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::KeyId;

    fn at(hour: i64, micros: i64) -> Timestamp {
        Timestamp::from_micros(Hour::from_number(hour).start().as_micros() + micros)
    }

    fn numbers(start: Timestamp, end: Timestamp, is_until_now: bool) -> (i64, i64) {
        let Range { start, end } = hours(start, end, is_until_now);
        (start.number(), end.number())
    }

    #[test]
    fn hours_are_whole_and_ranges_that_meet_share_none() {
        assert_eq!(numbers(at(10, 5), at(11, 0), false), (10, 11));
        assert_eq!(numbers(at(11, 0), at(11, 1), false), (11, 12));
        assert_eq!(numbers(at(11, 7), at(11, 7), false), (11, 12));
        assert_eq!(numbers(at(11, 0), at(11, 0), false), (11, 11));
        assert_eq!(numbers(at(11, 0), at(11, 0), true), (11, 12));
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
