//! A key as a terminal shows it.

use prost_types::Timestamp;

use super::key::{facts_with_usage, handle, owner, short_hint, state, tone};
use crate::cli::client::Client;
use crate::cli::output::{Output, Screen};
use crate::cli::style::Tone;
use crate::cli::table;
use crate::cli::text;
use crate::cli::usage::totals_line;
use crate::cli::when;
use crate::cli::width::{spread, width, wrap};
use crate::pb::claviger::v1::{
    GetKeyRequest, GetKeyScopesRequest, GetKeyUsageRequest, Key, KeySecret, KeyState, VerdictCount,
};

/// What a screen shows of a key besides its facts. Each is empty if the caller may not know it.
#[derive(Debug, Default)]
pub(in crate::cli) struct Background {
    /// The scopes that the key holds because others imply them.
    pub(in crate::cli) implied: Vec<String>,
    /// The key that issued it.
    pub(in crate::cli) issuer: Option<Key>,
    /// How often the key was presented in the last 24 hours.
    pub(in crate::cli) counts: Vec<VerdictCount>,
}

impl Background {
    /// Asks the server.
    pub(super) async fn of(client: &Client, key: &Key) -> Self {
        let key_id = || key.id.clone();
        let scopes = async {
            let request = GetKeyScopesRequest {
                key_id: key_id(),
                ..GetKeyScopesRequest::default()
            };
            client.ask(client.keys().get_key_scopes(request)).await.ok()
        };
        let issuer = async {
            let request = GetKeyRequest {
                key_id: Some(key.created_by.clone()).filter(|id| !id.is_empty())?,
                ..GetKeyRequest::default()
            };
            client.ask(client.keys().get_key(request)).await.ok()?.key
        };
        let usage = async {
            let request = GetKeyUsageRequest {
                key_id: key_id(),
                ..GetKeyUsageRequest::default()
            };
            client.ask(client.keys().get_key_usage(request)).await.ok()
        };
        let (scopes, issuer, usage) = tokio::join!(scopes, issuer, usage);
        let mut implied = scopes.map(|scopes| scopes.effective).unwrap_or_default();
        implied.retain(|scope| !key.scopes.contains(scope));
        Self {
            implied: if key.full_access { Vec::new() } else { implied },
            issuer,
            counts: usage.map(|usage| usage.totals).unwrap_or_default(),
        }
    }
}

/// Formats a key: for a screen with what `background` says, or else as facts.
pub(in crate::cli) fn shown(key: &Key, background: &Background, screen: Option<Screen>) -> String {
    match screen {
        Some(screen) => on_screen(key, background, screen),
        None => facts_with_usage(key),
    }
}

/// Asks for what a screen shows besides the key, if there is a screen.
pub(super) async fn background(client: &Client, key: Option<&Key>, output: &Output) -> Background {
    match (key, output.screen()) {
        (Some(key), Some(_)) => Background::of(client, key).await,
        _ => Background::default(),
    }
}

fn on_screen(key: &Key, background: &Background, screen: Screen) -> String {
    let Screen { width, now, .. } = screen;
    let name = if key.name.is_empty() {
        "(no name)"
    } else {
        &key.name
    };
    let (name, hint) = (text::plain(name), short_hint(&key.hint));
    let right = format!("{}  {}", state(key).to_uppercase(), text::plain(&hint));
    let ends = [(&*name, Tone::Strong), (right.trim_end(), tone(key))];
    let heading = spread(ends, width, width);

    let facts = table::facts(
        &[
            ("owner", owner_words(key)),
            ("realm", realm(key)),
            ("may", may(key, background)),
            ("from", from(key)),
            ("expires", expires(key, &now)),
            ("revoked", revoked(key, &now)),
            ("suspended", suspended(key)),
            ("created", created(key, background, &now)),
            ("rotated", rotated(key, &now)),
            ("last used", last_used(key, &now)),
            ("last 24 h", last_day(background)),
            ("labels", text::pairs(&key.labels)),
            ("external id", key.external_id.clone()),
            ("id", key.id.clone()),
            (
                "revision",
                key.revision
                    .map(|number| number.to_string())
                    .unwrap_or_default(),
            ),
        ],
        width,
    );
    match rotation(key, screen) {
        Some(rotation) => format!("{heading}\n\n{facts}\n\n{rotation}"),
        None => format!("{heading}\n\n{facts}"),
    }
}

