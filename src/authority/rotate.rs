//! Rotation: a key gets a new secret, and the old one lives on for a while.

use std::sync::Arc;
use std::time::Duration;

use super::issue::{give_secret, rfc3339};
use super::keys::{revoked, subject, visible};
use super::once::{Made, Once};
use super::{Authority, Caller, Done, Refusal, Standing, detail, giving};
use crate::domain::event::EventKind;
use crate::domain::ids::KeyId;
use crate::domain::key::{Key, Secret};
use crate::domain::key_text::SecretBytes;
use crate::domain::realm::Realm;
use crate::domain::time::{Expiry, Timestamp};
use crate::hashing::random;
use crate::store::Snapshot;

/// Which of the two secrets of a rotation stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivor {
    /// The newest.
    New,
    /// The oldest.
    Old,
}

impl Authority {
    /// Gives a key a new secret. The old one works on for the overlap, but never beyond the end of the key.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        id: KeyId,
        overlap: Duration,
        once: Option<Once>,
    ) -> Result<Done<Made>, Refusal> {
        caller.role.may_administer_keys()?;
        // As for a new key: before the slow hash, and again within the change.
        let now = self.clock.now();
        let mut snapshot = self.store.snapshot().await?;
        let standing = Standing::reread(&mut snapshot, &caller.holder, now).await?;
        if let Some(made) = self
            .made_before(caller, &standing, once.as_ref(), &mut snapshot, now)
            .await?
        {
            return Ok(made);
        }
        rotatable(&standing, &mut snapshot, id, now).await?;
        drop(snapshot);
        let secret = Arc::new(SecretBytes::new(random()));
        let root = self.roots.make(Arc::clone(&secret)).await?;

        let (mut change, standing) = self.begin(caller).await?;
        let now = change.time();
        if let Some(made) = self
            .made_before(caller, &standing, once.as_ref(), &mut change, now)
            .await?
        {
            return Ok(made);
        }
        let (mut key, realm) = rotatable(&standing, &mut change, id, now).await?;
        let old_hint = key.hint.clone();
        let old_end = key.expires_at.or_earlier(now.saturating_add(overlap));
        // Of two that work the newest goes: its text may have been lost on its way, and whoever lost it still has the oldest.
        let is_alive = |secret: &Secret| !secret.expires_at.is_over(now);
        let kept = key.secrets.iter().position(is_alive);
        for (place, mut secret) in std::mem::take(&mut key.secrets).into_iter().enumerate() {
            if Some(place) == kept && !overlap.is_zero() {
                if secret.hint.is_empty() {
                    secret.hint.clone_from(&old_hint);
                }
                secret.expires_at = old_end;
                key.secrets.push(secret);
            } else {
                change.delete_root(id, &secret).await?;
            }
        }
        let plain = give_secret(&mut key, &realm, &change, &self.peppers, &secret)?;
        change.update_key(&key).await?;
        let newest = key
            .secrets
            .last()
            .ok_or(Refusal::NotFound("the key's secret"))?;
        change.insert_root(id, newest, &root).await?;
        self.remember(caller, once, &mut change, &key.id).await?;
        let words = detail([
            ("hint", key.hint.clone()),
            ("old_hint", old_hint),
            (
                "old_expire_time",
                Option::from(old_end).map_or_else(String::new, rfc3339),
            ),
        ]);
        self.finish(
            &caller.holder,
            change,
            EventKind::KeyRotated,
            subject(&key),
            words,
            Made::now(key, plain),
        )
        .await
    }

    /// Takes one of a key's two secrets away before the overlap is over.
    pub async fn end_rotation(
        &self,
        caller: &Caller,
        id: KeyId,
        survivor: Survivor,
    ) -> Result<Done<Key>, Refusal> {
        let (mut change, standing, mut key) = self.begin_with_key(caller, id).await?;
        if key.revocation.is_some() {
            return Err(revoked());
        }
        let [old, new] = key.secrets.as_mut_slice() else {
            return Err(no_rotation("the key has one text only"));
        };
        let (gone, which) = match survivor {
            Survivor::New => (old.clone(), "new"),
            Survivor::Old => {
                if old.expires_at.is_over(change.time()) {
                    return Err(no_rotation(
                        "the old text has ended, and nothing brings it back",
                    ));
                }
                old.expires_at = Expiry::Never;
                key.hint = std::mem::take(&mut old.hint);
                (new.clone(), "old")
            }
        };
        key.secrets
            .retain(|secret| secret.created_at != gone.created_at);
        if survivor == Survivor::Old {
            // Its end is taken from it, which is to give.
            let realm = change.find_realm(&key.realm).await?;
            let realm = realm.ok_or(Refusal::NotFound("the realm"))?.value;
            giving::check(&standing, &realm, &key)?;
        }
        change.delete_root(id, &gone).await?;
        change.update_key(&key).await?;
        let words = detail([("survivor", which.to_owned()), ("hint", key.hint.clone())]);
        self.finish(
            &caller.holder,
            change,
            EventKind::RotationEnded,
            subject(&key),
            words,
            key,
        )
        .await
    }
}

/// The key, if it may be rotated by this caller, and its realm.
async fn rotatable(
    standing: &Standing,
    snapshot: &mut Snapshot,
    id: KeyId,
    now: Timestamp,
) -> Result<(Key, Realm), Refusal> {
    let key = visible(snapshot, &standing.role, id).await?;
    if key.revocation.is_some() {
        return Err(revoked());
    }
    if key.expires_at.is_over(now) {
        return Err(Refusal::Precondition {
            reason: "KEY_EXPIRED",
            message: "the key has expired, and a rotation revives nothing: give it a later end first, or issue a new one"
                .to_owned(),
        });
    }
    let realm = snapshot.find_realm(&key.realm).await?;
    let realm = realm.ok_or(Refusal::NotFound("the realm"))?.value;
    // Whoever rotates a key learns its text, and so can do all that the key can.
    giving::check(standing, &realm, &key)?;
    Ok((key, realm))
}

fn no_rotation(why: &str) -> Refusal {
    Refusal::Precondition {
        reason: "NO_ROTATION",
        message: format!("there is no rotation to end: {why}"),
    }
}
