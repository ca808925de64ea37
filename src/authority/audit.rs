//! Entries of the audit trail.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::ids::ScopeName;
use crate::domain::key::{Key, Level};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::store::Change;

use super::ChangeRequest;
use crate::auth::Principal;

/// The audit-trail entry of a change, before it gets the revision and the time of the change.
pub(super) struct AuditEntry {
    pub(super) kind: EventKind,
    pub(super) subject: Subject,
    /// Never contains a secret.
    pub(super) detail: BTreeMap<String, String>,
}

impl AuditEntry {
    /// Returns an entry about this key.
    pub(super) fn of_key(kind: EventKind, key: &Key, detail: BTreeMap<String, String>) -> Self {
        Self {
            kind,
            subject: subject(key),
            detail,
        }
    }

    /// Returns the event that records this entry in `change`, with `principal` as its actor.
    pub(super) fn event(
        self,
        principal: &Principal,
        request: &ChangeRequest,
        change: &Change,
    ) -> Event {
        let Self {
            kind,
            subject,
            mut detail,
        } = self;
        if let Some(id) = request.request_id {
            detail.insert("request_id".to_owned(), id.to_string());
        }
        Event {
            revision: change.revision(),
            time: change.time(),
            actor: principal.actor(),
            kind,
            subject,
            detail,
        }
    }
}

/// Returns the subject of a change of this key.
pub(super) fn subject(key: &Key) -> Subject {
    Subject {
        realm: key.realm.clone(),
        partner: Some(key.partner.clone()),
        project: key.level.project().cloned(),
        key: Some(key.id),
    }
}

/// Returns an event's detail, without the empty values.
pub(super) fn non_empty_detail<const N: usize>(
    values: [(&str, String); N],
) -> BTreeMap<String, String> {
    values
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Returns the detail that describes a whole key.
pub(super) fn audit_detail(key: &Key) -> BTreeMap<String, String> {
    let scopes: Vec<&str> = key.access.granted().map(ScopeName::as_str).collect();
    non_empty_detail([
        ("name", key.name.clone()),
        ("external_id", key.external_id.clone().unwrap_or_default()),
        ("hint", key.hint.clone()),
        ("environment", key.environment.to_string()),
        (
            "level",
            match key.level {
                Level::Partner => "partner".to_owned(),
                Level::Project(_) => "project".to_owned(),
            },
        ),
        ("scopes", scopes.join(" ")),
        (
            "expire_time",
            Option::from(key.expires_at).map_or_else(String::new, rfc3339),
        ),
        (
            "allowed_cidrs",
            key.allowed_cidrs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        (
            "full_access",
            if key.access.is_full() {
                "true".to_owned()
            } else {
                String::new()
            },
        ),
    ])
}

/// Returns the detail that describes a put of a realm: the names of the changed fields, or that the realm is new, and the SHA-256
/// of the stored definition. `renamed` has the two names of a scope that is renamed. It does not contain the definition, which may have hundreds of kilobytes.
pub(super) fn realm_detail(
    before: Option<&Realm>,
    after: &Realm,
    sha256: [u8; 32],
    renamed: String,
) -> BTreeMap<String, String> {
    let what = match before {
        Some(before) => ("changed", before.changed_fields(after).join(" ")),
        None => ("created", "true".to_owned()),
    };
    let hex = sha256.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a string takes everything");
        digits
    });
    non_empty_detail([what, ("definition_sha256", hex), ("renamed_scope", renamed)])
}

/// Formats a time as in RFC 3339, with microseconds.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    let since = std::time::Duration::from_micros(micros);
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + since).to_string()
}
