//! Encodes the answers of `KeyVerify`.

use crate::grpc::encode;
use crate::mirror::{KeyFacts, MirroredRealm};
use crate::pb::claviger::v1 as pb;

pub(super) fn verified_key(key: KeyFacts<'_>, realm: &MirroredRealm) -> pb::VerifiedKey {
    pb::VerifiedKey {
        id: key.id().to_string(),
        realm: key.realm().as_str().to_owned(),
        partner: key.partner().id.as_str().to_owned(),
        project: key
            .project()
            .map(|project| project.as_str().to_owned())
            .unwrap_or_default(),
        level: encode::level(key.level()).into(),
        environment: key.environment().as_str().to_owned(),
        name: key.name_and_labels().name().to_owned(),
        scopes: encode::scope_names(realm.hierarchy.names(key.effective(&realm.hierarchy))),
        full_access: key.has_full_access(),
        labels: key
            .name_and_labels()
            .labels()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        expire_time: encode::expiry(key.expires_at()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;

    use super::*;
    use crate::mirror::PackedLabels;

    /// The mirror has no generated types, so only this test connects its numbers of fields with the proto.
    #[test]
    fn packed_labels_are_encoded_fields_of_a_verified_key() {
        let long = "x".repeat(300);
        for (name, labels) in [
            ("", vec![]),
            ("a name", vec![]),
            ("", vec![("", "c"), ("a", ""), ("b", "β")]),
            ("ключ", vec![("a", "1"), ("b", &long)]),
        ] {
            let bytes = PackedLabels::pack(&[], name, labels.iter().copied());
            let owned = |(label, value): &(&str, &str)| (label.to_string(), value.to_string());
            let message = pb::VerifiedKey {
                name: name.to_owned(),
                labels: labels.iter().map(owned).collect::<BTreeMap<_, _>>(),
                ..pb::VerifiedKey::default()
            };
            assert_eq!(
                PackedLabels::unpack(&bytes).encoded(),
                message.encode_to_vec()
            );
        }
    }
}
