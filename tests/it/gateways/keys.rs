//! Keys of every kind, for each API.

use claviger::domain::ids::{KeyId, Prefix, Tag};
use claviger::domain::key_text::{PlainKey, SecretBytes};
use claviger::pb::claviger::v1 as pb;

use super::fixture::{SITES, Site};
use super::gateway_process::GatewayKind;
use crate::fixtures::{Api, authority_key_request, in_seconds, seconds, strings};

/// What becomes of a key after it was issued.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyCondition {
    Good,
    Revoked,
    Disabled,
    Expired,
    Deleted,
    /// Another secret under the same id, with the right checksum.
    WrongSecret,
    /// Rotated, and the secret is the old one, in the overlap.
    Rotated,
    /// Rotated without an overlap, and the secret is the old one.
    RotatedAway,
    /// Ended with all other keys of its partner.
    RevokedAmongMany,
    /// Of another system, in the form of Peaka's, and imported.
    Imported,
}

/// A key that is to be.
pub(super) struct KeySpec {
    pub(super) name: &'static str,
    pub(super) realm: &'static str,
    environment: &'static str,
    partner: &'static str,
    project: &'static str,
    scopes: &'static [&'static str],
    cidrs: &'static [&'static str],
    condition: KeyCondition,
}

/// A key that is.
pub(super) struct KnownKey {
    pub(super) plain_key: String,
    pub(super) key: pb::Key,
}

/// The keys of all sites. In each, `good` is one that its plain request takes.
pub(super) fn key_specs(kind: GatewayKind) -> Vec<KeySpec> {
    // Of a client on its own machine Envoy says over HTTP that it is that machine, with whichever address that has.
    let here: &[&str] = match kind {
        GatewayKind::EnvoyHttp => &["0.0.0.0/0"],
        _ => &["127.0.0.0/8"],
    };
    let mut key_specs = Vec::new();
    for Site { realm, environment } in SITES {
        let own_project = if realm == "partnero" { "mtKDhe1U" } else { "" };
        for (name, condition) in [
            ("good", KeyCondition::Good),
            ("revoked", KeyCondition::Revoked),
            ("disabled", KeyCondition::Disabled),
            ("expired", KeyCondition::Expired),
            ("deleted", KeyCondition::Deleted),
            ("wrong_secret", KeyCondition::WrongSecret),
            ("rotated", KeyCondition::Rotated),
            ("rotated_away", KeyCondition::RotatedAway),
            ("imported", KeyCondition::Imported),
        ] {
            // The same names in both environments of one API would be the same keys.
            let name = match (environment, name) {
                ("staging", "good") => "staging_good",
                ("staging", _) => continue,
                (_, name) => name,
            };
            key_specs.push(KeySpec {
                name,
                realm,
                environment,
                partner: "acme",
                project: own_project,
                scopes: &[],
                cidrs: &[],
                condition,
            });
        }
        if environment == "production" {
            let frozen = if realm == "partnero" { "yT5pMa9D" } else { "" };
            let gone = if realm == "partnero" { "hB3cKe6F" } else { "" };
            let good = |name, partner, project, cidrs| KeySpec {
                name,
                realm,
                environment,
                partner,
                project,
                scopes: &[],
                cidrs,
                condition: KeyCondition::Good,
            };
            key_specs.push(good("suspended", "frozen", frozen, &[]));
            key_specs.push(KeySpec {
                condition: KeyCondition::RevokedAmongMany,
                ..good("revoked_among_many", "gone", gone, &[])
            });
            key_specs.push(good("from_here", "acme", own_project, here));
            key_specs.push(good(
                "from_elsewhere",
                "acme",
                own_project,
                &["203.0.113.0/24"],
            ));
        }
    }
    key_specs.extend(of_one_api());
    key_specs
}

/// Keys that only one of the APIs has a use for.
fn of_one_api() -> Vec<KeySpec> {
    let more = |name, realm, environment, partner, project, scopes| KeySpec {
        name,
        realm,
        environment,
        partner,
        project,
        scopes,
        cidrs: &[],
        condition: KeyCondition::Good,
    };
    let live = "production";
    vec![
        more("project", "peaka", live, "acme", "mtKDhe1U", &[]),
        more("other_project", "peaka", live, "acme", "nQ2vXs8B", &[]),
        more("foreign", "peaka", live, "umbrella", "", &[]),
        more(
            "foreign_project",
            "peaka",
            live,
            "umbrella",
            "zR7wLk4C",
            &[],
        ),
        more("foreign", "partna", live, "umbrella", "", &[]),
        more("read", "bullseye", live, "acme", "", &["read"]),
        more("write", "bullseye", live, "acme", "", &["write"]),
        more("admin", "bullseye", live, "acme", "", &["admin"]),
        more("other_program", "partnero", live, "acme", "nQ2vXs8B", &[]),
        more("read", "partnero", live, "acme", "mtKDhe1U", &["read"]),
        more(
            "staging_good",
            "partnero",
            "staging",
            "acme",
            "mtKDhe1U",
            &[],
        ),
        more(
            "dev_good",
            "partnero",
            "development",
            "acme",
            "mtKDhe1U",
            &[],
        ),
    ]
}

