//! The ends of keys: many at once, and by their own word.

use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::{KeyState, Verdict};
use tonic::Code;

use crate::fixtures::{
    Api, DemoService, Engine, HOUR, IssuedKey, SECOND, after, authority_key_request,
    delegating_realm, delegating_service, demo_realm, events_of, get, import, import_entry, issue,
    issue_request, list_in_states, on_both_engines, parse_time, proto_time, refused, refused_field,
    revoke_keys, revoke_self, rotate, strings, verify_request,
};

fn of(partner: &str, project: &str, environment: &str) -> pb::IssueKeyRequest {
    let level = match project {
        "" => pb::KeyLevel::Partner,
        _ => pb::KeyLevel::Project,
    };
    pb::IssueKeyRequest {
        partner: partner.to_owned(),
        project: project.to_owned(),
        level: level.into(),
        environment: environment.to_owned(),
        ..issue_request()
    }
}

async fn state(api: &mut Api, key: &IssuedKey) -> KeyState {
    get(api, &key.id).await.state()
}

/// A key of the built-in realm.
async fn of_the_authority(api: &mut Api, scope: &str, realm: &str) -> IssuedKey {
    issue(api, authority_key_request(scope, realm)).await
}

fn created(key: &IssuedKey) -> prost_types::Timestamp {
    key.key.create_time.unwrap()
}

