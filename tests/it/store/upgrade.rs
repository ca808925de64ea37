//! Stores that earlier versions wrote are opened by this one, and their keys keep their verdicts.
//!
//! `tests/fixtures/stores/` has a folder for each version whose stores must open: a data directory, a dump of the same content in
//! PostgreSQL, the peppers, and the API keys with the verdicts that they had. The folder of a version is written once, by
//! `tests/run --test it -- --ignored write_the_store_fixture`, and never changed afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger::domain::clock::Clock;
use claviger::domain::ids::KeyId;
use claviger::domain::time::Hour;
use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use pb::{KeyLevel, Verdict};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fixtures::{
    Api, DAY, Engine, HOUR, IssuedKey, NOW, SECOND, Service, TestStore, after,
    authority_key_request, events_of, get, hex_of, import, import_entry, import_entry_of, issue,
    issue_request, issue_request_with, list_keys, on_both_engines, revoke_keys, rotate, strings,
    time, update,
};

/// What a fixture contains, besides the store and its pepper.
#[derive(Serialize, Deserialize)]
struct Contents {
    operator: String,
    /// By what makes each of them special.
    keys: BTreeMap<String, KnownKey>,
}

#[derive(Serialize, Deserialize)]
struct KnownKey {
    id: String,
    plain_key: String,
    /// The address of the client that presents it.
    client_ip: String,
    /// The name of the verdict, an hour after the store was written.
    verdict: String,
}

/// The folders of all versions.
fn versions() -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(stores())
        .unwrap()
        .map(|folder| folder.unwrap().path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "there is a store to test");
    folders
}

fn stores() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores")
}

fn folder_of(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgres",
    }
}

/// A copy of the store in a fixture's folder.
fn restore(engine: Engine, folder: &Path) -> (Arc<TestStore>, Contents) {
    let folder = folder.join(folder_of(engine));
    let test_store = TestStore::on(engine);
    fs::create_dir_all(test_store.data()).unwrap();
    fs::copy(folder.join("pepper.toml"), test_store.pepper()).unwrap();
    match engine {
        Engine::Sqlite => {
            let database = test_store.data().join("claviger.db");
            fs::copy(folder.join("claviger.db"), database).unwrap();
        }
        Engine::Postgres => {
            let dump = fs::read_to_string(folder.join("dump.sql")).unwrap();
            test_store.database().execute(&dump);
        }
    }
    let contents = fs::read_to_string(folder.join("contents.json")).unwrap();
    (test_store, serde_json::from_str(&contents).unwrap())
}

async fn verdict(api: &mut Api, plain_key: &str, client_ip: &str) -> Verdict {
    let request = pb::VerifyRequest {
        key: plain_key.to_owned(),
        realm: "demo".to_owned(),
        environment: "production".to_owned(),
        client_ip: client_ip.to_owned(),
        target: Some(pb::verify_request::Target::AnyTarget(true)),
        ..Default::default()
    };
    let answer = api.verify.verify(request).await.unwrap().into_inner();
    answer.verdict()
}

/// Seven uses of a key that was deleted, and uses of two keys of which nobody knows whose they were.
fn usage_of_deleted_keys(engine: Engine) -> Vec<String> {
    let id = |number: u8| match engine {
        Engine::Sqlite => format!("x'{}'", format!("{number:02x}").repeat(16)),
        Engine::Postgres => format!("'{}'", KeyId::from_bytes([number; 16])),
    };
    let hour = Hour::of(NOW).number();
    let deleted_at = NOW.as_micros();
    let used = |number: u8, count: u32| {
        format!(
            "INSERT INTO usage (key_id, hour, verdict, count) VALUES ({}, {hour}, 'ALLOWED', {count})",
            id(number)
        )
    };
    let deleted = |number: u8, owner: &str| {
        format!(
            "INSERT INTO tombstones (key_id, realm, partner, project, environment, deleted_at)
             VALUES ({}, {owner}, {deleted_at})",
            id(number)
        )
    };
    vec![
        deleted(1, "'demo', 'acme', 'one', 'production'"),
        deleted(2, "'demo', '', NULL, 'production'"),
        used(1, 7),
        used(2, 100),
        used(3, 1_000),
    ]
}

