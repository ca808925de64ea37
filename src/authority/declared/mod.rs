//! The declared state: realms, partners, projects and keys of the built-in realm that files describe, made true in one transaction.
//!
//! A plan is the list of changes between what is stored and what is declared. It is made on a snapshot, and again inside the change,
//! where it is binding. So a state that cannot be reached as a whole changes nothing.

mod plan;
mod write;

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};

pub use plan::PlannedChange;
use plan::{Plan, Planner};
use write::Writer;

use super::admission::Effect;
use super::audit::AuditEntry;
use super::caller_state::{Caller as _, CallerState};
use super::{
    Authority, ChangeRequest, ChangeResult, ImportedKey, PartnerDefinition, Queued, Read, Refusal,
};
use crate::auth::{AuthorizedCaller, Role};
use crate::domain::event::Event;
use crate::domain::ids::RealmId;
use crate::domain::partner::Project;
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::hashing::{Peppers, Roots};
use crate::mirror::PreparedRealm;
use crate::store::{Change, Snapshot};

/// How many changes one call makes at most, because all others wait for its transaction.
const MAX_CHANGES: usize = 1_000;

/// What files declare. Resources that are not named stay as they are, unless their kind is pruned.
pub struct DeclaredState {
    /// Whole realms.
    pub realms: Vec<Realm>,
    /// Partners.
    pub partners: Vec<PartnerDefinition>,
    /// Projects.
    pub projects: Vec<Project>,
    /// Keys of the built-in realm, by the SHA-256 of their API keys.
    pub keys: Vec<ImportedKey>,
    /// What is deleted if the state does not name it.
    pub prune: Prune,
}

/// The kinds of resources that are deleted if the declared state does not name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each kind is chosen on its own"
)]
pub struct Prune {
    /// Realms.
    pub realms: bool,
    /// Partners of the declared realms.
    pub partners: bool,
    /// Projects of the declared realms.
    pub projects: bool,
    /// Imported keys of the built-in realm. Keys that were issued there stay.
    pub keys: bool,
}

/// What a call that applies a declared state has done, or would do.
pub struct AppliedState {
    /// The changes, in their order.
    pub changes: Vec<PlannedChange>,
    /// Identifies the changes, so that a later call can demand exactly these.
    pub plan: String,
}

impl Authority {
    /// Returns what [`Authority::apply`] would do.
    ///
    /// # Errors
    /// Those of the call, apart from the ones that depend on its caller.
    pub async fn plan(
        &self,
        caller: &AuthorizedCaller,
        state: &DeclaredState,
    ) -> Result<Read<AppliedState>, Refusal> {
        caller.role.may_read_everything()?;
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        let caller_state = caller.reread(&mut snapshot, now).await?;
        caller_state.role.may_read_everything()?;
        let by = (caller_state.role == Role::Operator).then_some(&caller_state);
        self.check_nothing_held(&mut snapshot).await?;
        let planner = Planner::new(state, &self.peppers, by, now);
        let plan = planner.plan(&mut snapshot).await?;
        Ok(Read {
            revision: snapshot.revision().await?,
            value: plan.into_applied(),
        })
    }

    /// Makes a declared state true, or changes nothing. `if_plan` is the plan that the caller has seen, if it must be this one.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] names each part of the state that contradicts itself or the store. [`Refusal::Conflict`] if the changes
    /// are not those of `if_plan`. [`Refusal::Precondition`] if keys depend on what would change or go, if there are too many changes,
    /// if the caller's own key would lose its role, or if anything is held.
    pub async fn apply(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        state: &DeclaredState,
        if_plan: Option<&str>,
    ) -> Result<ChangeResult<AppliedState>, Refusal> {
        caller.role.may_operate()?;
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        let caller_state = caller.reread(&mut snapshot, now).await?;
        let plan = self
            .plan_change(&mut snapshot, state, caller, &caller_state, if_plan, now)
            .await?;
        let last = snapshot.last_event().await?;
        drop(snapshot);
        if plan.changes.is_empty() {
            let (value, revision) = (plan.into_applied(), last.revision);
            return self
                .in_force(&caller.principal, request, value, revision, last)
                .await;
        }
        let roots = self.roots_of(caller, state, &plan).await?;
        // Before the change begins, because only one change runs at a time.
        let mut prepared: HashMap<RealmId, PreparedRealm> = plan
            .realms_to_put()
            .map(|realm| (realm.id.clone(), PreparedRealm::new(realm.clone())))
            .collect();

        let (mut change, caller_state) = self.begin(caller, Effect::MayGrant).await?;
        let now = change.time();
        // Most of the time nothing has changed since, and the plan, which may have thousands of look-ups, holds for this state too.
        let mut plan = if change.last_event().await? == last {
            self.check_change(&mut change, &plan, caller, &caller_state)
                .await?;
            plan
        } else {
            self.plan_change(&mut change, state, caller, &caller_state, if_plan, now)
                .await?
        };
        change.give_to_all();
        if plan.changes.is_empty() {
            let value = plan.into_applied();
            return self
                .unchanged(&caller.principal, request, change, value)
                .await;
        }
        let realms: Vec<_> = plan.realms_to_put().map(|realm| realm.id.clone()).collect();
        let event = |entry: AuditEntry, change: &Change| -> Event {
            entry.event(&caller.principal, request, change)
        };
        let writer = Writer {
            state,
            peppers: &self.peppers,
            roots,
        };
        let last = writer.write(&mut change, &mut plan.changes, event).await?;
        for realm in realms {
            if let Some(prepared) = prepared.remove(&realm) {
                self.mirror.prepare(prepared);
            }
        }
        self.finish(
            &caller.principal,
            request,
            change,
            last,
            plan.into_applied(),
        )
        .await
    }

