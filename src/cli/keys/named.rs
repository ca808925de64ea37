//! How a user names a key: by its id, by the end of its hint, by its name, or by its external id.
//!
//! An id needs no look-up. Everything else is looked up in one realm. Names are chosen by the holders of keys, so a name that fits
//! several keys never chooses one of them: the user gets the list.

use std::fmt;

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use tonic::Code;

use super::key::{owner, short_hint, state};
use crate::cli::client::Client;
use crate::cli::connect::is_key_id;
use crate::cli::failure::Failure;
use crate::cli::realm_flag::RealmFlag;
use crate::cli::redact;
use crate::cli::table::{Cell, Column, Row, Table};
use crate::cli::text;
use crate::cli::width;
use crate::domain::ids::RealmId;
use crate::domain::{key_text, nearest};
use crate::pb::claviger::v1::{
    GetKeyRequest, GetSelfRequest, Key, KeyFilter, KeyState, ListKeysRequest,
};

/// The number of characters at the end of an API key that its hint shows.
const SHOWN: usize = 4;

/// How many keys are read at most to find those with exactly this name: the server only finds parts of names.
const PAGES: usize = 10;
const PAGE_SIZE: i32 = 1000;

/// The name of the key that a command calls with, for flags about administrators.
const ME: &str = "me";

/// How many keys an error lists.
const LISTED: usize = 10;

/// The most columns of a name in the list of an error.
const LONGEST_NAME: usize = 20;

/// What a user typed to name a key. It may be an API key, so it is never shown as it is.
#[derive(Clone)]
pub(in crate::cli) struct KeyName(String);

/// The argument that names a key.
#[derive(Debug, Args)]
pub(super) struct KeyArg {
    /// The key: its id, its name, its external id, or the end of its hint, such as `…PAeL`. Not the API key.
    #[arg(value_name = "KEY", value_parser = parser())]
    key: KeyName,
    #[command(flatten)]
    realm: RealmFlag,
}

/// What to do if several keys have the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Several {
    /// Take the only one that is not revoked.
    LivingWins,
    /// Take none: for what cannot be undone or stops traffic.
    Refused,
}

/// What a typed text can be.
#[derive(Debug, PartialEq, Eq)]
enum Form<'t> {
    /// The id of a key.
    Id,
    /// The part of a hint before the ellipsis, which may be empty, and the characters after it.
    Hint { head: &'t str, end: &'t str },
    /// A name or an external id, and perhaps the end of a hint without its ellipsis.
    Text,
}

/// The parser for arguments and flags that name a key. A name must not be empty: a script may have a variable that is not set.
pub(in crate::cli) fn parser() -> impl clap::builder::TypedValueParser<Value = KeyName> {
    NonEmptyStringValueParser::new().map(KeyName)
}

impl fmt::Debug for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyName")
    }
}

impl KeyArg {
    /// Returns the key.
    pub(super) async fn key(&self, client: &Client, several: Several) -> Result<Key, Failure> {
        self.key.check()?;
        if !self.key.is_id() {
            let realm = self.realm.resolve(client).await?;
            return self.key.find(client, &[&realm], several).await;
        }
        let key = self
            .or_external_id(client, self.key.0.clone(), async |id| get(client, id).await)
            .await?;
        self.check_realm(&key)?;
        Ok(key)
    }

    /// Calls with the key's id, which is looked up unless it is what the user typed.
    pub(super) async fn call<T>(
        &self,
        client: &Client,
        several: Several,
        call: impl AsyncFn(String) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.key.check()?;
        if self.key.is_id() && self.realm.flag().is_none() {
            let id = self.key.0.clone();
            return self.or_external_id(client, id, call).await;
        }
        call(self.key(client, several).await?.id).await
    }

    /// Whether the user typed an id.
    pub(super) fn is_id(&self) -> bool {
        self.key.is_id()
    }

    /// What the user typed, which is an id.
    pub(super) fn id(&self) -> &str {
        &self.key.0
    }

