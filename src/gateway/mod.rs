//! The authorization of whole requests for gateways. The realm defines which header carries the API key and what each route
//! needs; [`verify`](crate::verify) decides on the key.
//!
//! Every request of a client gets a decision. Errors come only from a wrong configuration of the gateway, or from a server that
//! cannot decide.

mod authorizer;
mod response;

use std::net::{IpAddr, SocketAddr};

pub use authorizer::{GatewayAuthorizer, GatewayError, ProtectedApi};
pub use response::{GatewayResponse, HttpDenial, IDENTITY_HEADERS, SetHeader};

use crate::domain::access::ScopeSet;
use crate::domain::credential::{CredentialError, Presented};
use crate::domain::denial::{DenialClass, DenialReason};
use crate::domain::ids::{EnvironmentName, RealmId};
use crate::domain::path::{PathError, RequestPath};
use crate::domain::realm::Environment;
use crate::domain::route::{Matched, NoRoute, RequiredLevel, RouteAccess};
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredRealm};
use crate::telemetry::limited;
use crate::verify::{Decision, Moment, Question, Target, VerifyError};

/// A client's request as the gateway received it.
pub struct GatewayRequest<'r> {
    /// The HTTP method.
    pub method: &'r str,
    /// The request target: the path, optionally with a query.
    pub target: &'r str,
    /// The headers, names in lower case, one entry for each occurrence of a header.
    pub headers: &'r [(&'r str, &'r [u8])],
    /// The client address as the gateway reports it.
    pub client: Option<IpAddr>,
}

/// Returns the client address. `direct` is the other end of the connection to the gateway, and the result without trusted hops.
/// With trusted hops, the address is the entry of `x-forwarded-for` that is as many places from the end. The entries are not
/// compared with `direct`, because then a client could choose its address. Without such an entry the result is `None`, which no
/// key with allowed addresses admits.
pub fn client_address(
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
    let index = hops.len().checked_sub(trusted_hops)?;
    read_address(hops.get(index)?)
}

/// Reads an entry of `x-forwarded-for`: an address, which some proxies write with a port. IPv6 is in brackets then.
fn read_address(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse() {
        return Some(address);
    }
    if let Ok(with_port) = entry.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse().ok().map(IpAddr::V6)
}

/// Why a gateway without a client certificate gets no answer where one is required.
pub const CLIENT_CERTIFICATE_REQUIRED: &str = "CLIENT_CERTIFICATE_REQUIRED: the gateway must connect with a client certificate \
                                               from an issuer of the server's --client-ca";

/// Logs why a gateway gets no answer, and for which API and request if that is known. The gateway's own log says no more than that there was
/// none.
pub fn log_misconfigured(
    why: &str,
    peer: Option<IpAddr>,
    api: Option<ProtectedApi<'_>>,
    request_id: Option<&str>,
) {
    // Anybody can send these names, and only what can be a name is written down.
    let realm = api.and_then(|api| RealmId::parse(api.realm).ok());
    let environment = api.and_then(|api| EnvironmentName::parse(api.environment).ok());
    limited!(
        why => warn,
        why,
        peer = peer.map(tracing::field::display),
        realm = realm.map(tracing::field::display),
        environment = environment.map(tracing::field::display),
        request_id,
        "gateway misconfigured"
    );
}

/// The beginning of the names of the headers with labels. No honest client sends one. A request that has one is denied: a gateway whose
/// configuration is older than the realm does not know which of them to replace.
const LABEL_HEADERS: &str = "x-claviger-label-";

/// The decision on a whole request.
pub enum GatewayDecision<'k> {
    /// The request is allowed.
    Allowed {
        /// The key of the request; `None` on a public route.
        key: Option<KeyFacts<'k>>,
    },
    /// The request is denied.
    Denied {
        /// The class of the denial, which selects the HTTP response.
        class: DenialClass,
        /// The verdict.
        verdict: Verdict,
        /// What the verdict does not tell about a mistake with the credentials.
        reason: DenialReason,
    },
}

/// The route and the credentials of a request, compared with its realm.
pub struct RouteMatch<'g> {
    /// The route that applies, or the reason why none does.
    pub matched: Result<Matched<'g, 'g>, MatchError>,
    /// The credentials in the request's headers.
    pub presented: Result<Presented<'g>, CredentialError>,
}

/// The reason why no route applies to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchError {
    /// The path cannot be parsed.
    Path(PathError),
    /// The path was parsed, but no route applies to it.
    Route(NoRoute),
}

/// Parses the path of a request as the server behind the gateway reads it.
pub fn parse_path<'r>(
    realm: &MirroredRealm,
    request: &GatewayRequest<'r>,
) -> Result<RequestPath<'r>, PathError> {
    RequestPath::parse(request.target, &realm.definition.paths)
}

