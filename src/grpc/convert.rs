//! The domain's words as messages.

use std::time::Duration;

use prost_types::Timestamp as PbTimestamp;

use super::gateway_fields;
use crate::domain::access::Scope;
use crate::domain::event::{Actor, Event, Subject};
use crate::domain::ids::{KeyId, PartnerId, ProjectId, ScopeName};
use crate::domain::key::{Key, KeyState, LevelKind, Secret};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::{Environment, Realm, UnscopedKeys};
use crate::domain::time::{Expiry, Timestamp};
use crate::pb::claviger::v1 as pb;
use crate::store::{PartnerRow, ProjectRow, RealmRow};

pub(super) fn time(time: Timestamp) -> PbTimestamp {
    let micros = time.as_micros();
    PbTimestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: micros.rem_euclid(1_000_000) as i32 * 1_000,
    }
}

pub(super) fn expiry(expiry: Expiry) -> Option<PbTimestamp> {
    Option::from(expiry).map(time)
}

pub(super) fn span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: span.subsec_nanos() as i32,
    }
}

pub(super) fn level(level: LevelKind) -> pb::KeyLevel {
    match level {
        LevelKind::Partner => pb::KeyLevel::Partner,
        LevelKind::Project => pb::KeyLevel::Project,
    }
}

fn state(state: KeyState) -> pb::KeyState {
    match state {
        KeyState::Active => pb::KeyState::Active,
        KeyState::Disabled => pb::KeyState::Disabled,
        KeyState::Expired => pb::KeyState::Expired,
        KeyState::Revoked => pb::KeyState::Revoked,
    }
}

pub(super) fn words<'a>(scopes: impl IntoIterator<Item = &'a ScopeName>) -> Vec<String> {
    // Not by `to_string`, which formats what need only be copied: this runs on every request.
    let scopes = scopes.into_iter();
    scopes.map(|scope| scope.as_str().to_owned()).collect()
}

pub(super) fn key(key: Key, now: Timestamp) -> pb::Key {
    let state = state(key.state(now)).into();
    let level_kind = level(key.level.kind()).into();
    let Key {
        id,
        realm,
        partner,
        level,
        environment,
        name,
        hint,
        access,
        labels,
        allowed_cidrs,
        created_at,
        created_by,
        created_revision: _,
        expires_at,
        disabled: _,
        withheld: _,
        revocation,
        secrets,
        last_used_at,
    } = key;
    let (revoke_time, revoke_reason) = revocation.map_or_else(Default::default, |revocation| {
        (Some(time(revocation.at)), revocation.reason)
    });
    pb::Key {
        id: id.to_string(),
        realm: realm.to_string(),
        partner: partner.to_string(),
        project: level.project().map(ToString::to_string).unwrap_or_default(),
        level: level_kind,
        environment: environment.to_string(),
        name,
        scopes: words(access.granted()),
        full_access: access.is_full(),
        labels: labels.into_iter().collect(),
        allowed_cidrs: allowed_cidrs.iter().map(ToString::to_string).collect(),
        state,
        create_time: Some(time(created_at)),
        expire_time: expiry(expires_at),
        revoke_time,
        revoke_reason,
        created_by: created_by
            .as_ref()
            .map(KeyId::to_string)
            .unwrap_or_default(),
        last_used_time: last_used_at.map(time),
        secrets: secrets
            .into_iter()
            .map(|of_key| secret(of_key, &hint))
            .collect(),
        hint,
    }
}

/// What whoever found a key may learn of it.
pub(super) fn found_key(found: Key, now: Timestamp) -> pb::Key {
    let pb::Key {
        id,
        realm,
        state,
        create_time,
        revoke_time,
        ..
    } = key(found, now);
    pb::Key {
        id,
        realm,
        state,
        create_time,
        revoke_time,
        ..pb::Key::default()
    }
}

