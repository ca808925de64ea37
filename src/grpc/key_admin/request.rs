//! Decodes the requests of `KeyAdmin`.

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use super::filters::{key_filter, search_hint};
use crate::authority::{
    BulkSelection, ChangeRequest, ImportedKey, KeepSecret, KeyReference, KeyUpdate, NewKey,
    Refusal, Rotation,
};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::imported_key;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::grpc::decode;
use crate::hashing::ImportHash;
use crate::pb::claviger::v1 as pb;
use crate::store::KeyFilter;

/// The longest overlap of a rotation.
const MAX_OVERLAP: Duration = Duration::from_hours(366 * 24);

/// The minimum overlap when a key rotates itself. If the answer is lost, its holder still has a key for that long.
const MIN_OVERLAP_OF_SELF: Duration = Duration::from_hours(1);

/// How many keys one request imports at most.
const MAX_ENTRIES: usize = 1_000;

/// The fields of a key that can be changed.
const MUTABLE: [&str; 7] = [
    "name",
    "labels",
    "scopes",
    "full_access",
    "expire_time",
    "allowed_cidrs",
    "external_id",
];

/// The most paths that an update mask may have. More than there are fields, because a path may be named twice.
const MAX_PATHS: usize = 16;

/// Decodes a request that has only a key.
fn key_alone(key_id: &str, if_partner: &str) -> Result<KeyReference, Refusal> {
    let mut bad = Violations::default();
    let key = key(&mut bad, key_id, if_partner);
    bad.finish(key).map_err(Refusal::Invalid)
}

/// Decodes the key that a request is about, and who must own it.
pub(super) fn key(bad: &mut Violations, key_id: &str, if_partner: &str) -> Option<KeyReference> {
    let id = bad.check("key_id", KeyId::parse(key_id));
    let partner = (!if_partner.is_empty()).then(|| PartnerId::parse(if_partner));
    let partner = match partner {
        Some(partner) => Some(bad.check("if_partner", partner)?),
        None => None,
    };
    Some(KeyReference { id: id?, partner })
}

pub(super) fn get(request: pb::GetKeyRequest) -> Result<KeyReference, Refusal> {
    let pb::GetKeyRequest {
        key_id: id,
        if_partner,
    } = request;
    key_alone(&id, &if_partner)
}

pub(super) fn get_scopes(request: pb::GetKeyScopesRequest) -> Result<KeyReference, Refusal> {
    let pb::GetKeyScopesRequest {
        key_id: id,
        if_partner,
    } = request;
    key_alone(&id, &if_partner)
}

/// Decodes a change that has only a key.
fn change_of_key(
    key_id: &str,
    if_partner: &str,
    wait: i32,
    request_id: &str,
) -> Result<(KeyReference, ChangeRequest), Refusal> {
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, request_id);
    let key = key(&mut bad, key_id, if_partner);
    bad.finish(key.map(|key| (key, change)))
        .map_err(Refusal::Invalid)
}

pub(super) fn disable(
    request: pb::DisableKeyRequest,
) -> Result<(KeyReference, ChangeRequest, Option<u64>), Refusal> {
    let pb::DisableKeyRequest {
        key_id,
        wait,
        request_id,
        if_partner,
        if_revision,
    } = request;
    let (id, change) = change_of_key(&key_id, &if_partner, wait, &request_id)?;
    Ok((id, change, if_revision))
}

pub(super) fn enable(
    request: pb::EnableKeyRequest,
) -> Result<(KeyReference, ChangeRequest, Option<u64>), Refusal> {
    let pb::EnableKeyRequest {
        key_id,
        wait,
        request_id,
        if_partner,
        if_revision,
    } = request;
    let (id, change) = change_of_key(&key_id, &if_partner, wait, &request_id)?;
    Ok((id, change, if_revision))
}

pub(super) fn delete(
    request: pb::DeleteKeyRequest,
) -> Result<(KeyReference, ChangeRequest), Refusal> {
    let pb::DeleteKeyRequest {
        key_id,
        wait,
        request_id,
        if_partner,
    } = request;
    change_of_key(&key_id, &if_partner, wait, &request_id)
}

