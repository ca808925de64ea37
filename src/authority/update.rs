//! Updates of a key's name, external id, labels, scopes, expiry and address ranges.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::admission::Effect;
use super::audit::{AuditEntry, audit_detail};
use super::grants::Grant;
use super::key_reference::KeyReference;
use super::keys::{revoked, visible};
use super::resolve::{check_external_id, check_owner, granted, resolve_expiry};
use super::{Authority, ChangeRequest, ChangeResult, Refusal, check_revision, grants, not_found};
use crate::auth::{AuthorizedCaller, Purpose};
use crate::domain::access::Access;
use crate::domain::event::EventKind;
use crate::domain::hold::Holdable;
use crate::domain::ids::ScopeName;
use crate::domain::key::{Key, MAX_LABELS};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;

/// The new properties of a key. A property that is `None` stays unchanged.
#[derive(Debug, Default)]
pub struct KeyUpdate {
    /// The display name.
    pub name: Option<String>,
    /// The external id. `Some(None)` removes it.
    pub external_id: Option<Option<String>>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// All scopes, in the order of the request. They replace the current scopes.
    pub scopes: Option<Vec<ScopeName>>,
    /// Whether the key gets full access.
    pub full_access: Option<bool>,
    /// The expiry. `Some(None)` means never, or as late as the realm allows.
    pub expires_at: Option<Option<Timestamp>>,
    /// All address ranges.
    pub allowed_cidrs: Option<Vec<IpNet>>,
}

impl Authority {
    /// Updates a key.
    pub async fn update_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
        if_revision: Option<u64>,
        mut update: KeyUpdate,
    ) -> Result<ChangeResult<Key>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        if update.external_id.is_some() {
            caller.role.may_set_external_ids()?;
        }
        let (mut change, caller_state) = self.begin(caller, Effect::MayGrant).await?;
        let role = &caller_state.role;
        let before = visible(&mut change, role, reference, Purpose::Change).await?;
        check_revision(Some(before.revision), if_revision)?;
        if before.revocation.is_some() {
            return Err(revoked());
        }
        if let Some(labels) = &mut update.labels {
            role.may_label(labels, &before.labels)?;
            let kept = role.kept_labels(&before.labels);
            labels.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        }
        let realm = change.find_realm(&before.realm).await?;
        let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
        let mut key = update.apply(before.clone(), &realm, change.time())?;
        let only_takes_away = grants::only_takes_away(&realm, &before, &key);
        // The server may hold back a part of what the stored key has, so only less than that can be in force.
        if key == before || !only_takes_away {
            change.give_to(&self.mirror, Holdable::Key(key.id)).await?;
        }
        if key == before {
            return self
                .unchanged(&caller.principal, request, change, key)
                .await;
        }
        if !only_takes_away {
            grants::check(&caller_state, &realm, &key, Grant::Fields)?;
        }
        check_external_id(&mut change, &key).await?;
        change.update_key(&mut key).await?;
        let entry = AuditEntry::of_key(EventKind::KeyUpdated, &key, changed_detail(&before, &key));
        self.finish(&caller.principal, request, change, entry, key)
            .await
    }
}

impl KeyUpdate {
    fn apply(self, mut key: Key, realm: &Realm, now: Timestamp) -> Result<Key, Refusal> {
        let Self {
            name,
            external_id,
            labels,
            scopes,
            full_access,
            expires_at,
            allowed_cidrs,
        } = self;
        let mut bad = Violations::default();
        match (scopes, full_access) {
            (None, None) => {}
            // The key has no full access that could be removed.
            (None, Some(false)) if !key.access.is_full() => {}
            (scopes, full_access) => {
                // The realm's `unscoped_keys` does not apply: to remove the last scope must not grant full access.
                let scopes = scopes.unwrap_or_default();
                key.access = granted(realm, &scopes, full_access.unwrap_or(false), &mut bad);
                let partner = (!key.partner.is_nobody()).then_some(&key.partner);
                check_owner(realm, partner, &key.access, &mut bad);
            }
        }
        let was_expired = key.expires_at.is_over(now);
        if let Some(requested) = expires_at {
            let expiry = resolve_expiry(realm, requested, key.lifetime_start(), now, &mut bad);
            key.set_expiry(expiry);
        }
        // Expired keys do not keep the scopes of a realm from being deleted.
        if was_expired && !key.expires_at.is_over(now) {
            let is_gone =
                |name: &&ScopeName| !realm.scopes.iter().any(|scope| scope.name == **name);
            if key.access.granted().any(|name| is_gone(&name)) {
                bad.add(
                    "expire_time",
                    "the expired key holds a scope that the realm does not have any more: update `scopes` too",
                );
            }
        }
        key.name = name.unwrap_or(key.name);
        key.external_id = external_id.unwrap_or(key.external_id);
        key.labels = labels.unwrap_or(key.labels);
        if key.labels.len() > MAX_LABELS {
            bad.add(
                "labels",
                "must have at most 16 entries, including the labels under operator/ that the key keeps",
            );
        }
        key.allowed_cidrs = allowed_cidrs.unwrap_or(key.allowed_cidrs);
        bad.finish(Some(key)).map_err(Refusal::Invalid)
    }
}

/// Returns the event's detail: the names of the changed fields, and the new values.
pub(super) fn changed_detail(before: &Key, after: &Key) -> BTreeMap<String, String> {
    let was = audit_detail(before);
    let mut detail = audit_detail(after);
    detail.retain(|name, value| was.get(name) != Some(value));
    let changed = [
        ("name", before.name != after.name),
        ("external_id", before.external_id != after.external_id),
        ("labels", before.labels != after.labels),
        ("scopes", scopes(&before.access) != scopes(&after.access)),
        (
            "full_access",
            before.access.is_full() != after.access.is_full(),
        ),
        ("expire_time", before.expires_at != after.expires_at),
        ("allowed_cidrs", before.allowed_cidrs != after.allowed_cidrs),
    ];
    let changed: Vec<_> = changed
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect();
    detail.insert("changed".to_owned(), changed.join(" "));
    detail
}

fn scopes(access: &Access) -> Vec<&ScopeName> {
    access.granted().collect()
}
