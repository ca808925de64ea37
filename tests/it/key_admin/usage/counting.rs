//! Every use is counted once, by every way in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use axum::http::uri::PathAndQuery;
use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

use super::{WRITE_OFTEN, await_allowed, totals, usage};
use crate::fixtures::{
    Api, Engine, NOW, Program, SECOND, Service, TestStore, after, demo_realm, envoy_check,
    eventually, forward_auth, from_env, header_source, issue, issue_request, issue_request_with,
    on_both_engines, time, verify_request,
};

/// Questions of every kind, each with the key that its answer counts for.
struct Questions(Vec<(pb::VerifyRequest, Option<(String, Verdict)>)>);

impl Questions {
    /// Of a realm with partners of its own.
    async fn make(api: &mut Api) -> Self {
        api.make_demo().await;
        let mut all = Vec::new();
        let mut ask = |(id, plain_key): &(String, String),
                       verdict: Verdict,
                       change: &dyn Fn(&mut pb::VerifyRequest)| {
            let mut request = verify_request(plain_key);
            change(&mut request);
            all.push((request, Some((id.clone(), verdict))));
        };
        let busy = issue(api, issue_request()).await.into_parts();
        ask(&busy, Verdict::Allowed, &|_| {});
        ask(&busy, Verdict::Allowed, &|_| {});
        ask(&busy, Verdict::EnvironmentMismatch, &|request| {
            "staging".clone_into(&mut request.environment);
        });
        ask(&busy, Verdict::PartnerMismatch, &|request| {
            "umbrella".clone_into(&mut request.partner);
        });
        ask(&busy, Verdict::ScopeMissing, &|request| {
            request.scopes = vec!["admin".to_owned()];
        });
        ask(&busy, Verdict::ProjectMismatch, &|request| {
            request.target = Some(pb::verify_request::Target::Project("three".to_owned()));
        });
        let other = issue(api, issue_request()).await.into_parts();
        ask(&other, Verdict::Allowed, &|_| {});
        let bound = issue(
            api,
            issue_request_with(|new| new.allowed_cidrs = vec!["10.0.0.0/8".to_owned()]),
        )
        .await
        .into_parts();
        ask(&bound, Verdict::AddressDenied, &|_| {});
        let revoked = issue(api, issue_request()).await.into_parts();
        api.revoke(&revoked.0).await.unwrap();
        ask(&revoked, Verdict::Revoked, &|_| {});
        let disabled = issue(api, issue_request()).await.into_parts();
        let request = pb::DisableKeyRequest {
            key_id: disabled.0.clone(),
            ..Default::default()
        };
        api.keys.disable_key(request).await.unwrap();
        ask(&disabled, Verdict::Disabled, &|_| {});
        let ended = issue(
            api,
            issue_request_with(|new| new.expire_time = time(60 * SECOND)),
        )
        .await
        .into_parts();
        ask(&ended, Verdict::Expired, &|_| {});
        let suspended = issue(
            api,
            issue_request_with(|new| "umbrella".clone_into(&mut new.partner)),
        )
        .await
        .into_parts();
        api.put_partner("umbrella", true).await;
        ask(&suspended, Verdict::PartnerSuspended, &|_| {});
        // These prove nobody, though the one names a key.
        let gone = issue(api, issue_request()).await.into_parts();
        api.delete(&gone.0).await.unwrap();
        for plain_key in [gone.1, format!("{}x", busy.1), String::new()] {
            all.push((verify_request(&plain_key), None));
        }
        Self(all)
    }

    /// A batch in which all kinds come, and what it counts.
    fn batch(&self, first: usize) -> (pb::VerifyBatchRequest, Counts) {
        let mut counts = Counts::default();
        let requests = (first..first + 100)
            .map(|number| {
                let (request, counted) = &self.0[number % self.0.len()];
                if let Some((id, verdict)) = counted {
                    *counts
                        .entry(id.clone())
                        .or_default()
                        .entry(*verdict)
                        .or_default() += 1;
                }
                request.clone()
            })
            .collect();
        (pb::VerifyBatchRequest { requests }, counts)
    }
}

type Counts = HashMap<String, BTreeMap<Verdict, u64>>;

fn add(to: &mut Counts, more: &Counts) {
    for (id, counts) in more {
        for (verdict, count) in counts {
            *to.entry(id.clone())
                .or_default()
                .entry(*verdict)
                .or_default() += count;
        }
    }
}

/// Sends messages that were encoded before and looks at no answer: a million of them are many for a client that was built for
/// debugging.
#[derive(Clone, Copy, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

/// The realm `demo` for gateways.
fn gateway_realm() -> pb::Realm {
    pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("x-api-key", "")],
            partner_header: String::new(),
        }),
        routes: vec![
            pb::Route {
                path: "/open".to_owned(),
                target: Some(pb::route::Target::Public(true)),
                ..Default::default()
            },
            pb::Route {
                path: "/items".to_owned(),
                ..Default::default()
            },
        ],
        ..demo_realm()
    }
}

