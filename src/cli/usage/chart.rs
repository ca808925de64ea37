//! A bar chart of text characters.

use crate::cli::style::Tone;
use crate::cli::text::{grouped, percent, plain};
use crate::cli::width::{width, wrap};

/// The number of consecutive empty rows from which one row replaces them.
const LONG_GAP: usize = 4;

/// One row of the chart: a label, and the counts of allowed and denied requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Bar {
    /// What the row shares with its neighbours, such as the day of an hour. It stands in the first of them.
    pub(in crate::cli) group: String,
    pub(in crate::cli) label: String,
    pub(in crate::cli) allowed: u64,
    pub(in crate::cli) denied: u64,
    /// Whether the counts are only of a part of what the label says.
    pub(in crate::cli) is_partial: bool,
}

/// A chart of several bars.
#[derive(Debug)]
pub(in crate::cli) struct Chart {
    pub(in crate::cli) bars: Vec<Bar>,
    /// What each bar stands for, such as `hour`. Only bars of time can be empty or partial.
    pub(in crate::cli) unit: &'static str,
}

impl Bar {
    pub(super) fn total(&self) -> u64 {
        self.allowed.saturating_add(self.denied)
    }

    fn denied(&self) -> String {
        match (self.denied, self.total()) {
            (0, _) => String::new(),
            (denied, total) => format!("{}  {}", grouped(denied), percent(denied, total)),
        }
    }

    /// The numbers of cells for allowed and for denied requests. Each is in proportion; a single cell shows the larger count.
    fn cells(&self, most: u64, room: u64) -> (usize, usize) {
        let cells = share(self.total(), most, room).max(u64::from(self.total() > 0));
        let denied = share(self.denied, self.total().max(1), cells);
        ((cells - denied) as usize, denied as usize)
    }
}

impl Chart {
    /// Draws the bars in `columns`, scaled so that the longest one fills the room between its label and its counts.
    pub(in crate::cli) fn text(&self, columns: usize, is_screen: bool) -> String {
        let longest = |text: fn(&Bar) -> String| {
            let widths = self.bars.iter().map(|bar| width(&text(bar)));
            widths.max().unwrap_or(0)
        };
        let limit = (columns / 3).max(16);
        let widths = self.bars.iter().map(|bar| width(&label(bar)));
        let labels = widths.filter(|width| *width <= limit).max().unwrap_or(0);
        let groups = longest(|bar| bar.group.clone());
        let names = if groups > 0 {
            groups + 1 + labels
        } else {
            labels
        };
        let totals = longest(|bar| grouped(bar.total())).max("total".len());
        let denials = longest(Bar::denied);
        let denials = if denials > 0 {
            denials.max("denied".len()) + 2
        } else {
            0
        };
        let room = columns.saturating_sub(names + 2 + 2 + totals + denials);
        let room = room.max(1);
        let most = self.bars.iter().map(Bar::total).max().unwrap_or(0).max(1);

        let legend = format!("{:names$}  █ allowed  ░ denied", "");
        let numbers = format!(
            "{:>totals$}{:>denials$}",
            "total",
            if denials > 0 { "denied" } else { "" }
        );
        let bars_end = names + 2 + room + 2;
        let blank = bars_end.saturating_sub(width(&legend));
        let mut lines = if blank >= 2 {
            vec![format!("{legend}{:blank$}{numbers}", "")]
        } else {
            vec![legend, format!("{:bars_end$}{numbers}", "")]
        };
        let mut last_group = "";
        for run in self.bars.chunk_by(|a, b| a.total() == 0 && b.total() == 0) {
            if run.len() >= LONG_GAP {
                lines.push(format!(
                    "{:>names$}  {} {}s of nothing",
                    "⋮",
                    run.len(),
                    self.unit
                ));
                continue;
            }
            for bar in run {
                let label = label(bar);
                let mut name = if groups == 0 {
                    label
                } else if bar.group == last_group {
                    format!("{:groups$} {label}", "")
                } else {
                    format!("{:>groups$} {label}", bar.group)
                };
                last_group = &bar.group;
                if width(&name) > names {
                    lines.extend(wrap(&name, columns));
                    name = String::new();
                }
                let (allowed, denied) = bar.cells(most, room as u64);
                let total = if bar.total() > 0 {
                    grouped(bar.total())
                } else {
                    String::new()
                };
                let line = format!(
                    "{name}{:label$}{}{}{:rest$}{total:>totals$}{:>denials$}",
                    "",
                    Tone::Good.paint_on(is_screen, &"█".repeat(allowed)),
                    Tone::Bad.paint_on(is_screen, &"░".repeat(denied)),
                    "",
                    bar.denied(),
                    label = names + 2 - width(&name),
                    rest = room - allowed - denied + 2,
                );
                lines.push(line.trim_end().to_owned());
            }
        }
        if self.bars.iter().any(|bar| bar.is_partial) {
            lines.push(format!("* not the whole {}", self.unit));
        }
        lines.join("\n")
    }
}

