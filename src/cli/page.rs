//! Lists, which are fetched in pages.

use clap::Args;

use super::failure::Failure;
use super::output::{self, Output};
use super::response::PageResponse;
use super::text;

/// The flags of a list.
#[derive(Debug, Args)]
pub(super) struct PageFlags {
    /// Entries on a page, at most 1000 [default: 50; with --all, 1000 for each request].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    page_size: Option<i32>,
    /// Show all pages; with --json, as one document.
    #[arg(long)]
    all: bool,
    /// The token of the page to show, as the page before it printed.
    // For the next page, the printed flags are appended to the command line of this page.
    #[arg(
        long,
        value_name = "TOKEN",
        conflicts_with = "all",
        allow_hyphen_values = true,
        overrides_with = "page_token"
    )]
    page_token: Option<String>,
}

/// How a list is shown as a table.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    /// The names of the columns.
    pub(super) header: &'a [&'a str],
    /// The indexes of the columns that are omitted, in this order, on a terminal that is too narrow for all.
    pub(super) optional: &'a [usize],
    /// The index of the column whose texts are cut if the table is still too wide.
    pub(super) cut: Option<usize>,
    /// The sentence for an empty list.
    pub(super) empty: &'a str,
    /// Flags to repeat for the next page, because their values depend on the time.
    pub(super) repeat: String,
}

impl PageFlags {
    /// Fetches one page or all pages, and shows them.
    pub(super) async fn show<P: PageResponse>(
        &self,
        output: &Output,
        listing: Listing<'_>,
        row: impl Fn(&P::Item) -> Vec<String>,
        fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
    ) -> Result<(), Failure> {
        let page = self.fetch(fetch).await?;
        listing.show(output, &page, row, self.is_first())
    }

    /// Fetches one page, or all pages with --all.
    pub(super) async fn fetch<P: PageResponse>(
        &self,
        mut fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
    ) -> Result<P, Failure> {
        if self.all {
            return self.fetch_all(fetch).await;
        }
        let token = self.page_token.clone().unwrap_or_default();
        fetch(self.page_size.unwrap_or(0), token).await
    }

    /// Fetches all pages, with or without --all.
    pub(super) async fn fetch_all<P: PageResponse>(
        &self,
        fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
    ) -> Result<P, Failure> {
        fetch_all(self.page_size.unwrap_or(1000), fetch).await
    }

    /// Whether the page is the first one.
    pub(super) fn is_first(&self) -> bool {
        self.page_token.is_none()
    }
}

/// Fetches all pages of a list, and merges them into one.
pub(super) async fn fetch_all<P: PageResponse>(
    page_size: i32,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
) -> Result<P, Failure> {
    let mut page = fetch(page_size, String::new()).await?;
    while !page.next().is_empty() {
        let later = fetch(page_size, page.next().to_owned()).await?;
        if later.next() == page.next() {
            return Err(Failure::failed(
                "the server returned the same page token twice; the list would not end",
            ));
        }
        page.extend(later);
    }
    Ok(page)
}

impl Listing<'_> {
    /// Shows a page, and how to get the next one.
    pub(super) fn show<P: PageResponse>(
        &self,
        output: &Output,
        page: &P,
        row: impl Fn(&P::Item) -> Vec<String>,
        is_first: bool,
    ) -> Result<(), Failure> {
        output.show(page, |page| {
            if page.items().is_empty() {
                self.empty.to_owned()
            } else {
                let rows: Vec<_> = page.items().iter().map(row).collect();
                self.table(&rows, output.width())
            }
        })?;
        if !page.next().is_empty() && !output.is_json() {
            output::print_error(&more(&self.repeat, page.next(), is_first));
        }
        Ok(())
    }

    /// Formats the table. If it is wider than `width`, columns are omitted and texts are cut.
    fn table(&self, rows: &[Vec<String>], width: Option<usize>) -> String {
        let mut columns: Vec<usize> = (0..self.header.len()).collect();
        let mut optional = self.optional.iter();
        let mut table = self.table_of(&columns, rows);
        let Some(width) = width else { return table };
        while overhang(&table, width) > 0 {
            let Some(omitted) = optional.next() else {
                break;
            };
            columns.retain(|column| column != omitted);
            table = self.table_of(&columns, rows);
        }
        let too_wide = overhang(&table, width);
        let Some(cut) = self.cut.filter(|_| too_wide > 0) else {
            return table;
        };
        let mut rows = rows.to_vec();
        let cells = || {
            rows.iter()
                .map(|row| text::plain(&row[cut]).chars().count())
        };
        let longest = cells().max().unwrap_or(0);
        let length = longest.saturating_sub(too_wide).max(SHORTEST_CUT);
        for row in &mut rows {
            row[cut] = cut_to(&text::plain(&row[cut]), length);
        }
        self.table_of(&columns, &rows)
    }

    fn table_of(&self, columns: &[usize], rows: &[Vec<String>]) -> String {
        let header: Vec<_> = columns.iter().map(|column| self.header[*column]).collect();
        let rows = rows
            .iter()
            .map(|row| columns.iter().map(|column| row[*column].clone()).collect());
        text::table(&header, rows)
    }
}

