//! Decodes declared states, and encodes the changes that make them true.

use crate::authority::{AppliedState, ChangeRequest, DeclaredState, PlannedChange, Prune, Refusal};
use crate::domain::event::Revision;
use crate::domain::ids::ScopeName;
use crate::domain::key::Key;
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::grpc::{decode, encode, key_admin, realm_admin};
use crate::pb::claviger::v1 as pb;
use crate::store::Versioned;
use pb::declared_resource::Resource;

/// How many resources a state declares at most.
const MAX_RESOURCES: usize = 5_000;

/// A decoded request.
pub(super) struct Apply {
    pub(super) state: DeclaredState,
    pub(super) change: ChangeRequest,
    pub(super) if_plan: Option<String>,
}

pub(super) fn parse(message: pb::ApplyRequest) -> Result<Apply, Refusal> {
    let pb::ApplyRequest {
        state,
        prune,
        dry_run: _,
        if_plan,
        wait,
        request_id,
    } = message;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let prune = parse_prune(&mut bad, &prune);
    let state = bad.check("state", state.ok_or("is required"));
    let state = state.and_then(|state| parse_state(&mut bad, state, prune));
    bad.finish(state.map(|state| Apply {
        state,
        change,
        if_plan: Some(if_plan).filter(|plan| !plan.is_empty()),
    }))
    .map_err(Refusal::Invalid)
}

/// Decodes a declared state, of which nothing is pruned.
///
/// # Errors
/// The fields that break rules.
pub fn declared_state(state: pb::DeclaredState) -> Result<DeclaredState, Violations> {
    let mut bad = Violations::default();
    let state = parse_state(&mut bad, state, Prune::default());
    bad.finish(state)
}

fn parse_prune(bad: &mut Violations, kinds: &[i32]) -> Prune {
    let mut prune = Prune::default();
    for (i, kind) in kinds.iter().enumerate() {
        match pb::DeclaredKind::try_from(*kind) {
            Ok(pb::DeclaredKind::Realm) => prune.realms = true,
            Ok(pb::DeclaredKind::Partner) => prune.partners = true,
            Ok(pb::DeclaredKind::Project) => prune.projects = true,
            Ok(pb::DeclaredKind::Key) => prune.keys = true,
            Ok(pb::DeclaredKind::Unspecified) | Err(_) => {
                bad.add(
                    format!("prune[{i}]"),
                    "must be DECLARED_KIND_REALM, _PARTNER, _PROJECT or _KEY",
                );
            }
        }
    }
    prune
}

fn parse_state(
    bad: &mut Violations,
    state: pb::DeclaredState,
    prune: Prune,
) -> Option<DeclaredState> {
    let pb::DeclaredState {
        realms,
        partners,
        projects,
        keys,
    } = state;
    if realms.len() + partners.len() + projects.len() + keys.len() > MAX_RESOURCES {
        bad.add("state", "must declare at most 5,000 resources");
        return None;
    }
    let realms = each(bad, "realms", "realm", realms, |realm| {
        of_request(realm_admin::request::parse_realm(Some(realm), 0, ""))
    });
    let partners = each(bad, "partners", "partner", partners, |partner| {
        of_request(realm_admin::request::parse_partner(Some(partner), 0, ""))
    });
    let projects = each(bad, "projects", "project", projects, |project| {
        of_request(realm_admin::request::parse_project(Some(project), 0, ""))
    });
    let keys = each(bad, "keys", "", keys, key_admin::request::declared_key);
    Some(DeclaredState {
        realms,
        partners,
        projects,
        keys,
        prune,
    })
}

/// Decodes each part of a list. The violations of a part name its place, instead of the field that it has in a request.
fn each<P, T>(
    bad: &mut Violations,
    list: &str,
    field: &str,
    parts: Vec<P>,
    parse: impl Fn(P) -> Result<T, Violations>,
) -> Vec<T> {
    let mut parsed = Vec::with_capacity(parts.len());
    for (i, part) in parts.into_iter().enumerate() {
        match parse(part) {
            Ok(value) => parsed.push(value),
            Err(violations) => bad.add_within(&format!("{list}[{i}]"), field, violations),
        }
    }
    parsed
}

/// The resource of a decoded request, without the options of the request.
fn of_request<T>(parsed: Result<(T, ChangeRequest), Refusal>) -> Result<T, Violations> {
    match parsed {
        Ok((value, _)) => Ok(value),
        Err(Refusal::Invalid(violations)) => Err(violations),
        Err(other) => unreachable!("decoding refuses nothing else: {other}"),
    }
}

pub(super) fn response(applied: AppliedState, revision: Revision) -> pb::ApplyResponse {
    pb::ApplyResponse {
        changes: applied.changes.into_iter().map(change).collect(),
        plan: applied.plan,
        revision: revision.as_u64(),
        effective_everywhere_time: None,
        confirmed: false,
    }
}

fn change(planned: PlannedChange) -> pb::DeclaredChange {
    let key_id = match &planned {
        PlannedChange::Key {
            before: Some(key), ..
        } => key.id.to_string(),
        // Its secret is stored with it.
        PlannedChange::Key {
            after: Some(key), ..
        } if !key.secrets.is_empty() => key.id.to_string(),
        _ => String::new(),
    };
    let (before, after) = match planned {
        PlannedChange::Realm { before, after } => {
            (before.map(|it| realm(*it)), after.map(|it| realm(*it)))
        }
        PlannedChange::Partner { before, after } => (before.map(partner), after.map(partner)),
        PlannedChange::Project { before, after } => (before.map(project), after.map(project)),
        PlannedChange::Key { before, after, .. } => {
            (before.map(|it| key(*it)), after.map(|it| key(*it)))
        }
    };
    let resource = |resource| pb::DeclaredResource {
        resource: Some(resource),
    };
    pb::DeclaredChange {
        before: before.map(resource),
        after: after.map(resource),
        key_id,
    }
}

/// A resource that tells neither its revision nor its times.
fn plain<T>(value: T) -> Versioned<T> {
    Versioned {
        value,
        revision: Revision::default(),
        created_at: Timestamp::from_micros(0),
    }
}

fn realm(value: Realm) -> Resource {
    Resource::Realm(pb::Realm {
        create_time: None,
        ..realm_admin::response::realm(plain(value))
    })
}

fn partner(value: Partner) -> Resource {
    Resource::Partner(pb::Partner {
        create_time: None,
        ..realm_admin::response::partner(plain(value))
    })
}

fn project(value: Project) -> Resource {
    Resource::Project(pb::Project {
        create_time: None,
        ..realm_admin::response::project(plain(value))
    })
}

fn key(key: Key) -> Resource {
    let scopes = key.access.granted().map(ScopeName::to_string);
    Resource::Key(pb::DeclaredKey {
        sha256: String::new(),
        scopes: scopes.collect(),
        partner: key.partner.to_string(),
        name: key.name,
        expire_time: Option::from(key.expires_at).map(encode::time),
        labels: key.labels,
        allowed_cidrs: key.allowed_cidrs.iter().map(ToString::to_string).collect(),
    })
}
