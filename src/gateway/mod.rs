//! What becomes of a request that a gateway hands over whole: the realm says where its key stands and what its route needs,
//! and the key is decided upon as always.
//!
//! Nothing that a client sends can bring about anything but an answer; only a realm that is set up wrongly, or a server that
//! cannot tell, is an error.

mod authorizer;
mod response;

use std::net::IpAddr;

pub use authorizer::{GatewayAuthorizer, GatewayError, ProtectedApi};
pub use response::{GatewayResponse, HttpDenial, IDENTITY_HEADERS};

use crate::domain::access::ScopeSet;
use crate::domain::credential::{Malformed, Presented};
use crate::domain::denial::DenialClass;
use crate::domain::path::{PathError, RequestPath};
use crate::domain::realm::Environment;
use crate::domain::route::{Matched, NoRoute, RequiredLevel};
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredRealm};
use crate::verify::{Decision, Question, Target, VerifyError};

/// A request as the gateway got it.
pub struct GatewayRequest<'r> {
    /// Its method.
    pub method: &'r str,
    /// Its target: the path, and perhaps a query.
    pub target: &'r str,
    /// Its headers, names in lower case, one entry for each time that one stands there.
    pub headers: &'r [(&'r str, &'r [u8])],
    /// Where it comes from, as the gateway saw it.
    pub client: Option<IpAddr>,
}

/// The address of the end client. `direct` is the other end of the connection that the gateway has; with trusted hops it stands
/// as many places from the end of `x-forwarded-for`, whatever stands there: to guess who added what would let a client choose.
/// Whoever is not told of in that way has no address here, which no key that is bound to addresses admits.
pub fn client_of(
    direct: Option<IpAddr>,
    headers: &[(&str, &[u8])],
    trusted_hops: usize,
) -> Option<IpAddr> {
    if trusted_hops == 0 {
        return direct;
    }
    let mut hops: Vec<&str> = Vec::new();
    for (name, value) in headers {
        if *name == "x-forwarded-for" {
            hops.extend(std::str::from_utf8(value).ok()?.split(',').map(str::trim));
        }
    }
    let place = hops.len().checked_sub(trusted_hops)?;
    hops.get(place)?.parse().ok()
}

/// What is said of a request.
pub enum GatewayDecision<'k> {
    /// It is let through.
    Allowed {
        /// The key that it came with; none on a public route.
        key: Option<&'k KeyFacts>,
    },
    /// It is not.
    Denied {
        /// In HTTP's words.
        class: DenialClass,
        /// In ours.
        verdict: Verdict,
    },
}

/// How a decision came about, for people who want to know why.
pub struct RouteMatch<'g> {
    /// The rule that counts, or why there is none.
    pub matched: Result<Matched<'g, 'g>, Unmatched>,
    /// What the request says of itself.
    pub presented: Result<Presented<'g>, Malformed>,
}

/// Why no rule counts for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmatched {
    /// Its path cannot be matched.
    Path(PathError),
    /// Its path was read, but no rule counts for it.
    Route(NoRoute),
}

/// Reads the path of a request as the server behind its realm does.
pub fn path_of<'r>(
    realm: &MirroredRealm,
    request: &GatewayRequest<'r>,
) -> Result<RequestPath<'r>, PathError> {
    RequestPath::parse(request.target, &realm.definition.paths)
}

/// Looks at a request, whose path was read, by its realm's rules.
pub fn match_request<'g>(
    realm: &'g MirroredRealm,
    request: &GatewayRequest<'g>,
    path: &'g Result<RequestPath<'_>, PathError>,
) -> RouteMatch<'g> {
    let headers = request.headers.iter().copied();
    let credentials = &realm.definition.credentials;
    let presented = if request
        .headers
        .iter()
        .any(|(name, _)| is_disguised(realm, name))
    {
        Err(Malformed)
    } else {
        credentials.read(headers)
    };
    let paths = &realm.definition.paths;
    let path = path.as_ref().map_err(|why| Unmatched::Path(*why));
    let matched = path.and_then(|path| {
        let matched = realm.routes.find(request.method, path, paths);
        matched.map_err(Unmatched::Route)
    });
    RouteMatch { matched, presented }
}

/// Whether a header would be taken for one of ours, or for one that carries a key, by servers that read `_` like `-` (CGI and
/// its heirs), though gateways do not.
fn is_disguised(realm: &MirroredRealm, name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let read = name.replace('_', "-");
    let mut carriers = realm.definition.credentials.names();
    read.starts_with("x-claviger-") || carriers.any(|carrier| carrier.as_str() == read)
}

