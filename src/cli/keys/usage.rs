//! The `keys usage` command.

use clap::Args;
use prost_types::Timestamp;

use super::chart::{Bar, chart};
use super::key::KeyId;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::output::Output;
use crate::cli::text;
use crate::pb::claviger::v1::{
    GetKeyUsageRequest, GetKeyUsageResponse, UsageBucket, Verdict, VerdictCount,
};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// The longest range that is shown by the hour, in seconds; longer ranges are shown by the day.
const MAX_HOURLY_RANGE: i64 = 3 * DAY;
/// The number of columns without a terminal.
const DEFAULT_WIDTH: usize = 80;

/// Show how often a key was presented and with which verdicts, by hour or by day.
///
/// Times are in UTC. Requests that did not prove the key, such as those with a wrong secret, are not counted.
#[derive(Debug, Args)]
pub struct Usage {
    #[command(flatten)]
    key: KeyId,
    /// Start at this time, or that long ago, such as 7d [default: 24h].
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past, conflicts_with_all = ["from", "to"])]
    since: Option<Timestamp>,
    /// Start at the hour of this time, or of that long ago [default: 24h before the end].
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past)]
    from: Option<Timestamp>,
    /// End at this time, or that long ago [default: now].
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past)]
    to: Option<Timestamp>,
}

/// The requested range, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: i64,
    end: i64,
}

impl Usage {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let end = self.to.unwrap_or_else(|| Timestamp::from(flags::now()));
        let start = self.since.or(self.from).unwrap_or(Timestamp {
            seconds: end.seconds.saturating_sub(DAY),
            nanos: end.nanos,
        });
        let request = GetKeyUsageRequest {
            key_id: self.key.id,
            start_time: Some(start),
            // Without an end, the server's clock decides what now is.
            end_time: self.to,
            ..GetKeyUsageRequest::default()
        };
        let client = connection.connect().await?;
        let answer = client.ask(client.keys().get_key_usage(request)).await?;
        let range = Range {
            start: start.seconds,
            end: end.seconds,
        };
        let width = output.width().unwrap_or(DEFAULT_WIDTH);
        output.show(&answer, |answer| shown(answer, range, width))
    }
}

fn shown(answer: &GetKeyUsageResponse, range: Range, width: usize) -> String {
    let last_used = answer
        .last_used_time
        .as_ref()
        .map_or_else(|| "never".to_owned(), text::time);
    let all = answer
        .totals
        .iter()
        .fold(0_u64, |all, total| all.saturating_add(total.count));
    let totals = answer
        .totals
        .iter()
        .map(|total| (verdict(total), text::grouped(total.count)));
    let facts: Vec<_> = [
        ("last used".to_owned(), last_used),
        ("presented".to_owned(), text::grouped(all)),
    ]
    .into_iter()
    .chain(totals)
    .collect();
    let facts = text::facts(
        facts
            .iter()
            .map(|(name, fact)| (name.as_str(), fact.clone())),
    );
    if answer.buckets.is_empty() {
        return facts;
    }
    let bars = bars(&answer.buckets, range);
    format!("{facts}\n\n{}\n\n█ allowed  ░ denied", chart(&bars, width))
}

/// Returns one bar for each hour of the range, or for each day of a long range.
fn bars(buckets: &[UsageBucket], range: Range) -> Vec<Bar> {
    let step = if range.end.saturating_sub(range.start) > MAX_HOURLY_RANGE {
        DAY
    } else {
        HOUR
    };
    let starts = || {
        buckets
            .iter()
            .filter_map(|bucket| Some(bucket.start_time.as_ref()?.seconds.div_euclid(step)))
    };
    // The server's clock may be ahead of this one, so its buckets extend the range.
    let first = range.start.div_euclid(step);
    let first = starts().min().map_or(first, |start| start.min(first));
    let last = (range.end - 1).div_euclid(step).max(first);
    let last = starts().max().map_or(last, |start| start.max(last));
    let mut bars: Vec<_> = (first..=last)
        .map(|number| Bar {
            label: label(number * step, step),
            ..Bar::default()
        })
        .collect();
    for bucket in buckets {
        let Some(start) = &bucket.start_time else {
            continue;
        };
        let bar = &mut bars[(start.seconds.div_euclid(step) - first) as usize];
        for count in &bucket.counts {
            if count.verdict() == Verdict::Allowed {
                bar.allowed = bar.allowed.saturating_add(count.count);
            } else {
                bar.denied = bar.denied.saturating_add(count.count);
            }
        }
    }
    bars
}

