//! Delegation: what partners do with keys of their own that hold the realm's admin scope, and operators with theirs. Nobody
//! gives more than they hold.

mod budget;
mod enable;
mod issue;
mod operators;
mod sequences;
mod update_and_rotate;
mod visibility;

use claviger::pb::claviger::v1 as pb;
use pb::KeyLevel;
use tonic::{Code, Status};

use crate::fixtures::{HOUR, Refusal, since_start, strings};

/// How a request to issue a key differs from the usual one.
type Change = fn(&mut pb::IssueKeyRequest);

/// The scopes of a delegate: what it administers its keys with, and what it can do beside that.
const DELEGATE: [&str; 2] = ["write", "keys"];

/// Asks for a partner key of `acme` in production.
fn request(scopes: &[&str], change: impl FnOnce(&mut pb::IssueKeyRequest)) -> pb::IssueKeyRequest {
    let mut request = pb::IssueKeyRequest {
        realm: "demo".to_owned(),
        partner: "acme".to_owned(),
        level: KeyLevel::Partner.into(),
        environment: "production".to_owned(),
        scopes: strings(scopes),
        ..Default::default()
    };
    change(&mut request);
    request
}

/// Asks for such a key that is a delegate.
pub(super) fn delegate(change: impl FnOnce(&mut pb::IssueKeyRequest)) -> pb::IssueKeyRequest {
    request(&DELEGATE, change)
}

fn plain(_: &mut pb::IssueKeyRequest) {}

fn ending(key: &mut pb::IssueKeyRequest) {
    key.expire_time = Some(since_start(2 * HOUR));
}

fn at_home(key: &mut pb::IssueKeyRequest) {
    key.allowed_cidrs = strings(&["127.0.0.0/8", "::1/128"]);
}

fn of_project(key: &mut pb::IssueKeyRequest) {
    key.level = KeyLevel::Project.into();
    "one".clone_into(&mut key.project);
}

/// The code and the reason of a refusal, and the first field that it names.
fn reason(status: &Status) -> (Code, String, String) {
    let refusal = Refusal::of(status);
    let field = refusal.fields.into_iter().next().unwrap_or_default();
    (refusal.code, refusal.reason, field)
}
