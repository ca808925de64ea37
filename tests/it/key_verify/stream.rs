//! `VerifyStream`: the answers of `Verify`, one after the other on one call.

use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::key_verify_client::KeyVerifyClient;
use pb::verify_stream_response::Result as Outcome;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use crate::fixtures::{
    Api, Engine, MINUTE, NOW, Program, Service, TestStore, eventually, issue_request, time,
    verify_request,
};

/// An open stream.
struct Asking {
    questions: mpsc::Sender<pb::VerifyStreamRequest>,
    answers: Streaming<pb::VerifyStreamResponse>,
}

impl Asking {
    async fn begin(api: &mut Api) -> Result<Self, Status> {
        let (questions, asked) = mpsc::channel(100);
        let answers = api.verify.verify_stream(ReceiverStream::new(asked)).await?;
        Ok(Self {
            questions,
            answers: answers.into_inner(),
        })
    }

    async fn send(&self, request: Option<pb::VerifyRequest>) {
        let question = pb::VerifyStreamRequest { request };
        self.questions.send(question).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<Outcome>, Status> {
        let answer = self.answers.message().await?;
        Ok(answer.map(|answer| answer.result.expect("an outcome")))
    }

    async fn ask(&mut self, key: &str) -> Result<Option<Outcome>, Status> {
        self.send(Some(verify_request(key))).await;
        self.next().await
    }

    async fn verdict(&mut self, key: &str) -> Verdict {
        verdict(self.ask(key).await.unwrap())
    }
}

fn verdict(outcome: Option<Outcome>) -> Verdict {
    match outcome {
        Some(Outcome::Response(answer)) => answer.verdict(),
        other => panic!("{other:?}"),
    }
}

fn code(outcome: Option<Outcome>) -> Code {
    match outcome {
        Some(Outcome::Error(error)) => error.code.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_question_is_answered_as_verify_answers_it_and_in_order() {
    let service = Service::start(Engine::Sqlite).await;
    let mut api = service.api();
    api.make_demo().await;
    let issued = api.issue().await;
    let elsewhere = pb::VerifyRequest {
        realm: "nowhere".to_owned(),
        ..verify_request(&issued.plain_key)
    };
    let mut asking = Asking::begin(&mut api).await.unwrap();
    for _ in 0..20 {
        asking.send(Some(verify_request(&issued.plain_key))).await;
        asking.send(Some(elsewhere.clone())).await;
        asking.send(Some(verify_request("demo_live_x"))).await;
        asking.send(None).await;
    }
    let good = api.ask(&issued.plain_key).await;
    for _ in 0..20 {
        match asking.next().await.unwrap() {
            Some(Outcome::Response(answer)) => {
                assert_eq!(answer.key, good.key);
                assert_eq!(answer.verdict(), Verdict::Allowed);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(code(asking.next().await.unwrap()), Code::InvalidArgument);
        assert_eq!(verdict(asking.next().await.unwrap()), Verdict::Malformed);
        assert_eq!(code(asking.next().await.unwrap()), Code::InvalidArgument);
    }
    // What is revoked is revoked for the next question.
    assert_eq!(asking.verdict(&issued.plain_key).await, Verdict::Allowed);
    api.revoke(&issued.key.unwrap().id).await.unwrap();
    assert_eq!(asking.verdict(&issued.plain_key).await, Verdict::Revoked);
    let Asking {
        questions,
        mut answers,
    } = asking;
    drop(questions);
    assert!(
        answers.message().await.unwrap().is_none(),
        "it ends with OK"
    );
    service.stop().await;
}

/// A key of the realm `claviger` that may verify keys of `demo`.
async fn issue_gateway_key(api: &mut Api) -> (String, String) {
    let request = pb::IssueKeyRequest {
        realm: "claviger".to_owned(),
        partner: "demo".to_owned(),
        environment: "main".to_owned(),
        scopes: vec!["verify".to_owned()],
        expire_time: time(MINUTE),
        ..issue_request()
    };
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    (issued.key.unwrap().id, issued.plain_key)
}

/// Revokes all keys that may verify keys of `demo`.
async fn revoke_gateway_keys(api: &mut Api) {
    let request = pb::RevokeKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "claviger".to_owned(),
            partner: "demo".to_owned(),
            ..Default::default()
        }),
        reason: "a test".to_owned(),
        ..Default::default()
    };
    api.keys.revoke_keys(request).await.unwrap();
}

/// Seen red with the caller's error as the answer to one question, after which the stream goes on.
#[tokio::test]
async fn the_caller_is_judged_again_for_each_question() {
    let clock = Clock::manual(NOW);
    let store = TestStore::on(Engine::Sqlite);
    let service = Service::start_with(store, clock.clone(), "", &[]).await;
    let mut api = service.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    for (why, expected) in [
        ("revoked", Code::Unauthenticated),
        ("revoked by a rule", Code::Unauthenticated),
        // Last, because the clock is not set back.
        ("expired", Code::Unauthenticated),
    ] {
        let (id, gateway_key) = issue_gateway_key(&mut api).await;
        let mut gateway = service.api_as(&gateway_key);
        let mut asking = Asking::begin(&mut gateway).await.unwrap();
        assert_eq!(asking.verdict(&key).await, Verdict::Allowed, "{why}");
        match why {
            "revoked" => drop(api.revoke(&id).await.unwrap()),
            "revoked by a rule" => revoke_gateway_keys(&mut api).await,
            _ => clock.set(Timestamp::from_micros(NOW.as_micros() + 60_000_000)),
        }
        let status = asking.ask(&key).await.unwrap_err();
        assert_eq!(status.code(), expected, "{why}: {status:?}");
        assert!(status.get_details_error_info().is_some());
    }
    service.stop().await;
}

/// A lost scope concerns the realm of a question, so it is the error of this question.
#[tokio::test]
async fn a_scope_that_the_caller_loses_is_missed_by_the_next_question() {
    let service = Service::start(Engine::Sqlite).await;
    let mut api = service.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    let (id, gateway_key) = issue_gateway_key(&mut api).await;
    let mut gateway = service.api_as(&gateway_key);
    let mut asking = Asking::begin(&mut gateway).await.unwrap();
    assert_eq!(asking.verdict(&key).await, Verdict::Allowed);
    let request = pb::UpdateKeyRequest {
        key_id: id,
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["scopes".to_owned()],
        }),
        scopes: vec!["manage".to_owned()],
        ..Default::default()
    };
    api.keys.update_key(request).await.unwrap();
    let outcome = asking.ask(&key).await.unwrap();
    assert_eq!(code(outcome), Code::PermissionDenied);
    service.stop().await;
}

