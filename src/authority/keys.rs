//! Keys: looked up, switched off and on, removed.

use std::collections::BTreeMap;

use super::{Authority, Caller, Done, Page, Read, Refusal, Role, Standing, detail, giving};
use crate::domain::access::Ladder;
use crate::domain::event::{EventKind, Subject};
use crate::domain::ids::{KeyId, RealmId, ScopeName};
use crate::domain::key::Key;
use crate::store::{Change, Error, KeyFilter, Snapshot};

/// What a key may do, by the realm's ladder of today.
#[derive(Debug)]
pub struct KeyScopes {
    /// Granted by name.
    pub granted: Vec<ScopeName>,
    /// Granted or implied.
    pub effective: Vec<ScopeName>,
    /// Whether everything was granted.
    pub full_access: bool,
}

impl Authority {
    /// One key.
    pub async fn get_key(&self, caller: &Caller, id: KeyId) -> Result<Read<Key>, Refusal> {
        caller.role.may_administer_keys()?;
        let mut snapshot = self.store.snapshot().await?;
        let value = visible(&mut snapshot, &caller.role, id).await?;
        let revision = snapshot.revision().await?;
        Ok(Read { value, revision })
    }

    /// What a key may do.
    pub async fn key_scopes(&self, caller: &Caller, id: KeyId) -> Result<Read<KeyScopes>, Refusal> {
        caller.role.may_administer_keys()?;
        let mut snapshot = self.store.snapshot().await?;
        let key = visible(&mut snapshot, &caller.role, id).await?;
        let scopes = match snapshot.find_realm(&key.realm).await? {
            Some(realm) => realm.value.scopes,
            None => Vec::new(),
        };
        let ladder = Ladder::new(&scopes, None);
        let revision = snapshot.revision().await?;
        Ok(Read {
            value: KeyScopes {
                granted: key.access.granted().cloned().collect(),
                effective: ladder
                    .names(ladder.effective_access(&key.access))
                    .cloned()
                    .collect(),
                full_access: key.access.is_full(),
            },
            revision,
        })
    }

