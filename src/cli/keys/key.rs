//! What commands say of a key: its name in a sentence, the questions about it, and its facts.

use clap::Args;
use prost_types::Timestamp;

use crate::cli::flags::now;
use crate::cli::output::Output;
use crate::cli::style::Tone;
use crate::cli::text;
pub(in crate::cli) use crate::cli::text::short_hint;
use crate::cli::when;
use crate::pb::claviger::v1::{Key, KeyState};

/// The flag that names the revision that the key must have.
#[derive(Debug, Args)]
pub(super) struct IfRevisionFlag {
    /// Fail unless the key has this revision, which `keys get` shows.
    #[arg(long = "if-revision", value_name = "N")]
    pub(super) revision: Option<u64>,
}

/// What a command takes for a key: the end of its hint, or its id if the hint has no end.
pub(super) fn handle(key: &Key) -> String {
    let hint = key.hint.split_once('…').filter(|(_, end)| !end.is_empty());
    hint.map_or_else(|| key.id.clone(), |(_, end)| format!("…{end}"))
}

/// Names a key in a sentence: `"ci" (acme, live …plvF)`. What others chose is escaped, also quotation marks, so that no name looks like
/// that of another key.
pub(in crate::cli) fn title(key: &Key) -> String {
    let name = if key.name.is_empty() {
        "…".to_owned()
    } else {
        format!("\"{}\"", key.name.replace('"', "\\\""))
    };
    let parts = [owner(key), short_hint(&key.hint)];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    text::plain(&format!("{name} ({})", parts.join(", "))).into_owned()
}

/// The owner of a key: its partner, and its project if it is bound to one. The realm for a key of an operator.
pub(super) fn owner(key: &Key) -> String {
    text::owner(&key.realm, &key.partner, &key.project)
}

/// The question before something is done to a key: `Revoke "ci" (acme, live …plvF)? It was used 3 s ago.`
pub(super) fn question(verb: &str, key: &Key) -> String {
    let state = match KeyState::try_from(key.state) {
        Ok(KeyState::Active) | Err(_) => String::new(),
        Ok(_) => format!(" It is {}.", state(key)),
    };
    format!(
        "{verb} {}?{state} It was {}.",
        title(key),
        used_ago(key.last_used_time.as_ref())
    )
}

/// `used 3 s ago`, or `never used`.
pub(super) fn used_ago(at: Option<&Timestamp>) -> String {
    at.map_or_else(
        || "never used".to_owned(),
        |at| format!("used {}", when::ago(at, &now().into())),
    )
}

/// Says that a key was revoked before, and that nothing was changed.
pub(super) fn already_revoked(output: &Output, key: &Key) -> String {
    let since = key.revoke_time.as_ref();
    let since = since.map_or_else(String::new, |at| format!(" {}", moment(output, at)));
    let reason = match key.revoke_reason.as_str() {
        "" => String::new(),
        reason => format!(" (reason: {})", text::plain(reason)),
    };
    already(key, &format!("revoked{since}{reason}"))
}

/// Says that a key was in this state before, and that nothing was changed.
pub(super) fn already(key: &Key, state: &str) -> String {
    format!("{}: already {state}; nothing was changed", title(key))
}

/// Whether a change left the key as it was before. A bulk revocation does not change the revision.
pub(super) fn is_unchanged(before: &Key, after: Option<&Key>) -> bool {
    after.is_some_and(|after| after.state == before.state && after.revision == before.revision)
}

/// A time as people read it on a terminal, to the minute: `25 Nov 22:27 UTC`. Elsewhere in RFC 3339.
fn moment(output: &Output, at: &Timestamp) -> String {
    match output.screen() {
        Some(screen) => format!("{} UTC", when::minute(at, &screen.now)),
        None => text::time(at),
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
fn used(at: &Timestamp, address: &str) -> String {
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
        ("state", whole_state(key)),
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

/// The colour of the state of a key.
pub(super) fn tone(key: &Key) -> Tone {
    match key.state() {
        KeyState::Active if key.partner_suspended => Tone::Warning,
        KeyState::Active => Tone::Good,
        KeyState::Disabled | KeyState::Unspecified => Tone::Warning,
        KeyState::Expired | KeyState::Revoked => Tone::Bad,
    }
}

/// Formats the state of a key in one word. A key that would work, but whose partner is suspended, is `suspended`.
pub(super) fn state(key: &Key) -> String {
    if key.partner_suspended && key.state == KeyState::Active as i32 {
        return "suspended".to_owned();
    }
    own_state(key)
}

/// Formats the state of a key, and whether its partner is suspended.
fn whole_state(key: &Key) -> String {
    let state = own_state(key);
    let join = match KeyState::try_from(key.state) {
        Ok(KeyState::Active) => "but",
        Ok(KeyState::Disabled) => "and",
        // Nothing brings it back, so its partner does not matter.
        _ => return state,
    };
    if key.partner_suspended {
        format!("{state}, {join} partner {} is suspended", key.partner)
    } else {
        state
    }
}

fn own_state(key: &Key) -> String {
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

    /// Seen red with names as they are: one that ends the quotation looks like another key.
    #[test]
    fn a_key_is_named_by_its_name_owner_and_hint() {
        let key = |name: &str, project: &str, hint: &str| Key {
            name: name.to_owned(),
            partner: "acme".to_owned(),
            project: project.to_owned(),
            hint: hint.to_owned(),
            ..Key::default()
        };
        for (key, is) in [
            (
                key("ci", "", "demo_live_…plvF"),
                "\"ci\" (acme, live …plvF)",
            ),
            (key("", "web", "…plvF"), "… (acme/web, …plvF)"),
            (key("a", "", "hmac:1a2b3c4d"), "\"a\" (acme, hmac:1a2b3c4d)"),
            (key("a", "", ""), "\"a\" (acme)"),
            (
                key("x\" (globex)\n", "", "…aaaa"),
                "\"x\\\" (globex)\\n\" (acme, …aaaa)",
            ),
        ] {
            assert_eq!(title(&key), is);
        }
        let operators = Key {
            name: "first operator".to_owned(),
            realm: "claviger".to_owned(),
            hint: "claviger_main_…WRWi".to_owned(),
            ..Key::default()
        };
        assert_eq!(
            title(&operators),
            "\"first operator\" (claviger, main …WRWi)"
        );
    }

    #[test]
    fn a_use_that_lies_ahead_is_now() {
        assert_eq!(used_ago(None), "never used");
        let later = Timestamp {
            seconds: 253_402_300_799,
            nanos: 0,
        };
        assert_eq!(used_ago(Some(&later)), "used 0 s ago");
    }

    #[test]
    fn a_key_of_a_suspended_partner_is_not_shown_as_active() {
        let key = |state: KeyState, partner_suspended| Key {
            state: state.into(),
            partner: "globex".to_owned(),
            partner_suspended,
            ..Key::default()
        };
        for (key, short, long) in [
            (key(KeyState::Active, false), "active", "active"),
            (
                key(KeyState::Active, true),
                "suspended",
                "active, but partner globex is suspended",
            ),
            (
                key(KeyState::Disabled, true),
                "disabled",
                "disabled, and partner globex is suspended",
            ),
            (key(KeyState::Revoked, true), "revoked", "revoked"),
        ] {
            assert_eq!(
                (state(&key), whole_state(&key)),
                (short.to_owned(), long.to_owned())
            );
        }
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
