//! What the holder of a key does with it: reads it, and rotates it. The holder is not necessarily the owner.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::find_key_request::Key as Sought;
use pb::{KeepSecret, KeyLevel, Verdict};
use tonic::{Code, Status};

use crate::fixtures::{
    Api, DemoService, Engine, HOUR, IssuedKey, Refusal, SECOND, after, authority_key_request,
    delegating_realm, delegating_service, delegating_service_with, demo_realm, end_rotation, get,
    get_self, import, import_entry, issue, issue_request, issue_request_with, on_both_engines,
    parse_time, refused, refused_field, request_id, revoke_self, rotate, rotate_self, seconds,
    strings, time, update,
};

/// An hour, in seconds: the shortest overlap.
const HOUR_OF_SECONDS: i64 = 3600;

/// The realm `demo` whose keys may rotate themselves.
fn rotating_realm() -> pb::Realm {
    pb::Realm {
        self_rotation: true,
        ..demo_realm()
    }
}

/// A key with every property that a key can have.
fn full_key() -> pb::IssueKeyRequest {
    let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    issue_request_with(|key| {
        key.level = KeyLevel::Project.into();
        "one".clone_into(&mut key.project);
        "everything".clone_into(&mut key.name);
        "of-another-system".clone_into(&mut key.external_id);
        key.labels = [("operator/plan", "gold"), ("team", "a"), ("operator", "b")]
            .map(label)
            .into();
        key.allowed_cidrs = strings(&["127.0.0.0/8", "::1/128"]);
        key.expire_time = time(1_000 * HOUR);
    })
}

/// What the holder learns of a key whose administrator learns this.
fn as_told_to_holder(key: &pb::Key) -> pb::Key {
    let mut key = key.clone();
    key.external_id.clear();
    key.created_by.clear();
    key.revoke_reason.clear();
    key.labels.retain(|name, _| !name.starts_with("operator/"));
    key
}

