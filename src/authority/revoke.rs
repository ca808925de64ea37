//! Revocation: of one key, of many keys at once, and of the caller's own key.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::admission::{Effect, OpenChange};
use super::audit::{AuditEntry, non_empty_detail, rfc3339};
use super::caller_state::{Caller as _, CallerState};
use super::checked_change::Taken;
use super::key_reference::KeyReference;
use super::keys::{narrow, visible};
use super::{Authority, ChangeRequest, ChangeResult, Read, Refusal, not_found};
use crate::auth::{AuthorizedCaller, KeyHolder, Principal, Purpose};
use crate::domain::event::{EventKind, Revision, Subject};
use crate::domain::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Key, KeyState, Revocation};
use crate::domain::revocation::BulkRevocation;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::store::{Error, KeyFilter, Snapshot};

/// How many keys a dry run returns.
pub(super) const EXAMPLES: u32 = 10;

/// The keys that a bulk revocation revokes. An unset field selects all.
#[derive(Clone, Debug)]
pub struct BulkSelection {
    /// The realm of the keys.
    pub realm: RealmId,
    /// The owner of the keys.
    pub partner: Option<PartnerId>,
    /// The project of the keys.
    pub project: Option<ProjectId>,
    /// The environment of the keys.
    pub environment: Option<EnvironmentName>,
    /// The time before which the keys were issued. `None` means now.
    pub issued_before: Option<Timestamp>,
}

/// What a bulk revocation would revoke.
#[derive(Debug)]
pub struct DryRun {
    /// The number of keys.
    pub count: u64,
    /// The newest of these keys.
    pub examples: Vec<Key>,
}

