//! Points in time, as whole microseconds since the Unix epoch: the same in memory and in both databases.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 9999-12-31T23:59:59.999999Z, the last instant that a `google.protobuf.Timestamp` can represent.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Returns the instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the number of microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the instant `span` later, but at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros)).min(Self::MAX)
    }

    /// Returns the instant `span` earlier, which may be before the epoch.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// The instant in RFC 3339, to the second.
    pub fn rfc3339(self) -> impl fmt::Display {
        let since_epoch = self.since(Self::from_micros(0));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch)
    }

    /// Returns the time from `earlier` to this instant; zero if `earlier` is not before this instant.
    pub fn since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0))
            .map_or(Duration::ZERO, Duration::from_micros)
    }
}

/// An hour of UTC, counted since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i64);

impl Hour {
    const MICROS: i64 = 3_600_000_000;

    /// Returns the hour with this number.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// Returns the hour that contains this instant.
    pub const fn of(time: Timestamp) -> Self {
        Self(time.0.div_euclid(Self::MICROS))
    }

    /// Returns the number of the hour.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// Returns the next hour.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the first instant of the hour.
    pub const fn start(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(Self::MICROS))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        };
        Self(micros)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}µs", self.0)
    }
}

/// The expiry of a key or secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Timestamp>", into = "Option<Timestamp>")]
pub enum Expiry {
    /// There is no expiry.
    Never,
    /// The key or secret is expired from this instant on.
    At(Timestamp),
}

impl Expiry {
    /// Returns whether the expiry has passed.
    pub fn is_over(self, now: Timestamp) -> bool {
        match self {
            Self::Never => false,
            Self::At(end) => now >= end,
        }
    }

    /// Returns the earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match other {
            Self::Never => self,
            Self::At(instant) => self.or_earlier(instant),
        }
    }

    /// Returns the earlier of this expiry and `instant`.
    #[must_use]
    pub fn or_earlier(self, instant: Timestamp) -> Self {
        match self {
            Self::Never => Self::At(instant),
            Self::At(end) => Self::At(end.min(instant)),
        }
    }

    /// Returns the time until the expiry; `None` if there is none.
    pub fn time_left(self, now: Timestamp) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(end.since(now)),
        }
    }
}

impl From<Option<Timestamp>> for Expiry {
    fn from(end: Option<Timestamp>) -> Self {
        end.map_or(Self::Never, Self::At)
    }
}

impl From<Expiry> for Option<Timestamp> {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Never => None,
            Expiry::At(end) => Some(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_has_passed_at_its_instant_and_not_a_microsecond_before() {
        let end = Timestamp::from_micros(1_000_000);
        assert!(!Expiry::At(end).is_over(Timestamp::from_micros(999_999)));
        assert!(Expiry::At(end).is_over(end));
        assert!(!Expiry::Never.is_over(Timestamp::MAX));
    }

    #[test]
    fn spans_never_go_below_zero_and_sums_never_beyond_the_last_instant() {
        let early = Timestamp::from_micros(5);
        let late = Timestamp::from_micros(9);
        assert_eq!(late.since(early), Duration::from_micros(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(late.saturating_sub(Duration::from_micros(4)), early);
        assert!(late.saturating_sub(Duration::MAX) < Timestamp::from_micros(0));
    }

    #[test]
    fn an_hour_begins_with_its_first_microsecond_also_before_the_epoch() {
        for (micros, number) in [
            (0, 0),
            (3_599_999_999, 0),
            (3_600_000_000, 1),
            (-1, -1),
            (-3_600_000_001, -2),
        ] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(Hour::of(time), Hour::from_number(number), "{micros}");
        }
        assert_eq!(
            Hour::from_number(2).start(),
            Timestamp::from_micros(7_200_000_000)
        );
    }
}
