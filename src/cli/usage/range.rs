//! The range of hours of a command that shows usage, and the bars of these hours.

use clap::Args;
use prost_types::Timestamp;

use super::chart::{Bar, Chart};
use super::counts::count_bar;
use crate::cli::flags;
use crate::cli::text;
use crate::cli::when;
use crate::pb::claviger::v1::UsageBucket;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// The longest range that is shown by the hour, in seconds, and the longest one by the day; longer ranges are shown by the week.
const MAX_HOURLY_RANGE: i64 = 3 * DAY;
const MAX_DAILY_RANGE: i64 = 60 * DAY;

/// The flags for the range.
#[derive(Debug, Args)]
pub(in crate::cli) struct RangeFlags {
    /// Start at the hour of this time, or of that long ago, such as 7d [default: 24h before the end].
    #[arg(long, visible_alias = "from", value_name = flags::PAST, value_parser = flags::past)]
    since: Option<Timestamp>,
    /// End at this time, or that long ago [default: now].
    #[arg(long, visible_alias = "to", value_name = flags::PAST, value_parser = flags::past)]
    until: Option<Timestamp>,
}

/// The length of time that one bar stands for, in seconds.
#[derive(Clone, Copy, Debug)]
struct Step {
    length: i64,
    /// How long before 1970 began a step began.
    offset: i64,
    unit: &'static str,
}

impl Step {
    /// The number of the step in which a time is.
    fn of(self, seconds: i64) -> i64 {
        (seconds + self.offset).div_euclid(self.length)
    }

