//! Decodes and encodes the part of a realm that gateways use: credentials, routes, path rules and denials.

use std::collections::BTreeMap;

use crate::domain::credential::{self, CredentialSource, Credentials, HeaderName, Scheme, Token};
use crate::domain::denial::{self, Denial, DenialClass, Denials};
use crate::domain::ids::ScopeName;
use crate::domain::path::{EncodedCharacters, PathRules, TrailingSlash};
use crate::domain::realm::{IdentityLabel, MAX_IDENTITY_LABELS};
use crate::domain::route::{KeyNeed, MAX_ROUTES, Method, Need, PathTemplate, Reach, Route};
use crate::domain::violation::Violations;
use crate::grpc::{decode, encode};
use crate::pb::claviger::v1 as pb;

const MAX_METHODS: usize = 16;
const MAX_SCOPES_OF_A_ROUTE: usize = 64;
const MAX_HEADER_VALUE: usize = 512;

/// The part of a WebSocket protocol before the key, if a realm names none.
const USUAL_PROTOCOL: &str = "claviger.bearer.";

pub(super) fn parse_credentials(
    bad: &mut Violations,
    credentials: Option<pb::Credentials>,
) -> Credentials {
    let pb::Credentials {
        sources,
        partner_header,
    } = credentials.unwrap_or_default();
    if sources.len() > credential::MAX_SOURCES {
        bad.add("realm.credentials.sources", "must have at most 8 entries");
        return Credentials::default();
    }
    let sources: Vec<_> = sources
        .into_iter()
        .enumerate()
        .filter_map(|(i, source)| {
            parse_source(bad, &format!("realm.credentials.sources[{i}]"), source)
        })
        .collect();
    let field = "realm.credentials.partner_header";
    let partner = decode::optional(bad, field, &partner_header, |name| {
        HeaderName::parse(name).and_then(of_client)
    });
    if partner.is_some() && sources.is_empty() {
        bad.add(
            field,
            "needs at least one credential source: add one to `sources`",
        );
    }
    Credentials { sources, partner }
}

fn parse_source(
    bad: &mut Violations,
    field: &str,
    source: pb::CredentialSource,
) -> Option<CredentialSource> {
    use pb::credential_source::{Cookie, Header, Source, WebsocketProtocol};
    match source.source {
        None => {
            bad.add(
                field,
                "is required: set `header`, `cookie` or `websocket_protocol`",
            );
            None
        }
        Some(Source::Header(Header { name, scheme })) => {
            let name = HeaderName::parse(&name).and_then(carrier);
            let name = bad.check(format!("{field}.header.name"), name);
            let field = format!("{field}.header.scheme");
            let scheme = decode::optional(bad, &field, &scheme, Scheme::parse);
            name.map(|name| CredentialSource::Header { name, scheme })
        }
        Some(Source::Cookie(Cookie { name })) => {
            let name = bad.check(format!("{field}.cookie.name"), Token::parse(&name));
            name.map(|name| CredentialSource::Cookie { name })
        }
        Some(Source::WebsocketProtocol(WebsocketProtocol { prefix })) => {
            let prefix = if prefix.is_empty() {
                USUAL_PROTOCOL
            } else {
                &prefix
            };
            let field = format!("{field}.websocket_protocol.prefix");
            let prefix = bad.check(field, Token::parse(prefix));
            prefix.map(|prefix| CredentialSource::WebsocketProtocol { prefix })
        }
    }
}

pub(super) fn parse_identity_labels(bad: &mut Violations, names: &[String]) -> Vec<IdentityLabel> {
    if names.len() > MAX_IDENTITY_LABELS {
        bad.add("realm.identity_labels", "must have at most 8 entries");
        return Vec::new();
    }
    names
        .iter()
        .enumerate()
        .filter_map(|(i, name)| {
            bad.check(
                format!("realm.identity_labels[{i}]"),
                IdentityLabel::parse(name),
            )
        })
        .collect()
}

/// The beginnings of the names of headers that gateways set.
const GATEWAY_PREFIXES: [&str; 5] = [
    "x-accel-",
    "x-claviger-",
    "x-envoy-",
    "x-forwarded-",
    "x-original-",
];

/// Returns the name of a header that can carry a key.
fn carrier(name: HeaderName) -> Result<HeaderName, &'static str> {
    match name.as_str() {
        "cookie" => Err("carries many values: use the source `cookie` instead"),
        "sec-websocket-protocol" => {
            Err("carries many values: use the source `websocket_protocol` instead")
        }
        "connection" | "content-length" | "content-type" | "expect" | "host" | "keep-alive"
        | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
            Err("has a meaning for every request: use `authorization` or a header of your own")
        }
        _ => of_client(name),
    }
}

