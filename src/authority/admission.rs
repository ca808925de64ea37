//! Snapshots and changes for use cases, in an order that keeps callers from each other's way.
//!
//! There is one open change at a time, and a few connections that read. Callers wait for them in a [`FairQueue`]. A change that may
//! grant something also needs a part of its partner's budget and room on the disk. A change that takes access away needs neither:
//! a key can be revoked whatever others do.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::budget::{ChangeBudget, Spent};
use super::caller_state::Caller;
pub(super) use super::fair_queue::Effect;
use super::fair_queue::{FairQueue, Limits, NoPermit, QueuePermit};
use super::holds::check_not_held;
use super::{Authority, Refusal};
use crate::auth::CallerGroup;
use crate::domain::event::{Event, EventId};
use crate::domain::hold::Holdable;
use crate::mirror::Mirror;
use crate::store::{Change, Snapshot, Store};

/// What requests wait for in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The open change.
    Changes,
    /// The connections that read.
    Reads,
    /// The processors that compute the roots of new API keys.
    NewKeys,
}

impl Queued {
    /// The name as the value of a label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Reads => "reads",
            Self::NewKeys => "new_keys",
        }
    }
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changes => "changes",
            Self::Reads => "reads",
            Self::NewKeys => "new API keys",
        })
    }
}

/// The queues and the budget of the changes and reads of an authority.
pub(super) struct Admission {
    reads: FairQueue,
    changes: FairQueue,
    roots: FairQueue,
    budget: ChangeBudget,
}

/// A snapshot with a permit to read.
pub(super) struct Reading {
    // Dropped in this order, so that the connection is on its way back when the next request gets the permit.
    snapshot: Snapshot,
    _permit: QueuePermit,
}

/// The open change with the permit for it.
pub(super) struct OpenChange {
    // Dropped in this order.
    change: Change,
    permit: QueuePermit,
    /// The keys of a partner, whose budget the change is charged to.
    charged: Option<CallerGroup>,
    effect: Effect,
    /// What exists and may get more access by the change.
    gives_to: Option<Holdable>,
    /// Whether anything may get more access by the change.
    gives_to_all: bool,
}

impl Admission {
    /// Creates the queues. `hashing` is the number of roots that are computed at once, and `changes_per_hour` the budget of a
    /// partner.
    pub(super) fn new(hashing: usize, changes_per_hour: u32) -> Self {
        let one_by_one = Limits {
            permits: 1,
            reserved: 0,
            // A call waits for a reader, for roots and for the change: 25 s in all. By default a call may take 30 s, so that a
            // caller who waited in vain knows that nothing was changed.
            wait: Duration::from_secs(10),
            permits_of_realm: usize::MAX,
            permits_of_group: usize::MAX,
            requests_of_managers: 64,
            // The turns protect others. This only bounds what waits.
            requests_of_partner: 16,
        };
        Self {
            // One reader is left to changes that take access away, and one to operators. The former leave two to all others.
            reads: FairQueue::new(Limits {
                permits: Store::READERS,
                reserved: 1,
                wait: Duration::from_secs(5),
                permits_of_realm: 3,
                permits_of_group: 1,
                requests_of_managers: 256,
                requests_of_partner: 64,
            }),
            changes: FairQueue::new(one_by_one),
            roots: FairQueue::new(Limits {
                permits: hashing,
                // An import asks for a permit for each processor at once.
                requests_of_managers: 64.max(4 * hashing),
                ..one_by_one
            }),
            budget: ChangeBudget::new(changes_per_hour),
        }
    }
}

impl Authority {
    /// How many requests wait in each queue.
    pub fn waiting(&self) -> [(Queued, usize); 3] {
        let Admission {
            reads,
            changes,
            roots,
            budget: _,
        } = &self.admission;
        [
            (Queued::Changes, changes.waiting()),
            (Queued::Reads, reads.waiting()),
            (Queued::NewKeys, roots.waiting()),
        ]
    }

    /// Begins a snapshot for an answer, or for the checks before a change that may grant something.
    pub(super) async fn read(&self, caller: &impl Caller) -> Result<Reading, Refusal> {
        self.read_for(Effect::MayGrant, &caller.group()).await
    }

    /// Begins a snapshot for the checks before a change.
    pub(super) async fn read_for(
        &self,
        effect: Effect,
        group: &CallerGroup,
    ) -> Result<Reading, Refusal> {
        let permit = self.admission.reads.take(effect, group);
        let permit = permit.await.map_err(|why| refusal(why, Queued::Reads))?;
        Ok(Reading {
            snapshot: self.store.snapshot().await?,
            _permit: permit,
        })
    }

    /// Opens a change and reads the caller's key again inside it.
    pub(super) async fn begin<C: Caller>(
        &self,
        caller: &C,
        effect: Effect,
    ) -> Result<(OpenChange, C::State), Refusal> {
        let mut change = self.open(&caller.group(), effect).await?;
        let now = change.time();
        let caller_state = caller.reread(&mut change, now).await?;
        Ok((change, caller_state))
    }

