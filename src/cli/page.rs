//! Lists, which are fetched in pages.

use clap::Args;

use super::arguments::{self, FlagValue, folded};
use super::failure::Failure;
use super::listing::{Field, Listing, Rest, ViewFlags};
use super::output::{self, Output, Screen};
use super::response::PageResponse;
use super::text;

/// The flags of a list.
#[derive(Debug, Args)]
pub(super) struct PageFlags {
    /// Entries on a page, at most 1000 [default: 50; with --all, 1000 for each request].
    #[arg(
        long,
        alias = "limit",
        short_alias = 'n',
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(1..=1000)
    )]
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
    #[command(flatten)]
    pub(super) view: ViewFlags,
}

impl PageFlags {
    /// Refuses names of columns that the list does not have.
    pub(super) fn check<T>(&self, fields: &[Field<T>]) -> Result<(), Failure> {
        self.view.check(fields)
    }

    /// Fetches one page or all pages, and shows them.
    pub(super) async fn show<P: PageResponse>(
        &self,
        output: &Output,
        listing: &Listing<'_, P::Item>,
        fetch: impl AsyncFnMut(i32, String) -> Result<P, Failure>,
    ) -> Result<(), Failure>
    where
        P::Item: Clone,
    {
        let page = self.fetch(fetch).await?;
        self.show_page(output, &page, listing, <[P::Item]>::to_vec, &[])
    }

    /// Shows a page, whose items `rows` turns into what the list has columns for, and how to get the next page. `repeat` has the
    /// flags to repeat for it, because their values depend on the time.
    pub(super) fn show_page<P: PageResponse, T>(
        &self,
        output: &Output,
        page: &P,
        listing: &Listing<'_, T>,
        rows: impl FnOnce(&[P::Item]) -> Vec<T>,
        repeat: &[FlagValue],
    ) -> Result<(), Failure> {
        let next = Some(page.next()).filter(|token| !token.is_empty());
        let screen = output.screen();
        output.show(page, |page| {
            let more = next.zip(screen);
            let rest = Rest {
                more: more.map(|(token, screen)| self.more_on(screen, repeat, token)),
                total: page.total(),
                context: output.context().map(str::to_owned),
            };
            listing.text(&rows(page.items()), &self.view, screen, &rest)
        })?;
        if let Some(token) = next.filter(|_| screen.is_none() && output.is_for_people()) {
            output::print_error(&more(repeat, token, self.is_first()));
        }
        Ok(())
    }

    /// Says on a terminal how to get the next page: by a command to paste, which fits unless a word of it does not.
    fn more_on(&self, screen: Screen, repeat: &[FlagValue], token: &str) -> String {
        let all = if self.is_first() {
            "--all, or the"
        } else {
            "The"
        };
        let flags = repeat.iter().map(|(flag, value)| (*flag, &**value));
        match arguments::repeated(flags.chain([("--page-token", token)])) {
            Some(words) => format!(
                "More follow. {all} next page:\n{}",
                folded(&words, screen.width)
            ),
            None => more(repeat, token, self.is_first()),
        }
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

    /// Whether a screen that shows one page should say how many items there are on all of them.
    pub(super) fn wants_total(&self, output: &Output) -> bool {
        !self.all && output.screen().is_some()
    }

    /// Whether the page is the first one.
    fn is_first(&self) -> bool {
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

/// Says how to get the next page. A command line with a token accepts no `--all`.
fn more(repeat: &[FlagValue], token: &str, is_first: bool) -> String {
    let repeat = repeat.iter().fold(String::new(), |flags, (flag, value)| {
        flags + flag + " " + value + " "
    });
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
            view: ViewFlags::default(),
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
        let since = [("--since", "2027-01-15T08:00:00Z".to_owned())];
        assert_eq!(
            more(&since, "-t", true),
            "There are more: add `--since 2027-01-15T08:00:00Z --page-token=-t` for the next page, or `--all`."
        );
        assert_eq!(
            more(&[], "-t", false),
            "There are more: add `--page-token=-t` for the next page."
        );
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
