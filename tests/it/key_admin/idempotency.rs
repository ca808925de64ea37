//! Requests that come more than once are done once.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger::domain::event::{Actor, Event, EventKind, Subject};
use claviger::domain::ids::RealmId;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::import_result::Result as Imported;
use tonic::{Code, Status};

use crate::fixtures::{
    Api, DEADLINE, DemoService, Engine, HOUR, SECOND, Service, after, authority_key_request,
    events_of, get, import_entry, import_outcome, issue, issue_request, list_in_states,
    on_both_engines, refused_field, request_id, revoke_keys, rotate_request, seconds,
};

const AT_ONCE: usize = 100;

/// Sends the same call so often at once, over a few connections, and waits for every answer. That the server has no room
/// for so many is said before anything is done, so that such a call is sent again.
async fn at_once<T, F>(service: &Service, call: fn(Api, String) -> F, id: &str) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let connections: Vec<_> = (0..4).map(|_| service.api()).collect();
    let calls: Vec<_> = (0..AT_ONCE)
        .map(|i| {
            let (api, id) = (connections[i % 4].clone(), id.to_owned());
            let answered = async move {
                loop {
                    match call(api.clone(), id.clone()).await {
                        Err(status) if status.code() == Code::ResourceExhausted => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        answer => return answer.unwrap(),
                    }
                }
            };
            tokio::spawn(tokio::time::timeout(DEADLINE, answered))
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().expect("an answer in time"));
    }
    answers
}

const REQUEST: &str = "0b5e55ed-0000-4000-8000-000000000001";
const TEXT: &str = "TtgGcQFq.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU";

fn issue_once() -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        request_id: REQUEST.to_owned(),
        ..issue_request()
    }
}

fn rotate_once(key_id: &str) -> pb::RotateKeyRequest {
    pb::RotateKeyRequest {
        request_id: REQUEST.to_owned(),
        ..rotate_request(key_id, 600)
    }
}

fn import_once(plain_key: &str) -> pb::ImportKeysRequest {
    pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: vec![import_entry(plain_key)],
        request_id: REQUEST.to_owned(),
        ..Default::default()
    }
}

/// The ids that came of an import of one entry.
fn imported(answer: &pb::ImportKeysResponse) -> String {
    match answer.results.as_slice() {
        [
            pb::ImportResult {
                result: Some(Imported::KeyId(id)),
            },
        ] => id.clone(),
        other => panic!("{other:?}"),
    }
}

