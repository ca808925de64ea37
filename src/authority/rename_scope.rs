//! The renaming of a scope of a realm, also on the keys that hold it.
//!
//! What is left to do is read from a snapshot, outside of any change. Each step is prepared there too, and is made in a change only if
//! the realm is still the same. Otherwise the call looks again. So it does not matter where an earlier call ended, or who changes the
//! realm and its keys meanwhile.

use std::ops::ControlFlow;

use super::admission::{Effect, OpenChange};
use super::audit::AuditEntry;
use super::caller_state::Caller as _;
use super::holds::history_rewritten;
use super::idempotency::IdempotencyKey;
use super::matching_keys::{BulkOutcome, KEYS_AT_ONCE, KEYS_OF_A_CALL, change_each};
use super::realms::{IS_BUILT_IN, Put};
use super::update::changed_detail;
use super::{
    APPLY_TIMEOUT, Authority, ChangeRequest, ChangeResult, Read, Refusal, Wait, built_in,
    check_revision, in_use, not_found,
};
use crate::auth::AuthorizedCaller;
use crate::domain::access::MAX_SCOPES;
use crate::domain::event::{EventId, EventKind, Revision};
use crate::domain::hold::Holdable;
use crate::domain::ids::{KeyId, RealmId};
use crate::domain::key::Key;
use crate::domain::realm::Realm;
use crate::domain::scope_renaming::{RenamingConflict, RenamingStage, ScopeRenaming};
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::mirror::PreparedRealm;
use crate::store::{KeyFilter, RealmRow, Snapshot};

/// How many unreadable keys an error names.
const EXAMPLES: usize = 5;

/// How often a call looks what is left to do. Three times are enough if nobody interferes.
const MAX_LOOKS: usize = 6;

/// A request to rename a scope.
#[derive(Clone, Debug)]
pub struct RenameScope {
    /// The realm of the scope.
    pub realm: RealmId,
    /// The two names of the scope.
    pub renaming: ScopeRenaming,
    /// Whether the old scope stays in the realm when every key has the new one.
    pub keep_old: bool,
    /// The revision that the realm must have when the renaming begins.
    pub if_revision: Option<u64>,
}

/// What a call has done to rename a scope.
#[derive(Debug)]
pub struct RenamedScope {
    /// What the call did to the keys.
    pub keys: BulkOutcome,
    /// The realm afterwards.
    pub realm: RealmRow,
}

/// What is left to do, by one state of the store.
struct Plan {
    realm: RealmRow,
    stage: RenamingStage,
    /// The keys that hold the old scope by name, as many as the call may still change.
    ids: Vec<KeyId>,
    /// Whether more keys hold it.
    more: bool,
    /// The last change of the state.
    last: EventId,
}

/// The outcome of a step: the answer, if the call is over.
type Progress = ControlFlow<ChangeResult<RenamedScope>>;

impl Authority {
    /// Checks that no lost change took anything away from anybody. What is held has the scopes that it had then, by their names.
    pub(super) async fn check_nothing_held(&self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        if self.mirror.index().held() > 0 || snapshot.has_holds().await? {
            return Err(history_rewritten());
        }
        Ok(())
    }