/// The length to which a text is cut at most, in characters.
const SHORTEST_CUT: usize = 8;

/// Cuts a text to this many characters.
fn cut_to(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['\u{2026}']).collect()
}

/// Returns by how many characters the widest line is wider than `width`.
fn overhang(table: &str, width: usize) -> usize {
    let widest = table.lines().map(|line| line.chars().count()).max();
    widest.unwrap_or(0).saturating_sub(width)
}

/// Says how to get the next page. A command line with a token accepts no `--all`.
fn more(repeat: &str, token: &str, is_first: bool) -> String {
    format!(
        "There are more: add `{repeat}--page-token={}` for the next page{}.",
        text::plain(token),
        if is_first { ", or `--all`" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::{Event, ListEventsResponse};

    use super::*;

    fn flags(all: bool) -> PageFlags {
        PageFlags {
            page_size: Some(2),
            all,
            page_token: None,
        }
    }

    /// An audit trail of the events 5 to 1. The token is the number of events on the pages before.
    async fn trail(size: i32, token: String) -> Result<ListEventsResponse, Failure> {
        let listed: u64 = token.parse().unwrap_or(0);
        let end = (listed + size as u64).min(5);
        Ok(ListEventsResponse {
            revision: 0,
            events: (listed..end)
                .map(|index| Event {
                    revision: 5 - index,
                    ..Event::default()
                })
                .collect(),
            next_page_token: if end < 5 {
                end.to_string()
            } else {
                String::new()
            },
        })
    }

    fn revisions(page: &ListEventsResponse) -> Vec<u64> {
        page.events.iter().map(|event| event.revision).collect()
    }

    #[test]
    fn the_next_page_is_fetched_with_the_printed_flags() {
        let since = "--since 2027-01-15T08:00:00Z ";
        assert_eq!(
            more(since, "-t", true),
            "There are more: add `--since 2027-01-15T08:00:00Z --page-token=-t` for the next page, or `--all`."
        );
        assert_eq!(
            more("", "-t", false),
            "There are more: add `--page-token=-t` for the next page."
        );
    }

    #[test]
    fn columns_that_do_not_fit_are_omitted_and_then_texts_are_cut() {
        let listing = Listing {
            header: &["ID", "NAME", "LAST USED"],
            optional: &[2],
            cut: Some(1),
            empty: "",
            repeat: String::new(),
        };
        let rows = [["acme", "a long name", "never"].map(str::to_owned).to_vec()];
        let whole = "ID    NAME         LAST USED\nacme  a long name  never";
        assert_eq!(listing.table(&rows, None), whole);
        assert_eq!(listing.table(&rows, Some(28)), whole);
        let narrow = "ID    NAME\nacme  a long name";
        assert_eq!(listing.table(&rows, Some(27)), narrow);
        assert_eq!(listing.table(&rows, Some(17)), narrow);
        let cut = "ID    NAME\nacme  a long n\u{2026}";
        assert_eq!(listing.table(&rows, Some(15)), cut);
        let least = "ID    NAME\nacme  a long \u{2026}";
        assert_eq!(listing.table(&rows, Some(5)), least);
    }

    #[tokio::test]
    async fn one_page_is_fetched_unless_all_are_wanted() {
        let page = flags(false).fetch(trail).await.unwrap();
        assert_eq!(revisions(&page), [5, 4]);
        assert_eq!(page.next_page_token, "2");
    }

    #[tokio::test]
    async fn all_pages_are_merged_into_one() {
        let page = flags(true).fetch(trail).await.unwrap();
        assert_eq!(revisions(&page), [5, 4, 3, 2, 1]);
        assert_eq!(page.next_page_token, "");
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_given_up() {
        let endless = async |_, _| {
            Ok(ListEventsResponse {
                revision: 0,
                events: Vec::new(),
                next_page_token: "again".to_owned(),
            })
        };
        assert!(flags(true).fetch(endless).await.is_err());
    }
}
