//! Flags that several commands share, and the parsers of their values.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use super::failure::Failure;
use crate::domain::span;
use crate::pb::claviger::v1 as pb;

/// The seconds of a day.
const DAY: i64 = 24 * 3_600;

/// When a change is answered.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct WaitFlag {
    /// When the call returns: `committed` when the change is durable and in force on the server that answers, `everywhere`
    /// when every server has applied it.
    #[arg(long, value_name = "WHEN", default_value = "committed")]
    wait: Wait,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    Committed,
    Everywhere,
}

impl WaitFlag {
    /// The value in a request.
    pub(super) fn to_proto(self) -> i32 {
        match self.wait {
            Wait::Committed => pb::Wait::Committed as i32,
            Wait::Everywhere => pb::Wait::Everywhere as i32,
        }
    }
}

/// Which part of its partner a key reaches.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Level {
    /// Everything of the partner.
    Partner,
    /// One project.
    Project,
}

impl Level {
    /// The value in a request.
    pub(super) fn to_proto(self) -> i32 {
        match self {
            Self::Partner => pb::KeyLevel::Partner as i32,
            Self::Project => pb::KeyLevel::Project as i32,
        }
    }
}

/// When a key expires.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ExpiryFlags {
    /// Expire that long from now, such as 90d.
    #[arg(long, alias = "ttl", value_name = "SPAN", value_parser = span)]
    expires_in: Option<Duration>,
    /// Expire at this time, such as 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "expires_in")]
    expires_at: Option<Timestamp>,
}

impl ExpiryFlags {
    /// The time of expiry, if any.
    pub(super) fn time(self) -> Result<Option<Timestamp>, Failure> {
        match self.expires_in {
            Some(span) => from_now(span)
                .map(Some)
                .ok_or_else(|| Failure::usage("--expires-in is beyond the year 9999")),
            None => Ok(self.expires_at),
        }
    }

    /// The absolute flag for a later repetition of the command: by then, a span such as `90d` means another time.
    pub(super) fn repeat(self, time: Option<Timestamp>) -> String {
        match (self.expires_in, time) {
            (Some(_), Some(time)) => format!("--expires-at {time}"),
            _ => String::new(),
        }
    }
}

/// Parses a time span: `30s`, `1h 30min`, `90d`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    span::parse(text).map_err(|error| error.or("must be a time span such as `30s`, `1h` or `90d`"))
}

/// Converts a time span to the proto. `flag` names the flag in the error.
pub(super) fn span_to_proto(
    span: Option<Duration>,
    flag: &str,
) -> Result<Option<prost_types::Duration>, Failure> {
    span.map(prost_types::Duration::try_from)
        .transpose()
        .map_err(|_| Failure::usage(format!("{flag}: is too long")))
}

/// Parses a time in RFC 3339.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "must be a time such as `2030-01-31T12:00:00Z`".to_owned())
}

/// What [`past`] parses, in the words of the help.
pub(super) const PAST: &str = "TIME|SPAN|DAY";

/// Parses a time in RFC 3339, a time span before now, or a day in UTC, which stands for its beginning.
pub(super) fn past(text: &str) -> Result<Timestamp, String> {
    let day = |days_ago: i64| {
        let days = Timestamp::from(now()).seconds.div_euclid(DAY);
        Ok(Timestamp {
            seconds: (days - days_ago) * DAY,
            nanos: 0,
        })
    };
    match text {
        "today" => return day(0),
        "yesterday" => return day(1),
        _ => {}
    }
    time(text).or_else(|_| {
        let span = span::parse(text).map_err(|error| {
            error.or("must be a time such as `2030-01-31T12:00:00Z`, a span such as `24h` for that long ago, or a day: \
                      `today`, `yesterday` or `2030-01-31`")
        })?;
        let at = now().checked_sub(span);
        at.map(|at| to_the_second(at.into(), span))
            .ok_or_else(|| "is too long ago".to_owned())
    })
}

/// Returns the time `span` from now; `None` beyond the year 9999.
pub(super) fn from_now(span: Duration) -> Option<Timestamp> {
    // RFC 3339 has no later time; the server would have to reject it.
    let limit = Duration::from_secs(253_402_300_799);
    now()
        .checked_add(span)
        .filter(|at| *at <= SystemTime::UNIX_EPOCH + limit)
        .map(|at| to_the_second(at.into(), span))
}

/// Leaves out the parts of a second, which nobody means who names a span of a minute or more, and which are hard to type again.
fn to_the_second(at: Timestamp, span: Duration) -> Timestamp {
    let is_exact = span < Duration::from_mins(1);
    Timestamp {
        nanos: if is_exact { at.nanos } else { 0 },
        ..at
    }
}

/// Returns the time of this machine.
#[expect(
    clippy::disallowed_methods,
    reason = "the authority's clock is on the server; this one only turns `90d` into a time"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// Parses `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must look like `name=value`".to_owned()),
    }
}

/// Parses an environment and its tag, `name=tag`.
pub(super) fn environment(text: &str) -> Result<(String, String), String> {
    pair(text).map_err(|_| "must look like NAME=TAG, such as production=live".to_owned())
}

/// Collects pairs into a map. A repeated name is an error.
pub(super) fn by_name(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.contains_key(&name) {
            return Err(format!("`{name}` is given twice"));
        }
        map.insert(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_do() {
        assert_eq!(span("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(span("1h 30min"), Ok(Duration::from_mins(90)));
        assert!(span("1m").unwrap_err().contains("ambiguous"));
        assert!(past("1m").unwrap_err().contains("ambiguous"));
        for wrong in ["90", "soon", "", "99999999999999999999d", "1 fortnight"] {
            assert_eq!(
                span(wrong),
                Err("must be a time span such as `30s`, `1h` or `90d`".to_owned())
            );
        }
    }

    #[test]
    fn the_past_is_a_time_or_a_span() {
        assert_eq!(
            past("2027-01-15T10:00:00+02:00").unwrap(),
            Timestamp {
                seconds: 1_800_000_000,
                nanos: 0
            }
        );
        let day_ago = past("24h").unwrap().seconds;
        let now = from_now(Duration::ZERO).unwrap().seconds;
        assert!((now - 86_405..=now - 86_400).contains(&day_ago));
        let today = past("today").unwrap().seconds;
        assert!(today % DAY == 0 && (0..DAY + 5).contains(&(now - today)));
        let yesterday = past("yesterday").unwrap().seconds;
        assert!(yesterday % DAY == 0 && (DAY..2 * DAY + 5).contains(&(now - yesterday)));
        assert_eq!(past("2027-01-15").unwrap().seconds, 1_799_971_200);
        assert!(past("tomorrow").is_err());
    }

    #[test]
    fn a_time_without_a_text_is_not_made() {
        assert_eq!(from_now(Duration::from_hours(10_000 * 366 * 24)), None);
        assert_eq!(from_now(Duration::MAX), None);
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("=a").is_err());
        assert!(pair("a").is_err());
        assert_eq!(
            environment("production"),
            Err("must look like NAME=TAG, such as production=live".to_owned())
        );
    }

    #[test]
    fn a_name_comes_once() {
        let twice = vec![pair("a=1").unwrap(), pair("a=2").unwrap()];
        assert_eq!(by_name(twice), Err("`a` is given twice".to_owned()));
    }
}
