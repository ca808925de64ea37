//! Rotation: a key gets a new secret, and the old secret stays valid for an overlap.

use std::ops::ControlFlow;
use std::time::Duration;

use super::admission::Effect;
use super::audit::{AuditEntry, non_empty_detail, rfc3339};
use super::caller_state::{CallerState, KeyHolderState};
use super::checked_change::Taken;
use super::grants::Grant;
use super::idempotency::replayed_key;
use super::key_reference::KeyReference;
use super::keys::{revoked, visible};
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
use crate::store::{Change, Snapshot};

/// The secret that a key keeps when its rotation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSecret {
    /// The new secret.
    New,
    /// The old secret.
    Old,
}

impl Authority {
    /// Gives a key a new secret. The old secret stays valid for `overlap`, but never beyond the expiry of the key.
    pub async fn rotate_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: KeyReference,
        if_revision: Option<u64>,
        overlap: Duration,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<IssuedKey>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let rotate = Rotate {
            reference,
            if_revision,
            overlap,
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
        let rotate = RotateSelf { overlap };
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
        let (removed, kept) = match keep {
            KeepSecret::New => (old.clone(), "new"),
            KeepSecret::Old => {
                if old.expires_at.is_over(change.time()) {
                    return Err(no_rotation(
                        "the old secret has expired: keep the new secret, or rotate the key again",
                    ));
                }
                old.expires_at = Expiry::Never;
                key.hint = std::mem::take(&mut old.hint);
                (new.clone(), "old")
            }
        };
        key.secrets
            .retain(|secret| secret.created_at != removed.created_at);
        if keep == KeepSecret::Old {
            // The old secret loses its expiry, so the change grants something.
            let realm = change.find_realm(&key.realm).await?;
            let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
            grants::check(&caller_state, &realm, &key, Grant::WholeKey)?;
        }
        change.delete_root(key.id, &removed).await?;
        change.update_key(&mut key).await?;
        let detail = non_empty_detail([("keep", kept.to_owned()), ("hint", key.hint.clone())]);
        let entry = AuditEntry::of_key(EventKind::RotationEnded, &key, detail);
        self.finish(&caller.principal, request, change, entry, key)
            .await
    }
}

struct Rotate {
    reference: KeyReference,
    if_revision: Option<u64>,
    overlap: Duration,
}

impl TwoPassChange for Rotate {
    type Caller = AuthorizedCaller;
    type Record = KeyId;
    type Checked = (Key, Realm);
    type Prepared = NewSecret;
    type Answer = IssuedKey;

    async fn replay(&self, pass: Pass<'_>, id: KeyId) -> Result<IssuedKey, Refusal> {
        replayed_key(pass, id).await
    }

    async fn check(&self, pass: Pass<'_>) -> Result<(Key, Realm), Refusal> {
        let (key, realm) =
            rotatable(pass.caller_state, pass.snapshot, &self.reference, pass.now).await?;
        check_revision(Some(key.revision), self.if_revision)?;
        Ok((key, realm))
    }

    fn gives_to(&self, (key, _): &(Key, Realm)) -> Option<Holdable> {
        Some(Holdable::Key(key.id))
    }

    async fn prepare(
        &self,
        authority: &Authority,
        caller: &AuthorizedCaller,
        _: (Key, Realm),
    ) -> Result<Preparation<NewSecret, IssuedKey>, Refusal> {
        let secret = authority.new_secret(&caller.group()).await?;
        Ok(Preparation::Ready(secret))
    }

    async fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        _: &ChangeContext<'_>,
        (key, realm): (Key, Realm),
        new: NewSecret,
    ) -> Result<Applied<Self>, Refusal> {
        new.replace_newest_of(key, &realm, self.overlap, change, authority)
            .await
    }
}

