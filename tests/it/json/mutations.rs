//! Bodies that are nearly right, of every method: each gets a correct answer or a clear error, and nothing repeats an API key.

use std::collections::BTreeMap;
use std::time::Instant;

use claviger::pb::DESCRIPTORS;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use serde_json::{Map, Value, json};

use super::client::{Client, Reply};
use super::{JsonServer, demo, issue, text};
use crate::fixtures::{Random, from_env};

/// An API key of another system, and one that has the form of claviger's.
const IMPORTED: &str = "TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLbPLANTED";
const FORGED: &str =
    "demo_live_02y8wgU7QvIaB4J9cANFdL003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2CbwAq";
const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The fields with an API key or its hash, which no answer repeats.
const SECRET: [&str; 4] = ["key", "plainKey", "sha256", "value"];

/// The fields that most requests need.
const NEEDED: [&str; 17] = [
    "realm",
    "partner",
    "id",
    "key_id",
    "key",
    "filter",
    "prefix",
    "environments",
    "tag",
    "name",
    "question",
    "lease",
    "time",
    "level",
    "entries",
    "requests",
    "realm_id",
];

/// What bytes of JSON may be replaced by.
const TOKENS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\uDC00\\uD800",
    "null",
    "true",
    "NaN",
    "-Infinity",
    "1e999",
    "-0",
    "0.1e-7",
    "\u{feff}",
    "/**/",
    "\n",
    "\u{1F600}",
];

/// The methods and what their requests are made of.
struct Sampler {
    methods: Vec<MethodDescriptor>,
    random: Random,
    /// Keys that may exist.
    key_ids: Vec<String>,
    /// What must not be repeated.
    secrets: Vec<String>,
}

impl Sampler {
    fn new(seed: u64, secrets: Vec<String>) -> Self {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let services = pool
            .services()
            .filter(|service| service.package_name() == "claviger.v1");
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods: Vec<_> = methods
            .filter(|method| !method.is_client_streaming())
            .collect();
        assert!(methods.len() > 35);
        Self {
            methods,
            random: Random(seed),
            key_ids: vec!["0192f0c1-2345-7abc-8def-0123456789ab".to_owned()],
            secrets,
        }
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn secret(&mut self) -> String {
        let index = self.random.below(self.secrets.len());
        self.secrets[index].clone()
    }

    /// A good request, or nearly.
    fn message(&mut self, descriptor: &MessageDescriptor) -> Value {
        let mut message = Map::new();
        let mut oneofs = Vec::new();
        let fields: Vec<_> = descriptor.fields().collect();
        for field in fields {
            let oneof = field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic());
            let is_taken = oneof
                .as_ref()
                .is_some_and(|oneof| oneofs.contains(&oneof.full_name().to_owned()));
            let is_needed = NEEDED.contains(&field.name());
            if is_taken || !self.chance(if is_needed { 95 } else { 25 }) {
                continue;
            }
            oneofs.extend(oneof.map(|oneof| oneof.full_name().to_owned()));
            let name = if self.chance(80) {
                field.json_name().to_owned()
            } else {
                field.name().to_owned()
            };
            let value = if field.is_map() {
                json!({"team": "web", "x": ""})
            } else if field.is_list() {
                let entries = self.random.below(3);
                (0..entries).map(|_| self.value(&field)).collect()
            } else {
                self.value(&field)
            };
            message.insert(name, value);
        }
        Value::Object(message)
    }