on_both_engines! {
    /// Seen red with the look at the requests outside of the transaction: two calls both find nothing and both make a key.
    async fn a_request_to_issue_that_comes_a_hundred_times_at_once_makes_one_key(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let answers = at_once(&service, issue_once_by, REQUEST).await;
        let made: Vec<_> = answers.iter().filter(|answer| !answer.replayed).collect();
        assert_eq!(made.len(), 1, "one of them made the key");
        assert_eq!(root.verdict(&made[0].plain_key).await, Verdict::Allowed);
        for answer in &answers {
            assert_eq!(answer.plain_key.is_empty(), answer.replayed, "the API key is shown once");
            assert_eq!(answer.revision, made[0].revision);
            assert_eq!(answer.key.as_ref().unwrap().id, made[0].key.as_ref().unwrap().id);
        }
        assert_eq!(list_in_states(&mut root, "demo", &[]).await.len(), 1);
        service.stop().await;
    }

    /// Seen red like the one above.
    async fn a_request_to_rotate_that_comes_a_hundred_times_at_once_rotates_once(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let key = issue(&mut root, issue_request()).await;
        let answers = at_once(&service, rotate_once_by, &key.id).await;
        let made: Vec<_> = answers.iter().filter(|answer| !answer.replayed).collect();
        assert_eq!(made.len(), 1, "one of them rotated");
        for plain_key in [&key.plain_key, &made[0].plain_key] {
            assert_eq!(root.verdict(plain_key).await, Verdict::Allowed);
        }
        for answer in &answers {
            assert_eq!(answer.plain_key.is_empty(), answer.replayed, "the API key is shown once");
            assert_eq!(answer.revision, made[0].revision);
        }
        assert_eq!(events_of(&mut root, &key.id).await, ["key.issued", "key.rotated"]);
        assert_eq!(get(&mut root, &key.id).await.secrets.len(), 2);
        service.stop().await;
    }

    /// Seen red like the one above: the others then find the key imported, which is no answer to the first.
    async fn a_request_to_import_that_comes_a_hundred_times_at_once_imports_once(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let answers = at_once(&service, import_once_by, TEXT).await;
        let made: Vec<_> = answers.iter().filter(|answer| !answer.replayed).collect();
        assert_eq!(made.len(), 1, "one of them imported");
        for answer in &answers {
            assert_eq!(imported(answer), imported(made[0]));
            assert_eq!(answer.revision, made[0].revision);
        }
        assert_eq!(root.verdict(TEXT).await, Verdict::Allowed);
        assert_eq!(list_in_states(&mut root, "demo", &[]).await, [imported(made[0])]);
        service.stop().await;
    }

    /// Each is a request of its own. Seen red with the keys of before looked for outside of the transaction alone.
    async fn a_text_that_is_imported_a_hundred_times_at_once_becomes_one_key(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let answers = at_once(&service, import_by, TEXT).await;
        let mut ids = Vec::new();
        let mut told = Vec::new();
        for result in answers.into_iter().flat_map(|answer| answer.results) {
            match import_outcome(result) {
                Ok(id) => ids.push(id),
                Err(refusal) => told.push((refusal.reason, refusal.metadata["key_id"].clone())),
            }
        }
        assert_eq!((ids.len(), told.len()), (1, AT_ONCE - 1));
        let id = ids.remove(0);
        for told in told {
            assert_eq!(told, ("ALREADY_IMPORTED".to_owned(), id.clone()));
        }
        assert_eq!(root.ask(TEXT).await.key.unwrap().id, id);
        assert_eq!(list_in_states(&mut root, "demo", &[]).await, [id]);
        service.stop().await;
    }

    /// Seen red with the requests kept in memory alone, and with them kept for an hour.
    async fn a_request_is_known_again_for_a_day_and_after_a_restart(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let issued = root.keys.issue_key(issue_once()).await.unwrap().into_inner();
        let id = issued.key.unwrap().id;
        let mut demo = demo.restarted().await;
        let root = &mut demo.root;
        demo.clock.set(after(24 * HOUR - SECOND));
        let again = root.keys.issue_key(issue_once()).await.unwrap().into_inner();
        assert!(again.replayed && again.plain_key.is_empty());
        assert_eq!((again.key.unwrap().id, again.revision), (id.clone(), issued.revision));
        assert_eq!(list_in_states(root, "demo", &[]).await, [id]);
        demo.service.stop().await;
    }

    /// Seen red with the fingerprint of the request left out.
    async fn a_request_of_the_same_name_and_another_body_is_a_mistake(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_once()).await;
        for other in [
            pb::IssueKeyRequest {
                name: "other".to_owned(),
                ..issue_once()
            },
            pb::IssueKeyRequest {
                scopes: vec!["read".to_owned()],
                ..issue_once()
            },
            pb::IssueKeyRequest {
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..issue_once()
            },
        ] {
            refused_field(root.keys.issue_key(other).await, "request_id");
        }
        let rotate = |overlap| pb::RotateKeyRequest {
            overlap: seconds(overlap),
            request_id: request_id(),
            ..rotate_request(&key.id, 0)
        };
        let first = rotate(600);
        root.keys.rotate_key(first.clone()).await.unwrap();
        let other = pb::RotateKeyRequest {
            overlap: seconds(601),
            ..first
        };
        refused_field(root.keys.rotate_key(other).await, "request_id");
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Allowed);

        let name = request_id();
        revoke_keys(root, |keys| {
            "umbrella".clone_into(&mut keys.filter.get_or_insert_default().partner);
            keys.request_id.clone_from(&name);
        })
        .await
        .unwrap();
        let other = revoke_keys(root, |keys| {
            "acme".clone_into(&mut keys.filter.get_or_insert_default().partner);
            keys.request_id.clone_from(&name);
        })
        .await;
        refused_field(other, "request_id");
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Allowed);

        let first = pb::ImportKeysRequest {
            request_id: request_id(),
            ..import_once(TEXT)
        };
        root.keys.import_keys(first.clone()).await.unwrap();
        let other = pb::ImportKeysRequest {
            entries: vec![import_entry(TEXT), import_entry("another.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU")],
            ..first
        };
        refused_field(root.keys.import_keys(other).await, "request_id");
        assert_eq!(list_in_states(root, "demo", &[]).await.len(), 2);
        demo.service.stop().await;
    }

    /// Seen red with the requests found by their name alone.
    async fn two_callers_may_give_their_requests_one_name(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let manager = issue(root, authority_key_request("manage", "demo"))
        .await;
        let own = issue(root, issue_once()).await;
        let mut manager = demo.service.api_as(&manager.plain_key);
        let other = manager.keys.issue_key(issue_once()).await.unwrap().into_inner();
        assert!(!other.replayed);
        assert_ne!(other.key.unwrap().id, own.id);
        for plain_key in [&own.plain_key, &other.plain_key] {
            assert_eq!(root.verdict(plain_key).await, Verdict::Allowed);
        }
        demo.service.stop().await;
    }

    /// Whoever sends it again after an hour, because the first answer was lost, must not end what was issued since.
    ///
    /// Seen red without the look at the requests.
    async fn a_repeated_end_of_many_spares_what_was_issued_since(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let old = issue(root, issue_request()).await;
        let name = request_id();
        let first = revoke_keys(root, |keys| keys.request_id.clone_from(&name)).await.unwrap();
        assert!(!first.replayed);
        demo.clock.set(after(HOUR));
        let new = issue(root, issue_request()).await;
        let again = revoke_keys(root, |keys| keys.request_id.clone_from(&name)).await.unwrap();
        assert!(again.replayed);
        assert_eq!(again.revision, first.revision);
        assert_eq!(root.verdict(&old.plain_key).await, Verdict::Revoked);
        assert_eq!(root.verdict(&new.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    /// A repetition waits for a revision that this server may not have yet. Nobody else may wait for that. Seen red with the wait
    /// before the end of the transaction.
    async fn a_repetition_that_is_not_in_force_yet_delays_no_other_change(engine: Engine) {
        let demo = DemoService::on(engine).await;
        let mut root = demo.root.clone();
        issue(&mut root, issue_request()).await;
        let name = request_id();
        revoke_keys(&mut root, |keys| keys.request_id.clone_from(&name)).await.unwrap();
        // The feed cannot read while its connection is in use, so it stays behind a change of another server.
        let store = &demo.service.store;
        let feed = store.feed_snapshot().await.unwrap();
        let change = store.change(after(0)).await.unwrap();
        let event = Event {
            revision: change.revision(),
            time: change.time(),
            actor: Actor::command_line(),
            kind: EventKind::RealmPut,
            subject: Subject {
                realm: RealmId::parse("demo").unwrap(),
                partner: None,
                project: None,
                key: None,
            },
            detail: BTreeMap::new(),
        };
        change.commit(&event).await.unwrap();
        let repeated = tokio::spawn(async move {
            revoke_keys(&mut root, |keys| keys.request_id.clone_from(&name)).await
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!repeated.is_finished(), "the repetition does not wait");
        let next = tokio::time::timeout(Duration::from_secs(5), store.change(after(0)));
        assert!(next.await.is_ok(), "the repetition delays another change");
        drop(feed);
        assert!(repeated.await.unwrap().unwrap().replayed);
        demo.service.stop().await;
    }
}

async fn issue_once_by(mut api: Api, id: String) -> Result<pb::IssueKeyResponse, Status> {
    let request = pb::IssueKeyRequest {
        request_id: id,
        ..issue_once()
    };
    let answer = api.keys.issue_key(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn rotate_once_by(mut api: Api, key_id: String) -> Result<pb::RotateKeyResponse, Status> {
    let answer = api.keys.rotate_key(rotate_once(&key_id)).await;
    answer.map(tonic::Response::into_inner)
}

async fn import_by(mut api: Api, plain_key: String) -> Result<pb::ImportKeysResponse, Status> {
    let request = pb::ImportKeysRequest {
        request_id: String::new(),
        ..import_once(&plain_key)
    };
    let answer = api.keys.import_keys(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn import_once_by(mut api: Api, plain_key: String) -> Result<pb::ImportKeysResponse, Status> {
    let answer = api.keys.import_keys(import_once(&plain_key)).await;
    answer.map(tonic::Response::into_inner)
}