/// Decodes the key to revoke and the reason.
pub(super) fn revocation(
    request: pb::RevokeKeyRequest,
) -> Result<(KeyReference, ChangeRequest, String), Refusal> {
    let pb::RevokeKeyRequest {
        key_id,
        reason,
        wait,
        request_id,
        if_partner,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let reason = decode::reason(&mut bad, "reason", reason);
    let id = key(&mut bad, &key_id, &if_partner);
    bad.finish(id.map(|id| (id, change, reason)))
        .map_err(Refusal::Invalid)
}

/// Decodes the key to issue.
pub(super) fn new_key(
    request: pb::IssueKeyRequest,
    now: Timestamp,
) -> Result<(NewKey, ChangeRequest), Refusal> {
    let pb::IssueKeyRequest {
        realm,
        partner,
        project,
        level,
        environment,
        name,
        scopes,
        full_access,
        expire_time,
        labels,
        allowed_cidrs,
        wait,
        request_id,
        external_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let realm = bad.check("realm", RealmId::parse(&realm));
    let properties = KeyProperties {
        partner,
        project,
        level,
        environment,
        name,
        external_id,
        scopes,
        full_access,
        expire_time,
        labels,
        allowed_cidrs,
    };
    let new = properties.decode(&mut bad, realm, now);
    bad.finish(new.map(|new| (new, change)))
        .map_err(Refusal::Invalid)
}

/// The fields of a new key that `IssueKeyRequest` and `ImportEntry` share.
struct KeyProperties {
    partner: String,
    project: String,
    level: i32,
    environment: String,
    name: String,
    external_id: String,
    scopes: Vec<String>,
    full_access: bool,
    expire_time: Option<prost_types::Timestamp>,
    labels: BTreeMap<String, String>,
    allowed_cidrs: Vec<String>,
}

impl KeyProperties {
    fn decode(
        self,
        bad: &mut Violations,
        realm: Option<RealmId>,
        now: Timestamp,
    ) -> Option<NewKey> {
        let Self {
            partner,
            project,
            level,
            environment,
            name,
            external_id,
            scopes,
            full_access,
            expire_time,
            labels,
            allowed_cidrs,
        } = self;
        let partner = decode::optional(bad, "partner", &partner, PartnerId::parse);
        let project = decode::optional(bad, "project", &project, ProjectId::parse);
        let level = decode::level(bad, "level", level);
        let environment =
            decode::optional(bad, "environment", &environment, EnvironmentName::parse);
        let name = decode::name(bad, "name", name);
        let external_id = decode::external_id(bad, "external_id", external_id);
        let scopes = decode::scopes(bad, &scopes);
        let expires_at = decode::timestamp(bad, "expire_time", expire_time);
        if expires_at.is_some_and(|end| end <= now) {
            bad.add("expire_time", "must be in the future");
        }
        let labels = decode::labels(bad, labels);
        let allowed_cidrs = decode::cidrs(bad, &allowed_cidrs);
        realm.map(|realm| NewKey {
            realm,
            partner,
            project,
            level,
            environment,
            name,
            external_id,
            scopes,
            full_access,
            expires_at,
            labels,
            allowed_cidrs,
        })
    }
}

/// Decodes the key to update and its new properties.
pub(super) fn update(
    request: pb::UpdateKeyRequest,
) -> Result<(KeyReference, ChangeRequest, Option<u64>, KeyUpdate), Refusal> {
    let pb::UpdateKeyRequest {
        key_id,
        update_mask,
        name,
        labels,
        scopes,
        full_access,
        expire_time,
        allowed_cidrs,
        wait,
        request_id,
        if_partner,
        if_revision,
        external_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let paths = update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        bad.add(
            "update_mask",
            format!("is required: name at least one of {}", MUTABLE.join(", ")),
        );
    }
    if paths.len() > MAX_PATHS {
        bad.add(
            "update_mask",
            format!("must have at most {MAX_PATHS} paths"),
        );
    }
    if !paths.iter().all(|path| MUTABLE.contains(&path.as_str())) {
        bad.add(
            "update_mask",
            format!("must name only {}", MUTABLE.join(", ")),
        );
    }
    // Whether a field is updated. A field that is set but not named is an error, because the update would ignore it.
    let mut named = |field: &'static str, is_set: bool| {
        let is_named = paths.iter().any(|path| path == field);
        if is_set && !is_named && !paths.is_empty() {
            bad.add(
                field,
                "is set but not named in `update_mask`: name the field there, or leave it unset",
            );
        }
        is_named
    };
    let (of_name, of_labels) = (
        named("name", !name.is_empty()),
        named("labels", !labels.is_empty()),
    );
    let of_scopes = named("scopes", !scopes.is_empty());
    let of_full_access = named("full_access", full_access);
    let of_expiry = named("expire_time", expire_time.is_some());
    let of_cidrs = named("allowed_cidrs", !allowed_cidrs.is_empty());
    let of_external_id = named("external_id", !external_id.is_empty());
    let update = KeyUpdate {
        name: of_name.then(|| decode::name(&mut bad, "name", name)),
        external_id: of_external_id
            .then(|| decode::external_id(&mut bad, "external_id", external_id)),
        labels: of_labels.then(|| decode::labels(&mut bad, labels)),
        scopes: of_scopes.then(|| decode::scopes(&mut bad, &scopes)),
        full_access: of_full_access.then_some(full_access),
        expires_at: of_expiry.then(|| decode::timestamp(&mut bad, "expire_time", expire_time)),
        allowed_cidrs: of_cidrs.then(|| decode::cidrs(&mut bad, &allowed_cidrs)),
    };
    let id = key(&mut bad, &key_id, &if_partner);
    bad.finish(id.map(|id| (id, change, if_revision, update)))
        .map_err(Refusal::Invalid)
}

/// Decodes the key to rotate, the overlap and the new expiry.
pub(super) fn rotation(
    request: pb::RotateKeyRequest,
) -> Result<(KeyReference, ChangeRequest, Option<u64>, Rotation), Refusal> {
    let pb::RotateKeyRequest {
        key_id,
        overlap,
        wait,
        request_id,
        if_partner,
        if_revision,
        expire_time,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let rotation = Rotation {
        overlap: span_of_overlap(&mut bad, overlap),
        expires_at: decode::timestamp(&mut bad, "expire_time", expire_time),
    };
    let id = key(&mut bad, &key_id, &if_partner);
    bad.finish(id.map(|id| (id, change, if_revision, rotation)))
        .map_err(Refusal::Invalid)
}

/// Decodes the overlap of a `RotateSelf`.
pub(super) fn self_rotation(
    request: pb::RotateSelfRequest,
) -> Result<(ChangeRequest, Duration), Refusal> {
    let pb::RotateSelfRequest {
        overlap,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let overlap = span_of_overlap(&mut bad, overlap);
    if overlap < MIN_OVERLAP_OF_SELF {
        bad.add(
            "overlap",
            "must be at least 1 hour, so that a lost answer locks nobody out: set a longer time",
        );
    }
    bad.finish(Some((change, overlap)))
        .map_err(Refusal::Invalid)
}

fn span_of_overlap(bad: &mut Violations, overlap: Option<prost_types::Duration>) -> Duration {
    let overlap = decode::span(bad, "overlap", overlap);
    if overlap > MAX_OVERLAP {
        bad.add(
            "overlap",
            "must be at most 366 days: for a longer time, issue another key",
        );
    }
    overlap
}

/// Decodes the key whose rotation ends, and the secret that the key keeps.
pub(super) fn end_of_rotation(
    request: pb::EndRotationRequest,
) -> Result<(KeyReference, ChangeRequest, Option<u64>, KeepSecret), Refusal> {
    let pb::EndRotationRequest {
        key_id,
        keep,
        wait,
        request_id,
        if_partner,
        if_revision,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let keep = match pb::KeepSecret::try_from(keep) {
        Ok(pb::KeepSecret::New) => Ok(KeepSecret::New),
        Ok(pb::KeepSecret::Old) => Ok(KeepSecret::Old),
        Ok(pb::KeepSecret::Unspecified) => {
            Err("is required: set KEEP_SECRET_NEW or KEEP_SECRET_OLD")
        }
        Err(_) => Err("must be KEEP_SECRET_NEW or KEEP_SECRET_OLD"),
    };
    let keep = bad.check("keep", keep);
    let id = key(&mut bad, &key_id, &if_partner);
    let ended = id.zip(keep);
    bad.finish(ended.map(|(id, keep)| (id, change, if_revision, keep)))
        .map_err(Refusal::Invalid)
}

/// What somebody has of a key.
pub(super) enum Sought {
    PlainKey(Zeroizing<String>),
    Hint(String),
}

/// Decodes what to look for.
pub(super) fn find(request: pb::FindKeyRequest) -> Result<Sought, Refusal> {
    use pb::find_key_request::Key;
    let mut bad = Violations::default();
    let sought = match request.key {
        None => {
            bad.add("key", "is required: set `plain_key` or `hint`");
            None
        }
        Some(Key::PlainKey(plain_key)) => Some(Sought::PlainKey(Zeroizing::new(plain_key))),
        Some(Key::Hint(hint)) => bad.check("hint", search_hint(&hint)).map(Sought::Hint),
    };
    bad.finish(sought).map_err(Refusal::Invalid)
}

/// The keys that a `RevokeKeys` revokes.
pub(super) enum Revoked {
    /// Those of an owner or an environment, by one rule.
    Rule(BulkSelection),
    /// Those that match a filter now.
    Matching(Box<KeyFilter>),
}

/// Decodes the keys of a `RevokeKeys` and the reason.
pub(super) fn bulk_revocation(
    request: pb::RevokeKeysRequest,
    now: Timestamp,
) -> Result<(Revoked, ChangeRequest, String), Refusal> {
    let pb::RevokeKeysRequest {
        filter,
        reason,
        dry_run: _,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let is_rule = filter.as_ref().is_none_or(is_rule);
    let filter = key_filter(&mut bad, filter, 0, now);
    let reason = decode::reason(&mut bad, "reason", reason);
    let revoked = filter.map(|filter| {
        if !is_rule {
            return Revoked::Matching(Box::new(filter));
        }
        Revoked::Rule(BulkSelection {
            realm: filter.realm,
            partner: filter.partner,
            project: filter.project,
            environment: filter.environment,
            issued_before: filter.issued_until,
        })
    });
    bad.finish(revoked.map(|revoked| (revoked, change, reason)))
        .map_err(Refusal::Invalid)
}

/// Whether the keys of the filter can be revoked by one rule: it has only an owner, an environment and a time of issue.
fn is_rule(filter: &pb::KeyFilter) -> bool {
    let pb::KeyFilter {
        realm,
        partner,
        project,
        environment,
        issued_before,
        ..
    } = filter.clone();
    *filter
        == pb::KeyFilter {
            realm,
            partner,
            project,
            environment,
            issued_before,
            ..pb::KeyFilter::default()
        }
}

/// Decodes the filter of a `DeleteKeys`.
pub(super) fn bulk_deletion(
    request: pb::DeleteKeysRequest,
    now: Timestamp,
) -> Result<(KeyFilter, ChangeRequest), Refusal> {
    let pb::DeleteKeysRequest {
        filter,
        dry_run: _,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let filter = key_filter(&mut bad, filter, 0, now);
    bad.finish(filter.map(|filter| (filter, change)))
        .map_err(Refusal::Invalid)
}

/// Decodes the reason of a `RevokeSelf`.
pub(super) fn self_revocation(
    request: pb::RevokeSelfRequest,
) -> Result<(ChangeRequest, String), Refusal> {
    let pb::RevokeSelfRequest {
        reason,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let reason = decode::reason(&mut bad, "reason", reason);
    bad.finish(Some((change, reason))).map_err(Refusal::Invalid)
}

type Entries = Vec<Result<ImportedKey, Violations>>;

/// Decodes the keys to import. The violations of an entry are reported for this entry alone.
pub(super) fn import(
    request: pb::ImportKeysRequest,
    now: Timestamp,
) -> Result<(RealmId, ChangeRequest, Entries), Refusal> {
    let pb::ImportKeysRequest {
        realm,
        entries,
        dry_run: _,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    if entries.is_empty() {
        bad.add("entries", "must have at least 1 entry");
    } else if entries.len() > MAX_ENTRIES {
        bad.add("entries", "must have at most 1,000 entries");
    }
    let realm = bad.check("realm", RealmId::parse(&realm));
    let realm = bad.finish(realm).map_err(Refusal::Invalid)?;
    let entries = entries
        .into_iter()
        .map(|entry| imported_key(entry, &realm, now))
        .collect();
    Ok((realm, change, entries))
}

fn imported_key(
    entry: pb::ImportEntry,
    realm: &RealmId,
    now: Timestamp,
) -> Result<ImportedKey, Violations> {
    let pb::ImportEntry {
        secret,
        partner,
        project,
        level,
        environment,
        name,
        scopes,
        full_access,
        expire_time,
        labels,
        allowed_cidrs,
        external_id,
    } = entry;
    let mut bad = Violations::default();
    if realm.is_built_in() && matches!(secret, Some(pb::import_entry::Secret::PlainKey(_))) {
        bad.add(
            "plain_key",
            "must not be sent for the realm \"claviger\": set `sha256`",
        );
    }
    let identity = hash_and_hint(&mut bad, secret);
    let properties = KeyProperties {
        partner,
        project,
        level,
        environment,
        name,
        external_id,
        scopes,
        full_access,
        expire_time,
        labels,
        allowed_cidrs,
    };
    let new = properties.decode(&mut bad, Some(realm.clone()), now);
    bad.finish(
        identity
            .zip(new)
            .map(|((hash, hint), new)| ImportedKey { new, hash, hint }),
    )
}

/// Decodes a key of the built-in realm that is declared. Its end may be over: then the key has it already.
pub(in crate::grpc) fn declared_key(key: pb::DeclaredKey) -> Result<ImportedKey, Violations> {
    let pb::DeclaredKey {
        sha256,
        partner,
        name,
        scopes,
        expire_time,
        labels,
        allowed_cidrs,
    } = key;
    let mut bad = Violations::default();
    let hash = bad.check("sha256", ImportHash::parse(&Zeroizing::new(sha256)));
    if scopes.is_empty() {
        bad.add(
            "scopes",
            "must have at least 1 entry: the key would be good for nothing",
        );
    }
    let properties = KeyProperties {
        partner,
        project: String::new(),
        level: 0,
        environment: String::new(),
        name,
        external_id: String::new(),
        scopes,
        full_access: false,
        expire_time,
        labels,
        allowed_cidrs,
    };
    let new = properties.decode(
        &mut bad,
        Some(RealmId::built_in()),
        Timestamp::from_micros(0),
    );
    bad.finish(hash.zip(new).map(|(hash, new)| ImportedKey {
        new,
        hash,
        hint: None,
    }))
}

/// Decodes the SHA-256 of an imported API key, and the part of the API key that may be shown, if there is one.
fn hash_and_hint(
    bad: &mut Violations,
    secret: Option<pb::import_entry::Secret>,
) -> Option<(ImportHash, Option<String>)> {
    use pb::import_entry::Secret::{PlainKey, Sha256};
    match secret {
        None => {
            bad.add(
                "plain_key",
                "is required: set either `plain_key` or `sha256`",
            );
            None
        }
        Some(PlainKey(plain_key)) => {
            let plain_key = Zeroizing::new(plain_key);
            bad.check("plain_key", imported_key::check(&plain_key))?;
            Some((ImportHash::of(&plain_key), imported_key::hint(&plain_key)))
        }
        Some(Sha256(text)) => {
            let hash = bad.check("sha256", ImportHash::parse(&Zeroizing::new(text)))?;
            Some((hash, None))
        }
    }
}
