//! How keys are used is counted exactly, whatever the store does meanwhile, and forgotten when its time is over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::uri::PathAndQuery;
use claviger::domain::clock::Clock;
use claviger::domain::event::{Actor, Event, EventKind};
use claviger::domain::ids::{KeyId, Prefix, Tag};
use claviger::domain::key::Secret;
use claviger::domain::key_text::{PlainKey, SecretBytes};
use claviger::domain::time::{Expiry, Timestamp};
use claviger::hashing::Peppers;
use claviger::pb::claviger::v1 as pb;
use claviger::readiness::Readiness;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, attribute_context,
};
use pb::Verdict;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::fixtures::{
    Api, Engine, Place, Program, Service, demo_realm, eventually, from_env, issue_request,
    on_both_engines, verify_request,
};

/// 2030-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_micros(1_893_456_000_000_000);

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Written down all the time.
const OFTEN: [&str; 2] = ["--usage-interval", "10ms"];

/// So many seconds after the tests' beginning.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000)
}

#[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: NOW.as_micros() / 1_000_000 + seconds,
        nanos: 0,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
fn span(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

async fn usage_within(
    api: &mut Api,
    key_id: &str,
    start_time: Option<prost_types::Timestamp>,
    end_time: Option<prost_types::Timestamp>,
) -> Result<pb::GetKeyUsageResponse, Status> {
    let request = pb::GetKeyUsageRequest {
        key_id: key_id.to_owned(),
        start_time,
        end_time,
    };
    let answer = api.keys.get_key_usage(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn usage(api: &mut Api, key_id: &str) -> pb::GetKeyUsageResponse {
    usage_within(api, key_id, None, None).await.unwrap()
}

fn counts(counts: &[pb::VerdictCount]) -> BTreeMap<Verdict, u64> {
    let counts = counts.iter().map(|count| (count.verdict(), count.count));
    counts.collect()
}

/// How often with each verdict in the last day.
async fn totals(api: &mut Api, key_id: &str) -> BTreeMap<Verdict, u64> {
    counts(&usage(api, key_id).await.totals)
}

/// Waits until a key was allowed so often, by what is written down.
async fn written(api: &mut Api, key_id: &str, allowed: u64) {
    eventually("it is written down", async || {
        let totals = totals(api, key_id).await;
        (totals.get(&Verdict::Allowed) == Some(&allowed)).then_some(())
    })
    .await;
}

async fn get(api: &mut Api, key_id: &str) -> pb::Key {
    let request = pb::GetKeyRequest {
        key_id: key_id.to_owned(),
    };
    let answer = api.keys.get_key(request).await.unwrap().into_inner();
    answer.key.unwrap()
}

async fn list(
    api: &mut Api,
    change: impl FnOnce(&mut pb::ListKeysRequest),
) -> Result<Vec<String>, Status> {
    let mut request = pb::ListKeysRequest {
        realm: "demo".to_owned(),
        ..Default::default()
    };
    change(&mut request);
    let keys = api.keys.list_keys(request).await?.into_inner().keys;
    Ok(keys.into_iter().map(|key| key.id).collect())
}

async fn issue(api: &mut Api, change: impl FnOnce(&mut pb::IssueKeyRequest)) -> (String, String) {
    let mut request = issue_request();
    change(&mut request);
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    (issued.key.unwrap().id, issued.plain_key)
}

/// Questions of every kind, each with the key that its answer counts for.
struct Questions(Vec<(pb::VerifyRequest, Option<(String, Verdict)>)>);

impl Questions {
    /// Of a realm with partners of its own.
    async fn make(api: &mut Api) -> Self {
        api.make_demo().await;
        let mut all = Vec::new();
        let mut ask = |(id, text): &(String, String),
                       verdict: Verdict,
                       change: &dyn Fn(&mut pb::VerifyRequest)| {
            let mut request = verify_request(text);
            change(&mut request);
            all.push((request, Some((id.clone(), verdict))));
        };
        let busy = issue(api, |_| {}).await;
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
        let other = issue(api, |_| {}).await;
        ask(&other, Verdict::Allowed, &|_| {});
        let bound = issue(api, |new| new.allowed_cidrs = vec!["10.0.0.0/8".to_owned()]).await;
        ask(&bound, Verdict::AddressDenied, &|_| {});
        let revoked = issue(api, |_| {}).await;
        api.revoke(&revoked.0).await.unwrap();
        ask(&revoked, Verdict::Revoked, &|_| {});
        let disabled = issue(api, |_| {}).await;
        let request = pb::DisableKeyRequest {
            key_id: disabled.0.clone(),
            ..Default::default()
        };
        api.keys.disable_key(request).await.unwrap();
        ask(&disabled, Verdict::Disabled, &|_| {});
        let ended = issue(api, |new| new.expire_time = time(60)).await;
        ask(&ended, Verdict::Expired, &|_| {});
        let suspended = issue(api, |new| "umbrella".clone_into(&mut new.partner)).await;
        api.put_partner("umbrella", true).await;
        ask(&suspended, Verdict::PartnerSuspended, &|_| {});
        // These prove nobody, though the one names a key.
        let gone = issue(api, |_| {}).await;
        api.delete(&gone.0).await.unwrap();
        for text in [gone.1, format!("{}x", busy.1), String::new()] {
            all.push((verify_request(&text), None));
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

/// A transaction of somebody else's, in which nobody can write down how keys are used.
enum Held {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Held {
    async fn on(place: &Place, engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let file = place.data().join("claviger.db");
                let options = SqliteConnectOptions::new().filename(file);
                let mut connection = options.connect().await.unwrap();
                let begin = sqlx::raw_sql("BEGIN IMMEDIATE");
                begin.execute(&mut connection).await.unwrap();
                Self::Sqlite(connection)
            }
            Engine::Postgres => {
                let url = place.database().url("postgres");
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let begin = sqlx::raw_sql("BEGIN; LOCK TABLE usage IN EXCLUSIVE MODE");
                begin.execute(&mut connection).await.unwrap();
                Self::Postgres(connection)
            }
        }
    }

    async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}

/// The realm `demo` for gateways.
fn gateway_realm() -> pb::Realm {
    pb::Realm {
        credentials: Some(pb::Credentials {
            keys: vec![pb::KeyHeader {
                name: "x-api-key".to_owned(),
                scheme: String::new(),
            }],
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

async fn check(address: &str, gateway: &str, key: &str, path: &str) {
    let http = attribute_context::HttpRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        headers: [("x-api-key".to_owned(), key.to_owned())].into(),
        ..Default::default()
    };
    let extensions = [("realm", "demo"), ("environment", "production")];
    let mut check = Request::new(CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(attribute_context::Request {
                http: Some(http),
                ..Default::default()
            }),
            context_extensions: extensions
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Default::default()
        }),
    });
    let bearer = format!("Bearer {gateway}").parse().unwrap();
    check.metadata_mut().insert("authorization", bearer);
    let address = format!("http://{address}");
    let mut envoy = AuthorizationClient::connect(address).await.unwrap();
    envoy.check(check).await.unwrap();
}

async fn forward_auth(address: &str, gateway: &str, key: &str, path: &str) {
    let request = format!(
        "GET /forward-auth/demo/production HTTP/1.0\r\nx-original-method: GET\r\nx-original-uri: {path}\r\n\
         x-claviger-authorization: Bearer {gateway}\r\nx-api-key: {key}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 "), "{answer}");
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
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &flags).await;
        let operator = service.operator.clone();
        let questions = Arc::new(Questions::make(&mut service.api()).await);
        clock.set(at(61));
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
        let place = service.stop().await;

        let service = Service::start_with(place, clock, &operator, &flags).await;
        let mut api = service.api();
        let kinds: usize = expected.values().map(BTreeMap::len).sum();
        assert_eq!(kinds, 11, "each verdict on a proven key, and allowed twice");
        for (id, counts) in expected {
            assert_eq!(totals(&mut api, &id).await, counts, "{id}");
        }
        service.stop().await;
    }

    /// Seen red with the backlog forgotten after a write that failed.
    async fn what_cannot_be_written_down_is_kept_and_hurts_no_verification(engine: Engine) {
        let flags = [&OFTEN[..], &["--poll-interval", "1h", "--database-timeout", "300ms"]].concat();
        let service = Service::start_with(Place::on(engine), Clock::system(), "", &flags).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, text) = issue(&mut api, |_| {}).await;
        assert_eq!(api.verdict(&text).await, Verdict::Allowed);
        written(&mut api, &id, 1).await;

        // Somebody holds on to the table: on PostgreSQL until the writer gives up, again and again.
        let held = Held::on(&service.place, engine).await;
        for _ in 0..100 {
            assert_eq!(api.verdict(&text).await, Verdict::Allowed);
        }
        assert_eq!(totals(&mut api, &id).await[&Verdict::Allowed], 1);
        held.release().await;
        written(&mut api, &id, 101).await;

        // Nothing can be written at all, and is tried all the time.
        service.place.meddle(&["ALTER TABLE usage RENAME TO hidden"]).await;
        for _ in 0..3 {
            let tried = service.store.sessions();
            for _ in 0..50 {
                assert_eq!(api.verdict(&text).await, Verdict::Allowed);
            }
            eventually("it is tried again", async || {
                (service.store.sessions() > tried + 1).then_some(())
            })
            .await;
        }
        service.place.meddle(&["ALTER TABLE hidden RENAME TO usage"]).await;
        written(&mut api, &id, 251).await;
        service.stop().await;
    }

    async fn a_crash_loses_what_was_not_written_down_and_nothing_else(engine: Engine) {
        let place = Place::on(engine);
        let mut program = Program::serve(&place, &OFTEN);
        let mut api = program.api();
        api.make_demo().await;
        let (id, text) = issue(&mut api, |_| {}).await;
        for _ in 0..300 {
            assert_eq!(api.verdict(&text).await, Verdict::Allowed);
        }
        written(&mut api, &id, 300).await;
        for _ in 0..200 {
            assert_eq!(api.verdict(&text).await, Verdict::Allowed);
        }
        program.kill();
        let program = Program::serve(&place, &OFTEN);
        let mut api = program.api();
        let counted = totals(&mut api, &id).await[&Verdict::Allowed];
        assert!((300..=500).contains(&counted), "{counted}");
        // And it goes on from there.
        assert_eq!(api.verdict(&text).await, Verdict::Allowed);
        written(&mut api, &id, counted + 1).await;
    }

    /// Seen red with a tally that is known by its key and hour alone.
    async fn both_secrets_of_a_key_tell_when_they_were_last_used(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &OFTEN).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, old) = issue(&mut api, |_| {}).await;
        let key_id = KeyId::parse(&id).unwrap();
        clock.set(at(100));
        assert_eq!(api.verdict(&old).await, Verdict::Allowed);

        // A second text, as a rotation makes it.
        let peppers = Peppers::load(&service.place.pepper()).unwrap().unwrap();
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
            last_used_at: None,
        });
        change.update_key(&key).await.unwrap();
        record(change, key_id).await;
        clock.set(at(200));
        eventually("the new text is good", async || {
            (api.verdict(new.expose()).await == Verdict::Allowed).then_some(())
        })
        .await;
        clock.set(at(300));
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
            (told(&key) == (time(300), vec![time(300), time(200)])).then_some(())
        })
        .await;
        // A list tells the same; and when a secret is gone, the key still knows.
        let mut change = service.store.change(clock.now()).await.unwrap();
        let mut key = change.find_key(key_id).await.unwrap().unwrap();
        key.secrets.remove(0);
        change.update_key(&key).await.unwrap();
        record(change, key_id).await;
        let request = pb::ListKeysRequest { realm: "demo".to_owned(), ..Default::default() };
        let keys = api.keys.list_keys(request).await.unwrap().into_inner().keys;
        assert_eq!(told(&keys[0]), (time(300), vec![time(200)]));
        service.stop().await;
    }

    /// Seen red with the note left out of `Callers::prove_in`.
    async fn a_key_that_calls_is_used_but_not_counted(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &OFTEN).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(pb::Realm { admin_scope: "admin".to_owned(), ..demo_realm() }).await;
        let (delegate_id, delegate) = issue(&mut root, |new| new.scopes = vec!["admin".to_owned()]).await;
        let (gateway_id, gateway) = issue(&mut root, |new| {
            *new = pb::IssueKeyRequest {
                realm: "claviger".to_owned(),
                partner: "demo".to_owned(),
                scopes: vec!["verify".to_owned()],
                ..Default::default()
            };
        })
        .await;
        let request = pb::ListKeysRequest { realm: "claviger".to_owned(), ..Default::default() };
        let keys = root.keys.list_keys(request).await.unwrap().into_inner().keys;
        let operator_id = keys.into_iter().find(|key| key.partner.is_empty()).unwrap().id;
        clock.set(at(50));
        assert_eq!(service.api_as(&gateway).verdict("demo_live_x").await, Verdict::Malformed);
        let seen = list(&mut service.api_as(&delegate), |asked| "acme".clone_into(&mut asked.partner)).await;
        assert_eq!(seen.unwrap().len(), 1);
        root.issue().await;
        for id in [delegate_id, gateway_id, operator_id] {
            eventually("it was used", async || {
                let usage = usage(&mut root, &id).await;
                assert_eq!((usage.totals, usage.buckets), (vec![], vec![]));
                (usage.last_used_time == time(50)).then_some(())
            })
            .await;
            assert_eq!(get(&mut root, &id).await.last_used_time, time(50));
        }
        service.stop().await;
    }

    async fn keys_are_found_by_what_they_were_not_used_for_and_when_they_end(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &OFTEN).await;
        let mut api = service.api();
        api.make_demo().await;
        let (never, _) = issue(&mut api, |new| new.expire_time = time(40 * DAY)).await;
        let (long_ago, old_text) = issue(&mut api, |_| {}).await;
        let (lately, new_text) = issue(&mut api, |new| new.expire_time = time(13 * DAY)).await;
        let (over, _) = issue(&mut api, |new| new.expire_time = time(5 * DAY)).await;
        clock.set(at(DAY));
        api.verdict(&old_text).await;
        written(&mut api, &long_ago, 1).await;
        clock.set(at(8 * DAY));
        api.verdict(&new_text).await;
        written(&mut api, &lately, 1).await;
        let (young, _) = issue(&mut api, |_| {}).await;
        clock.set(at(10 * DAY));

        for (seconds, expected) in [
            (DAY, vec![&young, &over, &lately, &long_ago, &never]),
            (7 * DAY, vec![&over, &long_ago, &never]),
            (9 * DAY - 1, vec![&over, &long_ago, &never]),
            // It was used at that very instant.
            (9 * DAY, vec![&over, &never]),
            (11 * DAY, vec![]),
        ] {
            let found = list(&mut api, |asked| asked.unused_for = span(seconds)).await.unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{seconds}");
        }
        let found = list(&mut api, |asked| asked.never_expires = true).await.unwrap();
        assert_eq!(found, [young.clone(), long_ago.clone()]);
        for (seconds, expected) in [
            (2 * DAY, vec![]),
            (3 * DAY, vec![&lately]),
            (30 * DAY, vec![&lately, &never]),
            (315_576_000_000, vec![&lately, &never]),
        ] {
            let found = list(&mut api, |asked| asked.expires_within = span(seconds)).await.unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{seconds}");
        }
        for wrong in [span(-1), span(0), span(315_576_000_001), span(i64::MAX), span(i64::MIN)] {
            for refused in [
                list(&mut api, |asked| asked.unused_for = wrong).await,
                list(&mut api, |asked| asked.expires_within = wrong).await,
            ] {
                assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{wrong:?}");
            }
        }
        let both = list(&mut api, |asked| {
            asked.never_expires = true;
            asked.expires_within = span(1);
        })
        .await;
        assert_eq!(both.unwrap_err().code(), Code::InvalidArgument);
        service.stop().await;
    }

    async fn usage_is_told_by_the_hour_within_the_range_that_is_asked_for(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &OFTEN).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, text) = issue(&mut api, |_| {}).await;
        // At the beginning of an hour, at its end, and in the one after the next.
        for (number, seconds) in (1..).zip([0, HOUR - 1, 2 * HOUR + 5]) {
            clock.set(at(seconds));
            assert_eq!(api.verdict(&text).await, Verdict::Allowed);
            written(&mut api, &id, number).await;
        }
        let hours = |answer: &pb::GetKeyUsageResponse| -> Vec<_> {
            let buckets = answer.buckets.iter();
            buckets.map(|bucket| (bucket.start_time, counts(&bucket.counts)[&Verdict::Allowed])).collect()
        };
        let all = usage(&mut api, &id).await;
        assert_eq!(hours(&all), [(time(0), 2), (time(2 * HOUR), 1)]);
        assert_eq!(all.last_used_time, time(2 * HOUR + 5));
        for (start, end, expected) in [
            (time(HOUR - 1), time(2 * HOUR), vec![(time(0), 2)]),
            (time(HOUR), time(3 * HOUR), vec![(time(2 * HOUR), 1)]),
            (time(HOUR), time(2 * HOUR), vec![]),
            (time(-400 * DAY + 2 * HOUR + 5), None, hours(&all)),
        ] {
            let answer = usage_within(&mut api, &id, start, end).await.unwrap();
            assert_eq!(hours(&answer), expected, "{start:?} {end:?}");
            assert_eq!(answer.last_used_time, all.last_used_time, "whatever the range");
        }
        for (start, end) in [
            (time(1), time(0)),
            (time(-400 * DAY + 2 * HOUR + 4), None),
            (time(HOUR * 3), None),
        ] {
            let refused = usage_within(&mut api, &id, start, end).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{start:?} {end:?}");
        }
        let refused = usage_within(&mut api, "x", None, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        service.stop().await;
    }

    /// Seen red with a tombstone that everybody may look at.
    async fn the_usage_of_a_deleted_key_is_told_to_those_who_reached_it(engine: Engine) {
        let service = Service::start_with(Place::on(engine), Clock::system(), "", &OFTEN).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(pb::Realm { admin_scope: "admin".to_owned(), ..demo_realm() }).await;
        let admin = |new: &mut pb::IssueKeyRequest| new.scopes = vec!["admin".to_owned()];
        let (_, own) = issue(&mut root, admin).await;
        let (_, staging) = issue(&mut root, |new| {
            admin(new);
            "staging".clone_into(&mut new.environment);
        })
        .await;
        let (_, foreign) = issue(&mut root, |new| {
            admin(new);
            "umbrella".clone_into(&mut new.partner);
        })
        .await;
        let (_, of_project) = issue(&mut root, |new| {
            admin(new);
            new.level = pb::KeyLevel::Project.into();
            "one".clone_into(&mut new.project);
        })
        .await;
        let (id, text) = issue(&mut root, |_| {}).await;
        for _ in 0..3 {
            assert_eq!(root.verdict(&text).await, Verdict::Allowed);
        }
        written(&mut root, &id, 3).await;
        let last = usage(&mut root, &id).await.last_used_time;
        root.delete(&id).await.unwrap();

        for caller in [&service.operator, &own] {
            let usage = usage(&mut service.api_as(caller), &id).await;
            assert_eq!(counts(&usage.totals)[&Verdict::Allowed], 3);
            assert_eq!((usage.last_used_time, last.is_some()), (last, true));
        }
        for caller in [staging, foreign, of_project] {
            let mut api = service.api_as(&caller);
            let gone = usage_within(&mut api, &id, None, None).await.unwrap_err();
            let never = KeyId::from_bytes([9; 16]).to_string();
            let unknown = usage_within(&mut api, &never, None, None).await.unwrap_err();
            assert_eq!((gone.code(), gone.message()), (Code::NotFound, unknown.message()));
        }
        service.stop().await;
    }

    /// The server looks for what is too old all the time. Seen red with `known` left out of `Store::forget_events`: the feed
    /// then misses the event that it knows, and the server calls the history rewritten.
    async fn what_is_too_old_is_forgotten_and_the_feed_goes_on(engine: Engine) {
        let clock = Clock::manual(NOW);
        let flags = [
            "--retain-events", "2d", "--retain-usage", "3d", "--retain-tombstones", "5d",
            "--retain-interval", "1ms", "--usage-interval", "10ms", "--poll-interval", "1h",
        ];
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &flags).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, text) = issue(&mut api, |_| {}).await;
        // Not the very beginning, behind which the first changes are already.
        clock.set(at(1));
        api.verdict(&text).await;
        written(&mut api, &id, 1).await;
        let (gone, gone_text) = issue(&mut api, |_| {}).await;
        api.verdict(&gone_text).await;
        written(&mut api, &gone, 1).await;
        api.delete(&gone).await.unwrap();
        let row = |number: u8, seconds: i64| {
            let id = match engine {
                Engine::Sqlite => format!("x'{}'", format!("{number:02x}").repeat(16)),
                Engine::Postgres => format!("'{}'", KeyId::from_bytes([number; 16])),
            };
            let bytes = match engine {
                Engine::Sqlite => "x''",
                Engine::Postgres => "''",
            };
            format!(
                "INSERT INTO requests (actor, id, time, fingerprint, revision, result)
                 VALUES ({id}, {id}, {}, {bytes}, 1, '')",
                at(seconds).as_micros()
            )
        };
        service.place.meddle(&[&row(1, 0), &row(2, 2 * DAY)]).await;
        let first = async || {
            let (count, first, last) = service.store.snapshot().await.unwrap().history().await.unwrap();
            assert_eq!(count, last.as_u64() - first.as_u64() + 1, "what is left has no gaps");
            (first.as_u64(), last.as_u64())
        };
        let (begin, last) = first().await;
        assert_eq!(begin, 1);

        // On the third day: the answers to old requests are gone, but nothing else is. The newest events follow each other and
        // all are old, so that only the last one stays.
        clock.set(at(3 * DAY));
        eventually("all events but the last are forgotten", async || {
            (first().await == (last, last)).then_some(())
        })
        .await;
        let whole = usage_within(&mut api, &id, time(-DAY), time(DAY)).await.unwrap();
        assert_eq!(counts(&whole.totals)[&Verdict::Allowed], 1, "three days are not over");

        clock.set(at(4 * DAY));
        eventually("the counts are forgotten", async || {
            let left = usage_within(&mut api, &id, time(-DAY), time(DAY)).await.unwrap();
            (left.totals.is_empty() && left.last_used_time == time(1)).then_some(())
        })
        .await;
        let told = usage_within(&mut api, &gone, None, None).await.unwrap();
        assert_eq!(told.last_used_time, time(1), "the tombstone stays for five days");

        clock.set(at(6 * DAY));
        eventually("the tombstone is forgotten", async || {
            let refused = usage_within(&mut api, &gone, None, None).await.err()?;
            (refused.code() == Code::NotFound).then_some(())
        })
        .await;
        let key_id = KeyId::parse(&gone).unwrap();
        let mut snapshot = service.store.snapshot().await.unwrap();
        assert_eq!(snapshot.last_use(key_id).await.unwrap(), None, "and with it its last use");
        drop(snapshot);
        // The feed has not heard of a change, when the event that it knows, and then also that of the change, grow old.
        for round in 1..=3 {
            clock.set(at((6 + 6 * round) * DAY));
            let change = service.store.change(clock.now()).await.unwrap();
            record(change, KeyId::parse(&id).unwrap()).await;
            sweep(&service).await;
            clock.set(at((9 + 6 * round) * DAY));
            sweep(&service).await;
            let (_, text) = issue(&mut api, |_| {}).await;
            assert_eq!(api.verdict(&text).await, Verdict::Allowed, "it came round");
            assert_eq!(*service.readiness.borrow(), Readiness::Ready);
        }
        assert_eq!(get(&mut api, &id).await.last_used_time, time(1), "a key that is there is remembered");
        service.stop().await;
    }

    async fn with_counting_off_nothing_is_counted(engine: Engine) {
        let flags = ["--usage-interval", "0s"];
        let service = Service::start_with(Place::on(engine), Clock::system(), "", &flags).await;
        let operator = service.operator.clone();
        let mut api = service.api();
        api.make_demo().await;
        let (id, text) = issue(&mut api, |_| {}).await;
        assert_eq!(api.verdict(&text).await, Verdict::Allowed);
        let place = service.stop().await;
        let service = Service::start_with(place, Clock::system(), &operator, &flags).await;
        let usage = usage(&mut service.api(), &id).await;
        assert_eq!(usage, pb::GetKeyUsageResponse::default());
        service.stop().await;
    }
}

