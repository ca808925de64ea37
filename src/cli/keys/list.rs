//! The `keys list` command.

use clap::Args;

use super::columns;
use super::filter::FilterFlags;
use crate::cli::client::Client;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::page::{self, PageFlags};
use crate::cli::realm_flag::RealmFlag;
use crate::cli::response::PageResponse as _;
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
  claviger keys list --all-realms --expires-within 14d --fail-if-any")]
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
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    page: PageFlags,
}

impl List {
    /// Returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let filter = self.filter.to_proto("")?;
        self.page.check(&columns::OF_REALMS)?;
        let client = connection.connect().await?;
        let rows = <[Key]>::to_vec;
        let page = if self.all_realms {
            let page = self.in_all_realms(&client, &filter).await?;
            self.page
                .show_page(output, &page, &columns::listing(None), rows, &[])?;
            page
        } else {
            let realm = self.realm.resolve(&client).await?;
            let page = self.page.fetch(in_realm(&client, &filter, &realm)).await?;
            let repeat = self.filter.repeated();
            self.page.show_page(
                output,
                &page,
                &columns::listing(Some(&realm)),
                rows,
                &repeat,
            )?;
            page
        };
        let found = self.fail_if_any && !page.keys.is_empty();
        Ok(if found { FOUND } else { 0 })
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
        for realm in listed.realms {
            let keys = self
                .page
                .fetch_all(in_realm(client, filter, &realm.id))
                .await
                .map_err(|failure| failure.within(format!("realm {}", realm.id)))?;
            found.extend(keys);
        }
        Ok(found)
    }
}

/// Returns a function that fetches a page of the keys of a realm.
fn in_realm(
    client: &Client,
    filter: &KeyFilter,
    realm: &str,
) -> impl AsyncFnMut(i32, String) -> Result<ListKeysResponse, Failure> {
    async move |page_size, page_token| {
        let request = ListKeysRequest {
            filter: Some(KeyFilter {
                realm: realm.to_owned(),
                ..filter.clone()
            }),
            page_size,
            page_token,
        };
        client.ask(client.keys().list_keys(request)).await
    }
}