    /// Calls with this id, and if it is no key's with the id of the key that has it as its external id: other systems have UUIDs too.
    async fn or_external_id<T>(
        &self,
        client: &Client,
        id: String,
        call: impl AsyncFn(String) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // It never names another key, such as one that was given it after its own key was deleted.
        let is_key_id = is_key_id(&id);
        let failure = match call(id).await {
            Err(failure) if failure.is_not_found() => failure,
            outcome => return outcome,
        };
        let Ok(realm) = self.realm.resolve(client).await else {
            return Err(failure);
        };
        let Ok(found) = Box::pin(self.key.matches(client, &realm)).await else {
            return Err(failure);
        };
        let mut external = found.iter().filter(|key| key.external_id == self.key.0);
        if let Some(key) = external.next().filter(|_| !is_key_id) {
            return call(key.id.clone()).await;
        }
        // Anybody can give a key such a name, so it is not taken.
        Err(match found.first() {
            Some(key) => failure.hint(format!(
                "a key has it as its {}; name that key by its hint: {}",
                if key.name == self.key.0 {
                    "name"
                } else {
                    "external id"
                },
                short_hint(&key.hint)
            )),
            None => failure,
        })
    }

    fn check_realm(&self, key: &Key) -> Result<(), Failure> {
        match self.realm.flag() {
            Some(realm) if realm != key.realm => Err(Failure::new(
                Code::NotFound,
                format!("this key is of realm {}, and not of {realm}", key.realm),
            )),
            _ => Ok(()),
        }
    }
}

impl KeyName {
    /// Whether the text has the form of an id. An API key may consist of 32 hexadecimal digits, so only the form with hyphens counts.
    pub(in crate::cli) fn is_id(&self) -> bool {
        self.form() == Form::Id
    }

    /// Whether the key must be looked up in a realm.
    pub(in crate::cli) fn needs_realm(&self) -> bool {
        !self.is_id() && self.0 != ME
    }

    /// Returns the id of a key that may be in this realm or be a key of an administrator: an id as it was typed.
    pub(in crate::cli) async fn administrator(
        &self,
        client: &Client,
        realm: &str,
        several: Several,
    ) -> Result<String, Failure> {
        self.check()?;
        if self.0 == ME {
            let answer = client
                .ask(client.keys().get_self(GetSelfRequest {}))
                .await?;
            return Ok(answer.key.unwrap_or_default().id);
        }
        let mut realms = vec![realm, RealmId::BUILT_IN];
        realms.dedup();
        self.id_in(client, &realms, several).await
    }

    /// Returns the id of a key of these realms: an id as it was typed.
    pub(in crate::cli) async fn id_in(
        &self,
        client: &Client,
        realms: &[&str],
        several: Several,
    ) -> Result<String, Failure> {
        self.check()?;
        if self.is_id() {
            return Ok(self.0.clone());
        }
        Ok(self.find(client, realms, several).await?.id)
    }

    /// Refuses an API key before it is sent anywhere.
    pub(in crate::cli) fn check(&self) -> Result<(), Failure> {
        let mut words = self.0.split_whitespace();
        if words.any(|word| key_text::parse(word).is_ok()) {
            return Err(
                Failure::usage("this is an API key, and not the name of a key").hint(FIND_KEY),
            );
        }
        Ok(())
    }

