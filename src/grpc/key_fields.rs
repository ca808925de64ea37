//! The requests of `KeyAdmin` that change keys, in the domain's words.

use std::time::Duration;

use zeroize::Zeroizing;

use super::fields;
use crate::authority::{ForeignKey, Holder, KeyUpdate, ManyKeys, NewKey, Refusal, Survivor};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::imported_text;
use crate::domain::time::Timestamp;
use crate::domain::violation::{Violation, Violations};
use crate::hashing::TextHash;
use crate::pb::claviger::v1 as pb;

/// The longest overlap of a rotation. Beyond it there are two keys and no rotation.
const MAX_OVERLAP: Duration = Duration::from_hours(366 * 24);

/// How many keys are imported at once.
const MAX_ENTRIES: usize = 1_000;

/// The fields of a key that can be changed.
const MUTABLE: [&str; 6] = [
    "name",
    "labels",
    "scopes",
    "full_access",
    "expire_time",
    "allowed_cidrs",
];

/// The key that is asked about.
pub(super) fn key_id(key_id: &str) -> Result<KeyId, Refusal> {
    let mut bad = Violations::default();
    let id = bad.check("key_id", KeyId::parse(key_id));
    bad.finish(id).map_err(Refusal::Invalid)
}

/// The key that is to be changed.
pub(super) fn change_of_key(
    key_id: &str,
    caller: &mut Holder,
    wait: i32,
    request_id: &str,
) -> Result<KeyId, Refusal> {
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, request_id);
    let id = bad.check("key_id", KeyId::parse(key_id));
    bad.finish(id).map_err(Refusal::Invalid)
}

/// The key that is to be made.
pub(super) fn new_key(
    request: pb::IssueKeyRequest,
    caller: &mut Holder,
    now: Timestamp,
) -> Result<NewKey, Refusal> {
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, request.wait, &request.request_id);
    let new = described(&mut bad, request, now);
    bad.finish(new).map_err(Refusal::Invalid)
}

fn described(bad: &mut Violations, request: pb::IssueKeyRequest, now: Timestamp) -> Option<NewKey> {
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
        wait: _,
        request_id: _,
    } = request;
    let realm = bad.check("realm", RealmId::parse(&realm));
    let partner = fields::optional(bad, "partner", &partner, PartnerId::parse);
    let project = fields::optional(bad, "project", &project, ProjectId::parse);
    let level = fields::level(bad, "level", level);
    let environment = fields::optional(bad, "environment", &environment, EnvironmentName::parse);
    let name = fields::name(bad, "name", name);
    let scopes = fields::scopes(bad, &scopes);
    let expires_at = fields::timestamp(bad, "expire_time", expire_time);
    if expires_at.is_some_and(|end| end <= now) {
        bad.add("expire_time", "must be in the future");
    }
    let labels = fields::labels(bad, labels);
    let allowed_cidrs = fields::cidrs(bad, &allowed_cidrs);
    realm.map(|realm| NewKey {
        realm,
        partner,
        project,
        level,
        environment,
        name,
        scopes,
        full_access,
        expires_at,
        labels,
        allowed_cidrs,
    })
}

/// What is to be changed of a key.
pub(super) fn update(
    request: pb::UpdateKeyRequest,
    caller: &mut Holder,
) -> Result<(KeyId, KeyUpdate), Refusal> {
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
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, &request_id);
    let paths = update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        bad.add(
            "update_mask",
            format!("is required: which of {} to change", MUTABLE.join(", ")),
        );
    }
    if !paths.iter().all(|path| MUTABLE.contains(&path.as_str())) {
        bad.add(
            "update_mask",
            format!("may name {} and nothing else", MUTABLE.join(", ")),
        );
    }
    // Whether a field is to be changed; one that is set and not named would be left out in silence.
    let mut named = |field: &'static str, is_set: bool| {
        let is_named = paths.iter().any(|path| path == field);
        if is_set && !is_named && !paths.is_empty() {
            bad.add(field, "is set, but not named in update_mask");
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
    let update = KeyUpdate {
        name: of_name.then(|| fields::name(&mut bad, "name", name)),
        labels: of_labels.then(|| fields::labels(&mut bad, labels)),
        scopes: of_scopes.then(|| fields::scopes(&mut bad, &scopes)),
        full_access: of_full_access.then_some(full_access),
        expires_at: of_expiry.then(|| fields::timestamp(&mut bad, "expire_time", expire_time)),
        allowed_cidrs: of_cidrs.then(|| fields::cidrs(&mut bad, &allowed_cidrs)),
    };
    let id = bad.check("key_id", KeyId::parse(&key_id));
    bad.finish(id.map(|id| (id, update)))
        .map_err(Refusal::Invalid)
}

