//! Tests of the screens: that every table fits the terminal whatever it shows, and what each screen looks like.

mod hostile;
mod looks;

use prost_types::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr as _};

use super::output::Screen;
use super::style::without_colours;

/// The widths for which the screens are made.
const WIDTHS: [usize; 3] = [80, 100, 120];

/// The time at which the screens are shown.
fn now() -> Timestamp {
    at("2026-11-25T22:26:02Z")
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn screen(width: usize) -> Screen {
    Screen {
        width,
        height: 24,
        now: now(),
    }
}

/// The width of a line, measured in both ways that terminals have: with joined emoji as one, and one by one.
fn width(line: &str) -> usize {
    let apart: usize = line.chars().filter_map(UnicodeWidthChar::width).sum();
    apart.max(line.width())
}

/// Asserts that no line is wider than the terminal, and that nothing but colours can control it. Returns the lines without colours.
fn assert_fits(text: &str, columns: usize) -> Vec<String> {
    let bare = without_colours(text);
    for line in bare.lines() {
        let is_escaped = super::text::plain(line) == line;
        assert!(is_escaped, "{line:?} can control the terminal");
        let width = width(line);
        assert!(
            width <= columns,
            "{width} of {columns} columns:\n{line}\n\n{bare}"
        );
        assert_eq!(line.trim_end(), line, "no blank at the end");
    }
    bare.lines().map(str::to_owned).collect()
}
