//! Revocation and deletion of the keys that match a filter now, key by key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::admission::{Effect, OpenChange};
use super::audit::{AuditEntry, non_empty_detail};
use super::caller_state::{Caller as _, CallerState};
use super::checked_change::CheckedState;
use super::idempotency::IdempotencyKey;
use super::keys::narrow;
use super::revoke::{DryRun, EXAMPLES, check_names, locks_out_caller};
use super::{Authority, ChangeRequest, ChangeResult, Read, Refusal, in_use};
use crate::auth::{AuthorizedCaller, Principal, Purpose};
use crate::domain::event::{EventId, EventKind, Revision};
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Key, KeyState, Revocation};
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::store::{KeyFilter, Snapshot};

/// How many keys one call ends or changes.
pub(super) const KEYS_OF_A_CALL: usize = 10_000;

/// How many keys one transaction ends or changes. Others wait for at most one transaction.
pub(super) const KEYS_AT_ONCE: usize = 1_000;

/// What becomes of the keys that match a filter.
#[derive(Clone, Debug)]
pub enum EndOfKeys {
    /// They are revoked, for this reason.
    Revocation(String),
    /// They are deleted.
    Deletion,
}

/// What a call did to the keys that it was about.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BulkOutcome {
    /// The number of keys that the call ended or changed.
    pub count: u64,
    /// Whether the call left more to do than one call does.
    pub more: bool,
    /// Whether this is the answer to a repeated request.
    #[serde(skip)]
    pub replayed: bool,
}

/// The keys that matched when the call began.
struct Matching {
    filter: KeyFilter,
    /// The key of the caller is the last one, and only of the last call, because it makes no further change.
    ids: Vec<KeyId>,
    /// Whether more keys match.
    more: bool,
}

