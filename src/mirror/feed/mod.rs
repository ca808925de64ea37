//! The feed: the one task that writes the mirror.

mod changes;
mod load;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Mirror;
use crate::domain::clock::{Clock, ElapsedClock};
use crate::domain::event::{EventId, EventKind, Subject};
use crate::domain::hold::LostHistory;
use crate::domain::lease::Lease;
use crate::store::{Error, FeedEntry, Snapshot, Store};
use changes::apply;
use load::{Before, History, Known, Loaded, load};

/// How many new events are read and applied at once.
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
    /// The time between two polls of the store without a notification.
    interval: Duration,
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
        self.went_to(loaded.events);
        self.mirror.index.store(loaded.index);
        self.mirror.advance(self.last, |_| false);
        Ok(())
    }

    /// The mirror that this feed writes.
    pub fn mirror(&self) -> Arc<Mirror> {
        Arc::clone(&self.mirror)
    }

    /// Polls the store until `stop` is `true`. After a failed poll the feed tries again, and the mirror stays unchanged.
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

    /// Applies the new changes. The read includes the last known event: if that event is missing or has another stamp, the
    /// store's history was rewritten, and the feed reloads everything. It also does if the event was deleted because of its age.
    async fn poll(&mut self) -> Result<(), Error> {
        let sent = self.clock.now();
        // The clock never returns an earlier time than this one again.
        self.clock.advance(sent);
        let mut snapshot = self.store.feed_snapshot().await?;
        loop {
            let entries = snapshot
                .feed(self.last.revision, EVENTS_AT_ONCE + 1)
                .await?;
            let Some((_, new)) = entries
                .split_first()
                .filter(|(first, _)| first.id == self.last)
            else {
                drop(snapshot);
                return self.reload().await;
            };
            if !new.is_empty() {
                let changes: Option<Vec<_>> =
                    new.iter().map(|entry| entry.change.clone()).collect();
                // Keys, partners and projects of a realm that could not be read may be missing, so more than the realm must be read.
                let index = self.mirror.index.load_full();
                let changes = changes.filter(|changes| {
                    !changes.iter().any(|(kind, subject)| {
                        *kind == EventKind::RealmPut && index.has_unreadable_realm(&subject.realm)
                    })
                });
                let Some(changes) = changes else {
                    drop(snapshot);
                    return self.reload().await;
                };
                let has_holds = |(kind, _): &(EventKind, Subject)| {
                    matches!(
                        kind,
                        EventKind::HistoryRewritten | EventKind::HistoryAccepted
                    )
                };
                if changes.iter().any(has_holds) {
                    drop(snapshot);
                    return self.reload().await;
                }
                if changes.iter().any(|(kind, _)| *kind == EventKind::ClockSet) {
                    self.clock.was_set(snapshot.clock_setting().await?);
                }
                apply(&mut snapshot, &self.mirror, self.last.revision, changes).await?;
                self.went_to(new.iter().map(|entry| entry.id));
            }
            let is_last = new.len() < EVENTS_AT_ONCE as usize;
            let index = self.mirror.index.load_full();
            if is_last {
                index.set_current(self.last.revision, sent);
            } else {
                index.set_revision(self.last.revision);
            }
            // Last, because whoever waited for a change reads its revision from the index next.
            self.tell_waiters(&mut snapshot, &entries).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Ends the waits for events of this snapshot that were applied. `entries` are those that were just applied.
    async fn tell_waiters(
        &self,
        snapshot: &mut Snapshot,
        entries: &[FeedEntry],
    ) -> Result<(), Error> {
        let applied: HashSet<EventId> = entries.iter().map(|entry| entry.id).collect();
        let mut earlier = self.mirror.awaited(self.last.revision);
        earlier.retain(|event| !applied.contains(event));
        let earlier = snapshot.find_events(&earlier).await?;
        self.mirror.advance(self.last, |event| {
            applied.contains(event) || earlier.contains(event)
        });
        Ok(())
    }

    /// Records events as applied.
    fn went_to(&mut self, events: impl IntoIterator<Item = EventId>) {
        self.recent.extend(events);
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
        self.went_to(events);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::event::{Actor, Event};
    use crate::domain::ids::{PartnerId, ProjectId, RealmId};
    use crate::domain::partner::{Partner, Project};
    use crate::domain::realm::Realm;
    use crate::domain::route::{Need, PathTemplate, Route};
    use crate::domain::time::Timestamp;
    use crate::mirror::PreparedRealm;
    use crate::store::{Change, NewAuthority};

    /// A store with a history that the test writes, and a feed of it.
    struct World {
        store: Store,
        feed: Feed,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open_sqlite(&dir.path().join("claviger.db"))
                .await
                .unwrap();
            let new_authority = NewAuthority {
                pepper: 1,
                canary: [0; 32],
                seal: [0; 32],
                time: Timestamp::from_micros(1),
            };
            let mut change = store
                .create_authority(&new_authority)
                .await
                .unwrap()
                .unwrap();
            change.put_realm(&Realm::built_in()).await.unwrap();
            commit(change, EventKind::RealmPut, None, None).await;
            let mut feed = feed(&store);
            feed.load().await.unwrap();
            Self {
                store,
                feed,
                _dir: dir,
            }
        }

        async fn change(&self) -> Change {
            self.store.change(Timestamp::from_micros(2)).await.unwrap()
        }

        async fn put_partner(&self) {
            let mut change = self.change().await;
            let partner = Partner {
                realm: RealmId::built_in(),
                id: partner(),
                display_name: String::new(),
                suspended: false,
            };
            change.put_partner(&partner).await.unwrap();
            commit(change, EventKind::PartnerPut, Some(partner.id), None).await;
        }

        async fn assert_equals_a_fresh_load(&self) {
            let mut fresh = feed(&self.store);
            fresh.load().await.unwrap();
            let (polled, loaded) = (self.feed.mirror(), fresh.mirror());
            assert_eq!(polled.index().describe(), loaded.index().describe());
        }
    }

    fn feed(store: &Store) -> Feed {
        let clock = Clock::manual(Timestamp::from_micros(3));
        Feed::new(store.clone(), clock, Duration::from_secs(1))
    }

    fn partner() -> PartnerId {
        PartnerId::parse("acme").unwrap()
    }

    async fn commit(
        change: Change,
        kind: EventKind,
        partner: Option<PartnerId>,
        project: Option<ProjectId>,
    ) {
        let event = Event {
            revision: change.revision(),
            time: change.time(),
            actor: Actor::command_line(),
            kind,
            subject: Subject {
                realm: RealmId::built_in(),
                partner,
                project,
                key: None,
            },
            detail: BTreeMap::new(),
        };
        change.commit(&event).await.unwrap();
    }

    /// Seen red with the revision set after the waits are ended.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_index_has_the_revision_that_somebody_waited_for() {
        let world = World::new().await;
        let (mirror, store) = (world.feed.mirror(), world.store.clone());
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(world.feed.run(stopped));
        for n in 0..500 {
            let change = store.change(Timestamp::from_micros(2)).await.unwrap();
            let event = Event {
                revision: change.revision(),
                time: change.time(),
                actor: Actor::command_line(),
                kind: EventKind::RealmPut,
                subject: Subject {
                    realm: RealmId::built_in(),
                    partner: None,
                    project: None,
                    key: None,
                },
                detail: BTreeMap::new(),
            };
            let committed = change.commit(&event).await.unwrap();
            let applied = mirror.wait_for(committed, Duration::from_secs(10)).await;
            assert!(applied.is_ok());
            assert!(mirror.index().revision() >= committed.revision, "{n}");
        }
    }

    /// Seen red with `take_prepared` that does not compare.
    #[tokio::test]
    async fn a_prepared_realm_is_used_only_if_the_store_has_the_same_definition() {
        let mut world = World::new().await;
        let with_route = |path: &str| Realm {
            routes: vec![Route {
                methods: Vec::new(),
                path: PathTemplate::parse(path).unwrap(),
                need: Need::Public,
            }],
            ..Realm::built_in()
        };
        for (stored, prepared) in [("/a", "/a"), ("/b", "/c"), ("/d", "/d")] {
            world
                .feed
                .mirror()
                .prepare(PreparedRealm::new(with_route(prepared)));
            let mut change = world.change().await;
            change.put_realm(&with_route(stored)).await.unwrap();
            commit(change, EventKind::RealmPut, None, None).await;
            world.feed.poll().await.unwrap();
            world.assert_equals_a_fresh_load().await;
            let mirror = world.feed.mirror();
            assert!(mirror.take_prepared(&with_route(prepared)).is_none());
        }
    }

    /// Seen red with `deleted` left empty in `apply`: the project then still belongs to the new partner.
    #[tokio::test]
    async fn a_partner_that_is_deleted_and_created_again_within_one_poll_inherits_nothing() {
        let mut world = World::new().await;
        world.put_partner().await;
        let project = Project {
            realm: RealmId::built_in(),
            id: ProjectId::parse("web").unwrap(),
            partner: partner(),
            display_name: String::new(),
        };
        let mut change = world.change().await;
        change.put_project(&project).await.unwrap();
        commit(
            change,
            EventKind::ProjectPut,
            Some(partner()),
            Some(project.id),
        )
        .await;
        world.feed.poll().await.unwrap();
        world.assert_equals_a_fresh_load().await;

        let mut change = world.change().await;
        change
            .delete_partner(&RealmId::built_in(), &partner())
            .await
            .unwrap();
        commit(change, EventKind::PartnerDeleted, Some(partner()), None).await;
        world.put_partner().await;
        world.feed.poll().await.unwrap();
        world.assert_equals_a_fresh_load().await;
    }
}