/// How the keys of `demo` were used in the hour when the store was written, by the number of the verdict.
async fn of_keys(api: &mut Api, ids: &[String]) -> BTreeMap<i32, u64> {
    let mut sums = BTreeMap::new();
    for id in ids {
        let request = pb::GetKeyUsageRequest {
            key_id: id.clone(),
            start_time: time(-DAY),
            end_time: time(SECOND),
            ..Default::default()
        };
        let usage = api.keys.get_key_usage(request).await.unwrap().into_inner();
        for total in usage.totals {
            *sums.entry(total.verdict).or_insert(0) += total.count;
        }
    }
    sums
}

/// The same, as it is kept for owners.
async fn of_owners(api: &mut Api) -> BTreeMap<i32, u64> {
    let request = pb::GetUsageRequest {
        realm: "demo".to_owned(),
        start_time: time(-DAY),
        end_time: time(SECOND),
        ..Default::default()
    };
    let usage = api.keys.get_usage(request).await.unwrap().into_inner();
    usage
        .totals
        .into_iter()
        .map(|total| (total.verdict, total.count))
        .collect()
}

on_both_engines! {
    /// Seen red with the digest of one key changed in the fixture, with another version's pepper, and with revisions that the
    /// migration does not fill in.
    async fn the_keys_of_every_released_store_keep_their_verdicts(engine: Engine) {
        for folder in versions() {
            let (test_store, contents) = restore(engine, &folder);
            // Only there the migration adds the usage of owners up.
            let is_before_owners = folder.ends_with("0.1.0-before-release");
            if is_before_owners {
                let rows = usage_of_deleted_keys(engine);
                test_store.execute_sql(&rows.iter().map(String::as_str).collect::<Vec<_>>()).await;
            }
            let clock = Clock::manual(after(HOUR));
            let service = Service::start_with(test_store, clock, &contents.operator, &[]).await;
            let mut root = service.api();
            for (name, key) in &contents.keys {
                let verdict = verdict(&mut root, &key.plain_key, &key.client_ip).await;
                assert_eq!(verdict.as_str_name(), key.verdict, "{name} in {}", folder.display());
            }
            let rotated = get(&mut root, &contents.keys["rotated"].id).await;
            assert_eq!(rotated.secrets.len(), 2, "an overlap is still one");
            let ids = root
                .keys
                .list_keys(pb::ListKeysRequest {
                    filter: Some(pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() }),
                    ..Default::default()
                })
                .await
                .unwrap();
            let mut ids: Vec<_> = ids.into_inner().keys.into_iter().map(|key| key.id).collect();
            let mut known: Vec<_> = contents.keys.values().map(|key| key.id.clone()).collect();
            ids.sort();
            known.sort();
            known.dedup();
            assert_eq!(ids, known, "every key is listed, and no other");

            // The revision of a key is that of its last event, which an earlier version did not keep with the key.
            for id in &ids {
                let request = pb::ListEventsRequest { key_id: id.clone(), ..Default::default() };
                let events = root.keys.list_events(request).await.unwrap().into_inner().events;
                assert_eq!(get(&mut root, id).await.revision, Some(events[0].revision), "{id}");
            }

            // Only a newer version gives external ids.
            let updated = &contents.keys["updated"].id;
            let taken = update(&mut root, updated, &["external_id"], |request| {
                "21fd1a8d".clone_into(&mut request.external_id);
            });
            assert_eq!(taken.await.unwrap().key.unwrap().external_id, "21fd1a8d");
            let of_id = list_keys(&mut root, |request| {
                "21fd1a8d".clone_into(&mut request.filter.get_or_insert_default().external_id);
            });
            assert_eq!(of_id.await.unwrap(), [updated.as_str()]);

            // Changes work on it too.
            let own = &contents.keys["own"];
            root.revoke(&own.id).await.unwrap();
            let revoked = verdict(&mut root, &own.plain_key, "").await;
            assert_eq!(revoked, Verdict::Revoked);
            let usage = pb::GetKeyUsageRequest {
                key_id: own.id.clone(),
                start_time: time(-DAY),
                ..Default::default()
            };
            let usage = root.keys.get_key_usage(usage).await.unwrap().into_inner();
            assert!(!usage.totals.is_empty(), "usage was kept");
            let mut sums = of_keys(&mut root, &ids).await;
            if is_before_owners {
                *sums.entry(Verdict::Allowed.into()).or_insert(0) += 7;
            }
            assert_eq!(of_owners(&mut root).await, sums, "usage was added up");
            service.stop().await;
        }
    }

    /// A build before 0.1.0 wrote the whole definition into the event of a realm. Seen red with an event that has a `definition` taken
    /// for corrupt.
    async fn every_event_of_every_released_store_is_listed(engine: Engine) {
        for folder in versions() {
            let (test_store, contents) = restore(engine, &folder);
            let clock = Clock::manual(after(HOUR));
            let service = Service::start_with(test_store, clock, &contents.operator, &[]).await;
            let request = pb::ListEventsRequest { page_size: 1_000, ..Default::default() };
            let listed = service.api().keys.list_events(request).await.unwrap().into_inner();
            let mut revisions: Vec<_> = listed.events.iter().map(|event| event.revision).collect();
            revisions.reverse();
            let all: Vec<_> = (1..=revisions.last().copied().unwrap()).collect();
            assert_eq!(revisions, all, "{}", folder.display());
            let put = listed.events.iter().find(|event| event.kind == "realm.put" && event.realm == "demo");
            if folder.ends_with("0.1.0-before-release") {
                assert!(put.unwrap().detail["definition"].contains("production"));
            }
            service.stop().await;
        }
    }

    /// Seen red without `replace_hash_hints`, without its part for keys, and without its part for events.
    async fn a_start_replaces_each_hint_that_shows_a_hash(engine: Engine) {
        for folder in versions() {
            let (test_store, contents) = restore(engine, &folder);
            let imported = &contents.keys["imported by its hash"];
            let hint = test_store.digest_hint(&imported.plain_key);
            let service =
                Service::start_with(test_store, Clock::manual(after(HOUR)), &contents.operator, &[]).await;
            let mut root = service.api();
            let key = get(&mut root, &imported.id).await;
            assert_eq!((key.hint.as_str(), key.secrets[0].hint.as_str()), (hint.as_str(), hint.as_str()));
            let key = get(&mut root, &contents.keys["imported"].id).await;
            assert_eq!(key.hint, "…a5Ai");

            let request = pb::ListEventsRequest { page_size: 1_000, ..Default::default() };
            let events = root.keys.list_events(request).await.unwrap().into_inner().events;
            let digits = &hex_of(&Sha256::digest(&imported.plain_key))[..8];
            for event in &events {
                assert!(!format!("{event:?}").contains(digits), "{event:?}");
            }
            let mut of_key = events.iter().rev().filter(|event| event.key_id == imported.id);
            let import = of_key.next().unwrap();
            assert_eq!((import.kind.as_str(), &import.detail["hint"]), ("key.imported", &hint));
            if folder.ends_with("0.1.0-before-release") {
                let update = of_key.next().unwrap();
                assert_eq!((update.kind.as_str(), update.actor.as_str()), ("key.updated", ""));
                assert_eq!((update.detail["changed"].as_str(), &update.detail["hint"]), ("hint", &hint));
            }
            assert_eq!(of_key.next(), None);
            service.stop().await;
        }
    }

    /// Seen red without `update_built_in_realm`, and with the error of a definition that cannot be read.
    async fn a_start_brings_the_built_in_realm_up_to_date_once(engine: Engine) {
        let folder = versions().pop().unwrap();
        let (test_store, contents) = restore(engine, &folder);
        // As a version would have stored it that did not know the scope `manage` yet.
        let shortened = match engine {
            Engine::Sqlite => {
                "UPDATE realms SET definition = json_remove(definition, '$.scopes[1]') WHERE id = 'claviger'"
            }
            Engine::Postgres => {
                "UPDATE realms SET definition = ((definition::jsonb) #- '{scopes,1}')::text WHERE id = 'claviger'"
            }
        };
        // SQLite needs the file, which a first opening would mend.
        test_store.execute_sql(&[shortened]).await;
        let clock = Clock::manual(after(HOUR));
        let service =
            Service::start_with(test_store, clock.clone(), &contents.operator, &[]).await;
        let mut root = service.api();
        let scopes = |realm: pb::Realm| {
            realm.scopes.into_iter().map(|scope| scope.name).collect::<Vec<_>>()
        };
        let request = pb::GetRealmRequest { realm_id: "claviger".to_owned() };
        let realm = root.realms.get_realm(request.clone()).await.unwrap().into_inner();
        assert_eq!(scopes(realm.realm.unwrap()), ["operator", "manage", "verify", "read"]);
        let events = pb::ListEventsRequest {
            realm: "claviger".to_owned(),
            kind: "realm.put".to_owned(),
            ..Default::default()
        };
        let listed = root.keys.list_events(events.clone()).await.unwrap().into_inner();
        assert_eq!(listed.events.len(), 1);
        assert_eq!(listed.events[0].actor, "", "the server itself made the change");
        assert_eq!(listed.events[0].detail["changed"], "scopes");
        issue(&mut root, authority_key_request("manage", "demo")).await;

        let test_store = service.stop().await;
        let service = Service::start_with(test_store, clock.clone(), &contents.operator, &[]).await;
        let mut root = service.api();
        let listed = root.keys.list_events(events.clone()).await.unwrap().into_inner();
        assert_eq!(listed.events.len(), 1, "a second start changes nothing");

        let test_store = service.stop().await;
        let spoil = "UPDATE realms SET definition = replace(definition, '\"scopes\"', '\"scope\"') WHERE id = 'claviger'";
        test_store.execute_sql(&[spoil]).await;
        let service = Service::start_with(test_store, clock, &contents.operator, &[]).await;
        let mut root = service.api();
        let listed = root.keys.list_events(events).await.unwrap().into_inner();
        assert_eq!(listed.events.len(), 2, "a definition that cannot be read is replaced");
        service.stop().await;
    }
}

