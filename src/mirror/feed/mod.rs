//! The feed: the one task that writes the mirror.

mod changes;
mod load;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Mirror;
use crate::domain::clock::{Clock, ElapsedClock};
use crate::domain::event::{EventId, EventKind};
use crate::domain::hold::LostHistory;
use crate::domain::ids::KeyId;
use crate::domain::lease::Lease;
use crate::store::{Error, FeedEntry, Snapshot, Store};
use changes::{ChangedNames, Changes};
use load::{Before, History, Known, Loaded, load, put_imports};

/// How many new events are read at once.
const EVENTS_AT_ONCE: u32 = 1_000;

/// The shortest time between two polls because somebody wants a revision that another server has made.
const BETWEEN_WANTED_POLLS: Duration = Duration::from_millis(5);

/// How many applied events are remembered.
const RECENT_EVENTS: usize = 65_536;

/// Reads new events from the store and applies every change to the mirror, in order.
pub struct Feed {
    store: Store,
    clock: Clock,
    mirror: Arc<Mirror>,
    /// The event of the last change in the mirror.
    last: EventId,
    /// The last events that were applied, by which the end of a common history is found.
    recent: VecDeque<EventId>,
    /// Keys that cannot be used, and whose digests were not read yet.
    undigested: Vec<KeyId>,
    /// The time between two polls of the store without a notification.
    interval: Duration,
}

/// What a poll has found.
#[derive(Default)]
struct NewEvents {
    ids: Vec<EventId>,
    changed: ChangedNames,
}

impl Feed {
    /// Creates a feed with an empty mirror. If other servers may share the store, the lease of the mirror has lapsed until it is
    /// renewed.
    pub fn new(store: Store, clock: Clock, interval: Duration) -> Self {
        let lease = if store.is_shared() {
            Lease::lapsed(ElapsedClock::system())
        } else {
            Lease::unlimited()
        };
        Self {
            store,
            clock,
            mirror: Arc::new(Mirror::empty(lease)),
            last: EventId::default(),
            recent: VecDeque::new(),
            undigested: Vec::new(),
            interval,
        }
    }

    /// Loads all facts from one snapshot.
    ///
    /// # Errors
    /// If the store cannot be read, or has no authority yet.
    pub async fn load(&mut self) -> Result<(), Error> {
        let known = Known {
            before: None,
            unrecorded: &self.mirror.unrecorded,
        };
        let loaded = load(&self.store, &self.clock, known).await?;
        self.went_to(&loaded.events);
        self.mirror.index.store(loaded.index);
        self.mirror.advance(self.last, |_| false);
        Ok(())
    }

    /// The mirror that this feed writes.
    pub fn mirror(&self) -> Arc<Mirror> {
        Arc::clone(&self.mirror)
    }

