//! Changes of a key: what it may do, how long and from where.

use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::{KeyState, UnscopedKeys, Verdict};

use crate::fixtures::{
    Api, DemoService, Engine, HOUR, SECOND, after, demo_realm, events_of, get, issue,
    issue_request, on_both_engines, parse_time, proto_time, refused_by_state, refused_field,
    revoke_keys, seconds, strings, time, update, verify_request,
};

/// What a key is told when `scope` is wanted of it.
async fn asked_for(api: &mut Api, plain_key: &str, scope: &str) -> Verdict {
    let question = pb::VerifyRequest {
        scopes: strings(&[scope]),
        ..verify_request(plain_key)
    };
    api.verify
        .verify(question)
        .await
        .unwrap()
        .into_inner()
        .verdict()
}

async fn effective(api: &mut Api, key_id: &str) -> Vec<String> {
    let request = pb::GetKeyScopesRequest {
        key_id: key_id.to_owned(),
        ..Default::default()
    };
    api.keys
        .get_key_scopes(request)
        .await
        .unwrap()
        .into_inner()
        .effective
}

fn with_full_access() -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        scopes: Vec::new(),
        full_access: true,
        ..issue_request()
    }
}

on_both_engines! {
    /// Seen red without the limit.
    async fn an_update_names_a_limited_number_of_paths(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        let mut named = async |paths| update(root, &key.id, &vec!["name"; paths], |_| ()).await;
        named(16).await.unwrap();
        refused_field(named(17).await, "update_mask");
        demo.service.stop().await;
    }

    /// Seen red with the realm's `unscoped_keys` asked at the update as it is at the issue.
    async fn a_key_whose_scopes_are_taken_away_holds_nothing_whatever_unscoped_keys_says(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        for unscoped_keys in [UnscopedKeys::NoAccess, UnscopedKeys::FullAccess] {
            root.put_realm(pb::Realm {
                unscoped_keys: unscoped_keys.into(),
                ..demo_realm()
            })
            .await;
            for (request, paths) in [
                (issue_request(), &["scopes"] as &[&str]),
                (issue_request(), &["scopes", "full_access"]),
                (with_full_access(), &["scopes"]),
                (with_full_access(), &["full_access"]),
                (with_full_access(), &["full_access", "scopes"]),
            ] {
                let key = issue(root, request).await;
                assert_eq!(asked_for(root, &key.plain_key, "write").await, Verdict::Allowed);
                let updated = update(root, &key.id, paths, |_| ()).await.unwrap().key.unwrap();
                assert_eq!((updated.scopes.len(), updated.full_access), (0, false), "{paths:?}");
                assert_eq!(asked_for(root, &key.plain_key, "read").await, Verdict::ScopeMissing);
                assert_eq!(root.verdict(&key.plain_key).await, Verdict::Allowed, "it is still a key");
                assert!(effective(root, &key.id).await.is_empty());
            }
        }
        demo.service.stop().await;
    }

    async fn access_is_given_and_taken_in_place_of_what_there_was(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        let everything = update(root, &key.id, &["full_access"], |key| key.full_access = true)
            .await
            .unwrap()
            .key
            .unwrap();
        assert_eq!((everything.scopes.len(), everything.full_access), (0, true));
        assert_eq!(asked_for(root, &key.plain_key, "admin").await, Verdict::Allowed);
        assert_eq!(effective(root, &key.id).await, ["admin", "read", "write"]);

        // By name, `full_access` is not needed in the mask.
        let reader = update(root, &key.id, &["scopes"], |key| key.scopes = strings(&["read"]))
            .await
            .unwrap()
            .key
            .unwrap();
        assert_eq!((reader.scopes, reader.full_access), (strings(&["read"]), false));
        assert_eq!(asked_for(root, &key.plain_key, "read").await, Verdict::Allowed);
        assert_eq!(asked_for(root, &key.plain_key, "write").await, Verdict::ScopeMissing);

        let both = update(root, &key.id, &["scopes", "full_access"], |key| {
            key.scopes = strings(&["read"]);
            key.full_access = true;
        })
        .await;
        refused_field(both, "full_access");
        let writer = update(root, &key.id, &["full_access", "scopes"], |key| {
            key.scopes = strings(&["write"]);
        })
        .await
        .unwrap()
        .key
        .unwrap();
        assert_eq!((writer.scopes, writer.full_access), (strings(&["write"]), false));

        let unknown = update(root, &key.id, &["scopes"], |key| key.scopes = strings(&["ghost"])).await;
        refused_field(unknown, "scopes");
        assert_eq!(asked_for(root, &key.plain_key, "write").await, Verdict::Allowed);

        let mut demo = demo.restarted().await;
        let root = &mut demo.root;
        assert_eq!(asked_for(root, &key.plain_key, "write").await, Verdict::Allowed, "after a restart");
        assert_eq!(asked_for(root, &key.plain_key, "admin").await, Verdict::ScopeMissing);
        demo.service.stop().await;
    }

    /// Seen red with the mask taken for a hint: every field of the request is then written.
    async fn only_what_the_mask_names_is_changed(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, pb::IssueKeyRequest {
            name: "first".to_owned(),
            labels: [("team".to_owned(), "payments".to_owned())].into(),
            allowed_cidrs: strings(&["10.0.0.0/8"]),
            expire_time: time(HOUR),
            ..issue_request()
        })
        .await;
        let before = get(root, &key.id).await;
        let renamed = update(root, &key.id, &["name"], |key| "second".clone_into(&mut key.name))
            .await
            .unwrap();
        assert_eq!(renamed.key.unwrap(), pb::Key {
            name: "second".to_owned(),
            revision: Some(renamed.revision),
            ..before.clone()
        });
        let everywhere = update(root, &key.id, &["allowed_cidrs", "labels"], |key| {
            key.labels = [("of".to_owned(), "others".to_owned())].into();
        })
        .await
        .unwrap();
        let expected = pb::Key {
            name: "second".to_owned(),
            labels: [("of".to_owned(), "others".to_owned())].into(),
            allowed_cidrs: Vec::new(),
            revision: Some(everywhere.revision),
            ..before
        };
        assert_eq!(everywhere.key.unwrap(), expected);
        assert_eq!(get(root, &key.id).await, expected);
        // The same again changes nothing, and is no event.
        let again = update(root, &key.id, &["allowed_cidrs", "labels"], |key| {
            key.labels = [("of".to_owned(), "others".to_owned())].into();
        })
        .await
        .unwrap();
        assert_eq!(again.key.unwrap(), expected);
        assert_eq!(again.revision, everywhere.revision);
        assert_eq!(
            events_of(root, &key.id).await,
            ["key.issued", "key.updated", "key.updated"]
        );

        let told = root.ask(&key.plain_key).await;
        assert_eq!(told.verdict(), Verdict::Allowed, "from anywhere");
        let told = told.key.unwrap();
        assert_eq!((told.name.as_str(), told.labels), ("second", expected.labels.clone()));
        demo.service.stop().await;
    }

    async fn without_an_expire_time_a_key_lives_for_ever_or_as_long_as_its_realm_lets_it(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, pb::IssueKeyRequest {
            expire_time: time(HOUR),
            ..issue_request()
        })
        .await;
        let born = parse_time(key.key.create_time.as_ref().unwrap()).as_micros();
        let updated = update(root, &key.id, &["expire_time"], |_| ()).await.unwrap();
        assert_eq!(updated.key.unwrap().expire_time, None);

        root.put_realm(pb::Realm {
            max_lifetime: seconds(2 * 3_600),
            ..demo_realm()
        })
        .await;
        let longest = Timestamp::from_micros(born + 2 * HOUR);
        demo.clock.set(after(HOUR));
        let updated = update(root, &key.id, &["expire_time"], |_| ()).await.unwrap();
        let end = updated.key.unwrap().expire_time.unwrap();
        assert_eq!(parse_time(&end), longest, "counted from when it was issued");
        let later = Timestamp::from_micros(longest.as_micros() + 1);
        let refused = update(root, &key.id, &["expire_time"], |key| {
            key.expire_time = Some(proto_time(later));
        })
        .await;
        refused_field(refused, "expire_time");
        for past in [after(0), after(HOUR)] {
            let refused = update(root, &key.id, &["expire_time"], |key| {
                key.expire_time = Some(proto_time(past));
            })
            .await;
            refused_field(refused, "expire_time");
        }
        demo.clock.set(Timestamp::from_micros(longest.as_micros() - 1));
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Allowed);
        demo.clock.set(longest);
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Expired);
        demo.service.stop().await;
    }

    async fn an_expired_key_works_again_with_a_later_end_and_a_revoked_one_never(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let request = || pb::IssueKeyRequest {
            expire_time: time(60 * SECOND),
            ..issue_request()
        };
        let in_bulk = issue(root, request()).await;
        revoke_keys(root, |_| ()).await.unwrap();
        let (expired, revoked) = (issue(root, request()).await, issue(root, request()).await);
        root.revoke(&revoked.id).await.unwrap();
        demo.clock.set(after(60 * SECOND));
        assert_eq!(root.verdict(&expired.plain_key).await, Verdict::Expired);
        let updated = update(root, &expired.id, &["expire_time"], |key| {
            key.expire_time = time(120 * SECOND);
        })
        .await
        .unwrap();
        assert_eq!(updated.key.unwrap().state(), KeyState::Active);
        assert_eq!(root.verdict(&expired.plain_key).await, Verdict::Allowed);
        demo.clock.set(after(120 * SECOND));
        assert_eq!(root.verdict(&expired.plain_key).await, Verdict::Expired);

        for key in [&in_bulk, &revoked] {
            for paths in [["expire_time"], ["name"], ["scopes"], ["full_access"]] {
                let before = get(root, &key.id).await;
                refused_by_state(update(root, &key.id, &paths, |_| ()).await);
                assert_eq!(get(root, &key.id).await, before);
            }
            assert_eq!(root.verdict(&key.plain_key).await, Verdict::Revoked);
        }
        demo.service.stop().await;
    }
}
