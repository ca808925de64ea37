//! Keys of every kind, for each API.

use claviger::domain::clock::Clock;
use claviger::domain::ids::{KeyId, Prefix, Tag};
use claviger::domain::key_text::{PlainKey, SecretBytes};
use claviger::pb::claviger::v1 as pb;

use super::gate::Way;
use super::world::{SITES, Site};
use crate::fixtures::Api;

/// What becomes of a key after it was issued.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    Revoked,
    Disabled,
    Expired,
    Deleted,
    /// Another secret under the same id, with the right checksum.
    WrongSecret,
    /// Rotated, and the text is the old one, in the overlap.
    Rotated,
    /// Rotated without an overlap, and the text is the old one.
    RotatedAway,
    /// Ended with all other keys of its partner.
    RevokedAmongMany,
    /// Of another system, in the form of Peaka's, and known by its text.
    Imported,
}

/// A key that is to be.
pub(super) struct Wish {
    pub(super) name: &'static str,
    pub(super) realm: &'static str,
    environment: &'static str,
    partner: &'static str,
    project: &'static str,
    scopes: &'static [&'static str],
    cidrs: &'static [&'static str],
    fate: Fate,
}

/// A key that is.
pub(super) struct Known {
    pub(super) text: String,
    pub(super) key: pb::Key,
}

/// The keys of all sites. In each, `good` is one that its plain request takes.
pub(super) fn wishes(way: Way) -> Vec<Wish> {
    // Of a client on its own machine Envoy says over HTTP that it is that machine, with whichever address that has.
    let here: &[&str] = match way {
        Way::EnvoyHttp => &["0.0.0.0/0"],
        _ => &["127.0.0.0/8"],
    };
    let mut wishes = Vec::new();
    for Site { realm, environment } in SITES {
        let own_project = if realm == "partnero" { "mtKDhe1U" } else { "" };
        for (name, fate) in [
            ("good", Fate::Good),
            ("revoked", Fate::Revoked),
            ("disabled", Fate::Disabled),
            ("expired", Fate::Expired),
            ("deleted", Fate::Deleted),
            ("wrong_secret", Fate::WrongSecret),
            ("rotated", Fate::Rotated),
            ("rotated_away", Fate::RotatedAway),
            ("imported", Fate::Imported),
        ] {
            // The same names in both environments of one API would be the same keys.
            let name = match (environment, name) {
                ("staging", "good") => "staging_good",
                ("staging", _) => continue,
                (_, name) => name,
            };
            wishes.push(Wish {
                name,
                realm,
                environment,
                partner: "acme",
                project: own_project,
                scopes: &[],
                cidrs: &[],
                fate,
            });
        }
        if environment == "production" {
            let frozen = if realm == "partnero" { "yT5pMa9D" } else { "" };
            let gone = if realm == "partnero" { "hB3cKe6F" } else { "" };
            let good = |name, partner, project, cidrs| Wish {
                name,
                realm,
                environment,
                partner,
                project,
                scopes: &[],
                cidrs,
                fate: Fate::Good,
            };
            wishes.push(good("suspended", "frozen", frozen, &[]));
            wishes.push(Wish {
                fate: Fate::RevokedAmongMany,
                ..good("revoked_among_many", "gone", gone, &[])
            });
            wishes.push(good("from_here", "acme", own_project, here));
            wishes.push(good(
                "from_elsewhere",
                "acme",
                own_project,
                &["203.0.113.0/24"],
            ));
        }
    }
    wishes.extend(of_one_api());
    wishes
}

