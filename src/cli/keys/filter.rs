//! The flags that select keys.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use super::named::{self, KeyName, Several};
use crate::cli::arguments::FlagValue;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::pb::claviger::v1::{KeyFilter, KeyState};

/// The flags that select keys of a realm. A key matches if it matches all of them. A value must not be empty: with a variable that is
/// not set, a script would select all keys.
#[derive(Debug, Args)]
pub(super) struct FilterFlags {
    /// Only keys of this partner.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    partner: Option<String>,
    /// Only keys of this project.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    project: Option<String>,
    /// Only keys of this environment.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    environment: Option<String>,
    /// Only the key with this external id.
    #[arg(long, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    external_id: Option<String>,
    /// Only keys whose name contains this text; ASCII letters match in either case.
    #[arg(long, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Only keys with this label; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair)]
    label: Vec<(String, String)>,
    /// Only keys whose hint contains this text, such as the last four characters of an API key.
    #[arg(long, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    hint: Option<String>,
    /// Only keys that were issued with this key, of this realm or of the realm `claviger`; `me` is the key that this command
    /// calls with.
    #[arg(long, value_name = "KEY", value_parser = named::parser())]
    created_by: Option<KeyName>,
    /// Only keys that were issued at this time or later, or since that long ago, such as 24h.
    // As with the page token: the flags that are printed for the next page are appended to the command line of this page.
    #[arg(long, value_name = flags::PAST, value_parser = flags::past, overrides_with = "issued_after")]
    issued_after: Option<Timestamp>,
    /// Only keys that were issued before this time, or before that long ago, such as 90d.
    #[arg(long, value_name = flags::PAST, value_parser = flags::past, overrides_with = "issued_before")]
    pub(super) issued_before: Option<Timestamp>,
    /// Only keys in this state; can be repeated. It is the key's own state: a key of a suspended partner can be active.
    #[arg(long, value_delimiter = ',')]
    state: Vec<State>,
    /// Only keys that are older than this span, such as 30d, and were not used within it. Without --state, only living keys.
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    unused_for: Option<Duration>,
    /// Only keys that never expire. Without --state, only living keys.
    #[arg(long, conflicts_with = "expires_within")]
    never_expires: bool,
    /// Only keys that expire within this span from now, such as 7d. Without --state, only living keys.
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    expires_within: Option<Duration>,
    /// Only keys that live longer than the realm's max lifetime allows, because they are from before it was set.
    #[arg(long)]
    beyond_max_lifetime: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Active,
    Disabled,
    Expired,
    Revoked,
}

impl FilterFlags {
    /// The filter of the keys of a realm.
    pub(super) fn to_proto(&self, realm: &str) -> Result<KeyFilter, Failure> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Ok(KeyFilter {
            realm: realm.to_owned(),
            partner: text(&self.partner),
            project: text(&self.project),
            environment: text(&self.environment),
            states: self.states(),
            unused_for: flags::span_to_proto(self.unused_for, "--unused-for")?,
            never_expires: self.never_expires,
            expires_within: flags::span_to_proto(self.expires_within, "--expires-within")?,
            issued_before: self.issued_before,
            external_id: text(&self.external_id),
            name: text(&self.name),
            labels: flags::by_name(self.label.clone())
                .map_err(|why| Failure::usage(format!("--label: {why}")))?,
            hint: text(&self.hint),
            // The server must be asked: `creator`.
            created_by: String::new(),
            issued_after: self.issued_after,
            beyond_max_lifetime: self.beyond_max_lifetime,
        })
    }

    /// The id for `created_by`. A name is looked up in this realm and in that of the administrators.
    pub(super) async fn creator(
        &self,
        client: &Client,
        realm: &str,
        several: Several,
    ) -> Result<String, Failure> {
        match &self.created_by {
            Some(name) => name.administrator(client, realm, several).await,
            None => Ok(String::new()),
        }
    }

    /// The states of the keys. Who asks what expires soon or is not used means keys that can still be used.
    fn states(&self) -> Vec<i32> {
        let is_about_living =
            self.unused_for.is_some() || self.never_expires || self.expires_within.is_some();
        let living = [State::Active, State::Disabled];
        let states = match self.state.as_slice() {
            [] if is_about_living => &living[..],
            given => given,
        };
        states.iter().map(|state| state.to_proto()).collect()
    }

    /// The absolute flags for the next page, or for a repetition: by then, a relative time such as `24h` means another time.
    pub(super) fn repeated(&self) -> Vec<FlagValue> {
        let flags = [
            ("--issued-after", self.issued_after),
            ("--issued-before", self.issued_before),
        ];
        let flags = flags.into_iter();
        flags
            .filter_map(|(flag, time)| Some((flag, time?.to_string())))
            .collect()
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