fn label(seconds: i64, step: i64) -> String {
    let time = text::time(&Timestamp { seconds, nanos: 0 });
    match (step, time.split_once('T')) {
        (DAY, Some((day, _))) => day.to_owned(),
        (_, Some((day, hour))) => format!("{day} {}", hour.get(..5).unwrap_or(hour)),
        _ => time,
    }
}

fn verdict(count: &VerdictCount) -> String {
    Verdict::try_from(count.verdict).map_or_else(
        |_| format!("verdict {} (not known here)", count.verdict),
        |verdict| text::enum_value(verdict.as_str_name(), "VERDICT_").replace('-', " "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15T08:00:00Z.
    const START: i64 = 1_800_000_000;

    fn bucket(seconds: i64, allowed: u64, revoked: u64) -> UsageBucket {
        let count = |verdict: Verdict, count| VerdictCount {
            verdict: verdict as i32,
            count,
        };
        UsageBucket {
            start_time: Some(Timestamp { seconds, nanos: 0 }),
            counts: vec![
                count(Verdict::Allowed, allowed),
                count(Verdict::Revoked, revoked),
            ],
        }
    }

    #[test]
    fn a_short_range_has_a_row_for_each_hour_also_for_empty_ones() {
        let range = Range {
            start: START + 60,
            end: START + 3 * HOUR,
        };
        let bars = bars(&[bucket(START + HOUR, 3, 1)], range);
        let rows: Vec<_> = bars
            .iter()
            .map(|bar| (bar.label.as_str(), bar.allowed, bar.denied))
            .collect();
        assert_eq!(
            rows,
            [
                ("2027-01-15 08:00", 0, 0),
                ("2027-01-15 09:00", 3, 1),
                ("2027-01-15 10:00", 0, 0)
            ]
        );
    }

    #[test]
    fn a_long_range_adds_the_hours_of_a_day_up() {
        let range = Range {
            start: START,
            end: START + 4 * DAY,
        };
        let bars = bars(&[bucket(START, 3, 0), bucket(START + HOUR, 2, 1)], range);
        assert_eq!(bars.len(), 5);
        assert_eq!(
            bars[0],
            Bar {
                label: "2027-01-15".to_owned(),
                allowed: 5,
                denied: 1
            }
        );
    }

    #[test]
    fn what_lies_outside_of_the_range_is_shown_too() {
        let range = Range {
            start: START,
            end: START + HOUR,
        };
        let bars = bars(
            &[bucket(START - HOUR, 1, 0), bucket(START + HOUR, 1, 0)],
            range,
        );
        assert_eq!(bars.len(), 3);
    }

    #[test]
    fn the_totals_stand_above_the_bars() {
        let answer = GetKeyUsageResponse {
            totals: vec![
                VerdictCount {
                    verdict: Verdict::Allowed as i32,
                    count: 1_200,
                },
                VerdictCount {
                    verdict: Verdict::ScopeMissing as i32,
                    count: 34,
                },
                VerdictCount {
                    verdict: 99,
                    count: 1,
                },
            ],
            buckets: Vec::new(),
            last_used_time: None,
        };
        let range = Range { start: 0, end: DAY };
        assert_eq!(
            shown(&answer, range, 80),
            "last used                    never\n\
             presented                    1,235\n\
             allowed                      1,200\n\
             scope missing                34\n\
             verdict 99 (not known here)  1"
        );
    }
}
