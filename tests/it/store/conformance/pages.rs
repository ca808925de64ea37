//! Pages end when they are full, and the next page starts with the next row.

use std::collections::{BTreeMap, BTreeSet};

use claviger::domain::access::Scope;
use claviger::domain::event::{Actor, Event, EventKind, Revision, SoughtKind};
use claviger::domain::ids::{KeyId, ScopeName};
use claviger::store::{EventFilter, KeyFilter, PartnerRow, ProjectRow, RealmRow, Snapshot};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{DemoStore, about, all_keys, key, partner, partner_id, project, realm, realm_id};
use crate::fixtures::Engine;

/// The sizes of the items, in their order. `None` is a row that cannot be read.
const ROWS: [Option<usize>; 17] = [
    Some(0),
    Some(10),
    None,
    Some(10),
    Some(1),
    Some(0),
    Some(70),
    Some(3),
    None,
    None,
    Some(30),
    Some(100),
    Some(100),
    Some(5),
    Some(6),
    Some(7),
    None,
];

#[derive(Clone, Copy, Debug)]
enum List {
    Events,
    Keys,
    Realms,
    Partners,
    Projects,
}

/// What fits into a page, in bytes, and how many items were offered to it.
struct Room {
    bytes: usize,
    used: Option<usize>,
    offered: usize,
}

impl Room {
    /// Takes an item unless the page is full. The first item always fits.
    fn take(&mut self, size: usize) -> bool {
        self.offered += 1;
        let used = self.used.map_or(0, |used| used + size);
        let fits = self.used.is_none() || used <= self.bytes;
        if fits {
            self.used = Some(self.used.map_or(size, |_| used));
        }
        fits
    }
}

/// The pages as they should be: the numbers of the rows whose items are on them.
fn expected(limit: u32, bytes: usize) -> Vec<Vec<usize>> {
    let mut pages = vec![Vec::new()];
    let (mut rows, mut used) = (0, 0);
    for (number, size) in ROWS.iter().enumerate() {
        let page = pages.last().unwrap();
        let is_full =
            rows == limit || size.is_some_and(|size| !page.is_empty() && used + size > bytes);
        if is_full {
            pages.push(Vec::new());
            (rows, used) = (0, 0);
        }
        rows += 1;
        if let Some(size) = size {
            used += size;
            pages.last_mut().unwrap().push(number);
        }
    }
    pages
}

fn id(number: usize) -> String {
    format!("r{number:02}")
}

