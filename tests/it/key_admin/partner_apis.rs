//! What each API's own management operations come to as calls of `KeyAdmin`, with the fields that their documents promise.
//! `examples/README.md` has the same as a table.

use std::sync::Arc;

use claviger::domain::ids::KeyId;
use claviger::pb::claviger::v1 as pb;

use crate::fixtures::{
    Api, Engine, Program, TestStore, eventually, in_seconds, issue, put_partner_realms,
};

/// The authority with the four realms and no gateway, and its store.
async fn authority() -> (Arc<TestStore>, Program, Api) {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    put_partner_realms(&program, &mut api).await;
    (test_store, program, api)
}

async fn list(api: &mut Api, realm: &str, partner: &str) -> Vec<pb::Key> {
    let request = pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: realm.to_owned(),
            partner: partner.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    api.keys.list_keys(request).await.unwrap().into_inner().keys
}

#[tokio::test]
async fn peaka_creates_a_projects_key_with_a_name_and_perhaps_an_end() {
    let (_test_store, _program, mut api) = authority().await;
    let request = pb::IssueKeyRequest {
        realm: "peaka".to_owned(),
        partner: "acme".to_owned(),
        project: "mtKDhe1U".to_owned(),
        name: "dashboard".to_owned(),
        ..Default::default()
    };
    let issued = issue(&mut api, request.clone()).await;
    let (key, api_key) = (issued.key, issued.plain_key);
    assert_eq!(key.name, "dashboard");
    assert_eq!(key.level(), pb::KeyLevel::Project);
    assert_eq!(key.expire_time, None, "without expiresAt it never expires");
    assert!(KeyId::parse(&key.id).is_ok(), "apiKeyId is a UUID");
    assert!(
        api_key.starts_with("peaka_live_"),
        "apiKey is the full value"
    );

    let end = in_seconds(86_400);
    let request = pb::IssueKeyRequest {
        expire_time: Some(end),
        ..request
    };
    let key = issue(&mut api, request).await.key;
    assert_eq!(key.expire_time, Some(end));

    // The full value is shown once: what is listed has a hint.
    let listed = list(&mut api, "peaka", "acme").await;
    assert_eq!(listed.len(), 2);
    assert!(!format!("{listed:?}").contains(&api_key));
}

#[tokio::test]
async fn partna_generates_lists_shows_scopes_invalidates_and_deletes() {
    let (_test_store, _program, mut api) = authority().await;
    let request = pb::IssueKeyRequest {
        realm: "partna".to_owned(),
        partner: "acme".to_owned(),
        environment: "staging".to_owned(),
        name: "till".to_owned(),
        ..Default::default()
    };
    let issued = issue(&mut api, request).await;
    let (key, plain_key) = (issued.key, issued.plain_key);
    assert!(
        plain_key.starts_with("partna_test_"),
        "staging shows in the key"
    );
    assert_eq!(key.level(), pb::KeyLevel::Partner);

    let listed = list(&mut api, "partna", "acme").await;
    let [listed] = listed.as_slice() else {
        panic!("one key is listed")
    };
    assert_eq!((&listed.id, &listed.name), (&key.id, &key.name));
    assert_eq!(listed.environment, "staging");

    let request = pb::GetKeyScopesRequest {
        key_id: key.id.clone(),
        ..Default::default()
    };
    let scopes = api.keys.get_key_scopes(request).await.unwrap().into_inner();
    assert!(scopes.full_access, "a key is good for all of its account");

    let question = pb::VerifyRequest {
        key: plain_key,
        realm: "partna".to_owned(),
        environment: "staging".to_owned(),
        partner: "acme".to_owned(),
        ..Default::default()
    };
    let verdict = async |api: &mut Api| {
        let answer = api.verify.verify(question.clone()).await.unwrap();
        answer.into_inner().verdict()
    };
    assert_eq!(verdict(&mut api).await, pb::Verdict::Allowed);
    let revoked = api.revoke(&key.id).await.unwrap().key.unwrap();
    assert_eq!(revoked.state(), pb::KeyState::Revoked);
    assert_eq!(verdict(&mut api).await, pb::Verdict::Revoked);
    api.delete(&key.id).await.unwrap();
    assert_eq!(verdict(&mut api).await, pb::Verdict::Unknown);
    assert_eq!(list(&mut api, "partna", "acme").await, []);
}