on_both_engines! {
    /// Every few batches the marks are taken off, while others are being made, and at the end the server stops. Seen red with
    /// the last writing left out of `Writer::run`, and with `count = excluded.count`.
    async fn every_verdict_is_counted_exactly_under_load_and_over_a_restart(engine: Engine) {
        let wanted = match engine {
            Engine::Sqlite => from_env("CLAVIGER_TEST_COUNTED", 1_000_000),
            Engine::Postgres => from_env("CLAVIGER_TEST_COUNTED_ON_POSTGRES", 100_000),
        };
        let clock = Clock::manual(NOW);
        let flags = ["--usage-interval", "20ms"];
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &flags).await;
        let operator = service.operator.clone();
        let questions = Arc::new(Questions::make(&mut service.api()).await);
        clock.set(after(61 * SECOND));
        let began = Instant::now();
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let channel = Endpoint::from_shared(format!("http://{}", service.address)).unwrap();
                let bearer: MetadataValue<_> = format!("Bearer {operator}").parse().unwrap();
                let questions = Arc::clone(&questions);
                tokio::spawn(async move {
                    let mut grpc = Grpc::new(channel.connect().await.unwrap());
                    let mut expected = Counts::default();
                    // Two kinds of batches, so that not every interval sees the same.
                    let kinds = [questions.batch(client), questions.batch(client * 7 + 3)];
                    let kinds = kinds.map(|(batch, counts)| (Bytes::from(batch.encode_to_vec()), counts));
                    for number in 0..wanted / 400 {
                        let (batch, counts) = &kinds[number % 2];
                        let mut request = Request::new(batch.clone());
                        request.metadata_mut().insert("authorization", bearer.clone());
                        let path = PathAndQuery::from_static("/claviger.v1.KeyVerify/VerifyBatch");
                        grpc.ready().await.unwrap();
                        grpc.unary(request, path, Encoded).await.unwrap();
                        add(&mut expected, counts);
                    }
                    expected
                })
            })
            .collect();
        let mut expected = Counts::default();
        for client in clients {
            add(&mut expected, &client.await.unwrap());
        }
        println!("{wanted} verifications took {:?}", began.elapsed());
        let test_store = service.stop().await;

        let service = Service::start_with(test_store, clock, &operator, &flags).await;
        let mut api = service.api();
        let kinds: usize = expected.values().map(BTreeMap::len).sum();
        assert_eq!(kinds, 11, "each verdict on a proven key, and allowed twice");
        let mut of_realm = BTreeMap::new();
        for (id, counts) in expected {
            assert_eq!(totals(&mut api, &id).await, counts, "{id}");
            for (verdict, count) in counts {
                *of_realm.entry(verdict).or_default() += count;
            }
        }
        let request = pb::GetUsageRequest { realm: "demo".to_owned(), ..Default::default() };
        let told = api.keys.get_usage(request).await.unwrap().into_inner();
        assert_eq!(super::counts(&told.totals), of_realm, "the sum of all keys");
        service.stop().await;
    }

    async fn with_counting_off_nothing_is_counted(engine: Engine) {
        let flags = ["--usage-interval", "0s"];
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &flags).await;
        let operator = service.operator.clone();
        let mut api = service.api();
        api.make_demo().await;
        let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
        assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
        let test_store = service.stop().await;
        let service = Service::start_with(test_store, Clock::system(), &operator, &flags).await;
        let usage = usage(&mut service.api(), &id).await;
        assert_eq!(usage, pb::GetKeyUsageResponse::default());
        service.stop().await;
    }
}

/// Each way in counts, and each once; a public route looks at no key, and an explanation is not a use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_in_counts_once_and_an_explanation_does_not() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = [&WRITE_OFTEN[..], &["--gateway", "nginx"]].concat();
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    api.put_realm(gateway_realm()).await;
    let operator = program.operator();
    let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
    let (untouched, silent) = issue(&mut api, issue_request()).await.into_parts();

    assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
    let requests = vec![verify_request(&plain_key); 2];
    let batch = pb::VerifyBatchRequest { requests };
    api.verify.verify_batch(batch).await.unwrap();
    for path in ["/items", "/open", "/no/such/route"] {
        let headers = [("x-api-key", plain_key.as_str())];
        envoy_check(&program.address, &operator, "demo", path, &headers)
            .await
            .unwrap();
        let answer = forward_auth(&program.http, &operator, "demo", path, &headers).await;
        assert!(answer.starts_with(b"HTTP/1.0 "), "{answer:?}");
    }
    let question = pb::explain_request::Question::Verify(verify_request(&silent));
    let request = pb::ExplainRequest {
        question: Some(question),
    };
    api.verify.explain(request).await.unwrap();
    // Two by batch, one by itself, and of each gateway the one on a route; the one on none is counted as that.
    await_allowed(&mut api, &id, 5).await;
    eventually(
        "the requests without a route are written down",
        async || {
            let totals = totals(&mut api, &id).await;
            (totals.get(&Verdict::NoRoute) == Some(&2)).then_some(())
        },
    )
    .await;
    assert_eq!(
        usage(&mut api, &untouched).await,
        pb::GetKeyUsageResponse::default()
    );
}