impl NewSecret {
    /// Writes the rotation of a key to this secret.
    async fn replace_newest_of<C>(
        &self,
        mut key: Key,
        realm: &Realm,
        overlap: Duration,
        change: &mut Change,
        authority: &Authority,
    ) -> Result<Applied<C>, Refusal>
    where
        C: TwoPassChange<Record = KeyId, Answer = IssuedKey>,
    {
        let now = change.time();
        let old_hint = key.hint.clone();
        let old_end = key.expires_at.or_earlier(now.saturating_add(overlap));
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
        let plain_key = self.add_to(&mut key, realm, change, &authority.peppers)?;
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
        ]);
        Ok(Applied::Changed {
            record: key.id,
            entry: AuditEntry::of_key(EventKind::KeyRotated, &key, detail),
            answer: IssuedKey::new(key, plain_key),
        })
    }
}

struct RotateSelf {
    overlap: Duration,
}

impl TwoPassChange for RotateSelf {
    type Caller = KeyHolder;
    type Record = KeyId;
    type Checked = (Key, Realm);
    type Prepared = NewSecret;
    type Answer = IssuedKey;

    /// The caller may present either secret: whoever lost the first answer has only the old one.
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

    async fn check(&self, pass: PassOf<'_, Self>) -> Result<(Key, Realm), Refusal> {
        let KeyHolderState { key, realm } = pass.caller_state;
        if !realm.lets_rotate_itself(&key.access) {
            return Err(if realm.id.is_built_in() {
                NOT_IF_IT_ADMINISTERS
            } else {
                NO_SELF_ROTATION
            }
            .into());
        }
        // Whoever holds only the old secret must not replace the new one, which may be in the right hands.
        if key.secrets.last().map(|newest| &newest.digest) != Some(&pass.principal.secret) {
            return Err(Refusal::Precondition {
                reason: "OLD_SECRET",
                message: "the caller presented the old secret of its key: use the new one, or ask whoever issued the key to \
                          rotate it"
                    .to_owned(),
            });
        }
        let mut key = key.clone();
        pass.snapshot
            .set_last_uses(std::slice::from_mut(&mut key))
            .await?;
        Ok((key, realm.clone()))
    }

    fn gives_to(&self, (key, _): &(Key, Realm)) -> Option<Holdable> {
        Some(Holdable::Key(key.id))
    }

    async fn prepare(
        &self,
        authority: &Authority,
        caller: &KeyHolder,
        _: (Key, Realm),
    ) -> Result<Preparation<NewSecret, IssuedKey>, Refusal> {
        let secret = authority.new_secret(&caller.group).await?;
        Ok(Preparation::Ready(secret))
    }

    async fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        _: &ChangeContext<'_>,
        (key, realm): (Key, Realm),
        new: NewSecret,
    ) -> Result<Applied<Self>, Refusal> {
        new.replace_newest_of(key, &realm, self.overlap, change, authority)
            .await
    }
}

/// Returns the key, if this caller may rotate it, and its realm.
async fn rotatable(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    reference: &KeyReference,
    now: Timestamp,
) -> Result<(Key, Realm), Refusal> {
    let role = &caller_state.role;
    let key = visible(snapshot, role, reference, Purpose::Change).await?;
    if key.revocation.is_some() {
        return Err(revoked());
    }
    if key.expires_at.is_over(now) {
        return Err(Refusal::Precondition {
            reason: "KEY_EXPIRED",
            message: "the key has expired, and a rotation does not extend it: set a later `expire_time` first, or issue a new key"
                .to_owned(),
        });
    }
    let realm = snapshot.find_realm(&key.realm).await?;
    let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
    // The caller gets the new API key, and so everything that the key holds.
    grants::check(caller_state, &realm, &key, Grant::WholeKey)?;
    Ok((key, realm))
}

const NO_SELF_ROTATION: Forbidden = Forbidden(
    "the realm does not let keys rotate themselves: ask whoever issued the key to rotate it, or ask an operator or a manager to \
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
