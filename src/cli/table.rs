//! Tables that fit the terminal.
//!
//! Each column has a rank, and a least and a most width. On a terminal that is too narrow for the least widths, the columns of
//! the lowest rank are omitted. Then texts are cut: first those that are longer than the most width of their column. Without a
//! terminal every column is as wide as its longest text, and nothing is omitted or cut.
//!
//! A width is a number of columns of the terminal: an ideograph has two, a combining mark none.

use std::collections::HashMap;

use super::style::{Tone, without_colours};
use super::text::plain;
use super::width::{self, cut, cut_middle, wrap};

/// The number of columns between two cells.
const GAP: usize = 2;

/// The number of lines of a note that are shown.
const NOTE_LINES: usize = 2;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    name: &'static str,
    /// The column with the lowest rank is omitted first.
    rank: u8,
    /// The width to which texts are cut at most.
    least: usize,
    /// The width to which texts are cut before those of other columns are cut to less.
    most: usize,
    fit: Fit,
}

/// How a long text is fitted into its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It never is: the column is omitted instead.
    Whole,
    /// It loses its end.
    CutEnd,
    /// It loses its middle: the ends of ids differ.
    CutMiddle,
    /// It takes several lines.
    Wrapped,
}

impl Column {
    /// A column whose texts are never cut.
    pub(super) const fn whole(name: &'static str, rank: u8) -> Self {
        Self::with(name, rank, usize::MAX, usize::MAX, Fit::Whole)
    }

    /// A column whose texts lose their end.
    pub(super) const fn text(name: &'static str, rank: u8, least: usize, most: usize) -> Self {
        Self::with(name, rank, least, most, Fit::CutEnd)
    }

    /// A column whose texts lose their middle.
    pub(super) const fn id(name: &'static str, rank: u8, least: usize, most: usize) -> Self {
        Self::with(name, rank, least, most, Fit::CutMiddle)
    }

    /// A column whose texts take several lines.
    pub(super) const fn wrapped(name: &'static str, rank: u8, least: usize) -> Self {
        Self::with(name, rank, least, usize::MAX, Fit::Wrapped)
    }

    const fn with(name: &'static str, rank: u8, least: usize, most: usize, fit: Fit) -> Self {
        Self {
            name,
            rank,
            least,
            most,
            fit,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }
}

/// A cell of a table, whose text cannot control the terminal.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell. An empty text is shown as `-`.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// A cell with a colour.
    pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = plain(text.as_ref());
        let text = if text.is_empty() { "-" } else { &*text };
        Self {
            text: text.to_owned(),
            tone,
        }
    }

    /// A cell that is less important than its neighbours.
    pub(super) fn dim(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Dim)
    }
}

/// A row of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// One for each column.
    pub(super) cells: Vec<Cell>,
    /// What stands under the row on a terminal, indented.
    pub(super) note: String,
    /// What stands under the row on a terminal if another row looks like it. It identifies what the row shows.
    pub(super) identity: String,
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// A table as lines.
#[derive(Debug)]
pub(super) struct Shown {
    /// The header, the rows and their notes.
    pub(super) lines: Vec<String>,
    /// The width of the table without the notes.
    pub(super) width: usize,
    /// The names of the columns that are omitted.
    pub(super) omitted: Vec<&'static str>,
}

/// A column as it is shown: its index and its width.
#[derive(Clone, Copy, Debug)]
struct ShownColumn {
    index: usize,
    width: usize,
}

impl Table {
    /// Creates a table without rows.
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row.
    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Formats the table for a terminal of `width` columns; `None` without a terminal.
    pub(super) fn shown(&self, width: Option<usize>) -> Shown {
        match width {
            Some(width) => self.placed(&self.fitted(width), Some(width)),
            None => self.placed(&self.widths().collect::<Vec<_>>(), None),
        }
    }

    /// Formats the table for a terminal, however wide it gets.
    pub(super) fn shown_whole(&self) -> Shown {
        self.placed(&self.widths().collect::<Vec<_>>(), Some(usize::MAX))
    }

    /// Formats these columns. `width` is that of the terminal.
    fn placed(&self, places: &[ShownColumn], width: Option<usize>) -> Shown {
        let total = places.iter().map(|place| place.width).sum::<usize>();
        let header = places.iter().map(|place| {
            let name = cut(self.columns[place.index].name, place.width);
            (vec![name], Tone::Strong)
        });
        // Without a terminal there are no colours.
        let is_coloured = width.is_some();
        let mut lines: Vec<_> = lines(places, header.collect(), is_coloured).collect();
        let fitted: Vec<Vec<_>> = self
            .rows
            .iter()
            .map(|row| self.cells(row, places))
            .collect();
        let twins = twins(&fitted);
        let indent = places.first().map_or(0, |place| place.width + GAP);
        for ((row, cells), is_twin) in self.rows.iter().zip(fitted).zip(twins) {
            lines.extend(self::lines(places, cells, is_coloured));
            if let Some(width) = width {
                let indent = if indent > width / 3 { GAP } else { indent };
                if is_twin && !row.identity.is_empty() {
                    lines.extend(note(&row.identity, indent, width, usize::MAX));
                }
                lines.extend(note(&row.note, indent, width, NOTE_LINES));
            }
        }
        let omitted = (0..self.columns.len())
            .filter(|index| places.iter().all(|place| place.index != *index))
            .map(|index| self.columns[index].name);
        Shown {
            lines,
            width: total + GAP * places.len().saturating_sub(1),
            omitted: omitted.collect(),
        }
    }

