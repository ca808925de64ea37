//! Putting, reading and deleting partners.

use std::ops::ControlFlow;

use super::admission::Effect;
use super::audit::{AuditEntry, non_empty_detail};
use super::caller_state::CallerState;
use super::checked_change::CheckedState;
use super::matching_keys::OwnerOfKeys;
use super::{
    Authority, ChangeRequest, ChangeResult, Page, Read, Refusal, built_in, check_revision,
    not_found,
};
use crate::auth::AuthorizedCaller;
use crate::domain::event::{EventKind, SUSPENSION, Subject, Suspension};
use crate::domain::hold::Holdable;
use crate::domain::ids::{PartnerId, RealmId};
use crate::domain::partner::Partner;
use crate::store::{PartnerRow, Snapshot};

const IF_BUILT_IN: &str =
    "the partners of the realm \"claviger\" are the other realms: change these realms instead";

/// A partner as a caller defines it.
#[derive(Clone, Debug)]
pub struct PartnerDefinition {
    /// The realm.
    pub realm: RealmId,
    /// The partner's identifier, unique in the realm.
    pub id: PartnerId,
    /// The display name.
    pub display_name: String,
    /// Whether the partner is suspended; `None` if that stays as it is.
    pub suspended: Option<bool>,
}

impl PartnerDefinition {
    /// Returns the partner, given the partner as it is before the change.
    pub(super) fn resolve(&self, before: Option<&Partner>) -> Partner {
        let Self {
            realm,
            id,
            display_name,
            suspended,
        } = self.clone();
        // A client that does not name the suspension must not lift it.
        let suspended = suspended.unwrap_or(before.is_some_and(|before| before.suspended));
        Partner {
            realm,
            id,
            display_name,
            suspended,
        }
    }
}