    fn value(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Bool => json!(self.chance(50)),
            Kind::String => Value::String(self.text(field)),
            Kind::Enum(values) => {
                let values: Vec<_> = values.values().collect();
                let value = &values[self.random.below(values.len())];
                if self.chance(80) {
                    json!(value.name())
                } else {
                    json!(value.number())
                }
            }
            Kind::Message(message) => match message.full_name() {
                "google.protobuf.Timestamp" => json!(
                    self.random
                        .one_of(&["2030-01-31T12:00:00Z", "2026-01-01T00:00:00.5+02:00"])
                ),
                "google.protobuf.Duration" => {
                    json!(self.random.one_of(&["3600s", "0s", "1.5s", "86400s"]))
                }
                "google.protobuf.FieldMask" => {
                    json!(
                        self.random
                            .one_of(&["name", "name,expireTime", "labels", "scopes"])
                    )
                }
                _ => self.message(&message),
            },
            _ => {
                if self.chance(50) {
                    json!(self.random.below(10))
                } else {
                    json!(self.random.below(10).to_string())
                }
            }
        }
    }

    fn text(&mut self, field: &FieldDescriptor) -> String {
        let values: &[&str] = match (field.name(), field.parent_message().name()) {
            ("realm" | "realm_id", _) | ("id" | "prefix", "Realm") => &["demo"],
            ("key" | "plain_key", _) => return self.secret(),
            ("sha256", _) => &[SHA256],
            ("value", "HttpHeader") => return format!("Bearer {}", self.secret()),
            ("partner", _) | ("id", "Partner") => &["acme", "umbrella"],
            ("project", _) | ("id", "Project") => &["web", "shop"],
            ("environment", _) | ("name", "Environment") => &["production"],
            ("tag", _) => &["live"],
            ("scopes" | "any_scopes" | "implies", _) | ("name", "Scope") => &["read", "write"],
            ("allowed_cidrs", _) => &["10.0.0.0/8", "192.0.2.1"],
            ("client_ip", _) => &["10.0.0.1"],
            ("path" | "target", _) => &["/v1/things", "/v1/{project}/**"],
            ("method" | "methods", _) => &["GET", "POST"],
            ("key_id", _) => {
                let index = self.random.below(self.key_ids.len());
                return self.key_ids[index].clone();
            }
            ("page_token" | "request_id", _) => &[""],
            _ => &["first", "x", ""],
        };
        self.random.one_of(values).to_owned()
    }

    /// Does something to one value of a request.
    fn mutate(&mut self, request: &mut Value) {
        let mut paths = Vec::new();
        collect(request, &mut Vec::new(), &mut paths);
        let path = paths[self.random.below(paths.len())].clone();
        let secret = self.secret();
        // A value that is only compared, or that has another type. What is free text may be repeated.
        let is_strict = path.last().is_some_and(|name| {
            [
                "keyId",
                "key_id",
                "pageToken",
                "updateMask",
                "level",
                "wait",
                "states",
                "expireTime",
                "minRevision",
                "ifRevision",
                "pageSize",
                "allowedCidrs",
                "clientIp",
                "realm",
            ]
            .contains(&name.as_str())
        });
        let value = at(request, &path);
        let old = value.take();
        *value = match self.random.below(17) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(1.5),
            4 => json!(u64::MAX),
            5 => json!(1e300),
            6 => json!("18446744073709551616"),
            7 => json!("x".repeat(5_000)),
            8 => json!([]),
            9 => json!({}),
            10 => json!([old]),
            11 => json!({"value": old}),
            12 => json!([[[[[[old]]]]]]),
            13 => json!("9999-12-31T23:59:59.999999999-23:59"),
            14 => json!("-315576000001.999999999s"),
            15 if is_strict => json!(secret),
            _ => match old {
                Value::Object(mut object) => {
                    let name = match self.random.below(4) {
                        0 => secret,
                        1 => "nothing".to_owned(),
                        2 => String::new(),
                        _ => "__proto__".to_owned(),
                    };
                    object.insert(name, json!(1));
                    Value::Object(object)
                }
                Value::Array(mut list) => {
                    list.extend(list.clone());
                    Value::Array(list)
                }
                other => other,
            },
        };
    }

    /// Does something to the bytes of a request.
    fn spoil(&mut self, body: &mut Vec<u8>) {
        let at = self.random.below(body.len());
        let end = (at + 1 + self.random.below(20)).min(body.len());
        match self.random.below(8) {
            0 => body[at] ^= 1 << self.random.below(8),
            1 => drop(body.drain(at..end)),
            2 => body.truncate(at),
            3 => body.extend_from_within(at..end),
            4 => drop(body.splice(at..end, self.random.one_of(&TOKENS).bytes())),
            5 => drop(body.splice(at..at, self.random.one_of(&TOKENS).bytes())),
            6 => body[at] = self.random.below(256) as u8,
            _ => {
                // A member again, before or after itself.
                let again = body[at..end].to_vec();
                body.splice(at..at, again);
            }
        }
    }
}

/// The paths of all values.
fn collect(value: &Value, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    paths.push(path.clone());
    let mut go_on = |name: String, value: &Value| {
        path.push(name);
        collect(value, path, paths);
        path.pop();
    };
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                go_on(name.clone(), value);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                go_on(index.to_string(), value);
            }
        }
        _ => {}
    }
}

fn at<'v>(mut value: &'v mut Value, path: &[String]) -> &'v mut Value {
    for name in path {
        value = match value {
            Value::Object(members) => members.get_mut(name).unwrap(),
            Value::Array(values) => &mut values[name.parse::<usize>().unwrap()],
            _ => unreachable!("it was there"),
        };
    }
    value
}

/// Whether a secret is where an answer may repeat it: in a field that is not for secrets.
fn is_in_open_text(value: &Value, secrets: &[String]) -> bool {
    let has = |text: &str| {
        secrets
            .iter()
            .any(|secret| overlaps(text.as_bytes(), secret))
    };
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_secret = SECRET.contains(&name.as_str()) || name == "plain_key";
            has(name) || !(is_secret && value.is_string()) && is_in_open_text(value, secrets)
        }),
        Value::Array(values) => values.iter().any(|value| is_in_open_text(value, secrets)),
        Value::String(text) => has(text),
        _ => false,
    }
}

/// Whether a text has a part of a secret that is long enough to be of use.
fn overlaps(text: &[u8], secret: &str) -> bool {
    let parts = secret.as_bytes().windows(16);
    let mut parts = parts
        .skip(if secret.starts_with("demo_") { 32 } else { 8 })
        .step_by(4);
    parts.any(|part| text.windows(part.len()).any(|window| window == part))
}

