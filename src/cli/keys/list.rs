//! The `keys list` command.

use std::time::Duration;

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use super::key::{last_used, state};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::output::Output;
use crate::cli::page::{Listing, PageFlags};
use crate::cli::text;
use crate::pb::claviger::v1::{Key, KeyFilter, KeyState, ListKeysRequest};

/// List the keys of a realm, newest first.
#[derive(Debug, Args)]
pub struct List {
    /// The realm.
    #[arg(long)]
    realm: String,
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

impl List {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let unused_for = flags::span_to_proto(self.unused_for, "--unused-for")?;
        let expires_within = flags::span_to_proto(self.expires_within, "--expires-within")?;
        let client = connection.connect().await?;
        let row = |key: &Key| {
            vec![
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
        };
        let listing = Listing {
            header: &[
                "ID",
                "NAME",
                "PARTNER",
                "PROJECT",
                "ENV",
                "HINT",
                "STATE",
                "EXPIRES",
                "LAST USED",
            ],
            // A search for unused keys is about the last column.
            last_is_optional: unused_for.is_none(),
            empty: "There are no such keys.",
            repeat: self.repeat(),
        };
        self.page
            .show(output, listing, row, async |page_size, page_token| {
                let request = ListKeysRequest {
                    filter: Some(KeyFilter {
                        realm: self.realm.clone(),
                        partner: self.partner.clone(),
                        project: self.project.clone(),
                        environment: self.environment.clone(),
                        states: self.state.iter().map(|state| state.to_proto()).collect(),
                        unused_for,
                        never_expires: self.never_expires,
                        expires_within,
                        issued_before: self.issued_before,
                        external_id: self.external_id.clone(),
                        name: self.name.clone(),
                        labels: self.label.iter().cloned().collect(),
                        hint: self.hint.clone(),
                        created_by: self.created_by.clone(),
                        issued_after: self.issued_after,
                        beyond_max_lifetime: self.beyond_max_lifetime,
                    }),
                    page_size,
                    page_token,
                };
                client.ask(client.keys().list_keys(request)).await
            })
            .await
    }
}

impl List {
    /// The absolute flags for the next page: by then, a relative time such as `24h` means another time.
    fn repeat(&self) -> String {
        let flag = |name: &str, time: Option<Timestamp>| {
            time.map(|time| format!("{name} {time} "))
                .unwrap_or_default()
        };
        flag("--issued-after", self.issued_after) + &flag("--issued-before", self.issued_before)
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