fn realm(key: &Key) -> String {
    let parts = [&*key.realm, &*key.environment];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

fn owner_words(key: &Key) -> String {
    if key.partner.is_empty() {
        return owner(key);
    }
    let level = if key.project.is_empty() {
        "partner"
    } else {
        "project"
    };
    format!("{} ({level})", owner(key))
}

fn may(key: &Key, background: &Background) -> String {
    let granted = text::granted(&key.scopes, key.full_access);
    if background.implied.is_empty() {
        granted
    } else {
        format!("{granted} (gives {})", background.implied.join(", "))
    }
}

fn from(key: &Key) -> String {
    if key.allowed_cidrs.is_empty() {
        "anywhere".to_owned()
    } else {
        key.allowed_cidrs.join(", ")
    }
}

fn expires(key: &Key, now: &Timestamp) -> String {
    key.expire_time
        .as_ref()
        .map_or_else(|| "never".to_owned(), |at| when::both_until(at, now))
}

fn revoked(key: &Key, now: &Timestamp) -> String {
    let Some(at) = &key.revoke_time else {
        return String::new();
    };
    let at = when::both(at, now);
    if key.revoke_reason.is_empty() {
        at
    } else {
        format!("{at}: {}", key.revoke_reason)
    }
}

/// Who can end the suspension of a key that would work, and how.
fn suspended(key: &Key) -> String {
    if !key.partner_suspended || key.state() != KeyState::Active {
        return String::new();
    }
    let Key { partner, realm, .. } = key;
    format!("its partner is: claviger partner restore {partner} --realm {realm}")
}

/// When the key got its only secret, if that was after it was issued.
fn rotated(key: &Key, now: &Timestamp) -> String {
    let [secret] = key.secrets.as_slice() else {
        return String::new();
    };
    let at = secret.create_time.as_ref();
    let at = at.filter(|at| {
        key.create_time
            .as_ref()
            .is_some_and(|created| created != *at)
    });
    at.map_or_else(String::new, |at| when::both(at, now))
}

fn created(key: &Key, background: &Background, now: &Timestamp) -> String {
    let at = key.create_time.as_ref();
    let at = at.map(|at| when::both(at, now)).unwrap_or_default();
    match &background.issuer {
        Some(issuer) if issuer.name.is_empty() => format!("{at}, by {}", short_hint(&issuer.hint)),
        Some(issuer) => format!("{at}, by \"{}\"", issuer.name),
        None if key.created_by.is_empty() => at,
        None => format!("{at}, by key {}", key.created_by),
    }
}

fn last_used(key: &Key, now: &Timestamp) -> String {
    let used = used(key.last_used_time.as_ref(), now);
    if key.last_used_address.is_empty() {
        used
    } else {
        format!("{used}, from {}", key.last_used_address)
    }
}

fn used(at: Option<&Timestamp>, now: &Timestamp) -> String {
    at.map_or_else(|| "never".to_owned(), |at| when::both(at, now))
}

fn last_day(background: &Background) -> String {
    if background.counts.is_empty() {
        String::new()
    } else {
        totals_line(&background.counts)
    }
}

/// The secrets of a rotation with an overlap, and what ends it.
fn rotation(key: &Key, screen: Screen) -> Option<String> {
    let [old, new] = key.secrets.as_slice() else {
        return None;
    };
    let now = screen.now;
    let end = old.expire_time.as_ref();
    let is_over = end.is_some_and(|end| end.seconds <= now.seconds);
    let until = match end {
        Some(end) if is_over => format!("ended {}", when::both(end, &now)),
        Some(end) => format!("until {}", when::both_until(end, &now)),
        None => "until the key expires".to_owned(),
    };
    let line = |name: &str, secret: &KeySecret| {
        let hint = secret.hint.split_once('…');
        let hint = hint.map_or(String::new(), |(_, end)| format!("…{end}"));
        let made = secret.create_time.as_ref();
        let made = made.map(|at| when::minute(at, &now)).unwrap_or_default();
        let used = secret.last_used_time.as_ref();
        let used = used.map_or_else(
            || "never used".to_owned(),
            |at| format!("last used {}", when::ago(at, &now)),
        );
        let imported = if secret.imported { "  imported" } else { "" };
        let from = match secret.last_used_address.as_str() {
            "" => String::new(),
            address => format!(" from {address}"),
        };
        let line = format!("{name}  {hint}  made {made}{imported}  {used}{from}");
        let lines = wrap(&text::plain(&line), screen.width.saturating_sub(7));
        format!("  {}", lines.join("\n       "))
    };
    let mut lines = vec![
        format!("{}  {until}", Tone::Strong.paint("rotation")),
        line("old", old),
        line("new", new),
    ];
    if !is_over && key.state() == KeyState::Active {
        let command = format!("  claviger keys end-rotation {} --keep new", handle(key));
        // It is to be pasted, so it is whole on one line or broken as a shell reads it.
        lines.push(if width(&command) <= screen.width {
            command
        } else {
            command.replace(" --keep", " \\\n    --keep")
        });
    }
    Some(lines.join("\n"))
}