/// Whether the library reads this body as the message.
fn is_read_by_the_library(descriptor: &MessageDescriptor, body: &[u8]) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = DynamicMessage::deserialize(descriptor.clone(), &mut deserializer);
    read.is_ok() && deserializer.end().is_ok()
}

fn check(method: &MethodDescriptor, body: &[u8], reply: &Reply, secrets: &[String]) {
    let what = || {
        format!(
            "{} {}\n{reply:?}",
            method.name(),
            String::from_utf8_lossy(body)
        )
    };
    let json: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{}", what()));
    let shows_a_secret = secrets.iter().any(|secret| overlaps(&reply.body, secret));
    if reply.status == 200 {
        assert!(is_read_by_the_library(&method.input(), body), "{}", what());
        let request: Value = serde_json::from_slice(body).unwrap();
        let may_repeat = || is_in_open_text(&request, secrets);
        assert!(!shows_a_secret || may_repeat(), "{}", what());
        return;
    }
    assert!(!shows_a_secret, "{}", what());
    let expected: &[u16] = match &*reply.code() {
        "invalid_argument" | "failed_precondition" => &[400],
        "unauthenticated" => &[401],
        "permission_denied" => &[403],
        "not_found" => &[404],
        "already_exists" | "aborted" => &[409],
        "resource_exhausted" => &[429],
        "unavailable" => &[503],
        "deadline_exceeded" => &[504],
        _ => &[],
    };
    assert!(expected.contains(&reply.status), "{}", what());
    let message = json["message"].as_str().unwrap_or_default();
    assert!(
        !message.is_empty() && !reply.reason().is_empty(),
        "{}",
        what()
    );
    if reply.reason() == "INVALID_FIELD" {
        assert!(!reply.fields().is_empty(), "{}", what());
    }
    if reply.reason() == "MALFORMED_REQUEST" {
        let is_json = serde_json::from_slice::<Value>(body).is_ok();
        assert!(!is_json, "{}", what());
    }
}

/// Seen red with the rejected value, and with an unknown name, in the errors; and with a panic for a number out of range.
#[test]
fn a_mutated_body_gets_a_correct_answer_or_a_clear_error() {
    let bodies = from_env("CLAVIGER_TEST_JSON_BODIES", 10_000);
    let seed = from_env("CLAVIGER_TEST_SEED", 17);
    println!("CLAVIGER_TEST_SEED={seed}");
    let server = JsonServer::start(&["--log", "debug"]);
    let mut operator = server.client_with_demo();
    let (_, real) = issue(&mut operator);
    // Revokes and rotates itself.
    let (_, own) = issue(&mut operator);
    let mut own = Client::new(&server.program.http, Some(&own));
    let secrets = [real.as_str(), IMPORTED, FORGED, SHA256].map(str::to_owned);
    let mut sampler = Sampler::new(seed as u64, secrets.to_vec());
    let begun = Instant::now();
    let mut outcomes = BTreeMap::new();
    for number in 0..bodies {
        // What others are about may have been deleted, or changed for good.
        if number % 100 == 0 {
            for (method, request) in demo() {
                operator.post(method, request.to_string().as_bytes());
            }
        }
        let method = sampler.random.below(sampler.methods.len());
        let method = sampler.methods[method].clone();
        let mut request = sampler.message(&method.input());
        let mutations = sampler.random.below(3);
        for _ in 0..mutations {
            sampler.mutate(&mut request);
        }
        let mut body = request.to_string().into_bytes();
        if sampler.chance(30) {
            sampler.spoil(&mut body);
        }
        let client = if method.name().ends_with("Self") {
            &mut own
        } else {
            &mut operator
        };
        let service = method.parent_service();
        let path = format!("{}/{}", service.name(), method.name());
        // A question about a revision of the future waits for it.
        let deadline = match service.name() {
            "KeyVerify" => "connect-timeout-ms: 20",
            _ => "connect-timeout-ms: 30000",
        };
        let reply = client.post_with(&path, &[deadline], &body);
        check(&method, &body, &reply, &secrets);
        let outcome = match reply.status {
            200 => "answered".to_owned(),
            _ => reply.reason(),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        if reply.status == 200 && method.name() == "IssueKey" {
            sampler.key_ids.push(text(&reply.json()["key"]["id"]));
            let oldest = sampler.key_ids.len().saturating_sub(8);
            sampler.key_ids.drain(..oldest);
        }
    }
    println!("{bodies} bodies in {:?}: {outcomes:?}", begun.elapsed());
    for outcome in ["answered", "INVALID_FIELD", "MALFORMED_REQUEST"] {
        assert!(outcomes[outcome] > bodies / 20, "{outcome}: {outcomes:?}");
    }
    let log = server.program.log.lock().unwrap();
    assert!(
        !String::from_utf8_lossy(&log).contains("panic"),
        "see the log"
    );
    let shown = secrets.iter().find(|secret| overlaps(&log, secret));
    assert!(shown.is_none(), "the log has an API key");
}
