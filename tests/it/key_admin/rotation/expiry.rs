//! A rotation sets the expiry of its key, and brings the key within the realm's `max_lifetime`.

use std::time::Duration;

use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::{KeepSecret, Verdict};
use tonic::Status;

use crate::fixtures::{
    Api, DAY, DemoService, Engine, HOUR, SECOND, after, demo_realm, end_rotation, get, issue,
    issue_request, issue_request_with, list_keys, on_both_engines, parse_time, refused_by_state,
    refused_field, rotate, rotate_request, seconds, time, update,
};

/// Rotates a key and sets its expiry, this many microseconds after the tests' beginning.
async fn rotate_until(
    api: &mut Api,
    key_id: &str,
    overlap: i64,
    end: i64,
) -> Result<pb::RotateKeyResponse, Status> {
    let request = pb::RotateKeyRequest {
        expire_time: time(end),
        ..rotate_request(key_id, overlap)
    };
    let answer = api.keys.rotate_key(request).await?;
    Ok(answer.into_inner())
}

/// Sets the `max_lifetime` of `demo`, in microseconds.
async fn limit(api: &mut Api, micros: i64) {
    api.put_realm(pb::Realm {
        max_lifetime: seconds(micros / SECOND),
        ..demo_realm()
    })
    .await;
}

const TEN_DAYS: Duration = Duration::from_hours(10 * 24);

/// When this secret of a key was created. Each change takes its own microsecond.
fn start_of(key: &pb::Key, secret: usize) -> Timestamp {
    parse_time(key.secrets[secret].create_time.as_ref().unwrap())
}

fn end_of(key: &pb::Key) -> Option<Timestamp> {
    key.expire_time.as_ref().map(parse_time)
}

/// The keys of `demo` that live longer than its `max_lifetime` allows.
async fn beyond(api: &mut Api) -> Vec<String> {
    list_keys(api, |request| {
        request.filter.as_mut().unwrap().beyond_max_lifetime = true;
    })
    .await
    .unwrap()
}