    /// Opens a change.
    pub(super) async fn open(
        &self,
        group: &CallerGroup,
        effect: Effect,
    ) -> Result<OpenChange, Refusal> {
        let changes = &self.admission.changes;
        let (permit, charged) = self.admit(changes, Queued::Changes, effect, group).await?;
        Ok(OpenChange {
            change: self.store.change(self.clock.read()).await?,
            permit,
            charged,
            effect,
            gives_to: None,
            gives_to_all: false,
        })
    }

    /// Waits for a processor that may compute a root, for a change that is not refused for want of room or budget.
    pub(super) async fn hash_permit(&self, group: &CallerGroup) -> Result<QueuePermit, Refusal> {
        let roots = &self.admission.roots;
        let admitted = self.admit(roots, Queued::NewKeys, Effect::MayGrant, group);
        admitted.await.map(|(permit, _)| permit)
    }

    /// Waits for a permit for a change with this effect. Returns those whose budget the change is charged to, too.
    async fn admit(
        &self,
        queue: &FairQueue,
        of: Queued,
        effect: Effect,
        group: &CallerGroup,
    ) -> Result<(QueuePermit, Option<CallerGroup>), Refusal> {
        // Those who would be refused need not wait, and others may use up the rest meanwhile.
        self.check_room_and_budget(effect, group)?;
        let permit = queue.take(effect, group).await;
        let permit = permit.map_err(|why| refusal(why, of))?;
        let charged = self.check_room_and_budget(effect, group)?;
        Ok((permit, charged))
    }

    /// Checks that there are room on the disk and a budget for a change with this effect, if it needs them. Returns those
    /// whose budget the change is charged to.
    fn check_room_and_budget(
        &self,
        effect: Effect,
        group: &CallerGroup,
    ) -> Result<Option<CallerGroup>, Refusal> {
        if effect == Effect::TakesAway {
            return Ok(None);
        }
        self.store.check_room()?;
        let (CallerGroup::Partner(..) | CallerGroup::Holders(..)) = group else {
            return Ok(None);
        };
        let checked = self.admission.budget.check(group, Instant::now());
        checked.map_err(|Spent(wait)| Refusal::BudgetSpent(wait))?;
        Ok(Some(group.clone()))
    }

    /// Commits a change, which is durable then, and lets the next one begin.
    pub(super) async fn commit(
        &self,
        change: OpenChange,
        event: &Event,
    ) -> Result<EventId, Refusal> {
        let OpenChange {
            change,
            permit,
            charged,
            effect: _,
            gives_to: _,
            gives_to_all: _,
        } = change;
        let committed = change.commit(event).await?;
        // Before the next change of the partner, which looks at the budget.
        if let Some(group) = charged {
            self.admission.budget.charge(&group, Instant::now());
        }
        drop(permit);
        Ok(committed)
    }
}

impl OpenChange {
    /// Checks that the change may give more access to this, which exists.
    pub(super) async fn give_to(&mut self, mirror: &Mirror, what: Holdable) -> Result<(), Refusal> {
        if self.has_holds() || mirror.index().is_held(&what) {
            check_not_held(&mut self.change, mirror, &what).await?;
        }
        self.gives_to = Some(what);
        Ok(())
    }

    /// Lets the change give more access to anything, for which nothing may be held until it is over.
    pub(super) fn give_to_all(&mut self) {
        self.gives_to_all = true;
    }

    /// Whether anything may get more access by the change.
    pub(super) fn gives_to_all(&self) -> bool {
        self.gives_to_all
    }

    /// Whether the change may grant something.
    pub(super) fn may_grant(&self) -> bool {
        self.effect == Effect::MayGrant
    }

    /// What exists and may get more access by the change.
    pub(super) fn gives_to(&self) -> Option<&Holdable> {
        self.gives_to.as_ref()
    }
}

fn refusal(why: NoPermit, of: Queued) -> Refusal {
    match why {
        NoPermit::TooManyOfGroup => Refusal::TooManyOfCaller(of),
        NoPermit::Late => Refusal::Busy(of),
    }
}

impl Deref for Reading {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }
}

impl Deref for OpenChange {
    type Target = Change;

    fn deref(&self) -> &Change {
        &self.change
    }
}

impl DerefMut for OpenChange {
    fn deref_mut(&mut self) -> &mut Change {
        &mut self.change
    }
}

impl AsMut<Snapshot> for Reading {
    fn as_mut(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }
}

impl AsMut<Snapshot> for OpenChange {
    fn as_mut(&mut self) -> &mut Snapshot {
        &mut self.change
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use futures_util::FutureExt;

    use super::*;
    use crate::domain::ids::RealmId;

    /// Seen red with as many requests of managers as changes have.
    #[tokio::test]
    async fn an_import_finds_a_place_for_each_processor_however_many_there_are() {
        const PROCESSORS: usize = 128;
        let admission = Admission::new(PROCESSORS, 600);
        let managers = CallerGroup::Managers(RealmId::parse("demo").unwrap());
        let ask = || admission.roots.take(Effect::MayGrant, &managers).boxed();
        let mut imports: Vec<_> = iter::repeat_with(ask).take(4 * PROCESSORS).collect();
        for (n, request) in imports.iter_mut().enumerate() {
            let outcome = request.now_or_never().map(|outcome| outcome.map(drop));
            assert_eq!(outcome, (n < PROCESSORS).then_some(Ok(())), "{n}");
        }
    }
}
