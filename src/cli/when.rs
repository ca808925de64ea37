//! Times for people: how long ago, in how long, and on which day. All days are those of UTC.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use super::flags::now;
use super::style::Tone;
use super::table::Cell;
use super::text;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// From how many seconds before its expiry on a key needs attention.
const NEAR: i64 = 7 * DAY;

/// How the times of a table are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Times {
    /// In RFC 3339, to the second.
    Exact,
    /// As the distance from this time.
    Relative(Timestamp),
}

impl Times {
    /// A time in the past; `none` without one.
    pub(super) fn past(self, at: Option<&Timestamp>, none: &str) -> Cell {
        match (self, at) {
            (_, None) => Cell::dim(none),
            (Self::Exact, Some(at)) => Cell::dim(text::time(at)),
            (Self::Relative(now), Some(at)) => Cell::dim(span(since(at, &now), " ")),
        }
    }

    /// An expiry; `never` without one.
    pub(super) fn expiry(self, at: Option<&Timestamp>) -> Cell {
        let (Self::Relative(now), Some(at)) = (self, at) else {
            return Cell::dim(text::expiry(at));
        };
        let left = since(&now, at);
        if (0..NEAR).contains(&left) {
            return Cell::toned(format!("{} !", until(at, &now)), Tone::Warning);
        }
        Cell::dim(until(at, &now))
    }
}

/// How long ago a time is: `12 s`, `3 min`, `2 h`, `3 d`, `2 y`. A time that lies ahead is now, since clocks differ.
pub(super) fn ago(at: &Timestamp, now: &Timestamp) -> String {
    format!("{} ago", span(since(at, now), " "))
}

/// How long ago a time is, by the clock of this machine; zero if it is later than now.
pub(super) fn age(at: &Timestamp) -> Duration {
    SystemTime::try_from(*at)
        .ok()
        .and_then(|at| now().duration_since(at).ok())
        .unwrap_or_default()
}

/// In how long a time is, or how long ago: `in 90d`, `3 d ago`.
pub(super) fn until(at: &Timestamp, now: &Timestamp) -> String {
    if at.seconds < now.seconds {
        ago(at, now)
    } else {
        format!("in {}", span(since(now, at), ""))
    }
}

/// The seconds from one time to another. A server may send any time.
fn since(from: &Timestamp, to: &Timestamp) -> i64 {
    to.seconds.saturating_sub(from.seconds)
}

/// A number of seconds in the largest unit of which it has some, rounded; years are rounded down.
fn span(seconds: i64, space: &str) -> String {
    let seconds = seconds.max(0);
    let units = [
        (1, 60, "s"),
        (60, 60, "min"),
        (HOUR, 48, "h"),
        (DAY, 365, "d"),
    ];
    for (unit, limit, name) in units {
        let count = seconds.saturating_add(unit / 2) / unit;
        if count < limit {
            return format!("{count}{space}{name}");
        }
    }
    format!("{}{space}y", (seconds / YEAR).max(1))
}

/// A day of the calendar: `25 Nov 2026`.
pub(super) fn date(at: &Timestamp) -> String {
    let (date, _) = parts(at);
    let year = date.rsplitn(3, '-').nth(2).unwrap_or_default();
    format!("{} {year}", day(at))
}

/// A day of a year that is known: `25 Nov`.
pub(super) fn day(at: &Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (date, _) = parts(at);
    let mut fields = date.rsplit('-');
    let day = fields.next().unwrap_or_default();
    let month = fields.next().and_then(|month| month.parse::<usize>().ok());
    let month = month.and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    format!("{} {}", day.trim_start_matches('0'), month.unwrap_or(&"?"))
}

/// The time of day, to the second.
pub(super) fn time_of_day(at: &Timestamp) -> String {
    parts(at).1
}

/// A day and the time of day: `25 Nov 22:25`; with the year if it is not that of `now`.
pub(super) fn minute(at: &Timestamp, now: &Timestamp) -> String {
    let day = if parts(at).0.get(..4) == parts(now).0.get(..4) {
        day(at)
    } else {
        date(at)
    };
    let time = time_of_day(at);
    format!("{day} {}", time.get(..5).unwrap_or(&time))
}

