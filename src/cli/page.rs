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
    /// Whether the last column is omitted on a terminal that is too narrow for it.
    pub(super) last_is_optional: bool,
    /// The sentence for an empty list.
    pub(super) empty: &'a str,
    /// Flags to repeat for the next page, because their values depend on the time.
    pub(super) repeat: String,
}

impl PageFlags {
    /// Fetches one page or all pages, and shows them.
    pub(super) async fn show<P: PageResponse>(
        self,
        output: &Output,
        listing: Listing<'_>,
        row: impl Fn(&P::Item) -> Vec<String>,
        fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
    ) -> Result<(), Failure> {
        let is_first = self.page_token.is_none();
        let page = self.fetch(fetch).await?;
        output.show(&page, |page| {
            if page.items().is_empty() {
                listing.empty.to_owned()
            } else {
                let rows = page.items().iter().map(row).collect();
                let width = output.width().filter(|_| listing.last_is_optional);
                table(listing.header, rows, width)
            }
        })?;
        if !page.next().is_empty() && !output.is_json() {
            output::print_error(&more(&listing.repeat, page.next(), is_first));
        }
        Ok(())
    }

    async fn fetch<P: PageResponse>(
        self,
        mut fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
    ) -> Result<P, Failure> {
        let size = self.page_size.unwrap_or(if self.all { 1000 } else { 0 });
        let mut page = fetch(size, self.page_token.unwrap_or_default()).await?;
        while self.all && !page.next().is_empty() {
            let later = fetch(size, page.next().to_owned()).await?;
            if later.next() == page.next() {
                return Err(Failure::failed(
                    "the server returned the same page token twice; the list would not end",
                ));
            }
            page.extend(later);
        }
        Ok(page)
    }
}

/// Formats the table, without its last column if the table is wider than `width`.
fn table(header: &[&str], mut rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let whole = text::table(header, rows.iter().cloned());
    let fits = |width| whole.lines().all(|line| line.chars().count() <= width);
    if width.is_none_or(fits) {
        return whole;
    }
    for row in &mut rows {
        row.pop();
    }
    text::table(&header[..header.len() - 1], rows)
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
    fn a_column_that_does_not_fit_is_omitted() {
        let rows = || vec![vec!["acme".to_owned(), "never".to_owned()]];
        let whole = "ID    LAST USED\nacme  never";
        assert_eq!(table(&["ID", "LAST USED"], rows(), None), whole);
        assert_eq!(table(&["ID", "LAST USED"], rows(), Some(15)), whole);
        assert_eq!(table(&["ID", "LAST USED"], rows(), Some(14)), "ID\nacme");
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
                events: Vec::new(),
                next_page_token: "again".to_owned(),
            })
        };
        assert!(flags(true).fetch(endless).await.is_err());
    }
}
