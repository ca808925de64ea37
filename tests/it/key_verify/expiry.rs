//! A key is good until the instant of its expiry, and never afterwards, whatever the machine's clock says.

use claviger::domain::clock::Clock;
use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;

use crate::fixtures::{
    Engine, MINUTE, NOW, Service, TestStore, demo_realm, eventually, issue_request,
    on_both_engines, time,
};

fn in_a_minute() -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        expire_time: time(MINUTE),
        ..issue_request()
    }
}

on_both_engines! {
    async fn a_key_is_good_until_the_very_instant_of_its_end(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(
            TestStore::on(engine),
            clock.clone(),
            "",
            &[],
        )
        .await;
        let mut api = service.api();
        let mut realm = demo_realm();
        realm.max_cache = Some(prost_types::Duration {
            // Less than a lease: no answer is kept for longer.
            seconds: 10,
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
            (1_000_000, Verdict::Allowed, (10, 0)),
            (59_000_000, Verdict::Allowed, (1, 0)),
            (59_999_000, Verdict::Allowed, (0, 1_000_000)),
            (60_000_000, Verdict::Expired, (10, 0)),
            (60_000_001, Verdict::Expired, (10, 0)),
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
            TestStore::on(engine),
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
        let test_store = service.stop().await;

        let service = Service::start_with(test_store, Clock::manual(NOW), &operator, &[]).await;
        assert_eq!(service.api().verdict(&key).await, Verdict::Expired);
        let test_store = service.stop().await;

        let service = Service::start_with(test_store, Clock::manual(NOW), &operator, &["--trust-clock"]).await;
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
        let test_store = TestStore::on(engine);
        let service = Service::start_with(test_store, clock.clone(), "", &[]).await;
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
}
