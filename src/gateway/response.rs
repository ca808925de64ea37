//! What a gateway is told: whose request it is, or how to deny it.

use std::borrow::Cow;

use crate::domain::credential::HeaderName;
use crate::domain::denial::{Denial, DenialClass};
use crate::domain::ids::ScopeName;
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredRealm};

/// The headers that tell the server behind the gateway whose request it is. All of them are set on every request that is let
/// through, even to nothing, so that a client's own never pass for ours.
pub const IDENTITY_HEADERS: [&str; 6] = [
    "x-claviger-key-id",
    "x-claviger-realm",
    "x-claviger-partner",
    "x-claviger-project",
    "x-claviger-environment",
    "x-claviger-scopes",
];

/// What a gateway is told.
#[derive(Debug)]
pub enum GatewayResponse {
    /// Let it through.
    Allowed {
        /// What to tell the server behind.
        identity: Box<[(&'static str, String); 6]>,
        /// The headers of the request that the server behind must not see.
        remove: Vec<String>,
    },
    /// GatewayResponse it so.
    Denied {
        /// In HTTP's words.
        class: DenialClass,
        /// The answer.
        told: HttpDenial,
    },
}

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDenial {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Whose request it is.
pub(super) fn identity(
    realm: &MirroredRealm,
    key: Option<&KeyFacts>,
) -> [(&'static str, String); 6] {
    let told = key.map_or_else(Default::default, |key| {
        let scopes = realm.hierarchy.names(key.effective(&realm.hierarchy));
        [
            key.id.to_string(),
            key.realm().to_string(),
            key.partner.id.to_string(),
            key.project
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            key.environment().to_string(),
            scopes.map(ScopeName::as_str).collect::<Vec<_>>().join(" "),
        ]
    });
    let mut told = told.into_iter();
    IDENTITY_HEADERS.map(|name| (name, told.next().unwrap_or_default()))
}

/// What the server behind must not see: what carries a key, and whatever a client made up that looks like ours.
pub(super) fn to_remove(realm: &MirroredRealm, headers: &[(&str, &[u8])]) -> Vec<String> {
    let secrets = realm.definition.credentials.secrets();
    let made_up = headers
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.starts_with("x-claviger-") && !IDENTITY_HEADERS.contains(name));
    let mut names: Vec<String> = secrets
        .map(HeaderName::as_str)
        .chain(made_up)
        .map(ToOwned::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// How the realm tells a denial.
pub(super) fn denial(
    realm: &MirroredRealm,
    class: DenialClass,
    reason: &str,
    has_key: bool,
) -> HttpDenial {
    let told = realm.definition.denials.get(&class);
    let told = told.map_or_else(|| Cow::Owned(Denial::plain(class)), Cow::Borrowed);
    let mut headers: Vec<_> = told
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.clone()))
        .collect();
    let challenges = headers.iter().any(|(name, _)| name == "www-authenticate");
    if !challenges && let Some(challenge) = challenge(realm, class, reason, has_key) {
        headers.push(("www-authenticate".to_owned(), challenge));
    }
    HttpDenial {
        status: told.status,
        headers,
        body: told.body_for(reason),
    }
}

/// What RFC 9110 (section 11.6.1) wants with each 401, and RFC 6750 (section 3) with a bearer's missing scope.
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
        // No scheme is registered for a key that stands alone; this is what is commonly said.
        None if class == DenialClass::Unauthenticated => Some(format!(
            "ApiKey realm=\"{id}\", header=\"{}\"",
            source.header().as_str()
        )),
        None => None,
    }
}

/// How the realm tells what is said of a request.
pub(super) fn denied(
    realm: &MirroredRealm,
    class: DenialClass,
    verdict: Verdict,
    has_key: bool,
) -> GatewayResponse {
    GatewayResponse::Denied {
        class,
        told: denial(realm, class, verdict.as_str(), has_key),
    }
}