    /// A page of a realm's keys, newest first.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        filter: KeyFilter,
    ) -> Result<Read<Page<Key>>, Refusal> {
        let filter = caller.role.narrow(filter)?;
        let mut snapshot = self.store.snapshot().await?;
        if snapshot.find_realm(&filter.realm).await?.is_none() {
            return Err(Refusal::NotFound("the realm"));
        }
        let page = snapshot.list_keys(&filter).await?;
        let revision = snapshot.revision().await?;
        Ok(Read {
            value: Page {
                items: page.items,
                next: page.next.map(|id| id.to_string()),
            },
            revision,
        })
    }

    /// Switches a key off.
    pub async fn disable_key(&self, caller: &Caller, id: KeyId) -> Result<Done<Key>, Refusal> {
        self.switch_key(caller, id, true).await
    }

    /// Switches a key on again.
    pub async fn enable_key(&self, caller: &Caller, id: KeyId) -> Result<Done<Key>, Refusal> {
        self.switch_key(caller, id, false).await
    }

    async fn switch_key(
        &self,
        caller: &Caller,
        id: KeyId,
        off: bool,
    ) -> Result<Done<Key>, Refusal> {
        let (mut change, standing, mut key) = self.begin_with_key(caller, id).await?;
        if key.revocation.is_some() {
            return Err(revoked());
        }
        let is_above = !matches!(standing.role, Role::Delegate(_));
        let withheld = off && (is_above || key.withheld);
        if (key.disabled, key.withheld) == (off, withheld) {
            return self.unchanged(change, key).await;
        }
        if !off {
            if key.withheld && !is_above {
                return Err(Refusal::Forbidden(
                    "the key was switched off by those who run the API, and only they switch it on again".to_owned(),
                ));
            }
            let realm = change.find_realm(&key.realm).await?;
            let realm = realm.ok_or(Refusal::NotFound("the realm"))?.value;
            giving::check(&standing, &realm, &key)?;
        }
        key.disabled = off;
        key.withheld = withheld;
        change.update_key(&key).await?;
        let kind = if off {
            EventKind::KeyDisabled
        } else {
            EventKind::KeyEnabled
        };
        self.finish(
            &caller.holder,
            change,
            kind,
            subject(&key),
            BTreeMap::new(),
            key,
        )
        .await
    }

    /// Removes a key. An operator can also remove one that cannot be read; the answer is then without the key.
    pub async fn delete_key(
        &self,
        caller: &Caller,
        id: KeyId,
    ) -> Result<Done<Option<Key>>, Refusal> {
        caller.role.may_administer_keys()?;
        let (mut change, Standing { role, .. }) = self.begin(caller).await?;
        let (key, subject, words) = match visible(&mut change, &role, id).await {
            Ok(key) => {
                let words = detail([("name", key.name.clone()), ("hint", key.hint.clone())]);
                (Some(key.clone()), subject(&key), words)
            }
            Err(Refusal::Store(Error::Corrupt(_))) if role == Role::Operator => {
                let realm = change
                    .find_realm_of_key(id)
                    .await?
                    .unwrap_or_else(RealmId::built_in);
                let subject = Subject {
                    realm,
                    partner: None,
                    project: None,
                    key: Some(id),
                };
                (
                    None,
                    subject,
                    detail([(
                        "reason",
                        "what was stored of it could not be read".to_owned(),
                    )]),
                )
            }
            Err(refusal) => return Err(refusal),
        };
        // A text whose key was revoked stays taken, so that it does not come back to life when a list is sent again.
        if key.as_ref().is_some_and(|key| key.revocation.is_none()) {
            change.delete_imports(id).await?;
        }
        change.delete_key(id).await?;
        self.finish(
            &caller.holder,
            change,
            EventKind::KeyDeleted,
            subject,
            words,
            key,
        )
        .await
    }

    /// Opens a change of a key that the caller may administer.
    pub(super) async fn begin_with_key(
        &self,
        caller: &Caller,
        id: KeyId,
    ) -> Result<(Change, Standing, Key), Refusal> {
        caller.role.may_administer_keys()?;
        let (mut change, standing) = self.begin(caller).await?;
        let key = visible(&mut change, &standing.role, id).await?;
        Ok((change, standing, key))
    }
}

/// The key of this id; one that the role may not administer does not exist for it.
pub(super) async fn visible(
    snapshot: &mut Snapshot,
    role: &Role,
    id: KeyId,
) -> Result<Key, Refusal> {
    let key = match snapshot.find_key(id).await {
        // Whose it is cannot be read, so to those who do not reach everything it is nobody's they know.
        Err(Error::Corrupt(_)) if !reaches_unread(snapshot, role, id).await? => None,
        found => found?,
    };
    let mut key = key
        .filter(|key| role.reaches(key))
        .ok_or(Refusal::NotFound("the key"))?;
    snapshot
        .tell_last_uses(std::slice::from_mut(&mut key))
        .await?;
    Ok(key)
}

/// Whether a key that cannot be read is one that the role reaches, as far as its realm tells.
async fn reaches_unread(snapshot: &mut Snapshot, role: &Role, id: KeyId) -> Result<bool, Error> {
    let realm = snapshot.find_realm_of_key(id).await?;
    Ok(match role {
        Role::Operator => true,
        Role::Realm { .. } => realm.is_some_and(|realm| role.may_manage(&realm).is_ok()),
        Role::Delegate(_) => false,
    })
}

/// What a change of this key is about.
pub(super) fn subject(key: &Key) -> Subject {
    Subject {
        realm: key.realm.clone(),
        partner: Some(key.partner.clone()),
        project: key.level.project().cloned(),
        key: Some(key.id),
    }
}

pub(super) fn revoked() -> Refusal {
    Refusal::Precondition {
        reason: "KEY_REVOKED",
        message: "the key is revoked, which is for ever: issue a new one".to_owned(),
    }
}
