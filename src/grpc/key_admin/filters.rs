//! Decodes the filters of keys and events.

use std::collections::BTreeSet;

use crate::authority::Refusal;
use crate::domain::event::{Revision, SoughtKind};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::KeyState;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::grpc::{decode, page};
use crate::pb::claviger::v1 as pb;
use crate::store::{EventFilter, KeyFilter};

/// The number of states that a key can be in.
const MAX_STATES: usize = 4;

/// The maximum number of labels in a filter.
const MAX_LABELS: usize = 4;

/// The maximum length of a part of a hint, in characters.
const MAX_HINT: usize = 40;

/// Decodes the filter of `ListKeys`. `bad` has the violations of the page token, `cursor` is the start of the page.
pub(super) fn page_filter(
    mut bad: Violations,
    request: pb::ListKeysRequest,
    page_size: i32,
    cursor: &str,
    now: Timestamp,
) -> Result<KeyFilter, Refusal> {
    let pb::ListKeysRequest {
        filter,
        page_size: _,
        page_token: _,
        with_total: _,
    } = request;
    let limit = page::size(&mut bad, page_size);
    let before = decode::optional(&mut bad, "page_token", cursor, KeyId::parse);
    let filter = key_filter(&mut bad, filter, limit, now);
    bad.finish(filter.map(|filter| KeyFilter { before, ..filter }))
        .map_err(Refusal::Invalid)
}

/// Decodes a filter of keys.
pub(super) fn key_filter(
    bad: &mut Violations,
    filter: Option<pb::KeyFilter>,
    limit: u32,
    now: Timestamp,
) -> Option<KeyFilter> {
    let pb::KeyFilter {
        realm,
        partner,
        project,
        environment,
        states,
        unused_for,
        never_expires,
        expires_within,
        issued_before,
        external_id,
        name,
        labels,
        hint,
        created_by,
        issued_after,
        beyond_max_lifetime,
    } = filter.unwrap_or_default();
    let partner = decode::optional(bad, "filter.partner", &partner, PartnerId::parse);
    let project = decode::optional(bad, "filter.project", &project, ProjectId::parse);
    let environment = decode::optional(
        bad,
        "filter.environment",
        &environment,
        EnvironmentName::parse,
    );
    let realm = bad.check("filter.realm", RealmId::parse(&realm));
    let external_id = decode::external_id(bad, "filter.external_id", external_id);
    let states = key_states(bad, &states);
    let unused_for = decode::span_or_none(bad, "filter.unused_for", unused_for);
    let expires_within = decode::span_or_none(bad, "filter.expires_within", expires_within);
    if never_expires && expires_within.is_some() {
        bad.add(
            "filter.expires_within",
            "cannot be combined with `never_expires`: set only one of the two",
        );
    }
    let issued_from = decode::timestamp(bad, "filter.issued_after", issued_after);
    let issued_until = decode::timestamp(bad, "filter.issued_before", issued_before);
    let name = decode::name(bad, "filter.name", name);
    let hint = decode::optional(bad, "filter.hint", &hint, search_hint);
    let created_by = decode::optional(bad, "filter.created_by", &created_by, KeyId::parse);
    if labels.len() > MAX_LABELS {
        bad.add("filter.labels", "must have at most 4 entries");
    }
    Some(KeyFilter {
        partner,
        project,
        environment,
        external_id,
        issued_from,
        issued_until,
        name: Some(name).filter(|name| !name.is_empty()),
        labels,
        hint,
        created_by,
        states,
        unused_for,
        never_expires,
        expires_within,
        beyond_max_lifetime,
        ..KeyFilter::new(realm?, now, limit)
    })
}

/// Decodes a part of a hint. A longer text may be an API key in the wrong place.
pub(super) fn search_hint(hint: &str) -> Result<String, &'static str> {
    let length = hint.chars().count();
    if (4..=MAX_HINT).contains(&length) && !hint.contains([' ', '\0']) {
        Ok(hint.to_owned())
    } else {
        Err("must be a part of a hint, of 4 to 40 characters, such as the last four of an API key")
    }
}

fn key_states(bad: &mut Violations, states: &[i32]) -> BTreeSet<KeyState> {
    if states.len() > MAX_STATES {
        bad.add("filter.states", "must have at most 4 entries");
        return BTreeSet::new();
    }
    let states = states.iter().enumerate();
    states
        .filter_map(|(i, state)| bad.check(format!("filter.states[{i}]"), key_state(*state)))
        .collect()
}

fn key_state(state: i32) -> Result<KeyState, &'static str> {
    match pb::KeyState::try_from(state) {
        Ok(pb::KeyState::Active) => Ok(KeyState::Active),
        Ok(pb::KeyState::Disabled) => Ok(KeyState::Disabled),
        Ok(pb::KeyState::Expired) => Ok(KeyState::Expired),
        Ok(pb::KeyState::Revoked) => Ok(KeyState::Revoked),
        Ok(pb::KeyState::Unspecified) | Err(_) => Err(
            "must be KEY_STATE_ACTIVE, KEY_STATE_DISABLED, KEY_STATE_EXPIRED or KEY_STATE_REVOKED",
        ),
    }
}

/// Decodes the kinds of events: the union of both fields.
fn sought_kinds(bad: &mut Violations, kind: &str, kinds: &[String]) -> Vec<SoughtKind> {
    let parse =
        |name: &str| SoughtKind::parse(name).ok_or("must be an event kind, such as key.revoked");
    if kinds.len() > SoughtKind::COUNT {
        bad.add("kinds", "must have at most 24 entries");
        return Vec::new();
    }
    let kind = decode::optional(bad, "kind", kind, parse);
    let kinds = kinds.iter().enumerate();
    let kinds = kinds.filter_map(|(i, kind)| bad.check(format!("kinds[{i}]"), parse(kind)));
    kind.into_iter().chain(kinds).collect()
}

/// Decodes the filter of `ListEvents`. `bad` has the violations of the page token, `cursor` is the start of the page.
pub(super) fn event_filter(
    mut bad: Violations,
    request: pb::ListEventsRequest,
    page_size: i32,
    cursor: &str,
) -> Result<EventFilter, Refusal> {
    let pb::ListEventsRequest {
        realm,
        partner,
        key_id,
        kind,
        start_time,
        end_time,
        page_size: _,
        page_token: _,
        actor,
        after_revision,
        kinds,
    } = request;
    let limit = page::size(&mut bad, page_size);
    if after_revision.is_some() && !cursor.is_empty() {
        bad.add("page_token", "must be empty if `after_revision` is set");
    }
    let filter = EventFilter {
        realm: decode::optional(&mut bad, "realm", &realm, RealmId::parse),
        partner: decode::optional(&mut bad, "partner", &partner, PartnerId::parse),
        key: decode::optional(&mut bad, "key_id", &key_id, KeyId::parse),
        kinds: sought_kinds(&mut bad, &kind, &kinds),
        actor: decode::optional(&mut bad, "actor", &actor, KeyId::parse),
        from: decode::timestamp(&mut bad, "start_time", start_time),
        until: decode::timestamp(&mut bad, "end_time", end_time),
        before: decode::optional(&mut bad, "page_token", cursor, |cursor| {
            cursor
                .parse::<u64>()
                .map(Revision::from)
                .map_err(|_| "must be the `next_page_token` of the previous page")
        }),
        after: after_revision.map(Revision::from),
        limit,
    };
    bad.finish(Some(filter)).map_err(Refusal::Invalid)
}