/// Returns the name of a header that a client can set: gateways set or remove the others themselves.
fn of_client(name: HeaderName) -> Result<HeaderName, &'static str> {
    let is_of_gateways = matches!(
        name.as_str(),
        "forwarded" | "proxy-authorization" | "x-real-ip" | "x-request-id"
    ) || GATEWAY_PREFIXES
        .iter()
        .any(|prefix| name.as_str().starts_with(prefix));
    if is_of_gateways {
        Err("is set by gateways: use `authorization` or a header of your own")
    } else {
        Ok(name)
    }
}

pub(super) fn parse_routes(bad: &mut Violations, routes: Vec<pb::Route>) -> Vec<Route> {
    if routes.len() > MAX_ROUTES {
        bad.add("realm.routes", "must have at most 1,000 entries");
        return Vec::new();
    }
    routes
        .into_iter()
        .enumerate()
        .filter_map(|(i, route)| parse_route(bad, &format!("realm.routes[{i}]"), route))
        .collect()
}

fn parse_route(bad: &mut Violations, field: &str, route: pb::Route) -> Option<Route> {
    let pb::Route {
        methods,
        path,
        target,
        partner_key,
        scopes,
        any_scopes,
        optional_key,
    } = route;
    if methods.len() > MAX_METHODS {
        bad.add(format!("{field}.methods"), "must have at most 16 entries");
        return None;
    }
    let mut methods: Vec<_> = methods
        .iter()
        .enumerate()
        .filter_map(|(i, method)| bad.check(format!("{field}.methods[{i}]"), Method::parse(method)))
        .collect();
    methods.sort();
    methods.dedup();
    let path = bad.check(format!("{field}.path"), PathTemplate::parse(&path));
    let scopes = parse_scopes(bad, &format!("{field}.scopes"), &scopes);
    let any_scopes = parse_scopes(bad, &format!("{field}.any_scopes"), &any_scopes);
    let reach = parse_reach(bad, field, target, partner_key);
    for (name, scopes) in [("scopes", &scopes), ("any_scopes", &any_scopes)] {
        if reach.is_none() && !scopes.is_empty() {
            bad.add(
                format!("{field}.{name}"),
                "must be unset because the route is public",
            );
        }
    }
    if optional_key && reach.is_some() {
        bad.add(
            format!("{field}.optional_key"),
            "can be set only with `public`",
        );
    }
    let need = match reach {
        None if optional_key => Need::OptionalKey,
        None => Need::Public,
        Some(reach) => Need::Key(KeyNeed {
            reach,
            scopes,
            any_scopes,
        }),
    };
    path.map(|path| Route {
        methods,
        path,
        need,
    })
}

/// Decodes what a key must reach. Returns `None` for a public route.
fn parse_reach(
    bad: &mut Violations,
    field: &str,
    target: Option<pb::route::Target>,
    partner_key: bool,
) -> Option<Reach> {
    use pb::route::Target;
    let mut refuse =
        |name: &str, description: &str| bad.add(format!("{field}.{name}"), description);
    if let Some(Target::Public(false)) = target {
        refuse("public", "must be true or unset");
    }
    if let Some(Target::AnyTarget(false)) = target {
        refuse("any_target", "must be true or unset");
    }
    if let Some(Target::OwnProject(false)) = target {
        refuse("own_project", "must be true or unset");
    }
    if partner_key && !matches!(target, None | Some(Target::Project(_))) {
        refuse(
            "partner_key",
            "can be set only with `project`, or without a target",
        );
    }
    match target {
        None if partner_key => Some(Reach::PartnerKey),
        None => Some(Reach::Partner),
        Some(Target::Public(_)) => None,
        Some(Target::AnyTarget(_)) => Some(Reach::Any),
        Some(Target::OwnProject(_)) => Some(Reach::OwnProject),
        Some(Target::Project(parameter)) if partner_key => Some(Reach::ProjectByPartner(parameter)),
        Some(Target::Project(parameter)) => Some(Reach::Project(parameter)),
    }
}

fn parse_scopes(bad: &mut Violations, field: &str, scopes: &[String]) -> Vec<ScopeName> {
    if scopes.len() > MAX_SCOPES_OF_A_ROUTE {
        bad.add(field, "must have at most 64 entries");
        return Vec::new();
    }
    let mut scopes: Vec<_> = scopes
        .iter()
        .enumerate()
        .filter_map(|(i, scope)| bad.check(format!("{field}[{i}]"), ScopeName::parse(scope)))
        .collect();
    scopes.sort();
    scopes.dedup();
    scopes
}

