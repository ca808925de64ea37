//! The range of hours of a command that shows usage, and the bars of these hours.

use clap::Args;
use prost_types::Timestamp;

use super::chart::Bar;
use super::counts::count_bar;
use crate::cli::flags;
use crate::cli::text;
use crate::pb::claviger::v1::UsageBucket;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// The longest range that is shown by the hour, in seconds; longer ranges are shown by the day.
const MAX_HOURLY_RANGE: i64 = 3 * DAY;

/// The flags for the range.
#[derive(Debug, Args)]
pub(in crate::cli) struct RangeFlags {
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

/// The requested range.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Range {
    start: Timestamp,
    end: Timestamp,
    is_until_now: bool,
}

impl RangeFlags {
    /// The range that the flags say.
    pub(in crate::cli) fn range(&self) -> Range {
        let end = self.to.unwrap_or_else(|| Timestamp::from(flags::now()));
        let start = self.since.or(self.from).unwrap_or(Timestamp {
            seconds: end.seconds.saturating_sub(DAY),
            nanos: end.nanos,
        });
        Range {
            start,
            end,
            is_until_now: self.to.is_none(),
        }
    }
}

impl Range {
    /// A range for tests, in seconds since the epoch.
    #[cfg(test)]
    pub(in crate::cli) fn between(start: i64, end: i64) -> Self {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        Self {
            start: at(start),
            end: at(end),
            is_until_now: false,
        }
    }

    /// The start, for the request.
    pub(in crate::cli) fn start(self) -> Timestamp {
        self.start
    }

    /// The end, for the request. If it is now, the server's clock decides what now is.
    pub(in crate::cli) fn end(self) -> Option<Timestamp> {
        Some(self.end).filter(|_| !self.is_until_now)
    }

    /// Returns one bar for each hour of the range, or for each day of a long range.
    pub(in crate::cli) fn bars(self, buckets: &[UsageBucket]) -> Vec<Bar> {
        let step = if self.end.seconds.saturating_sub(self.start.seconds) > MAX_HOURLY_RANGE {
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
        let first = self.start.seconds.div_euclid(step);
        let first = starts().min().map_or(first, |start| start.min(first));
        let last = (self.end.seconds - 1).div_euclid(step).max(first);
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
            count_bar(bar, &bucket.counts);
        }
        bars
    }
}

fn label(seconds: i64, step: i64) -> String {
    let time = text::time(&Timestamp { seconds, nanos: 0 });
    match (step, time.split_once('T')) {
        (DAY, Some((day, _))) => day.to_owned(),
        (_, Some((day, hour))) => format!("{day} {}", hour.get(..5).unwrap_or(hour)),
        _ => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::claviger::v1::{Verdict, VerdictCount};

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
        let range = Range::between(START + 60, START + 3 * HOUR);
        let bars = range.bars(&[bucket(START + HOUR, 3, 1)]);
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
        let range = Range::between(START, START + 4 * DAY);
        let bars = range.bars(&[bucket(START, 3, 0), bucket(START + HOUR, 2, 1)]);
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
        let range = Range::between(START, START + HOUR);
        let bars = range.bars(&[bucket(START - HOUR, 1, 0), bucket(START + HOUR, 1, 0)]);
        assert_eq!(bars.len(), 3);
    }
}
