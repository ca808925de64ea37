//! The caller is revoked, disabled or deleted, its partner is suspended, or its realm delegates nothing any more.

use std::collections::BTreeMap;

use claviger::domain::clock::Clock;
use claviger::domain::event::{Actor, Event, EventKind, Subject};
use claviger::domain::ids::KeyId;
use claviger::domain::key::Revocation;
use claviger::pb::claviger::v1 as pb;
use claviger::store::Change;
use tonic::Code;

use crate::fixtures::{
    Engine, Service, TestStore, authority_key_request, demo_realm, eventually, issue_request,
    on_both_engines, settled,
};

/// What becomes of a caller while its call waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Revoked,
    Disabled,
    Deleted,
    /// Its partner is.
    Suspended,
    /// Its realm names no admin scope any more.
    NotDelegated,
}

async fn overtake(engine: Engine, caller: pb::IssueKeyRequest, meanwhile: Meanwhile) {
    // The feed waits to be poked, so that the next access to the store is the call's.
    let test_store = TestStore::on(engine);
    let service = Service::start_with(
        test_store,
        Clock::system(),
        "",
        &["--poll-interval", "1h", "--usage-interval", "0s"],
    )
    .await;
    let mut root = service.api();
    root.make_demo().await;
    root.put_realm(pb::Realm {
        admin_scope: "admin".to_owned(),
        ..demo_realm()
    })
    .await;
    let other = root.keys.issue_key(caller).await.unwrap().into_inner();
    let mut caller = service.api_as(&other.plain_key);
    caller.issue().await;

    // What becomes of it is under way and holds the one writer, so that the call, which was let in, waits behind it.
    let id = KeyId::parse(&other.key.unwrap().id).unwrap();
    let mut change = service.store.change(Clock::system().now()).await.unwrap();
    let (kind, subject) = change_caller(&mut change, id, meanwhile).await;
    let before = settled(&service).await;
    let call = tokio::spawn(async move { caller.keys.issue_key(issue_request()).await });
    // The second is the change; the first looked whether there would be one.
    eventually("the call waits for the writer", async || {
        (service.store.sessions() > before + 1).then_some(())
    })
    .await;
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind,
        subject,
        detail: BTreeMap::new(),
    };
    change.commit(&event).await.unwrap();
    let refused = call.await.unwrap().err().expect("a refusal");
    let expected = match meanwhile {
        Meanwhile::NotDelegated => Code::PermissionDenied,
        _ => Code::Unauthenticated,
    };
    assert_eq!(refused.code(), expected, "{meanwhile:?}");

    let listed = pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let keys = root.keys.list_keys(listed).await.unwrap().into_inner().keys;
    let by_the_caller = keys.iter().filter(|key| key.created_by == id.to_string());
    assert_eq!(by_the_caller.count(), 1, "only the key from before");
    service.stop().await;
}

/// Writes it into the change, and says what is to be recorded.
async fn change_caller(
    change: &mut Change,
    id: KeyId,
    meanwhile: Meanwhile,
) -> (EventKind, Subject) {
    let mut key = change.find_key(id).await.unwrap().unwrap();
    let mut subject = Subject {
        realm: key.realm.clone(),
        partner: Some(key.partner.clone()),
        project: None,
        key: Some(id),
    };
    let kind = match meanwhile {
        Meanwhile::Revoked => {
            key.revocation = Some(Revocation {
                at: change.time(),
                reason: String::new(),
            });
            change.update_key(&mut key).await.unwrap();
            EventKind::KeyRevoked
        }
        Meanwhile::Disabled => {
            key.disabled = true;
            change.update_key(&mut key).await.unwrap();
            EventKind::KeyDisabled
        }
        Meanwhile::Deleted => {
            change.delete_key(id).await.unwrap();
            EventKind::KeyDeleted
        }
        Meanwhile::Suspended => {
            let found = change.find_partner(&key.realm, &key.partner).await.unwrap();
            let mut partner = found.unwrap().value;
            partner.suspended = true;
            change.put_partner(&partner).await.unwrap();
            subject.key = None;
            EventKind::PartnerPut
        }
        Meanwhile::NotDelegated => {
            let mut realm = change.find_realm(&key.realm).await.unwrap().unwrap().value;
            realm.admin_scope = None;
            change.put_realm(&realm).await.unwrap();
            subject.key = None;
            subject.partner = None;
            EventKind::RealmPut
        }
    };
    (kind, subject)
}

on_both_engines! {
    /// Seen red without the second look at the caller's key in `CallerState::reread`: the call then issues a key. And with each of
    /// the things that it looks at left out.
    async fn a_call_in_flight_changes_nothing_once_its_caller_is_no_longer_good(engine: Engine) {
        use Meanwhile::{Deleted, Disabled, NotDelegated, Revoked, Suspended};
        let delegate = pb::IssueKeyRequest {
            scopes: vec!["admin".to_owned()],
            ..issue_request()
        };
        for meanwhile in [Revoked, Disabled, Deleted] {
            overtake(engine, authority_key_request("operator", ""), meanwhile).await;
        }
        for meanwhile in [Revoked, Disabled, Deleted, Suspended, NotDelegated] {
            overtake(engine, delegate.clone(), meanwhile).await;
        }
    }
}
