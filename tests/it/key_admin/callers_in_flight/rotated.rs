//! The caller's key is rotated, revoked with others or by itself, or loses its scopes.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::KeepSecret;
use tonic::{Code, Status};

use crate::fixtures::{
    Api, Engine, Service, TestStore, delegating_realm, end_rotation, eventually, issue,
    issue_request, on_both_engines, revoke_keys, revoke_self, rotate, rotate_self, settled,
    strings, update,
};

/// What becomes of the caller's key while its call waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    /// The secret that it called with is gone.
    Rotated,
    /// That secret works for the length of the overlap.
    RotatedWithAnOverlap,
    /// It called with the old secret of a rotation, which is over now.
    RotationEnded,
    /// It called with the new secret of a rotation, which is taken back now.
    RotationTakenBack,
    RevokedInBulk,
    RevokedByItself,
    /// It holds nothing any more.
    Emptied,
}

/// What it wanted to do.
#[derive(Clone, Copy, Debug)]
enum Call {
    Issue,
    Update,
    Rotate,
    EndRotation,
    RevokeKeys,
    RotateSelf,
}

/// The caller's key: its id and its current API key.
#[derive(Clone)]
struct CallingKey {
    id: String,
    plain_key: String,
}

async fn prepare(root: &mut Api, meanwhile: Meanwhile) -> CallingKey {
    let request = pb::IssueKeyRequest {
        scopes: strings(&["write", "keys"]),
        ..issue_request()
    };
    let key = issue(root, request).await;
    let plain_key = match meanwhile {
        Meanwhile::RotationEnded => {
            rotate(root, &key.id, 600).await.unwrap();
            key.plain_key
        }
        Meanwhile::RotationTakenBack => rotate(root, &key.id, 600).await.unwrap().plain_key,
        _ => key.plain_key,
    };
    CallingKey {
        id: key.id,
        plain_key,
    }
}

async fn change_caller(
    mut root: Api,
    caller: CallingKey,
    meanwhile: Meanwhile,
) -> Result<(), Status> {
    let id = &caller.id;
    match meanwhile {
        Meanwhile::Rotated => rotate(&mut root, id, 0).await.map(drop),
        Meanwhile::RotatedWithAnOverlap => rotate(&mut root, id, 600).await.map(drop),
        Meanwhile::RotationEnded => end_rotation(&mut root, id, KeepSecret::New).await.map(drop),
        Meanwhile::RotationTakenBack => {
            end_rotation(&mut root, id, KeepSecret::Old).await.map(drop)
        }
        Meanwhile::RevokedInBulk => revoke_keys(&mut root, |keys| {
            "acme".clone_into(&mut keys.filter.get_or_insert_default().partner);
            "production".clone_into(&mut keys.filter.get_or_insert_default().environment);
        })
        .await
        .map(drop),
        Meanwhile::RevokedByItself => {
            let mut own = root.with_key(&caller.plain_key);
            revoke_self(&mut own, "leaked").await.map(drop)
        }
        Meanwhile::Emptied => update(&mut root, id, &["scopes"], |_| ()).await.map(drop),
    }
}

async fn attempt(mut api: Api, target: String, call: Call) -> Result<(), Status> {
    match call {
        Call::Issue => api.keys.issue_key(issue_request()).await.map(drop),
        Call::Update => {
            let rename = |key: &mut pb::UpdateKeyRequest| "changed".clone_into(&mut key.name);
            update(&mut api, &target, &["name"], rename).await.map(drop)
        }
        Call::Rotate => rotate(&mut api, &target, 600).await.map(drop),
        Call::EndRotation => end_rotation(&mut api, &target, KeepSecret::New)
            .await
            .map(drop),
        Call::RevokeKeys => revoke_keys(&mut api, |_| ()).await.map(drop),
        Call::RotateSelf => rotate_self(&mut api, 3600).await.map(drop),
    }
}

/// Waits until a call has come as far as it can while somebody else holds the writer.
async fn waits(service: &Service, before: u64) {
    eventually("the call looks at the store", async || {
        (service.store.sessions() > before).then_some(())
    })
    .await;
    settled(service).await;
}

