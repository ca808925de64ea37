//! A key gets a new secret, and the old one works until the end of the overlap.

use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::{KeepSecret, KeyState, Verdict};
use tonic::Response;

use crate::fixtures::{
    Api, DemoService, Engine, HOUR, IssuedKey, NOW, SECOND, after, demo_realm, end_rotation,
    events_of, get, issue, issue_request, on_both_engines, parse_time, refused, refused_by_state,
    refused_field, request_id, revoke_keys, rotate, rotate_request, seconds, time, update,
};

const DAY: i64 = 24 * HOUR;

/// Until when the oldest secret of a key works.
fn end_of_oldest(key: &pb::Key) -> Timestamp {
    let oldest = key.secrets.first().expect("a key has a secret");
    parse_time(oldest.expire_time.as_ref().expect("its end"))
}

async fn verdicts<const N: usize>(api: &mut Api, plain_keys: [&str; N]) -> [Verdict; N] {
    let mut verdicts = [Verdict::Unspecified; N];
    for (verdict, plain_key) in verdicts.iter_mut().zip(plain_keys) {
        *verdict = api.verdict(plain_key).await;
    }
    verdicts
}

/// A key of which a rotation has begun, and the API key with its second secret.
async fn begun(api: &mut Api, overlap: i64) -> (IssuedKey, String, Timestamp) {
    let first = issue(api, issue_request()).await;
    let rotated = rotate(api, &first.id, overlap).await.unwrap();
    let end = end_of_oldest(&rotated.key.unwrap());
    (first, rotated.plain_key, end)
}

fn one_micro_before(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros() - 1)
}