/// Matches a request and its parsed path with the routes and the credential sources of its realm.
pub fn match_request<'g>(
    realm: &'g MirroredRealm,
    request: &GatewayRequest<'g>,
    path: &'g Result<RequestPath<'_>, PathError>,
) -> RouteMatch<'g> {
    let credentials = &realm.definition.credentials;
    let presented = if request
        .headers
        .iter()
        .any(|(name, _)| is_disguised(realm, name) || name.starts_with(LABEL_HEADERS))
    {
        Err(CredentialError::Malformed)
    } else {
        credentials.read(request.headers)
    };
    let paths = &realm.definition.paths;
    let path = path.as_ref().map_err(|error| MatchError::Path(*error));
    let matched = path.and_then(|path| {
        let matched = realm.routes.find(request.method, path, paths);
        matched.map_err(MatchError::Route)
    });
    RouteMatch { matched, presented }
}

/// Whether a header has `_` for `-` in the name of an identity header or of a header that carries credentials. Servers that
/// follow CGI read both characters alike, gateways do not.
fn is_disguised(realm: &MirroredRealm, name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let normalized = name.replace('_', "-");
    let mut carriers = realm.definition.credentials.names();
    normalized.starts_with("x-claviger-") || carriers.any(|carrier| carrier == normalized)
}

/// Decides whether a request is allowed. Calls `decide` only if the request needs a key.
///
/// # Errors
/// Those of `decide`. [`VerifyError::LeaseLapsed`] also on a public route, which may have been closed since.
pub fn authorize<'k>(
    realm: &MirroredRealm,
    environment: &Environment,
    request: &GatewayRequest<'_>,
    moment: Moment,
    decide: impl FnOnce(&str, &Question<'_>) -> Result<Decision<'k>, VerifyError>,
) -> Result<GatewayDecision<'k>, VerifyError> {
    let path = parse_path(realm, request);
    let route_match = match_request(realm, request, &path);
    let denied = |verdict, reason: DenialReason, key: Option<KeyFacts<'_>>| {
        tracing::debug!(
            realm = %realm.definition.id,
            verdict = reason.verdict(),
            reason = reason.as_str(),
            method = ?logged_method(request),
            path = ?logged_path(request.target),
            client = request.client.map(tracing::field::display),
            key_id = key.map(|key| tracing::field::display(key.id())),
            "request denied"
        );
        GatewayDecision::Denied {
            class: DenialClass::of(verdict).unwrap_or(DenialClass::Forbidden),
            verdict,
            reason,
        }
    };
    let presented = match &route_match.presented {
        Ok(presented) => presented,
        Err(error) => {
            let reason = DenialReason::Credentials(*error);
            return Ok(denied(Verdict::Malformed, reason, None));
        }
    };
    if !route_match.asks_about(presented) {
        moment.check_lease()?;
        return Ok(GatewayDecision::Allowed { key: None });
    }
    let decision = with_question(
        &route_match,
        presented,
        realm,
        environment,
        request.client,
        decide,
    )?;
    if decision.verdict == Verdict::AddressDenied && request.client.is_none() {
        limited!(
            warn,
            realm = %realm.definition.id,
            "key with address ranges denied: the client's address is unknown; check --trusted-hops, or trusted_hops of Envoy, and what \
             the proxies before the gateway write to x-forwarded-for"
        );
    }
    let key = decision.proven.map(|(key, _)| key);
    Ok(match (decision.verdict, &presented.key) {
        (Verdict::Allowed, _) if key.is_some() => GatewayDecision::Allowed { key },
        (verdict, None) => denied(verdict, DenialReason::NoKey, None),
        (verdict, Some(_)) => denied(verdict, DenialReason::Verdict(verdict), key),
    })
}

/// The longest path in the log, in bytes.
const MAX_LOGGED_PATH: usize = 256;

/// An imported API key has at least so many characters, and an issued one has more. A segment of a path that is as long may be one,
/// in the wrong place.
const SHORTEST_KEY: usize = 22;

/// The path of a request as the log may show it: without the query, and without a segment that may be an API key.
fn logged_path(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut shown = String::new();
    for segment in path.split_inclusive('/') {
        if segment.len() >= SHORTEST_KEY {
            shown.push('…');
            shown.push_str(if segment.ends_with('/') { "/" } else { "" });
        } else {
            shown.push_str(segment);
        }
        if shown.len() > MAX_LOGGED_PATH {
            shown.push('…');
            break;
        }
    }
    shown
}

/// The method of a request as the log may show it.
fn logged_method<'r>(request: &GatewayRequest<'r>) -> &'r str {
    match request.method {
        method if method.len() < SHORTEST_KEY => method,
        _ => "…",
    }
}

impl RouteMatch<'_> {
    /// Whether the key of the request is to be verified. Otherwise the request passes without an identity.
    pub fn asks_about(&self, presented: &Presented<'_>) -> bool {
        let access = self.matched.as_ref().map(|matched| matched.access);
        match access {
            Ok(RouteAccess::Public) => false,
            Ok(RouteAccess::OptionalKey) => presented.key.is_some(),
            Ok(RouteAccess::Key(_)) | Err(_) => true,
        }
    }
}