async fn overtake(engine: Engine, call: Call, meanwhile: Meanwhile) {
    // The feed waits to be poked, so that the next access to the store is the call's.
    let test_store = TestStore::on(engine);
    let service =
        Service::start_with(test_store, Clock::system(), "", &["--poll-interval", "1h"]).await;
    let mut root = service.api();
    root.make_demo().await;
    root.put_realm(pb::Realm {
        self_rotation: true,
        ..delegating_realm()
    })
    .await;
    let caller = prepare(&mut root, meanwhile).await;
    let target = issue(&mut root, issue_request()).await.id;
    rotate(&mut root, &target, 600).await.unwrap();

    // The test holds the one writer. What becomes of the caller comes to wait first, and its call, which was let in, behind.
    let writer = service.store.change(Clock::system().now()).await.unwrap();
    let held = settled(&service).await;
    let first = tokio::spawn(change_caller(root.clone(), caller.clone(), meanwhile));
    waits(&service, held).await;
    let held = service.store.sessions();
    let own = service.api_as(&caller.plain_key);
    let second = tokio::spawn(attempt(own, target, call));
    waits(&service, held).await;
    assert!(!first.is_finished() && !second.is_finished(), "both wait");
    drop(writer);
    first.await.unwrap().unwrap();
    let answer = second.await.unwrap();
    let expected = match (call, meanwhile) {
        // It has the old secret now, and rotates nothing with it.
        (Call::RotateSelf, Meanwhile::RotatedWithAnOverlap) => Code::FailedPrecondition,
        // It needs no scope.
        (Call::RotateSelf, Meanwhile::Emptied) | (_, Meanwhile::RotatedWithAnOverlap) => Code::Ok,
        (_, Meanwhile::Emptied) => Code::PermissionDenied,
        _ => Code::Unauthenticated,
    };
    let code = answer.as_ref().map_or_else(Status::code, |()| Code::Ok);
    assert_eq!(code, expected, "{call:?}, {meanwhile:?}: {answer:?}");

    let everything = pb::ListEventsRequest {
        realm: "demo".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let events = root
        .keys
        .list_events(everything)
        .await
        .unwrap()
        .into_inner()
        .events;
    let own = events.iter().filter(|event| event.actor == caller.id);
    let own: Vec<_> = own.map(|event| event.kind.as_str()).collect();
    match meanwhile {
        _ if expected == Code::Ok => assert_eq!(own.len(), 1, "{call:?}: {own:?}"),
        Meanwhile::RevokedByItself => assert_eq!(own, ["key.revoked"], "{call:?}"),
        _ => assert!(own.is_empty(), "{call:?}, {meanwhile:?}: {own:?}"),
    }
    service.stop().await;
}

on_both_engines! {
    /// Seen red with the caller re-read by its key's id alone (rotated, ended and taken back), with the revocations of many
    /// left out where it is re-read, and without the second look at all.
    async fn a_call_in_flight_changes_nothing_once_its_callers_text_is_no_longer_good(engine: Engine) {
        use Meanwhile::{
            Emptied, Rotated, RotatedWithAnOverlap, RevokedByItself, RevokedInBulk, RotationEnded,
            RotationTakenBack,
        };
        for meanwhile in [
            Rotated,
            RotatedWithAnOverlap,
            RotationEnded,
            RotationTakenBack,
            RevokedInBulk,
            RevokedByItself,
            Emptied,
        ] {
            overtake(engine, Call::Issue, meanwhile).await;
        }
        for call in [Call::Update, Call::Rotate, Call::EndRotation, Call::RevokeKeys] {
            overtake(engine, call, Rotated).await;
        }
    }

    /// Seen red without the comparison with the newest secret (rotated with an overlap).
    async fn a_key_that_rotates_itself_in_flight_is_looked_at_again(engine: Engine) {
        use Meanwhile::{
            Emptied, Rotated, RotatedWithAnOverlap, RevokedByItself, RevokedInBulk, RotationTakenBack,
        };
        for meanwhile in [
            Rotated,
            RotatedWithAnOverlap,
            RotationTakenBack,
            RevokedInBulk,
            RevokedByItself,
            Emptied,
        ] {
            overtake(engine, Call::RotateSelf, meanwhile).await;
        }
    }
}
