//! How things are written for people: tables, facts, times and spans.
//!
//! Names, labels and reasons are free text of others. [`plain`] stands between them and the terminal, which would obey
//! the control characters in them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Table, presets};
use prost_types::Timestamp;

/// The text with all that a terminal would obey spelled out: control characters, and those that turn the direction of
/// writing.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    escape(text, |unsafe_char, out| {
        out.extend(unsafe_char.escape_default());
    })
}

/// The text with what a terminal would obey spelled by `spell`.
pub(super) fn escape(text: &str, spell: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            spell(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Aligned columns under a header.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| match plain(cell) {
            Cow::Borrowed("") => Cow::Borrowed("-"),
            cell => cell,
        }));
    }
    aligned(&mut table)
}

/// One fact a line: its name and what it is. Facts of which nothing is known are left out.
pub(super) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, fact) in facts {
        if !fact.is_empty() {
            table.add_row([Cow::Borrowed(name), plain(&fact)]);
        }
    }
    aligned(&mut table)
}

fn aligned(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// RFC 3339, to the second.
pub(super) fn time(time: &Timestamp) -> String {
    Timestamp {
        seconds: time.seconds,
        nanos: 0,
    }
    .to_string()
}

/// A time that may not be known, or not have come.
pub(super) fn time_if_any(at: Option<&Timestamp>) -> String {
    at.map(time).unwrap_or_default()
}

/// The end of something that may have none.
pub(super) fn expiry(at: Option<&Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), time)
}

/// A span in days, hours, minutes and seconds, as the flags take it: `90d`, `1h 30m`.
///
/// Months and years are left out because they are not always equally long.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let nanos = span.subsec_nanos();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
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

/// A span on the wire, which may be left out.
pub(super) fn span_if_any(on_wire: Option<&prost_types::Duration>) -> String {
    on_wire
        .and_then(|on_wire| Duration::try_from(*on_wire).ok())
        .filter(|span| !span.is_zero())
        .map(span)
        .unwrap_or_default()
}

/// A count with its thousands apart: `12,345`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `name=value`, in the order of the names.
pub(super) fn pairs(pairs: &BTreeMap<String, String>) -> String {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.sort_unstable();
    pairs.join(", ")
}

/// Scopes by name; to hold every scope says more than any list.
pub(super) fn granted(scopes: &[String], full_access: bool) -> String {
    if full_access {
        "full access".to_owned()
    } else if scopes.is_empty() {
        "none".to_owned()
    } else {
        scopes.join(", ")
    }
}

/// A value of the proto's enums as a flag takes it: `KEY_STATE_ACTIVE` is `active`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_lowercase()
        .replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(plain("Żółw & Co, 亀"), "Żółw & Co, 亀");
        assert_eq!(plain("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(plain("a\nb\tc\u{9b}d"), "a\\nb\\tc\\u{9b}d");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn a_table_aligns_its_columns_and_escapes_its_cells() {
        let rows = [
            vec!["acme".to_owned(), "two\nlines".to_owned()],
            vec!["b".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["ID", "DISPLAY NAME"], rows),
            "ID    DISPLAY NAME\nacme  two\\nlines\nb     -"
        );
    }

    #[test]
    fn facts_that_are_not_known_are_left_out() {
        let facts = facts([
            ("id", "1".to_owned()),
            ("project", String::new()),
            ("partner", "acme".to_owned()),
        ]);
        assert_eq!(facts, "id       1\npartner  acme");
    }

    #[test]
    fn times_are_told_to_the_second() {
        let at = Timestamp {
            seconds: 1_800_000_000,
            nanos: 123_456_000,
        };
        assert_eq!(time(&at), "2027-01-15T08:00:00Z");
        assert_eq!(expiry(None), "never");
    }

    #[test]
    fn a_shown_span_can_be_typed_again() {
        for (span_in_millis, shown) in [
            (0, "0s"),
            (1_500, "1s 500ms"),
            (30_000, "30s"),
            (5_400_000, "1h 30m"),
            (90 * 86_400_000, "90d"),
            (400 * 86_400_000, "400d"),
        ] {
            let length = Duration::from_millis(span_in_millis);
            assert_eq!(span(length), shown);
            assert_eq!(humantime::parse_duration(shown), Ok(length));
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (count, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(count), shown);
        }
    }
}
