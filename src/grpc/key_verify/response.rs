//! Encodes the answers of `KeyVerify`.

use prost::Message;
use prost::encoding::{bool, int32};
use uuid::Uuid;

use crate::domain::verdict::Verdict;
use crate::grpc::encode;
use crate::mirror::{KeyFacts, MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::protobuf::{put_head, put_message, put_string, tag};
use crate::verify::{Decision, Moment};

/// Writes the answer to a Verify. Its key is written from the facts in the mirror, because a message would own a copy of each
/// string.
pub(super) fn verify_response(
    view: &View<'_>,
    realm: &MirroredRealm,
    decision: &Decision<'_>,
    moment: Moment,
    bytes: &mut Vec<u8>,
) {
    const KEY: u8 = tag(2);
    // Whoever asks again must not be told more than this server still knows.
    let max_cache = realm.definition.max_cache.min(moment.lease_left());
    let cache_for = match decision.expires_at().time_left(moment.now()) {
        // An expired key stays expired unless it is updated, so `max_cache` applies in full.
        Some(left) if !left.is_zero() => max_cache.min(left),
        _ => max_cache,
    };
    let without_key = pb::VerifyResponse {
        verdict: encode::verdict(decision.verdict).into(),
        key: None,
        missing_scopes: if decision.verdict == Verdict::ScopeMissing {
            encode::scope_names(realm.hierarchy.names(decision.missing))
        } else {
            Vec::new()
        },
        revision: view.revision().as_u64(),
        as_of: Some(encode::time(view.as_of())),
        cache_for: Some(encode::span(cache_for)),
    };
    without_key.encode_raw(bytes);
    if let Some((key, _)) = decision.proven {
        put_message(KEY, bytes, |bytes| put_key(key, realm, bytes));
    }
}

/// Writes the fields of what [`verified_key`] returns.
fn put_key(key: KeyFacts<'_>, realm: &MirroredRealm, bytes: &mut Vec<u8>) {
    const ID: u8 = tag(1);
    const REALM: u8 = tag(2);
    const PARTNER: u8 = tag(3);
    const PROJECT: u8 = tag(4);
    const LEVEL: u32 = 5;
    const ENVIRONMENT: u8 = tag(6);
    const SCOPES: u8 = tag(8);
    const FULL_ACCESS: u32 = 9;
    const EXPIRE_TIME: u8 = tag(11);
    let id = key.id().as_uuid().hyphenated();
    put_string(ID, id.encode_lower(&mut Uuid::encode_buffer()), bytes);
    put_string(REALM, key.realm().as_str(), bytes);
    put_string(PARTNER, key.partner().id.as_str(), bytes);
    if let Some(project) = key.project() {
        put_string(PROJECT, project.as_str(), bytes);
    }
    int32::encode(LEVEL, &encode::level(key.level()).into(), bytes);
    put_string(ENVIRONMENT, key.environment().as_str(), bytes);
    for scope in realm.hierarchy.names(key.effective(&realm.hierarchy)) {
        put_string(SCOPES, scope.as_str(), bytes);
    }
    if key.has_full_access() {
        bool::encode(FULL_ACCESS, &true, bytes);
    }
    if let Some(end) = encode::expiry(key.expires_at()) {
        put_head(EXPIRE_TIME, end.encoded_len(), bytes);
        end.encode_raw(bytes);
    }
    bytes.extend_from_slice(key.name_and_labels().encoded());
}

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