/// Puts the rows into each list.
async fn fill(demo: &DemoStore) {
    let text = |size: Option<usize>| "x".repeat(size.unwrap_or_default());
    demo.put(async |change| {
        for (number, size) in ROWS.into_iter().enumerate() {
            let mut realm = realm(&format!("e{}", id(number)));
            realm.scopes.push(Scope {
                name: ScopeName::parse("read").unwrap(),
                implies: BTreeSet::new(),
                description: text(size),
                replaces: None,
            });
            change.put_realm(&realm).await.unwrap();
            let mut partner = partner(&id(number));
            partner.display_name = text(size);
            change.put_partner(&partner).await.unwrap();
            let mut project = project(&id(number), "r00");
            project.display_name = text(size);
            change.put_project(&project).await.unwrap();
            // Newest first.
            let mut key = key(u8::try_from(100 - number).unwrap());
            key.name = text(size);
            change.insert_key(&key).await.unwrap();
        }
    })
    .await;
    for (number, size) in ROWS.into_iter().enumerate().rev() {
        let change = demo.change().await;
        let event = Event {
            revision: change.revision(),
            time: change.time(),
            actor: Actor::command_line(),
            kind: EventKind::KeyDeleted,
            subject: about("demo"),
            detail: BTreeMap::from([
                ("number".to_owned(), id(number)),
                ("text".to_owned(), text(size)),
            ]),
        };
        change.commit(&event).await.unwrap();
    }
    let corrupt = ROWS.iter().enumerate().filter(|(_, size)| size.is_none());
    for (number, _) in corrupt {
        let id = id(number);
        let hex = format!("{:02x}", 100 - number).repeat(8);
        demo.test_store
            .execute_sql(&[
                &format!("UPDATE realms SET definition = replace(definition, '\"levels\"', '\"devils\"') WHERE id = 'e{id}'"),
                &format!("UPDATE events SET realm = '?' WHERE detail LIKE '%{id}%'"),
                &format!("UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"') WHERE facts LIKE '%{hex}%'"),
                &format!("UPDATE partners SET id = '{id} ?' WHERE id = '{id}'"),
                &format!("UPDATE projects SET id = '{id} ?' WHERE id = '{id}'"),
            ])
            .await;
    }
}

/// A page of the list from this position on: the ids of its items, and the position of the next page.
async fn page(
    snapshot: &mut Snapshot,
    list: List,
    limit: u32,
    position: Option<String>,
    room: &mut Room,
) -> (Vec<String>, Option<String>) {
    let after = position.as_deref().unwrap_or_default();
    match list {
        List::Events => {
            let filter = EventFilter {
                kinds: vec![SoughtKind::Every(EventKind::KeyDeleted)],
                before: position.map(|revision| Revision::from(revision.parse::<u64>().unwrap())),
                limit,
                ..EventFilter::default()
            };
            let take = |event: Event| {
                room.take(event.detail["text"].len())
                    .then(|| event.detail["number"].clone())
            };
            let page = snapshot.list_events(&filter, take).await.unwrap();
            (page.items, page.next.map(|revision| revision.to_string()))
        }
        List::Keys => {
            let filter = KeyFilter {
                before: position.map(|key| KeyId::parse(&key).unwrap()),
                limit,
                ..all_keys()
            };
            let page = snapshot
                .list_keys(&filter, |key| room.take(key.name.len()).then_some(key))
                .await
                .unwrap();
            let ids = page
                .items
                .iter()
                .map(|key| id(100 - usize::from(key.id.as_bytes()[0])));
            (ids.collect(), page.next.map(|key| key.to_string()))
        }
        List::Realms => {
            let take = |row: RealmRow| {
                let scope = row.value.scopes.first();
                let size = scope.map_or(0, |scope| scope.description.len());
                room.take(size)
                    .then(|| row.value.id.as_str()[1..].to_owned())
            };
            // The realm `demo` is before the others.
            let after = position.as_deref().unwrap_or("demo");
            let page = snapshot.list_realms(after, limit, take).await.unwrap();
            (page.items, page.next)
        }
        List::Partners => {
            let take = |row: PartnerRow| {
                room.take(row.value.display_name.len())
                    .then(|| row.value.id.to_string())
            };
            let realm = realm_id("demo");
            let page = snapshot.list_partners(&realm, after, limit, take).await;
            let page = page.unwrap();
            (page.items, page.next)
        }
        List::Projects => {
            let take = |row: ProjectRow| {
                room.take(row.value.display_name.len())
                    .then(|| row.value.id.to_string())
            };
            let (realm, owner) = (realm_id("demo"), partner_id("r00"));
            let page = snapshot
                .list_projects(&realm, Some(&owner), after, limit, take)
                .await
                .unwrap();
            (page.items, page.next)
        }
    }
}

async fn check(demo: &DemoStore, list: List, limit: u32, bytes: usize) {
    let mut position = None;
    let pages = expected(limit, bytes);
    for (number, expected) in pages.iter().enumerate() {
        let mut room = Room {
            bytes,
            used: None,
            offered: 0,
        };
        // A snapshot for each page, because a page that leaves rows gives its connection up.
        let mut snapshot = demo.snapshot().await;
        let (items, next) = page(&mut snapshot, list, limit, position, &mut room).await;
        let expected: Vec<_> = expected.iter().map(|number| id(*number)).collect();
        let what = format!("page {number} of {list:?}, {limit} rows, {bytes} bytes");
        assert_eq!(items, expected, "{what}");
        assert!(
            room.offered <= items.len() + 1,
            "{what}: {} were read",
            room.offered
        );
        assert_eq!(next.is_some(), number + 1 < pages.len(), "{what}");
        position = next;
    }
}

/// Seen red with the position of the first row that is not on the page as that of the next page, and with rows that cannot be
/// read not counted.
fn every_row_is_on_exactly_one_page(engine: Engine, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let demo = runtime.block_on(async {
        let demo = DemoStore::new(engine).await;
        fill(&demo).await;
        demo
    });
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let plan = (1..20_u32, prop_oneof![0..20_usize, 20..400_usize]);
    let outcome = runner.run(&plan, |(limit, bytes)| {
        for list in [
            List::Events,
            List::Keys,
            List::Realms,
            List::Partners,
            List::Projects,
        ] {
            runtime.block_on(check(&demo, list, limit, bytes));
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

mod sqlite {
    #[test]
    fn every_row_is_on_exactly_one_page() {
        super::every_row_is_on_exactly_one_page(super::Engine::Sqlite, 40);
    }
}

mod postgres {
    #[test]
    fn every_row_is_on_exactly_one_page() {
        super::every_row_is_on_exactly_one_page(super::Engine::Postgres, 5);
    }
}
