//! The argument that names a key, and the facts that commands show of a key.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::response::ChangeResponse;
use crate::cli::style::Tone;
use crate::cli::text;
use crate::pb::claviger::v1::{Key, KeyState};

/// The argument that names a key.
#[derive(Debug, Args)]
pub(super) struct KeyId {
    /// The key's id, a UUID; not the API key.
    #[arg(value_name = "KEY_ID")]
    pub(super) id: String,
}

/// The flag that names the revision that the key must have.
#[derive(Debug, Args)]
pub(super) struct IfRevisionFlag {
    /// Fail unless the key has this revision, which `keys get` shows.
    #[arg(long = "if-revision", value_name = "N")]
    pub(super) revision: Option<u64>,
}

impl KeyId {
    /// Shows that the key was changed. `done` is the verb, such as `revoked`.
    pub(super) fn show_change<C: ChangeResponse>(
        &self,
        output: &Output,
        done: &str,
        answer: &C,
    ) -> Result<(), Failure> {
        output.show_change(answer, |answer| {
            format!("{done} key {}: {}", text::plain(&self.id), answer.effect())
        })
    }
}

/// Formats the facts of a key.
pub(super) fn facts(key: &Key) -> String {
    text::facts(rows(key))
}

/// Formats the facts of a key, with the last use of the key and of each secret.
pub(in crate::cli) fn facts_with_usage(key: &Key) -> String {
    let last_used = key
        .last_used_time
        .as_ref()
        .map_or_else(|| last_used(key), |at| used(at, &key.last_used_address));
    let last_used = ("last used", last_used);
    let secrets = key.secrets.iter().enumerate().map(|(index, secret)| {
        // A second secret comes from a rotation with an overlap, which may be over.
        let name = match (index, key.secrets.len()) {
            (_, 1) => "secret",
            (0, _) => "old secret",
            _ => "new secret",
        };
        let imported = if secret.imported { ", imported" } else { "" };
        let end = secret
            .expire_time
            .as_ref()
            .map(|at| format!(", works until {}", text::time(at)))
            .unwrap_or_default();
        let last_used = secret.last_used_time.as_ref().map_or_else(
            || "never used".to_owned(),
            |at| format!("last used {}", used(at, &secret.last_used_address)),
        );
        let created = text::time_if_any(secret.create_time.as_ref());
        (
            name,
            format!("created {created}{imported}{end}, {last_used}"),
        )
    });
    text::facts(rows(key).into_iter().chain([last_used]).chain(secrets))
}

/// Formats the time of the last use of a key; `never` without one.
pub(super) fn last_used(key: &Key) -> String {
    key.last_used_time
        .as_ref()
        .map_or_else(|| "never".to_owned(), text::time)
}

/// Formats the time of a use, and from where it was if that is known.
fn used(at: &prost_types::Timestamp, address: &str) -> String {
    let at = text::time(at);
    if address.is_empty() {
        return at;
    }
    format!("{at} from {}", text::plain(address))
}

fn rows(key: &Key) -> Vec<(&'static str, String)> {
    vec![
        ("key id", key.id.clone()),
        ("name", key.name.clone()),
        ("hint", key.hint.clone()),
        ("state", state(key)),
        ("external id", key.external_id.clone()),
        ("realm", key.realm.clone()),
        ("partner", key.partner.clone()),
        ("project", key.project.clone()),
        (
            "level",
            text::enum_value(key.level().as_str_name(), "KEY_LEVEL_"),
        ),
        ("environment", key.environment.clone()),
        ("scopes", text::granted(&key.scopes, key.full_access)),
        ("labels", text::pairs(&key.labels)),
        ("allowed from", key.allowed_cidrs.join(", ")),
        ("created", text::time_if_any(key.create_time.as_ref())),
        ("created by", key.created_by.clone()),
        ("expires", text::expiry(key.expire_time.as_ref())),
        ("revoked", text::time_if_any(key.revoke_time.as_ref())),
        ("reason", key.revoke_reason.clone()),
        (
            "revision",
            key.revision
                .map(|number| number.to_string())
                .unwrap_or_default(),
        ),
    ]
}

