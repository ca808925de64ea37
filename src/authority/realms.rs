//! Putting, reading and deleting realms.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::admission::{Effect, OpenChange};
use super::audit::{AuditEntry, non_empty_detail, realm_detail};
use super::caller_state::CallerState;
use super::matching_keys::OwnerOfKeys;
use super::{
    Authority, ChangeRequest, ChangeResult, Page, Read, Refusal, built_in, check_revision, in_use,
    not_found,
};
use crate::auth::{AuthorizedCaller, Delegate, Role};
use crate::domain::event::{EventKind, Subject};
use crate::domain::hold::Holdable;
use crate::domain::ids::RealmId;
use crate::domain::partner::Partner;
use crate::domain::realm::{Environment, Realm};
use crate::domain::time::Timestamp;
use crate::mirror::PreparedRealm;
use crate::store::{RealmRow, Snapshot};

/// A realm that is put.
pub(super) struct Put<'p> {
    /// The realm as it was, if there was one.
    pub(super) before: Option<&'p Realm>,
    /// The realm as it becomes.
    pub(super) prepared: PreparedRealm,
    /// The two names of the scope that is renamed, for the audit trail; empty if none is.
    pub(super) renamed: String,
}

impl Authority {
    /// Creates or replaces a realm. Only operators create realms.
    pub async fn put_realm(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        realm: Realm,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<RealmRow>, Refusal> {
        caller.role.may_manage(&realm.id)?;
        // Before the change begins, because only one change runs at a time.
        let prepared = PreparedRealm::new(realm);
        let realm = prepared.definition();
        let (mut change, CallerState { role, .. }) = self.begin(caller, Effect::MayGrant).await?;
        role.may_manage(&realm.id)?;
        if realm.id.is_built_in() {
            return Err(built_in(IS_BUILT_IN));
        }
        let found = change.find_realm(&realm.id).await?;
        change
            .give_to(&self.mirror, Holdable::Realm(realm.id.clone()))
            .await?;
        check_revision(found.as_ref().map(|found| found.revision), if_revision)?;
        if let Some(other) = change.find_prefix(realm.prefix.as_str()).await?
            && other != realm.id
        {
            return Err(Refusal::AlreadyExists(format!(
                "the prefix \"{}\" belongs to another realm: choose another prefix",
                realm.prefix
            )));
        }
        let before = match found {
            Some(found) if found.value == *realm => {
                return self
                    .unchanged(&caller.principal, request, change, found)
                    .await;
            }
            Some(found) => {
                let now = change.time();
                check_frozen(&mut change, &found.value, realm, now).await?;
                Some(found.value)
            }
            None => {
                role.may_operate()?;
                None
            }
        };
        if before.is_none() {
            change.put_partner(&served_realm(&realm.id)).await?;
        }
        let put = Put {
            before: before.as_ref(),
            prepared,
            renamed: String::new(),
        };
        self.finish_put(caller, request, change, put).await
    }

    /// Writes the prepared realm and finishes the change.
    pub(super) async fn finish_put(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        mut change: OpenChange,
        put: Put<'_>,
    ) -> Result<ChangeResult<RealmRow>, Refusal> {
        let Put {
            before,
            prepared,
            renamed,
        } = put;
        let realm = prepared.definition();
        let sha256 = change.put_realm(realm).await?;
        let put = change
            .find_realm(&realm.id)
            .await?
            .ok_or(Refusal::NotFound(not_found::REALM))?;
        let entry = AuditEntry {
            kind: EventKind::RealmPut,
            subject: subject(&realm.id),
            detail: realm_detail(before, realm, sha256, renamed),
        };
        self.mirror.prepare(prepared);
        self.finish(&caller.principal, request, change, entry, put)
            .await
    }

    /// Returns a realm.
    pub async fn get_realm(
        &self,
        caller: &AuthorizedCaller,
        id: &RealmId,
    ) -> Result<Read<RealmRow>, Refusal> {
        caller.role.may_read(id)?;
        let mut snapshot = self.read(caller).await?;
        let value = snapshot
            .find_realm(id)
            .await?
            .ok_or(Refusal::NotFound(not_found::REALM))?;
        let revision = snapshot.revision().await?;
        Ok(Read { value, revision })
    }

    /// Returns a page of the realms that the caller may read. `take` converts an item, or refuses it if the page is full.
    pub async fn list_realms<T>(
        &self,
        caller: &AuthorizedCaller,
        after: &str,
        limit: u32,
        take: impl FnMut(RealmRow) -> Option<T>,
    ) -> Result<Read<Page<T>>, Refusal> {
        caller.role.may_read_something()?;
        let mut snapshot = self.read(caller).await?;
        let revision = snapshot.revision().await?;
        let value = match &caller.role {
            Role::Operator | Role::Auditor => snapshot.list_realms(after, limit, take).await?,
            Role::Realm { realm, .. } | Role::Delegate(Delegate { realm, .. }) => Page {
                items: snapshot
                    .find_realm(realm)
                    .await?
                    .and_then(take)
                    .into_iter()
                    .collect(),
                next: None,
            },
        };
        Ok(Read { value, revision })
    }

    /// Deletes a realm with its partners and projects, and its revoked and expired keys.
    pub async fn delete_realm(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        id: &RealmId,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<()>, Refusal> {
        caller.role.may_operate()?;
        let group = &caller.group();
        let mut state = self.begin_checks(group, Effect::TakesAway, true).await?;
        let (mut change, found) = loop {
            let CallerState { role, .. } = state.reread(caller).await?;
            role.may_operate()?;
            if id.is_built_in() {
                return Err(built_in(
                    "the realm \"claviger\" is built in and cannot be deleted",
                ));
            }
            let found = state
                .find_realm(id)
                .await?
                .ok_or(Refusal::NotFound(not_found::REALM))?;
            check_revision(Some(found.revision), if_revision)?;
            let keys = state.count_keys(id, None, None).await?;
            let gateways = state
                .count_keys(&RealmId::built_in(), Some(&id.as_partner()), None)
                .await?;
            if keys + gateways > 0 {
                let own = OwnerOfKeys::of_realm("the realm", id);
                let of_realm = "the realm, for its gateways and managers,";
                let built_in = RealmId::built_in();
                let gateways = OwnerOfKeys::of_partner(of_realm, &built_in, &id.as_partner());
                self.delete_dead_keys(caller, request, state, &[own, gateways])
                    .await?;
                state = self.begin_checks(group, Effect::TakesAway, true).await?;
                continue;
            }
            match self.end_checks(state, group, Effect::TakesAway).await? {
                ControlFlow::Break(change) => break (change, found),
                ControlFlow::Continue(change) => state = change,
            }
        };
        change.delete_realm(id).await?;
        change
            .delete_partner(&RealmId::built_in(), &id.as_partner())
            .await?;
        let detail = non_empty_detail([("prefix", found.value.prefix.to_string())]);
        let entry = AuditEntry {
            kind: EventKind::RealmDeleted,
            subject: subject(id),
            detail,
        };
        self.finish(&caller.principal, request, change, entry, ())
            .await
    }
}

/// The message of the refusal to change the built-in realm.
pub(super) const IS_BUILT_IN: &str = "the realm \"claviger\" is built in and cannot be changed";

/// Checks that the change keeps the parts of the realm that keys depend on.
///
/// # Errors
/// [`Refusal::Precondition`] names the first part that keys depend on.
pub(super) async fn check_frozen(
    state: &mut Snapshot,
    before: &Realm,
    after: &Realm,
    now: Timestamp,
) -> Result<(), Refusal> {
    if before.prefix != after.prefix {
        let keys = state.count_keys(&before.id, None, None).await?;
        if keys > 0 {
            return Err(in_use(format!(
                "the prefix cannot change while the realm has keys ({keys}): keep the prefix, or delete the keys first"
            )));
        }
    }
    let lost = |kept: Option<&Environment>, environment| kept != Some(environment);
    let environments: Vec<_> = before
        .environments
        .iter()
        .filter(|environment| lost(after.environment(environment.name.as_str()), environment))
        .collect();
    if !environments.is_empty() {
        let used = state.environments_in_use(&before.id).await?;
        if let Some(kept) = environments
            .iter()
            .find(|lost| used.contains(lost.name.as_str()))
        {
            return Err(in_use(format!(
                "the environment \"{}\" still has keys: keep the environment and its tag, or delete these keys first",
                kept.name
            )));
        }
    }
    let scopes: Vec<_> = before
        .scopes
        .iter()
        .filter(|scope| !after.scopes.iter().any(|kept| kept.name == scope.name))
        .collect();
    if !scopes.is_empty() {
        let is_used = |used: &HashSet<String>| {
            let mut lost = scopes.iter();
            lost.find(|lost| used.contains(lost.name.as_str()))
                .map(|lost| lost.name.clone())
        };
        let used = state.scopes_in_use(&before.id, None).await?;
        if is_used(&used).is_some() {
            // This takes longer. A revoked key stays revoked, and an expired one gets no later expiry while it has a scope that the
            // realm has not.
            let used = state.scopes_in_use(&before.id, Some(now)).await?;
            if let Some(kept) = is_used(&used) {
                return Err(in_use(format!(
                    "keys still hold the scope \"{kept}\": keep the scope, or update or revoke these keys first"
                )));
            }
        }
    }
    Ok(())
}

/// The partner of the built-in realm that stands for a realm.
pub(super) fn served_realm(id: &RealmId) -> Partner {
    Partner {
        realm: RealmId::built_in(),
        id: id.as_partner(),
        display_name: String::new(),
        suspended: false,
    }
}

pub(super) fn subject(id: &RealmId) -> Subject {
    Subject {
        realm: id.clone(),
        partner: None,
        project: None,
        key: None,
    }
}
