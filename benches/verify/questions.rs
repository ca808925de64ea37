//! The requests of the load, written to files as the bytes that go over the wire.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use claviger::pb::claviger::v1 as pb;
use claviger::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use claviger::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
use claviger::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::load::Protocol;
use crate::seed::{HOT, Seeded, route};

const VERIFY: &str = "/claviger.v1.KeyVerify/Verify";
const VERIFY_STREAM: &str = "/claviger.v1.KeyVerify/VerifyStream";
const VERIFY_BATCH: &str = "/claviger.v1.KeyVerify/VerifyBatch";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The number of requests in a batch.
pub(crate) const BATCH: usize = 100;

/// Requests of one kind, all of one length.
#[derive(Clone)]
pub(crate) struct Questions {
    pub(crate) method: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) file: PathBuf,
    pub(crate) length: usize,
    /// The first bytes of each expected response message.
    pub(crate) answers_begin: Vec<u8>,
}

/// The requests of every kind.
pub(crate) struct Kinds {
    pub(crate) hot: Questions,
    pub(crate) all: Questions,
    pub(crate) revoked: Questions,
    pub(crate) unknown: Questions,
    pub(crate) wrong_secret: Questions,
    pub(crate) bad_checksum: Questions,
    pub(crate) random_bytes: Questions,
    pub(crate) batch: Questions,
    pub(crate) stream: Questions,
    /// Envoy's requests with the same hot keys.
    pub(crate) check: Questions,
    /// The same requests as nginx sends them.
    pub(crate) forward_auth: Questions,
}

impl Kinds {
    /// Writes the requests with these API keys into a directory.
    pub(crate) fn write(dir: &Path, seeded: &Seeded) -> io::Result<Self> {
        let plain_keys = &seeded.plain_keys;
        let hot = || plain_keys.iter().take(HOT).cloned();
        // A large stride, so that the caches do not contain the next key.
        let stride = 7_919;
        let far = (0..plain_keys.len()).map(|i| plain_keys[i * stride % plain_keys.len()].clone());
        let single = |name: &str, keys: &mut dyn Iterator<Item = String>, verdict| {
            let frames = keys.map(|key| frame(&question(key)));
            Questions::write(dir, name, Protocol::Calls, VERIFY, frames, begins(verdict))
        };
        let batches = (0..HOT / BATCH).map(|batch| {
            let keys = plain_keys.iter().cycle().skip(batch * BATCH).take(BATCH);
            let requests = keys.cloned().map(question).collect();
            frame(&pb::VerifyBatchRequest { requests })
        });
        let streamed = hot().map(|key| {
            let request = Some(question(key));
            frame(&pb::VerifyStreamRequest { request })
        });
        let checks = hot()
            .zip(0..)
            .map(|(key, number)| frame(&check(&key, number)));
        let forwarded = hot()
            .zip(0..)
            .map(|(key, number)| forward_auth(&seeded.gateway_key, &key, number).into_bytes());
        Ok(Self {
            hot: single("hot", &mut hot(), pb::Verdict::Allowed)?,
            all: single("all", &mut far.into_iter(), pb::Verdict::Allowed)?,
            revoked: single(
                "revoked",
                &mut seeded.revoked.iter().cloned(),
                pb::Verdict::Revoked,
            )?,
            unknown: single(
                "unknown",
                &mut seeded.unknown.iter().cloned(),
                pb::Verdict::Unknown,
            )?,
            wrong_secret: single(
                "wrong-secret",
                &mut hot().map(|key| with_wrong_secret(&key)),
                pb::Verdict::Unknown,
            )?,
            bad_checksum: single(
                "bad-checksum",
                &mut hot().map(|key| with_wrong_check(&key)),
                pb::Verdict::Malformed,
            )?,
            random_bytes: single(
                "random-bytes",
                &mut hot().map(|key| noise(&key)),
                pb::Verdict::Malformed,
            )?,
            batch: Questions::write(
                dir,
                "batch",
                Protocol::Calls,
                VERIFY_BATCH,
                batches,
                vec![0x0a],
            )?,
            stream: Questions::write(
                dir,
                "stream",
                Protocol::Stream,
                VERIFY_STREAM,
                streamed,
                vec![0x0a],
            )?,
            // The response begins with an empty status, which means OK, and then the third field, which allows the request.
            check: Questions::write(
                dir,
                "check",
                Protocol::Calls,
                CHECK,
                checks,
                vec![0x0a, 0x00, 0x1a],
            )?,
            forward_auth: Questions::write(
                dir,
                "forward-auth",
                Protocol::Http1,
                "",
                forwarded,
                b"HTTP/1.1 200 OK\r\n".to_vec(),
            )?,
        })
    }
}

