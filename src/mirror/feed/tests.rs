//! Tests of the feed on a store whose history they write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};

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
        replaces: None,
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
async fn put_realms_and_key(
    world: &World,
    realms: impl IntoIterator<Item = Realm>,
    reads: bool,
    is_new: bool,
) {
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
    holds(view, "write")
}

/// Whether the key of `sample` holds this scope.
fn holds(view: &View<'_>, scope: &str) -> bool {
    let hierarchy = &view.realm("demo").unwrap().hierarchy;
    let Some(Entry::Key(key)) = view.key(sample().id) else {
        panic!("there is a key");
    };
    let index = hierarchy.index_of(scope).unwrap();
    key.effective(hierarchy).contains(index)
}

/// The other way round: it has at every moment what all states of the store give it. Seen red with `restricted_by` in the place of
/// `narrowed_to`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_keeps_a_scope_while_the_implications_of_the_scope_change() {
    let mut world = World::new().await;
    put_realms_and_key(&world, realms(false, 0), true, true).await;
    world.feed.poll().await.unwrap();
    let mirror = world.feed.mirror();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let reader = std::thread::spawn(move || {
        let mut decisions = 0;
        while !over.load(Ordering::Relaxed) {
            assert!(
                holds(&mirror.index().view(), "read"),
                "decision {decisions}"
            );
            decisions += 1;
        }
    });
    for round in 1..20 {
        put_realms_and_key(&world, realms(round % 2 == 1, round), true, false).await;
        world.feed.poll().await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    world.assert_equals_a_fresh_load().await;
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

/// Seen red without the wait for the realms that were replaced, and with realms that are replaced by a poll that does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_takes_long_sees_no_key_that_is_newer_than_its_realms() {
    let mut world = World::new().await;
    put_realms_and_key(&world, realms(true, 0), false, true).await;
    world.feed.poll().await.unwrap();
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
    put_realms_and_key(&world, [], false, false).await;
    world.feed.poll().await.unwrap();
    put_realms_and_key(&world, realms(false, 1), true, false).await;
    world.feed.poll().await.unwrap();
    reader.join().unwrap();
    world.assert_equals_a_fresh_load().await;
}

/// Seen red with `forget_import` that removes the digest of any key.
#[tokio::test]
async fn an_imported_key_is_found_whose_api_key_another_one_had() {
    let mut world = World::new().await;
    put_realms_and_key(&world, realms(false, 0), true, true).await;
    let with_mac = |id: u8, mac: u8| {
        let mut key = sample();
        key.id = KeyId::from_bytes([id; 16]);
        key.secrets[0].imported = true;
        key.secrets[0].digest.mac = [mac; 32];
        key
    };
    let commit = async |change: Change, kind: EventKind, key: &Key| {
        let (partner, id) = (Some(key.partner.clone()), Some(key.id));
        commit_of(change, kind, key.realm.clone(), partner, id).await;
    };
    for id in [1, 5, 9] {
        let mut change = world.change().await;
        change.insert_key(&with_mac(id, id)).await.unwrap();
        commit(change, EventKind::KeyImported, &with_mac(id, id)).await;
    }
    world.feed.poll().await.unwrap();
    // The rows come in the order of their ids.
    for (id, other) in [(1, 2), (5, 4), (9, 8)] {
        let mut change = world.change().await;
        change
            .update_key(&mut with_mac(id, 100 + id))
            .await
            .unwrap();
        commit(change, EventKind::KeyRotated, &with_mac(id, 100 + id)).await;
        let mut change = world.change().await;
        change.insert_key(&with_mac(other, id)).await.unwrap();
        commit(change, EventKind::KeyImported, &with_mac(other, id)).await;
    }
    world.feed.poll().await.unwrap();
    world.assert_equals_a_fresh_load().await;
}

/// Seen red with a feed that goes on from the last poll that did not fail: it does not know then what it holds.
#[tokio::test]
async fn what_a_poll_applied_before_it_failed_is_part_of_the_history() {
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
    let mirror = world.feed.mirror();
    let has_scopes = || {
        let index = mirror.index();
        let view = index.view();
        let Some(Entry::Key(key)) = view.key(sample().id) else {
            panic!("there is a key");
        };
        !key.effective(&view.realm("demo").unwrap().hierarchy)
            .is_empty()
    };
    assert!(!has_scopes(), "what can be read is applied");

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
    assert!(!has_scopes());
    assert!(mirror.index().is_held(&Holdable::Key(sample().id)));
}