/// The owner of a key: its partner, or the project of the partner.
pub(super) fn owner(key: &Key) -> String {
    if key.project.is_empty() {
        key.partner.clone()
    } else {
        format!("{}/{}", key.partner, key.project)
    }
}

/// What people call a key by: of its hint, the tag of its environment and the last characters, as in `live …a5Ai`.
pub(in crate::cli) fn short_hint(hint: &str) -> String {
    let short = hint.split_once('…').and_then(|(head, end)| {
        let (_, tag) = head.strip_suffix('_')?.rsplit_once('_')?;
        Some(format!("{tag} …{end}"))
    });
    short.unwrap_or_else(|| hint.to_owned())
}

/// How a sentence names a key: `"ci" (acme, live …plvF)`, or without a name `… (acme, live …plvF)`.
pub(super) fn title(key: &Key) -> String {
    let name = if key.name.is_empty() {
        "…".to_owned()
    } else {
        format!("\"{}\"", key.name)
    };
    let owner = owner(key);
    let facts: Vec<_> = [owner, short_hint(&key.hint)]
        .into_iter()
        .filter(|fact| !fact.is_empty())
        .collect();
    text::plain(&format!("{name} ({})", facts.join(", "))).into_owned()
}

/// The colour of the state of a key.
pub(super) fn tone(key: &Key) -> Tone {
    match key.state() {
        KeyState::Active => Tone::Good,
        KeyState::Disabled | KeyState::Unspecified => Tone::Warning,
        KeyState::Expired | KeyState::Revoked => Tone::Bad,
    }
}

/// Formats the state of a key.
pub(super) fn state(key: &Key) -> String {
    KeyState::try_from(key.state).map_or_else(
        // A newer server may have more states, which must not look like a known one.
        |_| format!("{} (not known here)", key.state),
        |state| text::enum_value(state.as_str_name(), "KEY_STATE_"),
    )
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::KeySecret;

    use super::*;

    #[test]
    fn an_unknown_state_is_shown_by_its_number() {
        let key = |state| Key {
            state,
            ..Key::default()
        };
        assert_eq!(state(&key(KeyState::Revoked as i32)), "revoked");
        assert_eq!(state(&key(99)), "99 (not known here)");
    }

    #[test]
    fn a_key_is_shown_by_its_facts() {
        let key = Key {
            id: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
            name: "ci \x1b[1m".to_owned(),
            realm: "demo".to_owned(),
            partner: "acme".to_owned(),
            external_id: "21fd1a8d \x1b[1m".to_owned(),
            level: 1,
            state: KeyState::Active as i32,
            environment: "production".to_owned(),
            ..Key::default()
        };
        assert_eq!(
            facts(&key),
            "key id       0192f0c1-2345-7abc-8def-0123456789ab\n\
             name         ci \\u{1b}[1m\n\
             state        active\n\
             external id  21fd1a8d \\u{1b}[1m\n\
             realm        demo\n\
             partner      acme\n\
             level        partner\n\
             environment  production\n\
             scopes       none\n\
             expires      never"
        );
    }

    #[test]
    fn each_secret_of_a_key_shows_when_it_was_last_used() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let key = Key {
            last_used_time: at(1_800_000_060),
            last_used_address: "203.0.113.9".to_owned(),
            secrets: vec![
                KeySecret {
                    hint: String::new(),
                    create_time: at(1_700_000_000),
                    expire_time: at(1_800_086_400),
                    last_used_time: at(1_800_000_060),
                    last_used_address: "203.0.113.9".to_owned(),
                    imported: true,
                },
                KeySecret {
                    hint: String::new(),
                    create_time: at(1_800_000_000),
                    ..KeySecret::default()
                },
            ],
            ..Key::default()
        };
        let facts = facts_with_usage(&key);
        let lines: Vec<_> = facts.lines().rev().take(3).collect();
        assert_eq!(
            lines,
            [
                "new secret  created 2027-01-15T08:00:00Z, never used",
                "old secret  created 2023-11-14T22:13:20Z, imported, works until 2027-01-16T08:00:00Z, last used \
                 2027-01-15T08:01:00Z from 203.0.113.9",
                "last used   2027-01-15T08:01:00Z from 203.0.113.9",
            ]
        );
    }
}