    fn form(&self) -> Form<'_> {
        let text = self.0.as_str();
        if redact::is_hyphenated_uuid(text) {
            return Form::Id;
        }
        let is_head = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_ ".contains(c);
        let is_end = |c: char| c.is_ascii_graphic() && c != '/';
        for ellipsis in ["…", "..."] {
            if let Some((head, end)) = text.split_once(ellipsis)
                && head.chars().all(is_head)
                && end.chars().all(is_end)
                // More characters could not be compared, and would be a key that was not meant.
                && end.len() == SHOWN
            {
                let head = head.trim_end_matches(['_', ' ']);
                return Form::Hint { head, end };
            }
        }
        Form::Text
    }

    /// Returns the key with this name in these realms.
    async fn find(
        &self,
        client: &Client,
        realms: &[&str],
        several: Several,
    ) -> Result<Key, Failure> {
        let mut found: Vec<Key> = Vec::new();
        for (index, realm) in realms.iter().enumerate() {
            match Box::pin(self.matches(client, realm)).await {
                // Who administers one realm may not look into the others.
                Err(failure) if index > 0 && failure.is_forbidden() => {}
                matches => found.extend(matches?),
            }
        }
        if found.len() > 1 && several == Several::LivingWins {
            let mut living = found.iter().filter(|key| !is_revoked(key));
            if let (Some(only), None) = (living.next(), living.next()) {
                found = vec![only.clone()];
            }
        }
        match found.len() {
            0 => Err(self.unknown(client, realms).await),
            1 => Ok(found.remove(0)),
            _ => Err(self.ambiguous(realms, &found)),
        }
    }

    /// Returns the keys of a realm that have this name, external id or hint.
    async fn matches(&self, client: &Client, realm: &str) -> Result<Vec<Key>, Failure> {
        let text = &self.0;
        let filter = KeyFilter {
            realm: realm.to_owned(),
            ..KeyFilter::default()
        };
        let of_hint = |hint: &str| KeyFilter {
            hint: hint.to_owned(),
            ..filter.clone()
        };
        if let Form::Hint { head, end } = self.form() {
            let has_hint = |key: &Key| hints(key).any(|hint| is_hint(hint, head, end));
            return list(client, of_hint(end), has_hint).await;
        }
        let of_name = KeyFilter {
            name: text.clone(),
            ..filter.clone()
        };
        let of_external_id = KeyFilter {
            external_id: text.clone(),
            ..filter.clone()
        };
        let is_end = text.len() == SHOWN && text.chars().all(|c| c.is_ascii_graphic());
        let hinted = async {
            if is_end {
                let has_hint = |key: &Key| hints(key).any(|hint| is_hint(hint, "", text));
                list(client, of_hint(text), has_hint).await
            } else if text.starts_with("hmac:") {
                list(client, of_hint(text), |key| {
                    hints(key).any(|hint| hint == text)
                })
                .await
            } else {
                Ok(Vec::new())
            }
        };
        let (named, external, hinted) = tokio::join!(
            list(client, of_name, |key| key.name == *text),
            list(client, of_external_id, |_| true),
            hinted,
        );
        let mut found = named?;
        for key in external?.into_iter().chain(hinted?) {
            if !found.iter().any(|known| known.id == key.id) {
                found.push(key);
            }
        }
        Ok(found)
    }

    /// The failure if no key has the name.
    async fn unknown(&self, client: &Client, realms: &[&str]) -> Failure {
        let realm = realms[0];
        let names = newest_names(client, realm).await;
        let nearest = nearest::nearest(&self.0, names.iter().map(String::as_str));
        if self.may_be_api_key() && nearest.is_none() {
            return Failure::new(
                Code::NotFound,
                format!(
                    "no key of {realm} has this name, external id or hint, and it may be an API key"
                ),
            )
            .hint(FIND_KEY);
        }
        let shown = self.shown();
        if !realms.contains(&RealmId::BUILT_IN)
            && let Ok(found) = Box::pin(self.matches(client, RealmId::BUILT_IN)).await
            && !found.is_empty()
        {
            let message = format!("no key {shown} in {realm}, but in the realm claviger");
            return Failure::new(Code::NotFound, message)
                .hint("the same command with --realm claviger");
        }
        let failure = Failure::new(
            Code::NotFound,
            match nearest {
                Some(nearest) => {
                    format!("no key {shown} in {realm}; did you mean \"{nearest}\"?")
                }
                None => format!(
                    "no key {shown} in {realm}: no id, name, external id or hint is like this"
                ),
            },
        );
        if nearest.is_some() || realms.contains(&RealmId::BUILT_IN) {
            return failure;
        }
        failure.hint(
            "`claviger keys list` shows the keys of a realm; those of operators and gateways are in --realm claviger",
        )
    }

    /// The failure if several keys have the name.
    fn ambiguous(&self, realms: &[&str], found: &[Key]) -> Failure {
        let listed = &found[..found.len().min(LISTED)];
        let is_same = |key: &Key| listed.iter().filter(|other| other.hint == key.hint).count() > 1;
        let same_hints = listed.iter().any(is_same);
        let rows = listed.iter().map(|key| {
            let mut row = vec![
                // What may be an API key is not repeated in the table either.
                width::cut(
                    &text::plain(&redact::mask_keys(&key.name, &[])),
                    LONGEST_NAME,
                ),
                owner(key),
                short_hint(&key.hint),
                state(key),
                text::time_if_any(key.create_time.as_ref()),
            ];
            if same_hints {
                row.push(key.id.clone());
            }
            row
        });
        let mut header = vec!["NAME", "OWNER", "KEY", "STATE", "CREATED"];
        if same_hints {
            header.push("ID");
        }
        let mut table = Table::new(header.into_iter().map(|name| Column::whole(name, 0)));
        for row in rows {
            table.push(Row {
                cells: row.iter().map(Cell::new).collect(),
                ..Row::default()
            });
        }
        let mut lines = table.shown(None).lines;
        if found.len() > LISTED {
            lines.push(format!("and {} more", found.len() - LISTED));
        }
        let (count, realms) = (found.len(), realms.join(" and "));
        Failure::usage(if self.may_be_api_key() {
            format!("{count} keys of {realms} have this name or external id")
        } else {
            format!("{} names {count} keys of {realms}", self.shown())
        })
        .reason("AMBIGUOUS_KEY")
        .details(lines)
        .hint(if same_hints {
            "name one of them by its id".to_owned()
        } else {
            let hint = &found[0].hint;
            let end = hint.rsplit('…').next().unwrap_or(hint);
            let end = if hint.contains('…') {
                format!("…{end}")
            } else {
                end.to_owned()
            };
            format!("name one of them by its hint, such as {end}")
        })
    }

    /// Whether the text may be an API key of another system, which must not be shown.
    fn may_be_api_key(&self) -> bool {
        let is_key = |word| redact::looks_like_key(word) && !redact::is_hyphenated_uuid(word);
        self.0.split_whitespace().any(is_key)
    }

    /// The text in quotes, unless it may be an API key.
    fn shown(&self) -> String {
        if self.may_be_api_key() {
            return "of this name".to_owned();
        }
        format!("\"{}\"", self.0)
    }
}

