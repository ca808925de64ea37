//! The response to a gateway: the identity headers of an allowed request, or the realm's denial.

use std::borrow::Cow;

use crate::domain::credential::HeaderName;
use crate::domain::denial::{Denial, DenialClass};
use crate::domain::ids::ScopeName;
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredRealm};

/// The identity headers, which tell the server behind the gateway whose request it gets. Every allowed request gets all of them,
/// if need be with an empty value, so that headers of the same name that a client sent are always replaced.
pub const IDENTITY_HEADERS: [&str; 6] = [
    "x-claviger-key-id",
    "x-claviger-realm",
    "x-claviger-partner",
    "x-claviger-project",
    "x-claviger-environment",
    "x-claviger-scopes",
];

/// The response to a gateway.
#[derive(Debug)]
pub enum GatewayResponse {
    /// The gateway passes the request on.
    Allowed {
        /// The identity headers to set on the request.
        identity: Box<[(&'static str, String); 6]>,
        /// The headers to remove from the request.
        remove: Vec<String>,
    },
    /// The gateway denies the request.
    Denied {
        /// The class of the denial.
        class: DenialClass,
        /// The verdict; `None` in the class [`Undecided`](DenialClass::Undecided).
        verdict: Option<Verdict>,
        /// The response to the client.
        denial: HttpDenial,
    },
}

/// A denial as an HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDenial {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// The identity headers of a request with this key.
pub(super) fn identity(
    realm: &MirroredRealm,
    key: Option<KeyFacts<'_>>,
) -> [(&'static str, String); 6] {
    let values = key.map_or_else(Default::default, |key| {
        let scopes = realm.hierarchy.names(key.effective(&realm.hierarchy));
        [
            key.id().to_string(),
            key.realm().to_string(),
            key.partner().id.to_string(),
            key.project().map(ToString::to_string).unwrap_or_default(),
            key.environment().to_string(),
            scopes.map(ScopeName::as_str).collect::<Vec<_>>().join(" "),
        ]
    });
    let mut values = values.into_iter();
    IDENTITY_HEADERS.map(|name| (name, values.next().unwrap_or_default()))
}

/// The headers that the server behind the gateway must not see: those that carry keys, and headers of the client whose names
/// begin like an identity header.
pub(super) fn headers_to_remove(realm: &MirroredRealm, headers: &[(&str, &[u8])]) -> Vec<String> {
    let carriers = realm.definition.credentials.key_headers();
    let forged = headers
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.starts_with("x-claviger-") && !IDENTITY_HEADERS.contains(name));
    let mut names: Vec<String> = carriers
        .map(HeaderName::as_str)
        .chain(forged)
        .map(ToOwned::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The HTTP response for a class of denials in this realm. `reason` replaces the placeholder in the body.
pub(super) fn denial(
    realm: &MirroredRealm,
    class: DenialClass,
    reason: &str,
    has_key: bool,
) -> HttpDenial {
    let denial = realm.definition.denials.get(&class);
    let denial = denial.map_or_else(|| Cow::Owned(Denial::plain(class)), Cow::Borrowed);
    let mut headers: Vec<_> = denial
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.clone()))
        .collect();
    let challenges = headers.iter().any(|(name, _)| name == "www-authenticate");
    if !challenges && let Some(challenge) = challenge(realm, class, reason, has_key) {
        headers.push(("www-authenticate".to_owned(), challenge));
    }
    HttpDenial {
        status: denial.status,
        headers,
        body: denial.body_for(reason),
    }
}

/// The value of `www-authenticate`, which RFC 9110 (section 11.6.1) requires with each 401, and RFC 6750 (section 3) with a
/// bearer token whose scope is missing.
fn challenge(
    realm: &MirroredRealm,
    class: DenialClass,
    reason: &str,
    has_key: bool,
) -> Option<String> {
    let definition = &realm.definition;
    let source = definition.credentials.sources.first()?;
    let id = &definition.id;
    let error = match class {
        DenialClass::Unauthenticated if has_key => ", error=\"invalid_token\"",
        DenialClass::Unauthenticated => "",
        DenialClass::Forbidden if reason == Verdict::ScopeMissing.as_str() => {
            ", error=\"insufficient_scope\""
        }
        DenialClass::Forbidden | DenialClass::Undecided => return None,
    };
    match source.scheme() {
        Some(scheme) => Some(format!("{} realm=\"{id}\"{error}", scheme.as_str())),
        // No scheme is registered for a key in a header of its own; `ApiKey` is in common use.
        None if class == DenialClass::Unauthenticated => Some(format!(
            "ApiKey realm=\"{id}\", header=\"{}\"",
            source.header().as_str()
        )),
        None => None,
    }
}

/// The response to a gateway whose request is denied with this verdict.
pub(super) fn denied(
    realm: &MirroredRealm,
    class: DenialClass,
    verdict: Verdict,
    has_key: bool,
) -> GatewayResponse {
    GatewayResponse::Denied {
        class,
        verdict: Some(verdict),
        denial: denial(realm, class, verdict.as_str(), has_key),
    }
}
