//! Time spans as people write them: `30s`, `10min`, `1h 30min`, `90d`.

use std::fmt;
use std::time::Duration;

/// Why a text is not a time span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanError {
    /// The text does not consist of numbers with units.
    Malformed,
    /// A unit has two meanings, or no fixed length.
    Ambiguous {
        /// The number and its unit, as they were written.
        written: String,
        /// The clear forms, for people.
        clear: String,
    },
}

/// Parses a time span. A number without a unit is an error.
///
/// # Errors
/// [`SpanError::Ambiguous`] for `m`, which is a minute for some programs and a month for others, and for months and years, whose
/// length varies. `--retain-events 6m` would otherwise delete the audit trail after six minutes, or be refused for another
/// reason.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    let span = humantime::parse_duration(text).map_err(|_| SpanError::Malformed)?;
    let mut rest = text;
    while let Some(start) = rest.find(char::is_alphabetic) {
        let (number, from_unit) = rest.split_at(start);
        let end = from_unit.find(|c: char| !c.is_alphabetic());
        let (unit, after) = from_unit.split_at(end.unwrap_or(from_unit.len()));
        if let Some(clear) = clear_form(number.trim(), unit) {
            return Err(SpanError::Ambiguous {
                written: format!("{}{unit}", number.trim()),
                clear,
            });
        }
        rest = after;
    }
    Ok(span)
}

/// Returns the clear forms of a number of an ambiguous unit; `None` if the unit is clear.
fn clear_form(number: &str, unit: &str) -> Option<String> {
    let in_days = |days: u64| match number.parse::<u64>() {
        Ok(count) => format!("`{}d`", count.saturating_mul(days)),
        Err(_) => "a number of days such as `30d`".to_owned(),
    };
    match unit {
        "m" | "M" => Some(format!("`{number}min` or {}", in_days(30))),
        "month" | "months" => Some(in_days(30)),
        "y" | "yr" | "yrs" | "year" | "years" => Some(in_days(365)),
        _ => None,
    }
}

/// Formats a time span in days, hours, minutes and seconds, as [`parse`] accepts it: `90d`, `1h 30min`.
///
/// Months and years are not used, because their length varies.
pub fn format(span: Duration) -> String {
    let seconds = span.as_secs();
    let nanos = span.subsec_nanos();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

impl SpanError {
    /// The error for people. `malformed` says how a span looks like.
    pub fn or(self, malformed: &str) -> String {
        match self {
            Self::Malformed => malformed.to_owned(),
            Self::Ambiguous { .. } => self.to_string(),
        }
    }
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("must be a time span such as `30s`, `10min` or `90d`"),
            Self::Ambiguous { written, clear } => {
                write!(f, "`{written}` is ambiguous: write {clear}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_do() {
        for (text, seconds) in [
            ("30s", 30),
            ("10min", 600),
            ("1h 30min", 5_400),
            ("1h30min", 5_400),
            ("2 hours", 7_200),
            ("90d", 90 * 86_400),
            ("2w", 14 * 86_400),
            ("1 minute", 60),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for wrong in [
            "90",
            "soon",
            "",
            "99999999999999999999d",
            "1 fortnight",
            "-1d",
        ] {
            assert_eq!(parse(wrong), Err(SpanError::Malformed), "{wrong}");
        }
    }

    /// Seen red with humantime's own reading: `1m` is then a minute, `1M` a month of 30.44 days and `1y` a year of 365.25 days.
    #[test]
    fn a_unit_with_two_meanings_is_refused_with_the_clear_form() {
        for (text, error) in [
            ("1m", "`1m` is ambiguous: write `1min` or `30d`"),
            ("1M", "`1M` is ambiguous: write `1min` or `30d`"),
            ("6 m", "`6m` is ambiguous: write `6min` or `180d`"),
            ("1h 30m", "`30m` is ambiguous: write `30min` or `900d`"),
            ("2h1m30s", "`1m` is ambiguous: write `1min` or `30d`"),
            ("1y", "`1y` is ambiguous: write `365d`"),
            ("2 years", "`2years` is ambiguous: write `730d`"),
            ("1month", "`1month` is ambiguous: write `30d`"),
        ] {
            assert_eq!(parse(text).unwrap_err().or("?"), error);
        }
        assert_eq!(parse("soon").unwrap_err().or("?"), "?");
    }

    #[test]
    fn a_formatted_span_can_be_parsed_again() {
        for (span_in_millis, shown) in [
            (0, "0s"),
            (1_500, "1s 500ms"),
            (30_000, "30s"),
            (5_400_000, "1h 30min"),
            (90 * 86_400_000, "90d"),
            (400 * 86_400_000, "400d"),
        ] {
            let span = Duration::from_millis(span_in_millis);
            assert_eq!(format(span), shown);
            assert_eq!(parse(shown), Ok(span));
        }
    }
}