/// Waits until all that is too old was looked for at least once more.
async fn sweep(service: &Service) {
    // Four accesses to the store each time; others come between them.
    let before = service.store.sessions();
    eventually("what is too old is looked for", async || {
        (service.store.sessions() > before + 40).then_some(())
    })
    .await;
}

/// Records a change that brings a key's new state round.
async fn record(change: claviger::store::Change, key: KeyId) {
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind: EventKind::KeyEnabled,
        subject: claviger::domain::event::Subject {
            realm: claviger::domain::ids::RealmId::parse("demo").unwrap(),
            partner: None,
            project: None,
            key: Some(key),
        },
        detail: BTreeMap::new(),
    };
    change.commit(&event).await.unwrap();
}

/// Each way in counts, and each once; a public route looks at no key, and an explanation is not a use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_in_counts_once_and_an_explanation_does_not() {
    let place = Place::on(Engine::Sqlite);
    let flags = [&OFTEN[..], &["--gateway", "nginx"]].concat();
    let program = Program::serve(&place, &flags);
    let mut api = program.api();
    api.make_demo().await;
    api.put_realm(gateway_realm()).await;
    let operator = program.operator();
    let (id, text) = issue(&mut api, |_| {}).await;
    let (untouched, silent) = issue(&mut api, |_| {}).await;

    assert_eq!(api.verdict(&text).await, Verdict::Allowed);
    let requests = vec![verify_request(&text); 2];
    let batch = pb::VerifyBatchRequest { requests };
    api.verify.verify_batch(batch).await.unwrap();
    for path in ["/items", "/open", "/no/such/route"] {
        check(&program.address, &operator, &text, path).await;
        forward_auth(&program.http, &operator, &text, path).await;
    }
    let question = pb::explain_request::Question::Verify(verify_request(&silent));
    let request = pb::ExplainRequest {
        question: Some(question),
    };
    api.verify.explain(request).await.unwrap();
    // Two by batch, one by itself, and of each gateway the one on a route; the one on none is counted as that.
    written(&mut api, &id, 5).await;
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

/// Seen red with the warning given each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_logged_once() {
    let place = Place::on(Engine::Sqlite);
    let program = Program::serve(&place, &["--usage-interval", "1ms"]);
    let mut api = program.api();
    api.make_demo().await;
    let (id, text) = issue(&mut api, |_| {}).await;
    let logged = |what: &str| {
        let log = String::from_utf8_lossy(&program.log.lock().unwrap()).into_owned();
        log.matches(what).count()
    };
    for outage in 1..=2 {
        place.meddle(&["ALTER TABLE usage RENAME TO hidden"]).await;
        let mut asked = 0;
        eventually("the outage is noticed", async || {
            asked += 1;
            api.verdict(&text).await;
            (logged("cannot be written down") >= outage).then_some(())
        })
        .await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            api.verdict(&text).await;
        }
        assert_eq!(logged("cannot be written down"), outage);
        place.meddle(&["ALTER TABLE hidden RENAME TO usage"]).await;
        eventually("the end of it is told", async || {
            (logged("is written down again") == outage).then_some(())
        })
        .await;
        assert!(totals(&mut api, &id).await[&Verdict::Allowed] >= asked);
    }
}