const FIND_KEY: &str = "`claviger keys find` looks for the key that an API key belongs to; it reads the API key from standard input";

fn is_revoked(key: &Key) -> bool {
    key.state == KeyState::Revoked as i32
}

/// The hints of a key and of each of its secrets.
fn hints(key: &Key) -> impl Iterator<Item = &str> {
    let of_secrets = key.secrets.iter().map(|secret| secret.hint.as_str());
    std::iter::once(key.hint.as_str()).chain(of_secrets)
}

/// Whether a hint ends like this, and its part before the ellipsis as well.
fn is_hint(hint: &str, head: &str, end: &str) -> bool {
    match hint.split_once('…') {
        Some((whole, shown)) => {
            let whole = whole.trim_end_matches('_');
            let is_tag = || {
                whole
                    .strip_suffix(head)
                    .is_some_and(|rest| rest.ends_with('_'))
            };
            shown == end && (head.is_empty() || whole == head || is_tag())
        }
        None => head.is_empty() && hint.ends_with(end),
    }
}

async fn get(client: &Client, key_id: String) -> Result<Key, Failure> {
    let request = GetKeyRequest {
        key_id,
        ..GetKeyRequest::default()
    };
    let answer = client.ask(client.keys().get_key(request)).await?;
    Ok(answer.key.unwrap_or_default())
}