    /// Polls the store until `stop` is `true`. After a failed poll the feed tries again.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut is_reachable = true;
        while !*stop.borrow_and_update() {
            match self.poll().await {
                Ok(()) if is_reachable => {}
                Ok(()) => {
                    is_reachable = true;
                    tracing::info!("store reachable again");
                }
                Err(error) => {
                    // Logged once for each outage, not twenty times a second.
                    if is_reachable {
                        tracing::error!(%error, "store unreachable; verification continues from memory");
                    }
                    is_reachable = false;
                }
            }
            let polled = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = async {
                    self.mirror.wanted.notified().await;
                    sleep_until(polled + BETWEEN_WANTED_POLLS).await;
                }, if is_reachable => {}
                // After a failure a notification does not shorten the wait, because the store cannot be read.
                () = self.mirror.notify.notified(), if is_reachable => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Applies the new changes.
    async fn poll(&mut self) -> Result<(), Error> {
        let sent = self.clock.now();
        // The clock never returns an earlier time than this one again.
        self.clock.advance(sent);
        let mut snapshot = self.store.feed_snapshot().await?;
        let Some(NewEvents { ids, changed }) = self.read_new(&mut snapshot).await? else {
            drop(snapshot);
            return self.reload().await;
        };
        if !ids.is_empty() {
            if changed.has_clock {
                self.clock.was_set(snapshot.clock_setting().await?);
            }
            // Of all events at once: the rows are those of the last one, so a part of them would mix what never was at the same time.
            let changes = Changes::read(&mut snapshot, self.last.revision, changed).await?;
            let Some(changes) = changes else {
                drop(snapshot);
                return self.reload().await;
            };
            self.undigested.extend(changes.apply(&self.mirror).await);
            self.went_to(&ids);
        }
        let index = self.mirror.index.load_full();
        put_imports(&mut snapshot, &index, &self.undigested).await?;
        self.undigested.clear();
        index.set_current(self.last.revision, sent);
        // Last, because a caller that waited for a change reads its revision from the index next.
        self.tell_waiters(&mut snapshot, &ids).await
    }

    /// Reads the events after the last known one; `None` if everything must be loaded anew.
    ///
    /// The read includes the last known event: if that is missing or has another stamp, the store's history was rewritten, or the
    /// event was deleted because of its age.
    async fn read_new(&self, snapshot: &mut Snapshot) -> Result<Option<NewEvents>, Error> {
        let index = self.mirror.index.load_full();
        let mut new = NewEvents::default();
        let mut last = self.last;
        loop {
            let entries = snapshot.feed(last.revision, EVENTS_AT_ONCE + 1).await?;
            let mut entries = entries.into_iter();
            if entries.next().is_none_or(|first| first.id != last) {
                return Ok(None);
            }
            let more = entries.len();
            for FeedEntry { id, change } in entries {
                let Some((kind, subject)) = change else {
                    return Ok(None);
                };
                let needs_load = match kind {
                    EventKind::HistoryRewritten | EventKind::HistoryAccepted => true,
                    // Keys, partners and projects of a realm that could not be read may be missing, and what a held key has at most
                    // depends on the scopes of its realm. So more than the realm must be read.
                    EventKind::RealmPut => {
                        index.has_unreadable_realm(&subject.realm)
                            || index.has_held_key(&subject.realm)
                    }
                    _ => false,
                };
                if needs_load {
                    return Ok(None);
                }
                new.ids.push(id);
                new.changed.add(kind, subject);
                last = id;
            }
            if more < EVENTS_AT_ONCE as usize {
                return Ok(Some(new));
            }
        }
    }

    /// Ends the waits for events of this snapshot that were applied. `new` are those that were just applied.
    async fn tell_waiters(&self, snapshot: &mut Snapshot, new: &[EventId]) -> Result<(), Error> {
        let mut applied: HashSet<EventId> = new.iter().copied().collect();
        applied.insert(self.last);
        let mut earlier = self.mirror.awaited(self.last.revision);
        earlier.retain(|event| !applied.contains(event));
        let earlier = snapshot.find_events(&earlier).await?;
        self.mirror.advance(self.last, |event| {
            applied.contains(event) || earlier.contains(event)
        });
        Ok(())
    }

    /// Records events as applied.
    fn went_to(&mut self, events: &[EventId]) {
        let newest = events.len().saturating_sub(RECENT_EVENTS);
        self.recent.extend(&events[newest..]);
        self.last = self.recent.back().copied().unwrap_or_default();
        let too_many = self.recent.len().saturating_sub(RECENT_EVENTS);
        self.recent.drain(..too_many);
    }

    /// Loads everything anew, without what was taken away by the index before.
    async fn reload(&mut self) -> Result<(), Error> {
        let known = Known {
            before: Some(Before {
                index: self.mirror.index.load_full(),
                events: &self.recent,
            }),
            unrecorded: &self.mirror.unrecorded,
        };
        let Loaded {
            index,
            events,
            forks,
            history,
            new_holds,
        } = load(&self.store, &self.clock, known).await?;
        let known = self.last.revision;
        self.recent.clear();
        self.went_to(&events);
        self.undigested.clear();
        let last = match history {
            History::LostAfter(last) => last,
            History::Accepted | History::Same => known,
        };
        let is_lost = matches!(history, History::LostAfter(_));
        let is_explained = !is_lost || forks.iter().any(|fork| fork.has_lost(known));
        if !new_holds.is_empty() || !is_explained {
            tracing::error!(
                known = %known,
                last = %last,
                held = new_holds.len(),
                "changes were lost that this server had applied, all after `last` up to `known`: what they took away stays away \
                 until an operator accepts the loss; see `claviger replicas`"
            );
            let unrecorded = LostHistory {
                known,
                last,
                holds: new_holds,
            };
            self.mirror.unrecorded.add(unrecorded).await;
        }
        self.mirror.index.store(index);
        self.mirror.clear_prepared();
        self.mirror.advance(self.last, |_| false);
        // The next poll looks for the events that somebody waits for.
        self.mirror.notify();
        Ok(())
    }
}