impl Authority {
    /// Creates or replaces a partner.
    pub async fn put_partner(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        definition: PartnerDefinition,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<PartnerRow>, Refusal> {
        caller.role.may_manage(&definition.realm)?;
        let group = &caller.group();
        // Only the suspension of a partner that is active takes something away, which a snapshot shows.
        let may_suspend = definition.suspended == Some(true);
        let effect = if may_suspend {
            Effect::TakesAway
        } else {
            Effect::MayGrant
        };
        let mut state = self.begin_checks(group, effect, may_suspend).await?;
        let (mut change, entry, partner) = loop {
            check_in_realm(&mut state, caller, &definition.realm, IF_BUILT_IN).await?;
            let found = state
                .find_partner(&definition.realm, &definition.id)
                .await?;
            check_revision(found.as_ref().map(|found| found.revision), if_revision)?;
            let partner = definition.resolve(found.as_ref().map(|found| &found.value));
            if !partner.suspended {
                let (realm, id) = (partner.realm.clone(), partner.id.clone());
                state
                    .give_to(&self.mirror, Holdable::Partner(realm, id))
                    .await?;
            }
            let entry = put_entry(found.as_ref().map(|found| &found.value), &partner);
            let effect = match found {
                Some(found) if found.value == partner => {
                    return self
                        .unchanged(&caller.principal, request, state, found)
                        .await;
                }
                Some(found) if partner.suspended && !found.value.suspended => Effect::TakesAway,
                _ => Effect::MayGrant,
            };
            match self.end_checks(state, group, effect).await? {
                ControlFlow::Break(change) => break (change, entry, partner),
                ControlFlow::Continue(change) => state = change,
            }
        };
        change.put_partner(&partner).await?;
        let put = get_partner(&mut change, &partner.realm, &partner.id).await?;
        self.finish(&caller.principal, request, change, entry, put)
            .await
    }

    /// Whether the partner is suspended, so that its keys are denied, as far as this server knows. It reads no store, so that a
    /// list can ask for each of its keys.
    pub fn is_suspended(&self, realm: &RealmId, partner: &PartnerId) -> bool {
        let index = self.mirror.index();
        index
            .view()
            .realm(realm.as_str())
            .is_some_and(|realm| realm.is_suspended(partner))
    }

    /// Returns a partner.
    pub async fn get_partner(
        &self,
        caller: &AuthorizedCaller,
        realm: &RealmId,
        id: &PartnerId,
    ) -> Result<Read<PartnerRow>, Refusal> {
        caller.role.may_read(realm)?;
        let mut snapshot = self.read(caller).await?;
        let value = snapshot
            .find_partner(realm, id)
            .await?
            .ok_or(Refusal::NotFound(not_found::PARTNER))?;
        let revision = snapshot.revision().await?;
        Ok(Read { value, revision })
    }

    /// Returns a page of a realm's partners. `take` converts an item, or refuses it if the page is full.
    pub async fn list_partners<T>(
        &self,
        caller: &AuthorizedCaller,
        realm: &RealmId,
        after: &str,
        limit: u32,
        take: impl FnMut(PartnerRow) -> Option<T>,
    ) -> Result<Read<Page<T>>, Refusal> {
        caller.role.may_read(realm)?;
        let mut snapshot = self.read(caller).await?;
        if snapshot.find_realm(realm).await?.is_none() {
            return Err(Refusal::NotFound(not_found::REALM));
        }
        let revision = snapshot.revision().await?;
        let value = snapshot.list_partners(realm, after, limit, take).await?;
        Ok(Read { value, revision })
    }

    /// Deletes a partner with its projects and its revoked and expired keys.
    pub async fn delete_partner(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        realm: &RealmId,
        id: &PartnerId,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<()>, Refusal> {
        caller.role.may_manage(realm)?;
        let group = &caller.group();
        let mut state = self.begin_checks(group, Effect::TakesAway, true).await?;
        let (mut change, found) = loop {
            check_in_realm(&mut state, caller, realm, IF_BUILT_IN).await?;
            let found = get_partner(&mut state, realm, id).await?;
            check_revision(Some(found.revision), if_revision)?;
            let keys = state.count_keys(realm, Some(id), None).await?;
            if keys > 0 {
                let owner = OwnerOfKeys::of_partner("the partner", realm, id);
                self.delete_dead_keys(caller, request, state, &[owner])
                    .await?;
                state = self.begin_checks(group, Effect::TakesAway, true).await?;
                continue;
            }
            match self.end_checks(state, group, Effect::TakesAway).await? {
                ControlFlow::Break(change) => break (change, found),
                ControlFlow::Continue(change) => state = change,
            }
        };
        change.delete_partner(realm, id).await?;
        let entry = deletion_entry(&found.value);
        self.finish(&caller.principal, request, change, entry, ())
            .await
    }
}

/// Checks that the caller may change the partners and projects of a realm.
///
/// # Errors
/// [`Refusal::Precondition`] with the message `if_built_in` for the built-in realm, whose partners are the other realms.
pub(super) async fn check_in_realm(
    state: &mut CheckedState,
    caller: &AuthorizedCaller,
    realm: &RealmId,
    if_built_in: &'static str,
) -> Result<(), Refusal> {
    let CallerState { role, .. } = state.reread(caller).await?;
    role.may_manage(realm)?;
    if realm.is_built_in() {
        return Err(built_in(if_built_in));
    }
    if state.find_realm(realm).await?.is_none() {
        return Err(Refusal::NotFound(not_found::REALM));
    }
    Ok(())
}

pub(super) async fn get_partner(
    snapshot: &mut Snapshot,
    realm: &RealmId,
    id: &PartnerId,
) -> Result<PartnerRow, Refusal> {
    snapshot
        .find_partner(realm, id)
        .await?
        .ok_or(Refusal::NotFound(not_found::PARTNER))
}

/// The entry of a partner that is created or replaced.
pub(super) fn put_entry(before: Option<&Partner>, partner: &Partner) -> AuditEntry {
    let was_suspended = before.is_some_and(|before| before.suspended);
    let suspension = match (was_suspended, partner.suspended) {
        (false, true) => Suspension::Began.as_str(),
        (true, false) => Suspension::Ended.as_str(),
        (false, false) | (true, true) => "",
    };
    AuditEntry {
        kind: EventKind::PartnerPut,
        subject: subject(&partner.realm, &partner.id),
        detail: non_empty_detail([
            ("display_name", partner.display_name.clone()),
            ("suspended", partner.suspended.to_string()),
            (SUSPENSION, suspension.to_owned()),
        ]),
    }
}

/// The entry of a partner that is deleted.
pub(super) fn deletion_entry(partner: &Partner) -> AuditEntry {
    AuditEntry {
        kind: EventKind::PartnerDeleted,
        subject: subject(&partner.realm, &partner.id),
        detail: non_empty_detail([("display_name", partner.display_name.clone())]),
    }
}

fn subject(realm: &RealmId, id: &PartnerId) -> Subject {
    Subject {
        realm: realm.clone(),
        partner: Some(id.clone()),
        project: None,
        key: None,
    }
}
