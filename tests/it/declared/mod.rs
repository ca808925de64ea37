//! Declared state: `Apply`, the commands `apply`, `diff` and `key new`, and `serve --init --apply`.

mod files;
mod first_start;
mod refusals;
mod states;

use claviger::hashing::ImportHash;
use claviger::pb::claviger::v1 as pb;
use pb::{DeclaredKey, DeclaredKind, DeclaredState};
use tonic::Status;

use crate::fixtures::Api;

const EVERYTHING: [DeclaredKind; 4] = [
    DeclaredKind::Realm,
    DeclaredKind::Partner,
    DeclaredKind::Project,
    DeclaredKind::Key,
];

/// A request to make a state true, and nothing else.
fn apply_request(state: DeclaredState) -> pb::ApplyRequest {
    pb::ApplyRequest {
        state: Some(state),
        ..Default::default()
    }
}

/// A request to make a state true, and to delete what it does not name.
fn pruning_request(state: DeclaredState) -> pb::ApplyRequest {
    pb::ApplyRequest {
        prune: EVERYTHING.map(i32::from).to_vec(),
        ..apply_request(state)
    }
}

async fn apply(api: &mut Api, request: pb::ApplyRequest) -> Result<pb::ApplyResponse, Status> {
    let answer = api.authority.apply(request).await;
    answer.map(tonic::Response::into_inner)
}

/// What a request would change.
async fn plan(api: &mut Api, request: &pb::ApplyRequest) -> Result<pb::ApplyResponse, Status> {
    let request = pb::ApplyRequest {
        dry_run: true,
        ..request.clone()
    };
    apply(api, request).await
}

/// A realm with one environment, and every field as the server tells it.
fn realm(id: &str) -> pb::Realm {
    pb::Realm {
        id: id.to_owned(),
        prefix: format!("{id}x"),
        environments: vec![pb::Environment {
            name: "production".to_owned(),
            tag: "live".to_owned(),
        }],
        unscoped_keys: pb::UnscopedKeys::NoAccess.into(),
        levels: vec![pb::KeyLevel::Partner.into(), pb::KeyLevel::Project.into()],
        max_cache: Some(prost_types::Duration::default()),
        max_lifetime: Some(prost_types::Duration::default()),
        trailing_slash: pb::TrailingSlash::Deny.into(),
        encoded_characters: pb::EncodedCharacters::Deny.into(),
        ..Default::default()
    }
}

fn partner(realm: &str, id: &str) -> pb::Partner {
    pb::Partner {
        realm: realm.to_owned(),
        id: id.to_owned(),
        ..Default::default()
    }
}

fn project(realm: &str, partner: &str, id: &str) -> pb::Project {
    pb::Project {
        realm: realm.to_owned(),
        partner: partner.to_owned(),
        id: id.to_owned(),
        ..Default::default()
    }
}

/// A key of the built-in realm with this API key.
fn key(plain_key: &str, partner: &str, scope: &str) -> DeclaredKey {
    DeclaredKey {
        sha256: ImportHash::of(plain_key).hex(),
        partner: partner.to_owned(),
        scopes: vec![scope.to_owned()],
        ..Default::default()
    }
}
