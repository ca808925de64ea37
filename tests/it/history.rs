//! What outlives a restart, and what a store can do to a running server.

use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::domain::ids::RealmId;
use claviger::domain::key::KeyState;
use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use claviger::readiness::Readiness;
use claviger::store::KeyFilter;
use pb::Verdict;
use tonic::Code;

use super::fixtures::{
    Engine, Place, Service, eventually, issue_request, on_both_engines, settled,
};

/// 2030-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_micros(1_893_456_000_000_000);

/// How many keys are revoked, by the store.
async fn revoked(service: &Service) -> usize {
    let filter = KeyFilter {
        realm: RealmId::parse("demo").unwrap(),
        partner: None,
        project: None,
        environment: None,
        issued_before: None,
        states: vec![KeyState::Revoked],
        unused_for: None,
        never_expires: false,
        expires_within: None,
        now: NOW,
        before: None,
        limit: 10,
    };
    let mut snapshot = service.store.snapshot().await.unwrap();
    snapshot.list_keys(&filter).await.unwrap().items.len()
}

fn in_a_minute() -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        expire_time: Some(prost_types::Timestamp {
            seconds: NOW.as_micros() / 1_000_000 + 60,
            nanos: 0,
        }),
        ..issue_request()
    }
}

on_both_engines! {
    async fn a_key_is_good_until_the_very_instant_of_its_end(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(
            Place::on(engine),
            clock.clone(),
            "",
            &[],
        )
        .await;
        let mut api = service.api();
        let mut realm = super::fixtures::demo_realm();
        realm.max_cache = Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        });
        api.make_demo().await;
        api.put_realm(realm).await;
        let key = api
            .keys
            .issue_key(in_a_minute())
            .await
            .unwrap()
            .into_inner()
            .plain_key;
        let at = |micros| Timestamp::from_micros(NOW.as_micros() + micros);
        for (offset, verdict, cache_for) in [
            (1_000_000, Verdict::Allowed, (30, 0)),
            (59_000_000, Verdict::Allowed, (1, 0)),
            (59_999_000, Verdict::Allowed, (0, 1_000_000)),
            (60_000_000, Verdict::Expired, (30, 0)),
            (60_000_001, Verdict::Expired, (30, 0)),
        ] {
            clock.set(at(offset));
            let answer = api.ask(&key).await;
            let span = answer.cache_for.unwrap();
            assert_eq!(
                (answer.verdict(), (span.seconds, span.nanos)),
                (verdict, cache_for),
                "at {offset} µs"
            );
            assert!(
                answer.key.is_some(),
                "a proven key is named also when it has expired"
            );
        }
        service.stop().await;
    }

    /// Seen red without `Clock::advance` at the start: the key is then good again.
    async fn an_expired_key_stays_expired_when_the_machines_clock_is_set_back(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(
            Place::on(engine),
            clock.clone(),
            "",
            &[],
        )
        .await;
        let operator = service.operator.clone();
        let mut api = service.api();
        api.make_demo().await;
        let key = api
            .keys
            .issue_key(in_a_minute())
            .await
            .unwrap()
            .into_inner()
            .plain_key;
        clock.set(Timestamp::from_micros(NOW.as_micros() + 120_000_000));
        assert_eq!(api.verdict(&key).await, Verdict::Expired);
        // Any change writes the time down.
        api.issue().await;
        let place = service.stop().await;

        let service = Service::start_with(place, Clock::manual(NOW), &operator, &[]).await;
        assert_eq!(service.api().verdict(&key).await, Verdict::Expired);
        let place = service.stop().await;

        let service = Service::start_with(place, Clock::manual(NOW), &operator, &["--trust-clock"]).await;
        assert_eq!(
            service.api().verdict(&key).await,
            Verdict::Allowed,
            "unless an operator insists"
        );
        service.stop().await;
    }

    /// Seen red without `Clock::advance` in `Feed::poll`: the key is then good again.
    async fn an_expired_key_stays_expired_when_the_clock_is_set_back_under_a_running_server(engine: Engine) {
        let clock = Clock::manual(NOW);
        let place = Place::on(engine);
        let service = Service::start_with(place, clock.clone(), "", &[]).await;
        let mut api = service.api();
        api.make_demo().await;
        let key = api
            .keys
            .issue_key(in_a_minute())
            .await
            .unwrap()
            .into_inner()
            .plain_key;
        let later = Timestamp::from_micros(NOW.as_micros() + 120_000_000);
        clock.set(later);
        eventually("the feed has looked", async || {
            let as_of = api.ask(&key).await.as_of.unwrap();
            (as_of.seconds == later.as_micros() / 1_000_000).then_some(())
        })
        .await;
        clock.set(NOW);
        assert_eq!(api.verdict(&key).await, Verdict::Expired);
        service.stop().await;
    }

    /// Seen red with an unreadable event as an error of the poll: nothing then comes round any more.
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
        service.place.meddle(&statements).await;
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
        let place = service.stop().await;
        // The oldest key of the realm loses its digest.
        let statement = "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"')
                         WHERE id = (SELECT id FROM keys WHERE realm = 'demo' ORDER BY id LIMIT 1)";
        place.meddle(&[statement]).await;

        let service = Service::start_with(place, Clock::system(), &operator, &[]).await;
        let mut api = service.api();
        assert_eq!(api.verdict(&good.plain_key).await, Verdict::Allowed);
        let refused = api
            .verify
            .verify(super::fixtures::verify_request(&bad.plain_key))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Internal, "internal error")
        );
        let refused = api
            .keys
            .get_key(pb::GetKeyRequest {
                key_id: bad_id.clone(),
            })
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Internal, "internal error")
        );
        let listed = pb::ListKeysRequest {
            realm: "demo".to_owned(),
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

    /// Seen red with `keep_revoked` left out: the key is then good again.
    async fn a_revocation_once_seen_is_never_unseen_though_the_store_runs_backwards(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let issued = api.issue().await;
        let id = issued.key.unwrap().id;
        api.revoke(&id).await.unwrap();
        assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Revoked);

        // As if the database had been restored from before the revocation, under the running server.
        let statements = [
            "UPDATE keys SET facts = replace(facts, '\"revocation\":{', '\"revocation\":null,\"never\":{')",
            "DELETE FROM events WHERE revision = (SELECT max(revision) FROM events)",
            "UPDATE authority SET revision = revision - 1",
        ];
        service.place.meddle(&statements).await;
        assert_eq!(revoked(&service).await, 0, "the store knows of no revocation any more");
        let readiness = service.readiness.clone();
        eventually("the server notices", async || {
            matches!(&*readiness.borrow(), Readiness::Distrusted(why) if why.contains("rewritten"))
                .then_some(())
        })
        .await;
        assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Revoked);
        service.stop().await;
    }

    /// Seen red with `revoked` in place of `is_revoked()` in `Index::keep_revoked`: the keys are then good again.
    async fn an_end_of_many_once_seen_is_never_unseen_though_the_store_runs_backwards(engine: Engine) {
        for partner in ["", "acme"] {
            let service = Service::start(engine).await;
            let mut api = service.api();
            api.make_demo().await;
            let keys = [api.issue().await.plain_key, api.issue().await.plain_key];
            let request = pb::RevokeKeysRequest {
                realm: "demo".to_owned(),
                partner: partner.to_owned(),
                ..Default::default()
            };
            api.keys.revoke_keys(request).await.unwrap();

            // As if the database had been restored from before, under the running server.
            let statements = [
                "DELETE FROM revocations",
                "DELETE FROM events WHERE revision = (SELECT max(revision) FROM events)",
                "UPDATE authority SET revision = revision - 1",
            ];
            service.place.meddle(&statements).await;
            assert_eq!(revoked(&service).await, 0, "the store knows of no end any more");
            let readiness = service.readiness.clone();
            eventually("the server notices", async || {
                matches!(&*readiness.borrow(), Readiness::Distrusted(why) if why.contains("rewritten"))
                    .then_some(())
            })
            .await;
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
        service.place.meddle(&["ALTER TABLE events RENAME TO hidden"]).await;
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

    /// Seen red with the work awaited in `Admin::run` instead of spawned: the revocation then ends with its caller.
    async fn a_mutation_that_nobody_waits_for_any_more_still_runs_to_its_end(engine: Engine) {
        // The feed waits to be poked: only the mutation itself can bring its change into force, and each access is counted.
        let place = Place::on(engine);
        let service = Service::start_with(place, Clock::system(), "", &["--poll-interval", "1h", "--usage-interval", "0s"]).await;
        let mut api = service.api();
        api.make_demo().await;
        let issued = api.issue().await;
        let id = issued.key.unwrap().id;
        settled(&service).await;

        // The test holds the one writer, so that the call is stopped in its middle for as long as it takes.
        let writer = service.store.change(NOW).await.unwrap();
        let before = service.store.sessions();
        let mut hasty = api.clone();
        let call = tokio::spawn(async move { hasty.revoke(&id).await });
        eventually("the call waits for the writer", async || {
            (service.store.sessions() > before).then_some(())
        })
        .await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        // On the same connection, so that the server has heard of the cancellation before it answers these.
        for _ in 0..20 {
            assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Allowed);
        }
        drop(writer);
        eventually("the revocation is in force", async || {
            (api.verdict(&issued.plain_key).await == Verdict::Revoked).then_some(())
        })
        .await;
        api.issue().await;
        service.stop().await;
    }
}