impl Questions {
    fn write(
        dir: &Path,
        name: &str,
        protocol: Protocol,
        method: &'static str,
        frames: impl Iterator<Item = Vec<u8>>,
        answers_begin: Vec<u8>,
    ) -> io::Result<Self> {
        let file = dir.join(name);
        let frames: Vec<Vec<u8>> = frames.collect();
        let length = frames[0].len();
        assert!(
            frames.iter().all(|frame| frame.len() == length),
            "requests of one length"
        );
        fs::write(&file, frames.concat())?;
        Ok(Self {
            method,
            protocol,
            file,
            length,
            answers_begin,
        })
    }

    /// The same requests to a server whose responses are empty.
    pub(crate) fn unanswered(&self) -> Self {
        Self {
            answers_begin: Vec::new(),
            ..self.clone()
        }
    }
}

/// The Verify request of a typical gateway.
pub(crate) fn question(key: String) -> pb::VerifyRequest {
    pb::VerifyRequest {
        key,
        realm: "demo".to_owned(),
        environment: "production".to_owned(),
        scopes: vec!["write".to_owned()],
        client_ip: "192.0.2.7".to_owned(),
        ..Default::default()
    }
}

/// Envoy's request about a client request with this key, on one of the realm's routes.
fn check(key: &str, number: usize) -> CheckRequest {
    let header = |name: &str, value: &str| HeaderValue {
        key: name.to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let http = HttpRequest {
        method: "GET".to_owned(),
        path: target(number),
        header_map: Some(HeaderMap {
            headers: vec![
                header("authorization", &format!("Bearer {key}")),
                header("accept", "application/json"),
                header("user-agent", "partner/1.0"),
                header("x-request-id", "4c9c4f0e-5d3f-4b6e-9f7e-0a1b2c3d4e5f"),
            ],
        }),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(attribute_context::Request { http: Some(http) }),
            context_extensions: [("realm", "demo"), ("environment", "production")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..AttributeContext::default()
        }),
    }
}

/// The same request, as nginx asks about it.
fn forward_auth(gateway_key: &str, key: &str, number: usize) -> String {
    let target = target(number);
    format!(
        "GET /forward-auth/demo/production HTTP/1.1\r\n\
         host: claviger\r\n\
         x-claviger-authorization: Bearer {gateway_key}\r\n\
         x-original-method: GET\r\n\
         x-original-uri: {target}\r\n\
         x-forwarded-for: 192.0.2.7\r\n\
         authorization: Bearer {key}\r\n\
         accept: application/json\r\n\
         user-agent: partner/1.0\r\n\
         x-request-id: 4c9c4f0e-5d3f-4b6e-9f7e-0a1b2c3d4e5f\r\n\r\n"
    )
}

/// The target of a client's request, on one of the realm's routes.
pub(crate) fn target(number: usize) -> String {
    format!("{}/{number:0>4}?page=2", route(number))
}

/// The beginning of a response, whose first field is the verdict.
fn begins(verdict: pb::Verdict) -> Vec<u8> {
    vec![0x08, i32::from(verdict) as u8]
}

pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.encoded_len() as u32).to_be_bytes());
    frame.extend(message.encode_to_vec());
    frame
}

/// The API key with the id of this one, another secret, and the right check.
fn with_wrong_secret(key: &str) -> String {
    // A body has 22 characters of id, 43 of secret and 6 of check.
    let (id, _) = key.split_at(key.len() - 49);
    let unchecked = format!("{id}{:0>43}", &key[key.len() - 26..key.len() - 6]);
    let mut check = crc32fast::hash(unchecked.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
            [(check % 62) as usize];
        check /= 62;
    }
    format!("{unchecked}{}", String::from_utf8_lossy(&digits))
}

/// This API key with a wrong check.
fn with_wrong_check(key: &str) -> String {
    let end = if key.ends_with('0') { "1" } else { "0" };
    format!("{}{end}", &key[..key.len() - 1])
}

/// Pseudo-random ASCII as long as this API key. Not arbitrary bytes, because the protobuf decoder refuses strings that are not
/// UTF-8.
fn noise(key: &str) -> String {
    let mut noise = String::new();
    let mut state = Sha256::digest(key);
    while noise.len() < key.len() {
        noise.extend(state.iter().map(|byte| char::from(byte % 128)));
        state = Sha256::digest(state);
    }
    noise.truncate(key.len());
    noise
}
