//! A key's revision, and changes on the condition that the key is still at one.

use claviger::pb::claviger::v1 as pb;
use pb::{KeepSecret, Verdict};
use tonic::{Code, Response, Status};

use crate::fixtures::{
    Api, DemoService, Engine, get, issue, issue_request, on_both_engines, refused, request_id,
    revoke_keys, rotate, rotate_request, strings, update,
};

/// What a change answers with: the key, and the revision of the change.
type Changed = Result<(pb::Key, u64), Status>;

const METHODS: [&str; 5] = [
    "UpdateKey",
    "RotateKey",
    "EndRotation",
    "DisableKey",
    "EnableKey",
];

/// Calls a method that takes a condition. Each call changes something, if they are called in the order of [`METHODS`].
async fn change(api: &mut Api, method: &str, key_id: &str, if_revision: Option<u64>) -> Changed {
    let key_id = key_id.to_owned();
    macro_rules! answer {
        ($call:expr) => {
            $call
                .await
                .map(Response::into_inner)
                .map(|answer| (answer.key.unwrap(), answer.revision))
        };
    }
    match method {
        "UpdateKey" => update(api, &key_id, &["name"], |request| {
            "renamed".clone_into(&mut request.name);
            request.if_revision = if_revision;
        })
        .await
        .map(|answer| (answer.key.unwrap(), answer.revision)),
        "RotateKey" => answer!(api.keys.rotate_key(pb::RotateKeyRequest {
            if_revision,
            ..rotate_request(&key_id, 60)
        })),
        "EndRotation" => answer!(api.keys.end_rotation(pb::EndRotationRequest {
            key_id,
            keep: KeepSecret::New.into(),
            if_revision,
            ..Default::default()
        })),
        "DisableKey" => answer!(api.keys.disable_key(pb::DisableKeyRequest {
            key_id,
            if_revision,
            ..Default::default()
        })),
        "EnableKey" => answer!(api.keys.enable_key(pb::EnableKeyRequest {
            key_id,
            if_revision,
            ..Default::default()
        })),
        other => unreachable!("{other}"),
    }
}

fn conflict(answer: Changed) {
    let refusal = refused(answer);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::Aborted, "CHANGED_MEANWHILE")
    );
}

on_both_engines! {
    /// Seen red with `check_revision` left out of each of the five, one after the other, and with the revision of the last change
    /// of the authority in place of the key's.
    async fn a_change_is_made_only_at_the_revision_that_was_read(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        for method in METHODS {
            // What happens to others changes nothing.
            issue(root, issue_request()).await;
            let before = get(root, &key.id).await;
            let known = before.revision.unwrap();
            for wrong in [0, known - 1, known + 1] {
                conflict(change(root, method, &key.id, Some(wrong)).await);
                assert_eq!(get(root, &key.id).await, before, "{method} at {wrong}");
            }
            let (changed, revision) = change(root, method, &key.id, Some(known)).await.unwrap();
            assert_eq!(changed.revision, Some(revision), "{method}");
            assert!(revision > known);
            assert_eq!(get(root, &key.id).await, changed, "{method}");
            // The same again, by somebody who has not seen it.
            conflict(change(root, method, &key.id, Some(known)).await);
        }
        demo.service.stop().await;
    }

    /// Two read the key, and each takes one scope away.
    async fn of_two_updates_from_one_reading_one_is_made(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, pb::IssueKeyRequest {
            scopes: strings(&["read", "write", "admin"]),
            ..issue_request()
        }).await;
        let known = get(root, &key.id).await.revision;
        let mut updates = Vec::new();
        for scopes in [["read", "write"], ["read", "admin"]] {
            let mut api = root.clone();
            let id = key.id.clone();
            updates.push(tokio::spawn(async move {
                let narrowed = update(&mut api, &id, &["scopes"], |request| {
                    request.scopes = strings(&scopes);
                    request.if_revision = known;
                });
                narrowed.await.map(|answer| answer.key.unwrap().scopes)
            }));
        }
        let mut made = Vec::new();
        for update in updates {
            match update.await.unwrap() {
                Ok(scopes) => made.push(scopes),
                Err(status) => assert_eq!(status.code(), Code::Aborted),
            }
        }
        assert_eq!(made.len(), 1);
        let mut scopes = get(root, &key.id).await.scopes;
        scopes.sort();
        made[0].sort();
        assert_eq!(scopes, made[0], "nothing came back");
        demo.service.stop().await;
    }

    /// Seen red with the condition checked before the look-up of the request.
    async fn a_repeated_rotation_is_answered_before_its_condition_is_looked_at(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        let request = pb::RotateKeyRequest {
            if_revision: key.key.revision,
            request_id: request_id(),
            ..rotate_request(&key.id, 60)
        };
        let first = root.keys.rotate_key(request.clone()).await.unwrap().into_inner();
        let again = root.keys.rotate_key(request.clone()).await.unwrap().into_inner();
        assert!(again.replayed);
        assert_eq!((again.revision, again.key), (first.revision, first.key));
        // Another rotation from the same reading would end the API key of the first answer.
        let other = pb::RotateKeyRequest { request_id: request_id(), ..request };
        assert_eq!(refused(root.keys.rotate_key(other).await).code, Code::Aborted);
        assert_eq!(root.verdict(&first.plain_key).await, Verdict::Allowed);
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    /// The revision is that of the key's own row: neither other keys nor rules change it.
    async fn a_key_has_the_revision_of_its_own_last_change(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let request = issue_request();
        let issued = root.keys.issue_key(request).await.unwrap().into_inner();
        let key = issued.key.unwrap();
        assert_eq!(key.revision, Some(issued.revision));
        let rotated = rotate(root, &key.id, 0).await.unwrap();
        assert_eq!(rotated.key.unwrap().revision, Some(rotated.revision));
        revoke_keys(root, |_| ()).await.unwrap();
        assert_eq!(get(root, &key.id).await.revision, Some(rotated.revision));
        let mut demo = demo.restarted().await;
        let listed = demo.root.keys.list_keys(pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() }),
            ..Default::default()
        });
        let listed = listed.await.unwrap().into_inner().keys;
        assert_eq!(listed[0].revision, Some(rotated.revision));
        demo.service.stop().await;
    }
}