/// A damaged page of the file can leave a row of facts that are no JSON. PostgreSQL reads no such text.
///
/// Seen red without `json_valid` in the migration, and with the older columns left as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_no_json_does_not_stop_the_migration_of_external_ids() {
    let service =
        Service::start_with(TestStore::on(Engine::Sqlite), Clock::manual(NOW), "", &[]).await;
    let mut root = service.api();
    root.make_demo().await;
    let spoiled = issue(&mut root, issue_request()).await;
    let good = issue(&mut root, issue_request()).await;
    let operator = service.operator.clone();
    let test_store = service.stop().await;
    // As before the migration.
    test_store
        .execute_sql(&[
            "DROP INDEX keys_by_external_id",
            "ALTER TABLE keys DROP COLUMN external_id",
            "ALTER TABLE keys DROP COLUMN created_at",
            "ALTER TABLE keys DROP COLUMN created_revision",
            "ALTER TABLE keys ADD COLUMN created_at INTEGER GENERATED ALWAYS AS (facts ->> '$.created_at') VIRTUAL",
            "ALTER TABLE keys ADD COLUMN created_revision INTEGER
                 GENERATED ALWAYS AS (facts ->> '$.created_revision') VIRTUAL",
            "DELETE FROM _sqlx_migrations WHERE version = 5",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "VACUUM",
        ])
        .await;
    let file = test_store.data().join("claviger.db");
    let mut bytes = fs::read(&file).unwrap();
    let row = format!("{{\"id\":\"{}\"", spoiled.id);
    let starts: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(row.as_bytes()))
        .collect();
    assert_eq!(starts.len(), 1, "the row is in the file once");
    bytes[starts[0]] = b'x';
    fs::write(&file, bytes).unwrap();

    let service = Service::start_with(test_store, Clock::manual(NOW), &operator, &[]).await;
    let mut root = service.api();
    assert_eq!(
        verdict(&mut root, &good.plain_key, "").await,
        Verdict::Allowed
    );
    let named = update(&mut root, &good.id, &["external_id"], |request| {
        "21fd1a8d".clone_into(&mut request.external_id);
    });
    named.await.unwrap();
    let listed = list_keys(&mut root, |_| ()).await.unwrap();
    assert_eq!(listed, [good.id.as_str()]);
    root.delete(&spoiled.id).await.unwrap();
    let again = update(&mut root, &good.id, &["name"], |request| {
        "named".clone_into(&mut request.name);
    });
    again.await.unwrap();
    service.stop().await;
}