/// Keys that only one of the APIs has a use for.
fn of_one_api() -> Vec<Wish> {
    let more = |name, realm, environment, partner, project, scopes| Wish {
        name,
        realm,
        environment,
        partner,
        project,
        scopes,
        cidrs: &[],
        fate: Fate::Good,
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

pub(super) async fn issue(api: &mut Api, wish: &Wish) -> Known {
    if wish.fate == Fate::Imported {
        return import(api, wish).await;
    }
    let request = pb::IssueKeyRequest {
        realm: wish.realm.to_owned(),
        environment: wish.environment.to_owned(),
        partner: wish.partner.to_owned(),
        project: wish.project.to_owned(),
        level: match wish.project {
            "" => pb::KeyLevel::Partner.into(),
            _ => pb::KeyLevel::Project.into(),
        },
        scopes: wish.scopes.iter().map(ToString::to_string).collect(),
        allowed_cidrs: wish.cidrs.iter().map(ToString::to_string).collect(),
        expire_time: (wish.fate == Fate::Expired).then(|| in_seconds(1)),
        name: wish.name.to_owned(),
        ..Default::default()
    };
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    let key = issued.key.unwrap();
    let mut text = issued.plain_key;
    match wish.fate {
        Fate::Good | Fate::Expired | Fate::Imported => {}
        Fate::Rotated => rotate(api, &key.id, 3_600).await,
        Fate::RotatedAway => rotate(api, &key.id, 0).await,
        Fate::RevokedAmongMany => {
            let request = pb::RevokeKeysRequest {
                realm: wish.realm.to_owned(),
                partner: wish.partner.to_owned(),
                ..Default::default()
            };
            api.keys.revoke_keys(request).await.unwrap();
        }
        Fate::Revoked => drop(api.revoke(&key.id).await.unwrap()),
        Fate::Deleted => {
            api.revoke(&key.id).await.unwrap();
            api.delete(&key.id).await.unwrap();
        }
        Fate::Disabled => {
            let request = pb::DisableKeyRequest {
                key_id: key.id.clone(),
                ..Default::default()
            };
            api.keys.disable_key(request).await.unwrap();
        }
        Fate::WrongSecret => {
            let mut words = text.split('_');
            let prefix = Prefix::parse(words.next().unwrap()).unwrap();
            let tag = Tag::parse(words.next().unwrap()).unwrap();
            let id = KeyId::parse(&key.id).unwrap();
            let other = PlainKey::new(&prefix, &tag, id, &SecretBytes::new([7; 32]));
            other.expose().clone_into(&mut text);
        }
    }
    Known { text, key }
}

async fn rotate(api: &mut Api, key_id: &str, seconds: i64) {
    let request = pb::RotateKeyRequest {
        key_id: key_id.to_owned(),
        overlap: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    api.keys.rotate_key(request).await.unwrap();
}

/// Takes over a key that looks like Peaka's of today: a public part, a dot, and 32 characters of secret.
async fn import(api: &mut Api, wish: &Wish) -> Known {
    let text = format!("TtgGcQFq.{:0>12}s3fzXw8Rk2VbN5yLm9Qp", wish.realm);
    let entry = pb::ImportEntry {
        secret: Some(pb::import_entry::Secret::Text(text.clone())),
        partner: wish.partner.to_owned(),
        project: wish.project.to_owned(),
        level: match wish.project {
            "" => pb::KeyLevel::Partner.into(),
            _ => pb::KeyLevel::Project.into(),
        },
        environment: wish.environment.to_owned(),
        name: wish.name.to_owned(),
        ..Default::default()
    };
    let request = pb::ImportKeysRequest {
        realm: wish.realm.to_owned(),
        entries: vec![entry],
        ..Default::default()
    };
    let imported = api.keys.import_keys(request).await.unwrap().into_inner();
    let Some(pb::import_result::Result::KeyId(key_id)) = &imported.results[0].result else {
        panic!("it is not imported: {imported:?}");
    };
    let request = pb::GetKeyRequest {
        key_id: key_id.clone(),
    };
    let key = api.keys.get_key(request).await.unwrap().into_inner().key;
    Known {
        text,
        key: key.unwrap(),
    }
}

/// A key that may ask about one realm and do nothing else, as the examples tell to give to a gateway.
pub(super) async fn gateway_key(api: &mut Api, realm: &str) -> String {
    let request = pb::IssueKeyRequest {
        realm: "claviger".to_owned(),
        partner: realm.to_owned(),
        scopes: vec!["verify".to_owned()],
        ..Default::default()
    };
    let issued = api.keys.issue_key(request).await.unwrap();
    issued.into_inner().plain_key
}

/// So many seconds and a little from now.
pub(super) fn in_seconds(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: Clock::system().now().as_micros() / 1_000_000 + seconds + 1,
        nanos: 0,
    }
}
