//! The questions that are put, written to files as the bytes that go over the wire.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use claviger::pb::claviger::v1 as pb;
use claviger::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use claviger::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
use claviger::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use prost::Message;
use sha2::{Digest, Sha256};

const VERIFY: &str = "/claviger.v1.KeyVerify/Verify";
const VERIFY_BATCH: &str = "/claviger.v1.KeyVerify/VerifyBatch";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// How many keys are hot.
const HOT: usize = 1_000;

/// How many rules the realm's routes have.
pub(crate) const ROUTES: usize = 500;

/// How many questions a batch holds.
pub(crate) const BATCH: usize = 100;

/// Questions of one kind, all of one length.
#[derive(Clone)]
pub(crate) struct Questions {
    pub(crate) method: &'static str,
    pub(crate) file: PathBuf,
    pub(crate) length: usize,
    /// What the message of each answer begins with.
    pub(crate) answers_begin: Vec<u8>,
}

/// Every kind of question.
pub(crate) struct Kinds {
    pub(crate) hot: Questions,
    pub(crate) all: Questions,
    pub(crate) wrong_secret: Questions,
    pub(crate) bad_checksum: Questions,
    pub(crate) random_bytes: Questions,
    pub(crate) batch: Questions,
    /// What Envoy asks about the same hot keys.
    pub(crate) check: Questions,
}

impl Kinds {
    /// Writes the questions about these keys into a directory.
    pub(crate) fn write(dir: &Path, texts: &[String]) -> io::Result<Self> {
        let hot = || texts.iter().take(HOT).cloned();
        // From one to the next it is a long way, so that no memory is near.
        let stride = 7_919;
        let far = (0..texts.len()).map(|i| texts[i * stride % texts.len()].clone());
        let single = |name: &str, keys: &mut dyn Iterator<Item = String>, verdict| {
            let frames = keys.map(|key| frame(&question(key)));
            Questions::write(dir, name, VERIFY, frames, begins(verdict))
        };
        let batches = (0..HOT / BATCH).map(|batch| {
            let keys = texts.iter().cycle().skip(batch * BATCH).take(BATCH);
            let requests = keys.cloned().map(question).collect();
            frame(&pb::VerifyBatchRequest { requests })
        });
        let checks = hot()
            .zip(0..)
            .map(|(key, number)| frame(&check(&key, number)));
        Ok(Self {
            hot: single("hot", &mut hot(), pb::Verdict::Allowed)?,
            all: single("all", &mut far.into_iter(), pb::Verdict::Allowed)?,
            wrong_secret: single(
                "wrong-secret",
                &mut hot().map(|key| with_secret_of_another(&key)),
                pb::Verdict::Unknown,
            )?,
            bad_checksum: single(
                "bad-checksum",
                &mut hot().map(|key| with_another_end(&key)),
                pb::Verdict::Malformed,
            )?,
            random_bytes: single(
                "random-bytes",
                &mut hot().map(|key| noise(&key)),
                pb::Verdict::Malformed,
            )?,
            batch: Questions::write(dir, "batch", VERIFY_BATCH, batches, vec![0x0a])?,
            // The answer's status is an empty message, which is OK, and the answer to let it through is the third field.
            check: Questions::write(dir, "check", CHECK, checks, vec![0x0a, 0x00, 0x1a])?,
        })
    }
}

impl Questions {
    fn write(
        dir: &Path,
        name: &str,
        method: &'static str,
        frames: impl Iterator<Item = Vec<u8>>,
        answers_begin: Vec<u8>,
    ) -> io::Result<Self> {
        let file = dir.join(name);
        let frames: Vec<Vec<u8>> = frames.collect();
        let length = frames[0].len();
        assert!(
            frames.iter().all(|frame| frame.len() == length),
            "questions of one length"
        );
        fs::write(&file, frames.concat())?;
        Ok(Self {
            method,
            file,
            length,
            answers_begin,
        })
    }

    /// The same questions to somebody who answers nothing.
    pub(crate) fn unanswered(&self) -> Self {
        Self {
            answers_begin: Vec::new(),
            ..self.clone()
        }
    }
}

/// What a gateway asks: everything that is usually named is named.
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

/// What Envoy asks about a request with this key, on one of the realm's many routes.
fn check(key: &str, number: usize) -> CheckRequest {
    let header = |name: &str, value: &str| HeaderValue {
        key: name.to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let http = HttpRequest {
        method: "GET".to_owned(),
        path: format!("{}/{number:0>4}?page=2", route(number)),
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

/// One of the places under which the realm's routes lie; all are equally long.
pub(crate) fn route(number: usize) -> String {
    format!("/api/v1/service{:0>3}/items", number % ROUTES)
}

/// The beginning of an answer: its first field is the verdict.
fn begins(verdict: pb::Verdict) -> Vec<u8> {
    vec![0x08, i32::from(verdict) as u8]
}

fn frame(message: &impl Message) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.encoded_len() as u32).to_be_bytes());
    frame.extend(message.encode_to_vec());
    frame
}

/// The id of this key with another secret, and a checksum that is right for it.
fn with_secret_of_another(key: &str) -> String {
    // A body is 22 characters of id, 43 of secret and 6 of checksum.
    let (id, _) = key.split_at(key.len() - 49);
    let text = format!("{id}{:0>43}", &key[key.len() - 26..key.len() - 6]);
    let mut check = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
            [(check % 62) as usize];
        check /= 62;
    }
    format!("{text}{}", String::from_utf8_lossy(&digits))
}

fn with_another_end(key: &str) -> String {
    let end = if key.ends_with('0') { "1" } else { "0" };
    format!("{}{end}", &key[..key.len() - 1])
}

/// As long as a key, of letters that nobody chose. (What a string of the wire can carry: bytes that are no UTF-8 are refused
/// before anything of ours sees them.)
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