impl Authority {
    /// Revokes or deletes the keys that match the filter now. They are looked for on a snapshot. Each is compared with the filter
    /// again in the change that ends it, because it may have changed since.
    pub async fn end_matching_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        filter: KeyFilter,
        end: EndOfKeys,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<BulkOutcome>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let principal = &caller.principal;
        let idempotency = request.idempotency_key(fingerprint);
        // The search may take seconds, so it does not take the reader that is left to revocations.
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        let caller_state = caller.reread(&mut snapshot, now).await?;
        let before = self
            .outcome_before(principal, idempotency.as_ref(), &mut snapshot, now)
            .await?;
        if let Some((ended, revision, last)) = before {
            drop(snapshot);
            return self
                .in_force(principal, request, ended, revision, last)
                .await;
        }
        let Matching { filter, ids, more } =
            matching(&caller_state, &mut snapshot, filter, &end).await?;
        let mut ended = BulkOutcome {
            more,
            ..BulkOutcome::default()
        };
        let mut last = snapshot.last_event().await?;
        drop(snapshot);
        // A deletion can wait, so it leaves the reserved room to revocations.
        if !ids.is_empty() && matches!(end, EndOfKeys::Deletion) {
            self.store.check_room()?;
        }
        let batches = ids.chunks(KEYS_AT_ONCE);
        let of_all = batches.len();
        for (number, batch) in batches.enumerate() {
            let (mut change, caller_state) = self.begin(caller, Effect::TakesAway).await?;
            // The same request may have been made twice at the same time.
            let time = change.time();
            let before = self
                .outcome_before(principal, idempotency.as_ref(), &mut change, time)
                .await?;
            if let Some((ended, revision, last)) = before {
                drop(change);
                return self
                    .in_force(principal, request, ended, revision, last)
                    .await;
            }
            let filter = narrow(&caller_state.role, filter.clone(), Purpose::Change)?;
            let keys = change.matching_keys(&filter, batch).await?;
            ended.count += keys.len() as u64;
            let Some(entry) = self
                .end_keys(caller, request, &mut change, keys, &end)
                .await?
            else {
                continue;
            };
            if number + 1 == of_all {
                self.record_answer(principal, idempotency, &mut change, &ended)
                    .await?;
                return self.finish(principal, request, change, entry, ended).await;
            }
            let event = entry.event(principal, request, &change);
            last = self.commit(change, &event).await?;
        }
        self.in_force(principal, request, ended, last.revision, last)
            .await
    }

    /// Returns the answer that this request got before, with its revision, and the last event of the state in which it was read.
    pub(super) async fn outcome_before(
        &self,
        principal: &Principal,
        idempotency: Option<&IdempotencyKey>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<(BulkOutcome, Revision, EventId)>, Refusal> {
        let before: Option<(BulkOutcome, Revision)> =
            self.replayed(principal, idempotency, snapshot, now).await?;
        let Some((ended, revision)) = before else {
            return Ok(None);
        };
        let ended = BulkOutcome {
            replayed: true,
            ..ended
        };
        Ok(Some((ended, revision, snapshot.last_event().await?)))
    }

    /// Returns which keys such a call would end: their number, and the newest.
    pub async fn dry_run_end_matching_keys(
        &self,
        caller: &AuthorizedCaller,
        filter: KeyFilter,
        end: &EndOfKeys,
    ) -> Result<Read<(DryRun, bool)>, Refusal> {
        caller.role.may_use_keys(Purpose::Change)?;
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        let caller_state = caller.reread(&mut snapshot, now).await?;
        let Matching { filter, ids, more } =
            matching(&caller_state, &mut snapshot, filter, end).await?;
        let mut newest = ids.clone();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.truncate(EXAMPLES as usize);
        let mut examples = snapshot.matching_keys(&filter, &newest).await?;
        snapshot.set_last_uses(&mut examples).await?;
        let count = ids.len() as u64;
        Ok(Read {
            value: (DryRun { count, examples }, more),
            revision: snapshot.revision().await?,
        })
    }

    /// Deletes the revoked and expired keys of owners that are about to be deleted, before the deletion of the owner and in other
    /// transactions. `state` is the one in which keys were found.
    ///
    /// # Errors
    /// [`Refusal::Precondition`] if an owner has other keys, and nothing is deleted; if there are more keys than one call deletes; or if
    /// `state` is a change, because then a key has come into being after the checks.
    pub(super) async fn delete_dead_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        mut state: CheckedState,
        owners: &[OwnerOfKeys],
    ) -> Result<(), Refusal> {
        let mut dead = Vec::new();
        for owner in owners {
            let living = owner.filter([KeyState::Active, KeyState::Disabled], state.time());
            let living = state.matching_ids(&living).await?.len();
            if living > 0 {
                let or_more = if living > KEYS_AT_ONCE {
                    " or more"
                } else {
                    ""
                };
                let living = living.min(KEYS_AT_ONCE);
                return Err(in_use(format!(
                    "{} still has keys that are neither revoked nor expired ({living}{or_more}): revoke or delete them first",
                    owner.what
                )));
            }
            let mut filter = owner.filter([KeyState::Revoked, KeyState::Expired], state.time());
            filter.limit = KEYS_OF_A_CALL as u32 + 1;
            let ids = state.matching_ids(&filter).await?;
            if ids.len() > KEYS_OF_A_CALL {
                return Err(in_use(format!(
                    "{} still has more than 10,000 revoked and expired keys: delete them first (DeleteKeys)",
                    owner.what
                )));
            }
            dead.push((filter, ids));
        }
        if dead.iter().all(|(_, ids)| ids.is_empty()) || matches!(state, CheckedState::Change(_)) {
            return Err(unreadable_keys(owners[0].what));
        }
        drop(state);
        // As above: it leaves the reserved room to revocations.
        self.store.check_room()?;
        let mut has_deleted = false;
        for (filter, ids) in dead {
            for batch in ids.chunks(KEYS_AT_ONCE) {
                let (mut change, caller_state) = self.begin(caller, Effect::TakesAway).await?;
                narrow(&caller_state.role, filter.clone(), Purpose::Change)?;
                let keys = change.matching_keys(&filter, batch).await?;
                let end = EndOfKeys::Deletion;
                let ended = self.end_keys(caller, request, &mut change, keys, &end);
                if let Some(entry) = ended.await? {
                    let event = entry.event(&caller.principal, request, &change);
                    self.commit(change, &event).await?;
                    has_deleted = true;
                }
            }
        }
        // Otherwise the caller would find the same keys again and again.
        if has_deleted {
            Ok(())
        } else {
            Err(unreadable_keys(owners[0].what))
        }
    }

    /// Revokes or deletes these keys in the change. Each key gets its own revision and event. Returns the audit entry of the last key,
    /// or `None` if there are no keys.
    async fn end_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        change: &mut OpenChange,
        mut keys: Vec<Key>,
        end: &EndOfKeys,
    ) -> Result<Option<AuditEntry>, Refusal> {
        let principal = &caller.principal;
        let last = change_each(principal, request, change, &mut keys, |key, at| match end {
            EndOfKeys::Revocation(reason) => {
                let reason = reason.clone();
                let detail = non_empty_detail([("reason", reason.clone())]);
                key.revocation = Some(Revocation { at, reason });
                AuditEntry::of_key(EventKind::KeyRevoked, key, detail)
            }
            EndOfKeys::Deletion => {
                AuditEntry::of_key(EventKind::KeyDeleted, key, key.deletion_detail())
            }
        });
        let last = last.await?;
        match end {
            EndOfKeys::Revocation(_) => change.update_keys(&keys).await?,
            EndOfKeys::Deletion => change.delete_keys_and_imports(&keys).await?,
        }
        Ok(last)
    }
}