/// Decodes how the realm's server reads paths. `Realm::check` validates the project segments.
pub(super) fn parse_paths(
    bad: &mut Violations,
    project_segments: Vec<String>,
    lenient: bool,
    trailing_slash: i32,
    encoded_characters: i32,
) -> PathRules {
    use pb::{EncodedCharacters as Encoded, TrailingSlash as Slash};
    let trailing_slash = match Slash::try_from(trailing_slash) {
        Ok(Slash::Unspecified | Slash::Deny) => Ok(TrailingSlash::Deny),
        Ok(Slash::Significant) => Ok(TrailingSlash::Significant),
        Ok(Slash::Ignored) => Ok(TrailingSlash::Ignored),
        Err(_) => {
            Err("must be TRAILING_SLASH_DENY, TRAILING_SLASH_SIGNIFICANT or TRAILING_SLASH_IGNORED")
        }
    };
    let encoded_characters = match Encoded::try_from(encoded_characters) {
        Ok(Encoded::Unspecified | Encoded::Deny) => Ok(EncodedCharacters::Deny),
        Ok(Encoded::Keep) => Ok(EncodedCharacters::Keep),
        Err(_) => Err("must be ENCODED_CHARACTERS_DENY or ENCODED_CHARACTERS_KEEP"),
    };
    PathRules {
        project_segments,
        lenient,
        trailing_slash: bad
            .check("realm.trailing_slash", trailing_slash)
            .unwrap_or_default(),
        encoded_characters: bad
            .check("realm.encoded_characters", encoded_characters)
            .unwrap_or_default(),
    }
}

pub(super) fn trailing_slash(setting: TrailingSlash) -> pb::TrailingSlash {
    match setting {
        TrailingSlash::Deny => pb::TrailingSlash::Deny,
        TrailingSlash::Significant => pb::TrailingSlash::Significant,
        TrailingSlash::Ignored => pb::TrailingSlash::Ignored,
    }
}

pub(super) fn encoded_characters(setting: EncodedCharacters) -> pb::EncodedCharacters {
    match setting {
        EncodedCharacters::Deny => pb::EncodedCharacters::Deny,
        EncodedCharacters::Keep => pb::EncodedCharacters::Keep,
    }
}

pub(super) fn parse_denials(bad: &mut Violations, denials: Vec<pb::Denial>) -> Denials {
    let mut decoded = Denials::new();
    if denials.len() > DenialClass::COUNT {
        bad.add("realm.denials", "must have at most 3 entries");
        return decoded;
    }
    for (i, denial) in denials.into_iter().enumerate() {
        let field = format!("realm.denials[{i}]");
        let pb::Denial {
            denial_class,
            status,
            headers,
            body,
        } = denial;
        let class = bad.check(format!("{field}.denial_class"), parse_class(denial_class));
        let (statuses, rule) = match class {
            // A client must be able to tell an outage from a bad key.
            Some(DenialClass::Undecided) => (500..=599, "must be 500 to 599, or unset"),
            _ => (400..=499, "must be 400 to 499, or unset"),
        };
        if status != 0 && !statuses.contains(&status) {
            bad.add(format!("{field}.status"), rule);
        }
        if body.len() > denial::MAX_BODY {
            bad.add(format!("{field}.body"), "must be at most 4,096 bytes");
        }
        if body.contains('\0') {
            bad.add(format!("{field}.body"), "must not contain U+0000");
        }
        let headers = parse_headers(bad, &field, headers);
        let Some(class) = class else { continue };
        let status = match status {
            0 => class.status(),
            status => u16::try_from(status).unwrap_or(class.status()),
        };
        let denial = Denial {
            status,
            headers,
            body,
        };
        if decoded.insert(class, denial).is_some() {
            bad.add(format!("{field}.denial_class"), "must be unique");
        }
    }
    decoded
}

fn parse_class(class: i32) -> Result<DenialClass, &'static str> {
    match pb::DenialClass::try_from(class) {
        Ok(pb::DenialClass::Unauthenticated) => Ok(DenialClass::Unauthenticated),
        Ok(pb::DenialClass::Forbidden) => Ok(DenialClass::Forbidden),
        Ok(pb::DenialClass::Undecided) => Ok(DenialClass::Undecided),
        Ok(pb::DenialClass::Unspecified) | Err(_) => Err(
            "must be DENIAL_CLASS_UNAUTHENTICATED, DENIAL_CLASS_FORBIDDEN or DENIAL_CLASS_UNDECIDED",
        ),
    }
}

