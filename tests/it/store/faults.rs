//! What a store that is corrupt, unreadable or restored from before does to a running server.

use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::domain::ids::{PartnerId, RealmId};
use claviger::domain::key::KeyState;
use claviger::domain::partner::Partner;
use claviger::pb::claviger::v1 as pb;
use claviger::readiness::Readiness;
use claviger::store::{self, KeyFilter};
use pb::Verdict;
use tonic::Code;

use super::holds_are_stored;
use crate::fixtures::{
    Engine, NOW, Service, eventually, import, import_entry, on_both_engines, verify_request,
};

/// How many keys are revoked, by the store.
async fn revoked(service: &Service) -> usize {
    let filter = KeyFilter {
        states: [KeyState::Revoked].into(),
        ..KeyFilter::new(RealmId::parse("demo").unwrap(), NOW, 10)
    };
    let mut snapshot = service.store.snapshot().await.unwrap();
    snapshot.list_keys(&filter, Some).await.unwrap().items.len()
}

on_both_engines! {
    /// Seen red with an unreadable event as an error of the poll: no later change is applied then.
    async fn an_event_that_cannot_be_read_does_not_stop_the_feed(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let statements = [
            "INSERT INTO events
             SELECT revision + 1, stamp + 1, time, actor, peer, 'no.such.kind', realm, partner, project, key_id, detail
             FROM events ORDER BY revision DESC LIMIT 1",
            "UPDATE authority SET revision = revision + 1",
        ];
        service.test_store.execute_sql(&statements).await;
        let issued = api.issue().await;
        assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Allowed);
        assert_eq!(*service.readiness.borrow(), Readiness::Ready);
        service.stop().await;
    }

    async fn a_corrupt_row_hurts_one_key_and_nothing_else(engine: Engine) {
        let service = Service::start(engine).await;
        let operator = service.operator.clone();
        let mut api = service.api();
        api.make_demo().await;
        let (bad, good) = (api.issue().await, api.issue().await);
        let bad_id = bad.key.unwrap().id;
        api.revoke(&good.key.unwrap().id).await.unwrap();
        let good = api.issue().await;
        let test_store = service.stop().await;
        // The oldest key of the realm loses its digest.
        let statement = "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"')
                         WHERE id = (SELECT id FROM keys WHERE realm = 'demo' ORDER BY id LIMIT 1)";
        test_store.execute_sql(&[statement]).await;

        let service = Service::start_with(test_store, Clock::system(), &operator, &[]).await;
        let mut api = service.api();
        assert_eq!(api.verdict(&good.plain_key).await, Verdict::Allowed);
        let refused = api
            .verify
            .verify(verify_request(&bad.plain_key))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Internal, "internal error: see the log of the server")
        );
        let refused = api
            .keys
            .get_key(pb::GetKeyRequest {
                key_id: bad_id.clone(), ..Default::default() })
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Internal, "internal error: see the log of the server")
        );
        let listed = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(
            api.keys
                .list_keys(listed)
                .await
                .unwrap()
                .into_inner()
                .keys
                .len(),
            2
        );
        assert_eq!(
            api.issue().await.key.unwrap().partner,
            "acme",
            "the rest goes on"
        );
        // It can at least be removed.
        assert!(api.delete(&bad_id).await.unwrap().key.is_none());
        assert_eq!(api.verdict(&bad.plain_key).await, Verdict::Unknown);
        service.stop().await;
    }

    /// Seen red with every error of a database taken for an outage.
    async fn a_value_that_the_database_refuses_is_no_outage(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let partner = |realm: &str, display_name: &str| Partner {
            realm: RealmId::parse(realm).unwrap(),
            id: PartnerId::parse("acme").unwrap(),
            display_name: display_name.to_owned(),
            suspended: false,
        };
        // A rule of the schema, and a value. SQLite stores this value.
        let mut refused = vec![partner("nowhere", "")];
        if engine == Engine::Postgres {
            refused.push(partner("demo", "a\0b"));
        }
        for partner in refused {
            let mut change = service.store.change(NOW).await.unwrap();
            let outcome = change.put_partner(&partner).await;
            assert!(matches!(outcome, Err(store::Error::Refused(_))), "{outcome:?}");
        }
        service.stop().await;
    }

    /// Such a key is found by its digest, which an unreadable row does not show. Seen red without `put_imports`: the API key was
    /// unknown.
    async fn an_imported_key_with_a_corrupt_row_is_no_unknown_key(engine: Engine) {
        const TEXTS: [&str; 2] = [
            "5f4c9a3e8d7b6c5a4f3e2d1c0b9a8f7e",
            "00112233445566778899aabbccddeeff",
        ];
        let service = Service::start(engine).await;
        let operator = service.operator.clone();
        let mut api = service.api();
        api.make_demo().await;
        let imported = import(&mut api, TEXTS.map(import_entry).to_vec()).await;
        let ids: Vec<_> = imported.into_iter().map(Result::unwrap).collect();
        let test_store = service.stop().await;
        // The first of them loses its digest.
        let statement = "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"')
                         WHERE id = (SELECT id FROM keys WHERE realm = 'demo' ORDER BY created_revision, id LIMIT 1)";
        test_store.execute_sql(&[statement]).await;

        let service = Service::start_with(test_store, Clock::system(), &operator, &[]).await;
        let mut api = service.api();
        let refused = api.verify.verify(verify_request(TEXTS[0])).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Internal, "internal error: see the log of the server")
        );
        assert_eq!(api.verdict(TEXTS[1]).await, Verdict::Allowed);
        // It can at least be removed.
        api.delete(&ids[0]).await.unwrap();
        assert_eq!(api.verdict(TEXTS[0]).await, Verdict::Unknown);
        service.stop().await;
    }

    /// Seen red with the keys left out of `hold_back`: the key is then good again.
    async fn a_revocation_once_seen_is_never_unseen_though_the_store_runs_backwards(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let issued = api.issue().await;
        let id = issued.key.unwrap().id;
        api.revoke(&id).await.unwrap();
        assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Revoked);

        // As if the database had been restored from before the revocation, under the running server.
        let without_revocation = match engine {
            Engine::Sqlite => "UPDATE keys SET facts = json_set(facts, '$.revocation', NULL)",
            Engine::Postgres => "UPDATE keys SET facts = jsonb_set(facts::jsonb, '{revocation}', 'null')::text",
        };
        let statements = [
            without_revocation,
            "DELETE FROM events WHERE revision = (SELECT max(revision) FROM events)",
            "UPDATE authority SET revision = revision - 1",
        ];
        service.test_store.execute_sql(&statements).await;
        assert_eq!(revoked(&service).await, 0, "the store knows of no revocation any more");
        holds_are_stored(&service).await;
        assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Revoked);
        service.stop().await;
    }

    /// Seen red with `revoked` in place of `is_revoked()` in `Index::hold_back`: the keys are then good again.
    async fn an_end_of_many_once_seen_is_never_unseen_though_the_store_runs_backwards(engine: Engine) {
        for partner in ["", "acme"] {
            let service = Service::start(engine).await;
            let mut api = service.api();
            api.make_demo().await;
            let keys = [api.issue().await.plain_key, api.issue().await.plain_key];
            let request = pb::RevokeKeysRequest {
                filter: Some(pb::KeyFilter { realm: "demo".to_owned(), partner: partner.to_owned(), ..Default::default() }),
                ..Default::default()
            };
            api.keys.revoke_keys(request).await.unwrap();

            // As if the database had been restored from before, under the running server.
            let statements = [
                "DELETE FROM revocations",
                "DELETE FROM events WHERE revision = (SELECT max(revision) FROM events)",
                "UPDATE authority SET revision = revision - 1",
            ];
            service.test_store.execute_sql(&statements).await;
            assert_eq!(revoked(&service).await, 0, "the store knows of no end any more");
        holds_are_stored(&service).await;
            for key in &keys {
                assert_eq!(api.verdict(key).await, Verdict::Revoked);
            }
            service.stop().await;
        }
    }

    async fn verification_goes_on_from_memory_while_the_store_cannot_be_read(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let issued = api.issue().await;
        service.test_store.execute_sql(&["ALTER TABLE events RENAME TO hidden"]).await;
        let before = api.ask(&issued.plain_key).await;
        eventually("the feed fails", async || {
            let answer = api.ask(&issued.plain_key).await;
            assert_eq!(answer.verdict(), Verdict::Allowed);
            tokio::time::sleep(Duration::from_millis(60)).await;
            let later = api.ask(&issued.plain_key).await;
            (answer.as_of == later.as_of).then_some(())
        })
        .await;
        let after = api.ask(&issued.plain_key).await;
        assert_eq!(
            (after.verdict(), after.revision),
            (Verdict::Allowed, before.revision)
        );
        service.stop().await;
    }
}
