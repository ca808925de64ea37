//! Formatting for people: facts, times and time spans.
//!
//! Names, labels and reasons are free text of other people. [`plain`] escapes the control characters in them, which could
//! control the terminal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::Timestamp;

use super::width::width;

pub(super) use crate::domain::span::format as span;

/// Escapes control characters and the characters that change the writing direction.
pub fn plain(text: &str) -> Cow<'_, str> {
    escape(text, |unsafe_char, out| {
        out.extend(unsafe_char.escape_default());
    })
}

/// Replaces the characters that could control a terminal by what `write` appends for them.
pub(super) fn escape(text: &str, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
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
            write(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Formats one fact on each line: its name and its value. Facts with an empty value are omitted.
pub(super) fn facts<N: Into<String>>(facts: impl IntoIterator<Item = (N, String)>) -> String {
    let facts: Vec<_> = facts
        .into_iter()
        .filter(|(_, fact)| !fact.is_empty())
        .map(|(name, fact)| (name.into(), fact))
        .collect();
    let longest = facts.iter().map(|(name, _)| width(name)).max();
    let lines = facts.iter().map(|(name, fact)| {
        let blank = " ".repeat(longest.unwrap_or(0) - width(name) + 2);
        format!("{name}{blank}{}", plain(fact))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Formats a time in RFC 3339, to the second.
pub(super) fn time(time: &Timestamp) -> String {
    Timestamp {
        seconds: time.seconds,
        nanos: 0,
    }
    .to_string()
}

/// Formats an optional time; empty without one.
pub(super) fn time_if_any(at: Option<&Timestamp>) -> String {
    at.map(time).unwrap_or_default()
}

/// Formats an optional expiry; `never` without one.
pub(super) fn expiry(at: Option<&Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), time)
}

/// Formats an optional time span; empty without one, and for zero.
pub(super) fn span_if_any(length: Option<&prost_types::Duration>) -> String {
    length
        .and_then(|length| Duration::try_from(*length).ok())
        .filter(|span| !span.is_zero())
        .map(span)
        .unwrap_or_default()
}

/// Formats a count with thousands separators: `12,345`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a part of a whole in per cent: `0.4 %`, `25 %`. Only the whole is 100 %, and only nothing 0 %.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let thousandths = u128::from(part) * 1_000 / u128::from(whole.max(1));
    match thousandths {
        0 if part > 0 => "< 0.1 %".to_owned(),
        0..100 => format!("{}.{} %", thousandths / 10, thousandths % 10),
        _ => format!("{} %", thousandths / 10),
    }
}

/// Formats pairs as `name=value`, in the order of the names.
pub(super) fn pairs(pairs: &BTreeMap<String, String>) -> String {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.sort_unstable();
    pairs.join(", ")
}

/// Formats the granted scopes; full access takes the place of the list.
pub(super) fn granted(scopes: &[String], full_access: bool) -> String {
    if full_access {
        "full access".to_owned()
    } else if scopes.is_empty() {
        "none".to_owned()
    } else {
        scopes.join(", ")
    }
}

/// Formats an enum value of the proto as a flag accepts it: `KEY_STATE_ACTIVE` is `active`.
pub(super) fn enum_value(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_lowercase()
        .replace('_', "-")
}

/// The owner of keys: a partner, and its project if they are bound to one. The realm for keys of operators.
pub(super) fn owner(realm: &str, partner: &str, project: &str) -> String {
    match (partner, project) {
        ("", _) => realm.to_owned(),
        (partner, "") => partner.to_owned(),
        (partner, project) => format!("{partner}/{project}"),
    }
}

/// Shortens a hint to the tag and the last characters: `live …plvF`. Another system's hint stays as it is.
pub(super) fn short_hint(hint: &str) -> String {
    let short = hint.split_once('…').and_then(|(head, end)| {
        let (_, tag) = head.strip_suffix('_')?.rsplit_once('_')?;
        Some(format!("{tag} …{end}"))
    });
    short.unwrap_or_else(|| hint.to_owned())
}

/// Formats the name of a message as words: `CredentialSource` is `credential source`.
pub(super) fn spaced(name: &str) -> String {
    let mut spaced = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced.push(c.to_ascii_lowercase());
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_control_a_terminal_is_escaped() {
        assert_eq!(plain("Żółw & Co, 亀"), "Żółw & Co, 亀");
        assert_eq!(plain("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(plain("a\nb\tc\u{9b}d"), "a\\nb\\tc\\u{9b}d");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn facts_without_a_value_are_omitted() {
        let facts = facts([
            ("id", "1".to_owned()),
            ("project", String::new()),
            ("partner", "acme".to_owned()),
        ]);
        assert_eq!(facts, "id       1\npartner  acme");
    }

    #[test]
    fn times_are_shown_to_the_second() {
        let at = Timestamp {
            seconds: 1_800_000_000,
            nanos: 123_456_000,
        };
        assert_eq!(time(&at), "2027-01-15T08:00:00Z");
        assert_eq!(expiry(None), "never");
    }

    #[test]
    fn a_share_is_never_rounded_to_all_or_nothing() {
        for (part, whole, shown) in [
            (0, 7, "0.0 %"),
            (1, 10_000, "< 0.1 %"),
            (41, 7_570, "0.5 %"),
            (32, 313, "10 %"),
            (9_999, 10_000, "99 %"),
            (5, 5, "100 %"),
            (0, 0, "0.0 %"),
        ] {
            assert_eq!(percent(part, whole), shown);
        }
    }

    #[test]
    fn thousands_are_separated() {
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
