//! How keys were used: counted by the hour, and remembered with each of their texts.

use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::{Survivor, Verdict};
use tonic::Code;

use super::{
    HOUR, Held, NOW, SECOND, World, after, end_rotation, get, issue, read, refused, refused_field,
    rotate, seconds, time,
};
use crate::delegation::words;
use crate::fixtures::{Api, Engine, eventually, issue_request, on_both_engines, verify_request};

const MINUTE: i64 = 60 * SECOND;

async fn usage(api: &mut Api, key: &Held) -> pb::GetKeyUsageResponse {
    let request = pb::GetKeyUsageRequest {
        key_id: key.id.clone(),
        ..Default::default()
    };
    api.keys.get_key_usage(request).await.unwrap().into_inner()
}

/// Verdicts with their numbers, in the order of their names.
fn counts(counts: &[pb::VerdictCount]) -> Vec<(&'static str, u64)> {
    let mut counts: Vec<_> = counts
        .iter()
        .map(|count| (count.verdict().as_str_name(), count.count))
        .collect();
    counts.sort_unstable();
    counts
}

fn in_all(usage: &pb::GetKeyUsageResponse) -> u64 {
    usage.totals.iter().map(|count| count.count).sum()
}

/// Waits until so many uses of a key are written down.
async fn written(api: &mut Api, key: &Held, uses: u64) -> pb::GetKeyUsageResponse {
    eventually("the uses are written down", async || {
        let usage = usage(api, key).await;
        (in_all(&usage) >= uses).then_some(usage)
    })
    .await
}

/// Whether a use was told that was made at this time, give or take what a clock that stands still is pushed on by changes.
fn is_about(told: Option<&prost_types::Timestamp>, at: Timestamp) -> bool {
    told.is_some_and(|told| read(told) >= at && read(told).since(at).as_millis() < 100)
}