/// Makes a change of each of these keys with `each`, which gets the key and the time of its change and returns what the change records.
/// Each change has its own revision and event. The keys remain to be written. Returns the audit entry of the last key, or `None` if
/// there are no keys.
pub(super) async fn change_each(
    principal: &Principal,
    request: &ChangeRequest,
    change: &mut OpenChange,
    keys: &mut [Key],
    mut each: impl FnMut(&mut Key, Timestamp) -> AuditEntry,
) -> Result<Option<AuditEntry>, Refusal> {
    change.reserve(keys.len().saturating_sub(1)).await?;
    let mut last: Option<AuditEntry> = None;
    for key in keys {
        if let Some(entry) = last.take() {
            let event = entry.event(principal, request, change);
            change.start_next(event).await?;
        }
        key.revision = change.revision();
        last = Some(each(key, change.time()));
    }
    Ok(last)
}

/// The refusal for keys that are neither living nor dead.
fn unreadable_keys(what: &str) -> Refusal {
    in_use(format!(
        "{what} still has keys whose stored data cannot be read, or that were just issued: delete them one by one first"
    ))
}

/// What is about to be deleted, and may have keys.
pub(super) struct OwnerOfKeys {
    /// The words for it in an error.
    what: &'static str,
    realm: RealmId,
    partner: Option<PartnerId>,
    project: Option<ProjectId>,
}

impl OwnerOfKeys {
    pub(super) fn of_realm(what: &'static str, realm: &RealmId) -> Self {
        Self {
            what,
            realm: realm.clone(),
            partner: None,
            project: None,
        }
    }

    pub(super) fn of_partner(what: &'static str, realm: &RealmId, partner: &PartnerId) -> Self {
        Self {
            partner: Some(partner.clone()),
            ..Self::of_realm(what, realm)
        }
    }

    pub(super) fn of_project(what: &'static str, realm: &RealmId, project: &ProjectId) -> Self {
        Self {
            project: Some(project.clone()),
            ..Self::of_realm(what, realm)
        }
    }

    fn filter(&self, states: [KeyState; 2], now: Timestamp) -> KeyFilter {
        KeyFilter {
            partner: self.partner.clone(),
            project: self.project.clone(),
            states: BTreeSet::from(states),
            ..KeyFilter::new(self.realm.clone(), now, KEYS_AT_ONCE as u32 + 1)
        }
    }
}

/// Looks for the keys that the call ends.
async fn matching(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    mut filter: KeyFilter,
    end: &EndOfKeys,
) -> Result<Matching, Refusal> {
    if let EndOfKeys::Revocation(_) = end {
        filter.states = unrevoked(&filter.states)?;
    }
    filter.limit = KEYS_OF_A_CALL as u32 + 1;
    let filter = check_names(caller_state, snapshot, filter).await?;
    let mut ids = snapshot.matching_ids(&filter).await?;
    let more = ids.len() > KEYS_OF_A_CALL;
    ids.truncate(KEYS_OF_A_CALL);
    let own = ids.iter().position(|id| *id == caller_state.key.id);
    if let Some(own) = own {
        if filter.realm.is_built_in() {
            return Err(locks_out_caller());
        }
        let own = ids.remove(own);
        // While there are others, the caller needs its key for the next call.
        if !more {
            ids.push(own);
        }
    }
    Ok(Matching { filter, ids, more })
}

/// These states without that of revoked keys; all of them, if there are none.
fn unrevoked(states: &BTreeSet<KeyState>) -> Result<BTreeSet<KeyState>, Refusal> {
    let all = [KeyState::Active, KeyState::Disabled, KeyState::Expired];
    let wanted: BTreeSet<_> = all
        .into_iter()
        .filter(|state| states.is_empty() || states.contains(state))
        .collect();
    let mut bad = Violations::default();
    if wanted.is_empty() {
        bad.add(
            "filter.states",
            "has only KEY_STATE_REVOKED: add another state, or leave the field unset",
        );
    }
    bad.finish(Some(wanted)).map_err(Refusal::Invalid)
}
