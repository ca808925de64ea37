//! `KeyVerify.Explain`: the result of every check of a question.
//!
//! This module decides nothing. It takes the decision of `verify`, and then lists every objection that `verify` knows.

use prost::Message;
use tonic::Status;

use super::finding::finding;
use super::request::{VerifyQuestion, client_ip, find_realm, question};
use super::response::verified_key;
use crate::domain::denial::DenialClass;
use crate::domain::key_text;
use crate::domain::route::NoRoute;
use crate::domain::verdict::Verdict;
use crate::domain::violation::Violations;
use crate::gateway::{self, GatewayRequest, MatchError, RouteMatch};
use crate::grpc::encode::{self, verdict};
use crate::grpc::status::{self, verify_error};
use crate::hashing::Peppers;
use crate::mirror::{MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::verify::{Moment, Question, VerifyError, decide, objections};
use pb::CheckOutcome::{Failed, Passed, Skipped};

pub(super) fn explain(
    view: &View<'_>,
    peppers: &Peppers,
    moment: Moment,
    request: &pb::ExplainRequest,
) -> Result<pb::ExplainResponse, Status> {
    use pb::explain_request::Question::{Http, Verify};
    // A public route needs no decision on a key.
    moment.check_lease().map_err(verify_error)?;
    match &request.question {
        Some(Verify(message)) => {
            let encoded = message.encode_to_vec();
            let asked = VerifyQuestion::decode(&encoded).ok_or_else(status::internal)?;
            let question = question(view, &asked)?;
            explain_question(
                view,
                peppers,
                moment,
                asked.plain_key,
                &question,
                Vec::new(),
            )
        }
        Some(Http(message)) => explain_http(view, peppers, moment, message),
        None => {
            let mut bad = Violations::default();
            bad.add("question", "is required: set `verify` or `http`");
            bad.finish(None).map_err(|bad| status::invalid(&bad))
        }
    }
}

/// Explains a question. `checks` has the checks that led to the question.
fn explain_question(
    view: &View<'_>,
    peppers: &Peppers,
    moment: Moment,
    plain_key: &str,
    question: &Question<'_>,
    mut checks: Vec<pb::Check>,
) -> Result<pb::ExplainResponse, Status> {
    let decision = decide(plain_key, question, view, peppers, moment).map_err(verify_error)?;
    checks.push(form(plain_key, decision.verdict));
    checks.push(match decision.verdict {
        Verdict::Malformed => check("secret", Skipped, ""),
        Verdict::Unknown => check(
            "secret",
            Failed,
            "the realm has no such key, or the secret is wrong",
        ),
        _ => check(
            "secret",
            Passed,
            "the key exists, and its secret is correct",
        ),
    });
    // The checks have the route already.
    let objections = objections(question, &decision, moment.now());
    let objections = objections
        .into_iter()
        .filter(|(verdict, _)| *verdict != Verdict::NoRoute);
    checks.extend(objections.map(|(verdict, applies)| {
        let outcome = if applies { Failed } else { Passed };
        let detail = decision
            .proven
            .map(|proven| finding(verdict, applies, question, proven));
        check(&name_of(verdict), outcome, &detail.unwrap_or_default())
    }));
    let realm = question.realm;
    Ok(pb::ExplainResponse {
        verdict: verdict(decision.verdict).into(),
        allowed: decision.verdict == Verdict::Allowed,
        http_status: http_status(realm, DenialClass::of(decision.verdict)),
        decided_by: decider(&checks, decision.verdict),
        checks,
        route: String::new(),
        key: decision.proven.map(|(key, _)| verified_key(key, realm)),
        missing_scopes: encode::scope_names(realm.hierarchy.names(decision.missing)),
        revision: view.revision().as_u64(),
    })
}

fn explain_http(
    view: &View<'_>,
    peppers: &Peppers,
    moment: Moment,
    message: &pb::HttpQuestion,
) -> Result<pb::ExplainResponse, Status> {
    let pb::HttpQuestion {
        realm,
        environment,
        method,
        target,
        headers,
        client_ip: client,
    } = message;
    if view.is_unreadable(realm) {
        return Err(verify_error(VerifyError::Corrupt));
    }
    let mut bad = Violations::default();
    let realm = bad.check("http.realm", find_realm(view, realm));
    let environment = realm.and_then(|realm| {
        let found = realm.definition.environment_or_only(environment);
        bad.check("http.environment", found)
    });
    let client = bad.check("http.client_ip", client_ip(client)).flatten();
    let (realm, environment) = bad
        .finish(realm.zip(environment))
        .map_err(|bad| status::invalid(&bad))?;

    let names: Vec<_> = headers
        .iter()
        .map(|header| header.name.to_ascii_lowercase())
        .collect();
    let headers: Vec<_> = names
        .iter()
        .zip(headers)
        .map(|(name, header)| (name.as_str(), header.value.as_bytes()))
        .collect();
    let request = GatewayRequest {
        method,
        target,
        headers: &headers,
        client,
    };
    let path = gateway::parse_path(realm, &request);
    let route_match = gateway::match_request(realm, &request, &path);
    let checks = checks_of(&route_match);
    let route = route(realm, &route_match);
    let answer = match &route_match.presented {
        Ok(presented) if route_match.asks_about(presented) => gateway::with_question(
            &route_match,
            presented,
            realm,
            environment,
            client,
            |plain_key, question| {
                explain_question(view, peppers, moment, plain_key, question, checks)
            },
        )?,
        presented => without_a_key(view, realm, presented.is_ok(), checks),
    };
    Ok(pb::ExplainResponse { route, ..answer })
}

/// Explains a request whose key is not checked: the route is public, or the credentials are malformed.
fn without_a_key(
    view: &View<'_>,
    realm: &MirroredRealm,
    is_public: bool,
    mut checks: Vec<pb::Check>,
) -> pb::ExplainResponse {
    checks.push(check("form", Skipped, ""));
    checks.push(check("secret", Skipped, ""));
    let denied = (!is_public).then_some(Verdict::Malformed);
    pb::ExplainResponse {
        verdict: denied.map_or(pb::Verdict::Unspecified, verdict).into(),
        allowed: is_public,
        http_status: http_status(realm, denied.and_then(DenialClass::of)),
        decided_by: denied.map_or_else(String::new, |denied| decider(&checks, denied)),
        checks,
        revision: view.revision().as_u64(),
        ..pb::ExplainResponse::default()
    }
}

/// Returns the checks that lead from a request to its question.
fn checks_of(route_match: &RouteMatch<'_>) -> Vec<pb::Check> {
    let path = match route_match.matched {
        Err(MatchError::Path(why)) => check("path", Failed, why.as_str()),
        _ => check(
            "path",
            Passed,
            "the path has exactly one reading under the realm's settings",
        ),
    };
    let route = match &route_match.matched {
        Ok(matched) => check(
            "route",
            Passed,
            &format!("routes[{}] matches", matched.rule),
        ),
        Err(MatchError::Path(_)) => check("route", Skipped, ""),
        Err(MatchError::Route(NoRoute::Unmatched)) => {
            check("route", Failed, "no route matches the method and the path")
        }
        Err(MatchError::Route(NoRoute::Semicolon(rule))) => check(
            "route",
            Failed,
            &format!("the path has a segment with a semicolon where routes[{rule}] has a literal"),
        ),
    };
    let credentials = match &route_match.presented {
        Ok(presented) if presented.key.is_none() => check(
            "credentials",
            Passed,
            "the request has no key in the realm's credential sources",
        ),
        Ok(_) => check("credentials", Passed, "the request has a key"),
        Err(error) => check("credentials", Failed, error.as_str()),
    };
    vec![path, route, credentials]
}

fn route(realm: &MirroredRealm, route_match: &RouteMatch<'_>) -> String {
    let Ok(matched) = &route_match.matched else {
        return String::new();
    };
    let text = realm.routes.text(matched.rule).unwrap_or_default();
    format!("routes[{}] {text}", matched.rule)
}

fn form(plain_key: &str, verdict: Verdict) -> pb::Check {
    if plain_key.is_empty() {
        return check("form", Failed, "the key is empty");
    }
    if verdict != Verdict::Malformed {
        return check("form", Passed, "");
    }
    let why = match key_text::parse(plain_key) {
        Err(why) => why.as_str(),
        Ok(_) => "the string cannot be an API key",
    };
    check("form", Failed, why)
}

fn check(name: &str, outcome: pb::CheckOutcome, detail: &str) -> pb::Check {
    pb::Check {
        name: name.to_owned(),
        outcome: outcome.into(),
        detail: detail.to_owned(),
    }
}

/// Returns the name of the check for a denial.
fn name_of(verdict: Verdict) -> String {
    let name = verdict.as_str().trim_start_matches("VERDICT_");
    name.to_lowercase()
}

/// Returns the name of the check that led to a verdict.
fn decider(checks: &[pb::Check], verdict: Verdict) -> String {
    let candidates: &[&str] = match verdict {
        Verdict::Allowed => &[],
        Verdict::Malformed => &["credentials", "form"],
        Verdict::Unknown => &["secret"],
        Verdict::NoRoute => &["path", "route"],
        _ => return name_of(verdict),
    };
    let failed = |name: &str| {
        let mut checks = checks.iter();
        checks.any(|check| check.name == name && check.outcome() == Failed)
    };
    let decided = candidates.iter().copied().find(|name| failed(name));
    decided.unwrap_or_default().to_owned()
}

fn http_status(realm: &MirroredRealm, class: Option<DenialClass>) -> u32 {
    class.map_or(200, |class| {
        let denial = realm.definition.denials.get(&class);
        denial.map_or(class.status(), |denial| denial.status).into()
    })
}
