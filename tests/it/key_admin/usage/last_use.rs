//! When a key, and each of its secrets, was last used.

use std::collections::BTreeMap;

use claviger::domain::clock::Clock;
use claviger::domain::ids::{KeyId, Prefix, Tag};
use claviger::domain::key::Secret;
use claviger::domain::key_text::{PlainKey, SecretBytes};
use claviger::domain::time::Expiry;
use claviger::hashing::Peppers;
use claviger::pb::claviger::v1 as pb;
use pb::{KeepSecret, Verdict};

use super::{WRITE_OFTEN, await_uses, counts, is_about, record, usage};
use crate::fixtures::{
    DemoService, Engine, HOUR, MINUTE, NOW, SECOND, Service, TestStore, after,
    authority_key_request, demo_realm, end_rotation, eventually, get, issue, issue_request,
    issue_request_with, list_keys, on_both_engines, rotate, strings, time, verify_request,
};

on_both_engines! {
    /// Seen red with a counter that is known by its key and hour alone.
    async fn both_secrets_of_a_key_tell_when_they_were_last_used(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &WRITE_OFTEN).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, old) = issue(&mut api, issue_request()).await.into_parts();
        let key_id = KeyId::parse(&id).unwrap();
        clock.set(after(100 * SECOND));
        assert_eq!(api.verdict(&old).await, Verdict::Allowed);

        // A second secret, as a rotation makes it.
        let peppers = Peppers::load(&service.test_store.pepper()).unwrap().unwrap();
        let secret = SecretBytes::new([7; 32]);
        let new = PlainKey::new(&Prefix::parse("demo").unwrap(), &Tag::parse("live").unwrap(), key_id, &secret);
        let mut change = service.store.change(clock.now()).await.unwrap();
        let mut key = change.find_key(key_id).await.unwrap().unwrap();
        key.secrets.push(Secret {
            digest: peppers.digest(Peppers::FIRST, key_id, &secret).unwrap(),
            created_at: change.time(),
            expires_at: Expiry::Never,
            imported: false,
            hint: String::new(),
            last_use: None,
        });
        change.update_key(&mut key).await.unwrap();
        record(change, key_id).await;
        clock.set(after(200 * SECOND));
        eventually("the new secret is good", async || {
            (api.verdict(new.expose()).await == Verdict::Allowed).then_some(())
        })
        .await;
        clock.set(after(300 * SECOND));
        let mut request = verify_request(&old);
        request.scopes = vec!["admin".to_owned()];
        let answer = api.verify.verify(request).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::ScopeMissing, "whatever the verdict");

        let told = |key: &pb::Key| {
            let secrets = key.secrets.iter().map(|secret| secret.last_used_time);
            (key.last_used_time, secrets.collect::<Vec<_>>())
        };
        eventually("it is written down", async || {
            let key = get(&mut api, &id).await;
            (told(&key) == (time(300 * SECOND), vec![time(300 * SECOND), time(200 * SECOND)])).then_some(())
        })
        .await;
        // A list tells the same; and when a secret is gone, the key still knows.
        let mut change = service.store.change(clock.now()).await.unwrap();
        let mut key = change.find_key(key_id).await.unwrap().unwrap();
        key.secrets.remove(0);
        change.update_key(&mut key).await.unwrap();
        record(change, key_id).await;
        let request = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let keys = api.keys.list_keys(request).await.unwrap().into_inner().keys;
        assert_eq!(told(&keys[0]), (time(300 * SECOND), vec![time(200 * SECOND)]));
        service.stop().await;
    }

    /// So that it can be seen who still has the old secret.
    ///
    /// Seen red with the use kept with the key alone.
    async fn each_text_of_a_key_is_remembered_by_itself(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        assert_eq!(get(root, &key.id).await.last_used_time, None);
        demo.clock.set(after(MINUTE));
        let new = rotate(root, &key.id, 600).await.unwrap().plain_key;
        demo.clock.set(after(2 * MINUTE));
        root.ask(&key.plain_key).await;
        await_uses(root, &key.id, 1).await;
        let told = get(root, &key.id).await;
        assert!(is_about(told.secrets[0].last_used_time.as_ref(), after(2 * MINUTE)));
        assert_eq!(told.secrets[1].last_used_time, None, "nobody has the new one yet");

        demo.clock.set(after(3 * MINUTE));
        root.ask(&new).await;
        await_uses(root, &key.id, 2).await;
        let told = get(root, &key.id).await;
        assert!(is_about(told.secrets[0].last_used_time.as_ref(), after(2 * MINUTE)));
        assert!(is_about(told.secrets[1].last_used_time.as_ref(), after(3 * MINUTE)));
        assert!(is_about(told.last_used_time.as_ref(), after(3 * MINUTE)));

        // After the overlap the old one is denied, and that it was presented is told all the same.
        demo.clock.set(after(HOUR));
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Expired);
        let used = await_uses(root, &key.id, 3).await;
        assert_eq!(counts(&used.totals), BTreeMap::from([(Verdict::Allowed, 2), (Verdict::Expired, 1)]));
        let told = get(root, &key.id).await;
        assert!(is_about(told.secrets[0].last_used_time.as_ref(), after(HOUR)));
        assert!(is_about(told.last_used_time.as_ref(), after(HOUR)));

        end_rotation(root, &key.id, KeepSecret::New).await.ok();
        assert!(is_about(get(root, &key.id).await.last_used_time.as_ref(), after(HOUR)), "the key is one");
        demo.service.stop().await;
    }

    /// Seen red with the note left out of `Authenticator::authenticate_in`.
    async fn a_key_that_calls_is_used_but_not_counted(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &WRITE_OFTEN).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(pb::Realm { admin_scope: "admin".to_owned(), ..demo_realm() }).await;
        let delegate = issue_request_with(|new| new.scopes = strings(&["admin"]));
        let (delegate_id, delegate) = issue(&mut root, delegate).await.into_parts();
        let gateway = authority_key_request("verify", "demo");
        let (gateway_id, gateway) = issue(&mut root, gateway).await.into_parts();
        let request = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: "claviger".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let keys = root.keys.list_keys(request).await.unwrap().into_inner().keys;
        let operator_id = keys.into_iter().find(|key| key.partner.is_empty()).unwrap().id;
        clock.set(after(50 * SECOND));
        assert_eq!(service.api_as(&gateway).verdict("demo_live_x").await, Verdict::Malformed);
        let seen = list_keys(&mut service.api_as(&delegate), |asked| "acme".clone_into(&mut asked.filter.get_or_insert_default().partner)).await;
        assert_eq!(seen.unwrap().len(), 1);
        root.issue().await;
        for id in [delegate_id, gateway_id, operator_id] {
            eventually("it was used", async || {
                let usage = usage(&mut root, &id).await;
                assert_eq!((usage.totals, usage.buckets), (vec![], vec![]));
                (usage.last_used_time == time(50 * SECOND)).then_some(())
            })
            .await;
            assert_eq!(get(&mut root, &id).await.last_used_time, time(50 * SECOND));
        }
        service.stop().await;
    }

    /// Seen red with the caller's own key left out of the count of uses.
    async fn to_call_the_authority_is_to_use_a_key(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let gateway = issue(root, authority_key_request("verify", "demo"))
        .await;
        let key = issue(root, issue_request()).await;
        demo.clock.set(after(MINUTE));
        demo.service.api_as(&gateway.plain_key).ask(&key.plain_key).await;
        eventually("the use is written down", async || {
            let told = get(root, &gateway.id).await;
            is_about(told.last_used_time.as_ref(), after(MINUTE)).then_some(())
        })
        .await;
        demo.service.stop().await;
    }
}
