//! Reading, disabling, enabling and deleting keys.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::Effect;
use super::audit::{AuditEntry, non_empty_detail, subject};
use super::caller_state::{Caller as _, CallerState, KeyHolderState};
use super::checked_change::Taken;
use super::grants::Grant;
use super::key_reference::KeyReference;
use super::{
    Authority, ChangeRequest, ChangeResult, Page, Read, Refusal, check_revision, grants, not_found,
};
use crate::auth::{AuthorizedCaller, Delegate, Forbidden, KeyHolder, Purpose, Role};
use crate::domain::access::ScopeHierarchy;
use crate::domain::event::{EventKind, Subject};
use crate::domain::hold::Holdable;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use crate::domain::key::Key;
use crate::domain::time::Timestamp;
use crate::store::{Error, KeyFilter, Snapshot, Total};

/// How long a search through all realms may take before it goes on to another one.
const MAX_FIND: Duration = Duration::from_secs(4);

/// The scopes of a key, by the realm's current scope hierarchy.
#[derive(Debug)]
pub struct KeyScopes {
    /// The scopes that were granted by name.
    pub granted: Vec<ScopeName>,
    /// The scopes that were granted by name or are implied.
    pub effective: Vec<ScopeName>,
    /// Whether the key has full access.
    pub full_access: bool,
}

/// What the store tells a caller of its own key that is refused.
#[derive(Debug, Default)]
pub struct RefusedKeyFacts {
    /// The part that may be shown of the API key that the caller presented.
    pub hint: String,
    /// When the key was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Authority {
    /// Returns what the holder of a refused key may know of it; `None` if the key or its secret is gone.
    pub async fn refused_key(
        &self,
        holder: &KeyHolder,
    ) -> Result<Option<RefusedKeyFacts>, Refusal> {
        let mut snapshot = self.read(holder).await?;
        let Some(key) = snapshot.find_key(holder.principal.key).await? else {
            return Ok(None);
        };
        let mut secrets = key.secrets.into_iter();
        let presented = secrets.find(|secret| secret.digest == holder.principal.secret);
        Ok(presented.map(|secret| RefusedKeyFacts {
            // Only an old secret has a hint of its own.
            hint: Some(secret.hint)
                .filter(|hint| !hint.is_empty())
                .unwrap_or(key.hint),
            revoked_at: key.revocation.map(|revocation| revocation.at),
        }))
    }

    /// Returns a key.
    pub async fn get_key(
        &self,
        caller: &AuthorizedCaller,
        reference: &KeyReference,
    ) -> Result<Read<Key>, Refusal> {
        caller.role.may_use_keys(Purpose::Read)?;
        let mut snapshot = self.read(caller).await?;
        let value = visible(&mut snapshot, &caller.role, reference, Purpose::Read).await?;
        let revision = snapshot.revision().await?;
        Ok(Read { value, revision })
    }

    /// Returns the holder's own key.
    pub async fn get_self(&self, holder: &KeyHolder) -> Result<Read<Key>, Refusal> {
        let mut snapshot = self.read(holder).await?;
        let KeyHolderState { key: mut value, .. } =
            holder.reread(&mut snapshot, self.clock.now()).await?;
        snapshot
            .set_last_uses(std::slice::from_mut(&mut value))
            .await?;
        let revision = snapshot.revision().await?;
        Ok(Read { value, revision })
    }

    /// Returns the key that an API key proved. `None`: it proved none.
    pub async fn find_proven(
        &self,
        caller: &AuthorizedCaller,
        proven: Option<KeyId>,
    ) -> Result<Read<Key>, Refusal> {
        caller.role.may_use_keys(Purpose::Read)?;
        let id = proven.ok_or(Refusal::NotFound(not_found::PLAIN_KEY))?;
        let found = self.get_key(caller, &id.into()).await;
        found.map_err(|refusal| match refusal {
            Refusal::NotFound(_) => Refusal::NotFound(not_found::PLAIN_KEY),
            other => other,
        })
    }