/// Returns those of the listed keys that `is_meant`.
async fn list(
    client: &Client,
    filter: KeyFilter,
    is_meant: impl Fn(&Key) -> bool,
) -> Result<Vec<Key>, Failure> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES {
        let request = ListKeysRequest {
            filter: Some(filter.clone()),
            page_size: PAGE_SIZE,
            page_token,
            ..ListKeysRequest::default()
        };
        let page = client.ask(client.keys().list_keys(request)).await?;
        found.extend(page.keys.into_iter().filter(&is_meant));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
    Err(Failure::usage(format!(
        "too many keys of {} have this in their name",
        filter.realm
    ))
    .hint("name the key by its hint or its id"))
}

/// The names of the newest keys of a realm; none if they cannot be read.
async fn newest_names(client: &Client, realm: &str) -> Vec<String> {
    let request = ListKeysRequest {
        filter: Some(KeyFilter {
            realm: realm.to_owned(),
            ..KeyFilter::default()
        }),
        page_size: PAGE_SIZE,
        ..ListKeysRequest::default()
    };
    let page = client.ask(client.keys().list_keys(request)).await;
    let keys = page.map(|page| page.keys).unwrap_or_default();
    let names = keys.into_iter().map(|key| key.name);
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> KeyName {
        KeyName(text.to_owned())
    }

    #[test]
    fn a_text_is_an_id_a_hint_or_a_name() {
        let hint = |head, end| Form::Hint { head, end };
        for (text, form) in [
            ("01a214d0-7407-7b5d-a9dc-8c57eacd3de0", Form::Id),
            ("01a214d074077b5da9dc8c57eacd3de0", Form::Text),
            ("…PAeL", hint("", "PAeL")),
            ("...PAeL", hint("", "PAeL")),
            ("…xyPAeL", Form::Text),
            ("live …PAeL", hint("live", "PAeL")),
            ("demo_live_…PAeL", hint("demo_live", "PAeL")),
            ("demo_live_...PAeL", hint("demo_live", "PAeL")),
            ("PAeL", Form::Text),
            ("…eL", Form::Text),
            ("wait …", Form::Text),
            ("etl... nightly", Form::Text),
            ("…ab/cd", Form::Text),
            ("ci", Form::Text),
        ] {
            assert_eq!(named(text).form(), form, "{text}");
        }
    }

    #[test]
    fn a_hint_is_compared_with_its_tag() {
        for (head, end, is) in [
            ("", "PAeL", true),
            ("live", "PAeL", true),
            ("demo_live", "PAeL", true),
            ("demo", "PAeL", false),
            ("ive", "PAeL", false),
            ("test", "PAeL", false),
            ("", "paeL", false),
        ] {
            assert_eq!(is_hint("demo_live_…PAeL", head, end), is, "{head}…{end}");
        }
        assert!(is_hint("…PAeL", "", "PAeL"));
        assert!(!is_hint("…PAeL", "live", "PAeL"));
        assert!(is_hint("hmac:1a2b3c4d", "", "3c4d"));
    }

    /// Seen red with the text as it is in the output of `Debug`.
    #[test]
    fn an_api_key_is_refused_and_never_shown() {
        let key = named("demo_live_4fzs3fzs3fzs3fzs3fzs3fz");
        assert!(!format!("{key:?}{}", key.shown()).contains("fzs"));
        assert!(key.may_be_api_key());
        assert!(!named("01a214d0-7407-7b5d-a9dc-8c57eacd3de0").may_be_api_key());
        assert!(!named("nightly export").may_be_api_key());
        assert!(named("Bearer demo_live_4fzs3fzs3fzs3fzs3fzs3fz").may_be_api_key());
    }
}