/// Writes the fixture of this version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of a new version; run it once per release"]
async fn write_the_store_fixture() {
    let folder = stores().join(env!("CARGO_PKG_VERSION"));
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let folder = folder.join(folder_of(engine));
        assert!(!folder.exists(), "{} is there already", folder.display());
        fs::create_dir_all(&folder).unwrap();
        let service = Service::start_with(TestStore::on(engine), Clock::manual(NOW), "", &[]).await;
        let contents = Contents {
            keys: fill(&mut service.api()).await,
            operator: service.operator.clone(),
        };
        let test_store = service.stop().await;
        let json = serde_json::to_string_pretty(&contents).unwrap() + "\n";
        fs::write(folder.join("contents.json"), json).unwrap();
        fs::copy(test_store.pepper(), folder.join("pepper.toml")).unwrap();
        match engine {
            Engine::Sqlite => {
                // Everything into the one file.
                test_store
                    .execute_sql(&["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"])
                    .await;
                fs::copy(
                    test_store.data().join("claviger.db"),
                    folder.join("claviger.db"),
                )
                .unwrap();
            }
            Engine::Postgres => {
                fs::write(folder.join("dump.sql"), test_store.database().dump()).unwrap();
            }
        }
    }
}

/// The keys that a fixture is filled with: one of each kind.
struct Filling<'r> {
    root: &'r mut Api,
    keys: BTreeMap<String, KnownKey>,
}

