//! The `keys list` command.

use clap::Args;

use super::columns;
use super::filter::FilterFlags;
use super::named::Several;
use crate::cli::client::Client;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::page::{self, PageFlags};
use crate::cli::realm_flag::RealmFlag;
use crate::cli::response::PageResponse as _;
use crate::cli::text;
use crate::cli::unknown::Names;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::{
    Key, KeyFilter, ListKeysRequest, ListKeysResponse, ListRealmsRequest,
};

/// The exit code of `--fail-if-any` if a key was found.
const FOUND: u8 = 5;

/// List the keys of a realm, or of all realms, newest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys list
  claviger keys list --partner acme --state active --all
  claviger keys list --all-realms --expires-within 14d --fail-if-any
  claviger keys list --unused-for 90d -q | xargs -rn 1 claviger keys revoke -y")]
pub struct List {
    #[command(flatten)]
    realm: RealmFlag,
    /// All realms that the caller administers, one after the other, with all pages. An error in one realm is an error of the
    /// command.
    #[arg(long, conflicts_with_all = ["realm", "page_token"])]
    all_realms: bool,
    /// Exit with 5 if a key is found, and with 0 if not.
    #[arg(long)]
    fail_if_any: bool,
    /// Print only the ids of all matching keys, one on a line, for scripts.
    #[arg(long, short, conflicts_with = "page_token")]
    quiet: bool,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    page: PageFlags,
}

impl List {
    /// Returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        if self.quiet && !output.is_for_people() {
            return Err(Failure::usage(
                "--quiet excludes --json and --field: it prints ids only",
            ));
        }
        self.page.check(&columns::OF_REALMS)?;
        let mut filter = self.filter.to_proto("")?;
        let client = connection.connect().await?;
        let page = if self.all_realms {
            // A creator is an administrator, or must be named by its id.
            filter.created_by = self.creator(&client, RealmId::BUILT_IN).await?;
            self.in_all_realms(&client, &filter).await?
        } else {
            filter.realm = self.realm.resolve(&client).await?;
            filter.created_by = self.creator(&client, &filter.realm).await?;
            let with_total = self.page.wants_total(output) && !self.quiet;
            let fetch = in_realm(&client, &filter, &filter.realm, with_total);
            let page = if self.quiet {
                self.page.fetch_all(fetch).await
            } else {
                self.page.fetch(fetch).await
            };
            Names::of_filter(&filter)
                .known_or(&client, page, |page| page.keys.is_empty())
                .await?
        };
        if self.quiet {
            let ids: Vec<_> = page.keys.iter().map(|key| text::plain(&key.id)).collect();
            if !ids.is_empty() {
                output::print_tolerant(&ids.join("\n"))
                    .map_err(|error| Failure::failed(format!("cannot show the keys: {error}")))?;
            }
        } else {
            self.show(output, &page, &filter.realm)?;
        }
        let found = self.fail_if_any && !page.keys.is_empty();
        Ok(if found { FOUND } else { 0 })
    }

    async fn creator(&self, client: &Client, realm: &str) -> Result<String, Failure> {
        self.filter
            .creator(client, realm, Several::LivingWins)
            .await
    }

    fn show(&self, output: &Output, page: &ListKeysResponse, realm: &str) -> Result<(), Failure> {
        let rows = <[Key]>::to_vec;
        if self.all_realms {
            let listing = columns::listing(None);
            return self.page.show_page(output, page, &listing, rows, &[]);
        }
        let (listing, repeat) = (columns::listing(Some(realm)), self.filter.repeated());
        self.page.show_page(output, page, &listing, rows, &repeat)
    }

    /// Fetches the keys of every realm that the caller administers.
    async fn in_all_realms(
        &self,
        client: &Client,
        filter: &KeyFilter,
    ) -> Result<ListKeysResponse, Failure> {
        let listed = page::fetch_all(1000, async |page_size, page_token| {
            let request = ListRealmsRequest {
                page_size,
                page_token,
            };
            client.ask(client.realms().list_realms(request)).await
        })
        .await?;
        let mut found = ListKeysResponse {
            revision: listed.revision,
            ..ListKeysResponse::default()
        };
        let realms: Vec<_> = listed.realms.into_iter().map(|realm| realm.id).collect();
        for realm in &realms {
            let keys = self
                .page
                .fetch_all(in_realm(client, filter, realm, false))
                .await
                .map_err(|failure| failure.within(format!("realm {realm}")))?;
            found.extend(keys);
        }
        if found.keys.is_empty() {
            known_somewhere(client, filter, &realms).await?;
        }
        Ok(found)
    }
}

/// Fails if no realm has the names of the filter.
async fn known_somewhere(
    client: &Client,
    filter: &KeyFilter,
    realms: &[String],
) -> Result<(), Failure> {
    let mut unknown = None;
    for realm in realms.iter().filter(|realm| *realm != RealmId::BUILT_IN) {
        let names = Names {
            realm: realm.clone(),
            ..Names::of_filter(filter)
        };
        match names.check(client).await {
            Ok(()) => return Ok(()),
            Err(failure) => unknown = Some(failure),
        }
    }
    unknown.map_or(Ok(()), Err)
}

/// Returns a function that fetches a page of the keys of a realm.
fn in_realm(
    client: &Client,
    filter: &KeyFilter,
    realm: &str,
    with_total: bool,
) -> impl AsyncFnMut(i32, String) -> Result<ListKeysResponse, Failure> {
    async move |page_size, page_token| {
        let request = ListKeysRequest {
            filter: Some(KeyFilter {
                realm: realm.to_owned(),
                ..filter.clone()
            }),
            page_size,
            page_token,
            with_total,
        };
        client.ask(client.keys().list_keys(request)).await
    }
}
