//! Changes that are checked on a snapshot before they are opened.
//!
//! Only one change is open at a time. Those that take access away are served before all others and have no budget, so nobody may
//! open many of them that change nothing or are refused. Their checks run on a snapshot first, and again inside the change, where
//! the result is binding. They run inside the change only if the mirror shows that there is something to take.

use std::ops::{ControlFlow, Deref, DerefMut};

use super::admission::{Effect, OpenChange, Reading};
use super::caller_state::{Caller as _, CallerState};
use super::holds::check_not_held;
use super::key_reference::KeyReference;
use super::{Authority, Refusal};
use crate::auth::{AuthorizedCaller, CallerGroup, Purpose, Role};
use crate::domain::hold::Holdable;
use crate::domain::time::Timestamp;
use crate::mirror::{Entry, Mirror};
use crate::store::Snapshot;

/// The state on which a change is checked.
pub(super) enum CheckedState {
    /// A snapshot, at this time. If the checks pass, they are repeated inside the change.
    Snapshot(Reading, Timestamp),
    /// The change.
    Change(OpenChange),
}

impl CheckedState {
    /// The time of the state.
    pub(super) fn time(&self) -> Timestamp {
        match self {
            Self::Snapshot(_, time) => *time,
            Self::Change(change) => change.time(),
        }
    }

    /// Checks that the change may give more access to this, which exists.
    pub(super) async fn give_to(&mut self, mirror: &Mirror, what: Holdable) -> Result<(), Refusal> {
        match self {
            Self::Snapshot(reading, _) => check_not_held(reading, mirror, &what).await,
            Self::Change(change) => change.give_to(mirror, what).await,
        }
    }

    /// Reads the caller's key again.
    pub(super) async fn reread(
        &mut self,
        caller: &AuthorizedCaller,
    ) -> Result<CallerState, Refusal> {
        let time = self.time();
        caller.reread(self, time).await
    }
}

/// What a change takes away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken {
    /// The use of the key, until it is enabled.
    Use,
    /// The use of the key, by a revocation.
    UseForEver,
    /// One of two secrets.
    OldSecret,
    /// The key.
    Key,
}

impl Authority {
    /// Begins the checks of a change: inside the change, or on a snapshot first.
    pub(super) async fn begin_checks(
        &self,
        group: &CallerGroup,
        effect: Effect,
        on_snapshot: bool,
    ) -> Result<CheckedState, Refusal> {
        Ok(if on_snapshot {
            CheckedState::Snapshot(self.read_for(effect, group).await?, self.clock.now())
        } else {
            CheckedState::Change(self.open(group, effect).await?)
        })
    }

    /// Ends the checks that passed in this state. After those on a snapshot the change is opened, and they are repeated inside it.
    pub(super) async fn end_checks(
        &self,
        state: CheckedState,
        group: &CallerGroup,
        effect: Effect,
    ) -> Result<ControlFlow<OpenChange, CheckedState>, Refusal> {
        match state {
            CheckedState::Change(change) => Ok(ControlFlow::Break(change)),
            CheckedState::Snapshot(snapshot, _) => {
                drop(snapshot);
                let change = self.open(group, effect).await?;
                Ok(ControlFlow::Continue(CheckedState::Change(change)))
            }
        }
    }

    /// Returns whether the mirror shows a key that the role reaches and that this can be taken from, whatever its revision is.
    ///
    /// The mirror may be behind, so this only says where to check.
    pub(super) fn shows(
        &self,
        role: &Role,
        reference: &KeyReference,
        taken: Taken,
        if_revision: Option<u64>,
    ) -> bool {
        let index = self.mirror.index();
        let view = index.view();
        let Some(Entry::Key(key)) = view.key(reference.id) else {
            return false;
        };
        let can_be_taken = match taken {
            Taken::Use => !key.is_disabled() && !key.is_revoked(),
            Taken::UseForEver => !key.is_revoked(),
            Taken::OldSecret => !key.is_revoked() && key.secrets().count() == 2,
            Taken::Key => true,
        };
        let partner = &key.partner().id;
        if_revision.is_none()
            && can_be_taken
            && reference.allows(partner)
            && role.reaches_keys_of(
                Purpose::Change,
                key.realm(),
                partner,
                key.project(),
                key.environment(),
            )
    }
}

impl Deref for CheckedState {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        match self {
            Self::Snapshot(snapshot, _) => snapshot,
            Self::Change(change) => change,
        }
    }
}

impl DerefMut for CheckedState {
    fn deref_mut(&mut self) -> &mut Snapshot {
        match self {
            Self::Snapshot(snapshot, _) => snapshot,
            Self::Change(change) => change,
        }
    }
}

impl AsMut<Snapshot> for CheckedState {
    fn as_mut(&mut self) -> &mut Snapshot {
        self
    }
}
