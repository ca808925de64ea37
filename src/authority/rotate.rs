//! Rotation: a key gets a new secret, and the old secret stays valid for an overlap.

use std::ops::ControlFlow;
use std::time::Duration;

use super::admission::Effect;
use super::audit::{AuditEntry, non_empty_detail, rfc3339};
use super::caller_state::KeyHolderState;
use super::checked_change::Taken;
use super::grants::Grant;
use super::idempotency::replayed_key;
use super::key_reference::KeyReference;
use super::keys::{revoked, visible};
use super::resolve::resolve_expiry;
use super::secret::NewSecret;
use super::two_pass::{Applied, ChangeContext, Pass, PassOf, Preparation, TwoPassChange};
use super::{
    Authority, ChangeRequest, ChangeResult, IssuedKey, Refusal, check_revision, grants, not_found,
};
use crate::auth::{AuthorizedCaller, Forbidden, KeyHolder, Purpose};
use crate::domain::event::EventKind;
use crate::domain::hold::Holdable;
use crate::domain::ids::KeyId;
use crate::domain::key::{Key, Secret};
use crate::domain::realm::Realm;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violations;
use crate::store::Change;

/// The secret that a key keeps when its rotation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSecret {
    /// The new secret.
    New,
    /// The old secret.
    Old,
}

/// What a rotation sets besides the new secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    /// How long the old secret stays valid.
    pub overlap: Duration,
    /// The new expiry of the key. `None`: the expiry stays, but is at most the realm's `max_lifetime` after the rotation.
    pub expires_at: Option<Timestamp>,
}

impl Authority {
    /// Gives a key a new secret. The old secret stays valid for the overlap, but never beyond the expiry that the key had before
    /// the rotation, or has after it.
    pub async fn rotate_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: KeyReference,
        if_revision: Option<u64>,
        rotation: Rotation,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<IssuedKey>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let rotate = Rotate {
            reference,
            if_revision,
            rotation,
        };
        Box::pin(self.run_two_pass(caller, request, fingerprint, &rotate)).await
    }

    /// Gives the holder's own key a new secret. The presented secret must be the newest one of the key.
    pub async fn rotate_self(
        &self,
        holder: &KeyHolder,
        request: &ChangeRequest,
        overlap: Duration,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<IssuedKey>, Refusal> {
        let rotation = Rotation {
            overlap,
            expires_at: None,
        };
        let rotate = RotateSelf { rotation };
        Box::pin(self.run_two_pass(holder, request, fingerprint, &rotate)).await
    }

    /// Removes one of a key's two secrets before the overlap ends.
    pub async fn end_rotation(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
        if_revision: Option<u64>,
        keep: KeepSecret,
    ) -> Result<ChangeResult<Key>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let effect = match keep {
            KeepSecret::New => Effect::TakesAway,
            KeepSecret::Old => Effect::MayGrant,
        };
        let group = &caller.group();
        let on_snapshot = !self.shows(&caller.role, reference, Taken::OldSecret, if_revision);
        let mut state = self.begin_checks(group, effect, on_snapshot).await?;
        let (mut change, caller_state, mut key) = loop {
            let caller_state = state.reread(caller).await?;
            let role = &caller_state.role;
            let key = visible(&mut state, role, reference, Purpose::Change).await?;
            if keep == KeepSecret::Old {
                state.give_to(&self.mirror, Holdable::Key(key.id)).await?;
            }
            check_revision(Some(key.revision), if_revision)?;
            if key.revocation.is_some() {
                return Err(revoked());
            }
            if key.secrets.len() < 2 {
                return Err(no_rotation(ONE_SECRET));
            }
            match self.end_checks(state, group, effect).await? {
                ControlFlow::Break(change) => break (change, caller_state, key),
                ControlFlow::Continue(change) => state = change,
            }
        };
        let [old, new] = key.secrets.as_mut_slice() else {
            return Err(no_rotation(ONE_SECRET));
        };
        let mut new_expiry = None;
        let (removed, kept, realm) = match keep {
            KeepSecret::New => (old.clone(), "new", None),
            KeepSecret::Old => {
                if old.expires_at.is_over(change.time()) {
                    return Err(no_rotation(
                        "the old secret has expired: keep the new secret, or rotate the key again",
                    ));
                }
                let realm = change.find_realm(&key.realm).await?;
                let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
                if let Some(latest) = latest_expiry(&realm, old)
                    && !key.expires_at.is_over(latest)
                {
                    key.expires_at = Expiry::At(latest);
                    new_expiry = Some(latest);
                }
                old.expires_at = Expiry::Never;
                key.hint = std::mem::take(&mut old.hint);
                (new.clone(), "old", Some(realm))
            }
        };
        key.secrets
            .retain(|secret| secret.created_at != removed.created_at);
        if let Some(realm) = realm {
            // The old secret loses its expiry, so the change grants something.
            grants::check(&caller_state, &realm, &key, Grant::WholeKey)?;
        }
        change.delete_root(key.id, &removed).await?;
        change.update_key(&mut key).await?;
        let detail = non_empty_detail([
            ("keep", kept.to_owned()),
            ("hint", key.hint.clone()),
            ("expire_time", new_expiry.map_or_else(String::new, rfc3339)),
        ]);
        let entry = AuditEntry::of_key(EventKind::RotationEnded, &key, detail);
        self.finish(&caller.principal, request, change, entry, key)
            .await
    }
}