    /// When a step begins.
    fn start(self, number: i64) -> i64 {
        number * self.length - self.offset
    }
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
        let end = self.until.unwrap_or_else(|| Timestamp::from(flags::now()));
        let start = self.since.unwrap_or(Timestamp {
            seconds: end.seconds.saturating_sub(DAY),
            nanos: end.nanos,
        });
        Range {
            start,
            end,
            is_until_now: self.until.is_none(),
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

    /// The same, until now.
    #[cfg(test)]
    pub(in crate::cli) fn until_now(start: i64, end: i64) -> Self {
        Self {
            is_until_now: true,
            ..Self::between(start, end)
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

    /// The range in words.
    pub(in crate::cli) fn title(self) -> String {
        // The server begins with a whole hour.
        let start = Timestamp {
            seconds: self.start.seconds.div_euclid(HOUR) * HOUR,
            nanos: 0,
        };
        format!(
            "{} to {} UTC",
            when::minute(&start, &self.end),
            when::minute(&self.end, &self.end)
        )
    }

    fn step(self) -> Step {
        let length = self.end.seconds.saturating_sub(self.start.seconds);
        let (length, offset, unit) = if length <= MAX_HOURLY_RANGE {
            (HOUR, 0, "hour")
        } else if length <= MAX_DAILY_RANGE {
            (DAY, 0, "day")
        } else {
            // 1970 began on a Thursday, and a week begins on Monday.
            (7 * DAY, 3 * DAY, "week")
        };
        Step {
            length,
            offset,
            unit,
        }
    }

    /// Returns a chart with one bar for each hour of the range, or for each day or week of a long range.
    pub(in crate::cli) fn chart(self, buckets: &[UsageBucket], is_screen: bool) -> Chart {
        let step = self.step();
        let starts = || {
            buckets
                .iter()
                .filter_map(|bucket| Some(step.of(bucket.start_time.as_ref()?.seconds)))
        };
        // The server's clock may be ahead of this one, so its buckets extend the range.
        let first = step.of(self.start.seconds);
        let first = starts().min().map_or(first, |start| start.min(first));
        let last = step.of(self.end.seconds - 1).max(first);
        let last = starts().max().map_or(last, |start| start.max(last));
        let mut bars: Vec<_> = (first..=last)
            .map(|number| {
                let start = step.start(number);
                let (group, label) = label(start, step, is_screen);
                Bar {
                    group,
                    label,
                    is_partial: self.is_partial(start, step),
                    ..Bar::default()
                }
            })
            .collect();
        for bucket in buckets {
            let Some(start) = &bucket.start_time else {
                continue;
            };
            let bar = &mut bars[(step.of(start.seconds) - first) as usize];
            count_bar(bar, &bucket.counts);
        }
        Chart {
            bars,
            unit: step.unit,
        }
    }

    /// Whether the range has only a part of the step that begins at this time. The server counts by whole hours.
    fn is_partial(self, start: i64, step: Step) -> bool {
        let begins_later = start < self.start.seconds.div_euclid(HOUR) * HOUR;
        let ends_earlier = self.end.seconds < start + step.length;
        begins_later || (ends_earlier && (self.is_until_now || step.length > HOUR))
    }
}

/// The label of a step, and what it shares with others of its day.
fn label(seconds: i64, step: Step, is_screen: bool) -> (String, String) {
    let at = Timestamp { seconds, nanos: 0 };
    let time = when::time_of_day(&at);
    let none = String::new;
    match (step.length, is_screen) {
        (HOUR, true) => (when::day(&at), time.get(..2).unwrap_or(&time).to_owned()),
        (_, true) => (none(), format!("{:>11}", when::date(&at))),
        (length, false) => {
            let written = text::time(&at);
            let day = written.split_once('T').map_or(&*written, |(day, _)| day);
            let time = time.get(..5).unwrap_or(&time);
            let label = if length == HOUR {
                format!("{day} {time}")
            } else {
                day.to_owned()
            };
            (none(), label)
        }
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
        let bars = range.chart(&[bucket(START + HOUR, 3, 1)], false).bars;
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
        let buckets = [bucket(START, 3, 0), bucket(START + HOUR, 2, 1)];
        let bars = range.chart(&buckets, false).bars;
        assert_eq!(bars.len(), 5);
        assert_eq!(
            bars[0],
            Bar {
                label: "2027-01-15".to_owned(),
                allowed: 5,
                denied: 1,
                is_partial: true,
                ..Bar::default()
            }
        );
    }

    #[test]
    fn what_lies_outside_of_the_range_is_shown_too() {
        let range = Range::between(START, START + HOUR);
        let buckets = [bucket(START - HOUR, 1, 0), bucket(START + HOUR, 1, 0)];
        assert_eq!(range.chart(&buckets, false).bars.len(), 3);
    }

    #[test]
    fn a_range_of_months_is_shown_by_the_week_from_monday_on() {
        let range = Range::between(START, START + 70 * DAY);
        let chart = range.chart(&[bucket(START, 3, 0), bucket(START + 4 * DAY, 2, 0)], true);
        assert_eq!((chart.unit, chart.bars.len()), ("week", 11));
        // The 15th of January is a Friday.
        let starts: Vec<_> = chart.bars[..2]
            .iter()
            .map(|bar| (&*bar.label, bar.allowed))
            .collect();
        assert_eq!(starts, [("11 Jan 2027", 3), ("18 Jan 2027", 2)]);
        let partial: Vec<_> = chart.bars.iter().map(|bar| bar.is_partial).collect();
        assert_eq!(partial.iter().filter(|is| **is).count(), 2, "{partial:?}");
        assert!(partial[0] && partial[10]);
    }

    #[test]
    fn the_day_of_an_hour_stands_apart_from_it_on_a_screen() {
        let range = Range::between(START + 60, START + 2 * HOUR);
        let bars = range.chart(&[], true).bars;
        assert_eq!((&*bars[0].group, &*bars[0].label), ("15 Jan", "08"));
        assert!(
            !bars[0].is_partial,
            "the server counts from the whole hour on"
        );
        assert_eq!(range.title(), "15 Jan 08:00 to 15 Jan 10:00 UTC");
    }
}