async fn fill(root: &mut Api) -> BTreeMap<String, KnownKey> {
    root.make_demo().await;
    root.put_partner("initech", false).await;
    root.put_partner("hooli", false).await;
    let mut filling = Filling {
        root,
        keys: BTreeMap::new(),
    };
    filling.issue_keys().await;
    filling.rotate_keys().await;
    filling.import_keys().await;
    filling.revoke_keys().await;
    filling.restrict_keys().await;
    filling.keys
}

impl Filling<'_> {
    fn add(&mut self, name: &str, key: (&str, &str), client_ip: &str, verdict: Verdict) {
        let (id, plain_key) = key;
        let key = KnownKey {
            id: id.to_owned(),
            plain_key: plain_key.to_owned(),
            client_ip: client_ip.to_owned(),
            verdict: verdict.as_str_name().to_owned(),
        };
        self.keys.insert(name.to_owned(), key);
    }

    async fn issue(
        &mut self,
        name: &str,
        verdict: Verdict,
        change: impl FnOnce(&mut pb::IssueKeyRequest),
    ) -> IssuedKey {
        let key = issue(self.root, issue_request_with(change)).await;
        self.add(name, (&key.id, &key.plain_key), "", verdict);
        key
    }

    async fn issue_keys(&mut self) {
        let own = self.issue("own", Verdict::Allowed, |request| {
            "own key".clone_into(&mut request.name);
            request.labels = [("team".to_owned(), "data".to_owned())].into();
        });
        let own = own.await;
        // So that there is a use to be kept.
        assert_eq!(
            verdict(self.root, &own.plain_key, "").await,
            Verdict::Allowed
        );
        let project = self.issue("project", Verdict::Allowed, |request| {
            "one".clone_into(&mut request.project);
            request.level = KeyLevel::Project.into();
        });
        project.await;
        let staging = self.issue("staging", Verdict::EnvironmentMismatch, |request| {
            "staging".clone_into(&mut request.environment);
        });
        staging.await;
        let full = self.issue("full access", Verdict::Allowed, |request| {
            request.scopes = Vec::new();
            request.full_access = true;
        });
        full.await;
    }

    async fn rotate_keys(&mut self) {
        let old = self
            .issue("rotated, old secret", Verdict::Allowed, |_| ())
            .await;
        let new = rotate(self.root, &old.id, 30 * DAY / SECOND).await.unwrap();
        self.add("rotated", (&old.id, &new.plain_key), "", Verdict::Allowed);

        let old = self
            .issue("rotated at once, old secret", Verdict::Unknown, |_| ())
            .await;
        let new = rotate(self.root, &old.id, 0).await.unwrap();
        self.add(
            "rotated at once",
            (&old.id, &new.plain_key),
            "",
            Verdict::Allowed,
        );
    }

    async fn import_keys(&mut self) {
        let foreign = "TtgGcQFq.s3fzq0Wm4yXv7LbTn2RkDj8HcPuEa5Ai";
        let hashed = "sk_9Zr2LxW7bQn4TtYc0HdVfMgKp8Us3JeRa6oIyB1N";
        let digest = hex_of(&Sha256::digest(hashed));
        let entries = vec![
            import_entry(foreign),
            import_entry_of(Secret::Sha256(digest)),
        ];
        let imported = import(self.root, entries).await;
        let id = |index: usize| imported[index].as_ref().unwrap().clone();
        self.add("imported", (&id(0), foreign), "", Verdict::Allowed);
        self.add(
            "imported by its hash",
            (&id(1), hashed),
            "",
            Verdict::Allowed,
        );
    }

    async fn revoke_keys(&mut self) {
        let revoked = self.issue("revoked", Verdict::Revoked, |_| ()).await;
        self.root.revoke(&revoked.id).await.unwrap();

        let hooli = |request: &mut pb::IssueKeyRequest| "hooli".clone_into(&mut request.partner);
        self.issue("revoked in bulk", Verdict::Revoked, hooli).await;
        let revoked = revoke_keys(self.root, |request| {
            "hooli".clone_into(&mut request.filter.get_or_insert_default().partner);
        });
        revoked.await.unwrap();
        self.issue("issued after the bulk", Verdict::Allowed, hooli)
            .await;

        // Only its tombstone is left.
        let deleted = issue(self.root, issue_request()).await;
        self.root.delete(&deleted.id).await.unwrap();
        assert_eq!(events_of(self.root, &deleted.id).await.len(), 2);
    }

    async fn restrict_keys(&mut self) {
        let bound = self.issue(
            "with ranges, from elsewhere",
            Verdict::AddressDenied,
            |request| {
                request.allowed_cidrs = strings(&["192.0.2.0/24", "2001:db8::/32"]);
            },
        );
        let bound = bound.await;
        self.add(
            "with ranges",
            (&bound.id, &bound.plain_key),
            "192.0.2.7",
            Verdict::Allowed,
        );
        let elsewhere = self.keys.get_mut("with ranges, from elsewhere").unwrap();
        "198.51.100.7".clone_into(&mut elsewhere.client_ip);

        let disabled = self.issue("disabled", Verdict::Disabled, |_| ()).await;
        let request = pb::DisableKeyRequest {
            key_id: disabled.id,
            ..Default::default()
        };
        self.root.keys.disable_key(request).await.unwrap();

        let expired = self.issue("expired", Verdict::Expired, |request| {
            request.expire_time = time(HOUR / 2);
        });
        expired.await;

        let updated = self.issue("updated", Verdict::Allowed, |_| ()).await;
        let narrowed = update(self.root, &updated.id, &["name", "scopes"], |request| {
            "narrowed".clone_into(&mut request.name);
            request.scopes = strings(&["read"]);
        });
        narrowed.await.unwrap();

        let suspended = self.issue("suspended partner", Verdict::PartnerSuspended, |request| {
            "initech".clone_into(&mut request.partner);
        });
        suspended.await;
        self.root.put_partner("initech", true).await;
    }
}