impl Authority {
    /// Revokes a key, which cannot be undone.
    pub async fn revoke_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        reference: &KeyReference,
        reason: String,
    ) -> Result<ChangeResult<Key>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let group = &caller.group();
        let on_snapshot = !self.shows(&caller.role, reference, Taken::UseForEver, None);
        let mut state = self
            .begin_checks(group, Effect::TakesAway, on_snapshot)
            .await?;
        let (change, key) = loop {
            let CallerState { role, .. } = state.reread(caller).await?;
            let key = visible(&mut state, &role, reference, Purpose::Change).await?;
            if key.revocation.is_some() {
                return self.unchanged(&caller.principal, request, state, key).await;
            }
            match self.end_checks(state, group, Effect::TakesAway).await? {
                ControlFlow::Break(change) => break (change, key),
                ControlFlow::Continue(change) => state = change,
            }
        };
        self.write_revocation(&caller.principal, request, change, key, reason)
            .await
    }

    /// Revokes many keys at once. The store gets one rule, independent of the number of keys. Returns whether this is the answer
    /// to a repeated request.
    pub async fn revoke_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        selection: BulkSelection,
        reason: String,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<bool>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let idempotency = request.idempotency_key(fingerprint);
        let mut snapshot = self.read_for(Effect::TakesAway, &caller.group()).await?;
        let (next, now) = snapshot.next_change(self.clock.now()).await?;
        let caller_state = caller.reread(&mut snapshot, now).await?;
        // Before the budget and the room on the disk, which a repetition does not need.
        let before = self
            .replayed(&caller.principal, idempotency.as_ref(), &mut snapshot, now)
            .await?;
        if let Some(((), revision)) = before {
            let last = snapshot.last_event().await?;
            drop(snapshot);
            return self
                .in_force(&caller.principal, request, true, revision, last)
                .await;
        }
        let rule = rule(&caller_state, &mut snapshot, &selection, next, now).await?;
        let adds_something = adds_something(&mut snapshot, &rule).await?;
        let effect = match idempotency {
            _ if adds_something => Effect::TakesAway,
            None => {
                return self
                    .unchanged(&caller.principal, request, snapshot, false)
                    .await;
            }
            // The rule is written all the same: a repetition must not revoke keys that are issued meanwhile.
            Some(_) => Effect::MayGrant,
        };
        drop(snapshot);

        let begun = self.begin(caller, effect).await;
        let (mut change, caller_state) = begun.map_err(|refusal| match refusal {
            Refusal::BudgetSpent(_) | Refusal::Store(Error::NoRoom { .. }) => {
                Refusal::NothingToRevoke(Box::new(refusal))
            }
            other => other,
        })?;
        let now = change.time();
        let before = self
            .replayed(&caller.principal, idempotency.as_ref(), &mut change, now)
            .await?;
        if let Some(((), revision)) = before {
            let last = change.last_event().await?;
            drop(change);
            return self
                .in_force(&caller.principal, request, true, revision, last)
                .await;
        }
        let next = change.revision();
        let mut rule = self::rule(&caller_state, &mut change, &selection, next, now).await?;
        rule.reason.clone_from(&reason);
        // A rule is written also if no key seems to match: a key whose row cannot be read may.
        if change.revoked_before(&rule).await? < rule.before {
            change.insert_bulk_revocation(&rule).await?;
        }
        self.record_answer(&caller.principal, idempotency, &mut change, &())
            .await?;
        let environment = rule.environment.as_ref();
        let detail = non_empty_detail([
            (
                "environment",
                environment.map(ToString::to_string).unwrap_or_default(),
            ),
            (
                "issued_before",
                selection.issued_before.map(rfc3339).unwrap_or_default(),
            ),
            ("reason", reason),
        ]);
        let subject = Subject {
            realm: rule.realm,
            partner: rule.partner,
            project: rule.project,
            key: None,
        };
        let entry = AuditEntry {
            kind: EventKind::KeysRevoked,
            subject,
            detail,
        };
        self.finish(&caller.principal, request, change, entry, false)
            .await
    }

    /// Returns what such a bulk revocation would revoke. This counts the keys, and so takes longer for many keys.
    pub async fn dry_run_revoke_keys(
        &self,
        caller: &AuthorizedCaller,
        selection: BulkSelection,
    ) -> Result<Read<DryRun>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let mut snapshot = self.read(caller).await?;
        let (_, now) = snapshot.next_change(self.clock.now()).await?;
        let caller_state = caller.reread(&mut snapshot, now).await?;
        let mut filter = filter(&caller_state, &mut snapshot, &selection, now).await?;
        let revision = snapshot.revision().await?;
        filter.issued_before = match selection.issued_before {
            None => None,
            Some(time) => Some(issued_before(&mut snapshot, time).await?),
        };
        let before = filter.issued_before.unwrap_or(Revision::from(u64::MAX));
        check_not_locked_out(&caller_state.key, &filter, before)?;
        let count = snapshot.count_filtered(&filter).await?;
        let examples = snapshot.list_keys(&filter, Some).await?.items;
        Ok(Read {
            value: DryRun { count, examples },
            revision,
        })
    }

    /// Revokes the key that its holder proved. This needs no role: everybody who can present a key may revoke it.
    pub async fn revoke_self(
        &self,
        holder: &KeyHolder,
        request: &ChangeRequest,
        reason: String,
    ) -> Result<ChangeResult<Key>, Refusal> {
        let KeyHolder { principal, group } = holder;
        let mut state = self.begin_checks(group, Effect::TakesAway, true).await?;
        let (change, key) = loop {
            let now = state.time();
            let key = state.find_key(principal.key).await?;
            let key = key.filter(|key| principal.still_holds(key, now));
            let key = key.ok_or(Refusal::CallerGone)?;
            if key.revocation.is_some() {
                return self.unchanged(principal, request, state, key).await;
            }
            match self.end_checks(state, group, Effect::TakesAway).await? {
                ControlFlow::Break(change) => break (change, key),
                ControlFlow::Continue(change) => state = change,
            }
        };
        self.write_revocation(principal, request, change, key, reason)
            .await
    }

    async fn write_revocation(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        mut change: OpenChange,
        mut key: Key,
        reason: String,
    ) -> Result<ChangeResult<Key>, Refusal> {
        let detail = non_empty_detail([("reason", reason.clone())]);
        key.revocation = Some(Revocation {
            at: change.time(),
            reason,
        });
        change.update_key(&mut key).await?;
        let entry = AuditEntry::of_key(EventKind::KeyRevoked, &key, detail);
        self.finish(principal, request, change, entry, key).await
    }
}

/// Returns the filter for the selected keys, narrowed to the keys that the caller may administer.
///
/// # Errors
/// Those of [`check_names`], and [`Refusal::Invalid`] for a time in the future.
async fn filter(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    selection: &BulkSelection,
    now: Timestamp,
) -> Result<KeyFilter, Refusal> {
    let filter = KeyFilter {
        partner: selection.partner.clone(),
        project: selection.project.clone(),
        environment: selection.environment.clone(),
        states: BTreeSet::from([KeyState::Active, KeyState::Disabled, KeyState::Expired]),
        ..KeyFilter::new(selection.realm.clone(), now, EXAMPLES)
    };
    let filter = check_names(caller_state, snapshot, filter).await?;
    let mut bad = Violations::default();
    if selection.issued_before.is_some_and(|time| time > now) {
        bad.add("filter.issued_before", "must not be in the future");
    }
    bad.finish(Some(filter)).map_err(Refusal::Invalid)
}