pub(super) async fn issue(api: &mut Api, spec: &KeySpec) -> KnownKey {
    if spec.condition == KeyCondition::Imported {
        return import(api, spec).await;
    }
    let request = pb::IssueKeyRequest {
        realm: spec.realm.to_owned(),
        environment: spec.environment.to_owned(),
        partner: spec.partner.to_owned(),
        project: spec.project.to_owned(),
        level: match spec.project {
            "" => pb::KeyLevel::Partner.into(),
            _ => pb::KeyLevel::Project.into(),
        },
        scopes: strings(spec.scopes),
        allowed_cidrs: strings(spec.cidrs),
        expire_time: (spec.condition == KeyCondition::Expired).then(|| in_seconds(1)),
        name: spec.name.to_owned(),
        ..Default::default()
    };
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    let key = issued.key.unwrap();
    let mut plain_key = issued.plain_key;
    match spec.condition {
        KeyCondition::Good | KeyCondition::Expired | KeyCondition::Imported => {}
        KeyCondition::Rotated => rotate(api, &key.id, 3_600).await,
        KeyCondition::RotatedAway => rotate(api, &key.id, 0).await,
        KeyCondition::RevokedAmongMany => {
            let request = pb::RevokeKeysRequest {
                filter: Some(pb::KeyFilter {
                    realm: spec.realm.to_owned(),
                    partner: spec.partner.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            api.keys.revoke_keys(request).await.unwrap();
        }
        KeyCondition::Revoked => drop(api.revoke(&key.id).await.unwrap()),
        KeyCondition::Deleted => {
            api.revoke(&key.id).await.unwrap();
            api.delete(&key.id).await.unwrap();
        }
        KeyCondition::Disabled => {
            let request = pb::DisableKeyRequest {
                key_id: key.id.clone(),
                ..Default::default()
            };
            api.keys.disable_key(request).await.unwrap();
        }
        KeyCondition::WrongSecret => {
            let mut words = plain_key.split('_');
            let prefix = Prefix::parse(words.next().unwrap()).unwrap();
            let tag = Tag::parse(words.next().unwrap()).unwrap();
            let id = KeyId::parse(&key.id).unwrap();
            let other = PlainKey::new(&prefix, &tag, id, &SecretBytes::new([7; 32]));
            other.expose().clone_into(&mut plain_key);
        }
    }
    KnownKey { plain_key, key }
}

async fn rotate(api: &mut Api, key_id: &str, overlap: i64) {
    let request = pb::RotateKeyRequest {
        key_id: key_id.to_owned(),
        overlap: seconds(overlap),
        ..Default::default()
    };
    api.keys.rotate_key(request).await.unwrap();
}

/// Takes over a key that looks like Peaka's of today: a public part, a dot, and 32 characters of secret.
async fn import(api: &mut Api, spec: &KeySpec) -> KnownKey {
    let plain_key = format!("TtgGcQFq.{:0>12}s3fzXw8Rk2VbN5yLm9Qp", spec.realm);
    let entry = pb::ImportEntry {
        secret: Some(pb::import_entry::Secret::PlainKey(plain_key.clone())),
        partner: spec.partner.to_owned(),
        project: spec.project.to_owned(),
        level: match spec.project {
            "" => pb::KeyLevel::Partner.into(),
            _ => pb::KeyLevel::Project.into(),
        },
        environment: spec.environment.to_owned(),
        name: spec.name.to_owned(),
        ..Default::default()
    };
    let request = pb::ImportKeysRequest {
        realm: spec.realm.to_owned(),
        entries: vec![entry],
        ..Default::default()
    };
    let imported = api.keys.import_keys(request).await.unwrap().into_inner();
    let Some(pb::import_result::Result::KeyId(key_id)) = &imported.results[0].result else {
        panic!("it is not imported: {imported:?}");
    };
    let request = pb::GetKeyRequest {
        key_id: key_id.clone(),
        ..Default::default()
    };
    let key = api.keys.get_key(request).await.unwrap().into_inner().key;
    KnownKey {
        plain_key,
        key: key.unwrap(),
    }
}

/// A key that may ask about one realm and do nothing else, as the examples tell to give to a gateway.
pub(crate) async fn gateway_key(api: &mut Api, realm: &str) -> String {
    let request = authority_key_request("verify", realm);
    let issued = api.keys.issue_key(request).await.unwrap();
    issued.into_inner().plain_key
}
