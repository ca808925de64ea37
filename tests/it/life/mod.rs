//! What becomes of keys after they were issued: they are changed, given new texts, ended by the many, taken over from other
//! systems, and used.

mod bulk;
mod delegates;
mod flight;
mod imports;
mod once;
mod rotation;
mod sequences;
mod storm;
mod updates;
mod usage;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use claviger::domain::clock::Clock;
use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use pb::import_result::Result as Imported;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, RpcStatusExt, StatusExt};

use super::fixtures::{Api, Engine, Place, Service};

/// 2030-01-01T00:00:00Z, where clocks stand that stand still.
const NOW: Timestamp = Timestamp::from_micros(1_893_456_000_000_000);

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

/// An authority with the realm `demo`, on a clock that is moved by hand.
struct World {
    service: Service,
    clock: Clock,
    root: Api,
}

impl World {
    async fn on(engine: Engine) -> Self {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(Place::on(engine), clock.clone(), "", &[]).await;
        let mut root = service.api();
        root.make_demo().await;
        Self {
            service,
            clock,
            root,
        }
    }

    /// Stops the server and starts another one in the same place, at the same time.
    async fn restarted(self) -> Self {
        let Self {
            service,
            clock,
            root,
        } = self;
        drop(root);
        let operator = service.operator.clone();
        let place = service.stop().await;
        let service = Service::start_with(place, clock.clone(), &operator, &[]).await;
        let root = service.api();
        Self {
            service,
            clock,
            root,
        }
    }
}

/// So many microseconds after the beginning.
fn after(micros: i64) -> Timestamp {
    Timestamp::from_micros(NOW.as_micros() + micros)
}

/// The same for a request.
#[expect(clippy::unnecessary_wraps, reason = "requests take it like this")]
fn time(micros: i64) -> Option<prost_types::Timestamp> {
    Some(told(after(micros)))
}

fn told(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_micros().div_euclid(SECOND),
        nanos: (time.as_micros().rem_euclid(SECOND) * 1_000) as i32,
    }
}

/// A time of an answer.
pub(super) fn read(time: &prost_types::Timestamp) -> Timestamp {
    assert_eq!(time.nanos % 1_000, 0, "times are told to the microsecond");
    Timestamp::from_micros(time.seconds * SECOND + i64::from(time.nanos) / 1_000)
}

#[expect(clippy::unnecessary_wraps, reason = "requests take it like this")]
fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// A UUID that was not used here before.
pub(super) fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("c1a51e00-0000-4000-8000-{next:012x}")
}

/// A refusal, as programs read it.
#[derive(Debug)]
struct Refusal {
    code: Code,
    reason: String,
    fields: Vec<String>,
    metadata: HashMap<String, String>,
}

impl Refusal {
    fn new(code: Code, details: &ErrorDetails) -> Self {
        let fields = details.bad_request().map_or_else(Vec::new, |bad| {
            let violations = bad.field_violations.iter();
            violations.map(|wrong| wrong.field.clone()).collect()
        });
        let info = details.error_info().expect("every error has one");
        assert_eq!(info.domain, "claviger");
        Self {
            code,
            reason: info.reason.clone(),
            fields,
            metadata: info.metadata.clone(),
        }
    }

    /// Whether it blames this field, or one within it.
    fn blames(&self, field: &str) -> bool {
        self.fields.iter().any(|blamed| blamed.contains(field))
    }
}

/// What was refused.
#[track_caller]
fn refused<T>(answer: Result<T, Status>) -> Refusal {
    let status = answer.err().expect("a refusal");
    Refusal::new(status.code(), &status.get_error_details())
}

/// That it was refused because of this field.
#[track_caller]
fn refused_field<T>(answer: Result<T, Status>, field: &str) {
    let refusal = refused(answer);
    assert_eq!(refusal.code, Code::InvalidArgument, "{refusal:?}");
    assert!(refusal.blames(field), "{refusal:?} instead of {field}");
}

/// That the state of things forbids it.
#[track_caller]
fn refused_by_state<T>(answer: Result<T, Status>) -> Refusal {
    let refusal = refused(answer);
    assert_eq!(refusal.code, Code::FailedPrecondition, "{refusal:?}");
    refusal
}

/// A key as the tests hold it.
#[derive(Clone)]
struct Held {
    id: String,
    text: String,
    key: pb::Key,
}

async fn issue(api: &mut Api, request: pb::IssueKeyRequest) -> Held {
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    let key = issued.key.unwrap();
    Held {
        id: key.id.clone(),
        text: issued.plain_key,
        key,
    }
}

async fn get(api: &mut Api, key_id: &str) -> pb::Key {
    let request = pb::GetKeyRequest {
        key_id: key_id.to_owned(),
    };
    let got = api.keys.get_key(request).await.unwrap().into_inner();
    got.key.unwrap()
}

