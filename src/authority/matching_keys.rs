//! Revocation and deletion of the keys that match a filter now, key by key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::admission::{Effect, OpenChange};
use super::audit::{AuditEntry, deletion_detail, non_empty_detail};
use super::caller_state::CallerState;
use super::keys::narrow;
use super::revoke::{DryRun, EXAMPLES, check_names, locks_out_caller};
use super::{Authority, ChangeRequest, ChangeResult, Read, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::EventKind;
use crate::domain::ids::KeyId;
use crate::domain::key::{Key, KeyState, Revocation};
use crate::domain::violation::Violations;
use crate::store::{KeyFilter, Snapshot};

/// How many keys one call ends.
const KEYS_OF_A_CALL: usize = 10_000;

/// How many keys one transaction ends. Others wait for at most one transaction.
const KEYS_AT_ONCE: usize = 1_000;

/// What becomes of the keys that match a filter.
#[derive(Clone, Debug)]
pub enum EndOfKeys {
    /// They are revoked, for this reason.
    Revocation(String),
    /// They are deleted.
    Deletion,
}

/// What a call did to the keys that matched its filter.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct EndedKeys {
    /// The number of keys that the call ended.
    pub count: u64,
    /// Whether more keys matched than one call ends.
    pub more: bool,
    /// Whether this is the answer to a repeated request.
    #[serde(skip)]
    pub replayed: bool,
}

/// The keys that matched when the call began.
struct Matching {
    filter: KeyFilter,
    /// The key of the caller is the last one, because the call ends with it.
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
    ) -> Result<ChangeResult<EndedKeys>, Refusal> {
        caller.role.may_administer_keys()?;
        let principal = &caller.principal;
        let idempotency = request.idempotency_key(fingerprint);
        // The search may take seconds, so it does not take the reader that is left to revocations.
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        let caller_state = CallerState::reread(&mut snapshot, principal, now).await?;
        let before = self
            .replayed(caller, idempotency.as_ref(), &mut snapshot, now)
            .await?;
        if let Some((ended, revision)) = before {
            let last = snapshot.last_event().await?;
            drop(snapshot);
            let ended = EndedKeys {
                replayed: true,
                ..ended
            };
            return self
                .in_force(principal, request, ended, revision, last)
                .await;
        }
        let Matching { filter, ids, more } =
            matching(&caller_state, &mut snapshot, filter, &end).await?;
        let mut ended = EndedKeys {
            more,
            ..EndedKeys::default()
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
            let filter = narrow(&caller_state.role, filter.clone())?;
            let keys = change.matching_keys(&filter, batch).await?;
            ended.count += keys.len() as u64;
            let Some(entry) = self
                .end_keys(caller, request, &mut change, keys, &end)
                .await?
            else {
                continue;
            };
            if number + 1 == of_all {
                self.record_answer(caller, idempotency, &mut change, &ended)
                    .await?;
                return self.finish(principal, request, change, entry, ended).await;
            }
            let event = entry.event(principal, request, &change);
            last = self.commit(change, &event).await?;
        }
        self.in_force(principal, request, ended, last.revision, last)
            .await
    }

    /// Returns which keys such a call would end: their number, and the newest.
    pub async fn dry_run_end_matching_keys(
        &self,
        caller: &AuthorizedCaller,
        filter: KeyFilter,
        end: &EndOfKeys,
    ) -> Result<Read<(DryRun, bool)>, Refusal> {
        caller.role.may_administer_keys()?;
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        let caller_state = CallerState::reread(&mut snapshot, &caller.principal, now).await?;
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

    /// Ends these keys as part of the change, each with a revision and an event of its own. Returns the entry of the last one; `None`
    /// if there are no keys.
    async fn end_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        change: &mut OpenChange,
        mut keys: Vec<Key>,
        end: &EndOfKeys,
    ) -> Result<Option<AuditEntry>, Refusal> {
        change.reserve(keys.len().saturating_sub(1)).await?;
        let mut last: Option<AuditEntry> = None;
        for key in &mut keys {
            if let Some(entry) = last.take() {
                let event = entry.event(&caller.principal, request, change);
                change.start_next(event).await?;
            }
            last = Some(match end {
                EndOfKeys::Revocation(reason) => {
                    let reason = reason.clone();
                    let detail = non_empty_detail([("reason", reason.clone())]);
                    key.revocation = Some(Revocation {
                        at: change.time(),
                        reason,
                    });
                    key.revision = change.revision();
                    AuditEntry::of_key(EventKind::KeyRevoked, key, detail)
                }
                EndOfKeys::Deletion => {
                    AuditEntry::of_key(EventKind::KeyDeleted, key, deletion_detail(key))
                }
            });
        }
        match end {
            EndOfKeys::Revocation(_) => change.update_keys(&keys).await?,
            EndOfKeys::Deletion => {
                // As for one key: the API key of a revoked key stays registered.
                let unrevoked = keys.iter().filter(|key| key.revocation.is_none());
                let unrevoked: Vec<_> = unrevoked.map(|key| key.id).collect();
                change.delete_imports(&unrevoked).await?;
                let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
                change.delete_keys(&ids).await?;
            }
        }
        Ok(last)
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
        ids.push(own);
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