/// The same without the times of last use, which come a few seconds late.
fn without_uses(mut key: pb::Key) -> pb::Key {
    key.last_used_time = None;
    for secret in &mut key.secrets {
        secret.last_used_time = None;
    }
    key
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn rotate_request(overlap: i64, id: &str) -> pb::RotateSelfRequest {
    pb::RotateSelfRequest {
        overlap: seconds(overlap),
        request_id: id.to_owned(),
        ..Default::default()
    }
}

/// The events of a key, newest first: their kinds and actors.
async fn events(root: &mut Api, key_id: &str) -> Vec<(String, String)> {
    let request = pb::ListEventsRequest {
        key_id: key_id.to_owned(),
        ..Default::default()
    };
    let events = root
        .keys
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let told = events.into_iter().map(|event| (event.kind, event.actor));
    told.collect()
}

/// The codes of the calls of a holder: `GetSelf` and `RotateSelf`.
async fn codes(holder: &mut Api) -> [Code; 2] {
    let get = code(get_self(holder).await);
    [get, code(rotate_self(holder, HOUR_OF_SECONDS).await)]
}

/// The key of an API key, as an administrator finds it.
async fn find(api: &mut Api, plain_key: &str) -> Result<pb::Key, Status> {
    let request = pb::FindKeyRequest {
        key: Some(Sought::PlainKey(plain_key.to_owned())),
    };
    let mut found = api.keys.find_key(request).await?.into_inner().keys;
    Ok(found.remove(0))
}

on_both_engines! {
    /// Seen red with the labels of the operator in `response::own_key`.
    async fn the_holder_learns_what_it_needs_and_the_administrator_everything(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(rotating_realm()).await;
        let issued = issue(&mut demo.root, full_key()).await;
        let mut holder = demo.service.api_as(&issued.plain_key);

        let told = demo.root.keys.get_key(pb::GetKeyRequest {
            key_id: issued.id.clone(),
            ..Default::default()
        }).await.unwrap().into_inner();
        let own = holder.keys.get_self(pb::GetSelfRequest {}).await.unwrap().into_inner();
        assert_eq!(own.revision, told.revision);
        let (key, own) = (without_uses(told.key.unwrap()), without_uses(own.key.unwrap()));
        assert_eq!(own, as_told_to_holder(&key));
        // What is hidden was there, and what is told too.
        assert!(!key.external_id.is_empty() && !key.created_by.is_empty() && key.labels.len() == 3);
        assert_eq!(own.labels.keys().collect::<Vec<_>>(), ["operator", "team"]);
        assert_eq!((own.partner.as_str(), own.project.as_str()), ("acme", "one"));
        assert_eq!(own.hint, key.hint);

        let rotated = rotate_self(&mut holder, HOUR_OF_SECONDS).await.unwrap();
        let key = get(&mut demo.root, &issued.id).await;
        let expected = without_uses(as_told_to_holder(&key));
        assert_eq!(without_uses(rotated.key.unwrap()), expected);
        let mut newer = demo.service.api_as(&rotated.plain_key);
        for holder in [&mut holder, &mut newer] {
            assert_eq!(without_uses(get_self(holder).await.unwrap()), expected);
        }
        // The administrator learns everything by either API key, and the holder administers nothing.
        for plain_key in [&issued.plain_key, &rotated.plain_key] {
            let found = find(&mut demo.root, plain_key).await.unwrap();
            assert_eq!(without_uses(found), without_uses(key.clone()));
            assert_eq!(code(find(&mut holder, plain_key).await), Code::PermissionDenied);
        }
        let request = pb::GetKeyRequest { key_id: issued.id.clone(), ..Default::default() };
        assert_eq!(code(newer.keys.get_key(request).await), Code::PermissionDenied);
        demo.service.stop().await;
    }

    /// Who is accepted is the same for both calls, and as for other callers. Seen red with `holder_of_any_key` in the two handlers.
    async fn only_a_key_that_is_accepted_is_told_of_or_rotated(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(rotating_realm()).await;
        let expiring = issue(root, issue_request_with(|key| key.expire_time = time(HOUR))).await;
        let disabled = issue(root, issue_request()).await;
        let revoked = issue(root, issue_request()).await;
        let in_bulk = issue(root, issue_request_with(|key| "staging".clone_into(&mut key.environment))).await;
        let deleted = issue(root, issue_request()).await;
        let suspended = issue(root, issue_request_with(|key| "umbrella".clone_into(&mut key.partner))).await;
        let elsewhere = issue(root, issue_request_with(|key| key.allowed_cidrs = strings(&["192.0.2.0/24"]))).await;
        let here = issue(root, issue_request_with(|key| key.allowed_cidrs = strings(&["127.0.0.0/8", "::1/128"]))).await;
        let plain_key = "another-systems-key-0123456789";
        import(root, vec![import_entry(plain_key)]).await.remove(0).unwrap();

        root.keys.disable_key(pb::DisableKeyRequest { key_id: disabled.id, ..Default::default() }).await.unwrap();
        root.revoke(&revoked.id).await.unwrap();
        crate::fixtures::revoke_keys(root, |keys| {
            "staging".clone_into(&mut keys.filter.get_or_insert_default().environment);
        }).await.unwrap();
        root.delete(&deleted.id).await.unwrap();
        root.put_partner("umbrella", true).await;
        demo.clock.set(after(HOUR));

        for (what, plain_key, expected) in [
            ("expired", &*expiring.plain_key, Code::Unauthenticated),
            ("disabled", &disabled.plain_key, Code::Unauthenticated),
            ("revoked", &revoked.plain_key, Code::Unauthenticated),
            ("revoked with others", &in_bulk.plain_key, Code::Unauthenticated),
            ("deleted", &deleted.plain_key, Code::Unauthenticated),
            ("of a suspended partner", &suspended.plain_key, Code::PermissionDenied),
            ("from another address", &elsewhere.plain_key, Code::PermissionDenied),
            ("from its address", &here.plain_key, Code::Ok),
            ("imported", plain_key, Code::Ok),
        ] {
            let mut holder = demo.service.api_as(plain_key);
            assert_eq!(codes(&mut holder).await, [expected; 2], "{what}");
        }
        // What is not accepted can still end itself.
        let mut holder = demo.service.api_as(&elsewhere.plain_key);
        assert_eq!(code(revoke_self(&mut holder, "").await), Code::Ok);
        demo.service.stop().await;
    }

    /// Seen red without the comparison with the newest secret.
    async fn only_the_newest_secret_rotates_its_key(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(rotating_realm()).await;
        let request = issue_request_with(|key| key.expire_time = time(10 * HOUR));
        let issued = issue(&mut demo.root, request).await;
        let mut old = demo.service.api_as(&issued.plain_key);
        let before = get(&mut demo.root, &issued.id).await;
        let rotated = rotate_self(&mut old, HOUR_OF_SECONDS).await.unwrap();
        let key = rotated.key.unwrap();
        let ends: Vec<_> = key.secrets.iter().map(|secret| secret.expire_time.as_ref().map(parse_time)).collect();
        assert_eq!(ends.len(), 2);
        assert!(ends[0] >= Some(after(HOUR)) && ends[0] < Some(after(HOUR + SECOND)), "{ends:?}");
        assert_eq!(ends[1], None);
        // Nothing but the secret is new.
        assert_eq!((&key.expire_time, &key.scopes, key.full_access), (&before.expire_time, &before.scopes, false));
        let own = (String::from("key.rotated"), issued.id.clone());
        assert_eq!(events(&mut demo.root, &issued.id).await[0], own);

        let refusal = refused(rotate_self(&mut old, HOUR_OF_SECONDS).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "OLD_SECRET"));
        for plain_key in [&issued.plain_key, &rotated.plain_key] {
            assert_eq!(demo.root.verdict(plain_key).await, Verdict::Allowed);
        }

        // Within the overlap the newest secret is replaced at once, and the oldest one goes on.
        demo.clock.set(after(HOUR / 2));
        let mut new = demo.service.api_as(&rotated.plain_key);
        let again = rotate_self(&mut new, HOUR_OF_SECONDS).await.unwrap();
        assert_eq!(demo.root.verdict(&issued.plain_key).await, Verdict::Allowed);
        assert_eq!(demo.root.verdict(&rotated.plain_key).await, Verdict::Unknown);
        assert_eq!(demo.root.verdict(&again.plain_key).await, Verdict::Allowed);
        assert_eq!(code(get_self(&mut new).await), Code::Unauthenticated);

        // Who lost the answer goes on with the old secret, and an administrator keeps it.
        assert_eq!(code(rotate_self(&mut old, HOUR_OF_SECONDS).await), Code::FailedPrecondition);
        end_rotation(&mut demo.root, &issued.id, KeepSecret::Old).await.unwrap();
        let last = rotate_self(&mut old, HOUR_OF_SECONDS).await.unwrap();

        // After the overlap the old secret is none, and no overlap goes beyond the key.
        demo.clock.set(after(2 * HOUR));
        assert_eq!(codes(&mut old).await, [Code::Unauthenticated; 2]);
        let mut last = demo.service.api_as(&last.plain_key);
        let long = rotate_self(&mut last, 100 * HOUR_OF_SECONDS).await.unwrap().key.unwrap();
        assert_eq!(long.secrets[0].expire_time, before.expire_time);
        demo.service.stop().await;
    }

    /// Seen red without the lower bound.
    async fn an_overlap_has_a_shortest_and_a_longest_time(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(rotating_realm()).await;
        let issued = issue(&mut demo.root, issue_request()).await;
        let mut holder = demo.service.api_as(&issued.plain_key);
        let longest = 366 * 24 * HOUR_OF_SECONDS;
        for overlap in [None, seconds(0), seconds(HOUR_OF_SECONDS - 1), seconds(-1), seconds(longest + 1)] {
            let request = pb::RotateSelfRequest { overlap, ..Default::default() };
            refused_field(holder.keys.rotate_self(request).await, "overlap");
        }
        assert_eq!(get_self(&mut holder).await.unwrap().secrets.len(), 1);
        rotate_self(&mut holder, longest).await.unwrap();
        demo.service.stop().await;
    }

    /// Seen red without the check of the realm.
    async fn the_realm_lets_its_keys_rotate_themselves_or_not(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let leaf = issue(&mut root, issue_request()).await;
        let delegate = issue(&mut root, issue_request_with(|key| key.scopes = strings(&["write", "keys"]))).await;
        let get_realm = |id: &str| pb::GetRealmRequest { realm_id: id.to_owned() };
        for (allowed, expected) in [(false, Code::PermissionDenied), (true, Code::Ok), (false, Code::PermissionDenied)] {
            root.put_realm(pb::Realm { self_rotation: allowed, ..delegating_realm() }).await;
            let realm = root.realms.get_realm(get_realm("demo")).await.unwrap().into_inner().realm.unwrap();
            assert_eq!(realm.self_rotation, allowed);
            for key in [&leaf, &delegate] {
                let fresh = rotate(&mut root, &key.id, 0).await.unwrap().plain_key;
                let mut holder = service.api_as(&fresh);
                assert_eq!(codes(&mut holder).await, [Code::Ok, expected]);
            }
        }
        // In the realm of the authority, keys that administer do not.
        let realm = root.realms.get_realm(get_realm("claviger")).await.unwrap().into_inner().realm.unwrap();
        assert!(realm.self_rotation);
        for (scope, of, expected) in [
            ("verify", "demo", Code::Ok),
            ("read", "demo", Code::Ok),
            ("read", "", Code::Ok),
            ("manage", "demo", Code::PermissionDenied),
            ("operator", "", Code::PermissionDenied),
        ] {
            let key = issue(&mut root, authority_key_request(scope, of)).await;
            let mut holder = service.api_as(&key.plain_key);
            assert_eq!(codes(&mut holder).await, [Code::Ok, expected], "{scope} {of}");
        }
        service.stop().await;
    }

    /// Seen red with the old secret refused before the repetition is answered.
    async fn a_repeated_self_rotation_is_done_once(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(rotating_realm()).await;
        let issued = issue(&mut demo.root, issue_request()).await;
        let mut old = demo.service.api_as(&issued.plain_key);
        let id = request_id();
        let request = || rotate_request(HOUR_OF_SECONDS, &id);
        let first = old.keys.rotate_self(request()).await.unwrap().into_inner();
        let mut new = demo.service.api_as(&first.plain_key);
        for holder in [&mut old, &mut new] {
            let again = holder.keys.rotate_self(request()).await.unwrap().into_inner();
            assert_eq!((again.replayed, again.plain_key.as_str(), again.revision), (true, "", first.revision));
            assert_eq!(without_uses(again.key.unwrap()), without_uses(first.key.clone().unwrap()));
            // Another request with the same id.
            let other = rotate_request(HOUR_OF_SECONDS + 1, &id);
            refused_field(holder.keys.rotate_self(other).await, "request_id");
        }
        assert_eq!(events(&mut demo.root, &issued.id).await.len(), 2);
        // What the realm allowed once is told again, and not done again.
        demo.root.put_realm(demo_realm()).await;
        assert!(new.keys.rotate_self(request()).await.unwrap().into_inner().replayed);
        demo.service.stop().await;
    }

    /// Seen red with the holders in the group of the partner.
    async fn keys_that_rotate_themselves_use_up_nothing_of_their_partners_administrators(engine: Engine) {
        let flags = ["--delegated-changes-per-hour", "10"];
        let (service, mut root) = delegating_service_with(engine, &flags).await;
        root.put_realm(pb::Realm { self_rotation: true, ..delegating_realm() }).await;
        let of = |partner: &'static str| issue_request_with(move |key| partner.clone_into(&mut key.partner));
        let delegate = issue(&mut root, issue_request_with(|key| key.scopes = strings(&["write", "keys"]))).await;
        let keys = [
            issue(&mut root, of("acme")).await,
            issue(&mut root, of("acme")).await,
            issue(&mut root, of("umbrella")).await,
        ];
        let made = service.roots.made();
        let mut spent = Vec::new();
        for IssuedKey { plain_key, .. } in &keys {
            let mut holder = service.api_as(plain_key);
            let answer = rotate_self(&mut holder, HOUR_OF_SECONDS).await;
            spent.push(answer.err().map(|status| Refusal::of(&status).reason));
            // To read is no change.
            get_self(&mut holder).await.unwrap();
        }
        assert_eq!(spent, [None, Some("CHANGE_BUDGET_SPENT".to_owned()), None]);
        assert_eq!(service.roots.made(), made + 2, "a refused rotation makes no root");
        let mut delegate = service.api_as(&delegate.plain_key);
        issue(&mut delegate, issue_request()).await;
        // What takes access away needs no budget.
        let mut holder = service.api_as(&keys[1].plain_key);
        revoke_self(&mut holder, "").await.unwrap();
        service.stop().await;
    }

    async fn an_imported_key_rotates_itself_to_a_key_of_clavigers_form(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(rotating_realm()).await;
        let plain_key = "another-systems-key-9876543210";
        let id = import(&mut demo.root, vec![import_entry(plain_key)]).await.remove(0).unwrap();
        let mut holder = demo.service.api_as(plain_key);
        let own = get_self(&mut holder).await.unwrap();
        assert!(own.secrets[0].imported && own.id == id);
        let rotated = rotate_self(&mut holder, HOUR_OF_SECONDS).await.unwrap();
        assert!(rotated.plain_key.starts_with("demo_live_"));
        for key in [plain_key, &rotated.plain_key] {
            assert_eq!(demo.root.verdict(key).await, Verdict::Allowed);
        }
        assert_eq!(code(rotate_self(&mut holder, HOUR_OF_SECONDS).await), Code::FailedPrecondition);
        // A rename by its administrator ends nothing, and is told at once.
        update(&mut demo.root, &id, &["name"], |key| "renamed".clone_into(&mut key.name)).await.unwrap();
        assert_eq!(get_self(&mut holder).await.unwrap().name, "renamed");
        demo.service.stop().await;
    }
}

/// A rotation that races with a revocation: whichever comes first, the key ends revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rotation_outlives_a_revocation() {
    let test_store = crate::fixtures::TestStore::on(Engine::Sqlite);
    let service = crate::fixtures::Service::start_with(test_store, Clock::system(), "", &[]).await;
    let mut root = service.api();
    root.make_demo().await;
    root.put_realm(rotating_realm()).await;
    for _ in 0..20 {
        let issued = issue(&mut root, issue_request()).await;
        let mut holder = service.api_as(&issued.plain_key);
        let rotation = tokio::spawn(async move { rotate_self(&mut holder, HOUR_OF_SECONDS).await });
        root.revoke(&issued.id).await.unwrap();
        let mut keys = vec![issued.plain_key];
        match rotation.await.unwrap() {
            Ok(rotated) => keys.push(rotated.plain_key),
            Err(status) => assert_eq!(status.code(), Code::Unauthenticated, "{status:?}"),
        }
        for key in &keys {
            assert_eq!(root.verdict(key).await, Verdict::Revoked);
            assert_eq!(
                codes(&mut service.api_as(key)).await,
                [Code::Unauthenticated; 2]
            );
        }
    }
    service.stop().await;
}