async fn list(api: &mut Api, change: impl FnOnce(&mut pb::ListKeysRequest)) -> Vec<String> {
    let mut request = pb::ListKeysRequest {
        realm: "demo".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    change(&mut request);
    let listed = api.keys.list_keys(request).await.unwrap().into_inner();
    listed.keys.into_iter().map(|key| key.id).collect()
}

on_both_engines! {
    /// Seen red with every question counted for the key that it names, proven or not, and with the hour of the writing down in
    /// place of that of the use.
    async fn uses_are_counted_by_verdict_and_hour(engine: Engine) {
        let mut world = World::on(engine).await;
        let root = &mut world.root;
        let first = issue(root, issue_request()).await;
        let text = rotate(root, &first.id, 0).await.unwrap().plain_key;
        let other = issue(root, issue_request()).await;

        world.clock.set(after(10 * MINUTE));
        for _ in 0..3 {
            root.ask(&text).await;
        }
        let lacking = pb::VerifyRequest {
            scopes: words(&["admin"]),
            ..verify_request(&text)
        };
        root.verify.verify(lacking.clone()).await.unwrap();
        let many = pb::VerifyBatchRequest {
            requests: vec![verify_request(&text), lacking],
        };
        root.verify.verify_batch(many).await.unwrap();
        // What proves nothing is nobody's, and to explain is not to use.
        for _ in 0..5 {
            assert_eq!(root.verdict(&first.text).await, Verdict::Unknown);
        }
        let explain = pb::ExplainRequest {
            question: Some(pb::explain_request::Question::Verify(verify_request(&text))),
        };
        root.verify.explain(explain).await.unwrap();
        let in_the_first = [("VERDICT_ALLOWED", 4), ("VERDICT_SCOPE_MISSING", 2)];
        let told = written(root, &first, 6).await;
        assert_eq!(counts(&told.totals), in_the_first);
        assert_eq!(told.buckets.len(), 1);
        assert_eq!(told.buckets[0].start_time, Some(super::told(NOW)), "an hour begins with itself");
        assert!(is_about(told.last_used_time.as_ref(), after(10 * MINUTE)), "{:?}", told.last_used_time);

        world.clock.set(after(HOUR + 10 * MINUTE));
        for _ in 0..2 {
            root.ask(&text).await;
        }
        written(root, &first, 8).await;
        world.clock.set(after(3 * HOUR + 10 * MINUTE));
        let disable = pb::DisableKeyRequest {
            key_id: first.id.clone(),
            ..Default::default()
        };
        root.keys.disable_key(disable).await.unwrap();
        assert_eq!(root.verdict(&text).await, Verdict::Disabled);
        let told = written(root, &first, 9).await;
        assert_eq!(counts(&told.totals), [
            ("VERDICT_ALLOWED", 6),
            ("VERDICT_DISABLED", 1),
            ("VERDICT_SCOPE_MISSING", 2)
        ]);
        let buckets: Vec<_> = told
            .buckets
            .iter()
            .map(|bucket| (read(bucket.start_time.as_ref().unwrap()), counts(&bucket.counts)))
            .collect();
        assert_eq!(buckets, [
            (NOW, in_the_first.to_vec()),
            (after(HOUR), vec![("VERDICT_ALLOWED", 2)]),
            (after(3 * HOUR), vec![("VERDICT_DISABLED", 1)]),
        ]);

        // A part of it, from the hour of its begin on.
        let request = pb::GetKeyUsageRequest {
            key_id: first.id.clone(),
            start_time: time(HOUR + 40 * MINUTE),
            end_time: time(2 * HOUR + 30 * MINUTE),
        };
        let part = root.keys.get_key_usage(request.clone()).await.unwrap().into_inner();
        assert_eq!(counts(&part.totals), [("VERDICT_ALLOWED", 2)]);
        assert!(is_about(part.last_used_time.as_ref(), after(3 * HOUR + 10 * MINUTE)), "whatever the range");
        let long = pb::GetKeyUsageRequest {
            end_time: time(HOUR + 40 * MINUTE + 400 * 24 * HOUR + SECOND),
            ..request
        };
        refused_field(root.keys.get_key_usage(long).await, "_time");
        assert_eq!(in_all(&usage(root, &other).await), 0);

        // Without a range it is the last day.
        world.clock.set(after(26 * HOUR));
        assert_eq!(counts(&usage(root, &first).await.totals), [("VERDICT_DISABLED", 1)]);

        // It can be asked for after the key is deleted, though not by everybody.
        let foreign = issue(root, pb::IssueKeyRequest {
            realm: "claviger".to_owned(),
            partner: "demo".to_owned(),
            scopes: words(&["verify"]),
            ..Default::default()
        })
        .await;
        root.delete(&first.id).await.unwrap();
        assert_eq!(in_all(&usage(root, &first).await), 1);
        let request = pb::GetKeyUsageRequest {
            key_id: first.id.clone(),
            ..Default::default()
        };
        let mut gateway = world.service.api_as(&foreign.text);
        assert!(gateway.keys.get_key_usage(request).await.is_err());
        let nobody = pb::GetKeyUsageRequest {
            key_id: format!("00000000{}", &first.id[8..]),
            ..Default::default()
        };
        assert_eq!(refused(root.keys.get_key_usage(nobody).await).code, Code::NotFound);
        world.service.stop().await;
    }

    /// Seen red without the last writing down when the server stops.
    async fn what_was_counted_is_written_down_when_the_server_stops(engine: Engine) {
        let mut world = World::on(engine).await;
        let root = &mut world.root;
        let key = issue(root, issue_request()).await;
        for _ in 0..3 {
            root.ask(&key.text).await;
        }
        let mut world = world.restarted().await;
        let told = usage(&mut world.root, &key).await;
        assert_eq!(counts(&told.totals), [("VERDICT_ALLOWED", 3)]);
        world.root.ask(&key.text).await;
        let mut world = world.restarted().await;
        let told = usage(&mut world.root, &key).await;
        assert_eq!(counts(&told.totals), [("VERDICT_ALLOWED", 4)], "they add up");
        world.service.stop().await;
    }

    /// So that it can be seen who still has the old text.
    ///
    /// Seen red with the use kept with the key alone.
    async fn each_text_of_a_key_is_remembered_by_itself(engine: Engine) {
        let mut world = World::on(engine).await;
        let root = &mut world.root;
        let key = issue(root, issue_request()).await;
        assert_eq!(get(root, &key.id).await.last_used_time, None);
        world.clock.set(after(MINUTE));
        let new = rotate(root, &key.id, 600).await.unwrap().plain_key;
        world.clock.set(after(2 * MINUTE));
        root.ask(&key.text).await;
        written(root, &key, 1).await;
        let told = get(root, &key.id).await;
        assert!(is_about(told.secrets[0].last_used_time.as_ref(), after(2 * MINUTE)));
        assert_eq!(told.secrets[1].last_used_time, None, "nobody has the new one yet");

        world.clock.set(after(3 * MINUTE));
        root.ask(&new).await;
        written(root, &key, 2).await;
        let told = get(root, &key.id).await;
        assert!(is_about(told.secrets[0].last_used_time.as_ref(), after(2 * MINUTE)));
        assert!(is_about(told.secrets[1].last_used_time.as_ref(), after(3 * MINUTE)));
        assert!(is_about(told.last_used_time.as_ref(), after(3 * MINUTE)));

        // After the overlap the old one is denied, and that it was presented is told all the same.
        world.clock.set(after(HOUR));
        assert_eq!(root.verdict(&key.text).await, Verdict::Expired);
        let used = written(root, &key, 3).await;
        assert_eq!(counts(&used.totals), [("VERDICT_ALLOWED", 2), ("VERDICT_EXPIRED", 1)]);
        let told = get(root, &key.id).await;
        assert!(is_about(told.secrets[0].last_used_time.as_ref(), after(HOUR)));
        assert!(is_about(told.last_used_time.as_ref(), after(HOUR)));

        end_rotation(root, &key.id, Survivor::New).await.ok();
        assert!(is_about(get(root, &key.id).await.last_used_time.as_ref(), after(HOUR)), "the key is one");
        world.service.stop().await;
    }

    /// Seen red with the caller's own key left out of the count of uses.
    async fn to_call_the_authority_is_to_use_a_key(engine: Engine) {
        let mut world = World::on(engine).await;
        let root = &mut world.root;
        let gateway = issue(root, pb::IssueKeyRequest {
            realm: "claviger".to_owned(),
            partner: "demo".to_owned(),
            scopes: words(&["verify"]),
            ..Default::default()
        })
        .await;
        let key = issue(root, issue_request()).await;
        world.clock.set(after(MINUTE));
        world.service.api_as(&gateway.text).ask(&key.text).await;
        eventually("the use is written down", async || {
            let told = get(root, &gateway.id).await;
            is_about(told.last_used_time.as_ref(), after(MINUTE)).then_some(())
        })
        .await;
        world.service.stop().await;
    }

    async fn keys_are_listed_by_their_use_and_their_end(engine: Engine) {
        let mut world = World::on(engine).await;
        let root = &mut world.root;
        let ending = |micros| pb::IssueKeyRequest {
            expire_time: time(micros),
            ..issue_request()
        };
        let idle = issue(root, issue_request()).await;
        let used = issue(root, issue_request()).await;
        let soon = issue(root, ending(4 * HOUR)).await;
        let late = issue(root, ending(100 * HOUR)).await;
        let over = issue(root, ending(30 * MINUTE)).await;
        world.clock.set(after(HOUR));
        root.ask(&used.text).await;
        written(root, &used, 1).await;
        world.clock.set(after(2 * HOUR));
        let young = issue(root, ending(3 * HOUR)).await;

        // Newest first, as ever.
        let never = list(root, |list| list.never_expires = true).await;
        assert_eq!(never, [&used.id, &idle.id].map(Clone::clone));
        let within = async |root: &mut Api, minutes: i64| {
            list(root, |list| list.expires_within = seconds(minutes * 60)).await
        };
        assert!(within(root, 30).await.is_empty());
        assert_eq!(within(root, 180).await, [&young.id, &soon.id].map(Clone::clone));
        assert_eq!(
            within(root, 60_000).await,
            [&young.id, &late.id, &soon.id].map(Clone::clone)
        );
        let unused = async |root: &mut Api, minutes: i64| {
            list(root, |list| list.unused_for = seconds(minutes * 60)).await
        };
        // The youngest is not old enough to be called unused.
        assert_eq!(
            unused(root, 90).await,
            [&over.id, &late.id, &soon.id, &idle.id].map(Clone::clone)
        );
        assert_eq!(
            unused(root, 30).await,
            [&over.id, &late.id, &soon.id, &used.id, &idle.id].map(Clone::clone)
        );
        assert!(unused(root, 180).await.is_empty());
        let both = list(root, |list| {
            list.unused_for = seconds(5_400);
            list.never_expires = true;
        })
        .await;
        assert_eq!(both, [idle.id.as_str()]);

        // The filters go with the page.
        let mut request = pb::ListKeysRequest {
            realm: "demo".to_owned(),
            unused_for: seconds(5_400),
            page_size: 3,
            ..Default::default()
        };
        let page = root.keys.list_keys(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.keys.len(), 3);
        request.page_token = page.next_page_token;
        let rest = root.keys.list_keys(request.clone()).await.unwrap().into_inner();
        let rest: Vec<_> = rest.keys.into_iter().map(|key| key.id).collect();
        assert_eq!(rest, [idle.id.as_str()]);
        for change in [
            (|list| list.never_expires = true) as fn(&mut pb::ListKeysRequest),
            |list| list.unused_for = None,
            |list| list.unused_for = seconds(5_401),
            |list| list.expires_within = seconds(1),
        ] {
            let mut other = request.clone();
            change(&mut other);
            refused_field(root.keys.list_keys(other).await, "page_token");
        }
        world.service.stop().await;
    }
}