    /// The columns in the width of their longest text.
    fn widths(&self) -> impl Iterator<Item = ShownColumn> {
        self.columns.iter().enumerate().map(|(index, column)| {
            let cells = self
                .rows
                .iter()
                .map(|row| width::width(&row.cells[index].text));
            ShownColumn {
                index,
                width: cells.max().unwrap_or(0).max(width::width(column.name)),
            }
        })
    }

    /// The columns as they fit into this width.
    fn fitted(&self, width: usize) -> Vec<ShownColumn> {
        let mut places: Vec<_> = self.widths().collect();
        let limit = |place: &ShownColumn, limit: fn(&Column) -> usize| {
            let column = &self.columns[place.index];
            limit(column)
                .max(width::width(column.name))
                .min(place.width)
        };
        let least = |place: &ShownColumn| limit(place, |column| column.least);
        let gaps = |places: &[ShownColumn]| GAP * places.len().saturating_sub(1);
        while places.len() > 1 && places.iter().map(least).sum::<usize>() + gaps(&places) > width {
            let lowest = (0..places.len())
                .min_by_key(|at| self.columns[places[*at].index].rank)
                .unwrap_or_default();
            places.remove(lowest);
        }
        let room = width.saturating_sub(gaps(&places));
        let floors: Vec<_> = places
            .iter()
            .map(|place| limit(place, |column| column.most.max(column.least)))
            .collect();
        shrink(&mut places, &floors, room);
        let floors: Vec<_> = places.iter().map(least).collect();
        shrink(&mut places, &floors, room);
        // Only a single column can still be too wide.
        if let [only] = places.as_mut_slice() {
            only.width = only.width.min(room.max(1));
        }
        places
    }

    /// The lines of each cell that is shown, and their colour.
    fn cells(&self, row: &Row, places: &[ShownColumn]) -> Vec<(Vec<String>, Tone)> {
        let cells = places.iter().map(|place| {
            let Cell { text, tone } = &row.cells[place.index];
            let lines = match self.columns[place.index].fit {
                Fit::Whole | Fit::CutEnd => vec![cut(text, place.width)],
                Fit::CutMiddle => vec![cut_middle(text, place.width)],
                Fit::Wrapped => wrap(text, place.width),
            };
            (lines, *tone)
        });
        cells.collect()
    }
}

impl Shown {
    /// The lines as one text.
    pub(super) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// Makes columns narrower until all fit into `room`, or have the width of their floor. The one that loses least by it comes first.
fn shrink(places: &mut [ShownColumn], floors: &[usize], room: usize) {
    let total: usize = places.iter().map(|place| place.width).sum();
    for _ in room..total {
        let slack = |at: &usize| places[*at].width.saturating_sub(floors[*at]);
        let Some(widest) = (0..places.len()).max_by_key(slack) else {
            return;
        };
        if slack(&widest) == 0 {
            return;
        }
        places[widest].width -= 1;
    }
}

/// For each row, whether another one looks like it.
fn twins(rows: &[Vec<(Vec<String>, Tone)>]) -> Vec<bool> {
    let look = |row: &[(Vec<String>, Tone)]| -> Vec<String> {
        row.iter().map(|(lines, _)| lines.join("\n")).collect()
    };
    let mut looks: HashMap<_, u32> = HashMap::new();
    for row in rows {
        *looks.entry(look(row)).or_default() += 1;
    }
    rows.iter().map(|row| looks[&look(row)] > 1).collect()
}

/// Formats the lines of a row.
fn lines(
    places: &[ShownColumn],
    cells: Vec<(Vec<String>, Tone)>,
    is_coloured: bool,
) -> impl Iterator<Item = String> + use<> {
    let height = cells.iter().map(|(lines, _)| lines.len()).max();
    let widths: Vec<_> = places.iter().map(|place| place.width).collect();
    (0..height.unwrap_or(0)).map(move |number| {
        let mut line = String::new();
        let mut blank = 0;
        for ((lines, tone), width) in cells.iter().zip(&widths) {
            let text = lines.get(number).map_or("", String::as_str);
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', blank));
                blank = 0;
                if is_coloured {
                    line.push_str(&tone.paint(text));
                } else {
                    line.push_str(text);
                }
            }
            blank += width.saturating_sub(width::width(text)) + GAP;
        }
        line
    })
}

