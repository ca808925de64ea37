//! The response to a gateway: the identity headers of an allowed request, or the realm's denial.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::credential::CredentialSource;
use crate::domain::denial::{Denial, DenialClass, DenialReason};
use crate::domain::ids::ScopeName;
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredRealm};

/// The identity headers that every allowed request gets, if need be with an empty value, so that headers of the same name that a
/// client sent are always replaced. A realm may add labels of the key to them.
pub const IDENTITY_HEADERS: [&str; 6] = [
    "x-claviger-key-id",
    "x-claviger-realm",
    "x-claviger-partner",
    "x-claviger-project",
    "x-claviger-environment",
    "x-claviger-scopes",
];

/// The characters of a label's value that are encoded: all but the unreserved ones (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A header and its value.
pub type SetHeader = (Cow<'static, str>, String);

/// The response to a gateway.
#[derive(Debug)]
pub enum GatewayResponse {
    /// The gateway passes the request on.
    Allowed {
        /// The identity headers to set on the request.
        identity: Vec<SetHeader>,
        /// The headers that carried keys beside other values, without the keys. They replace the client's. An empty one is removed
        /// where the gateway can do it.
        without_keys: Vec<(&'static str, String)>,
        /// The headers to remove from the request.
        remove: Vec<String>,
    },
    /// The gateway denies the request.
    Denied {
        /// The class of the denial.
        class: DenialClass,
        /// Why.
        reason: DenialReason,
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

/// The response to a gateway whose request passes, with this key if it has one.
pub(super) fn allowed(
    realm: &MirroredRealm,
    key: Option<KeyFacts<'_>>,
    headers: &[(&str, &[u8])],
) -> GatewayResponse {
    GatewayResponse::Allowed {
        identity: identity(realm, key),
        without_keys: realm.definition.credentials.without_keys(headers),
        remove: headers_to_remove(realm, headers),
    }
}

/// The identity headers of a request with this key.
fn identity(realm: &MirroredRealm, key: Option<KeyFacts<'_>>) -> Vec<SetHeader> {
    let values: [String; 6] = key.map_or_else(Default::default, |key| {
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
    let names = IDENTITY_HEADERS.map(Cow::Borrowed);
    let labels = realm.definition.identity_labels.iter().map(|label| {
        let mut labels = key.iter().flat_map(|key| key.name_and_labels().labels());
        let value = labels.find(|(name, _)| *name == label.name());
        let value = value.map_or_else(String::new, |(_, value)| {
            utf8_percent_encode(value, ENCODED).to_string()
        });
        (Cow::Owned(label.header().to_owned()), value)
    });
    names.into_iter().zip(values).chain(labels).collect()
}

/// The headers that the server behind the gateway must not see: those that carry keys alone, and headers of the client whose names
/// begin like an identity header.
fn headers_to_remove(realm: &MirroredRealm, headers: &[(&str, &[u8])]) -> Vec<String> {
    let definition = &realm.definition;
    let carriers = definition.credentials.sources.iter();
    let carriers = carriers
        .filter(|source| !source.shares_its_header())
        .map(CredentialSource::header);
    let forged = headers
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.starts_with("x-claviger-") && !IDENTITY_HEADERS.contains(name));
    let mut names: Vec<String> = carriers.chain(forged).map(ToOwned::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// The HTTP response for a denial of this class in this realm.
pub(super) fn denial(
    realm: &MirroredRealm,
    class: DenialClass,
    reason: DenialReason,
) -> HttpDenial {
    let denial = realm.definition.denials.get(&class);
    let denial = denial.map_or_else(|| Cow::Owned(Denial::plain(class)), Cow::Borrowed);
    let mut headers: Vec<_> = denial
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.clone()))
        .collect();
    let challenges = headers.iter().any(|(name, _)| name == "www-authenticate");
    if !challenges && let Some(challenge) = challenge(realm, class, reason) {
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
fn challenge(realm: &MirroredRealm, class: DenialClass, reason: DenialReason) -> Option<String> {
    let definition = &realm.definition;
    let source = definition.credentials.sources.first()?;
    let id = &definition.id;
    let error = match (class, reason) {
        (DenialClass::Unauthenticated, DenialReason::NoKey) => "",
        (DenialClass::Unauthenticated, _) => ", error=\"invalid_token\"",
        (DenialClass::Forbidden, DenialReason::Verdict(Verdict::ScopeMissing)) => {
            ", error=\"insufficient_scope\""
        }
        (DenialClass::Forbidden | DenialClass::Undecided, _) => return None,
    };
    if let CredentialSource::Header {
        scheme: Some(scheme),
        ..
    } = source
    {
        return Some(format!("{} realm=\"{id}\"{error}", scheme.as_str()));
    }
    // No scheme is registered for a key in another place; `ApiKey` is in common use.
    let place = match source {
        CredentialSource::Header { name, .. } => format!("header=\"{}\"", name.as_str()),
        CredentialSource::Cookie { name } => format!("cookie=\"{}\"", name.as_str()),
        CredentialSource::WebsocketProtocol { .. } => format!("header=\"{}\"", source.header()),
    };
    (class == DenialClass::Unauthenticated).then(|| format!("ApiKey realm=\"{id}\", {place}"))
}

/// The response to a gateway whose request is denied.
pub(super) fn denied(
    realm: &MirroredRealm,
    class: DenialClass,
    reason: DenialReason,
) -> GatewayResponse {
    GatewayResponse::Denied {
        class,
        reason,
        denial: denial(realm, class, reason),
    }
}
