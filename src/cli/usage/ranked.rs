//! Tables of the owners and keys that rank highest.

use super::chart::Bar;
use super::counts::{count_bar, denials, only_denial};
use super::owner_name;
use crate::cli::output::Screen;
use crate::cli::table::{Cell, Column, Row, Table};
use crate::cli::text::{grouped, owner, percent, short_hint};
use crate::pb::claviger::v1::{GetUsageResponse, KeyUsage, VerdictCount};

/// The columns of counts. The numbers are cells of equal width, so that they stand below each other.
const COUNTS: [Column; 3] = [
    Column::whole("PRESENTED", 50),
    Column::whole("DENIED", 90),
    Column::text("WHY", 60, 13, 40),
];

/// The keys of an answer; `None` if it has none.
pub(in crate::cli) fn keys(answer: &GetUsageResponse, screen: Option<Screen>) -> Option<String> {
    let columns: &[_] = match screen {
        Some(_) => &[
            Column::text("NAME", 70, 10, 20),
            Column::id("OWNER", 80, 8, 14),
            // What commands and people call a key by, so it stays longest.
            Column::id("KEY", 100, 10, 20),
        ],
        None => {
            &["ID", "NAME", "PARTNER", "PROJECT", "ENV", "HINT"].map(|name| Column::whole(name, 0))
        }
    };
    let rows = answer.keys.iter().map(|usage| {
        let row = if screen.is_some() {
            row_on_screen(usage)
        } else {
            whole_row(usage)
        };
        (row, &*usage.counts)
    });
    let more = answer.more_keys.then_some("keys");
    shown(columns, rows.collect(), more, screen)
}

/// The owners of an answer that is ranked by denials; `None` if it has none.
pub(in crate::cli) fn owners_denied(
    answer: &GetUsageResponse,
    is_by_project: bool,
    screen: Option<Screen>,
) -> Option<String> {
    let columns: &[_] = match screen {
        Some(_) => &[Column::id("OWNER", 100, 12, 40)],
        None => &["PARTNER", "PROJECT"].map(|name| Column::whole(name, 0)),
    };
    let rows = answer.owners.iter().map(|usage| {
        let cells = if screen.is_some() {
            vec![Cell::new(owner_name(answer, usage, is_by_project))]
        } else {
            vec![Cell::new(&usage.partner), Cell::new(&usage.project)]
        };
        let row = Row {
            cells,
            ..Row::default()
        };
        (row, &*usage.counts)
    });
    let more = answer.more_owners.then_some("owners");
    shown(columns, rows.collect(), more, screen)
}

/// A row as a list of keys has it, without counts.
fn row_on_screen(usage: &KeyUsage) -> Row {
    let identity = usage.key_id.clone();
    // Each key that can be read has an environment.
    if usage.environment.is_empty() {
        return Row {
            cells: vec![Cell::dim("(unreadable)"), Cell::new(""), Cell::new("")],
            // Nothing else names it.
            note: identity,
            ..Row::default()
        };
    }
    let owner = owner(&usage.realm, &usage.partner, &usage.project);
    let texts = [usage.name.clone(), owner, short_hint(&usage.hint)];
    Row {
        cells: texts.iter().map(Cell::new).collect(),
        note: String::new(),
        identity,
    }
}

fn whole_row(usage: &KeyUsage) -> Row {
    let texts = [
        &usage.key_id,
        &usage.name,
        &usage.partner,
        &usage.project,
        &usage.environment,
        &usage.hint,
    ];
    Row {
        cells: texts.into_iter().map(Cell::new).collect(),
        ..Row::default()
    }
}

/// Formats rows with their counts. `more` is what there is more of.
fn shown(
    columns: &[Column],
    rows: Vec<(Row, &[VerdictCount])>,
    more: Option<&str>,
    screen: Option<Screen>,
) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let bars: Vec<_> = rows.iter().map(|(_, counts)| bar(counts)).collect();
    let longest = |text: fn(&Bar) -> String| bars.iter().map(|bar| text(bar).len()).max();
    let total: fn(&Bar) -> String = |bar| grouped(bar.total());
    let denied: fn(&Bar) -> String = |bar| grouped(bar.denied);
    let share: fn(&Bar) -> String = |bar| percent(bar.denied, bar.total());
    let totals = longest(total).unwrap_or(0).max("PRESENTED".len());
    let (numbers, shares) = (longest(denied).unwrap_or(0), longest(share).unwrap_or(0));
    // The number of the only reason stands beside it.
    let why = |counts| {
        let only = screen.and_then(|_| only_denial(counts));
        only.unwrap_or_else(|| denials(counts))
    };
    // As a chart, a screen has no column for denials where nothing was denied.
    let is_all_allowed = screen.is_some() && bars.iter().all(|bar| bar.denied == 0);
    let number = if is_all_allowed { 1 } else { COUNTS.len() };
    let mut table = Table::new(columns.iter().chain(&COUNTS[..number]).copied());
    for ((mut row, counts), bar) in rows.into_iter().zip(&bars) {
        let denied = match bar.denied {
            0 => String::new(),
            _ => format!("{:>numbers$}  {:>shares$}", denied(bar), share(bar)),
        };
        row.cells.extend([
            Cell::new(format!("{:>totals$}", total(bar))),
            Cell::new(denied),
            Cell::new(why(counts)),
        ]);
        row.cells.truncate(columns.len() + number);
        table.push(row);
    }
    let table = table.shown(screen.map(|screen| screen.width)).text();
    Some(match more.filter(|_| screen.is_some()) {
        Some(what) => format!("{table}\nMore {what} follow: --top N"),
        None => table,
    })
}

fn bar(counts: &[VerdictCount]) -> Bar {
    let mut bar = Bar::default();
    count_bar(&mut bar, counts);
    bar
}
