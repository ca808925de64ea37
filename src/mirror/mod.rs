//! The mirror: all facts that verification needs, in memory, read without a lock.
//!
//! The mirror holds facts, never verdicts. Only the [`Feed`] writes it. Code that changes the store notifies the feed and waits
//! until the mirror contains the change.

mod feed;
mod holds;
mod index;
mod key_facts;
mod map;
mod packed_labels;
mod realm;
mod revocation_watermarks;
mod rewrite;
mod secret;
mod shared_facts;
#[cfg(test)]
mod tests;
mod unrecorded;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

pub use feed::Feed;
pub use index::{Index, View};
pub use key_facts::{Entry, KeyFacts};
pub use packed_labels::PackedLabels;
pub use realm::{MirroredPartner, MirroredRealm, PreparedRealm};
pub use secret::MirroredSecret;
pub use unrecorded::UnrecordedHistory;

use crate::domain::event::{EventId, Revision};
use crate::domain::ids::RealmId;
use crate::domain::lease::Lease;
use crate::domain::realm::Realm;

/// The in-memory copy of the store's facts, from which this process decides every request.
pub struct Mirror {
    index: ArcSwap<Index>,
    lease: Lease,
    notify: Notify,
    /// Asks the feed for a poll, soon: somebody wants a revision that another server has made.
    wanted: Notify,
    /// The waits for revisions.
    revision_waits: Semaphore,
    progress: Mutex<Progress>,
    /// The event of the last change that the index contains, as in `progress`.
    applied: watch::Sender<EventId>,
    /// What this server knows of lost history, until the store has it as holds.
    unrecorded: UnrecordedHistory,
    /// Prepared realms that the feed has not taken yet, so that the feed need not build their tries. Only
    /// `Authority::put_realm` and the feed lock this map.
    prepared: Mutex<HashMap<RealmId, PreparedRealm>>,
}

/// How far the index is.
#[derive(Default)]
struct Progress {
    /// The event of the last change that the index contains.
    last: EventId,
    /// Those who wait for events that the feed has not come across yet.
    waiting: Vec<Waiter>,
}

/// Somebody who waits until the index contains the change of an event.
struct Waiter {
    event: EventId,
    done: oneshot::Sender<()>,
}

/// The most waits for revisions at the same time.
const REVISION_WAITS: usize = 256;

/// The time after which a wait for a revision asks for a poll again.
const WANTED_AGAIN: Duration = Duration::from_millis(5);

/// How long a wait for a revision may take.
const REVISION_WAIT: Duration = Duration::from_secs(1);

/// The error of [`Mirror::wait_for`]: the mirror did not contain the change in time.
#[derive(Debug)]
pub struct Behind;

/// The reason why the mirror does not have a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingRevision {
    /// The mirror has not reached it yet.
    Behind,
    /// Its change was lost, so that no server will ever have it.
    Lost,
}

impl Mirror {
    /// Creates an empty mirror, at revision 0.
    fn empty(lease: Lease) -> Self {
        Self {
            index: ArcSwap::default(),
            lease,
            notify: Notify::new(),
            wanted: Notify::new(),
            revision_waits: Semaphore::new(REVISION_WAITS),
            progress: Mutex::default(),
            applied: watch::Sender::default(),
            unrecorded: UnrecordedHistory::default(),
            prepared: Mutex::default(),
        }
    }

    /// The current index.
    pub fn index(&self) -> Guard<Arc<Index>> {
        self.index.load()
    }

    /// How long this server may say "allowed". Without an end if it is the only server of its database.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Watches for changes that the index contains.
    pub fn applied(&self) -> watch::Receiver<EventId> {
        self.applied.subscribe()
    }

    /// Notifies the feed that the store has a new change.
    pub fn notify(&self) {
        self.notify.notify_one();
    }

    /// Stores a prepared realm for the feed, before the realm is put. The feed uses it if the store then contains exactly the
    /// same definition.
    pub fn prepare(&self, realm: PreparedRealm) {
        let id = realm.definition().id.clone();
        self.prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, realm);
    }

    /// Drops all prepared realms: a full load has built every realm.
    fn clear_prepared(&self) {
        self.prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Removes the prepared realm of this id, and returns it if its definition equals `definition`.
    fn take_prepared(&self, definition: &Realm) -> Option<PreparedRealm> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let found = prepared.remove(&definition.id)?;
        (found.definition() == definition).then_some(found)
    }

    /// Waits until the mirror contains the change of this event, and notifies the feed.
    ///
    /// The revision alone would not do: after a failover that lost commits, the mirror may have a higher revision of another history.
    ///
    /// # Errors
    /// If the mirror does not contain it within `timeout`, because the feed cannot read the store.
    pub async fn wait_for(&self, event: EventId, timeout: Duration) -> Result<(), Behind> {
        let (done, arrived) = oneshot::channel();
        {
            let mut progress = self.lock_progress();
            if progress.last == event {
                return Ok(());
            }
            progress.waiting.push(Waiter { event, done });
        }
        self.notify();
        match tokio::time::timeout(timeout, arrived).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Behind),
        }
    }

    /// Waits until the mirror contains this revision, for a second at most. Another server may have made it.
    ///
    /// # Errors
    /// If the mirror does not contain it in time, if it has no lease, if too many wait, or if its change was lost.
    pub async fn wait_for_revision(&self, revision: Revision) -> Result<(), MissingRevision> {
        match self.index().view().check_revision(revision) {
            Err(MissingRevision::Behind) => {}
            checked => return checked,
        }
        let permit = self.revision_waits.try_acquire();
        let _permit = permit.map_err(|_| MissingRevision::Behind)?;
        let mut applied = self.applied();
        let reached = async {
            loop {
                applied.borrow_and_update();
                match self.index().view().check_revision(revision) {
                    Err(MissingRevision::Behind) if !self.lease.left().is_zero() => {}
                    checked => return checked,
                }
                self.wanted.notify_one();
                // Also without a change, because the lease may lapse.
                let _ = tokio::time::timeout(WANTED_AGAIN, applied.changed()).await;
            }
        };
        tokio::time::timeout(REVISION_WAIT, reached)
            .await
            .unwrap_or(Err(MissingRevision::Behind))
    }

    /// The events up to this revision that somebody waits for.
    fn awaited(&self, last: Revision) -> Vec<EventId> {
        let mut progress = self.lock_progress();
        progress.waiting.retain(|waiter| !waiter.done.is_closed());
        let events = progress.waiting.iter().map(|waiter| waiter.event);
        events.filter(|event| event.revision <= last).collect()
    }

    /// Records the event of the last change that the index contains, and ends the waits for events that it contains.
    fn advance(&self, last: EventId, is_contained: impl Fn(&EventId) -> bool) {
        let mut progress = self.lock_progress();
        progress.last = last;
        self.applied
            .send_if_modified(|applied| std::mem::replace(applied, last) != last);
        let waiting = &mut progress.waiting;
        for waiter in waiting.extract_if(.., |waiter| is_contained(&waiter.event)) {
            // Whoever waited may have given up.
            let _ = waiter.done.send(());
        }
    }

    fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this server knows of lost history, until the store has it as holds.
    pub fn unrecorded(&self) -> &UnrecordedHistory {
        &self.unrecorded
    }
}
