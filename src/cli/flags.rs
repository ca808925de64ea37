//! Flags that several commands have, and what their words mean.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use crate::pb::claviger::v1 as pb;

use super::failure::Failure;

/// When a change is answered.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct WaitFlag {
    /// When to answer: `committed` as soon as the change is durable, `everywhere` when every server acts on it.
    #[arg(long, value_name = "WHEN", default_value = "committed")]
    wait: Wait,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    Committed,
    Everywhere,
}

impl WaitFlag {
    /// As the requests carry it.
    pub(super) fn on_wire(self) -> i32 {
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
    /// As the requests carry it.
    pub(super) fn on_wire(self) -> i32 {
        match self {
            Self::Partner => pb::KeyLevel::Partner as i32,
            Self::Project => pb::KeyLevel::Project as i32,
        }
    }
}

/// When a key expires.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ExpiryFlags {
    /// Let it expire that long from now, such as 90d.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    expires_in: Option<Duration>,
    /// Let it expire at this time, such as 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "expires_in")]
    expires_at: Option<Timestamp>,
}

impl ExpiryFlags {
    /// The time, if one is given.
    pub(super) fn time(self) -> Result<Option<Timestamp>, Failure> {
        match self.expires_in {
            Some(span) => from_now(span)
                .map(Some)
                .ok_or_else(|| Failure::usage("--expires-in lies beyond the year 9999")),
            None => Ok(self.expires_at),
        }
    }

    /// What has to be said in its place when the command is repeated later: `90d` is another time then.
    pub(super) fn repeat(self, time: Option<Timestamp>) -> String {
        match (self.expires_in, time) {
            (Some(_), Some(time)) => {
                format!(", and `--expires-at {time}` instead of --expires-in,")
            }
            _ => String::new(),
        }
    }
}

/// A span as people write it: `30s`, `1h 30m`, `90d`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a span looks like `30s`, `1h` or `90d`"))
}

/// A span as the requests carry it; `flag` is where it comes from.
pub(super) fn span_on_wire(
    span: Option<Duration>,
    flag: &str,
) -> Result<Option<prost_types::Duration>, Failure> {
    span.map(prost_types::Duration::try_from)
        .transpose()
        .map_err(|_| Failure::usage(format!("{flag} is too long")))
}

/// A time in RFC 3339.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "a time looks like `2030-01-31T12:00:00Z`".to_owned())
}

/// A time in RFC 3339, or how long it is past.
pub(super) fn past(text: &str) -> Result<Timestamp, String> {
    time(text).or_else(|_| {
        let span = humantime::parse_duration(text).map_err(|_| {
            "a time looks like `2030-01-31T12:00:00Z`, or like `24h` for that long ago".to_owned()
        })?;
        let at = now().checked_sub(span);
        at.map(Timestamp::from)
            .ok_or_else(|| "that is too long ago".to_owned())
    })
}

/// The time that is `span` from now.
pub(super) fn from_now(span: Duration) -> Option<Timestamp> {
    // Beyond the year 9999 a time has no text; the server would have to refuse it.
    let limit = Duration::from_secs(253_402_300_799);
    now()
        .checked_add(span)
        .filter(|at| *at <= SystemTime::UNIX_EPOCH + limit)
        .map(Timestamp::from)
}

/// The time on this side.
#[expect(
    clippy::disallowed_methods,
    reason = "the authority's clock is on the server; this one only turns `90d` into a time"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it looks like `name=value`".to_owned()),
    }
}

/// The pairs by their names, of which none may come twice.
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
        assert_eq!(span("1h 30m"), Ok(Duration::from_mins(90)));
        assert!(span("90").unwrap_err().contains("`30s`"));
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
        assert!(past("yesterday").is_err());
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
    }

    #[test]
    fn a_name_comes_once() {
        let twice = vec![pair("a=1").unwrap(), pair("a=2").unwrap()];
        assert_eq!(by_name(twice), Err("`a` is given twice".to_owned()));
    }
}