    /// Returns keys of which a hint contains this text, from all realms that the caller reads. Returns also whether there are
    /// more of them.
    pub async fn find_hint(
        &self,
        caller: &AuthorizedCaller,
        hint: &str,
        limit: u32,
    ) -> Result<(Vec<Key>, bool), Refusal> {
        caller.role.may_use_keys(Purpose::Read)?;
        let mut snapshot = self.read(caller).await?;
        let realms = match &caller.role {
            Role::Operator | Role::Auditor => snapshot.realm_ids().await?,
            Role::Realm { realm, .. } | Role::Delegate(Delegate { realm, .. }) => {
                vec![realm.clone()]
            }
        };
        let now = self.clock.now();
        let end = Instant::now() + MAX_FIND;
        let mut found = Vec::new();
        for realm in realms {
            if Instant::now() > end {
                return Err(Error::TooBroad.into());
            }
            let filter = KeyFilter {
                hint: Some(hint.to_owned()),
                ..KeyFilter::new(realm, now, limit + 1 - found.len() as u32)
            };
            let page = snapshot
                .list_keys(&narrow(&caller.role, filter, Purpose::Read)?, Some)
                .await?;
            found.extend(page.items);
            if found.len() > limit as usize {
                found.truncate(limit as usize);
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }

    /// Returns the scopes of a key.
    pub async fn key_scopes(
        &self,
        caller: &AuthorizedCaller,
        reference: &KeyReference,
    ) -> Result<Read<KeyScopes>, Refusal> {
        caller.role.may_use_keys(Purpose::Read)?;
        let mut snapshot = self.read(caller).await?;
        let key = visible(&mut snapshot, &caller.role, reference, Purpose::Read).await?;
        let scopes = match snapshot.find_realm(&key.realm).await? {
            Some(realm) => realm.value.scopes,
            None => Vec::new(),
        };
        let hierarchy = ScopeHierarchy::new(&scopes, None);
        let revision = snapshot.revision().await?;
        Ok(Read {
            value: KeyScopes {
                granted: key.access.granted().cloned().collect(),
                effective: hierarchy
                    .names(hierarchy.effective_access(&key.access))
                    .cloned()
                    .collect(),
                full_access: key.access.is_full(),
            },
            revision,
        })
    }

    /// Returns a page of a realm's keys, newest first, and how many there are on all pages if that is wanted and can be counted
    /// in time. `take` returns a key, or refuses it if the page is full.
    pub async fn list_keys(
        &self,
        caller: &AuthorizedCaller,
        filter: KeyFilter,
        with_total: bool,
        take: impl FnMut(Key) -> Option<Key>,
    ) -> Result<Read<(Page<Key>, Option<Total>)>, Refusal> {
        let mut filter = narrow(&caller.role, filter, Purpose::Read)?;
        let mut snapshot = self.read(caller).await?;
        let realm = snapshot.find_realm(&filter.realm).await?;
        let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
        filter.max_lifetime = realm.max_lifetime;
        let revision = snapshot.revision().await?;
        let began = Instant::now();
        let page = snapshot.list_keys(&filter, take).await?;
        let total = if !with_total {
            None
        } else if filter.before.is_none() && page.next.is_none() {
            Some(Total {
                count: page.items.len() as u64,
                is_more: false,
            })
        } else {
            snapshot.count_in_time(&filter, began).await?
        };
        let page = Page {
            items: page.items,
            next: page.next.map(|id| id.to_string()),
        };
        Ok(Read {
            value: (page, total),
            revision,
        })
    }

    /// Disables a key.
    pub async fn disable_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<Key>, Refusal> {
        self.set_disabled(caller, request, reference, if_revision, true)
            .await
    }

    /// Enables a key.
    pub async fn enable_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<Key>, Refusal> {
        self.set_disabled(caller, request, reference, if_revision, false)
            .await
    }

    async fn set_disabled(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
        if_revision: Option<u64>,
        disabled: bool,
    ) -> Result<ChangeResult<Key>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let group = &caller.group();
        let (effect, on_snapshot) = if disabled {
            let on_snapshot = !self.shows(&caller.role, reference, Taken::Use, if_revision);
            (Effect::TakesAway, on_snapshot)
        } else {
            (Effect::MayGrant, false)
        };
        let mut state = self.begin_checks(group, effect, on_snapshot).await?;
        let (mut change, caller_state, mut key) = loop {
            let caller_state = state.reread(caller).await?;
            let role = &caller_state.role;
            let key = visible(&mut state, role, reference, Purpose::Change).await?;
            if !disabled {
                state.give_to(&self.mirror, Holdable::Key(key.id)).await?;
            }
            check_revision(Some(key.revision), if_revision)?;
            let withheld = withheld_after(&key, &caller_state.role, disabled)?;
            if (key.disabled, key.withheld) == (disabled, withheld) {
                return self.unchanged(&caller.principal, request, state, key).await;
            }
            match self.end_checks(state, group, effect).await? {
                ControlFlow::Break(change) => break (change, caller_state, key),
                ControlFlow::Continue(change) => state = change,
            }
        };
        if !disabled {
            if key.withheld && matches!(caller_state.role, Role::Delegate(_)) {
                return Err(Forbidden(
                    "an operator or a manager disabled this key: ask them to enable the key",
                )
                .into());
            }
            let realm = change.find_realm(&key.realm).await?;
            let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
            grants::check(&caller_state, &realm, &key, Grant::WholeKey)?;
        }
        key.withheld = withheld_after(&key, &caller_state.role, disabled)?;
        key.disabled = disabled;
        change.update_key(&mut key).await?;
        let kind = if disabled {
            EventKind::KeyDisabled
        } else {
            EventKind::KeyEnabled
        };
        let entry = AuditEntry::of_key(kind, &key, BTreeMap::new());
        self.finish(&caller.principal, request, change, entry, key)
            .await
    }

    /// Deletes a key. An operator can also delete a corrupt key; the answer then has no key.
    pub async fn delete_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
    ) -> Result<ChangeResult<Option<Key>>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let (group, id) = (&caller.group(), reference.id);
        let on_snapshot = !self.shows(&caller.role, reference, Taken::Key, None);
        let mut state = self
            .begin_checks(group, Effect::TakesAway, on_snapshot)
            .await?;
        let (mut change, key, subject, detail) = loop {
            let CallerState { role, .. } = state.reread(caller).await?;
            let (key, subject, detail) =
                match visible(&mut state, &role, reference, Purpose::Change).await {
                    Ok(key) => (Some(key.clone()), subject(&key), key.deletion_detail()),
                    // Nobody knows who owns it.
                    Err(Refusal::Store(Error::Corrupt(_)))
                        if role == Role::Operator && reference.partner.is_none() =>
                    {
                        let realm = state
                            .find_realm_of_key(id)
                            .await?
                            .unwrap_or_else(RealmId::built_in);
                        let subject = Subject {
                            realm,
                            partner: None,
                            project: None,
                            key: Some(id),
                        };
                        let reason = "the stored key could not be read".to_owned();
                        (None, subject, non_empty_detail([("reason", reason)]))
                    }
                    Err(refusal) => return Err(refusal),
                };
            match self.end_checks(state, group, Effect::TakesAway).await? {
                ControlFlow::Break(change) => break (change, key, subject, detail),
                ControlFlow::Continue(change) => state = change,
            }
        };
        // The API key of a revoked key stays registered, so that a repeated import cannot bring it back.
        if key.as_ref().is_some_and(|key| key.revocation.is_none()) {
            change.delete_imports(&[id]).await?;
        }
        change.delete_key(id).await?;
        let entry = AuditEntry {
            kind: EventKind::KeyDeleted,
            subject,
            detail,
        };
        self.finish(&caller.principal, request, change, entry, key)
            .await
    }
}

