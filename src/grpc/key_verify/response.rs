//! Encodes the answers of `KeyVerify`.

use crate::grpc::encode;
use crate::mirror::{KeyFacts, MirroredRealm};
use crate::pb::claviger::v1 as pb;

pub(super) fn verified_key(key: &KeyFacts, realm: &MirroredRealm) -> pb::VerifiedKey {
    pb::VerifiedKey {
        id: key.id.to_string(),
        realm: key.realm().as_str().to_owned(),
        partner: key.partner.id.as_str().to_owned(),
        project: key
            .project
            .as_ref()
            .map(|project| project.as_str().to_owned())
            .unwrap_or_default(),
        level: encode::level(key.level()).into(),
        environment: key.environment().as_str().to_owned(),
        name: key.name_and_labels.name().to_owned(),
        scopes: encode::scope_names(realm.hierarchy.names(key.effective(&realm.hierarchy))),
        full_access: key.full_access,
        labels: key
            .name_and_labels
            .labels()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        expire_time: encode::expiry(key.expires_at),
    }
}
