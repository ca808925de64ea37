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
use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use pb::{KeyLevel, KeySecret, Verdict};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fixtures::{
    Api, DAY, Engine, HOUR, IssuedKey, NOW, Service, TestStore, after, authority_key_request,
    events_of, get, hex_of, import, import_entry, import_entry_of, issue, issue_request,
    issue_request_with, on_both_engines, revoke_keys, rotate, strings, time, update,
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

on_both_engines! {
    /// Seen red with the digest of one key changed in the fixture, and with another version's pepper.
    async fn the_keys_of_every_released_store_keep_their_verdicts(engine: Engine) {
        for folder in versions() {
            let (test_store, contents) = restore(engine, &folder);
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
            service.stop().await;
        }
    }

    /// Seen red without `update_built_in_realm`.
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
        assert_eq!(scopes(realm.realm.unwrap()), ["operator", "manage", "verify"]);
        let events = pb::ListEventsRequest {
            realm: "claviger".to_owned(),
            kind: "realm.put".to_owned(),
            ..Default::default()
        };
        let listed = root.keys.list_events(events.clone()).await.unwrap().into_inner();
        assert_eq!(listed.events.len(), 1);
        assert_eq!(listed.events[0].actor, "", "the server itself made the change");
        issue(&mut root, authority_key_request("manage", "demo")).await;

        let test_store = service.stop().await;
        let service = Service::start_with(test_store, clock, &contents.operator, &[]).await;
        let mut root = service.api();
        let listed = root.keys.list_events(events).await.unwrap().into_inner();
        assert_eq!(listed.events.len(), 1, "a second start changes nothing");
        service.stop().await;
    }
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

/// One key of each kind.
async fn fill(root: &mut Api) -> BTreeMap<String, KnownKey> {
    root.make_demo().await;
    root.put_partner("initech", false).await;
    root.put_partner("hooli", false).await;
    let mut keys = BTreeMap::new();
    let mut add = |name: &str, id: &str, plain_key: &str, client_ip: &str, verdict: Verdict| {
        let key = KnownKey {
            id: id.to_owned(),
            plain_key: plain_key.to_owned(),
            client_ip: client_ip.to_owned(),
            verdict: verdict.as_str_name().to_owned(),
        };
        keys.insert(name.to_owned(), key);
    };

    let own = issue(
        root,
        issue_request_with(|request| {
            request.name = "own key".to_owned();
            request.labels = [("team".to_owned(), "data".to_owned())].into();
        }),
    )
    .await;
    assert_eq!(
        verdict(root, &own.plain_key, "").await,
        Verdict::Allowed,
        "and so it has a use"
    );
    add("own", &own.id, &own.plain_key, "", Verdict::Allowed);

    let project = issue(
        root,
        issue_request_with(|request| {
            request.project = "one".to_owned();
            request.level = KeyLevel::Project.into();
        }),
    )
    .await;
    add(
        "project",
        &project.id,
        &project.plain_key,
        "",
        Verdict::Allowed,
    );

    let staging = issue(
        root,
        issue_request_with(|request| request.environment = "staging".to_owned()),
    )
    .await;
    let mismatch = Verdict::EnvironmentMismatch;
    add("staging", &staging.id, &staging.plain_key, "", mismatch);

    let full = issue(
        root,
        issue_request_with(|request| {
            request.scopes = Vec::new();
            request.full_access = true;
        }),
    )
    .await;
    add(
        "full access",
        &full.id,
        &full.plain_key,
        "",
        Verdict::Allowed,
    );

    let rotated = issue(root, issue_request()).await;
    let IssuedKey { id, plain_key, .. } = rotated;
    let new = rotate(root, &id, 30 * DAY / 1_000_000).await.unwrap();
    let secrets: Vec<KeySecret> = new.key.unwrap().secrets;
    assert_eq!(secrets.len(), 2);
    add("rotated", &id, &new.plain_key, "", Verdict::Allowed);
    add("rotated, old secret", &id, &plain_key, "", Verdict::Allowed);

    let leaked = issue(root, issue_request()).await;
    let new = rotate(root, &leaked.id, 0).await.unwrap();
    add(
        "rotated at once",
        &leaked.id,
        &new.plain_key,
        "",
        Verdict::Allowed,
    );
    let unknown = Verdict::Unknown;
    add(
        "rotated at once, old secret",
        &leaked.id,
        &leaked.plain_key,
        "",
        unknown,
    );

    let (foreign, hashed) = (
        "TtgGcQFq.s3fzq0Wm4yXv7LbTn2RkDj8HcPuEa5Ai",
        "sk_9Zr2LxW7bQn4TtYc0HdVfMgKp8Us3JeRa6oIyB1N",
    );
    let digest = hex_of(&Sha256::digest(hashed));
    let entries = vec![
        import_entry(foreign),
        import_entry_of(Secret::Sha256(digest)),
    ];
    let imported = import(root, entries).await;
    let id = |index: usize| imported[index].as_ref().unwrap().clone();
    add("imported", &id(0), foreign, "", Verdict::Allowed);
    add("imported by its hash", &id(1), hashed, "", Verdict::Allowed);

    let revoked = issue(root, issue_request()).await;
    root.revoke(&revoked.id).await.unwrap();
    add(
        "revoked",
        &revoked.id,
        &revoked.plain_key,
        "",
        Verdict::Revoked,
    );

    let of = |partner: &str| {
        let partner = partner.to_owned();
        issue_request_with(move |request| request.partner = partner)
    };
    let in_bulk = issue(root, of("hooli")).await;
    revoke_keys(root, |request| {
        request.filter.get_or_insert_default().partner = "hooli".to_owned();
    })
    .await
    .unwrap();
    add(
        "revoked in bulk",
        &in_bulk.id,
        &in_bulk.plain_key,
        "",
        Verdict::Revoked,
    );
    let after_bulk = issue(root, of("hooli")).await;
    let allowed = Verdict::Allowed;
    add(
        "issued after the bulk",
        &after_bulk.id,
        &after_bulk.plain_key,
        "",
        allowed,
    );

    let bound = issue(
        root,
        issue_request_with(|request| {
            request.allowed_cidrs = strings(&["192.0.2.0/24", "2001:db8::/32"])
        }),
    )
    .await;
    add(
        "with ranges",
        &bound.id,
        &bound.plain_key,
        "192.0.2.7",
        allowed,
    );
    let denied = Verdict::AddressDenied;
    add(
        "with ranges, from elsewhere",
        &bound.id,
        &bound.plain_key,
        "198.51.100.7",
        denied,
    );

    let disabled = issue(root, issue_request()).await;
    let request = pb::DisableKeyRequest {
        key_id: disabled.id.clone(),
        ..Default::default()
    };
    root.keys.disable_key(request).await.unwrap();
    add(
        "disabled",
        &disabled.id,
        &disabled.plain_key,
        "",
        Verdict::Disabled,
    );

    let short = issue(
        root,
        issue_request_with(|request| request.expire_time = time(HOUR / 2)),
    )
    .await;
    add("expired", &short.id, &short.plain_key, "", Verdict::Expired);

    let updated = issue(root, issue_request()).await;
    update(root, &updated.id, &["name", "scopes"], |request| {
        request.name = "narrowed".to_owned();
        request.scopes = strings(&["read"]);
    })
    .await
    .unwrap();
    add(
        "updated",
        &updated.id,
        &updated.plain_key,
        "",
        Verdict::Allowed,
    );

    let suspended = issue(root, of("initech")).await;
    root.put_partner("initech", true).await;
    let verdict = Verdict::PartnerSuspended;
    add(
        "suspended partner",
        &suspended.id,
        &suspended.plain_key,
        "",
        verdict,
    );

    // Gone without a trace but its tombstone.
    let deleted = issue(root, issue_request()).await;
    root.delete(&deleted.id).await.unwrap();
    assert_eq!(events_of(root, &deleted.id).await.len(), 2);
    keys
}
