//! Lists, which are fetched in pages.

use std::env;

use clap::Args;

use super::failure::Failure;
use super::listing::{Field, Listing, ViewFlags};
use super::output::{self, Output, Screen};
use super::redact;
use super::response::PageResponse;
use super::text;
use super::width::width;

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

/// A flag and its value.
pub(super) type FlagValue = (&'static str, String);

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
            let more = more.map(|(token, screen)| self.more_on(screen, repeat, token));
            listing.text(&rows(page.items()), &self.view, screen, more.as_deref())
        })?;
        if let Some(token) = next.filter(|_| screen.is_none() && output.is_for_people()) {
            output::print_error(&more(repeat, token, self.is_first()));
        }
        Ok(())
    }

    /// Says on a terminal how to get the next page: by a command to paste, which fits unless a word of it does not.
    fn more_on(&self, screen: Screen, repeat: &[FlagValue], token: &str) -> String {
        let line: Option<Vec<String>> = env::args_os()
            .skip(1)
            .map(|word| word.into_string().ok())
            .collect();
        let all = if self.is_first() {
            "--all, or the"
        } else {
            "The"
        };
        match line.and_then(|line| next_command(&line, repeat, token)) {
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

/// The words of the command for the next page; `None` if the command may contain an API key, which would be shown.
fn next_command(line: &[String], repeat: &[FlagValue], token: &str) -> Option<Vec<String>> {
    if line
        .iter()
        .any(|word| word == "--key" || word.starts_with("--key="))
    {
        return None;
    }
    let replaced = |word: &str| {
        let names = repeat.iter().map(|(flag, _)| *flag);
        names.chain(["--page-token"]).any(|flag| flag == word)
    };
    let mut words = vec!["claviger".to_owned()];
    let mut line = line.iter();
    while let Some(word) = line.next() {
        if replaced(word) {
            line.next();
        } else if !word.split_once('=').is_some_and(|(flag, _)| replaced(flag)) {
            words.push(quoted(word));
        }
    }
    let shown = words.join("\n");
    if redact::mask_keys(&shown, &[]) != shown {
        return None;
    }
    for (flag, value) in repeat {
        words.push((*flag).to_owned());
        words.push(quoted(value));
    }
    words.push("--page-token".to_owned());
    words.push(quoted(token));
    Some(words)
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", text::plain(word).replace('\'', "'\\''"))
}

/// A command on lines of at most `columns`, as a shell reads it.
fn folded(words: &[String], columns: usize) -> String {
    let mut lines = vec![" ".to_owned()];
    for word in words {
        let line = lines.last_mut().expect("there is always a line");
        // A backslash follows each line but the last.
        if width(line) + 1 + width(word) + 2 <= columns || width(line) == 1 {
            line.push(' ');
            line.push_str(word);
        } else {
            line.push_str(" \\");
            lines.push(format!("    {word}"));
        }
    }
    lines.join("\n")
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

    #[test]
    fn the_command_for_the_next_page_is_that_of_this_page() {
        let next = |line: &str, token| {
            let line: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let since = [("--since", "2027-01-15T08:00:00Z".to_owned())];
            next_command(&line, &since, token).map(|words| words.join(" "))
        };
        assert_eq!(
            next(
                "events --since 24h --page-token=-a --kind key.revoked --page-token -b",
                "-c"
            )
            .unwrap(),
            "claviger events --kind key.revoked --since 2027-01-15T08:00:00Z --page-token -c"
        );
        assert_eq!(next("events --key k", "-c"), None);
        assert_eq!(next("events --key=k", "-c"), None);
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_command_is_folded_between_its_words() {
        let words: Vec<_> = ["claviger", "events", "--since", "today"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(folded(&words, 80), "  claviger events --since today");
        assert_eq!(
            folded(&words, 22),
            "  claviger events \\\n    --since today"
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