/// Returns whether the key is withheld after a caller with this role has disabled or enabled it.
///
/// # Errors
/// If the key is revoked.
fn withheld_after(key: &Key, role: &Role, disabled: bool) -> Result<bool, Refusal> {
    if key.revocation.is_some() {
        return Err(revoked());
    }
    let is_delegate = matches!(role, Role::Delegate(_));
    Ok(disabled && (!is_delegate || key.withheld))
}

/// Returns the key that a request is about.
///
/// # Errors
/// [`Refusal::NotFound`] if the key does not exist, if another partner owns it than the request says, or if the role does not reach
/// it for this purpose. [`Refusal::Forbidden`] if the role reaches no key for it: the role may have changed since the call began.
pub(super) async fn visible(
    snapshot: &mut Snapshot,
    role: &Role,
    reference: &KeyReference,
    purpose: Purpose,
) -> Result<Key, Refusal> {
    role.may_use_keys(purpose)?;
    let id = reference.id;
    let key = match snapshot.find_key(id).await {
        // The owner of a corrupt key is unknown, so only a role that reaches every key of the realm gets the error.
        Err(Error::Corrupt(_)) if !reaches_corrupt(snapshot, role, id, purpose).await? => None,
        found => found?,
    };
    let mut key = key
        .filter(|key| role.reaches(key, purpose) && reference.allows(&key.partner))
        .ok_or(Refusal::NotFound(not_found::KEY))?;
    snapshot
        .set_last_uses(std::slice::from_mut(&mut key))
        .await?;
    Ok(key)
}

