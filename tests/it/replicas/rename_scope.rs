//! The renaming of a scope at one of several servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;

use crate::fixtures::{
    Engine, Service, TestStore, demo_realm, envoy_check, eventually, header_source, issue,
    issue_request, strings,
};

/// A realm whose preparation takes long, and whose last route demands `write`.
fn large_realm() -> pb::Realm {
    let mut routes: Vec<_> = (0..900)
        .map(|number| pb::Route {
            path: format!("/public/{number}/**"),
            target: Some(pb::route::Target::Public(true)),
            ..Default::default()
        })
        .collect();
    routes.push(pb::Route {
        path: "/**".to_owned(),
        scopes: strings(&["write"]),
        ..Default::default()
    });
    pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("authorization", "Bearer")],
            ..Default::default()
        }),
        routes,
        ..demo_realm()
    }
}

/// The other server reads several changes at once, and must not take from the key what the realm is about to lose before it gives
/// what the realm gets. Seen red without the wait for all servers before the last step.
#[tokio::test(flavor = "multi_thread")]
async fn no_server_denies_a_key_while_its_scope_is_renamed() {
    let test_store = TestStore::on(Engine::Postgres);
    let start = |operator: String| {
        let test_store = Arc::clone(&test_store);
        // So long that the other server reads all changes of a step, and of the next one, in one poll.
        let flags = ["--gateway", "envoy", "--poll-interval", "300ms"];
        async move { Service::start_with(test_store, Clock::system(), &operator, &flags).await }
    };
    let first = start(String::new()).await;
    let second = start(first.operator.clone()).await;
    let mut root = first.api();
    root.make_demo().await;
    root.put_realm(large_realm()).await;
    let key = issue(&mut root, issue_request()).await;
    let everywhere = pb::RenameScopeRequest {
        realm: "demo".to_owned(),
        wait: pb::Wait::Everywhere.into(),
        ..Default::default()
    };

    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let (address, operator) = (second.address.to_string(), second.operator.clone());
    let bearer = format!("Bearer {}", key.plain_key);
    let is_allowed = async move || {
        let headers = [("authorization", &*bearer)];
        let answer = envoy_check(&address, &operator, "demo", "/x", &headers).await;
        answer.is_ok_and(|answer| answer.status.unwrap().code == 0)
    };
    eventually("the other server has the key", async || {
        is_allowed().await.then_some(())
    })
    .await;
    let asked = tokio::spawn(async move {
        let mut allowed = 0;
        while !is_over.load(Ordering::Relaxed) {
            assert!(is_allowed().await, "after {allowed} that were allowed");
            allowed += 1;
        }
        allowed
    });
    for round in 0..6 {
        let (scope, new_name) = if round % 2 == 0 {
            ("write", "edit")
        } else {
            ("edit", "write")
        };
        let request = pb::RenameScopeRequest {
            scope: scope.to_owned(),
            new_name: new_name.to_owned(),
            ..everywhere.clone()
        };
        let made = root.realms.rename_scope(request).await.unwrap();
        let made = made.into_inner();
        assert_eq!(
            (made.updated_keys, made.more, made.confirmed),
            (1, false, true)
        );
    }
    over.store(true, Ordering::Relaxed);
    assert!(asked.await.unwrap() > 20);
    first.stop().await;
    second.stop().await;
}