/// The key that is to be rotated, and for how long the old text works on.
pub(super) fn rotation(
    request: pb::RotateKeyRequest,
    caller: &mut Holder,
) -> Result<(KeyId, Duration), Refusal> {
    let pb::RotateKeyRequest {
        key_id,
        overlap,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, &request_id);
    let overlap = fields::span(&mut bad, "overlap", overlap);
    if overlap > MAX_OVERLAP {
        bad.add(
            "overlap",
            "must be at most 366 days: for longer, issue another key",
        );
    }
    let id = bad.check("key_id", KeyId::parse(&key_id));
    bad.finish(id.map(|id| (id, overlap)))
        .map_err(Refusal::Invalid)
}

/// The key whose rotation is to be ended, and what stays of it.
pub(super) fn end_of_rotation(
    request: pb::EndRotationRequest,
    caller: &mut Holder,
) -> Result<(KeyId, Survivor), Refusal> {
    let pb::EndRotationRequest {
        key_id,
        survivor,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, &request_id);
    let survivor = match pb::Survivor::try_from(survivor) {
        Ok(pb::Survivor::New) => Ok(Survivor::New),
        Ok(pb::Survivor::Old) => Ok(Survivor::Old),
        Ok(pb::Survivor::Unspecified) => {
            Err("is required: which text stays, the new or the old one")
        }
        Err(_) => Err("is not a value of Survivor"),
    };
    let survivor = bad.check("survivor", survivor);
    let id = bad.check("key_id", KeyId::parse(&key_id));
    bad.finish(id.zip(survivor)).map_err(Refusal::Invalid)
}

/// The keys that are to be ended, and why.
pub(super) fn many_keys(
    request: pb::RevokeKeysRequest,
    caller: &mut Holder,
) -> Result<(ManyKeys, String), Refusal> {
    let pb::RevokeKeysRequest {
        realm,
        partner,
        project,
        environment,
        issued_before,
        reason,
        dry_run: _,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, &request_id);
    let partner = fields::optional(&mut bad, "partner", &partner, PartnerId::parse);
    let project = fields::optional(&mut bad, "project", &project, ProjectId::parse);
    let environment = fields::optional(
        &mut bad,
        "environment",
        &environment,
        EnvironmentName::parse,
    );
    let issued_before = fields::timestamp(&mut bad, "issued_before", issued_before);
    let reason = fields::reason(&mut bad, "reason", reason);
    let realm = bad.check("realm", RealmId::parse(&realm));
    let many = realm.map(|realm| ManyKeys {
        realm,
        partner,
        project,
        environment,
        issued_before,
    });
    bad.finish(many.map(|many| (many, reason)))
        .map_err(Refusal::Invalid)
}

/// Why a key ends itself.
pub(super) fn own_revocation(
    request: pb::RevokeSelfRequest,
    holder: &mut Holder,
) -> Result<String, Refusal> {
    let pb::RevokeSelfRequest {
        reason,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, holder, wait, &request_id);
    let reason = fields::reason(&mut bad, "reason", reason);
    bad.finish(Some(reason)).map_err(Refusal::Invalid)
}

type Entries = Vec<Result<ForeignKey, Vec<Violation>>>;

/// The keys that are to be imported. What is wrong with an entry is that entry's.
pub(super) fn import(
    request: pb::ImportKeysRequest,
    caller: &mut Holder,
    now: Timestamp,
) -> Result<(RealmId, Entries), Refusal> {
    let pb::ImportKeysRequest {
        realm,
        entries,
        dry_run: _,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, &request_id);
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        bad.add("entries", "must be 1 to 1,000");
    }
    let realm = bad.check("realm", RealmId::parse(&realm));
    let realm = bad.finish(realm).map_err(Refusal::Invalid)?;
    let entries = entries
        .into_iter()
        .map(|entry| foreign_key(entry, &realm, now))
        .collect();
    Ok((realm, entries))
}

fn foreign_key(
    entry: pb::ImportEntry,
    realm: &RealmId,
    now: Timestamp,
) -> Result<ForeignKey, Vec<Violation>> {
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
    } = entry;
    let mut bad = Violations::default();
    let known = known(&mut bad, secret);
    let request = pb::IssueKeyRequest {
        realm: realm.to_string(),
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
        ..pb::IssueKeyRequest::default()
    };
    let new = described(&mut bad, request, now);
    bad.finish(
        known
            .zip(new)
            .map(|((text, hint), new)| ForeignKey { new, text, hint }),
    )
}

/// What is known of a foreign key's text, and what may be shown of it.
fn known(
    bad: &mut Violations,
    secret: Option<pb::import_entry::Secret>,
) -> Option<(TextHash, String)> {
    use pb::import_entry::Secret::{Sha256, Text};
    match secret {
        None => {
            bad.add("text", "is required, or sha256");
            None
        }
        Some(Text(text)) => {
            let text = Zeroizing::new(text);
            bad.check("text", imported_text::check(&text))?;
            let hash = TextHash::of(&text);
            let hint = imported_text::hint(&text).unwrap_or_else(|| hash.hint());
            Some((hash, hint))
        }
        Some(Sha256(written)) => {
            let hash = bad.check("sha256", TextHash::parse(&Zeroizing::new(written)))?;
            let hint = hash.hint();
            Some((hash, hint))
        }
    }
}