on_both_engines! {
    /// Seen red with `<=` in place of `<`, with the time of the call in place of its revision where no time is given, and with
    /// the last bound of a realm kept in place of the latest.
    async fn keys_issued_before_a_time_are_ended_to_the_microsecond(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let mut keys = Vec::new();
        for i in 0..4 {
            demo.clock.set(after(i * SECOND));
            keys.push(issue(root, issue_request()).await);
        }
        let issued_before = |time| move |keys: &mut pb::RevokeKeysRequest| keys.filter.get_or_insert_default().issued_before = Some(time);
        revoke_keys(root, issued_before(created(&keys[1]))).await.unwrap();
        let mut states = Vec::new();
        for key in &keys {
            states.push(root.verdict(&key.plain_key).await);
        }
        assert_eq!(
            states,
            [Verdict::Revoked, Verdict::Allowed, Verdict::Allowed, Verdict::Allowed]
        );
        let just_after = parse_time(&created(&keys[1])).as_micros() + 1;
        revoke_keys(root, issued_before(proto_time(Timestamp::from_micros(just_after)))).await.unwrap();
        assert_eq!(root.verdict(&keys[1].plain_key).await, Verdict::Revoked);
        assert_eq!(root.verdict(&keys[2].plain_key).await, Verdict::Allowed);

        // An earlier time than that of a call before gives nothing back; nor does one before all keys, which is no change.
        for earlier in [&keys[1], &keys[0]] {
            revoke_keys(root, issued_before(created(earlier))).await.unwrap();
            assert_eq!(root.verdict(&keys[1].plain_key).await, Verdict::Revoked);
        }

        let future = proto_time(after(HOUR));
        refused_field(revoke_keys(root, issued_before(future)).await, "issued_before");
        assert_eq!(root.verdict(&keys[3].plain_key).await, Verdict::Allowed);

        // Without a time it is all that there are, and nothing of the same instant afterwards: the clock stands still.
        revoke_keys(root, |_| ()).await.unwrap();
        let later = issue(root, issue_request()).await;
        for key in &keys {
            assert_eq!(root.verdict(&key.plain_key).await, Verdict::Revoked);
        }
        assert_eq!(root.verdict(&later.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    /// Seen red with the last bound kept in place of the latest: of all keys of a home or a partner, and of some of a partner's.
    async fn an_end_of_fewer_gives_nothing_back_at_any_level(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let mut ended = Vec::new();
        for (n, [partner, project, environment]) in [
            ["", "", ""],
            ["", "", "production"],
            ["acme", "", ""],
            ["acme", "", "production"],
            ["acme", "one", ""],
            ["acme", "one", "production"],
            ["", "one", ""],
        ]
        .into_iter()
        .enumerate()
        {
            let root = &mut demo.root;
            let mut keys = Vec::new();
            for i in 0..3 {
                demo.clock.set(after((3 * n as i64 + i) * SECOND));
                keys.push(issue(root, of("acme", "one", "production")).await);
            }
            // First all but the last, and then all but the last two.
            for spared in [&keys[2], &keys[1]] {
                revoke_keys(root, |keys| {
                    partner.clone_into(&mut keys.filter.get_or_insert_default().partner);
                    project.clone_into(&mut keys.filter.get_or_insert_default().project);
                    environment.clone_into(&mut keys.filter.get_or_insert_default().environment);
                    keys.filter.get_or_insert_default().issued_before = Some(created(spared));
                })
                .await
                .unwrap();
            }
            let mut are_ended = Vec::new();
            for key in &keys {
                are_ended.push(root.verdict(&key.plain_key).await == Verdict::Revoked);
            }
            assert_eq!(are_ended, [true, true, false], "of {partner:?}, {project:?}, {environment:?}");
            ended.extend(keys.into_iter().take(2));
        }
        let mut demo = demo.restarted().await;
        for key in &ended {
            assert_eq!(demo.root.verdict(&key.plain_key).await, Verdict::Revoked, "after a restart");
        }
        demo.service.stop().await;
    }

    /// Seen red with the homes of a realm made anew whenever it is put, and with those made anew that it has when it is changed.
    async fn keys_are_ended_at_once_though_their_realm_was_changed_since(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let production = issue(root, issue_request()).await;
        let staging = issue(root, of("acme", "", "staging")).await;
        let mut changed = demo_realm();
        changed.environments.insert(0, pb::Environment {
            name: "sandbox".to_owned(),
            tag: "sand".to_owned(),
        });
        root.put_realm(changed).await;
        let of_staging = |keys: &mut pb::RevokeKeysRequest| "staging".clone_into(&mut keys.filter.get_or_insert_default().environment);
        revoke_keys(root, of_staging).await.unwrap();
        assert_eq!(root.verdict(&staging.plain_key).await, Verdict::Revoked);
        assert_eq!(root.verdict(&production.plain_key).await, Verdict::Allowed);

        // What was ended stays so when the realm is changed afterwards, and what is issued then is good.
        root.put_realm(demo_realm()).await;
        revoke_keys(root, |_| ()).await.unwrap();
        let mut other = demo_realm();
        "changed again".clone_into(&mut other.scopes[0].description);
        root.put_realm(other).await;
        let later = issue(root, issue_request()).await;
        for key in [&staging, &production] {
            assert_eq!(root.verdict(&key.plain_key).await, Verdict::Revoked);
        }
        assert_eq!(root.verdict(&later.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    async fn an_end_of_many_is_told_like_one_of_each(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let before = issue(root, issue_request()).await;
        root.revoke(&before.id).await.unwrap();
        let disabled = issue(root, issue_request()).await;
        let disable = pb::DisableKeyRequest {
            key_id: disabled.id.clone(),
            ..Default::default()
        };
        root.keys.disable_key(disable).await.unwrap();
        let active = issue(root, issue_request()).await;
        let plain_key = "TtgGcQFq.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU";
        let imported = import(root, vec![import_entry(plain_key)]).await.remove(0).unwrap();
        let other = issue(root, of("umbrella", "", "production")).await;

        let of_acme = |keys: &mut pb::RevokeKeysRequest| "acme".clone_into(&mut keys.filter.get_or_insert_default().partner);
        let look = revoke_keys(root, |keys| {
            of_acme(keys);
            keys.dry_run = true;
        })
        .await
        .unwrap();
        assert_eq!(look.would_revoke, 3, "one is revoked already");
        assert_eq!(look.examples.iter().map(|key| &key.id).collect::<Vec<_>>(), [
            &imported,
            &active.id,
            &disabled.id
        ]);
        assert_eq!(look.effective_everywhere_time, None);
        assert_eq!(root.verdict(&active.plain_key).await, Verdict::Allowed, "it only looked");

        demo.clock.set(after(SECOND));
        let done = revoke_keys(root, of_acme).await.unwrap();
        assert_eq!((done.would_revoke, done.examples.len()), (0, 0));
        assert!(done.effective_everywhere_time.is_some());
        assert!(done.revision > look.revision);
        for id in [&disabled.id, &active.id, &imported] {
            let key = get(root, id).await;
            assert_eq!(key.state(), KeyState::Revoked);
            assert_eq!(key.revoke_reason, "many at once");
            assert!(parse_time(key.revoke_time.as_ref().unwrap()) >= after(SECOND));
        }
        for plain_key in [&disabled.plain_key, &active.plain_key, plain_key] {
            assert_eq!(root.verdict(plain_key).await, Verdict::Revoked);
        }
        assert_eq!(root.verdict(&other.plain_key).await, Verdict::Allowed);
        assert_eq!(get(root, &before.id).await.revoke_reason, "a test", "the first reason stands");
        // To end one of them again changes nothing either.
        let again = root.revoke(&active.id).await.unwrap().key.unwrap();
        assert_eq!(again.revoke_reason, "many at once");

        let events = pb::ListEventsRequest {
            realm: "demo".to_owned(),
            kind: "keys.revoked".to_owned(),
            ..Default::default()
        };
        let events = root.keys.list_events(events).await.unwrap().into_inner().events;
        let [event] = events.as_slice() else {
            panic!("{} events", events.len());
        };
        assert_eq!((event.revision, event.partner.as_str()), (done.revision, "acme"));
        assert!(event.detail.values().any(|word| word == "many at once"));

        // A deleted one is gone, as ever.
        root.delete(&active.id).await.unwrap();
        assert_eq!(root.verdict(&active.plain_key).await, Verdict::Unknown);
        demo.service.stop().await;
    }

    async fn a_look_shows_the_newest_ten(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        for _ in 0..12 {
            issue(root, issue_request()).await;
        }
        let look = revoke_keys(root, |keys| keys.dry_run = true).await.unwrap();
        let shown: Vec<_> = look.examples.into_iter().map(|key| key.id).collect();
        assert_eq!((look.would_revoke, shown.as_slice()), (12, &list_in_states(root, "demo", &[]).await[..10]));
        demo.service.stop().await;
    }

    /// Seen red with the level of the call taken as it was asked for, and not narrowed to what the caller administers.
    async fn a_delegate_ends_what_it_administers_and_nothing_else(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let admin = |request: pb::IssueKeyRequest| pb::IssueKeyRequest {
            scopes: strings(&["owner"]),
            ..request
        };
        for project in ["", "one"] {
            let caller = issue(&mut root, admin(of("acme", project, "production"))).await;
            let mut keys = Vec::new();
            for (partner, project, environment) in [
                ("acme", "", "production"),
                ("acme", "one", "production"),
                ("acme", "two", "production"),
                ("acme", "", "staging"),
                ("acme", "one", "staging"),
                ("umbrella", "", "production"),
                ("umbrella", "three", "production"),
            ] {
                keys.push(issue(&mut root, of(partner, project, environment)).await);
            }
            let gateway = of_the_authority(&mut root, "verify", "demo").await;
            let mut api = service.api_as(&caller.plain_key);
            let mut foreign: Vec<fn(&mut pb::RevokeKeysRequest)> = vec![
                |keys| "umbrella".clone_into(&mut keys.filter.get_or_insert_default().partner),
                |keys| "nobody".clone_into(&mut keys.filter.get_or_insert_default().partner),
                |keys| "staging".clone_into(&mut keys.filter.get_or_insert_default().environment),
                |keys| "claviger".clone_into(&mut keys.filter.get_or_insert_default().realm),
            ];
            if !project.is_empty() {
                foreign.push(|keys| "two".clone_into(&mut keys.filter.get_or_insert_default().project));
            }
            for change in foreign {
                for dry_run in [true, false] {
                    let answer = revoke_keys(&mut api, |keys| {
                        change(keys);
                        keys.dry_run = dry_run;
                    })
                    .await;
                    assert_eq!(refused(answer).code, Code::PermissionDenied);
                }
            }
            for key in &keys {
                assert_eq!(state(&mut root, key).await, KeyState::Active);
            }

            let look = revoke_keys(&mut api, |keys| keys.dry_run = true).await.unwrap();
            let reached: &[usize] = if project.is_empty() { &[0, 1, 2] } else { &[1] };
            let shown: Vec<_> = look.examples.iter().map(|key| key.id.clone()).collect();
            for i in reached {
                assert!(shown.contains(&keys[*i].id));
            }
            assert_eq!(look.would_revoke, shown.len() as u64);
            revoke_keys(&mut api, |_| ()).await.unwrap();
            for (i, key) in keys.iter().enumerate() {
                let expected = if reached.contains(&i) {
                    KeyState::Revoked
                } else {
                    KeyState::Active
                };
                assert_eq!(state(&mut root, key).await, expected, "key {i}, by {project:?}");
            }
            // Itself included.
            assert_eq!(state(&mut root, &caller).await, KeyState::Revoked);
            assert_eq!(refused(revoke_keys(&mut api, |_| ()).await).code, Code::Unauthenticated);
            // Neither those of the authority nor those of afterwards.
            let later = issue(&mut root, of("acme", "one", "production")).await;
            assert_eq!(state(&mut root, &later).await, KeyState::Active);
            assert_eq!(state(&mut root, &gateway).await, KeyState::Active);
        }
        service.stop().await;
    }

    async fn a_partner_ends_the_keys_of_one_project_and_goes_on(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let caller = issue(&mut root, pb::IssueKeyRequest {
            scopes: strings(&["owner"]),
            ..issue_request()
        })
        .await;
        let one = issue(&mut root, of("acme", "one", "production")).await;
        let two = issue(&mut root, of("acme", "two", "production")).await;
        let staging = issue(&mut root, of("acme", "one", "staging")).await;
        let mut api = service.api_as(&caller.plain_key);
        let project = |keys: &mut pb::RevokeKeysRequest| "one".clone_into(&mut keys.filter.get_or_insert_default().project);
        revoke_keys(&mut api, project).await.unwrap();
        assert_eq!(state(&mut api, &one).await, KeyState::Revoked);
        assert_eq!(state(&mut api, &two).await, KeyState::Active);
        assert_eq!(state(&mut root, &staging).await, KeyState::Active);
        service.stop().await;
    }

    /// Seen red without the look at the caller's own key, where it is done and where it is tried.
    async fn an_operator_does_not_lock_itself_out(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let other = of_the_authority(root, "operator", "").await;
        let gateway = of_the_authority(root, "verify", "demo").await;
        let mut other_api = demo.service.api_as(&other.plain_key);
        let authority = |keys: &mut pb::RevokeKeysRequest| "claviger".clone_into(&mut keys.filter.get_or_insert_default().realm);
        for dry_run in [true, false] {
            let answer = revoke_keys(&mut other_api, |keys| {
                authority(keys);
                keys.dry_run = dry_run;
            })
            .await;
            let refusal = refused(answer);
            let told = (refusal.code, refusal.reason.as_str());
            assert_eq!(told, (Code::FailedPrecondition, "LOCKS_OUT_CALLER"));
        }
        for key in [&other, &gateway] {
            assert_eq!(state(root, key).await, KeyState::Active, "nothing was ended");
        }

        // All the older ones can be ended, such as that of somebody who has left.
        revoke_keys(&mut other_api, |keys| {
            authority(keys);
            keys.filter.get_or_insert_default().issued_before = Some(created(&other));
        })
        .await
        .unwrap();
        let request = pb::ListRealmsRequest::default();
        assert_eq!(refused(root.realms.list_realms(request).await).code, Code::Unauthenticated);
        assert_eq!(state(&mut other_api, &gateway).await, KeyState::Active);
        demo.service.stop().await;
    }

    /// Seen red with the callers looked up by their key's state alone.
    async fn a_caller_that_was_ended_with_many_can_do_nothing_any_more(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(delegating_realm()).await;
        let gateway = of_the_authority(root, "verify", "demo").await;
        let manager = of_the_authority(root, "manage", "demo").await;
        let delegate = issue(root, pb::IssueKeyRequest {
            scopes: strings(&["owner"]),
            ..issue_request()
        })
        .await;
        let key = issue(root, of("umbrella", "", "production")).await;
        let mut gateway_api = demo.service.api_as(&gateway.plain_key);
        assert_eq!(gateway_api.verdict(&key.plain_key).await, Verdict::Allowed);

        revoke_keys(root, |keys| {
            "claviger".clone_into(&mut keys.filter.get_or_insert_default().realm);
            "demo".clone_into(&mut keys.filter.get_or_insert_default().partner);
        })
        .await
        .unwrap();
        revoke_keys(root, |keys| "acme".clone_into(&mut keys.filter.get_or_insert_default().partner)).await.unwrap();
        for restart in [false, true] {
            if restart {
                demo = demo.restarted().await;
            }
            let question = verify_request(&key.plain_key);
            let mut gateway = demo.service.api_as(&gateway.plain_key);
            assert_eq!(
                refused(gateway.verify.verify(question).await).code,
                Code::Unauthenticated
            );
            for plain_key in [&manager.plain_key, &delegate.plain_key] {
                let mut api = demo.service.api_as(plain_key);
                let list = pb::ListKeysRequest {
                    filter: Some(pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() }),
                    ..Default::default()
                };
                let answers = [
                    api.keys.list_keys(list).await.err(),
                    api.keys.issue_key(issue_request()).await.err(),
                    rotate(&mut api, &delegate.id, 0).await.err(),
                    revoke_keys(&mut api, |_| ()).await.err(),
                    api.delete(&key.id).await.err(),
                ];
                for refusal in answers {
                    assert_eq!(refusal.expect("a refusal").code(), Code::Unauthenticated);
                }
            }
            assert_eq!(demo.root.verdict(&key.plain_key).await, Verdict::Allowed);
        }
        demo.service.stop().await;
    }

    /// Seen red with the caller's scopes, state, partner or address looked at as for other calls.
    async fn whoever_holds_a_key_can_end_it(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let without_scopes = pb::IssueKeyRequest {
            scopes: Vec::new(),
            name: "of a secret name".to_owned(),
            labels: [("team".to_owned(), "payments".to_owned())].into(),
            ..issue_request()
        };
        let elsewhere = pb::IssueKeyRequest {
            allowed_cidrs: strings(&["192.0.2.0/24"]),
            ..issue_request()
        };
        let plain = issue(root, without_scopes).await;
        let elsewhere = issue(root, elsewhere).await;
        let disabled = issue(root, issue_request()).await;
        let disable = pb::DisableKeyRequest {
            key_id: disabled.id.clone(),
            ..Default::default()
        };
        root.keys.disable_key(disable).await.unwrap();
        let of_project = issue(root, of("acme", "one", "staging")).await;
        let suspended = issue(root, of("umbrella", "", "production")).await;
        root.put_partner("umbrella", true).await;
        let rotated = issue(root, issue_request()).await;
        rotate(root, &rotated.id, 600).await.unwrap();
        let bystander = issue(root, issue_request()).await;

        for key in [&plain, &elsewhere, &disabled, &of_project, &suspended, &rotated] {
            let mut holder = demo.service.api_as(&key.plain_key);
            let ended = revoke_self(&mut holder, "found on the street").await.unwrap();
            let expected = pb::Key {
                id: key.id.clone(),
                realm: "demo".to_owned(),
                state: KeyState::Revoked.into(),
                create_time: key.key.create_time,
                revoke_time: ended.revoke_time,
                ..Default::default()
            };
            assert_eq!(ended, expected, "the holder of a key need not be its owner");
            assert!(ended.revoke_time.is_some());
            // To repeat it changes nothing.
            assert_eq!(revoke_self(&mut holder, "again").await.unwrap(), expected);
            assert_eq!(state(root, key).await, KeyState::Revoked);
            let kinds = events_of(root, &key.id).await;
            assert_eq!(kinds.iter().filter(|kind| *kind == "key.revoked").count(), 1);
        }
        assert_eq!(root.verdict(&rotated.plain_key).await, Verdict::Revoked);
        assert_eq!(root.verdict(&bystander.plain_key).await, Verdict::Allowed);

        // An imported key is proven as well.
        let plain_key = "TtgGcQFq.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU";
        let imported = import(root, vec![import_entry(plain_key)]).await.remove(0).unwrap();
        let ended = revoke_self(&mut demo.service.api_as(plain_key), "leaked").await.unwrap();
        assert_eq!(ended.id, imported);
        assert_eq!(root.verdict(plain_key).await, Verdict::Revoked);

        // A key that does not exist revokes nothing.
        root.delete(&bystander.id).await.unwrap();
        for plain_key in [bystander.plain_key.as_str(), "demo_live_nonsense", "TtgGcQFq.nonsense"] {
            let answer = revoke_self(&mut demo.service.api_as(plain_key), "").await;
            assert_eq!(refused(answer).code, Code::Unauthenticated);
        }
        demo.service.stop().await;
    }
}
