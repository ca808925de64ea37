//! The caller's key, and what it may do, read again inside a change.

use super::Refusal;
use crate::auth::{AuthorizedCaller, CallerGroup, KeyHolder, NO_ROLE, Principal, Role};
use crate::domain::key::{Key, KeyState, admits};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::store::Snapshot;

/// A caller that was authenticated against the mirror, which may be behind. What counts is what is read again.
pub(super) trait Caller: Sync {
    /// The caller as it is read again.
    type State: Send + Sync;

    /// Who called.
    fn principal(&self) -> &Principal;

    /// The callers with whom the caller shares limits.
    fn group(&self) -> CallerGroup;

    /// Reads the caller's key again. Inside a change the result is binding. On a snapshot before a change the result only avoids
    /// a change that would be refused.
    ///
    /// # Errors
    /// [`Refusal::CallerGone`] if the key was deleted or is no longer active, its partner is suspended, its secret was replaced,
    /// or the caller's address is no longer allowed. [`Refusal::Forbidden`] if the caller needs a role and has none any more.
    fn reread(
        &self,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> impl Future<Output = Result<Self::State, Refusal>> + Send;
}

/// The caller's key, read again inside a change, and its role.
pub(super) struct CallerState {
    /// The role of the key now.
    pub(super) role: Role,
    /// The caller's key.
    pub(super) key: Key,
}

/// The key of a caller that uses it for itself only, read again inside a change.
pub(super) struct KeyHolderState {
    /// The caller's key.
    pub(super) key: Key,
    /// The realm of the key.
    pub(super) realm: Realm,
}

impl Caller for AuthorizedCaller {
    type State = CallerState;

    fn principal(&self) -> &Principal {
        &self.principal
    }

    fn group(&self) -> CallerGroup {
        self.group()
    }

    async fn reread(
        &self,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<CallerState, Refusal> {
        let KeyHolderState { key, realm } = accepted(snapshot, &self.principal, now).await?;
        let role = Role::of(&key, &realm).ok_or(NO_ROLE)?;
        Ok(CallerState { role, key })
    }
}

impl Caller for KeyHolder {
    type State = KeyHolderState;

    fn principal(&self) -> &Principal {
        &self.principal
    }

    fn group(&self) -> CallerGroup {
        self.group.clone()
    }

    async fn reread(
        &self,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<KeyHolderState, Refusal> {
        accepted(snapshot, &self.principal, now).await
    }
}

/// Returns the key of a caller, if it is accepted now, and its realm.
async fn accepted(
    snapshot: &mut Snapshot,
    caller: &Principal,
    now: Timestamp,
) -> Result<KeyHolderState, Refusal> {
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
    Ok(KeyHolderState { key, realm })
}
