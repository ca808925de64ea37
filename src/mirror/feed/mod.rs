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
use crate::domain::event::{EventId, EventKind};
use crate::domain::hold::LostHistory;
use crate::domain::lease::Lease;
use crate::store::{Error, FeedEntry, Snapshot, Store};
use changes::{ChangedNames, Changes};
use load::{Before, History, Known, Loaded, load};

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
    /// Whether a poll has failed while it applied changes.
    is_torn: bool,
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
            is_torn: false,
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
        // The store may have lost the changes of which some were applied.
        if self.is_torn {
            return self.reload().await;
        }
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
            self.went_to(&ids);
            self.is_torn = true;
            changes.apply(&mut snapshot, &self.mirror).await?;
            self.is_torn = false;
        }
        self.mirror
            .index
            .load()
            .set_current(self.last.revision, sent);
        // Last, because whoever waited for a change reads its revision from the index next.
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
                        index.has_unreadable_realm(&subject.realm) || index.holds().has_keys()
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
        self.is_torn = false;
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::{AtomicBool, Ordering};

    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{AssertSqlSafe, ConnectOptions};

    use super::changes::KEYS_AT_ONCE;
    use super::*;
    use crate::domain::access::{Access, Scope};
    use crate::domain::event::{Actor, Event, Subject};
    use crate::domain::hold::Holdable;
    use crate::domain::ids::{KeyId, PartnerId, Prefix, ProjectId, RealmId, ScopeName};
    use crate::domain::key::Key;
    use crate::domain::key::tests::sample;
    use crate::domain::partner::{Partner, Project};
    use crate::domain::realm::{Environment, Realm};
    use crate::domain::route::{Need, PathTemplate, Route};
    use crate::domain::time::Timestamp;
    use crate::mirror::{Entry, PreparedRealm, View};
    use crate::store::{Change, NewAuthority};

    /// A store with a history that the test writes, and a feed of it.
    struct World {
        store: Store,
        feed: Feed,
        dir: tempfile::TempDir,
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
            Self { store, feed, dir }
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

        /// Executes a statement past the feed and the store.
        async fn execute(&self, statement: &str) {
            let options = SqliteConnectOptions::new().filename(self.dir.path().join("claviger.db"));
            let mut connection = options.connect().await.unwrap();
            let statement = sqlx::raw_sql(AssertSqlSafe(statement));
            statement.execute(&mut connection).await.unwrap();
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
        let subject = Subject {
            realm: RealmId::built_in(),
            partner,
            project,
            key: None,
        };
        let event = event(&change, kind, subject);
        change.commit(&event).await.unwrap();
    }

    async fn commit_of(
        change: Change,
        kind: EventKind,
        realm: RealmId,
        partner: Option<PartnerId>,
        key: Option<KeyId>,
    ) {
        let subject = Subject {
            realm,
            partner,
            project: None,
            key,
        };
        let event = event(&change, kind, subject);
        change.commit(&event).await.unwrap();
    }

    fn event(change: &Change, kind: EventKind, subject: Subject) -> Event {
        Event {
            revision: change.revision(),
            time: change.time(),
            actor: Actor::command_line(),
            kind,
            subject,
            detail: BTreeMap::new(),
        }
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
            let subject = Subject {
                realm: RealmId::built_in(),
                partner: None,
                project: None,
                key: None,
            };
            let event = event(&change, EventKind::RealmPut, subject);
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

    /// A realm whose `read` implies `write`, or does not, and one whose trie takes long to build.
    fn realms(implies: bool, round: usize) -> [Realm; 2] {
        let scope = |name: &str, implies: &[&str]| Scope {
            name: ScopeName::parse(name).unwrap(),
            implies: implies
                .iter()
                .map(|name| ScopeName::parse(name).unwrap())
                .collect(),
            description: String::new(),
        };
        let sample = sample();
        let demo = Realm {
            id: sample.realm,
            prefix: Prefix::parse("demo").unwrap(),
            environments: vec![Environment {
                name: sample.environment,
                ..Realm::built_in().environments[0].clone()
            }],
            scopes: vec![
                scope("read", if implies { &["write"] } else { &[] }),
                scope("write", &[]),
            ],
            ..Realm::built_in()
        };
        let route = |number: usize| Route {
            methods: Vec::new(),
            path: PathTemplate::parse(&format!("/round-{round}/route-{number}")).unwrap(),
            need: Need::Public,
        };
        let large = Realm {
            id: RealmId::parse("large").unwrap(),
            prefix: Prefix::parse("large").unwrap(),
            routes: (0..500).map(route).collect(),
            ..Realm::built_in()
        };
        [demo, large]
    }

    /// Puts the realms, and gives the key of `sample` the scope `read`, or takes it away, all for one poll.
    async fn put_realms_and_key(world: &World, realms: [Realm; 2], reads: bool, is_new: bool) {
        for realm in realms {
            let mut change = world.change().await;
            change.put_realm(&realm).await.unwrap();
            commit_of(change, EventKind::RealmPut, realm.id, None, None).await;
        }
        let mut key = sample();
        if !reads {
            key.access = Access::Scopes(BTreeSet::new());
        }
        let mut change = world.change().await;
        if is_new {
            let partner = Partner {
                realm: key.realm.clone(),
                id: key.partner.clone(),
                display_name: String::new(),
                suspended: false,
            };
            change.put_partner(&partner).await.unwrap();
            commit_of(
                change,
                EventKind::PartnerPut,
                key.realm.clone(),
                Some(partner.id),
                None,
            )
            .await;
            change = world.change().await;
            change.insert_key(&key).await.unwrap();
        } else {
            change.update_key(&mut key).await.unwrap();
        }
        let (partner, id) = (Some(key.partner), Some(key.id));
        commit_of(change, EventKind::KeyUpdated, key.realm, partner, id).await;
    }

    /// Whether the key of `sample` may write.
    fn may_write(view: &View<'_>) -> bool {
        let hierarchy = &view.realm("demo").unwrap().hierarchy;
        let Some(Entry::Key(key)) = view.key(sample().id) else {
            panic!("there is a key");
        };
        let write = hierarchy.index_of("write").unwrap();
        key.effective(hierarchy).contains(write)
    }

    /// Seen red without `Keys::take_away`, and with the keys put before the realms.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_key_has_nothing_at_any_moment_that_no_state_of_the_store_gives_it() {
        let mut world = World::new().await;
        put_realms_and_key(&world, realms(false, 0), true, true).await;
        world.feed.poll().await.unwrap();
        let mirror = world.feed.mirror();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let reader = std::thread::spawn(move || {
            let mut decisions = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(!may_write(&mirror.index().view()), "decision {decisions}");
                decisions += 1;
            }
        });
        for round in 1..20 {
            // While `read` implies `write`, the key has neither.
            let implies = round % 2 == 1;
            put_realms_and_key(&world, realms(implies, round), !implies, false).await;
            world.feed.poll().await.unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        world.assert_equals_a_fresh_load().await;
    }

    /// Seen red without the wait for the realms that were replaced.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_decision_that_takes_long_sees_no_key_that_is_newer_than_its_realms() {
        let mut world = World::new().await;
        put_realms_and_key(&world, realms(true, 0), false, true).await;
        world.feed.poll().await.unwrap();
        put_realms_and_key(&world, realms(false, 1), true, false).await;
        let mirror = world.feed.mirror();
        let (began, has_begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let index = mirror.index.load_full();
            let view = index.view();
            began.send(()).unwrap();
            let until = std::time::Instant::now() + Duration::from_millis(300);
            while std::time::Instant::now() < until {
                assert!(!may_write(&view));
            }
        });
        has_begun.recv().unwrap();
        world.feed.poll().await.unwrap();
        reader.join().unwrap();
        world.assert_equals_a_fresh_load().await;
    }

    /// Seen red with `forget_import` that removes the digest of any key.
    #[tokio::test]
    async fn an_imported_key_that_replaces_another_is_found_however_many_are_replaced() {
        let mut world = World::new().await;
        put_realms_and_key(&world, realms(false, 0), true, true).await;
        let key = |number: u16, generation: u8| {
            let mut key = sample();
            let [high, low] = number.to_be_bytes();
            let mut id = [generation; 16];
            id[..2].copy_from_slice(&[high, low]);
            key.id = KeyId::from_bytes(id);
            key.secrets[0].imported = true;
            key.secrets[0].digest.mac[..2].copy_from_slice(&[high, low]);
            key
        };
        let numbers = 0..KEYS_AT_ONCE as u16 * 3 / 5;
        let commit = async |change: Change, kind: EventKind, key: &Key| {
            let (partner, id) = (Some(key.partner.clone()), Some(key.id));
            commit_of(change, kind, key.realm.clone(), partner, id).await;
        };
        for number in numbers.clone() {
            let mut change = world.change().await;
            change.insert_key(&key(number, 1)).await.unwrap();
            commit(change, EventKind::KeyImported, &key(number, 1)).await;
        }
        world.feed.poll().await.unwrap();
        for number in numbers {
            let mut change = world.change().await;
            change.delete_key(key(number, 1).id).await.unwrap();
            commit(change, EventKind::KeyDeleted, &key(number, 1)).await;
            let mut change = world.change().await;
            change.insert_key(&key(number, 2)).await.unwrap();
            commit(change, EventKind::KeyImported, &key(number, 2)).await;
        }
        world.feed.poll().await.unwrap();
        world.assert_equals_a_fresh_load().await;
    }

    /// Seen red with a feed that tries again as if nothing had been applied: it does not know then what it holds.
    #[tokio::test]
    async fn what_was_applied_of_a_poll_that_failed_is_part_of_the_history() {
        let mut world = World::new().await;
        put_realms_and_key(&world, realms(false, 0), true, true).await;
        world.feed.poll().await.unwrap();
        world
            .execute("CREATE TABLE before AS SELECT id, facts, revision FROM keys")
            .await;
        let last = world.feed.last.revision.as_u64();

        // The row of another key cannot be read, and then its digests cannot either.
        let other = Key {
            id: KeyId::from_bytes([9; 16]),
            ..sample()
        };
        let mut change = world.change().await;
        change.insert_key(&other).await.unwrap();
        let (partner, id) = (Some(other.partner), Some(other.id));
        commit_of(change, EventKind::KeyIssued, other.realm, partner, id).await;
        world
            .execute("UPDATE keys SET facts = '{}' WHERE id = x'09090909090909090909090909090909'")
            .await;
        put_realms_and_key(&world, realms(false, 1), false, false).await;
        world.execute("ALTER TABLE imports RENAME TO away").await;
        assert!(world.feed.poll().await.is_err());

        // The store loses all of that.
        world.execute("ALTER TABLE away RENAME TO imports").await;
        world
            .execute("DELETE FROM keys WHERE id NOT IN (SELECT id FROM before)")
            .await;
        world
            .execute(
                "UPDATE keys SET facts = before.facts, revision = before.revision
                 FROM before WHERE before.id = keys.id",
            )
            .await;
        world
            .execute(&format!("DELETE FROM events WHERE revision > {last}"))
            .await;
        world
            .execute(&format!("UPDATE authority SET revision = {last}"))
            .await;
        world.feed.poll().await.unwrap();
        let mirror = world.feed.mirror();
        assert!(mirror.index().is_held(&Holdable::Key(sample().id)));
    }
}
