//! The messages of `KeyVerify` as the domain's words, and back.

use tonic::Status;

use super::callers::client_ip;
use super::{convert, status};
use crate::domain::access::ScopeSet;
use crate::domain::verdict::Verdict;
use crate::domain::violation::Violations;
use crate::mirror::{KeyFacts, MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::verify::{Question, Target};

/// The request in the domain's words, or what is wrong with it.
///
/// What comes from the gateway's configuration is checked. What the presenter of a key may have chosen, as its key, the
/// project or the partner, is compared as it is, whatever it is: it can only lead to a denial.
pub(super) fn question<'q>(
    view: &'q View<'_>,
    request: &'q pb::VerifyRequest,
) -> Result<Question<'q>, Status> {
    let pb::VerifyRequest {
        key,
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
    let Some(realm) = bad.check(
        "realm",
        view.realm(realm).ok_or("is not a realm of this authority"),
    ) else {
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
        text: key,
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
    use pb::verify_request::Target as Asked;
    match target {
        None => Target::Partner,
        Some(Asked::Project(project)) => Target::Project(project),
        Some(Asked::OwnProject(true)) => Target::OwnProject,
        Some(Asked::AnyTarget(true)) => Target::Any,
        Some(Asked::OwnProject(false)) => {
            bad.add("own_project", "must be true or left out");
            Target::Partner
        }
        Some(Asked::AnyTarget(false)) => {
            bad.add("any_target", "must be true or left out");
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
        match realm.ladder.rank(name) {
            Some(rank) => set.insert(rank),
            None => bad.add(format!("{field}[{i}]"), "is not a scope of the realm"),
        }
    }
    set
}

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
        level: convert::level(key.level()).into(),
        environment: key.environment().as_str().to_owned(),
        name: key.words.name().to_owned(),
        scopes: convert::words(realm.ladder.names(key.effective(&realm.ladder))),
        full_access: key.full_access,
        labels: key
            .words
            .labels()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        expire_time: convert::expiry(key.expires_at),
    }
}

pub(super) fn verdict(verdict: Verdict) -> pb::Verdict {
    match verdict {
        Verdict::Malformed => pb::Verdict::Malformed,
        Verdict::Unknown => pb::Verdict::Unknown,
        Verdict::Revoked => pb::Verdict::Revoked,
        Verdict::Disabled => pb::Verdict::Disabled,
        Verdict::Expired => pb::Verdict::Expired,
        Verdict::EnvironmentMismatch => pb::Verdict::EnvironmentMismatch,
        Verdict::PartnerMismatch => pb::Verdict::PartnerMismatch,
        Verdict::PartnerSuspended => pb::Verdict::PartnerSuspended,
        Verdict::ProjectMismatch => pb::Verdict::ProjectMismatch,
        Verdict::AddressDenied => pb::Verdict::AddressDenied,
        Verdict::ScopeMissing => pb::Verdict::ScopeMissing,
        Verdict::NoRoute => pb::Verdict::NoRoute,
        Verdict::Allowed => pb::Verdict::Allowed,
    }
}
