//! From where a key was used last: only where the realm records it, and not for longer.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;

use super::{WRITE_OFTEN, await_uses};
use crate::fixtures::{
    Api, Engine, Program, Service, TestStore, delegating_realm, eventually, forward_auth, get,
    get_self, header_source, issue, issue_request, issue_request_with, list_keys, on_both_engines,
    rotate, rotate_self, strings, verify_request,
};

async fn verify_from(api: &mut Api, plain_key: &str, client_ip: &str) -> Verdict {
    let request = pb::VerifyRequest {
        client_ip: client_ip.to_owned(),
        ..verify_request(plain_key)
    };
    api.verify
        .verify(request)
        .await
        .unwrap()
        .into_inner()
        .verdict()
}

fn recording_realm() -> pb::Realm {
    pb::Realm {
        record_addresses: true,
        self_rotation: true,
        ..delegating_realm()
    }
}

async fn await_address(api: &mut Api, key_id: &str, expected: &str) -> pb::Key {
    eventually("the address is written down", async || {
        let key = get(api, key_id).await;
        (key.last_used_address == expected).then_some(key)
    })
    .await
}

on_both_engines! {
    /// Seen red with addresses that are recorded in every realm, and with those of the holder told by `GetSelf`.
    async fn the_address_of_the_last_use_is_recorded_where_the_realm_says_so(engine: Engine) {
        let flags = [&WRITE_OFTEN[..], &["--retain-interval", "50ms"]].concat();
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &flags).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(pb::Realm { self_rotation: true, ..delegating_realm() }).await;
        let key = issue(&mut root, issue_request()).await;
        verify_from(&mut root, &key.plain_key, "203.0.113.9").await;
        await_uses(&mut root, &key.id, 1).await;
        assert_eq!(get(&mut root, &key.id).await.last_used_address, "", "it is off by default");

        let put = root.put_realm(recording_realm()).await.realm.unwrap();
        assert!(put.record_addresses);
        for (client_ip, recorded) in [
            ("203.0.113.9", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("", ""),
        ] {
            assert_eq!(verify_from(&mut root, &key.plain_key, client_ip).await, Verdict::Allowed);
            await_address(&mut root, &key.id, recorded).await;
        }
        // The address is recorded with a denial too.
        let denied = verify_request(&key.plain_key);
        let denied = pb::VerifyRequest {
            scopes: strings(&["billing"]),
            client_ip: "192.0.2.1".to_owned(),
            ..denied
        };
        let answer = root.verify.verify(denied).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::ScopeMissing);
        await_address(&mut root, &key.id, "192.0.2.1").await;

        let old = &key.plain_key;
        let new = rotate(&mut root, &key.id, 3_600).await.unwrap();
        assert_eq!(verify_from(&mut root, &new.plain_key, "198.51.100.8").await, Verdict::Allowed);
        let told = await_address(&mut root, &key.id, "198.51.100.8").await;
        let of_secrets: Vec<_> = told.secrets.iter().map(|secret| secret.last_used_address.as_str()).collect();
        assert_eq!(of_secrets, ["192.0.2.1", "198.51.100.8"], "who still has the old one");

        // The finder of a key does not learn where its owner is.
        for plain_key in [old, &new.plain_key] {
            let own = get_self(&mut service.api_as(plain_key)).await.unwrap();
            assert!(own.last_used_time.is_some());
            assert_eq!(own.last_used_address, "");
            assert!(own.secrets.iter().all(|secret| secret.last_used_address.is_empty()));
        }

        let rotated = rotate_self(&mut service.api_as(&new.plain_key), 3_600).await.unwrap().key.unwrap();
        assert_eq!(rotated.last_used_address, "");
        assert!(rotated.secrets.iter().all(|secret| secret.last_used_address.is_empty()));

        // A realm that does not record it any more forgets it.
        root.put_realm(delegating_realm()).await;
        let told = await_address(&mut root, &key.id, "").await;
        assert!(told.secrets.iter().all(|secret| secret.last_used_address.is_empty()));
        assert!(told.last_used_time.is_some());
        service.stop().await;
    }

    async fn a_key_that_calls_is_used_from_the_address_of_its_connection(engine: Engine) {
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &WRITE_OFTEN).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(recording_realm()).await;
        let delegate = issue(&mut root, issue_request_with(|new| new.scopes = strings(&["keys"]))).await;
        list_keys(&mut service.api_as(&delegate.plain_key), |_| ()).await.unwrap();
        await_address(&mut root, &delegate.id, "127.0.0.1").await;
        let gateways = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: "claviger".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        for key in root.keys.list_keys(gateways).await.unwrap().into_inner().keys {
            assert_eq!(key.last_used_address, "", "the built-in realm records nothing");
        }
        service.stop().await;
    }
}

/// The address is the one that the gateway is told, not that of the gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_gateway_it_is_the_address_of_the_client() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = [&WRITE_OFTEN[..], &["--gateway", "nginx"]].concat();
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    api.put_realm(pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("x-api-key", "")],
            partner_header: String::new(),
        }),
        routes: vec![pb::Route {
            path: "/items".to_owned(),
            ..Default::default()
        }],
        ..recording_realm()
    })
    .await;
    let operator = program.operator();
    let key = issue(&mut api, issue_request()).await;
    for (client, recorded) in [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::/64")] {
        let headers = [
            ("x-api-key", key.plain_key.as_str()),
            ("x-forwarded-for", client),
        ];
        let answer = forward_auth(&program.http, &operator, "demo", "/items", &headers).await;
        assert!(answer.starts_with(b"HTTP/1.0 200"), "{answer:?}");
        await_address(&mut api, &key.id, recorded).await;
    }
}
