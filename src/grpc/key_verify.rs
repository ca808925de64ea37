//! `claviger.v1.KeyVerify`.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::callers::{bearer_of, client_ip, peer};
use super::{convert, explain, status};
use crate::callers::{Callers, Proven};
use crate::domain::access::ScopeSet;
use crate::domain::clock::Clock;
use crate::domain::event::Revision;
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::domain::violation::Violations;
use crate::hashing::Peppers;
use crate::mirror::{KeyFacts, Mirror, MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::verify::{Decision, Question, Target, Undecided, decide};

const MAX_BATCH: usize = 100;

/// Answers from the mirror: no I/O, no lock, no task.
pub struct KeyVerifyService {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    callers: Callers,
}

impl KeyVerifyService {
    /// Answers are decided by what this mirror knows.
    pub fn new(mirror: Arc<Mirror>, peppers: Arc<Peppers>, clock: Clock, callers: Callers) -> Self {
        Self {
            mirror,
            peppers,
            clock,
            callers,
        }
    }

    /// Proves the caller and hands everything that an answer needs to `work`, on one reading of the clock.
    fn with_caller<T>(
        &self,
        metadata: &MetadataMap,
        peer: Option<IpAddr>,
        work: impl FnOnce(&View<'_>, &Proven<'_>, Timestamp) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let now = self.clock.now();
        let index = self.mirror.index();
        let view = index.view();
        let caller = self.callers.prove(&view, bearer_of(metadata)?, peer, now)?;
        work(&view, &caller, now)
    }

    fn answer(
        &self,
        view: &View<'_>,
        caller: &Proven<'_>,
        now: Timestamp,
        request: &pb::VerifyRequest,
    ) -> Result<pb::VerifyResponse, Status> {
        caller.may_verify(&request.realm)?;
        if view.revision() < Revision::from(request.min_revision) {
            return Err(status::behind());
        }
        let question = question(view, request)?;
        let decision = decide(&question, view, &self.peppers, now).map_err(undecided)?;
        Ok(response(view, question.realm, &decision, now))
    }
}

#[tonic::async_trait]
impl pb::key_verify_server::KeyVerify for KeyVerifyService {
    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        let answer =
            self.with_caller(request.metadata(), peer(&request), |view, caller, now| {
                self.answer(view, caller, now, request.get_ref())
            })?;
        Ok(Response::new(answer))
    }

    async fn verify_batch(
        &self,
        request: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<pb::VerifyBatchResponse>, Status> {
        let pb::VerifyBatchRequest { requests } = request.get_ref();
        let results =
            self.with_caller(request.metadata(), peer(&request), |view, caller, now| {
                if requests.len() > MAX_BATCH {
                    let mut bad = Violations::default();
                    bad.add("requests", "must be 100 at the most");
                    return bad.finish(None).map_err(|bad| status::invalid(&bad));
                }
                let result = |request| {
                    use pb::verify_batch_result::Result::{Error, Response};
                    pb::VerifyBatchResult {
                        result: Some(match self.answer(view, caller, now, request) {
                            Ok(answer) => Response(answer),
                            Err(error) => Error(status::as_message(&error)),
                        }),
                    }
                };
                Ok(requests.iter().map(result).collect())
            })?;
        Ok(Response::new(pb::VerifyBatchResponse { results }))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let answer =
            self.with_caller(request.metadata(), peer(&request), |view, caller, now| {
                caller.may_operate()?;
                explain::explain(view, &self.peppers, now, request.get_ref())
            })?;
        Ok(Response::new(answer))
    }
}

/// Why there is no decision, for the gateway; the log has the rest.
pub(super) fn undecided(undecided: Undecided) -> Status {
    match undecided {
        Undecided::Corrupt => {
            tracing::error!("a key was presented of which what is stored cannot be read");
            status::internal()
        }
        Undecided::PepperMissing => {
            tracing::error!(
                "a key was presented whose version of the pepper the pepper file lacks"
            );
            status::pepper_missing()
        }
    }
}

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

fn response(
    view: &View<'_>,
    realm: &MirroredRealm,
    decision: &Decision<'_>,
    now: Timestamp,
) -> pb::VerifyResponse {
    let max_cache = realm.definition.max_cache;
    let cache_for = match decision.expires_at().time_left(now) {
        // What has expired stays so.
        Some(left) if !left.is_zero() => max_cache.min(left),
        _ => max_cache,
    };
    pb::VerifyResponse {
        verdict: verdict(decision.verdict).into(),
        key: decision.proven.map(|(key, _)| verified_key(key, realm)),
        missing_scopes: if decision.verdict == Verdict::ScopeMissing {
            convert::words(realm.ladder.names(decision.missing))
        } else {
            Vec::new()
        },
        revision: view.revision().as_u64(),
        as_of: Some(convert::time(view.as_of())),
        cache_for: Some(convert::span(cache_for)),
    }
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
        Verdict::Allowed => pb::Verdict::Allowed,
    }
}
