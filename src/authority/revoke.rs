//! Revocation: of one key, of many at idempotency, and of a key by itself.

use super::audit::{AuditEntry, detail, rfc3339};
use super::caller_state::CallerState;
use super::keys::narrow;
use super::{Authority, ChangeRequest, Done, IdempotencyKey, Read, Refusal};
use crate::auth::{AuthorizedCaller, Principal, Role};
use crate::domain::event::{EventKind, Revision, Subject};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Key, KeyState, Revocation};
use crate::domain::revocation::BulkRevocation;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::store::{Change, KeyFilter, Snapshot};

/// How often a partner may revoke in bulk by its own keys.
const MOST_RULES_BY_DELEGATES: u64 = 1_000;

/// How many keys a dry run shows.
const EXAMPLES: u32 = 10;

/// Which keys to end.
#[derive(Clone, Debug)]
pub struct BulkSelection {
    /// Of this realm.
    pub realm: RealmId,
    /// Of this partner.
    pub partner: Option<PartnerId>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this environment.
    pub environment: Option<EnvironmentName>,
    /// Issued before this time; none is until now.
    pub issued_before: Option<Timestamp>,
}

/// What a bulk revocation would end.
#[derive(Debug)]
pub struct DryRun {
    /// How many keys.
    pub count: u64,
    /// The newest of them.
    pub examples: Vec<Key>,
}