fn parse_headers(
    bad: &mut Violations,
    field: &str,
    headers: BTreeMap<String, String>,
) -> BTreeMap<HeaderName, String> {
    let field = format!("{field}.headers");
    let mut decoded = BTreeMap::new();
    if headers.len() > denial::MAX_HEADERS {
        bad.add(field.as_str(), "must have at most 16 entries");
        return decoded;
    }
    for (name, value) in headers {
        let parsed = HeaderName::parse(&name);
        // Only a valid name is repeated, because any other text may be an API key in the wrong place.
        let field = match parsed {
            Ok(_) => format!("{field}[\"{name}\"]"),
            Err(_) => field.clone(),
        };
        let fits = value.len() <= MAX_HEADER_VALUE
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !fits {
            bad.add(
                field.as_str(),
                "must have values of at most 512 bytes of printable ASCII",
            );
        }
        let Ok(name) = parsed else {
            bad.add(
                field,
                "must have names of at most 64 letters, digits and hyphens, such as content-type",
            );
            continue;
        };
        if [
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "upgrade",
            "trailer",
            "keep-alive",
            "proxy-connection",
            "content-encoding",
            "date",
            "server",
        ]
        .contains(&name.as_str())
        {
            bad.add(
                field.as_str(),
                "must not be set because the HTTP server sets it itself",
            );
        }
        if name.as_str().starts_with("x-accel-") {
            bad.add(
                field.as_str(),
                "must not be set because nginx obeys it and could let the request through",
            );
        }
        if decoded.insert(name, value).is_some() {
            bad.add(field, "must name each header only once");
        }
    }
    decoded
}

pub(super) fn credentials(credentials: Credentials) -> Option<pb::Credentials> {
    use pb::credential_source::{Cookie, Header, Source, WebsocketProtocol};
    if credentials == Credentials::default() {
        return None;
    }
    let Credentials { sources, partner } = credentials;
    let source = |source| {
        let source = match source {
            CredentialSource::Header { name, scheme } => Source::Header(Header {
                name: name.as_str().to_owned(),
                scheme: scheme
                    .map(|scheme| scheme.as_str().to_owned())
                    .unwrap_or_default(),
            }),
            CredentialSource::Cookie { name } => Source::Cookie(Cookie {
                name: name.as_str().to_owned(),
            }),
            CredentialSource::WebsocketProtocol { prefix } => {
                Source::WebsocketProtocol(WebsocketProtocol {
                    prefix: prefix.as_str().to_owned(),
                })
            }
        };
        pb::CredentialSource {
            source: Some(source),
        }
    };
    Some(pb::Credentials {
        sources: sources.into_iter().map(source).collect(),
        partner_header: partner
            .map(|name| name.as_str().to_owned())
            .unwrap_or_default(),
    })
}

pub(super) fn route(route: Route) -> pb::Route {
    use pb::route::Target;
    let Route {
        methods,
        path,
        need,
    } = route;
    let optional_key = need == Need::OptionalKey;
    let (target, partner_key, scopes, any_scopes) = match need {
        Need::Public | Need::OptionalKey => {
            (Some(Target::Public(true)), false, Vec::new(), Vec::new())
        }
        Need::Key(KeyNeed {
            reach,
            scopes,
            any_scopes,
        }) => {
            let partner_key = matches!(reach, Reach::PartnerKey | Reach::ProjectByPartner(_));
            let target = match reach {
                Reach::Partner | Reach::PartnerKey => None,
                Reach::Any => Some(Target::AnyTarget(true)),
                Reach::OwnProject => Some(Target::OwnProject(true)),
                Reach::Project(parameter) | Reach::ProjectByPartner(parameter) => {
                    Some(Target::Project(parameter))
                }
            };
            (
                target,
                partner_key,
                encode::scope_names(&scopes),
                encode::scope_names(&any_scopes),
            )
        }
    };
    pb::Route {
        methods: methods
            .iter()
            .map(|method| method.as_str().to_owned())
            .collect(),
        path: path.as_str().to_owned(),
        target,
        partner_key,
        scopes,
        any_scopes,
        optional_key,
    }
}

pub(super) fn denials(denials: Denials) -> Vec<pb::Denial> {
    denials
        .into_iter()
        .map(|(class, denial)| {
            let Denial {
                status,
                headers,
                body,
            } = denial;
            let class = match class {
                DenialClass::Unauthenticated => pb::DenialClass::Unauthenticated,
                DenialClass::Forbidden => pb::DenialClass::Forbidden,
                DenialClass::Undecided => pb::DenialClass::Undecided,
            };
            pb::Denial {
                denial_class: class.into(),
                status: status.into(),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.as_str().to_owned(), value))
                    .collect(),
                body,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cannot_carry_a_key_alone_is_refused_with_one_that_can() {
        for (name, advice) in [
            ("Cookie", "`cookie`"),
            ("Sec-WebSocket-Protocol", "`websocket_protocol`"),
            ("Host", "`authorization`"),
            ("Content-Type", "`authorization`"),
            ("Transfer-Encoding", "`authorization`"),
        ] {
            let refused = HeaderName::parse(name).and_then(carrier).unwrap_err();
            assert!(refused.contains(advice), "{name}: {refused}");
        }
        for name in ["Authorization", "X-API-Key", "apikey"] {
            assert!(HeaderName::parse(name).and_then(carrier).is_ok(), "{name}");
        }
    }
}
