//! The width of texts in columns of the terminal: an ideograph has two, a combining mark none.

use std::env;

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::style::Tone;

const ELLIPSIS: &str = "…";

/// The number of columns that a text takes. Where terminals differ, as with joined emoji, it is the larger number.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.graphemes(true).map(grapheme_width).sum()
}

fn grapheme_width(grapheme: &str) -> usize {
    let apart: usize = grapheme
        .chars()
        .map(|character| character.width().unwrap_or(0))
        .sum();
    apart.max(grapheme.width())
}

/// Cuts the end of a text that takes more than `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if self::width(text) <= width {
        return text.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    format!("{}{ELLIPSIS}", head(text, width - 1).0)
}

/// Cuts the middle of a text that takes more than `width` columns.
pub(super) fn cut_middle(text: &str, width: usize) -> String {
    if self::width(text) <= width || width < 3 {
        return cut(text, width);
    }
    let of_tail = (width - 1) / 2;
    let (head, rest) = head(text, width - 1 - of_tail);
    let mut tail = rest.len();
    let mut taken = 0;
    for (at, grapheme) in rest.grapheme_indices(true).rev() {
        taken += grapheme_width(grapheme);
        if taken > of_tail {
            break;
        }
        tail = at;
    }
    format!("{head}{ELLIPSIS}{}", &rest[tail..])
}

/// Splits a text after at most `width` columns.
fn head(text: &str, width: usize) -> (&str, &str) {
    let mut taken = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        taken += grapheme_width(grapheme);
        if taken > width {
            return text.split_at(at);
        }
    }
    (text, "")
}

/// Breaks a text into lines of at most `width` columns, between words where it can.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    wrap_words(text.split(' '), width)
}

/// Puts words into lines of at most `width` columns.
fn wrap_words<'a>(words: impl IntoIterator<Item = &'a str>, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for mut word in words {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() || self::width(line) + 1 + self::width(word) <= width {
            if !line.is_empty() {
                line.push(' ');
            }
        } else {
            lines.push(String::new());
        }
        while self::width(word) > width {
            let (start, rest) = head(word, width);
            // A character can be wider than the line.
            let (start, rest) = if start.is_empty() {
                word.split_at(word.graphemes(true).next().map_or(0, str::len))
            } else {
                (start, rest)
            };
            lines.last_mut().expect("there is a line").push_str(start);
            word = rest;
            if word.is_empty() {
                break;
            }
            lines.push(String::new());
        }
        lines.last_mut().expect("there is a line").push_str(word);
    }
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

/// Breaks the lines of a text that are wider than a terminal of `width` columns, between words. What follows on from a fact stands
/// below its value.
///
/// Left as they are: commands, which are to be pasted, words that are wider themselves, and lines with colours, which fit already.
pub(super) fn fit(text: &str, width: usize) -> String {
    let mut goes_on = false;
    let lines = text.split('\n').map(|line| {
        let is_command = goes_on
            || line.ends_with('\\')
            || line.split_whitespace().next().is_some_and(is_program);
        goes_on = line.ends_with('\\');
        if self::width(line) <= width || is_command || line.contains('\x1b') {
            return line.to_owned();
        }
        let (start, rest) = line.split_at(start_of_value(line, width));
        let indent = self::width(start);
        let room = width - indent;
        let words = whole_commands(rest);
        if words.iter().any(|word| self::width(word) > room) {
            return line.to_owned();
        }
        let next = format!("\n{}", " ".repeat(indent));
        format!("{start}{}", wrap_words(words, room).join(&next))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a word is this program, as it was called or by its name.
fn is_program(word: &str) -> bool {
    word == "claviger"
        || word.ends_with("/claviger")
        || env::args_os().next().is_some_and(|program| program == word)
}

/// The words of a text. A command is one word: it stands in backticks, or ends with the clause.
fn whole_commands(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut is_quoted, mut is_command) = (0, false, false);
    let ends = text.match_indices(' ').map(|(at, _)| at);
    let mut part = 0;
    for end in ends.chain([text.len()]) {
        let word = &text[part..end];
        part = (end + 1).min(text.len());
        is_quoted ^= word.matches('`').count() % 2 == 1;
        is_command = (is_command || is_program(word)) && !word.ends_with([',', ';', ':', '.']);
        if end == text.len() || !(is_quoted || is_command) {
            words.push(&text[start..end]);
            start = part;
        }
    }
    words
}

/// Where the value of a fact begins; after the line's indentation if it is no fact.
fn start_of_value(line: &str, width: usize) -> usize {
    let indent = line.len() - line.trim_start().len();
    let end_of_name = line[indent..].find("  ").map(|at| indent + at);
    let value = end_of_name.map(|end| line.len() - line[end..].trim_start().len());
    let value = value.filter(|value| self::width(&line[..*value]) <= width / 2);
    value.unwrap_or(if indent <= width / 2 { indent } else { 0 })
}

/// Puts texts at both ends of a line of `width` columns, or of more if they need it and the terminal has them. Texts that do not
/// fit get a line each.
pub(super) fn spread(
    [(left, left_tone), (right, right_tone)]: [(&str, Tone); 2],
    width: usize,
    terminal: usize,
) -> String {
    let texts = self::width(left) + self::width(right);
    if texts + 2 > terminal {
        let [left, right] = [left, right].map(|text| cut(text, terminal));
        return format!("{}\n{}", left_tone.paint(&left), right_tone.paint(&right));
    }
    let blank = width.saturating_sub(texts).max(2);
    format!(
        "{}{}{}",
        left_tone.paint(left),
        " ".repeat(blank),
        right_tone.paint(right)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_is_that_of_the_terminal() {
        for (text, columns) in [
            ("abc", 3),
            ("東京", 4),
            ("e\u{301}", 1),
            ("Łódź", 4),
            ("👍🏽", 4),
            ("👩\u{200d}👧", 4),
            ("❤\u{fe0f}", 2),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
        assert_eq!(cut("東京タワー", 5), "東京…");
        assert_eq!(cut("東京タワー", 4), "東…");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        assert_eq!(cut("ab👩\u{200d}👧", 5), "ab…", "an emoji is not torn");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut_middle("umbrella-corporation", 9), "umbr…tion");
        assert_eq!(cut_middle("東京タワー", 6), "東…ー");
    }

    #[test]
    fn what_does_not_fit_is_broken_below_where_it_begins() {
        for (text, shown) in [
            ("id  one two", "id  one two"),
            ("ids  one two three", "ids  one two\n     three"),
            ("  a longer sentence", "  a longer\n  sentence"),
            ("id  0192f0c1-2345", "id  0192f0c1-2345"),
            ("  claviger keys get ci", "  claviger keys get ci"),
            ("a `b c d e`, f g", "a `b c d e`,\nf g"),
            ("claviger a, or claviger b", "claviger a, or claviger b"),
            (
                "see claviger a, or claviger b",
                "see\nclaviger a,\nor\nclaviger b",
            ),
            ("one `two", "one `two"),
            (
                "  claviger a \\\n    --b c d e f g",
                "  claviger a \\\n    --b c d e f g",
            ),
            ("\x1b[1mone two three\x1b[0m", "\x1b[1mone two three\x1b[0m"),
            ("name  東京 タワー 京", "name  東京\n      タワー\n      京"),
        ] {
            assert_eq!(fit(text, 12), shown);
        }
    }

    #[test]
    fn a_text_is_broken_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("東京", 1), ["東", "京"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