fn rotation(key_id: &str, overlap: i64) -> pb::RotateKeyRequest {
    pb::RotateKeyRequest {
        key_id: key_id.to_owned(),
        overlap: seconds(overlap),
        ..Default::default()
    }
}

/// Gives a key a new text, and lets the old one work on for so many seconds.
async fn rotate(
    api: &mut Api,
    key_id: &str,
    overlap: i64,
) -> Result<pb::RotateKeyResponse, Status> {
    let answer = api.keys.rotate_key(rotation(key_id, overlap)).await;
    answer.map(Response::into_inner)
}

async fn end_rotation(
    api: &mut Api,
    key_id: &str,
    survivor: pb::Survivor,
) -> Result<pb::Key, Status> {
    let request = pb::EndRotationRequest {
        key_id: key_id.to_owned(),
        survivor: survivor.into(),
        ..Default::default()
    };
    let answer = api.keys.end_rotation(request).await;
    answer.map(|ended| ended.into_inner().key.unwrap())
}

/// Changes what these paths name.
async fn update(
    api: &mut Api,
    key_id: &str,
    paths: &[&str],
    change: impl FnOnce(&mut pb::UpdateKeyRequest),
) -> Result<pb::UpdateKeyResponse, Status> {
    let mut request = pb::UpdateKeyRequest {
        key_id: key_id.to_owned(),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
        ..Default::default()
    };
    change(&mut request);
    let answer = api.keys.update_key(request).await;
    answer.map(Response::into_inner)
}

/// Ends the keys of `demo` that the change leaves.
async fn revoke_keys(
    api: &mut Api,
    change: impl FnOnce(&mut pb::RevokeKeysRequest),
) -> Result<pb::RevokeKeysResponse, Status> {
    let mut request = pb::RevokeKeysRequest {
        realm: "demo".to_owned(),
        reason: "many at once".to_owned(),
        ..Default::default()
    };
    change(&mut request);
    let answer = api.keys.revoke_keys(request).await;
    answer.map(Response::into_inner)
}

async fn revoke_self(api: &mut Api, reason: &str) -> Result<pb::Key, Status> {
    let request = pb::RevokeSelfRequest {
        reason: reason.to_owned(),
        ..Default::default()
    };
    let answer = api.keys.revoke_self(request).await;
    answer.map(|revoked| revoked.into_inner().key.unwrap())
}

/// The ids of the keys in these states, or in any, in the order of the list.
async fn listed(api: &mut Api, realm: &str, states: &[pb::KeyState]) -> Vec<String> {
    let request = pb::ListKeysRequest {
        realm: realm.to_owned(),
        states: states.iter().map(|state| *state as i32).collect(),
        page_size: 1_000,
        ..Default::default()
    };
    let listed = api.keys.list_keys(request).await.unwrap().into_inner();
    assert_eq!(listed.next_page_token, "", "all fit on one page");
    listed.keys.into_iter().map(|key| key.id).collect()
}

/// The kinds of a key's events, the oldest first.
async fn events_of(api: &mut Api, key_id: &str) -> Vec<String> {
    let request = pb::ListEventsRequest {
        key_id: key_id.to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let listed = api.keys.list_events(request).await.unwrap().into_inner();
    let kinds = listed.events.into_iter().rev().map(|event| event.kind);
    kinds.collect()
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hex_of(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a string takes everything");
        digits
    })
}

/// A partner key of `acme` in production that is known by its text.
fn entry(text: &str) -> pb::ImportEntry {
    with_secret(Secret::Text(text.to_owned()))
}

pub(super) fn with_secret(secret: Secret) -> pb::ImportEntry {
    pb::ImportEntry {
        secret: Some(secret),
        partner: "acme".to_owned(),
        level: pb::KeyLevel::Partner.into(),
        environment: "production".to_owned(),
        scopes: vec!["write".to_owned()],
        ..Default::default()
    }
}

/// What became of each entry that was to be imported into `demo`.
async fn import(api: &mut Api, entries: Vec<pb::ImportEntry>) -> Vec<Result<String, Refusal>> {
    import_into(api, "demo", entries).await
}

async fn import_into(
    api: &mut Api,
    realm: &str,
    entries: Vec<pb::ImportEntry>,
) -> Vec<Result<String, Refusal>> {
    let sent = entries.len();
    let request = pb::ImportKeysRequest {
        realm: realm.to_owned(),
        entries,
        ..Default::default()
    };
    let answer = api.keys.import_keys(request).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), sent, "one result for each entry");
    answer.results.into_iter().map(became).collect()
}

fn became(result: pb::ImportResult) -> Result<String, Refusal> {
    match result.result.expect("each entry has an outcome") {
        Imported::KeyId(id) => Ok(id),
        Imported::Error(status) => {
            let details = status.get_error_details();
            Err(Refusal::new(Code::from(status.code), &details))
        }
    }
}
