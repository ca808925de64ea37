//! A bar chart of text characters.

use crate::cli::text::grouped;

/// The number of consecutive empty rows from which one row replaces them.
const LONG_GAP: usize = 4;

/// One row of the chart: a label, and the counts of allowed and denied requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Bar {
    pub(in crate::cli) label: String,
    pub(in crate::cli) allowed: u64,
    pub(in crate::cli) denied: u64,
}

impl Bar {
    fn total(&self) -> u64 {
        self.allowed.saturating_add(self.denied)
    }

    fn count(&self) -> String {
        match (self.total(), self.denied) {
            (0, _) => String::new(),
            (total, 0) => grouped(total),
            (total, denied) => format!("{} ({} denied)", grouped(total), grouped(denied)),
        }
    }
}

/// Draws the bars, and says what they mean.
pub(in crate::cli) fn legend(bars: &[Bar], width: usize) -> String {
    format!("{}\n\n█ allowed  ░ denied", chart(bars, width))
}

/// Draws the bars, scaled so that the longest row fits `width` columns.
fn chart(bars: &[Bar], width: usize) -> String {
    let longest = |text: fn(&Bar) -> usize| bars.iter().map(text).max().unwrap_or(0);
    let labels = longest(|bar| bar.label.chars().count());
    let counts = longest(|bar| bar.count().chars().count());
    // Two spaces on either side of the bars. On a very narrow terminal the rows are longer than a line.
    let room = width.saturating_sub(labels + counts + 4).max(10) as u64;
    let most = bars.iter().map(Bar::total).max().unwrap_or(0).max(1);

    let mut lines = Vec::new();
    for run in bars.chunk_by(|a, b| a.total() == 0 && b.total() == 0) {
        if run.len() >= LONG_GAP {
            lines.push(format!("{:>labels$}  {} empty rows", "⋮", run.len()));
            continue;
        }
        for bar in run {
            let cells = share(bar.total(), most, room);
            // Each count that is not zero gets at least one cell, if the bar has two.
            let least = u64::from(bar.denied > 0 && cells > 1);
            let most_denied = cells - u64::from(bar.allowed > 0 && cells > 1);
            let denied = share(bar.denied, bar.total().max(1), cells)
                .max(least)
                .min(most_denied);
            let line = format!(
                "{:<labels$}  {}{}  {}",
                bar.label,
                "█".repeat((cells - denied) as usize),
                "░".repeat(denied as usize),
                bar.count()
            );
            lines.push(line.trim_end().to_owned());
        }
    }
    lines.join("\n")
}

/// Scales `part` of `whole` to a number of cells: at least one, unless `part` is zero.
fn share(part: u64, whole: u64, cells: u64) -> u64 {
    let rounded =
        (u128::from(part) * u128::from(cells) + u128::from(whole) / 2) / u128::from(whole);
    // At most `cells`, because `part` is at most `whole`.
    let rounded = u64::try_from(rounded).unwrap_or(cells);
    if part > 0 { rounded.max(1) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, allowed: u64, denied: u64) -> Bar {
        Bar {
            label: label.to_owned(),
            allowed,
            denied,
        }
    }

    #[test]
    fn the_longest_bar_fills_the_width_and_the_others_are_in_proportion() {
        let bars = [
            bar("08:00", 2_000, 0),
            bar("09:00", 500, 500),
            bar("10:00", 1, 0),
        ];
        assert_eq!(
            chart(&bars, 47),
            "08:00  ████████████████████  2,000\n\
             09:00  █████░░░░░  1,000 (500 denied)\n\
             10:00  █  1"
        );
        assert!(
            chart(&bars, 47)
                .lines()
                .all(|line| line.chars().count() <= 47)
        );
    }

    #[test]
    fn a_long_gap_takes_one_row_and_a_short_one_its_own() {
        let mut bars = vec![bar("00", 0, 0); 5];
        bars.extend([bar("05", 1, 0), bar("06", 0, 0), bar("07", 0, 1)]);
        let full = 40 - "05".len() - "1 (1 denied)".len() - 4;
        let (allowed, denied) = ("█".repeat(full), "░".repeat(full));
        assert_eq!(
            chart(&bars, 40),
            format!(" ⋮  5 empty rows\n05  {allowed}  1\n06\n07  {denied}  1 (1 denied)")
        );
    }

    #[test]
    fn rare_counts_are_visible() {
        let line = chart(&[bar("a", 1_000_000, 1)], 60);
        assert_eq!(line.matches('░').count(), 1, "{line}");
        let line = chart(&[bar("a", 1, 1_000_000)], 60);
        assert_eq!(line.matches('█').count(), 1, "{line}");
        let lines = chart(&[bar("a", 1_000_000, 0), bar("b", 1, 2)], 60);
        assert!(
            lines.ends_with("b  ░  3 (2 denied)"),
            "one cell shows the larger count: {lines}"
        );
    }

    #[test]
    fn a_width_that_is_too_small_and_counts_that_are_too_large_do_no_harm() {
        let bars = [bar("a", u64::MAX, u64::MAX), bar("b", 0, 1)];
        assert!(chart(&bars, 0).contains('█'));
        assert_eq!(chart(&[], 80), "");
    }
}