struct Rotate {
    reference: KeyReference,
    if_revision: Option<u64>,
    rotation: Rotation,
}

/// A key that may be rotated, as it is before the rotation.
struct Rotatable {
    key: Key,
    realm: Realm,
    /// The expiry that the rotation gives the key.
    expires_at: Expiry,
}

impl TwoPassChange for Rotate {
    type Caller = AuthorizedCaller;
    type Record = KeyId;
    type Checked = Rotatable;
    type Prepared = NewSecret;
    type Answer = IssuedKey;

    async fn replay(&self, pass: Pass<'_>, id: KeyId) -> Result<IssuedKey, Refusal> {
        replayed_key(pass, id).await
    }

    async fn check(&self, pass: Pass<'_>) -> Result<Rotatable, Refusal> {
        let checked = self.rotatable(pass).await?;
        check_revision(Some(checked.key.revision), self.if_revision)?;
        Ok(checked)
    }

    fn gives_to(&self, checked: &Rotatable) -> Option<Holdable> {
        Some(Holdable::Key(checked.key.id))
    }

    async fn prepare(
        &self,
        authority: &Authority,
        caller: &AuthorizedCaller,
        _: Rotatable,
    ) -> Result<Preparation<NewSecret, IssuedKey>, Refusal> {
        let secret = authority.new_secret(&caller.group()).await?;
        Ok(Preparation::Ready(secret))
    }

    async fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        _: &ChangeContext<'_>,
        checked: Rotatable,
        new: NewSecret,
    ) -> Result<Applied<Self>, Refusal> {
        let overlap = self.rotation.overlap;
        new.replace_newest_of(checked, overlap, change, authority)
            .await
    }
}

impl NewSecret {
    /// Writes the rotation of a key to this secret.
    async fn replace_newest_of<C>(
        &self,
        rotatable: Rotatable,
        overlap: Duration,
        change: &mut Change,
        authority: &Authority,
    ) -> Result<Applied<C>, Refusal>
    where
        C: TwoPassChange<Record = KeyId, Answer = IssuedKey>,
    {
        let Rotatable {
            mut key,
            realm,
            expires_at,
        } = rotatable;
        let now = change.time();
        let old_hint = key.hint.clone();
        // A later expiry of the key is for the new secret. The old one was given out with the expiry that the key had.
        let old_end = key
            .expires_at
            .earlier(expires_at)
            .or_earlier(now.saturating_add(overlap));
        let has_new_expiry = expires_at != key.expires_at;
        key.expires_at = expires_at;
        // Of two valid secrets the newer one is replaced: the answer with its API key may have been lost, and then the holder
        // still has the older one.
        let is_valid = |secret: &Secret| !secret.expires_at.is_over(now);
        let kept = key.secrets.iter().position(is_valid);
        for (index, mut secret) in std::mem::take(&mut key.secrets).into_iter().enumerate() {
            if Some(index) == kept && !overlap.is_zero() {
                if secret.hint.is_empty() {
                    secret.hint.clone_from(&old_hint);
                }
                secret.expires_at = old_end;
                key.secrets.push(secret);
            } else {
                change.delete_root(key.id, &secret).await?;
            }
        }
        let plain_key = self.add_to(&mut key, &realm, change, &authority.peppers)?;
        change.update_key(&mut key).await?;
        let newest = key.secrets.last().expect("the new secret was added");
        change.insert_root(key.id, newest, &self.root).await?;
        let detail = non_empty_detail([
            ("hint", key.hint.clone()),
            ("old_hint", old_hint),
            (
                "old_expire_time",
                Option::from(old_end).map_or_else(String::new, rfc3339),
            ),
            (
                "expire_time",
                Option::from(expires_at)
                    .filter(|_| has_new_expiry)
                    .map_or_else(String::new, rfc3339),
            ),
        ]);
        Ok(Applied::Changed {
            record: key.id,
            entry: AuditEntry::of_key(EventKind::KeyRotated, &key, detail),
            answer: IssuedKey::new(key, plain_key),
        })
    }
}

impl Rotate {
    /// Returns the key, if this caller may rotate it, with its realm and its expiry after the rotation.
    async fn rotatable(&self, pass: Pass<'_>) -> Result<Rotatable, Refusal> {
        let Pass {
            snapshot,
            caller_state,
            now,
            ..
        } = pass;
        let role = &caller_state.role;
        let key = visible(snapshot, role, &self.reference, Purpose::Change).await?;
        if key.revocation.is_some() {
            return Err(revoked());
        }
        if key.expires_at.is_over(now) {
            return Err(Refusal::Precondition {
                reason: "KEY_EXPIRED",
                message: "the key has expired, and a rotation does not make it valid again: set a later `expire_time` with \
                          UpdateKey first, or issue a new key"
                    .to_owned(),
            });
        }
        let realm = snapshot.find_realm(&key.realm).await?;
        let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
        let expires_at = self.rotation.expiry(&key, &realm, now)?;
        // The caller gets the new API key, and so everything that the key will hold.
        let after = Key {
            expires_at,
            ..key.clone()
        };
        grants::check(caller_state, &realm, &after, Grant::WholeKey)?;
        Ok(Rotatable {
            key,
            realm,
            expires_at,
        })
    }
}

