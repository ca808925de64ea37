//! The caller's key and role, read again inside a change.

use super::Refusal;
use crate::auth::{NO_ROLE, Principal, Role};
use crate::domain::key::{Key, KeyState, admits};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::store::Snapshot;

/// The caller's key, read again inside a change, and its role.
pub(super) struct CallerState {
    /// The role of the key now.
    pub(super) role: Role,
    /// The caller's key.
    pub(super) key: Key,
}

impl CallerState {
    /// Reads the caller's key again. Inside a change the result is binding. On a snapshot before a change the result only avoids
    /// a change that would be refused.
    ///
    /// # Errors
    /// [`Refusal::CallerGone`] if the key was deleted or is no longer active, its partner is suspended, its secret was replaced,
    /// or the caller's address is no longer allowed. [`Refusal::Forbidden`] if the key no longer has a role.
    pub(super) async fn reread(
        snapshot: &mut Snapshot,
        caller: &Principal,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let key = snapshot
            .find_key(caller.key)
            .await?
            .ok_or(Refusal::CallerGone)?;
        let partner = snapshot.find_partner(&key.realm, &key.partner).await?;
        let suspended = partner.is_none_or(|partner| partner.value.suspended);
        if key.state(now) != KeyState::Active
            || suspended
            || !caller.still_holds(&key, now)
            || !admits(&key.allowed_cidrs, caller.peer)
        {
            return Err(Refusal::CallerGone);
        }
        let realm = if key.realm.is_built_in() {
            Realm::built_in()
        } else {
            let realm = snapshot.find_realm(&key.realm).await?;
            realm.ok_or(Refusal::CallerGone)?.value
        };
        let role = Role::of(&key, &realm).ok_or(NO_ROLE)?;
        Ok(Self { role, key })
    }
}