on_both_engines! {
    /// Seen red with the end of a secret left out of the decision (the old secret never expires), with `now > end` in place of
    /// `now >= end` (the very end), and with the digest of the oldest secret kept at the next rotation (it is not unknown).
    async fn an_old_text_works_until_the_very_end_of_the_overlap_and_the_new_one_from_the_answer_on(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let request = pb::IssueKeyRequest {
            name: "rotated".to_owned(),
            labels: [("team".to_owned(), "payments".to_owned())].into(),
            ..issue_request()
        };
        let first = issue(root, request).await;
        let known = root.ask(&first.plain_key).await.key;
        assert!(known.is_some());

        demo.clock.set(after(10 * SECOND));
        let rotated = rotate(root, &first.id, 60).await.unwrap();
        assert!(!rotated.replayed);
        let (second, key) = (rotated.plain_key, rotated.key.unwrap());
        assert_ne!(second, first.plain_key);
        let end = end_of_oldest(&key);
        let length = end.since(after(70 * SECOND));
        assert!(end >= after(70 * SECOND) && length.as_millis() < 10, "it ends at {end:?}");
        assert_eq!(key.secrets.len(), 2);
        assert_eq!(key.secrets[1].expire_time, None, "the new one lives as long as its key");
        assert!(key.hint.ends_with(&second[second.len() - 4..]), "the hint is of the newest secret");
        let changed = pb::Key {
            hint: first.key.hint.clone(),
            secrets: first.key.secrets.clone(),
            last_used_time: key.last_used_time,
            ..key
        };
        let before = pb::Key {
            last_used_time: changed.last_used_time,
            revision: Some(rotated.revision),
            ..first.key.clone()
        };
        assert_eq!(changed, before, "the rest of it stays");

        let moments = [
            (after(11 * SECOND), Verdict::Allowed),
            (after(40 * SECOND), Verdict::Allowed),
            (one_micro_before(end), Verdict::Allowed),
            (end, Verdict::Expired),
            (Timestamp::from_micros(end.as_micros() + 1), Verdict::Expired),
            (after(DAY), Verdict::Expired),
        ];
        for (moment, of_the_old) in moments {
            demo.clock.set(moment);
            for (plain_key, verdict) in [(&first.plain_key, of_the_old), (&second, Verdict::Allowed)] {
                let answer = root.ask(plain_key).await;
                assert_eq!(answer.verdict(), verdict, "at {moment:?}, the end being {end:?}");
                assert_eq!(answer.key, known, "both are secrets of the same key");
            }
        }
        let key = get(root, &first.id).await;
        assert_eq!(key.state(), KeyState::Active);
        assert_eq!(key.secrets.len(), 2, "the old one is told until the next rotation");

        // The next one takes the place of the oldest, which is over.
        let rotated = rotate(root, &first.id, 10).await.unwrap();
        let (third, key) = (rotated.plain_key, rotated.key.unwrap());
        let end = end_of_oldest(&key);
        assert_eq!(key.secrets.len(), 2);
        demo.clock.set(one_micro_before(end));
        let plain_keys = [first.plain_key.as_str(), &second, &third];
        assert_eq!(
            verdicts(root, plain_keys).await,
            [Verdict::Unknown, Verdict::Allowed, Verdict::Allowed]
        );
        demo.clock.set(end);
        let at_the_end = [Verdict::Unknown, Verdict::Expired, Verdict::Allowed];
        assert_eq!(verdicts(root, plain_keys).await, at_the_end);
        assert_eq!(
            events_of(root, &first.id).await,
            ["key.issued", "key.rotated", "key.rotated"]
        );

        let mut demo = demo.restarted().await;
        assert_eq!(verdicts(&mut demo.root, plain_keys).await, at_the_end, "after a restart");
        demo.service.stop().await;
    }

    async fn an_answer_to_an_old_text_is_kept_no_longer_than_its_overlap(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(pb::Realm {
            max_cache: seconds(10),
            ..demo_realm()
        })
        .await;
        let (first, second, end) = begun(root, 60).await;
        demo.clock.set(Timestamp::from_micros(end.as_micros() - SECOND));
        assert_eq!(root.ask(&first.plain_key).await.cache_for, seconds(1));
        assert_eq!(root.ask(&second).await.cache_for, seconds(10));
        demo.service.stop().await;
    }

    /// Seen red with the overlap not bounded by the key's own end.
    async fn an_overlap_ends_with_the_key_at_the_latest(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let first = issue(root, pb::IssueKeyRequest {
            expire_time: time(100 * SECOND),
            ..issue_request()
        })
        .await;
        let rotated = rotate(root, &first.id, 3_600).await.unwrap();
        let second = rotated.plain_key;
        assert_eq!(end_of_oldest(&rotated.key.unwrap()), after(100 * SECOND));
        demo.clock.set(one_micro_before(after(100 * SECOND)));
        assert_eq!(verdicts(root, [&first.plain_key, &second]).await, [Verdict::Allowed; 2]);
        demo.clock.set(after(100 * SECOND));
        assert_eq!(verdicts(root, [&first.plain_key, &second]).await, [Verdict::Expired; 2]);

        // A later end is the key's; the old secret has had its own.
        update(root, &first.id, &["expire_time"], |key| key.expire_time = time(HOUR))
            .await
            .unwrap();
        assert_eq!(
            verdicts(root, [&first.plain_key, &second]).await,
            [Verdict::Expired, Verdict::Allowed]
        );
        demo.service.stop().await;
    }

    /// Seen red with the end of the secret left where it was.
    async fn an_earlier_end_of_the_key_is_one_of_the_overlap_too(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let (first, second, _) = begun(root, 3_600).await;
        let updated = update(root, &first.id, &["expire_time"], |key| {
            key.expire_time = time(20 * SECOND);
        })
        .await
        .unwrap();
        assert_eq!(end_of_oldest(&updated.key.unwrap()), after(20 * SECOND));
        // Nor does it come back.
        update(root, &first.id, &["expire_time"], |_| ()).await.unwrap();
        demo.clock.set(after(20 * SECOND));
        assert_eq!(
            verdicts(root, [&first.plain_key, &second]).await,
            [Verdict::Expired, Verdict::Allowed]
        );
        demo.service.stop().await;
    }

    /// Seen red with the old digest kept, with an end that is now.
    async fn without_an_overlap_the_old_text_is_unknown_at_once(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        for overlap in [seconds(0), None] {
            let first = issue(root, issue_request()).await;
            let request = pb::RotateKeyRequest {
                key_id: first.id.clone(),
                overlap,
                ..Default::default()
            };
            let rotated = root.keys.rotate_key(request).await.unwrap().into_inner();
            assert_eq!(rotated.key.unwrap().secrets.len(), 1);
            let answer = root.ask(&first.plain_key).await;
            assert_eq!((answer.verdict(), answer.key), (Verdict::Unknown, None));
            assert_eq!(root.verdict(&rotated.plain_key).await, Verdict::Allowed);
            for keep in [KeepSecret::New, KeepSecret::Old] {
                let refusal = refused_by_state(end_rotation(root, &first.id, keep).await);
                assert_eq!(refusal.reason, "NO_ROTATION");
            }
            assert_eq!(root.verdict(&rotated.plain_key).await, Verdict::Allowed);
        }
        demo.service.stop().await;
    }

    /// Whoever lost the answer repeats the call; what was lost is then replaced, and the secret that is in use works on.
    ///
    /// Seen red without the look at the requests (a third secret is made at the repetition), and with a rotation in an
    /// overlap that replaces the oldest secret (the secret in use is then unknown).
    async fn a_lost_answer_costs_nobody_the_text_in_use(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let first = issue(root, issue_request()).await;
        let request = pb::RotateKeyRequest {
            request_id: request_id(),
            ..rotate_request(&first.id, 60)
        };
        let lost = root.keys.rotate_key(request.clone()).await.unwrap().into_inner();
        demo.clock.set(after(5 * SECOND));
        let again = root.keys.rotate_key(request.clone()).await.unwrap().into_inner();
        assert!(again.replayed && again.plain_key.is_empty());
        assert_eq!(again.revision, lost.revision);
        assert_eq!(again.key.unwrap().secrets.len(), 2, "there is no third one");
        assert_eq!(events_of(root, &first.id).await, ["key.issued", "key.rotated"]);
        assert_eq!(
            verdicts(root, [&first.plain_key, &lost.plain_key]).await,
            [Verdict::Allowed; 2]
        );

        let replaced = rotate(root, &first.id, 120).await.unwrap();
        assert!(!replaced.replayed);
        let key = replaced.key.unwrap();
        let end = end_of_oldest(&key);
        assert!(end >= after(125 * SECOND), "the oldest goes on for the new overlap, not to {end:?}");
        assert_eq!(key.secrets.len(), 2);
        let plain_keys = [first.plain_key.as_str(), &lost.plain_key, &replaced.plain_key];
        demo.clock.set(one_micro_before(end));
        assert_eq!(
            verdicts(root, plain_keys).await,
            [Verdict::Allowed, Verdict::Unknown, Verdict::Allowed]
        );
        demo.clock.set(end);
        assert_eq!(
            verdicts(root, plain_keys).await,
            [Verdict::Expired, Verdict::Unknown, Verdict::Allowed]
        );

        // The first call can still be repeated, and tells of the key as it is now.
        demo.clock.set(after(DAY - SECOND));
        let again = root.keys.rotate_key(request).await.unwrap().into_inner();
        assert!(again.replayed);
        assert_eq!(again.revision, lost.revision);
        let now = get(root, &first.id).await;
        assert_eq!(again.key.unwrap().secrets.len(), now.secrets.len());
        assert_eq!(root.verdict(&replaced.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    /// A second leak within the overlap: nothing of before may go on.
    async fn a_rotation_without_an_overlap_within_one_leaves_the_newest_text_only(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let (first, second, _) = begun(root, 3_600).await;
        let rotated = rotate(root, &first.id, 0).await.unwrap();
        assert_eq!(rotated.key.unwrap().secrets.len(), 1);
        assert_eq!(
            verdicts(root, [&first.plain_key, &second, &rotated.plain_key]).await,
            [Verdict::Unknown, Verdict::Unknown, Verdict::Allowed]
        );
        demo.service.stop().await;
    }

    /// Seen red with the two values of `KeepSecret` swapped, and with the end of the old secret left as it was.
    async fn a_rotation_is_ended_for_the_new_text_or_taken_back_for_the_old_one(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        for keep in [KeepSecret::New, KeepSecret::Old] {
            let (first, second, end) = begun(root, 60).await;
            let key = end_rotation(root, &first.id, keep).await.unwrap();
            assert_eq!(key.secrets.len(), 1);
            assert_eq!(key.secrets[0].expire_time, None, "it lives as long as its key");
            let (kept, gone) = match keep {
                KeepSecret::Old => (&first.plain_key, &second),
                _ => (&second, &first.plain_key),
            };
            assert!(key.hint.ends_with(&kept[kept.len() - 4..]), "the hint is of the one that stays");
            let expected = [Verdict::Allowed, Verdict::Unknown];
            assert_eq!(verdicts(root, [kept, gone]).await, expected, "{keep:?}");
            let refusal = refused_by_state(end_rotation(root, &first.id, keep).await);
            assert_eq!(refusal.reason, "NO_ROTATION");
            demo.clock.set(Timestamp::from_micros(end.as_micros() + HOUR));
            assert_eq!(verdicts(root, [kept, gone]).await, expected, "after the overlap");
            assert_eq!(
                events_of(root, &first.id).await,
                ["key.issued", "key.rotated", "key.rotation_ended"]
            );
        }
        demo.service.stop().await;
    }

    /// Seen red without the check of the old secret's end: it is then good again.
    async fn a_text_whose_overlap_is_over_is_not_brought_back(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let (first, second, end) = begun(root, 60).await;
        demo.clock.set(end);
        refused_by_state(end_rotation(root, &first.id, KeepSecret::Old).await);
        assert_eq!(
            verdicts(root, [&first.plain_key, &second]).await,
            [Verdict::Expired, Verdict::Allowed]
        );
        demo.service.stop().await;
    }

    /// Seen red with the look at the key's state left out.
    async fn a_rotation_revives_nothing(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let in_bulk = issue(root, issue_request()).await;
        revoke_keys(root, |_| ()).await.unwrap();
        let revoked = issue(root, issue_request()).await;
        root.revoke(&revoked.id).await.unwrap();
        let expired = issue(root, pb::IssueKeyRequest {
            expire_time: time(SECOND),
            ..issue_request()
        })
        .await;
        demo.clock.set(after(SECOND));
        for (key, verdict) in [
            (&in_bulk, Verdict::Revoked),
            (&revoked, Verdict::Revoked),
            (&expired, Verdict::Expired),
        ] {
            refused_by_state(rotate(root, &key.id, 60).await);
            assert_eq!(root.verdict(&key.plain_key).await, verdict);
            assert_eq!(get(root, &key.id).await.secrets.len(), 1);
        }
        // With a later end it can be.
        update(root, &expired.id, &["expire_time"], |_| ()).await.unwrap();
        let rotated = rotate(root, &expired.id, 60).await.unwrap();
        assert_eq!(root.verdict(&rotated.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    /// Seen red with a rotation that switches the key on.
    async fn a_disabled_key_can_be_rotated_and_stays_disabled(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let first = issue(root, issue_request()).await;
        let disable = pb::DisableKeyRequest {
            key_id: first.id.clone(),
            ..Default::default()
        };
        root.keys.disable_key(disable).await.unwrap();
        let rotated = rotate(root, &first.id, 60).await.unwrap();
        assert_eq!(rotated.key.unwrap().state(), KeyState::Disabled);
        let plain_keys = [first.plain_key.as_str(), &rotated.plain_key];
        assert_eq!(verdicts(root, plain_keys).await, [Verdict::Disabled; 2]);
        let enable = pb::EnableKeyRequest {
            key_id: first.id.clone(),
            ..Default::default()
        };
        root.keys.enable_key(enable).await.map(Response::into_inner).unwrap();
        assert_eq!(verdicts(root, plain_keys).await, [Verdict::Allowed; 2]);
        demo.service.stop().await;
    }

    /// Seen red with the revocation kept beside one secret only.
    async fn an_end_is_one_of_both_texts(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let (first, second, _) = begun(root, 60).await;
        root.revoke(&first.id).await.unwrap();
        assert_eq!(verdicts(root, [&first.plain_key, &second]).await, [Verdict::Revoked; 2]);
        root.delete(&first.id).await.unwrap();
        assert_eq!(verdicts(root, [&first.plain_key, &second]).await, [Verdict::Unknown; 2]);
        demo.service.stop().await;
    }

    async fn what_cannot_be_a_rotation_is_refused_and_changes_nothing(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let first = issue(root, issue_request()).await;
        let days = 24 * 3_600;
        for overlap in [-1, 366 * days + 1] {
            refused_field(rotate(root, &first.id, overlap).await, "overlap");
        }
        refused_field(
            end_rotation(root, &first.id, KeepSecret::Unspecified).await,
            "keep",
        );
        let nobody = format!("00000000{}", &first.id[8..]);
        let refusal = refused(rotate(root, &nobody, 0).await);
        assert_eq!(refusal.code, tonic::Code::NotFound);
        assert_eq!(events_of(root, &first.id).await, ["key.issued"]);

        let rotated = rotate(root, &first.id, 366 * days).await.unwrap();
        let end = end_of_oldest(&rotated.key.unwrap());
        assert!(end.since(NOW).as_secs() >= 366 * 24 * 3_600);
        demo.service.stop().await;
    }
}