/// Seen red without the end at the connection's age.
#[tokio::test]
async fn a_stream_lives_longer_than_a_call_and_ends_well_with_its_connection() {
    let store = TestStore::on(Engine::Sqlite);
    let flags = ["--call-timeout", "200ms", "--connection-age", "2s"];
    let program = Program::serve(&store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    let mut other = Api::new(&program.address, &program.operator());
    let mut asking = Asking::begin(&mut other).await.unwrap();
    for _ in 0..3 {
        assert_eq!(asking.verdict(&key).await, Verdict::Allowed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(asking.next().await.unwrap().is_none(), "it ends with OK");
    let mut asking = Asking::begin(&mut other).await.unwrap();
    assert_eq!(asking.verdict(&key).await, Verdict::Allowed);
}

/// Seen red without the limit.
#[tokio::test]
async fn one_address_has_a_limited_number_of_streams_and_gets_them_back() {
    let service = Service::start(Engine::Sqlite).await;
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..5 {
        let mut api = service.api();
        for _ in 0..60 {
            match Asking::begin(&mut api).await {
                Ok(asking) => held.push(asking),
                Err(status) => refused = Some(status),
            }
        }
    }
    assert_eq!(held.len(), 256);
    assert_eq!(refused.unwrap().code(), Code::ResourceExhausted);
    drop(held);
    eventually("a stream can be begun again", async || {
        Asking::begin(&mut service.api()).await.ok().map(drop)
    })
    .await;
    service.stop().await;
}

/// What a client does not read holds no memory beyond the buffers of its connection. Seen red with questions that are read before
/// the client takes an answer.
#[tokio::test]
async fn a_client_that_reads_no_answers_is_read_no_more() {
    let store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let issued = api.issue().await;
    // A window so small that the client's own buffers hold few answers.
    let endpoint = Endpoint::from_shared(format!("http://{}", program.address)).unwrap();
    let channel = endpoint
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .connect()
        .await
        .unwrap();
    let (questions, asked) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(asked));
    let bearer = format!("Bearer {}", program.operator()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut client = KeyVerifyClient::new(channel);
    let answers = client.verify_stream(request).await.unwrap();
    let mut asking = Asking {
        questions,
        answers: answers.into_inner(),
    };
    let mut asked = 0;
    // All buffers together hold less than half of these.
    let many = 20_000;
    while asked < many {
        let sending = asking.send(Some(verify_request(&issued.plain_key)));
        if timeout(Duration::from_secs(1), sending).await.is_err() {
            break;
        }
        asked += 1;
    }
    assert!(asked < many / 2, "{asked} questions were taken");
    for _ in 0..asked {
        let answer = asking.next().await.unwrap();
        assert_eq!(verdict(answer), Verdict::Allowed);
    }
    assert_eq!(asking.verdict("no-key").await, Verdict::Unknown);
}
