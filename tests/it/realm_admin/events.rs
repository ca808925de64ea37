//! What the audit trail says about the change of a realm.

use claviger::pb::claviger::v1 as pb;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::fixtures::{
    Api, Engine, Service, TestStore, demo_realm, hex_of, on_both_engines, refused_field, strings,
};

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

/// The revisions of the events that match.
async fn revisions_of(api: &mut Api, request: pb::ListEventsRequest) -> Vec<u64> {
    let listed = api.keys.list_events(request).await.unwrap().into_inner();
    listed.events.iter().map(|event| event.revision).collect()
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

    /// Seen red with `partner.suspended` as the kind of the event, without `kinds` in the filters of a page, and with
    /// the suspension told of each change of a suspended partner.
    async fn suspending_and_restoring_a_partner_is_found_and_what_version_0_1_0_reads_stays(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let put = |display_name: &str, suspended| pb::PutPartnerRequest {
            partner: Some(pb::Partner {
                realm: "demo".to_owned(),
                id: "acme".to_owned(),
                display_name: display_name.to_owned(),
                suspended,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut revisions = Vec::new();
        for request in [
            put("", Some(true)),
            put("Acme", None),
            put("\"suspension\":\"ended\"", Some(true)),
            put("", Some(false)),
            put("Acme", Some(false)),
            put("Acme", Some(true)),
        ] {
            let answer = api.realms.put_partner(request).await.unwrap().into_inner();
            revisions.push(answer.revision);
        }
        let born_suspended = api.put_partner("initech", true).await.revision;
        let [began, renamed, quoted, ended, renamed_again, began_again] = revisions[..] else {
            panic!("{revisions:?}");
        };
        let revoked = api.issue().await.key.unwrap().id;
        api.revoke(&revoked).await.unwrap();
        let request = |kinds: &[&str]| pb::ListEventsRequest {
            realm: "demo".to_owned(),
            kinds: strings(kinds),
            ..Default::default()
        };
        let all_began = [born_suspended, began_again, began];
        assert_eq!(revisions_of(&mut api, request(&["partner.suspended"])).await, all_began);
        assert_eq!(revisions_of(&mut api, request(&["partner.restored"])).await, [ended]);
        let both = request(&["partner.restored", "partner.suspended"]);
        assert_eq!(revisions_of(&mut api, both.clone()).await, [born_suspended, began_again, ended, began]);
        let of_key = request(&["key.revoked", "partner.restored"]);
        assert_eq!(revisions_of(&mut api, of_key).await.len(), 2);
        // The older field is one more kind, and takes the new names.
        let older = pb::ListEventsRequest { kind: "partner.suspended".to_owned(), ..request(&["partner.restored"]) };
        assert_eq!(revisions_of(&mut api, older).await.len(), 4);
        let puts = pb::ListEventsRequest { kind: "partner.put".to_owned(), partner: "acme".to_owned(), ..request(&[]) };
        let mut puts = revisions_of(&mut api, puts).await;
        puts.truncate(6);
        assert_eq!(puts, [began_again, renamed_again, ended, quoted, renamed, began]);

        // Each event is what version 0.1.0 knows, and says besides what it did.
        let mut listed = Vec::new();
        let mut page = pb::ListEventsRequest { page_size: 3, ..both.clone() };
        loop {
            let answer = api.keys.list_events(page.clone()).await.unwrap().into_inner();
            listed.extend(answer.events);
            page.page_token = answer.next_page_token;
            if page.page_token.is_empty() {
                break;
            }
            // The token is of these filters only.
            let other = pb::ListEventsRequest { kinds: strings(&["partner.suspended"]), ..page.clone() };
            refused_field(api.keys.list_events(other).await, "page_token");
        }
        let told: Vec<_> = listed.iter().map(|event| {
            assert_eq!(event.kind, "partner.put");
            (event.detail["suspended"].as_str(), event.detail["suspension"].as_str())
        }).collect();
        let (on, off) = (("true", "began"), ("false", "ended"));
        assert_eq!(told, [on, on, off, on]);
        // They can be followed.
        let next = pb::ListEventsRequest { after_revision: Some(began), ..both };
        let mut followed = revisions_of(&mut api, next).await;
        followed.reverse();
        assert_eq!(followed, [born_suspended, began_again, ended]);

        refused_field(api.keys.list_events(request(&["key.revoked", "partner.ended"])).await, "kinds[1]");
        refused_field(api.keys.list_events(request(&[""])).await, "kinds[0]");
        refused_field(api.keys.list_events(request(&["key.revoked"; 25])).await, "kinds");
        service.stop().await;
    }
}