/// A day and the time of day, to the second.
pub(super) fn second(at: &Timestamp, now: &Timestamp) -> String {
    let minute = minute(at, now);
    let time = time_of_day(at);
    format!("{minute}{}", time.get(5..).unwrap_or_default())
}

/// A time in the past in both forms: `25 Nov 2026 22:25 UTC, 3 min ago`.
pub(super) fn both(at: &Timestamp, now: &Timestamp) -> String {
    format!("{} UTC, {}", full_minute(at), ago(at, now))
}

/// A time in the past as a page has it: in both forms on a screen, where it is now `now`, or else in RFC 3339. Empty without one.
pub(super) fn on_page(at: Option<&Timestamp>, now: Option<&Timestamp>) -> String {
    match (at, now) {
        (Some(at), Some(now)) => both(at, now),
        (at, _) => text::time_if_any(at),
    }
}

/// A time that may lie ahead in both forms: `25 Feb 2027 22:25 UTC, in 90d`.
pub(super) fn both_until(at: &Timestamp, now: &Timestamp) -> String {
    format!("{} UTC, {}", full_minute(at), until(at, now))
}

fn full_minute(at: &Timestamp) -> String {
    let time = time_of_day(at);
    format!("{} {}", date(at), time.get(..5).unwrap_or(&time))
}

/// Whether two times are on the same day.
pub(super) fn is_same_day(a: &Timestamp, b: &Timestamp) -> bool {
    a.seconds.div_euclid(DAY) == b.seconds.div_euclid(DAY)
}

/// The date and the time of day, as in RFC 3339.
fn parts(at: &Timestamp) -> (String, String) {
    let written = text::time(at);
    let (date, time) = written.split_once('T').unwrap_or((&written, ""));
    (date.to_owned(), time.trim_end_matches('Z').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15T08:00:00Z.
    const NOW: Timestamp = Timestamp {
        seconds: 1_800_000_000,
        nanos: 0,
    };

    fn after(seconds: i64) -> Timestamp {
        Timestamp {
            seconds: NOW.seconds + seconds,
            nanos: 0,
        }
    }

    #[test]
    fn a_span_is_in_the_unit_that_people_use() {
        for (seconds, shown) in [
            (-5, "0 s ago"),
            (12, "12 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3_590, "1 h ago"),
            (2 * HOUR, "2 h ago"),
            (3 * DAY, "3 d ago"),
            (400 * DAY, "1 y ago"),
            (3 * YEAR, "3 y ago"),
        ] {
            assert_eq!(ago(&after(-seconds), &NOW), shown, "{seconds}");
        }
        assert_eq!(until(&after(90 * DAY - 1), &NOW), "in 90d");
        assert_eq!(until(&after(YEAR - 60), &NOW), "in 1y");
        assert_eq!(until(&after(-1), &NOW), "1 s ago");
    }

    /// Seen red with differences that overflow.
    #[test]
    fn the_most_distant_times_are_shown() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let (first, last) = (at(i64::MIN), at(i64::MAX));
        assert_eq!(ago(&first, &last), "292471208677 y ago");
        assert_eq!(until(&last, &first), "in 292471208677y");
        assert_eq!(ago(&last, &first), "0 s ago");
        let times = Times::Relative(last);
        for (cell, shown) in [
            (times.past(Some(&first), ""), "\"292471208677 y\""),
            (times.expiry(Some(&first)), "\"292471208677 y ago\""),
            (
                Times::Relative(first).expiry(Some(&last)),
                "\"in 292471208677y\"",
            ),
        ] {
            assert!(format!("{cell:?}").contains(shown), "{cell:?}");
        }
        assert_eq!(date(&last), "4 Dec +292277026596");
        assert!(!both(&first, &last).is_empty() && !minute(&last, &NOW).is_empty());
    }

    #[test]
    fn a_day_is_that_of_the_calendar() {
        assert_eq!(date(&NOW), "15 Jan 2027");
        assert_eq!(minute(&NOW, &NOW), "15 Jan 08:00");
        assert_eq!(minute(&after(-20 * DAY), &NOW), "26 Dec 2026 08:00");
        assert_eq!(both(&after(-180), &NOW), "15 Jan 2027 07:57 UTC, 3 min ago");
        assert!(is_same_day(&NOW, &after(8 * HOUR)));
        assert!(!is_same_day(&NOW, &after(16 * HOUR)));
    }
}