    /// Makes the plan of a change, and checks what depends on its caller.
    async fn plan_change(
        &self,
        snapshot: &mut Snapshot,
        state: &DeclaredState,
        caller: &AuthorizedCaller,
        caller_state: &CallerState,
        if_plan: Option<&str>,
        now: Timestamp,
    ) -> Result<Plan, Refusal> {
        caller_state.role.may_operate()?;
        let planner = Planner::new(state, &self.peppers, Some(caller_state), now);
        let plan = planner.plan(snapshot).await?;
        // Nothing to change is what a call finds that is repeated because its answer was lost.
        if if_plan.is_some_and(|seen| seen != plan.id) && !plan.changes.is_empty() {
            return Err(Refusal::Conflict(
                "`if_plan` is another plan, because something has changed since: look at the changes again, then decide".to_owned(),
            ));
        }
        self.check_change(snapshot, &plan, caller, caller_state)
            .await?;
        Ok(plan)
    }

    /// Checks what makes a plan impossible that its own state does not tell.
    async fn check_change(
        &self,
        snapshot: &mut Snapshot,
        plan: &Plan,
        caller: &AuthorizedCaller,
        caller_state: &CallerState,
    ) -> Result<(), Refusal> {
        caller_state.role.may_operate()?;
        self.check_nothing_held(snapshot).await?;
        plan.check_not_locked_out(&caller_state.key, caller.principal.peer)
    }

    /// Makes the roots of the keys that the plan creates, by their index in the state.
    async fn roots_of(
        &self,
        caller: &AuthorizedCaller,
        state: &DeclaredState,
        plan: &Plan,
    ) -> Result<HashMap<usize, String>, Refusal> {
        let group = &caller.group();
        stream::iter(plan.new_keys().collect::<Vec<_>>())
            .map(|index| async move {
                let _permit = self.hash_permit(group).await?;
                let secret = state.keys[index].hash.secret().clone();
                Ok::<_, Refusal>((index, self.roots.make(secret).await))
            })
            .buffer_unordered(self.roots.width())
            .try_collect()
            .await
    }
}

/// The declared state of an authority that is being created.
pub(super) struct InitialState<'s> {
    state: &'s DeclaredState,
    peppers: &'s Peppers,
    plan: Plan,
    roots: HashMap<usize, String>,
}

impl<'s> InitialState<'s> {
    /// Plans the state, which must have an operator key.
    pub(super) async fn plan(
        change: &mut Change,
        peppers: &'s Peppers,
        state: &'s DeclaredState,
    ) -> Result<Self, Refusal> {
        let now = change.time();
        let planner = Planner::of_new_authority(state, peppers, now);
        let plan = planner.plan(change).await?;
        if !plan.creates_operator() {
            let mut bad = Violations::default();
            bad.add(
                "keys",
                "must have an operator key, or nobody could administer the authority: make an API key with `claviger key new`, \
                 and declare its SHA-256 with scopes = [\"operator\"]",
            );
            return Err(Refusal::Invalid(bad));
        }
        Ok(Self {
            state,
            peppers,
            plan,
            roots: HashMap::new(),
        })
    }

    /// Makes the roots of all keys. This may run inside the change, because no other change waits for it.
    pub(super) async fn make_roots(&mut self, roots: &Roots) {
        for index in self.plan.new_keys() {
            let secret = self.state.keys[index].hash.secret().clone();
            self.roots.insert(index, roots.make(secret).await);
        }
    }

    /// Writes the state, and returns the entry of the last change.
    pub(super) async fn write(
        mut self,
        change: &mut Change,
        event: impl Fn(AuditEntry, &Change) -> Event,
    ) -> Result<AuditEntry, Refusal> {
        let writer = Writer {
            state: self.state,
            peppers: self.peppers,
            roots: self.roots,
        };
        writer.write(change, &mut self.plan.changes, event).await
    }
}

/// The refusal if the second pass needs a root that the first did not.
fn needs_another_try() -> Refusal {
    Refusal::Busy(Queued::Changes)
}