/// Narrows the filter to the keys that the caller may administer, and checks that what it names exists. A change that found no keys
/// because of a typing error would seem to have been made.
///
/// # Errors
/// [`Refusal::Forbidden`] if the filter goes beyond the caller's reach, [`Refusal::Invalid`] or [`Refusal::NotFound`] if a named
/// resource does not exist.
pub(super) async fn check_names(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    filter: KeyFilter,
) -> Result<KeyFilter, Refusal> {
    let mut filter = narrow(&caller_state.role, filter, Purpose::Change)?;
    let realm = snapshot.find_realm(&filter.realm).await?;
    let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?.value;
    filter.max_lifetime = realm.max_lifetime;
    let mut bad = Violations::default();
    if let Some(name) = &filter.environment
        && realm.environment(name.as_str()).is_none()
    {
        bad.add("filter.environment", "must be an environment of the realm");
    }
    bad.finish(Some(())).map_err(Refusal::Invalid)?;
    if let Some(partner) = &filter.partner {
        let found = snapshot.find_partner(&filter.realm, partner).await?;
        found.ok_or(Refusal::NotFound(not_found::PARTNER))?;
    }
    if let Some(project) = &filter.project {
        let found = snapshot.find_project(&filter.realm, project).await?;
        let owner = found.map(|(project, _)| project.value.partner);
        let owner =
            owner.filter(|owner| filter.partner.as_ref().is_none_or(|named| named == owner));
        let message = match filter.partner {
            Some(_) => not_found::PROJECT_OF_PARTNER,
            None => not_found::PROJECT,
        };
        // The mirror looks rules up by the owner of a key.
        filter.partner = Some(owner.ok_or(Refusal::NotFound(message))?);
    }
    Ok(filter)
}

/// Returns the rule for the selected keys, still without a reason, if this caller may write it. `next` is the revision that the
/// rule would get.
///
/// # Errors
/// Those of [`filter`], and [`Refusal::Precondition`] if the rule would revoke the key of an operator who makes it.
async fn rule(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    selection: &BulkSelection,
    next: Revision,
    now: Timestamp,
) -> Result<BulkRevocation, Refusal> {
    let filter = filter(caller_state, snapshot, selection, now).await?;
    let before = match selection.issued_before {
        None => next,
        Some(time) => issued_before(snapshot, time).await?,
    };
    check_not_locked_out(&caller_state.key, &filter, before)?;
    Ok(BulkRevocation {
        realm: filter.realm,
        partner: filter.partner,
        project: filter.project,
        environment: filter.environment,
        before,
        at: now,
        reason: String::new(),
    })
}

/// Returns whether the rule may revoke a key that no stored rule revokes.
async fn adds_something(snapshot: &mut Snapshot, rule: &BulkRevocation) -> Result<bool, Refusal> {
    let known = snapshot.revoked_before(rule).await?;
    Ok(known < rule.before
        && snapshot
            .may_have_keys_of(&rule.realm, rule.partner.as_ref(), known..rule.before)
            .await?)
}

/// Returns the revision after that of the last key that was issued before this time. No key is older than the first revision.
async fn issued_before(snapshot: &mut Snapshot, time: Timestamp) -> Result<Revision, Refusal> {
    let last = snapshot.last_issue_before(time).await?;
    Ok(last.map(Revision::next).unwrap_or_default())
}

/// Checks that a bulk revocation in the built-in realm spares the caller's own key. Otherwise an operator could easily lock
/// every caller out.
fn check_not_locked_out(own: &Key, filter: &KeyFilter, before: Revision) -> Result<(), Refusal> {
    let KeyFilter {
        realm,
        partner,
        project: _,
        environment,
        external_id: _,
        issued_before: _,
        issued_from: _,
        issued_until: _,
        name: _,
        labels: _,
        hint: _,
        scope: _,
        created_by: _,
        states: _,
        unused_for: _,
        never_expires: _,
        expires_within: _,
        beyond_max_lifetime: _,
        max_lifetime: _,
        now: _,
        before: _,
        limit: _,
    } = filter;
    let includes_own_key = realm.is_built_in()
        && own.realm == *realm
        && partner
            .as_ref()
            .is_none_or(|partner| *partner == own.partner)
        && environment
            .as_ref()
            .is_none_or(|name| *name == own.environment)
        && own.created_revision < before;
    if includes_own_key {
        return Err(locks_out_caller());
    }
    Ok(())
}

/// The refusal to end the caller's own key among others in the built-in realm.
pub(super) fn locks_out_caller() -> Refusal {
    Refusal::Precondition {
        reason: "LOCKS_OUT_CALLER",
        message: "the filter includes the caller's own key: set `filter.partner`, or set `filter.issued_before` to a time \
                  before that key was issued"
            .to_owned(),
    }
}