struct RotateSelf {
    rotation: Rotation,
}

impl TwoPassChange for RotateSelf {
    type Caller = KeyHolder;
    type Record = KeyId;
    type Checked = Rotatable;
    type Prepared = NewSecret;
    type Answer = IssuedKey;

    /// The caller may present either secret, because a caller that lost the first answer has only the old one.
    async fn replay(&self, pass: PassOf<'_, Self>, _: KeyId) -> Result<IssuedKey, Refusal> {
        let mut key = pass.caller_state.key.clone();
        pass.snapshot
            .set_last_uses(std::slice::from_mut(&mut key))
            .await?;
        Ok(IssuedKey {
            key,
            plain_key: None,
        })
    }

    async fn check(&self, pass: PassOf<'_, Self>) -> Result<Rotatable, Refusal> {
        let KeyHolderState { key, realm } = pass.caller_state;
        if !realm.lets_rotate_itself(&key.access) {
            return Err(if realm.id.is_built_in() {
                NOT_IF_IT_ADMINISTERS
            } else {
                NO_SELF_ROTATION
            }
            .into());
        }
        // A thief with only the old secret must not replace the new one, which the rightful holder may use.
        if key.secrets.last().map(|newest| &newest.digest) != Some(&pass.principal.secret) {
            return Err(Refusal::Precondition {
                reason: "OLD_SECRET",
                message: "the caller presented the old secret of its key: use the new one, or ask the issuer of the key to \
                          rotate it"
                    .to_owned(),
            });
        }
        let mut key = key.clone();
        pass.snapshot
            .set_last_uses(std::slice::from_mut(&mut key))
            .await?;
        let expires_at = self.rotation.expiry(&key, realm, pass.now)?;
        Ok(Rotatable {
            key,
            realm: realm.clone(),
            expires_at,
        })
    }

    fn gives_to(&self, checked: &Rotatable) -> Option<Holdable> {
        Some(Holdable::Key(checked.key.id))
    }

    async fn prepare(
        &self,
        authority: &Authority,
        caller: &KeyHolder,
        _: Rotatable,
    ) -> Result<Preparation<NewSecret, IssuedKey>, Refusal> {
        let secret = authority.new_secret(&caller.group).await?;
        Ok(Preparation::Ready(secret))
    }

    async fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        _: &ChangeContext<'_>,
        checked: Rotatable,
        new: NewSecret,
    ) -> Result<Applied<Self>, Refusal> {
        let overlap = self.rotation.overlap;
        new.replace_newest_of(checked, overlap, change, authority)
            .await
    }
}

impl Rotation {
    /// Returns the expiry of the key after a rotation at `now`, from which the realm's `max_lifetime` counts.
    fn expiry(self, key: &Key, realm: &Realm, now: Timestamp) -> Result<Expiry, Refusal> {
        if self.expires_at.is_some() {
            let mut bad = Violations::default();
            let expires_at = resolve_expiry(realm, self.expires_at, now, now, &mut bad);
            return bad.finish(Some(expires_at)).map_err(Refusal::Invalid);
        }
        // The key may be from before the realm got this `max_lifetime`.
        Ok(match realm.max_lifetime {
            Some(span) => key.expires_at.or_earlier(now.saturating_add(span)),
            None => key.expires_at,
        })
    }
}

/// Returns the latest expiry of a key that goes back to this old secret; `None` without a limit.
///
/// The rotation may have set an expiry that the realm's `max_lifetime` allows only for the new secret. The key keeps at least what
/// is left of the overlap.
fn latest_expiry(realm: &Realm, old: &Secret) -> Option<Timestamp> {
    let latest = old.created_at.saturating_add(realm.max_lifetime?);
    Some(match old.expires_at {
        Expiry::At(end) => end.max(latest),
        Expiry::Never => latest,
    })
}

const NO_SELF_ROTATION: Forbidden = Forbidden(
    "the realm does not let keys rotate themselves: ask the issuer of the key to rotate it, or ask an operator or a manager to \
     set `self_rotation` of the realm",
);

const NOT_IF_IT_ADMINISTERS: Forbidden = Forbidden(
    "only keys of gateways and readers rotate themselves in the realm \"claviger\": use another operator key, which can rotate \
     this one",
);

const ONE_SECRET: &str = "there is no rotation to end: the key has only one secret";

fn no_rotation(message: &str) -> Refusal {
    Refusal::Precondition {
        reason: "NO_ROTATION",
        message: message.to_owned(),
    }
}
