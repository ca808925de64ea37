//! Lists: which columns they have, and how they are shown on a terminal and elsewhere.

use clap::Args;

use super::failure::Failure;
use super::output::Screen;
use super::response::Total;
use super::style::Tone;
use super::table::{Cell, Column, Row, Shown, Table};
use super::text;
use super::when::Times;
use super::width::{cut, spread, wrap};

/// The flags for the columns of a list.
#[derive(Debug, Default, Args)]
pub(super) struct ViewFlags {
    /// Show on a terminal what other outputs have: more columns, and all of them whole.
    #[arg(long, conflicts_with = "columns")]
    wide: bool,
    /// Show these columns, in this order, such as `name,last-used`; `--columns help` lists them.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Vec<String>,
}

/// Where a column is shown unless the flags say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Everywhere,
    /// On a terminal.
    Screen,
    /// Where everything is shown: with --wide, and if the output is no terminal.
    Whole,
    /// Only by name.
    Asked,
}

/// A column of a list of `T`.
#[derive(Debug)]
pub(super) struct Field<T> {
    column: Column,
    place: Presence,
    cell: fn(&T, Times) -> Cell,
}

impl<T> Field<T> {
    /// A column that is shown everywhere.
    pub(super) const fn new(column: Column, cell: fn(&T, Times) -> Cell) -> Self {
        Self {
            column,
            place: Presence::Everywhere,
            cell,
        }
    }

    /// A column for terminals, in place of one or more that are whole.
    pub(super) const fn screen(column: Column, cell: fn(&T, Times) -> Cell) -> Self {
        Self {
            column,
            place: Presence::Screen,
            cell,
        }
    }

    /// A column that a terminal has no room for, such as a UUID.
    pub(super) const fn whole(name: &'static str, cell: fn(&T, Times) -> Cell) -> Self {
        Self {
            column: Column::whole(name, 0),
            place: Presence::Whole,
            cell,
        }
    }

    /// A column that is shown only if it is named.
    pub(super) const fn asked(column: Column, cell: fn(&T, Times) -> Cell) -> Self {
        Self {
            column,
            place: Presence::Asked,
            cell,
        }
    }

    /// The name for --columns.
    fn name(&self) -> String {
        self.column.name().to_lowercase().replace(' ', "-")
    }
}

/// How a list is shown.
pub(super) struct Listing<'a, T> {
    /// The columns.
    pub(super) fields: &'a [Field<T>],
    /// What the list is of, such as a realm. A terminal shows it above the table.
    pub(super) place: String,
    /// One of what is listed, and several of them.
    pub(super) nouns: [&'a str; 2],
    /// The order, if it is worth a word.
    pub(super) order: &'a str,
    /// The sentence for an empty list.
    pub(super) empty: &'a str,
    /// What identifies an item.
    pub(super) identity: fn(&T) -> String,
    /// What stands under the row of an item on a terminal.
    pub(super) note: fn(&T) -> String,
    /// What a terminal shows under the table.
    pub(super) footer: &'a str,
}

/// What there is besides the items that are shown.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// How to get those that follow, if any do.
    pub(super) more: Option<String>,
    /// How many there are on all pages, if that is known.
    pub(super) total: Option<Total>,
    /// The context that names the server, if there is one.
    pub(super) context: Option<String>,
}

impl ViewFlags {
    /// Refuses names of columns that the list does not have.
    pub(super) fn check<T>(&self, fields: &[Field<T>]) -> Result<(), Failure> {
        for name in &self.columns {
            if find(fields, name).is_none() {
                let names: Vec<_> = fields.iter().map(Field::name).collect();
                let names = names.join(", ");
                return Err(Failure::usage(if name == "help" {
                    format!("the columns are {names}")
                } else {
                    format!("there is no column \"{name}\"; the columns are {names}")
                }));
            }
        }
        Ok(())
    }

    /// Whether other columns are shown than by default.
    pub(super) fn is_changed(&self) -> bool {
        self.wide || !self.columns.is_empty()
    }

    fn fields<'a, T>(&self, fields: &'a [Field<T>], screen: Option<Screen>) -> Vec<&'a Field<T>> {
        if !self.columns.is_empty() {
            let named = self.columns.iter();
            return named.filter_map(|name| find(fields, name)).collect();
        }
        let other = if screen.is_some() && !self.wide {
            Presence::Whole
        } else {
            Presence::Screen
        };
        fields
            .iter()
            .filter(|field| field.place != other && field.place != Presence::Asked)
            .collect()
    }
}

