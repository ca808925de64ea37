//! The proto of Envoy's service that claviger has: what reflection says of it, and what becomes of the rest of a message that
//! Envoy sends. That the real Envoy understands it is what the other tests of this folder show.

use std::sync::Arc;

use claviger::pb::claviger::v1 as pb;
use claviger::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use claviger::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
use claviger::pb::envoy::service::auth::v3::check_response::HttpResponse;
use claviger::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorProto;
use serde_json::json;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::keys::gateway_key;
use crate::fixtures::{Engine, Program, TestStore, put_partner_realms};

const SERVICE: &str = "envoy.service.auth.v3.Authorization";

/// An authority with the realm `partnero`, a key that it takes, and what Envoy calls it with.
struct Authority {
    channel: Channel,
    gateway_key: String,
    key: String,
    _program: Program,
    _test_store: Arc<TestStore>,
}

impl Authority {
    async fn start() -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &[]);
        let mut api = program.api();
        put_partner_realms(&program, &mut api).await;
        let request = pb::IssueKeyRequest {
            realm: "partnero".to_owned(),
            environment: "production".to_owned(),
            partner: "acme".to_owned(),
            project: "mtKDhe1U".to_owned(),
            level: pb::KeyLevel::Project.into(),
            ..Default::default()
        };
        let issued = api.keys.issue_key(request).await.unwrap().into_inner();
        let gateway_key = gateway_key(&mut api, "partnero").await;
        let address = format!("http://{}", program.address);
        Self {
            channel: Endpoint::from_shared(address).unwrap().connect_lazy(),
            gateway_key,
            key: issued.plain_key,
            _program: program,
            _test_store: test_store,
        }
    }

    /// Sends a message as it is, and returns the answer as it is.
    async fn call(&self, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.gateway_key).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let path = format!("/{SERVICE}/Check").parse().unwrap();
        let answer = client.unary(request, path, Plain).await;
        answer.map(tonic::Response::into_inner)
    }

    /// The code and the HTTP status of a denial that an answer holds. An answer without a code would be read as "allowed".
    async fn decision(&self, message: Vec<u8>) -> (Code, Option<i32>) {
        let answer = self.call(message).await.unwrap();
        let answer = CheckResponse::decode(answer.as_slice()).unwrap();
        let status = answer.status.expect("each answer has a status");
        let denial = match answer.http_response.expect("each answer has a response") {
            HttpResponse::OkResponse(_) => None,
            HttpResponse::DeniedResponse(denied) => Some(denied.status.unwrap().code),
        };
        (Code::from(status.code), denial)
    }
}

/// Messages as the bytes that they are.
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// What a client learns of the service by one version of reflection: whether it is listed, and the files that define it.
macro_rules! reflected {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version as wire;
        use wire::server_reflection_request::MessageRequest;
        use wire::server_reflection_response::MessageResponse;

        let channel: Channel = $channel;
        let ask = async |question| {
            let mut client =
                wire::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let request = wire::ServerReflectionRequest {
                message_request: Some(question),
                ..Default::default()
            };
            let answers = client.server_reflection_info(tokio_stream::once(request));
            let mut answers = answers.await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap();
            answer.message_response.unwrap()
        };
        let MessageResponse::ListServicesResponse(listed) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("no list of services");
        };
        let is_listed = listed.service.iter().any(|service| service.name == SERVICE);

        let mut files: Vec<FileDescriptorProto> = Vec::new();
        let mut questions = vec![MessageRequest::FileContainingSymbol(SERVICE.to_owned())];
        while let Some(question) = questions.pop() {
            let MessageResponse::FileDescriptorResponse(found) = ask(question.clone()).await else {
                panic!("not found: {question:?}");
            };
            for file in &found.file_descriptor_proto {
                let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
                if files.iter().all(|known| known.name() != file.name()) {
                    let needed = file.dependency.iter().cloned();
                    questions.extend(needed.map(MessageRequest::FileByFilename));
                    files.push(file);
                }
            }
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files).unwrap();
        (is_listed, pool)
    }};
}

/// As `grpcurl` does it: nothing is known of the service but what reflection says. Seen red with the service's file kept from
/// reflection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_only_reflection_calls_check() {
    let authority = Authority::start().await;
    let v1 = reflected!(v1, authority.channel.clone());
    let v1alpha = reflected!(v1alpha, authority.channel.clone());
    for (version, (is_listed, pool)) in [("v1", v1), ("v1alpha", v1alpha)] {
        assert!(is_listed, "{version}");
        let service = pool.get_service_by_name(SERVICE).unwrap();
        let [check] = service.methods().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(check.name(), "Check", "{version}");

        for (key, code, http) in [
            (authority.key.as_str(), Code::Ok, json!(null)),
            ("nonsense", Code::Unauthenticated, json!(401)),
        ] {
            let request = json!({"attributes": {
                "source": {"address": {"socketAddress": {"address": "192.0.2.7"}}},
                "request": {"http": {
                    "method": "GET",
                    "path": "/v1/partners",
                    "headers": {"authorization": format!("Bearer {key}")},
                }},
                "contextExtensions": {"realm": "partnero", "environment": "production"},
            }});
            let request = DynamicMessage::deserialize(check.input(), request).unwrap();
            let answer = authority.call(request.encode_to_vec()).await.unwrap();
            let answer = DynamicMessage::decode(check.output(), answer.as_slice()).unwrap();
            let answer = serde_json::to_value(answer).unwrap();
            let told = answer["status"]["code"].as_i64().unwrap_or_default();
            assert_eq!(told, code as i64, "{version}: {answer}");
            assert_eq!(
                answer["deniedResponse"]["status"]["code"], http,
                "{version}: {answer}"
            );
            let is_allowed = answer["okResponse"].is_object();
            assert_eq!(is_allowed, code == Code::Ok, "{version}: {answer}");
        }
    }
}

