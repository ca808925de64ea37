//! What the audit trail says about the change of a realm.

use claviger::pb::claviger::v1 as pb;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::fixtures::{Api, Engine, Service, TestStore, demo_realm, hex_of, on_both_engines};

/// The SHA-256 of a realm's definition, as an operator computes it from the database.
async fn stored_sha256(engine: Engine, test_store: &TestStore) -> String {
    match engine {
        Engine::Sqlite => {
            let options =
                SqliteConnectOptions::new().filename(test_store.data().join("claviger.db"));
            let mut connection = options.connect().await.unwrap();
            let definition: String =
                sqlx::query_scalar("SELECT definition FROM realms WHERE id = 'demo'")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
            connection.close().await.unwrap();
            hex_of(&Sha256::digest(definition))
        }
        Engine::Postgres => {
            let hex = "SELECT encode(sha256(convert_to(definition, 'UTF8')), 'hex') FROM realms WHERE id = 'demo'";
            test_store.database().ask(hex).trim().to_owned()
        }
    }
}

async fn newest(api: &mut Api) -> pb::Event {
    let request = pb::ListEventsRequest {
        kind: "realm.put".to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let listed = api.keys.list_events(request).await.unwrap().into_inner();
    listed.events.into_iter().next().unwrap()
}

on_both_engines! {
    /// Seen red with the digest of the definition before, and with the definition in the event.
    async fn an_event_has_the_names_of_the_changed_fields_and_the_digest_of_the_definition(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        let mut realm = demo_realm();
        "Ünïcode".clone_into(&mut realm.scopes[0].description);
        api.put_realm(realm.clone()).await;
        let mut event = newest(&mut api).await;
        let sha256 = stored_sha256(engine, &service.test_store).await;
        assert_eq!(event.detail.remove("created").unwrap(), "true");
        assert_eq!(event.detail.remove("definition_sha256").unwrap(), sha256);
        assert!(event.detail.is_empty(), "{:?}", event.detail);

        realm.scopes.pop();
        realm.max_cache = Some(prost_types::Duration { seconds: 5, nanos: 0 });
        realm.routes = vec![pb::Route { path: "/**".to_owned(), ..Default::default() }];
        api.put_realm(realm.clone()).await;
        let mut event = newest(&mut api).await;
        let after = stored_sha256(engine, &service.test_store).await;
        assert_ne!(after, sha256);
        assert_eq!(event.detail.remove("changed").unwrap(), "scopes max_cache routes");
        assert_eq!(event.detail.remove("definition_sha256").unwrap(), after);
        assert!(event.detail.is_empty(), "{:?}", event.detail);

        // The same put again is not a change.
        api.put_realm(realm).await;
        assert_eq!(newest(&mut api).await.revision, event.revision);
        service.stop().await;
    }
}
