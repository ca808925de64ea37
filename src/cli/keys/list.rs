//! The `keys list` command.

use std::time::Duration;

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use super::key::{last_used, state};
use crate::cli::client::Client;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::output::Output;
use crate::cli::page::{self, Listing, PageFlags};
use crate::cli::response::PageResponse as _;
use crate::cli::text;
use crate::pb::claviger::v1::{
    Key, KeyFilter, KeyState, ListKeysRequest, ListKeysResponse, ListRealmsRequest,
};

/// The exit code of `--fail-if-any` if a key was found.
const FOUND: u8 = 5;

/// List the keys of a realm, or of all realms, newest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys list --realm demo --partner acme --state active

  claviger keys list --all-realms --state active --expires-within 14d --fail-if-any")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each of them is a flag of the command line"
)]
pub struct List {
    /// The realm.
    #[arg(long, required_unless_present = "all_realms")]
    realm: Option<String>,
    /// All realms that the caller administers, one after the other, with all pages. An error in one realm is an error of the
    /// command.
    #[arg(long, conflicts_with_all = ["realm", "page_token"])]
    all_realms: bool,
    /// Exit with 5 if a key is found, and with 0 if not.
    #[arg(long)]
    fail_if_any: bool,
    /// Only keys of this partner.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// Only keys of this project.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// Only keys of this environment.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// Only the key with this external id.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    external_id: String,
    /// Only keys whose name contains this text; ASCII letters match in either case.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    name: String,
    /// Only keys with this label; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair)]
    label: Vec<(String, String)>,
    /// Only keys whose hint contains this text, such as the last four characters of an API key.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    hint: String,
    /// Only keys that were issued with the key that has this id.
    #[arg(
        long,
        value_name = "KEY_ID",
        default_value_t,
        hide_default_value = true
    )]
    created_by: String,
    /// Only keys that were issued at this time or later, or since that long ago, such as 24h.
    // As with the page token: the flags that are printed for the next page are appended to the command line of this page.
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past, overrides_with = "issued_after")]
    issued_after: Option<Timestamp>,
    /// Only keys that were issued before this time, or before that long ago, such as 90d.
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past, overrides_with = "issued_before")]
    issued_before: Option<Timestamp>,
    /// Only keys in this state; can be repeated.
    #[arg(long, value_delimiter = ',')]
    state: Vec<State>,
    /// Only keys that are older than this span, such as 30d, and were not used within it.
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    unused_for: Option<Duration>,
    /// Only keys that never expire.
    #[arg(long, conflicts_with = "expires_within")]
    never_expires: bool,
    /// Only keys that expire within this span from now, such as 7d.
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    expires_within: Option<Duration>,
    /// Only keys that live longer than the realm's max lifetime allows, because they are from before it was set.
    #[arg(long)]
    beyond_max_lifetime: bool,
    #[command(flatten)]
    page: PageFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Active,
    Disabled,
    Expired,
    Revoked,
}

/// The columns of the table. The first one is only for several realms.
const HEADER: [&str; 10] = [
    "REALM",
    "ID",
    "NAME",
    "PARTNER",
    "PROJECT",
    "ENV",
    "HINT",
    "STATE",
    "EXPIRES",
    "LAST USED",
];

fn row(key: &Key) -> Vec<String> {
    vec![
        key.realm.clone(),
        key.id.clone(),
        key.name.clone(),
        key.partner.clone(),
        key.project.clone(),
        key.environment.clone(),
        key.hint.clone(),
        state(key),
        text::expiry(key.expire_time.as_ref()),
        last_used(key),
    ]
}

impl List {
    /// Returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let filter = self.filter()?;
        let client = connection.connect().await?;
        // A search for unused keys is about the last column.
        let is_about_use = self.unused_for.is_some();
        let page = if let Some(realm) = &self.realm {
            let page = self.page.fetch(in_realm(&client, &filter, realm)).await?;
            let listing = Listing {
                header: &HEADER[1..],
                optional: if is_about_use { &[] } else { &[8] },
                cut: None,
                empty: "There are no such keys.",
                repeat: self.repeat(),
            };
            let row = |key: &Key| row(key).split_off(1);
            listing.show(output, &page, row, self.page.is_first())?;
            page
        } else {
            let page = self.in_all_realms(&client, &filter).await?;
            let listing = Listing {
                header: &HEADER,
                optional: if is_about_use {
                    &[4, 5, 6, 7, 3, 8]
                } else {
                    &[9, 4, 5, 6, 7, 3]
                },
                cut: Some(2),
                empty: "There are no such keys.",
                repeat: String::new(),
            };
            listing.show(output, &page, row, true)?;
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

    /// The filter, without a realm.
    fn filter(&self) -> Result<KeyFilter, Failure> {
        Ok(KeyFilter {
            realm: String::new(),
            partner: self.partner.clone(),
            project: self.project.clone(),
            environment: self.environment.clone(),
            states: self.state.iter().map(|state| state.to_proto()).collect(),
            unused_for: flags::span_to_proto(self.unused_for, "--unused-for")?,
            never_expires: self.never_expires,
            expires_within: flags::span_to_proto(self.expires_within, "--expires-within")?,
            issued_before: self.issued_before,
            external_id: self.external_id.clone(),
            name: self.name.clone(),
            labels: self.label.iter().cloned().collect(),
            hint: self.hint.clone(),
            created_by: self.created_by.clone(),
            issued_after: self.issued_after,
            beyond_max_lifetime: self.beyond_max_lifetime,
        })
    }

    /// The absolute flags for the next page: by then, a relative time such as `24h` means another time.
    fn repeat(&self) -> String {
        let flag = |name: &str, time: Option<Timestamp>| {
            time.map(|time| format!("{name} {time} "))
                .unwrap_or_default()
        };
        flag("--issued-after", self.issued_after) + &flag("--issued-before", self.issued_before)
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

impl State {
    fn to_proto(self) -> i32 {
        match self {
            Self::Active => KeyState::Active as i32,
            Self::Disabled => KeyState::Disabled as i32,
            Self::Expired => KeyState::Expired as i32,
            Self::Revoked => KeyState::Revoked as i32,
        }
    }
}