    /// Renames a scope, or goes on with an unfinished renaming, as far as one call does.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the realm does not have the scope, also if it was renamed. [`Refusal::AlreadyExists`] if the realm has
    /// another scope with the new name. [`Refusal::Precondition`] if another renaming is unfinished, if the realm has no room for a
    /// scope, if keys with the scope cannot be read, or if anything is held. What was changed before an error stays, and another call goes on.
    pub async fn rename_scope(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        work: &RenameScope,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<RenamedScope>, Refusal> {
        work.check(caller)?;
        let mut call = Call {
            authority: self,
            caller,
            request,
            work,
            idempotency: request.idempotency_key(fingerprint),
            keys: BulkOutcome::default(),
            has_changed: false,
            unchanged: Vec::new(),
        };
        call.run().await
    }

    /// Returns how many keys such a call would change, and the realm as the whole renaming would leave it.
    ///
    /// # Errors
    /// Those of the call, except for keys that cannot be read.
    pub async fn dry_run_rename_scope(
        &self,
        caller: &AuthorizedCaller,
        work: &RenameScope,
    ) -> Result<Read<RenamedScope>, Refusal> {
        work.check(caller)?;
        let mut snapshot = self.read(caller).await?;
        let now = self.clock.now();
        caller
            .reread(&mut snapshot, now)
            .await?
            .role
            .may_manage(&work.realm)?;
        self.check_nothing_held(&mut snapshot).await?;
        let plan = work.plan(&mut snapshot, now, KEYS_OF_A_CALL).await?;
        if plan.stage == RenamingStage::Finished {
            return Err(Refusal::NotFound(not_found::RENAMED_SCOPE));
        }
        work.check_start(&plan)?;
        let mut realm = plan.realm;
        work.renaming.finish(&mut realm.value);
        let keys = BulkOutcome {
            count: plan.ids.len() as u64,
            more: plan.more,
            replayed: false,
        };
        Ok(Read {
            value: RenamedScope { keys, realm },
            revision: snapshot.revision().await?,
        })
    }
}

impl RenameScope {
    fn check(&self, caller: &AuthorizedCaller) -> Result<(), Refusal> {
        caller.role.may_manage(&self.realm)?;
        if self.realm.is_built_in() {
            return Err(built_in(IS_BUILT_IN));
        }
        Ok(())
    }

    /// Looks what is left to do, for a call that may still change this many keys.
    async fn plan(
        &self,
        snapshot: &mut Snapshot,
        now: Timestamp,
        limit: usize,
    ) -> Result<Plan, Refusal> {
        let realm = snapshot.find_realm(&self.realm).await?;
        let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?;
        let stage = self.renaming.stage(&realm.value);
        let stage = stage.map_err(|conflict| self.refusal(conflict))?;
        let mut ids = Vec::new();
        if stage != RenamingStage::Finished {
            let filter = self.filter(now, limit as u32 + 1);
            ids = snapshot.matching_ids(&filter).await?;
        }
        let more = ids.len() > limit;
        ids.truncate(limit);
        Ok(Plan {
            realm,
            stage,
            ids,
            more,
            last: snapshot.last_event().await?,
        })
    }

    /// The keys that hold the old scope by name, in any state.
    fn filter(&self, now: Timestamp, limit: u32) -> KeyFilter {
        KeyFilter {
            scope: Some(self.renaming.old.clone()),
            ..KeyFilter::new(self.realm.clone(), now, limit)
        }
    }