fn label(bar: &Bar) -> String {
    let mark = if bar.is_partial { "*" } else { "" };
    format!("{}{mark}", plain(&bar.label))
}

/// Scales `part` of `whole` to a number of cells; a half is rounded down.
fn share(part: u64, whole: u64, cells: u64) -> u64 {
    let doubled = 2 * u128::from(part) * u128::from(cells) + u128::from(whole) - 1;
    // At most `cells`, because `part` is at most `whole`.
    u64::try_from(doubled / (2 * u128::from(whole))).unwrap_or(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, allowed: u64, denied: u64) -> Bar {
        Bar {
            label: label.to_owned(),
            allowed,
            denied,
            ..Bar::default()
        }
    }

    fn lines(bars: &[Bar], columns: usize) -> Vec<String> {
        let chart = Chart {
            bars: bars.to_vec(),
            unit: "hour",
        };
        let text = chart.text(columns, false);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_longest_bar_fills_the_width_and_the_others_are_in_proportion() {
        let bars = [bar("08", 2_000, 0), bar("09", 500, 500), bar("10", 1, 0)];
        let (full, half) = (
            "█".repeat(23),
            format!("{}{}", "█".repeat(6), "░".repeat(5)),
        );
        let gap = " ".repeat(14);
        assert_eq!(
            lines(&bars, 45).join("\n"),
            format!(
                "    █ allowed  ░ denied      total     denied\n\
                 08  {full}  2,000\n\
                 09  {half}{gap}1,000  500  50 %\n\
                 10  █{gap}{gap}1"
            )
        );
    }

    #[test]
    fn a_bar_of_one_cell_shows_the_larger_count() {
        let bars = [
            bar("a", 100_000, 0),
            bar("b", 90, 10),
            bar("c", 10, 90),
            bar("d", 5, 5),
        ];
        let shown = lines(&bars, 60);
        let cell = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
        assert_eq!(cell(&shown[2]), "█");
        assert_eq!(cell(&shown[3]), "░");
        assert_eq!(cell(&shown[4]), "█");
        assert!(shown[2].ends_with("100  10  10 %"), "{}", shown[2]);
    }

    #[test]
    fn few_denials_are_in_the_numbers_and_not_exaggerated_by_the_bar() {
        let shown = lines(&[bar("a", 996, 4)], 60);
        assert!(!shown[1].contains('░'), "{}", shown[1]);
        assert!(shown[1].ends_with("1,000  4  0.4 %"), "{}", shown[1]);
    }

    #[test]
    fn a_long_gap_takes_one_row_and_a_short_one_its_own() {
        let mut bars = vec![bar("00", 0, 0); 5];
        bars.extend([bar("05", 1, 0), bar("06", 0, 0), bar("07", 1, 0)]);
        let shown = lines(&bars, 40);
        assert_eq!(shown[1], " ⋮  5 hours of nothing");
        assert!(shown[2].starts_with("05  █"));
        assert_eq!(shown[3], "06");
    }

    #[test]
    fn a_group_stands_in_its_first_row_and_a_partial_bar_is_marked() {
        let mut bars = vec![bar("22", 1, 0), bar("23", 1, 0), bar("00", 1, 0)];
        for (bar, day) in bars.iter_mut().zip(["24 Nov", "24 Nov", "25 Nov"]) {
            bar.group = day.to_owned();
        }
        bars[2].is_partial = true;
        let shown = lines(&bars, 40);
        assert!(shown[1].starts_with("24 Nov 22   █"), "{}", shown[1]);
        assert!(shown[2].starts_with("       23   █"), "{}", shown[2]);
        assert!(shown[3].starts_with("25 Nov 00*  █"), "{}", shown[3]);
        assert_eq!(shown[4], "* not the whole hour");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_also_with_long_labels_and_counts() {
        let bars = [
            bar(&"東京".repeat(40), u64::MAX, u64::MAX),
            bar("b", 0, 1),
            bar(&"b\u{202e}".repeat(20), 7, 1),
        ];
        for columns in [80, 100, 120] {
            for line in lines(&bars, columns) {
                assert!(width(&line) <= columns, "{columns}: {line}");
            }
        }
        assert!(lines(&bars, 0).iter().any(|line| line.contains('█')));
        assert_eq!(lines(&[], 80).len(), 1);
    }
}