fn secret(secret: Secret, hint_of_newest: &str) -> pb::KeySecret {
    let Secret {
        digest: _,
        created_at,
        expires_at,
        imported,
        hint,
        last_used_at,
    } = secret;
    pb::KeySecret {
        create_time: Some(time(created_at)),
        expire_time: expiry(expires_at),
        last_used_time: last_used_at.map(time),
        imported,
        hint: if hint.is_empty() {
            hint_of_newest.to_owned()
        } else {
            hint
        },
    }
}

pub(super) fn event(event: Event) -> pb::Event {
    let Event {
        revision,
        time: at,
        actor: Actor { key: actor, peer },
        kind,
        subject:
            Subject {
                realm,
                partner,
                project,
                key,
            },
        mut detail,
    } = event;
    if let Some(project) = project {
        detail.insert("project".to_owned(), project.to_string());
    }
    pb::Event {
        revision: revision.as_u64(),
        time: Some(time(at)),
        actor: actor.as_ref().map(KeyId::to_string).unwrap_or_default(),
        peer,
        kind: kind.as_str().to_owned(),
        key_id: key.as_ref().map(KeyId::to_string).unwrap_or_default(),
        realm: realm.to_string(),
        partner: partner
            .as_ref()
            .map(PartnerId::to_string)
            .unwrap_or_default(),
        detail: detail.into_iter().collect(),
    }
}

pub(super) fn realm(row: RealmRow) -> pb::Realm {
    let Realm {
        id,
        prefix,
        environments,
        scopes,
        admin_scope,
        unscoped_keys,
        levels,
        max_cache,
        max_lifetime,
        credentials,
        routes,
        paths,
        denials,
    } = row.value;
    pb::Realm {
        id: id.to_string(),
        prefix: prefix.to_string(),
        environments: environments
            .into_iter()
            .map(|Environment { name, tag }| pb::Environment {
                name: name.to_string(),
                tag: tag.to_string(),
            })
            .collect(),
        scopes: scopes
            .into_iter()
            .map(
                |Scope {
                     name,
                     implies,
                     description,
                 }| pb::Scope {
                    name: name.to_string(),
                    implies: words(&implies),
                    description,
                },
            )
            .collect(),
        admin_scope: admin_scope
            .as_ref()
            .map(ScopeName::to_string)
            .unwrap_or_default(),
        unscoped_keys: match unscoped_keys {
            UnscopedKeys::NoAccess => pb::UnscopedKeys::NoAccess,
            UnscopedKeys::FullAccess => pb::UnscopedKeys::FullAccess,
        }
        .into(),
        levels: levels.into_iter().map(|kind| level(kind).into()).collect(),
        max_cache: Some(span(max_cache)),
        max_lifetime: Some(span(max_lifetime.unwrap_or_default())),
        credentials: gateway_fields::credentials(credentials),
        routes: routes.into_iter().map(gateway_fields::route).collect(),
        denials: gateway_fields::denials(denials),
        revision: row.revision.as_u64(),
        create_time: Some(time(row.created_at)),
        project_segments: paths.project_segments,
        lenient_paths: paths.lenient,
        trailing_slash: gateway_fields::trailing_slash(paths.trailing_slash).into(),
        encoded_characters: gateway_fields::encoded_characters(paths.encoded_characters).into(),
    }
}

pub(super) fn partner(row: PartnerRow) -> pb::Partner {
    let Partner {
        realm,
        id,
        display_name,
        suspended,
    } = row.value;
    pb::Partner {
        realm: realm.to_string(),
        id: id.to_string(),
        display_name,
        suspended,
        revision: row.revision.as_u64(),
        create_time: Some(time(row.created_at)),
    }
}

pub(super) fn project(row: ProjectRow) -> pb::Project {
    let Project {
        realm,
        id,
        partner,
        display_name,
    } = row.value;
    pb::Project {
        realm: realm.to_string(),
        id: ProjectId::to_string(&id),
        partner: partner.to_string(),
        display_name,
        revision: row.revision.as_u64(),
        create_time: Some(time(row.created_at)),
    }
}