impl Authority {
    /// Ends a key for ever.
    pub async fn revoke_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        id: KeyId,
        reason: String,
    ) -> Result<Done<Key>, Refusal> {
        let (change, _, key) = self.begin_with_key(caller, id).await?;
        self.end_key(&caller.principal, request, change, key, reason)
            .await
    }

    /// Ends many keys at idempotency: a rule is written, whatever the number of keys. Tells whether this very request had done so
    /// before.
    pub async fn revoke_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        selection: BulkSelection,
        reason: String,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Done<bool>, Refusal> {
        caller.role.may_administer_keys()?;
        let (mut change, caller_state) = self.begin(caller).await?;
        let now = change.time();
        let before = self
            .replayed(caller, idempotency.as_ref(), &mut change, now)
            .await?;
        if let Some(((), revision)) = before {
            return Ok(self.done(true, revision));
        }
        let mut filter = filter(&caller_state, &mut change, &selection, now).await?;
        let before = match selection.issued_before {
            None => Some(change.revision()),
            Some(time) => issued_before(&mut change, &selection.realm, time).await?,
        };
        // Before the first revision there is nothing.
        let before = before.unwrap_or_default();
        check_not_locked_out(&caller_state.key, &filter, before)?;
        filter.issued_before = Some(before);
        let environment = filter.environment.as_ref();
        let mut detail = detail([
            (
                "environment",
                environment.map(ToString::to_string).unwrap_or_default(),
            ),
            (
                "issued_before",
                selection.issued_before.map(rfc3339).unwrap_or_default(),
            ),
            ("reason", reason.clone()),
        ]);
        // A rule about nothing would be kept and read for ever; that it was asked for is on record all the same.
        let is_about_something = change.has_any(&filter).await?;
        if !is_about_something {
            detail.insert("ended".to_owned(), "none".to_owned());
        }
        let revocation = BulkRevocation {
            realm: filter.realm.clone(),
            partner: filter.partner.clone(),
            project: filter.project.clone(),
            environment: filter.environment.clone(),
            before,
            at: now,
            reason,
        };
        if is_about_something {
            check_room(&caller_state, &mut change, &filter).await?;
            change.insert_bulk_revocation(&revocation).await?;
        }
        self.record_answer(caller, idempotency, &mut change, &())
            .await?;
        let subject = Subject {
            realm: revocation.realm,
            partner: revocation.partner,
            project: revocation.project,
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

    /// What that would end. This does count, and so takes longer for selection.
    pub async fn dry_run_revoke_keys(
        &self,
        caller: &AuthorizedCaller,
        selection: BulkSelection,
    ) -> Result<Read<DryRun>, Refusal> {
        caller.role.may_administer_keys()?;
        let mut snapshot = self.store.snapshot().await?;
        let now = self.clock.now();
        let caller_state = CallerState::reread(&mut snapshot, &caller.principal, now).await?;
        let mut filter = filter(&caller_state, &mut snapshot, &selection, now).await?;
        let revision = snapshot.revision().await?;
        filter.issued_before = match selection.issued_before {
            None => None,
            // Before the first revision there is nothing.
            Some(time) => issued_before(&mut snapshot, &selection.realm, time)
                .await?
                .or(Some(Revision::default())),
        };
        let before = filter.issued_before.unwrap_or(Revision::from(u64::MAX));
        check_not_locked_out(&caller_state.key, &filter, before)?;
        let count = snapshot.count_filtered(&filter).await?;
        let examples = snapshot.list_keys(&filter).await?.items;
        Ok(Read {
            value: DryRun { count, examples },
            revision,
        })
    }

    /// Ends the key that the principal proved. It takes nothing else: whoever can present a key may end it.
    pub async fn revoke_self(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        reason: String,
    ) -> Result<Done<Key>, Refusal> {
        // Looked at first: what is ended already must not keep others from the one change that is open.
        let mut snapshot = self.store.snapshot().await?;
        let now = self.clock.now();
        if let Some(key) = snapshot.find_key(principal.key).await?
            && key.revocation.is_some()
            && principal.still_holds(&key, now)
        {
            let revision = snapshot.revision().await?;
            return Ok(self.done(key, revision));
        }
        drop(snapshot);
        let mut change = self.store.change(now).await?;
        let now = change.time();
        let key = change.find_key(principal.key).await?;
        let key = key.filter(|key| principal.still_holds(key, now));
        let key = key.ok_or(Refusal::CallerGone)?;
        self.end_key(principal, request, change, key, reason).await
    }

    async fn end_key(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        mut change: Change,
        mut key: Key,
        reason: String,
    ) -> Result<Done<Key>, Refusal> {
        if key.revocation.is_some() {
            return self.unchanged(change, key).await;
        }
        let detail = detail([("reason", reason.clone())]);
        key.revocation = Some(Revocation {
            at: change.time(),
            reason,
        });
        change.update_key(&key).await?;
        let entry = AuditEntry::of_key(EventKind::KeyRevoked, &key, detail);
        self.finish(principal, request, change, entry, key).await
    }
}

/// The keys that are meant, if the caller may administer them all and there is everything that is named.
async fn filter(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    selection: &BulkSelection,
    now: Timestamp,
) -> Result<KeyFilter, Refusal> {
    let mut filter = narrow(
        &caller_state.role,
        KeyFilter {
            realm: selection.realm.clone(),
            partner: selection.partner.clone(),
            project: selection.project.clone(),
            environment: selection.environment.clone(),
            issued_before: None,
            states: vec![KeyState::Active, KeyState::Disabled, KeyState::Expired],
            unused_for: None,
            never_expires: false,
            expires_within: None,
            now,
            before: None,
            limit: EXAMPLES,
        },
    )?;
    let realm = snapshot.find_realm(&filter.realm).await?;
    let realm = realm.ok_or(Refusal::NotFound("the realm"))?.value;
    let mut bad = Violations::default();
    if let Some(name) = &filter.environment
        && realm.environment(name.as_str()).is_none()
    {
        bad.add("environment", "is not an environment of the realm");
    }
    if selection.issued_before.is_some_and(|time| time > now) {
        bad.add("issued_before", "must not be in the future");
    }
    bad.finish(Some(())).map_err(Refusal::Invalid)?;
    if let Some(partner) = &filter.partner {
        let found = snapshot.find_partner(&filter.realm, partner).await?;
        found.ok_or(Refusal::NotFound("the partner"))?;
    }
    if let Some(project) = &filter.project {
        let found = snapshot.find_project(&filter.realm, project).await?;
        let owner = found.map(|(project, _)| project.value.partner);
        let owner =
            owner.filter(|owner| filter.partner.as_ref().is_none_or(|named| named == owner));
        // The rule stands with the owner, whose keys it is about.
        filter.partner = Some(owner.ok_or(Refusal::NotFound("the project"))?);
    }
    Ok(filter)
}

/// The revision that comes after the last key of the realm which was issued before this time.
async fn issued_before(
    snapshot: &mut Snapshot,
    realm: &RealmId,
    time: Timestamp,
) -> Result<Option<Revision>, Refusal> {
    let last = snapshot.last_issue_before(realm, time).await?;
    Ok(last.map(Revision::next))
}

/// Bounds what a partner can make others read by keys of its own: each rule is looked at for each of its keys.
async fn check_room(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    filter: &KeyFilter,
) -> Result<(), Refusal> {
    let (Role::Delegate(_), Some(partner)) = (&caller_state.role, &filter.partner) else {
        return Ok(());
    };
    let rules = snapshot
        .count_bulk_revocations(&filter.realm, partner)
        .await?;
    if rules < MOST_RULES_BY_DELEGATES {
        return Ok(());
    }
    Err(Refusal::Precondition {
        reason: "TOO_MANY_REVOCATIONS",
        message: format!(
            "the partner has had its keys revoked in bulk {rules} times, and by its own keys does so no more than \
             {MOST_RULES_BY_DELEGATES} times: revoke them one by one, or ask those who run the API"
        ),
    })
}

/// Among the authority's own keys nobody ends itself by a rule: it is easily done, and the door is then shut from outside.
fn check_not_locked_out(own: &Key, filter: &KeyFilter, before: Revision) -> Result<(), Refusal> {
    let KeyFilter {
        realm,
        partner,
        project: _,
        environment,
        issued_before: _,
        states: _,
        unused_for: _,
        never_expires: _,
        expires_within: _,
        now: _,
        before: _,
        limit: _,
    } = filter;
    let is_meant = realm.is_built_in()
        && own.realm == *realm
        && partner
            .as_ref()
            .is_none_or(|partner| *partner == own.partner)
        && environment
            .as_ref()
            .is_none_or(|name| *name == own.environment)
        && own.created_revision < before;
    if is_meant {
        return Err(Refusal::Precondition {
            reason: "LOCKS_OUT_CALLER",
            message: "this would end the caller's own key too: name a partner, or a time before that key was issued"
                .to_owned(),
        });
    }
    Ok(())
}
