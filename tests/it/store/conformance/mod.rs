//! What the use cases rely on in a store, of whichever engine: each test is written once and run on both.

mod changes;
mod owner_usage;
mod pages;
mod rows;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claviger::domain::access::Access;
use claviger::domain::event::{Actor, Event, EventKind, Revision, Subject};
use claviger::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use claviger::domain::key::{Digest, Key, Level, Secret};
use claviger::domain::partner::{Partner, Project};
use claviger::domain::realm::Realm;
use claviger::domain::time::{Expiry, Timestamp};
use claviger::store::{Change, KeyFilter, NewAuthority, Snapshot, Store};

use crate::fixtures::{Engine, OpenStore, TestStore};

/// A store with its first change made, which put the realm `demo`.
struct DemoStore {
    test_store: Arc<TestStore>,
    opened: OpenStore,
}

impl DemoStore {
    async fn new(engine: Engine) -> Self {
        let test_store = TestStore::on(engine);
        let opened = test_store.open().await;
        let change = opened
            .store
            .create_authority(&new_authority())
            .await
            .unwrap();
        let mut change = change.expect("a new store");
        change.put_realm(&realm("demo")).await.unwrap();
        record(change, EventKind::AuthorityCreated, about("demo")).await;
        Self { test_store, opened }
    }

    fn store(&self) -> &Store {
        &self.opened.store
    }

    async fn change(&self) -> Change {
        self.store().change(at(2)).await.unwrap()
    }

    async fn snapshot(&self) -> Snapshot {
        self.store().snapshot().await.unwrap()
    }

    /// One change that does this.
    async fn put(&self, what: impl AsyncFnOnce(&mut Change)) -> Revision {
        let mut change = self.change().await;
        what(&mut change).await;
        record(change, EventKind::RealmPut, about("demo")).await
    }
}

fn new_authority() -> NewAuthority {
    NewAuthority {
        pepper: 1,
        canary: [7; 32],
        seal: [8; 32],
        time: at(1),
    }
}

async fn record(change: Change, kind: EventKind, subject: Subject) -> Revision {
    let event = event(&change, kind, subject);
    change.commit(&event).await.unwrap().revision
}

/// The event of this change, of the command line.
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

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn about(realm: &str) -> Subject {
    Subject {
        realm: realm_id(realm),
        partner: None,
        project: None,
        key: None,
    }
}

fn realm_id(text: &str) -> RealmId {
    RealmId::parse(text).unwrap()
}

fn partner_id(text: &str) -> PartnerId {
    PartnerId::parse(text).unwrap()
}

fn project_id(text: &str) -> ProjectId {
    ProjectId::parse(text).unwrap()
}

/// A realm of this name, and of a prefix that is made of it.
fn realm(id: &str) -> Realm {
    let prefix = id.replace('-', "");
    let text = format!(
        r#"{{"id": "{id}", "prefix": "{prefix}", "environments": [{{"name": "production", "tag": "live"}}], "scopes": [],
            "admin_scope": null, "unscoped_keys": "no_access", "levels": ["partner", "project"],
            "max_cache": {{"secs": 0, "nanos": 0}}, "max_lifetime": null}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn partner(id: &str) -> Partner {
    Partner {
        realm: realm_id("demo"),
        id: partner_id(id),
        display_name: String::new(),
        suspended: false,
    }
}

fn project(id: &str, partner: &str) -> Project {
    Project {
        realm: realm_id("demo"),
        id: project_id(id),
        partner: partner_id(partner),
        display_name: String::new(),
    }
}

/// A key of `acme`; the number makes its id, by which keys are in order.
fn key(number: u8) -> Key {
    Key {
        id: KeyId::from_bytes([number; 16]),
        realm: realm_id("demo"),
        partner: partner_id("acme"),
        level: Level::Partner,
        environment: EnvironmentName::parse("production").unwrap(),
        name: String::new(),
        external_id: None,
        hint: "demo_live_…abcd".to_owned(),
        access: Access::Scopes(BTreeSet::from([ScopeName::parse("read").unwrap()])),
        labels: BTreeMap::new(),
        allowed_cidrs: Vec::new(),
        created_at: at(1),
        created_by: None,
        created_revision: Revision::from(1),
        expires_at: Expiry::Never,
        disabled: false,
        withheld: false,
        revocation: None,
        secrets: vec![Secret {
            digest: Digest {
                pepper: 1,
                mac: [number; 32],
            },
            created_at: at(1),
            expires_at: Expiry::Never,
            imported: false,
            hint: String::new(),
            last_use: None,
        }],
        last_use: None,
        revision: Revision::default(),
    }
}

/// Lets every key of `demo` through.
fn all_keys() -> KeyFilter {
    KeyFilter::new(realm_id("demo"), at(10), 100)
}