/// Formats an indented note.
fn note(text: &str, indent: usize, width: usize, most: usize) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let room = width.saturating_sub(indent).max(1);
    let mut lines = wrap(&plain(text), room);
    if lines.len() > most {
        let rest = lines.split_off(most - 1).join(" ");
        lines.push(cut(&rest, room));
    }
    let indent = " ".repeat(indent);
    lines
        .into_iter()
        .map(|line| format!("{indent}{line}"))
        .collect()
}

/// Formats one fact on each line, or on several if its value is too long: its name and its value. Facts without a value are omitted.
pub(super) fn facts<const N: usize>(facts: &[(&str, String); N], width: usize) -> String {
    let facts = facts.iter().filter(|(_, value)| !value.is_empty());
    let names = facts.clone().map(|(name, _)| width::width(name));
    let indent = names.max().unwrap_or(0) + GAP;
    let lines = facts.flat_map(|(name, value)| {
        let lines = wrap(&plain(value), width.saturating_sub(indent)).into_iter();
        let names = std::iter::once(*name).chain(std::iter::repeat(""));
        lines.zip(names).map(move |(line, name)| {
            let blank = " ".repeat(indent - width::width(name));
            format!("{}{blank}{line}", Tone::Dim.paint(name))
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Formats a table of texts without colours. They take several lines where the terminal is too narrow; the first column is omitted
/// last.
pub(super) fn simple(
    header: &[&'static str],
    rows: impl IntoIterator<Item = Vec<String>>,
    width: Option<usize>,
) -> String {
    let columns = header
        .iter()
        .enumerate()
        .map(|(index, name)| Column::wrapped(name, u8::MAX - index as u8, 8));
    let mut table = Table::new(columns);
    for row in rows {
        table.push(Row {
            cells: row.iter().map(Cell::new).collect(),
            ..Row::default()
        });
    }
    without_colours(&table.shown(width).text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[Column], rows: &[&[&str]]) -> Table {
        let mut table = Table::new(columns.iter().copied());
        for row in rows {
            table.push(Row {
                cells: row.iter().map(Cell::new).collect(),
                identity: format!("id of {}", row[0]),
                ..Row::default()
            });
        }
        table
    }

    fn shown(table: &Table, width: usize) -> Vec<String> {
        let lines = table.shown(Some(width)).lines;
        lines.iter().map(|line| without_colours(line)).collect()
    }

    #[test]
    fn without_a_terminal_everything_is_there_and_aligned() {
        let columns = [Column::text("ID", 1, 2, 2), Column::text("NAME", 2, 4, 4)];
        let table = table(
            &columns,
            &[
                &["acme", "two\nlines"],
                &["東京", ""],
                &["b", "a long name"],
            ],
        );
        assert_eq!(
            table.shown(None).text(),
            "ID    NAME\nacme  two\\nlines\n東京  -\nb     a long name"
        );
    }

    #[test]
    fn the_lowest_rank_is_omitted_first_and_then_texts_are_cut() {
        let columns = [
            Column::text("NAME", 2, 6, 8),
            Column::whole("STATE", 3),
            Column::whole("EXPIRES", 1),
        ];
        let table = table(&columns, &[&["a long name", "active", "in 90d"]]);
        assert_eq!(shown(&table, 28)[1], "a long name  active  in 90d");
        assert_eq!(shown(&table, 25)[1], "a long …  active  in 90d");
        assert_eq!(shown(&table, 23)[1], "a lon…  active  in 90d");
        let narrow = table.shown(Some(22));
        assert_eq!(narrow.omitted, ["EXPIRES"]);
        assert_eq!(without_colours(&narrow.lines[1]), "a long name  active");
        assert_eq!(shown(&table, 13)[1], "active");
        assert_eq!(shown(&table, 4)[1], "act…");
    }

    #[test]
    fn texts_above_the_most_width_are_cut_before_others() {
        let columns = [Column::text("A", 2, 2, 4), Column::text("B", 1, 2, 8)];
        let table = table(&columns, &[&["abcdefgh", "abcdefgh"]]);
        assert_eq!(shown(&table, 14)[1], "abc…  abcdefgh");
        assert_eq!(shown(&table, 10)[1], "abc…  abc…");
        assert_eq!(shown(&table, 18)[1], "abcdefgh  abcdefgh");
    }

    #[test]
    fn rows_that_look_the_same_say_what_they_are() {
        let columns = [Column::id("ID", 1, 5, 5)];
        let table = table(&columns, &[&["abcdefgh"], &["abcxxfgh"], &["b"]]);
        assert_eq!(
            shown(&table, 5),
            [
                "ID", "ab…gh", "  id", "  of", "  abc", "  def", "  gh", "ab…gh", "  id", "  of",
                "  abc", "  xxf", "  gh", "b"
            ]
        );
        assert_eq!(shown(&table, 8), ["ID", "abcdefgh", "abcxxfgh", "b"]);
    }

    #[test]
    fn a_long_text_takes_several_lines() {
        let columns = [Column::whole("A", 2), Column::wrapped("B", 1, 3)];
        let table = table(&columns, &[&["x", "one two three"]]);
        assert_eq!(shown(&table, 8), ["A  B", "x  one", "   two", "   three"]);
    }
}