    /// Checks what must be true if the renaming has not begun.
    fn check_start(&self, plan: &Plan) -> Result<(), Refusal> {
        if plan.stage != RenamingStage::NotBegun {
            return Ok(());
        }
        check_revision(Some(plan.realm.revision), self.if_revision)?;
        if self.needs_both(plan) && plan.realm.value.scopes.len() >= MAX_SCOPES {
            return Err(Refusal::Precondition {
                reason: "TOO_MANY_SCOPES",
                message: "the realm has 256 scopes, and the renaming needs one more until it is finished: remove a scope first"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the realm must have both scopes for a time.
    fn needs_both(&self, plan: &Plan) -> bool {
        self.keep_old || plan.has_keys()
    }

    fn refusal(&self, conflict: RenamingConflict) -> Refusal {
        match conflict {
            RenamingConflict::NoScope => Refusal::NotFound(not_found::SCOPE),
            RenamingConflict::NameTaken => Refusal::AlreadyExists(format!(
                "the realm has another scope \"{new}\": choose another name. Only if \"{new}\" is from an unfinished renaming, put \
                 the realm with `replaces` set to \"{old}\" in this scope; every key with \"{old}\" then also holds \"{new}\"",
                new = self.renaming.new,
                old = self.renaming.old
            )),
            RenamingConflict::Other(from, to) => Refusal::Precondition {
                reason: "RENAMING_UNFINISHED",
                message: format!(
                    "the renaming of the scope \"{from}\" to \"{to}\" is unfinished: finish it first, then rename the scope again"
                ),
            },
        }
    }
}

impl Plan {
    /// Whether keys hold the old scope by name.
    fn has_keys(&self) -> bool {
        self.more || !self.ids.is_empty()
    }
}

/// A call that renames a scope.
struct Call<'c> {
    authority: &'c Authority,
    caller: &'c AuthorizedCaller,
    request: &'c ChangeRequest,
    work: &'c RenameScope,
    idempotency: Option<IdempotencyKey>,
    /// What the call has done to keys so far.
    keys: BulkOutcome,
    /// Whether the call has changed anything.
    has_changed: bool,
    /// The keys that the last look found, if none of them could be changed.
    unchanged: Vec<KeyId>,
}

impl Call<'_> {
    async fn run(&mut self) -> Result<ChangeResult<RenamedScope>, Refusal> {
        for _ in 1..MAX_LOOKS {
            if let ControlFlow::Break(answer) = self.step().await? {
                return Ok(answer);
            }
        }
        // Others have interfered each time.
        match self.look().await? {
            ControlFlow::Break(answer) => Ok(answer),
            ControlFlow::Continue(plan) => {
                let more = plan.stage != RenamingStage::Finished;
                self.leave(plan, more).await
            }
        }
    }

    /// Looks what is left to do, and does as much of it as can be prepared at once.
    async fn step(&mut self) -> Result<Progress, Refusal> {
        let plan = match self.look().await? {
            ControlFlow::Break(answer) => return Ok(ControlFlow::Break(answer)),
            ControlFlow::Continue(plan) => plan,
        };
        match plan.stage {
            RenamingStage::NotBegun => {
                self.work.check_start(&plan)?;
                if self.work.needs_both(&plan) {
                    self.begin(plan).await
                } else {
                    self.finish(plan).await
                }
            }
            RenamingStage::Unfinished if !plan.ids.is_empty() => self.rename_on_keys(plan).await,
            RenamingStage::Unfinished if plan.more => {
                self.leave(plan, true).await.map(ControlFlow::Break)
            }
            RenamingStage::Unfinished if self.work.keep_old => {
                self.leave(plan, false).await.map(ControlFlow::Break)
            }
            RenamingStage::Unfinished => self.finish(plan).await,
            // Another call has finished it.
            RenamingStage::Finished if self.has_changed => {
                self.leave(plan, false).await.map(ControlFlow::Break)
            }
            RenamingStage::Finished => Err(Refusal::NotFound(not_found::RENAMED_SCOPE)),
        }
    }

    /// Looks what is left to do. `Break`: the request was answered before.
    async fn look(&self) -> Result<ControlFlow<ChangeResult<RenamedScope>, Plan>, Refusal> {
        let mut snapshot = self.authority.read(self.caller).await?;
        let now = self.authority.clock.now();
        let caller_state = self.caller.reread(&mut snapshot, now).await?;
        caller_state.role.may_manage(&self.work.realm)?;
        if let Some(before) = self.outcome_before(&mut snapshot, now).await? {
            drop(snapshot);
            return self.repeat(before).await.map(ControlFlow::Break);
        }
        self.authority.check_nothing_held(&mut snapshot).await?;
        let left = KEYS_OF_A_CALL - self.keys.count as usize;
        let plan = self.work.plan(&mut snapshot, now, left).await?;
        Ok(ControlFlow::Continue(plan))
    }

    /// Adds the new scope to the realm.
    async fn begin(&mut self, plan: Plan) -> Result<Progress, Refusal> {
        let mut after = plan.realm.value.clone();
        self.work.renaming.begin(&mut after);
        let is_last = !plan.has_keys();
        self.put(plan, after, is_last).await
    }

    /// Puts the new scope in the place of the old one, which no key holds by name.
    async fn finish(&mut self, plan: Plan) -> Result<Progress, Refusal> {
        // A server that read the last change of a key and this one together would deny the key for a moment.
        if !self.is_everywhere(plan.last).await? {
            return self.leave(plan, true).await.map(ControlFlow::Break);
        }
        let mut after = plan.realm.value.clone();
        self.work.renaming.finish(&mut after);
        self.put(plan, after, true).await
    }

    /// Puts the realm with this definition, unless it was changed since the look, or loses a scope that a key holds.
    async fn put(&mut self, plan: Plan, after: Realm, is_last: bool) -> Result<Progress, Refusal> {
        let mut bad = Violations::default();
        after.check(&mut bad);
        bad.finish(Some(())).map_err(Refusal::Invalid)?;
        let old = &self.work.renaming.old;
        let removes_scope = after.scopes.iter().all(|scope| scope.name != *old);
        let prepared = PreparedRealm::new(after);
        let mut change = match self.open(&plan.realm).await? {
            Opened::Change(change) => change,
            Opened::OtherState => return Ok(ControlFlow::Continue(())),
            Opened::Repeated(answer) => return Ok(ControlFlow::Break(answer)),
        };
        // A key may have been given the old scope since the look. To look at all keys again takes long, and everybody waits.
        let realm = &self.work.realm;
        if removes_scope
            && change.has_events_after(realm, plan.last.revision).await?
            && change
                .scopes_in_use(realm, None)
                .await?
                .contains(old.as_str())
        {
            return Ok(ControlFlow::Continue(()));
        }
        self.keys.more = false;
        if is_last {
            self.record(&mut change).await?;
        }
        let before = &plan.realm.value;
        let (authority, request) = (self.authority, self.request_of(is_last));
        let renamed = self.work.renaming.to_string();
        let put = Put {
            before: Some(before),
            prepared,
            renamed,
        };
        let put = authority.finish_put(self.caller, &request, change, put);
        let put = put.await?;
        self.has_changed = true;
        Ok(self.progress(put, is_last))
    }

    /// Renames the scope on the keys of the plan, in transactions of at most [`KEYS_AT_ONCE`] keys.
    async fn rename_on_keys(&mut self, plan: Plan) -> Result<Progress, Refusal> {
        let Plan {
            realm, ids, more, ..
        } = plan;
        self.keys.more = more;
        let ends = more || self.work.keep_old;
        let batches = ids.chunks(KEYS_AT_ONCE);
        let of_all = batches.len();
        let before = self.keys.count;
        for (number, batch) in batches.enumerate() {
            let change = match self.open(&realm).await? {
                Opened::Change(change) => change,
                Opened::OtherState => return Ok(ControlFlow::Continue(())),
                Opened::Repeated(answer) => return Ok(ControlFlow::Break(answer)),
            };
            let is_last = ends && number + 1 == of_all;
            let made = self.rename_on_batch(change, &realm, batch, is_last).await?;
            if let ControlFlow::Break(answer) = made {
                return Ok(ControlFlow::Break(answer));
            }
        }
        if self.keys.count > before {
            self.unchanged.clear();
        } else if self.unchanged == ids {
            return Err(unreadable(&ids));
        } else {
            // Another call may have changed all of them since the look.
            self.unchanged = ids;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Renames the scope on those of these keys that still hold it.
    async fn rename_on_batch(
        &mut self,
        mut change: OpenChange,
        realm: &RealmRow,
        batch: &[KeyId],
        is_last: bool,
    ) -> Result<Progress, Refusal> {
        let (authority, renaming) = (self.authority, &self.work.renaming);
        let request = self.request_of(is_last);
        let filter = self.work.filter(change.time(), 0);
        let mut keys = change.matching_keys(&filter, batch).await?;
        let principal = &self.caller.principal;
        let rename = |key: &mut Key, _| {
            let before = key.clone();
            renaming.rename_in(&mut key.access);
            let detail = changed_detail(&before, key);
            AuditEntry::of_key(EventKind::KeyUpdated, key, detail)
        };
        let last = change_each(principal, &request, &mut change, &mut keys, rename).await?;
        let Some(entry) = last else {
            return Ok(ControlFlow::Continue(()));
        };
        change.update_keys(&keys).await?;
        self.keys.count += keys.len() as u64;
        self.has_changed = true;
        if is_last {
            self.record(&mut change).await?;
        }
        let realm = realm.clone();
        let made = authority.finish(principal, &request, change, entry, realm);
        Ok(self.progress(made.await?, is_last))
    }

    /// Opens a change for a step that was chosen for this state of the realm.
    async fn open(&self, chosen_for: &RealmRow) -> Result<Opened, Refusal> {
        let (authority, work) = (self.authority, self.work);
        let (mut change, caller_state) = authority.begin(self.caller, Effect::MayGrant).await?;
        caller_state.role.may_manage(&work.realm)?;
        // The same request may have been made twice at the same time.
        let time = change.time();
        if let Some(before) = self.outcome_before(&mut change, time).await? {
            drop(change);
            return self.repeat(before).await.map(Opened::Repeated);
        }
        let found = change.find_realm(&work.realm).await?;
        if found.is_none_or(|found| found.revision != chosen_for.revision) {
            return Ok(Opened::OtherState);
        }
        if change.has_holds() || authority.mirror.index().held() > 0 {
            return Err(history_rewritten());
        }
        // So that a hold is noticed that this server learns of before the commit.
        let realm = Holdable::Realm(work.realm.clone());
        change.give_to(&authority.mirror, realm).await?;
        Ok(Opened::Change(change))
    }

    /// Whether every server has applied this change, or can no longer allow anything without it.
    async fn is_everywhere(&self, last: EventId) -> Result<bool, Refusal> {
        let start = self.authority.everywhere.wait_start(last);
        let applied = self.authority.mirror.wait_for(last, APPLY_TIMEOUT).await;
        applied.map_err(|_| Refusal::Behind)?;
        let principal = &self.caller.principal;
        Ok(self
            .authority
            .wait(Wait::Everywhere, &start, principal)
            .await)
    }

    /// The answer of a call that ends without a change.
    async fn leave(&self, plan: Plan, more: bool) -> Result<ChangeResult<RenamedScope>, Refusal> {
        let Plan { realm, last, .. } = plan;
        let keys = BulkOutcome { more, ..self.keys };
        let value = RenamedScope { keys, realm };
        let principal = &self.caller.principal;
        self.authority
            .in_force(principal, self.request, value, last.revision, last)
            .await
    }

    async fn outcome_before(
        &self,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<Repeated>, Refusal> {
        let principal = &self.caller.principal;
        let before = self
            .authority
            .outcome_before(principal, self.idempotency.as_ref(), snapshot, now)
            .await?;
        let Some((keys, revision, last)) = before else {
            return Ok(None);
        };
        let realm = snapshot.find_realm(&self.work.realm).await?;
        let realm = realm.ok_or(Refusal::NotFound(not_found::REALM))?;
        let value = RenamedScope { keys, realm };
        Ok(Some(Repeated {
            value,
            revision,
            last,
        }))
    }

    /// The answer to a repeated request.
    async fn repeat(&self, before: Repeated) -> Result<ChangeResult<RenamedScope>, Refusal> {
        let Repeated {
            value,
            revision,
            last,
        } = before;
        let principal = &self.caller.principal;
        self.authority
            .in_force(principal, self.request, value, revision, last)
            .await
    }

    /// Records the outcome with the last change of the call.
    async fn record(&mut self, change: &mut OpenChange) -> Result<(), Refusal> {
        let principal = &self.caller.principal;
        let idempotency = self.idempotency.take();
        self.authority
            .record_answer(principal, idempotency, change, &self.keys)
            .await
    }

    /// The request for a change. Only the last one is waited for as the caller demands.
    fn request_of(&self, is_last: bool) -> ChangeRequest {
        let wait = if is_last {
            self.request.wait
        } else {
            Wait::Committed
        };
        ChangeRequest {
            wait,
            ..*self.request
        }
    }

    fn progress(&self, made: ChangeResult<RealmRow>, is_last: bool) -> Progress {
        if !is_last {
            return ControlFlow::Continue(());
        }
        let ChangeResult {
            value: realm,
            revision,
            effective_at,
            is_everywhere,
        } = made;
        let keys = self.keys;
        ControlFlow::Break(ChangeResult {
            value: RenamedScope { keys, realm },
            revision,
            effective_at,
            is_everywhere,
        })
    }
}

fn unreadable(ids: &[KeyId]) -> Refusal {
    let some: Vec<_> = ids.iter().take(EXAMPLES).map(KeyId::to_string).collect();
    let more = if ids.len() > EXAMPLES {
        " and others"
    } else {
        ""
    };
    in_use(format!(
        "keys whose stored data cannot be read still hold the scope ({}{more}): ask an operator to delete them, then call again",
        some.join(", ")
    ))
}

/// What becomes of a step when its change is opened.
enum Opened {
    /// The step can be made.
    Change(OpenChange),
    /// The realm was changed since the look.
    OtherState,
    /// The request was answered before.
    Repeated(ChangeResult<RenamedScope>),
}

/// The outcome of an earlier call with the same request.
struct Repeated {
    value: RenamedScope,
    /// The revision of that call.
    revision: Revision,
    /// The last change of the state in which it was read.
    last: EventId,
}
