//! Counts by verdict and hour, within a range of time.

use std::collections::BTreeMap;

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tonic::Code;

use super::{
    WRITE_OFTEN, await_allowed, await_uses, counts, is_about, total_uses, usage, usage_within,
};
use crate::fixtures::{
    DAY, DemoService, Engine, HOUR, MINUTE, NOW, SECOND, Service, TestStore, after,
    authority_key_request, issue, issue_request, on_both_engines, parse_time, proto_time, refused,
    refused_field, rotate, strings, time, verify_request,
};

on_both_engines! {
    async fn usage_is_told_by_the_hour_within_the_range_that_is_asked_for(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &WRITE_OFTEN).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
        // At the beginning of an hour, at its end, and in the one after the next.
        for (number, micros) in (1..).zip([0, HOUR - SECOND, 2 * HOUR + 5 * SECOND]) {
            clock.set(after(micros));
            assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
            await_allowed(&mut api, &id, number).await;
        }
        let hours = |answer: &pb::GetKeyUsageResponse| -> Vec<_> {
            let buckets = answer.buckets.iter();
            buckets.map(|bucket| (bucket.start_time, counts(&bucket.counts)[&Verdict::Allowed])).collect()
        };
        let all = usage(&mut api, &id).await;
        assert_eq!(hours(&all), [(time(0), 2), (time(2 * HOUR), 1)]);
        assert_eq!(all.last_used_time, time(2 * HOUR + 5 * SECOND));
        for (start, end, expected) in [
            (time(HOUR - SECOND), time(2 * HOUR), vec![(time(0), 2)]),
            (time(HOUR), time(3 * HOUR), vec![(time(2 * HOUR), 1)]),
            (time(HOUR), time(2 * HOUR), vec![]),
            (time(-400 * DAY + 2 * HOUR + 5 * SECOND), None, hours(&all)),
        ] {
            let answer = usage_within(&mut api, &id, start, end).await.unwrap();
            assert_eq!(hours(&answer), expected, "{start:?} {end:?}");
            assert_eq!(answer.last_used_time, all.last_used_time, "whatever the range");
        }
        for (start, end) in [
            (time(SECOND), time(0)),
            (time(-400 * DAY + 2 * HOUR + 4 * SECOND), None),
            (time(HOUR * 3), None),
        ] {
            let refused = usage_within(&mut api, &id, start, end).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{start:?} {end:?}");
        }
        let refused = usage_within(&mut api, "x", None, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        service.stop().await;
    }

    /// Seen red with every question counted for the key that it names, proven or not, and with the hour of the writing down in
    /// place of that of the use.
    async fn uses_are_counted_by_verdict_and_hour(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let first = issue(root, issue_request()).await;
        let plain_key = rotate(root, &first.id, 0).await.unwrap().plain_key;
        let other = issue(root, issue_request()).await;

        demo.clock.set(after(10 * MINUTE));
        for _ in 0..3 {
            root.ask(&plain_key).await;
        }
        let lacking = pb::VerifyRequest {
            scopes: strings(&["admin"]),
            ..verify_request(&plain_key)
        };
        root.verify.verify(lacking.clone()).await.unwrap();
        let many = pb::VerifyBatchRequest {
            requests: vec![verify_request(&plain_key), lacking],
        };
        root.verify.verify_batch(many).await.unwrap();
        // What proves nothing is nobody's, and to explain is not to use.
        for _ in 0..5 {
            assert_eq!(root.verdict(&first.plain_key).await, Verdict::Unknown);
        }
        let explain = pb::ExplainRequest {
            question: Some(pb::explain_request::Question::Verify(verify_request(&plain_key))),
        };
        root.verify.explain(explain).await.unwrap();
        let in_the_first = BTreeMap::from([(Verdict::Allowed, 4), (Verdict::ScopeMissing, 2)]);
        let told = await_uses(root, &first.id, 6).await;
        assert_eq!(counts(&told.totals), in_the_first);
        assert_eq!(told.buckets.len(), 1);
        assert_eq!(told.buckets[0].start_time, Some(proto_time(NOW)), "an hour begins with itself");
        assert!(is_about(told.last_used_time.as_ref(), after(10 * MINUTE)), "{:?}", told.last_used_time);

        demo.clock.set(after(HOUR + 10 * MINUTE));
        for _ in 0..2 {
            root.ask(&plain_key).await;
        }
        await_uses(root, &first.id, 8).await;
        demo.clock.set(after(3 * HOUR + 10 * MINUTE));
        let disable = pb::DisableKeyRequest {
            key_id: first.id.clone(),
            ..Default::default()
        };
        root.keys.disable_key(disable).await.unwrap();
        assert_eq!(root.verdict(&plain_key).await, Verdict::Disabled);
        let told = await_uses(root, &first.id, 9).await;
        let totals = [(Verdict::Allowed, 6), (Verdict::Disabled, 1), (Verdict::ScopeMissing, 2)];
        assert_eq!(counts(&told.totals), BTreeMap::from(totals));
        let buckets: Vec<_> = told
            .buckets
            .iter()
            .map(|bucket| (parse_time(bucket.start_time.as_ref().unwrap()), counts(&bucket.counts)))
            .collect();
        assert_eq!(buckets, [
            (NOW, in_the_first),
            (after(HOUR), BTreeMap::from([(Verdict::Allowed, 2)])),
            (after(3 * HOUR), BTreeMap::from([(Verdict::Disabled, 1)])),
        ]);

        // A part of it, from the hour of its begin on.
        let request = pb::GetKeyUsageRequest {
            key_id: first.id.clone(),
            start_time: time(HOUR + 40 * MINUTE),
            end_time: time(2 * HOUR + 30 * MINUTE),
            ..Default::default() };
        let part = root.keys.get_key_usage(request.clone()).await.unwrap().into_inner();
        assert_eq!(counts(&part.totals), BTreeMap::from([(Verdict::Allowed, 2)]));
        assert!(is_about(part.last_used_time.as_ref(), after(3 * HOUR + 10 * MINUTE)), "whatever the range");
        let long = pb::GetKeyUsageRequest {
            end_time: time(HOUR + 40 * MINUTE + 400 * DAY + SECOND),
            ..request
        };
        refused_field(root.keys.get_key_usage(long).await, "_time");
        assert_eq!(total_uses(&usage(root, &other.id).await), 0);

        // Without a range it is the last day.
        demo.clock.set(after(26 * HOUR));
        assert_eq!(counts(&usage(root, &first.id).await.totals), BTreeMap::from([(Verdict::Disabled, 1)]));

        // It can be asked for after the key is deleted, though not by everybody.
        let foreign = issue(root, authority_key_request("verify", "demo"))
        .await;
        root.delete(&first.id).await.unwrap();
        assert_eq!(total_uses(&usage(root, &first.id).await), 1);
        let request = pb::GetKeyUsageRequest {
            key_id: first.id.clone(),
            ..Default::default()
        };
        let mut gateway = demo.service.api_as(&foreign.plain_key);
        assert!(gateway.keys.get_key_usage(request).await.is_err());
        let nobody = pb::GetKeyUsageRequest {
            key_id: format!("00000000{}", &first.id[8..]),
            ..Default::default()
        };
        assert_eq!(refused(root.keys.get_key_usage(nobody).await).code, Code::NotFound);
        demo.service.stop().await;
    }
}