fn find<'a, T>(fields: &'a [Field<T>], name: &str) -> Option<&'a Field<T>> {
    let name = name.trim().to_lowercase().replace([' ', '_'], "-");
    fields.iter().find(|field| field.name() == name)
}

impl<T> Listing<'_, T> {
    /// Formats the items for the screen, or in whole if there is none.
    pub(super) fn text(
        &self,
        items: &[T],
        view: &ViewFlags,
        screen: Option<Screen>,
        rest: &Rest,
    ) -> String {
        if items.is_empty() {
            return self.empty.to_owned();
        }
        let shown = self.shown(items, view, screen);
        let Some(screen) = screen else {
            return shown.text();
        };
        let caption = self.caption(items.len() as u64, rest, shown.width, screen);
        let mut parts = vec![caption, shown.text()];
        let mut footer = Vec::new();
        if !shown.omitted.is_empty() {
            let omitted = format!(
                "Too narrow for {}: --wide shows every column.",
                shown.omitted.join(", ")
            );
            footer.extend(wrap(&omitted, screen.width));
        }
        if !self.footer.is_empty() && !view.is_changed() {
            footer.extend(wrap(self.footer, screen.width));
        }
        footer.extend(rest.more.clone());
        if !footer.is_empty() {
            parts.push(footer.join("\n"));
        }
        parts.join("\n\n")
    }

    /// Formats the items as a table alone.
    pub(super) fn table(&self, items: &[T], screen: Option<Screen>) -> String {
        self.shown(items, &ViewFlags::default(), screen).text()
    }

    fn shown(&self, items: &[T], view: &ViewFlags, screen: Option<Screen>) -> Shown {
        let fields = view.fields(self.fields, screen);
        let times = match screen {
            Some(screen) if !view.wide => Times::Relative(screen.now),
            _ => Times::Exact,
        };
        let mut table = Table::new(fields.iter().map(|field| field.column));
        for item in items {
            table.push(Row {
                cells: fields
                    .iter()
                    .map(|field| (field.cell)(item, times))
                    .collect(),
                note: if view.wide {
                    String::new()
                } else {
                    (self.note)(item)
                },
                identity: (self.identity)(item),
            });
        }
        match screen {
            Some(_) if view.wide => table.shown_whole(),
            screen => table.shown(screen.map(|screen| screen.width)),
        }
    }

    /// What is listed, and how much of it.
    fn caption(&self, count: u64, rest: &Rest, width: usize, screen: Screen) -> String {
        let noun = |count| self.nouns[usize::from(count != 1)];
        let grouped = text::grouped(count);
        let mut right = match rest.total {
            // Keys that were deleted between two calls may make the total the smaller one.
            Some(total) if total.is_more || total.count > count => {
                let than = if total.is_more { "more than " } else { "" };
                let all = text::grouped(total.count);
                format!("{grouped} of {than}{all} {}", noun(total.count))
            }
            None if rest.more.is_some() => format!("{grouped} {}, more follow", noun(count)),
            _ => format!("{grouped} {}", noun(count)),
        };
        if !self.order.is_empty() {
            right.push_str(", ");
            right.push_str(self.order);
        }
        let place = Some(&self.place).filter(|place| !place.is_empty());
        let left: Vec<_> = rest
            .context
            .iter()
            .chain(place)
            .map(|part| text::plain(part))
            .collect();
        if left.is_empty() {
            return cut(&right, screen.width);
        }
        let left = left.join(" / ");
        let width = width.min(screen.width);
        spread(
            [(&left, Tone::Strong), (&right, Tone::Plain)],
            width,
            screen.width,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_in_either_case_and_wrong_names_are_refused() {
        const FIELDS: [Field<u8>; 2] = [
            Field::new(Column::whole("ID", 1), |item, _| {
                Cell::new(item.to_string())
            }),
            Field::whole("LAST USED", |_, _| Cell::new("")),
        ];
        let view = |names: &[&str]| ViewFlags {
            wide: false,
            columns: names.iter().map(|&name| name.to_owned()).collect(),
        };
        assert!(view(&["Last_Used", "id"]).check(&FIELDS).is_ok());
        let refusal = view(&["id", "nmae"]).check(&FIELDS).unwrap_err();
        assert!(refusal.is_usage());
        assert_eq!(
            refusal.to_string(),
            "error: there is no column \"nmae\"; the columns are id, last-used"
        );
    }
}
