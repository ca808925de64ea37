//! Decodes the requests of `KeyVerify`.

use std::net::IpAddr;

use tonic::Status;

use crate::domain::access::ScopeSet;
use crate::domain::violation::Violations;
use crate::grpc::status;
use crate::mirror::{MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::verify::{Question, Target};

/// Decodes what a `VerifyRequest` asks about its key.
///
/// The fields that come from the configuration of the gateway are validated. The fields that the presenter of the key may choose
/// (key, project and partner) are not: a wrong value leads to a denial.
///
/// # Errors
/// `INVALID_ARGUMENT` with the wrong fields.
pub(super) fn question<'q>(
    view: &'q View<'_>,
    request: &'q pb::VerifyRequest,
) -> Result<Question<'q>, Status> {
    let pb::VerifyRequest {
        key: _,
        realm,
        environment,
        target,
        partner,
        scopes,
        any_scopes,
        client_ip: client,
        min_revision: _,
    } = request;
    let mut bad = Violations::default();
    let Some(realm) = bad.check("realm", find_realm(view, realm)) else {
        return bad.finish(None).map_err(|bad| status::invalid(&bad));
    };
    let environment = bad.check(
        "environment",
        realm.definition.environment_or_only(environment),
    );
    let scopes = scope_set(&mut bad, realm, "scopes", scopes);
    let any_scopes = scope_set(&mut bad, realm, "any_scopes", any_scopes);
    let client = bad.check("client_ip", client_ip(client)).flatten();
    let target = target_of(&mut bad, target.as_ref());
    bad.finish(environment.map(|environment| Question {
        realm,
        environment: &environment.name,
        target,
        projects: &[],
        partner,
        scopes,
        any_scopes,
        client,
    }))
    .map_err(|bad| status::invalid(&bad))
}

fn target_of<'q>(
    bad: &mut Violations,
    target: Option<&'q pb::verify_request::Target>,
) -> Target<'q> {
    use pb::verify_request::Target as Requested;
    match target {
        None => Target::Partner,
        Some(Requested::Project(project)) => Target::Project(project),
        Some(Requested::OwnProject(true)) => Target::OwnProject,
        Some(Requested::AnyTarget(true)) => Target::Any,
        Some(Requested::OwnProject(false)) => {
            bad.add("own_project", "must be true or unset");
            Target::Partner
        }
        Some(Requested::AnyTarget(false)) => {
            bad.add("any_target", "must be true or unset");
            Target::Partner
        }
    }
}

fn scope_set(
    bad: &mut Violations,
    realm: &MirroredRealm,
    field: &str,
    names: &[String],
) -> ScopeSet {
    let mut set = ScopeSet::default();
    for (i, name) in names.iter().enumerate() {
        match realm.hierarchy.index_of(name) {
            Some(index) => set.insert(index),
            None => bad.add(
                format!("{field}[{i}]"),
                "is not a scope of the realm: check the spelling, or add it to the realm",
            ),
        }
    }
    set
}

/// Returns the realm with this id.
pub(super) fn find_realm<'v>(
    view: &'v View<'_>,
    id: &str,
) -> Result<&'v MirroredRealm, &'static str> {
    view.realm(id).ok_or(if id.is_empty() {
        "is required: set a realm of this authority"
    } else {
        "must be a realm of this authority"
    })
}

/// Parses the address of an end client. An empty field is `None`.
pub(super) fn client_ip(text: &str) -> Result<Option<IpAddr>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "must be an IP address such as 192.0.2.7 or 2001:db8::7")
}