#[tokio::test]
async fn partna_rotates_in_one_call_where_it_took_three_steps() {
    let (_test_store, _program, mut api) = authority().await;
    let request = pb::IssueKeyRequest {
        realm: "partna".to_owned(),
        partner: "acme".to_owned(),
        environment: "production".to_owned(),
        ..Default::default()
    };
    let issued = issue(&mut api, request).await;
    let (key, old) = (issued.key, issued.plain_key);
    let request = pb::RotateKeyRequest {
        key_id: key.id.clone(),
        overlap: Some(prost_types::Duration {
            seconds: 86_400,
            nanos: 0,
        }),
        ..Default::default()
    };
    let rotated = api.keys.rotate_key(request).await.unwrap().into_inner();
    let question = |key: &str| pb::VerifyRequest {
        key: key.to_owned(),
        realm: "partna".to_owned(),
        environment: "production".to_owned(),
        partner: "acme".to_owned(),
        ..Default::default()
    };
    // Both while the integration is updated.
    for plain_key in [&old, &rotated.plain_key] {
        let answer = api
            .verify
            .verify(question(plain_key))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.verdict(), pb::Verdict::Allowed);
        assert_eq!(answer.key.unwrap().id, key.id);
    }
    let request = pb::EndRotationRequest {
        key_id: key.id,
        keep: pb::KeepSecret::New.into(),
        ..Default::default()
    };
    api.keys.end_rotation(request).await.unwrap();
    let answer = api
        .verify
        .verify(question(&old))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.verdict(), pb::Verdict::Unknown);
}

#[tokio::test]
async fn bullseye_monitors_how_often_a_key_was_used_with_which_outcome_and_when_last() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--usage-interval", "100ms"]);
    let mut api = program.api();
    put_partner_realms(&program, &mut api).await;
    let request = pb::IssueKeyRequest {
        realm: "bullseye".to_owned(),
        partner: "acme".to_owned(),
        scopes: vec!["read".to_owned()],
        ..Default::default()
    };
    let issued = issue(&mut api, request).await;
    let (key, plain_key) = (issued.key, issued.plain_key);
    for scope in ["read", "read", "write"] {
        let question = pb::VerifyRequest {
            key: plain_key.clone(),
            realm: "bullseye".to_owned(),
            scopes: vec![scope.to_owned()],
            ..Default::default()
        };
        api.verify.verify(question).await.unwrap();
    }
    let usage = eventually("the calls are written down", async || {
        let request = pb::GetKeyUsageRequest {
            key_id: key.id.clone(),
            ..Default::default()
        };
        let usage = api.clone().keys.get_key_usage(request).await.unwrap();
        let usage = usage.into_inner();
        let count: u64 = usage.totals.iter().map(|total| total.count).sum();
        (count == 3).then_some(usage)
    })
    .await;
    let mut totals: Vec<_> = usage
        .totals
        .iter()
        .map(|total| (total.verdict(), total.count))
        .collect();
    totals.sort_by_key(|(_, count)| *count);
    assert_eq!(
        totals,
        [(pb::Verdict::ScopeMissing, 1), (pb::Verdict::Allowed, 2)]
    );
    assert!(usage.last_used_time.is_some());
}

#[tokio::test]
async fn bullseye_creates_with_and_without_scopes_lists_and_revokes() {
    let (_test_store, _program, mut api) = authority().await;
    let request = pb::IssueKeyRequest {
        realm: "bullseye".to_owned(),
        partner: "acme".to_owned(),
        name: "reports".to_owned(),
        ..Default::default()
    };
    let issued = issue(&mut api, request.clone()).await;
    let (full, plain_key) = (issued.key, issued.plain_key);
    assert!(
        full.full_access,
        "without explicit scopes it has full access"
    );
    assert!(plain_key.starts_with("bullseye_live_"));
    let request = pb::IssueKeyRequest {
        scopes: vec!["write".to_owned()],
        expire_time: Some(in_seconds(300)),
        ..request
    };
    let write = issue(&mut api, request).await.key;
    assert!(!write.full_access && write.expire_time.is_some());
    assert_eq!(write.scopes, ["write"]);
    let request = pb::GetKeyScopesRequest {
        key_id: write.id.clone(),
        ..Default::default()
    };
    let scopes = api.keys.get_key_scopes(request).await.unwrap().into_inner();
    assert_eq!(scopes.granted, ["write"]);
    assert_eq!(scopes.effective, ["read", "write"]);

    api.revoke(&full.id).await.unwrap();
    let listed = list(&mut api, "bullseye", "acme").await;
    let state = |id: &str| listed.iter().find(|key| key.id == id).unwrap().state();
    assert_eq!(state(&full.id), pb::KeyState::Revoked);
    assert_eq!(state(&write.id), pb::KeyState::Active);
}

#[tokio::test]
async fn partnero_creates_a_key_of_one_program_for_each_environment() {
    let (_test_store, _program, mut api) = authority().await;
    for (environment, tag) in [
        ("development", "dev"),
        ("staging", "test"),
        ("production", "live"),
    ] {
        let request = pb::IssueKeyRequest {
            realm: "partnero".to_owned(),
            partner: "acme".to_owned(),
            project: "mtKDhe1U".to_owned(),
            environment: environment.to_owned(),
            ..Default::default()
        };
        let issued = issue(&mut api, request).await;
        let (key, plain_key) = (issued.key, issued.plain_key);
        assert_eq!(key.project, "mtKDhe1U");
        assert!(plain_key.starts_with(&format!("partnero_{tag}_")));
    }
    let without = pb::IssueKeyRequest {
        realm: "partnero".to_owned(),
        partner: "acme".to_owned(),
        environment: "production".to_owned(),
        ..Default::default()
    };
    assert!(
        api.keys.issue_key(without).await.is_err(),
        "each key belongs to a program"
    );
}
