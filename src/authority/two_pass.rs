//! Changes with slow work in the middle.
//!
//! An Argon2 root takes tens of milliseconds and must not run inside the transaction, because changes are serial. So there are
//! two passes with the same checks. The first pass reads a snapshot, so that a refused request costs no slow hash. The second
//! pass runs inside the transaction, where the result is binding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::admission::Effect;
use super::audit::AuditEntry;
use super::caller_state::{Caller, CallerState};
use super::holds::history_rewritten;
use super::{Authority, ChangeRequest, ChangeResult, IdempotencyKey, Refusal};
use crate::auth::Principal;
use crate::domain::event::Revision;
use crate::domain::hold::Holdable;
use crate::domain::time::Timestamp;
use crate::store::{Change, Snapshot};

/// The state that a pass reads.
pub(super) struct Pass<'p, S = CallerState> {
    /// The snapshot. In the second pass, the transaction of the change.
    pub(super) snapshot: &'p mut Snapshot,
    /// Who called.
    pub(super) principal: &'p Principal,
    /// The caller in this state.
    pub(super) caller_state: &'p S,
    /// The time of this pass.
    pub(super) now: Timestamp,
}

/// The state that a pass of this change reads.
pub(super) type PassOf<'p, C> = Pass<'p, <<C as TwoPassChange>::Caller as Caller>::State>;

/// The result of the slow work.
pub(super) enum Preparation<P, A> {
    /// The change can be made.
    Ready(P),
    /// There is nothing to change. Contains the answer.
    NothingToDo(A),
}

/// The result of a change.
pub(super) enum Applied<C: TwoPassChange + ?Sized> {
    /// Something was written.
    Changed {
        /// The record from which a repeated request is answered.
        record: C::Record,
        entry: AuditEntry,
        answer: C::Answer,
    },
    /// Nothing had to be written.
    Unchanged(C::Answer),
}

/// A change that is checked, prepared by slow work, checked again and applied.
pub(super) trait TwoPassChange: Sync {
    /// Who makes the change.
    type Caller: Caller;
    /// The record from which a repeated request is answered for 24 hours.
    type Record: Serialize + DeserializeOwned + Send + Sync;
    /// The result of the checks.
    type Checked: Send;
    /// The result of the slow work.
    type Prepared: Send;
    type Answer: Send;

    /// Returns the answer to a repeated request.
    fn replay(
        &self,
        pass: PassOf<'_, Self>,
        record: Self::Record,
    ) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;

    /// Checks the preconditions of the change. Runs once in each pass.
    fn check(
        &self,
        pass: PassOf<'_, Self>,
    ) -> impl Future<Output = Result<Self::Checked, Refusal>> + Send;

    /// What exists and may get more access by the change.
    fn gives_to(&self, _: &Self::Checked) -> Option<Holdable> {
        None
    }

    /// Does the slow work, outside of any transaction.
    fn prepare(
        &self,
        authority: &Authority,
        caller: &Self::Caller,
        checked: Self::Checked,
    ) -> impl Future<Output = Result<Preparation<Self::Prepared, Self::Answer>, Refusal>> + Send;

    /// Writes the change.
    fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        event: &ChangeContext<'_>,
        checked: Self::Checked,
        prepared: Self::Prepared,
    ) -> impl Future<Output = Result<Applied<Self>, Refusal>> + Send;
}

/// The caller and the request that events name, for a change that writes more than one event.
pub(super) struct ChangeContext<'e> {
    pub(super) principal: &'e Principal,
    pub(super) request: &'e ChangeRequest,
}

impl Authority {
    /// Runs a two-pass change, or answers a repeated request from its record.
    pub(super) async fn run_two_pass<C: TwoPassChange>(
        &self,
        caller: &C::Caller,
        request: &ChangeRequest,
        fingerprint: [u8; 32],
        work: &C,
    ) -> Result<ChangeResult<C::Answer>, Refusal> {
        let idempotency = request.idempotency_key(fingerprint);
        let now = self.clock.now();
        let principal = caller.principal();
        let mut snapshot = self.read(caller).await?;
        let caller_state = caller.reread(&mut snapshot, now).await?;
        let pass = Pass {
            snapshot: &mut snapshot,
            principal,
            caller_state: &caller_state,
            now,
        };
        let checked = match self
            .check_pass(principal, idempotency.as_ref(), work, pass)
            .await?
        {
            PassOutcome::Replayed(answer, revision) => {
                let last = snapshot.last_event().await?;
                drop(snapshot);
                return self
                    .in_force(principal, request, answer, revision, last)
                    .await;
            }
            PassOutcome::New(checked) => checked,
        };
        if let Some(what) = work.gives_to(&checked)
            && self.mirror.index().is_held(&what)
        {
            return Err(history_rewritten());
        }
        // The answer of a change that is not made belongs to this state.
        let last = snapshot.last_event().await?;
        drop(snapshot);
        let prepared = match work.prepare(self, caller, checked).await? {
            Preparation::Ready(prepared) => prepared,
            Preparation::NothingToDo(answer) => {
                let revision = last.revision;
                return self
                    .in_force(principal, request, answer, revision, last)
                    .await;
            }
        };

        let (mut change, caller_state) = self.begin(caller, Effect::MayGrant).await?;
        let now = change.time();
        let pass = Pass {
            snapshot: &mut change,
            principal,
            caller_state: &caller_state,
            now,
        };
        let checked = match self
            .check_pass(principal, idempotency.as_ref(), work, pass)
            .await?
        {
            PassOutcome::Replayed(answer, revision) => {
                let last = change.last_event().await?;
                drop(change);
                return self
                    .in_force(principal, request, answer, revision, last)
                    .await;
            }
            PassOutcome::New(checked) => checked,
        };
        if let Some(what) = work.gives_to(&checked) {
            change.give_to(&self.mirror, what).await?;
        }
        let event = ChangeContext { principal, request };
        match work
            .apply(self, &mut change, &event, checked, prepared)
            .await?
        {
            Applied::Changed {
                record,
                entry,
                answer,
            } => {
                self.record_answer(principal, idempotency, &mut change, &record)
                    .await?;
                self.finish(principal, request, change, entry, answer).await
            }
            Applied::Unchanged(answer) => self.unchanged(principal, request, change, answer).await,
        }
    }

    async fn check_pass<C: TwoPassChange>(
        &self,
        principal: &Principal,
        idempotency: Option<&IdempotencyKey>,
        work: &C,
        pass: PassOf<'_, C>,
    ) -> Result<PassOutcome<C>, Refusal> {
        let before: Option<(C::Record, Revision)> = self
            .replayed(principal, idempotency, pass.snapshot, pass.now)
            .await?;
        Ok(match before {
            Some((record, revision)) => {
                let answer = work.replay(pass, record).await?;
                PassOutcome::Replayed(answer, revision)
            }
            None => PassOutcome::New(work.check(pass).await?),
        })
    }
}

/// The outcome of one pass.
enum PassOutcome<C: TwoPassChange> {
    /// The request is a repetition. Contains the answer and its revision, which may not be in force yet.
    Replayed(C::Answer, Revision),
    /// The request is new and passed the checks.
    New(C::Checked),
}