/// What the last event about the key says of its expiry.
async fn told_expiry(api: &mut Api, key_id: &str) -> Option<String> {
    let request = pb::ListEventsRequest {
        key_id: key_id.to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let listed = api.keys.list_events(request).await.unwrap().into_inner();
    listed.events[0].detail.get("expire_time").cloned()
}

on_both_engines! {
    /// Seen red without the assignment of the new expiry, and with an old secret that gets the later expiry too.
    async fn a_rotation_sets_the_expiry_in_the_same_change(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request_with(|key| key.expire_time = time(HOUR))).await;
        let rotated = rotate_until(root, &key.id, 3 * 3_600, 2 * HOUR).await.unwrap();
        let after_it = rotated.key.unwrap();
        assert_eq!(end_of(&after_it), Some(after(2 * HOUR)));
        assert_eq!(after_it.revision, Some(rotated.revision), "one change");
        let old_end = after_it.secrets[0].expire_time.as_ref().map(parse_time);
        assert_eq!(old_end, Some(after(HOUR)), "the old secret was given out until then");
        assert_eq!(told_expiry(root, &key.id).await.as_deref(), Some("2030-01-01T02:00:00.000000Z"));

        demo.clock.set(after(HOUR));
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Expired);
        assert_eq!(root.verdict(&rotated.plain_key).await, Verdict::Allowed);
        // An earlier end is one of the overlap too.
        let earlier = rotate_until(root, &key.id, 3_600, HOUR + 60 * SECOND).await.unwrap();
        let earlier = earlier.key.unwrap();
        let ends: Vec<_> = earlier.secrets.iter().map(|secret| secret.expire_time).collect();
        assert_eq!(ends, [time(HOUR + 60 * SECOND), None]);
        // Without the field the expiry stays, and the event is silent about it.
        rotate(root, &key.id, 0).await.unwrap();
        assert_eq!(end_of(&get(root, &key.id).await), Some(after(HOUR + 60 * SECOND)));
        assert_eq!(told_expiry(root, &key.id).await, None);

        let before = get(root, &key.id).await;
        for past in [0, HOUR] {
            refused_field(rotate_until(root, &key.id, 0, past).await, "expire_time");
        }
        assert_eq!(get(root, &key.id).await, before);
        demo.clock.set(after(HOUR + 60 * SECOND));
        let refusal = refused_by_state(rotate_until(root, &key.id, 0, DAY).await);
        assert_eq!(refusal.reason, "KEY_EXPIRED", "a later expiry does not make it valid again");
        demo.service.stop().await;
    }

    /// Seen red with a lifetime that counts from the issue: at the rotation, in the filter, and at the update.
    async fn a_rotation_brings_a_key_within_a_max_lifetime_that_was_set_later(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let endless = issue(root, issue_request()).await;
        let long = issue(root, issue_request_with(|key| key.expire_time = time(40 * DAY))).await;
        let short = issue(root, issue_request_with(|key| key.expire_time = time(9 * DAY))).await;
        assert!(beyond(root).await.is_empty(), "there is no limit");
        limit(root, 10 * DAY).await;
        assert_eq!(beyond(root).await, [long.id.clone(), endless.id.clone()]);

        demo.clock.set(after(8 * DAY));
        for key in [&endless, &long] {
            let rotated = rotate(root, &key.id, 60).await.unwrap().key.unwrap();
            assert_eq!(end_of(&rotated), Some(start_of(&rotated, 1).saturating_add(TEN_DAYS)));
        }
        let rotated = rotate(root, &short.id, 60).await.unwrap().key.unwrap();
        assert_eq!(end_of(&rotated), Some(after(9 * DAY)), "never later than before");
        assert!(beyond(root).await.is_empty());
        assert_eq!(told_expiry(root, &short.id).await, None);
        let told = told_expiry(root, &long.id).await.unwrap();
        assert!(told.starts_with("2030-01-19T00:00:00."), "{told}");

        // With the field: as far as the limit, from the rotation.
        refused_field(rotate_until(root, &short.id, 0, 18 * DAY + SECOND).await, "expire_time");
        let rotated = rotate_until(root, &short.id, 0, 18 * DAY).await.unwrap().key.unwrap();
        assert_eq!(end_of(&rotated), Some(after(18 * DAY)));
        // A later update counts from the rotation too.
        demo.clock.set(after(12 * DAY));
        let to = |end: i64| move |key: &mut pb::UpdateKeyRequest| key.expire_time = time(end);
        update(root, &endless.id, &["expire_time"], to(13 * DAY)).await.unwrap();
        update(root, &endless.id, &["expire_time"], to(18 * DAY)).await.unwrap();
        refused_field(update(root, &endless.id, &["expire_time"], to(18 * DAY + SECOND)).await, "expire_time");
        // A lower limit is one that was set later too.
        limit(root, 9 * DAY).await;
        assert_eq!(beyond(root).await.len(), 3);
        demo.service.stop().await;
    }

    /// The expiry of a rotation is for its new secret. Seen red with the expiry left as it is when the old secret stays.
    async fn an_undone_rotation_leaves_the_old_secret_no_longer_than_it_may_live(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        limit(root, 10 * DAY).await;
        let key = issue(root, issue_request()).await;
        demo.clock.set(after(5 * DAY));
        let rotated = rotate_until(root, &key.id, 3_600, 15 * DAY).await.unwrap().key.unwrap();
        assert_eq!(end_of(&rotated), Some(after(15 * DAY)));
        let undone = end_rotation(root, &key.id, KeepSecret::Old).await.unwrap();
        assert_eq!(end_of(&undone), Some(start_of(&undone, 0).saturating_add(TEN_DAYS)));
        let told = told_expiry(root, &key.id).await.unwrap();
        assert!(told.starts_with("2030-01-11T00:00:00."), "{told}");

        // What is left of the overlap stays in any case: here the limit was set after the issue.
        limit(root, 0).await;
        let old = issue(root, issue_request()).await;
        limit(root, DAY).await;
        demo.clock.set(after(7 * DAY));
        let rotated = rotate(root, &old.id, 3_600).await.unwrap().key.unwrap();
        let undone = end_rotation(root, &old.id, KeepSecret::Old).await.unwrap();
        assert_eq!(undone.expire_time, rotated.secrets[0].expire_time);
        assert_eq!(root.verdict(&old.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }
}