/// Calls `answer` with the request's API key and the question about it, and returns its result. If no route applies, the key is checked
/// all the same: only a key without any other objection gets [`Verdict::NoRoute`].
pub fn with_question<T>(
    route_match: &RouteMatch<'_>,
    presented: &Presented<'_>,
    realm: &MirroredRealm,
    environment: &Environment,
    client: Option<IpAddr>,
    answer: impl FnOnce(&str, &Question<'_>) -> T,
) -> T {
    let matched = route_match.matched.as_ref().ok();
    let requirement = matched.and_then(|matched| match matched.access {
        RouteAccess::Key(requirement) => Some(requirement),
        RouteAccess::Public | RouteAccess::OptionalKey => None,
    });
    let projects = matched.map_or(&[][..], |matched| &matched.projects);
    let target = match (matched, requirement.map(|requirement| requirement.level)) {
        (None, _) => Target::NoRoute,
        (Some(_), None | Some(RequiredLevel::Any)) => Target::Any,
        (_, Some(RequiredLevel::Project)) => Target::OwnProject,
        (_, Some(RequiredLevel::PartnerOrNamedProject)) if !projects.is_empty() => Target::Any,
        (_, Some(RequiredLevel::Partner | RequiredLevel::PartnerOrNamedProject)) => Target::Partner,
    };
    let question = Question {
        realm,
        environment: &environment.name,
        target,
        projects,
        partner: presented.partner,
        scopes: requirement.map_or_else(ScopeSet::default, |requirement| requirement.scopes),
        any_scopes: requirement
            .map_or_else(ScopeSet::default, |requirement| requirement.any_scopes),
        client,
    };
    answer(presented.key.as_deref().unwrap_or_default(), &question)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red without the length.
    #[test]
    fn no_key_in_a_path_is_logged() {
        let key =
            "demo_live_02y8wgU7QvIaB4J9cANFdL003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2CbwAq";
        assert_eq!(logged_path("/v1/a?key=k"), "/v1/a");
        assert_eq!(logged_path(&format!("/v1/{key}/a")), "/v1/…/a");
        assert_eq!(
            logged_path("/v1/0192f0c1-2345-7abc-8def-0123456789ab"),
            "/v1/…"
        );
        assert_eq!(logged_path("/v1/TtgGcQFq.s3fzROFoop8uH"), "/v1/…");
        let long = logged_path(&"/abc".repeat(100));
        assert!(long.len() < 270 && long.ends_with('…'), "{long}");
    }

    /// An earlier version dropped a last entry that equals the direct peer. A client with that address could then choose another.
    #[test]
    fn the_client_address_is_as_many_places_from_the_end_as_hops_are_trusted() {
        let direct = "9.9.9.9".parse().ok();
        for (forwarded, hops, client) in [
            (&["10.1.1.1, 192.0.2.7"][..], 0, Some("9.9.9.9")),
            (&["10.1.1.1, 192.0.2.7"], 1, Some("192.0.2.7")),
            (&["10.1.1.1", "192.0.2.7"], 1, Some("192.0.2.7")),
            (&["10.1.1.1, 192.0.2.7"], 2, Some("10.1.1.1")),
            // A client that shares the proxy's address cannot choose another one.
            (&["10.1.1.1, 9.9.9.9"], 1, Some("9.9.9.9")),
            (&["10.1.1.1, 192.0.2.7"], 3, None),
            (&["10.1.1.1,"], 1, None),
            (&["10.1.1.1, 192.0.2.7:80"], 1, Some("192.0.2.7")),
            (&["192.0.2.7:80:80"], 1, None),
            (&["192.0.2.7:65536"], 1, None),
            (&["[192.0.2.7]:80"], 1, None),
            (&["unknown"], 1, None),
            (&["_hidden:80"], 1, None),
            (&["2001:db8::7"], 1, Some("2001:db8::7")),
            (&["[2001:db8::7]:443"], 1, Some("2001:db8::7")),
            (&["[2001:db8::7]"], 1, Some("2001:db8::7")),
            (&["[2001:db8::7"], 1, None),
            (&["[::ffff:192.0.2.7]:80"], 1, Some("::ffff:192.0.2.7")),
            (&[], 1, None),
            (&["10.1.1.1"], usize::MAX, None),
        ] {
            let headers: Vec<_> = forwarded
                .iter()
                .map(|value| ("x-forwarded-for", value.as_bytes()))
                .collect();
            let expected = client.map(|client| client.parse::<IpAddr>().unwrap());
            assert_eq!(
                client_address(direct, &headers, hops),
                expected,
                "{forwarded:?} {hops}"
            );
        }
    }
}