/// Rules on a request, of which `decide` is asked if its key counts.
pub fn rule<'k>(
    realm: &MirroredRealm,
    environment: &Environment,
    request: &GatewayRequest<'_>,
    decide: impl FnOnce(&Question<'_>) -> Result<Decision<'k>, VerifyError>,
) -> Result<GatewayDecision<'k>, VerifyError> {
    let path = path_of(realm, request);
    let route_match = match_request(realm, request, &path);
    let denied = |verdict| GatewayDecision::Denied {
        class: DenialClass::of(verdict).unwrap_or(DenialClass::Forbidden),
        verdict,
    };
    let Ok(presented) = route_match.presented else {
        return Ok(denied(Verdict::Malformed));
    };
    if route_match.is_public() {
        return Ok(GatewayDecision::Allowed { key: None });
    }
    let decision = ask(
        &route_match,
        presented,
        realm,
        environment,
        request.client,
        decide,
    )?;
    Ok(match (decision.verdict, decision.proven) {
        (Verdict::Allowed, Some((key, _))) => GatewayDecision::Allowed { key: Some(key) },
        (verdict, _) => denied(verdict),
    })
}

impl RouteMatch<'_> {
    /// Whether the rule that counts asks for no key.
    pub fn is_public(&self) -> bool {
        matches!(
            self.matched,
            Ok(Matched {
                requirement: None,
                ..
            })
        )
    }
}

/// Asks the question of `verify::decide` for a request. Without a route the key is judged first; only a good key gets
/// [`Verdict::NoRoute`].
pub fn ask<T>(
    route_match: &RouteMatch<'_>,
    presented: Presented<'_>,
    realm: &MirroredRealm,
    environment: &Environment,
    client: Option<IpAddr>,
    answer: impl FnOnce(&Question<'_>) -> T,
) -> T {
    let matched = route_match.matched.as_ref().ok();
    let requirement = matched.and_then(|matched| matched.requirement);
    let projects = matched.map_or(&[][..], |matched| &matched.projects);
    let target = match requirement.map(|requirement| requirement.level) {
        None => Target::NoRoute,
        Some(RequiredLevel::Any) => Target::Any,
        Some(RequiredLevel::Project) => Target::OwnProject,
        Some(RequiredLevel::PartnerOrNamedProject) if !projects.is_empty() => Target::Any,
        Some(RequiredLevel::Partner | RequiredLevel::PartnerOrNamedProject) => Target::Partner,
    };
    answer(&Question {
        plain_key: presented.key,
        realm,
        environment: &environment.name,
        target,
        projects,
        partner: presented.partner,
        scopes: requirement.map_or_else(ScopeSet::default, |requirement| requirement.scopes),
        any_scopes: requirement
            .map_or_else(ScopeSet::default, |requirement| requirement.any_scopes),
        client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To drop a last entry that is the direct peer's, as was done once, lets whoever shares that address choose another.
    #[test]
    fn the_client_stands_as_many_places_from_the_end_as_hops_are_trusted() {
        let direct = "9.9.9.9".parse().ok();
        for (forwarded, hops, client) in [
            (&["10.1.1.1, 192.0.2.7"][..], 0, Some("9.9.9.9")),
            (&["10.1.1.1, 192.0.2.7"], 1, Some("192.0.2.7")),
            (&["10.1.1.1", "192.0.2.7"], 1, Some("192.0.2.7")),
            (&["10.1.1.1, 192.0.2.7"], 2, Some("10.1.1.1")),
            // Whoever shares the proxy's address chooses nothing.
            (&["10.1.1.1, 9.9.9.9"], 1, Some("9.9.9.9")),
            (&["10.1.1.1, 192.0.2.7"], 3, None),
            (&["10.1.1.1,"], 1, None),
            (&["10.1.1.1, 192.0.2.7:80"], 1, None),
            (&["unknown"], 1, None),
            (&["2001:db8::7"], 1, Some("2001:db8::7")),
            (&[], 1, None),
            (&["10.1.1.1"], usize::MAX, None),
        ] {
            let headers: Vec<_> = forwarded
                .iter()
                .map(|value| ("x-forwarded-for", value.as_bytes()))
                .collect();
            let expected = client.map(|client| client.parse::<IpAddr>().unwrap());
            assert_eq!(
                client_of(direct, &headers, hops),
                expected,
                "{forwarded:?} {hops}"
            );
        }
    }
}