/// Whether the role reaches a corrupt key, of which only the realm is known.
async fn reaches_corrupt(
    snapshot: &mut Snapshot,
    role: &Role,
    id: KeyId,
    purpose: Purpose,
) -> Result<bool, Error> {
    let realm = snapshot.find_realm_of_key(id).await?;
    Ok(match role {
        Role::Operator => true,
        Role::Auditor | Role::Realm { .. } => {
            realm.is_some_and(|realm| role.may_use_keys_of(&realm, purpose).is_ok())
        }
        Role::Delegate(_) => false,
    })
}

/// Narrows the filter to the keys that the role reaches for this purpose.
///
/// # Errors
/// [`Refusal::Forbidden`] if the filter names something beyond the reach, whether or not that exists.
pub(super) fn narrow(
    role: &Role,
    mut filter: KeyFilter,
    purpose: Purpose,
) -> Result<KeyFilter, Refusal> {
    let KeyFilter {
        realm,
        partner,
        project,
        environment,
        ..
    } = &mut filter;
    narrow_owner(role, realm, partner, project, environment, purpose)?;
    Ok(filter)
}

/// Narrows the owner and the environment of a filter to the keys that the role reaches for this purpose.
///
/// # Errors
/// Like [`narrow`].
pub(super) fn narrow_owner(
    role: &Role,
    realm: &RealmId,
    partner: &mut Option<PartnerId>,
    project: &mut Option<ProjectId>,
    environment: &mut Option<EnvironmentName>,
    purpose: Purpose,
) -> Result<(), Refusal> {
    let Role::Delegate(delegate) = role else {
        role.may_use_keys_of(realm, purpose)?;
        return Ok(());
    };
    partner.get_or_insert(delegate.partner.clone());
    environment.get_or_insert(delegate.environment.clone());
    if project.is_none() {
        project.clone_from(&delegate.project);
    }
    if delegate.reaches(
        realm,
        partner.as_ref(),
        project.as_ref(),
        environment.as_ref(),
    ) {
        Ok(())
    } else {
        Err(delegate.beyond_reach().into())
    }
}

/// The refusal to change a revoked key.
pub(super) fn revoked() -> Refusal {
    Refusal::Precondition {
        reason: "KEY_REVOKED",
        message: "the key is revoked, which cannot be undone: issue a new key".to_owned(),
    }
}
