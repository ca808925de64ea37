//! Encodes the answers of `KeyAdmin`.

use crate::domain::event::{Actor, Event, Subject};
use crate::domain::ids::{KeyId, PartnerId};
use crate::domain::key::{Key, KeyState, OPERATOR_LABELS, Secret};
use crate::domain::last_use::LastUse;
use crate::domain::time::Timestamp;
use crate::grpc::encode::{expiry, level, scope_names, time};
use crate::pb::claviger::v1 as pb;

fn state(state: KeyState) -> pb::KeyState {
    match state {
        KeyState::Active => pb::KeyState::Active,
        KeyState::Disabled => pb::KeyState::Disabled,
        KeyState::Expired => pb::KeyState::Expired,
        KeyState::Revoked => pb::KeyState::Revoked,
    }
}

/// Encodes a key, whose partner is suspended or not.
pub(super) fn key(key: Key, now: Timestamp, partner_suspended: bool) -> pb::Key {
    let state = state(key.state(now)).into();
    let level_kind = level(key.level.kind()).into();
    let Key {
        id,
        realm,
        partner,
        level,
        environment,
        name,
        external_id,
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
        last_use,
        revision,
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
        scopes: scope_names(access.granted()),
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
        last_used_time: last_use.map(|last| time(last.at)),
        last_used_address: last_used_address(last_use),
        secrets: secrets
            .into_iter()
            .map(|of_key| secret(of_key, &hint))
            .collect(),
        hint,
        revision: Some(revision.as_u64()),
        external_id: external_id.unwrap_or_default(),
        partner_suspended,
    }
}

/// Encodes the part of a key that its holder may see, who need not be its owner: what a server behind a gateway may tell its
/// clients anyway, and what a rotation needs. Other systems' ids, other keys and the operator's labels are not the holder's. Nor is
/// the address of the last use, because the holder may be a thief.
pub(super) fn own_key(own: pb::Key) -> pb::Key {
    let pb::Key {
        id,
        realm,
        partner,
        project,
        level,
        environment,
        name,
        hint,
        scopes,
        full_access,
        mut labels,
        allowed_cidrs,
        state,
        create_time,
        expire_time,
        revoke_time,
        revoke_reason: _,
        created_by: _,
        last_used_time,
        mut secrets,
        revision,
        external_id: _,
        last_used_address: _,
        partner_suspended,
    } = own;
    labels.retain(|name, _| !name.starts_with(OPERATOR_LABELS));
    for secret in &mut secrets {
        secret.last_used_address.clear();
    }
    pb::Key {
        id,
        realm,
        partner,
        project,
        level,
        environment,
        name,
        hint,
        scopes,
        full_access,
        labels,
        allowed_cidrs,
        state,
        create_time,
        expire_time,
        revoke_time,
        revoke_reason: String::new(),
        created_by: String::new(),
        last_used_time,
        secrets,
        revision,
        external_id: String::new(),
        last_used_address: String::new(),
        partner_suspended,
    }
}

/// Encodes the part of a key that the caller of `RevokeSelf` may see. The caller holds the key, but need not be its owner.
pub(super) fn self_revoked_key(revoked: pb::Key) -> pb::Key {
    let pb::Key {
        id,
        realm,
        state,
        create_time,
        revoke_time,
        ..
    } = revoked;
    pb::Key {
        id,
        realm,
        state,
        create_time,
        revoke_time,
        ..pb::Key::default()
    }
}

fn last_used_address(last: Option<LastUse>) -> String {
    last.and_then(|last| last.address)
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn secret(secret: Secret, hint_of_newest: &str) -> pb::KeySecret {
    let Secret {
        digest: _,
        created_at,
        expires_at,
        imported,
        hint,
        last_use,
    } = secret;
    pb::KeySecret {
        create_time: Some(time(created_at)),
        expire_time: expiry(expires_at),
        last_used_time: last_use.map(|last| time(last.at)),
        last_used_address: last_used_address(last_use),
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