/// Seen red without `debug_redact` at `raw_value`.
#[test]
fn what_may_hold_a_key_is_to_be_redacted() {
    let pool = DescriptorPool::decode(claviger::pb::DESCRIPTORS).unwrap();
    for (message, fields) in [
        (
            "envoy.config.core.v3.HeaderValue",
            &["value", "raw_value"][..],
        ),
        (
            "envoy.service.auth.v3.AttributeContext.HttpRequest",
            &["headers"],
        ),
    ] {
        let message = pool.get_message_by_name(message).unwrap();
        for field in fields {
            let field = message.get_field_by_name(field).unwrap();
            let options = field.options();
            let redact = options.get_field_by_name("debug_redact");
            let is_redacted = redact.is_some_and(|redact| redact.as_bool() == Some(true));
            assert!(is_redacted, "{}", field.full_name());
        }
    }
}

/// A request for a path of `partnero`, in the raw form.
fn check(headers: &[(&str, String)]) -> CheckRequest {
    let headers = headers.iter().map(|(name, value)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..Default::default()
    });
    let http = HttpRequest {
        method: "GET".to_owned(),
        path: "/v1/partners".to_owned(),
        header_map: Some(HeaderMap {
            headers: headers.collect(),
        }),
        ..Default::default()
    };
    let extensions = [("realm", "partnero"), ("environment", "production")];
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(attribute_context::Request { http: Some(http) }),
            context_extensions: extensions
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Default::default()
        }),
    }
}

/// A field that holds bytes, text or a message.
fn field(number: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(value.as_ref().len() as u64, &mut field);
    field.extend(value.as_ref());
    field
}

/// A field that holds a number.
fn number(number: u32, value: u64) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(number, WireType::Varint, &mut field);
    encode_varint(value, &mut field);
    field
}

/// Everything else that Envoy's `AttributeContext` has, under its numbers there. Where it stands behind a message of the same
/// type, the two are read as one.
fn other_attributes() -> Vec<u8> {
    let label = [field(1, "app"), field(2, "web")].concat();
    let peer = |host: &str| {
        let socket = [number(1, 0), field(2, host), number(3, 51_234)].concat();
        [
            field(1, field(1, socket)),
            field(2, "frontend"),
            field(3, label),
            field(4, "spiffe://example.com/frontend"),
            field(5, "-----BEGIN CERTIFICATE-----"),
        ]
        .concat()
    };
    let http = [
        field(1, "4c9c4f0e-5d3f-4b6e-9f7e-0a1b2c3d4e5f"),
        field(5, "api.example.com"),
        field(6, "https"),
        field(7, "page=2"),
        field(8, "top"),
        number(9, 4),
        field(10, "HTTP/2"),
        field(11, [0xff, 0xfe, 0x00, 0x80]),
        field(12, [0xff, 0xfe, 0x00, 0x80]),
    ]
    .concat();
    let time = [number(1, 1_800_000_000), number(2, 1)].concat();
    let text = field(3, "value");
    let entry = [field(1, "name"), field(2, text)].concat();
    let filter = [
        field(1, "envoy.filters.http.jwt_authn"),
        field(2, field(1, entry)),
    ]
    .concat();
    let metadata = field(1, filter);
    [
        field(1, peer.clone()("192.0.2.7")),
        field(2, peer("10.0.0.1")),
        field(4, [field(1, time), field(2, http)].concat()),
        field(11, &metadata),
        field(12, field(1, "api.example.com")),
        field(13, &metadata),
        // What a later Envoy may add.
        field(99, "unknown"),
    ]
    .concat()
}

/// Seen red with `string body = 11` in the proto: such a body can then not be decoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_that_claviger_does_not_read_are_skipped() {
    let authority = Authority::start().await;
    let decisions = [
        (&*authority.key, (Code::Ok, None)),
        ("nonsense", (Code::Unauthenticated, Some(401))),
    ];
    for (key, decision) in decisions {
        let known = check(&[("authorization", format!("Bearer {key}"))]).encode_to_vec();
        let others = field(1, other_attributes());
        for message in [
            known.clone(),
            [known.clone(), others.clone()].concat(),
            [others.clone(), known.clone()].concat(),
        ] {
            assert_eq!(authority.decision(message).await, decision, "{key}");
        }
    }
}

/// Seen red with the last of two headers counting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_stands_twice_in_the_raw_form_is_denied() {
    let authority = Authority::start().await;
    let good = || ("authorization", format!("Bearer {}", authority.key));
    let bad = || ("authorization", "Bearer nonsense".to_owned());
    let other = || ("accept", "application/json".to_owned());
    let (allowed, denied) = ((Code::Ok, None), (Code::Unauthenticated, Some(401)));
    for (headers, decision) in [
        (&[other(), good()][..], allowed),
        (&[good(), other(), good()], denied),
        (&[bad(), good()], denied),
        (&[good(), bad()], denied),
        (&[], denied),
    ] {
        let mut check = check(headers);
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let message = check.encode_to_vec();
        assert_eq!(authority.decision(message).await, decision, "{names:?}");

        // The joined form beside it does not count.
        let attributes = check.attributes.as_mut().unwrap();
        let http = attributes.request.as_mut().unwrap().http.as_mut().unwrap();
        let (name, value) = good();
        http.headers.insert(name.to_owned(), value);
        let message = check.encode_to_vec();
        assert_eq!(authority.decision(message).await, decision, "{names:?}");
    }
}
