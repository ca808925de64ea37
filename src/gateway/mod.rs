//! What becomes of a request that a gateway hands over whole: the realm says where its key stands and what its route needs,
//! and the key is decided upon as always.
//!
//! Nothing that a client sends can bring about anything but an answer; only a realm that is set up wrongly, or a server that
//! cannot tell, is an error.

use std::net::IpAddr;

use crate::domain::access::ScopeSet;
use crate::domain::credential::{Malformed, Presented};
use crate::domain::denial::{Denial, DenialClass};
use crate::domain::ids::ScopeName;
use crate::domain::path::{CanonicalPath, NotCanonical};
use crate::domain::realm::Environment;
use crate::domain::route::{Matched, Reach};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::hashing::Peppers;
use crate::mirror::{KeyFacts, MirroredRealm, View};
use crate::verify::{Question, Target, Undecided, decide};

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

/// What is said of a request.
pub enum Ruling<'k> {
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
        reason: Reason,
    },
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The verdict on its key.
    Verdict(Verdict),
    /// The key is good, but no rule names such a request.
    NoRoute,
}

/// How a ruling came about, for people who want to know why.
pub struct Grounds<'g> {
    /// The path, if everybody reads it alike.
    pub path: Result<CanonicalPath<'g>, NotCanonical>,
    /// The rule that counts, if one names the request.
    pub matched: Option<Matched<'g, 'g>>,
    /// What the request says of itself.
    pub presented: Result<Presented<'g>, Malformed>,
}

/// Looks at a request by its realm's rules.
pub fn look<'g>(realm: &'g MirroredRealm, request: &GatewayRequest<'g>) -> Grounds<'g> {
    let path = CanonicalPath::of_target(request.target);
    let headers = request.headers.iter().copied();
    Grounds {
        matched: path
            .ok()
            .and_then(|path| realm.routes.find(request.method, path)),
        path,
        presented: realm.definition.credentials.read(headers),
    }
}

/// Rules on a request.
pub fn rule<'k>(
    view: &'k View<'_>,
    realm: &MirroredRealm,
    environment: &Environment,
    request: &GatewayRequest<'_>,
    peppers: &Peppers,
    now: Timestamp,
) -> Result<Ruling<'k>, Undecided> {
    let grounds = look(realm, request);
    let denied = |verdict| Ruling::Denied {
        class: DenialClass::of(verdict).unwrap_or(DenialClass::Forbidden),
        reason: Reason::Verdict(verdict),
    };
    if let Some(Matched { wanted: None, .. }) = grounds.matched {
        return Ok(Ruling::Allowed { key: None });
    }
    let Ok(presented) = grounds.presented else {
        return Ok(denied(Verdict::Malformed));
    };
    let decision = ask(
        &grounds,
        presented,
        realm,
        environment,
        request.client,
        |question| decide(question, view, peppers, now),
    )?;
    Ok(match (DenialClass::of(decision.verdict), decision.proven) {
        (Some(DenialClass::Unauthenticated), _) => denied(decision.verdict),
        // Who is not known learns nothing about routes; who is, that there is none.
        _ if grounds.matched.is_none() => Ruling::Denied {
            class: DenialClass::Forbidden,
            reason: Reason::NoRoute,
        },
        (None, Some((key, _))) => Ruling::Allowed { key: Some(key) },
        _ => denied(decision.verdict),
    })
}

/// Asks the question that a request comes to. Without a route it is about the key alone.
pub fn ask<T>(
    grounds: &Grounds<'_>,
    presented: Presented<'_>,
    realm: &MirroredRealm,
    environment: &Environment,
    client: Option<IpAddr>,
    answer: impl FnOnce(&Question<'_>) -> T,
) -> T {
    let wanted = grounds.matched.as_ref().and_then(|matched| matched.wanted);
    let reach = wanted.map_or(&Reach::Any, |wanted| &wanted.reach);
    let named = grounds
        .matched
        .as_ref()
        .zip(reach.parameter())
        .and_then(|(matched, parameter)| matched.parameter(parameter))
        // No project has an empty name.
        .unwrap_or_default();
    answer(&Question {
        text: presented.key,
        realm,
        environment: &environment.name,
        target: match reach {
            Reach::Partner => Target::Partner,
            Reach::Project(_) => Target::Project(&named),
            Reach::ProjectByPartner(_) => Target::ProjectByPartner(&named),
            Reach::OwnProject => Target::OwnProject,
            Reach::Any => Target::Any,
        },
        partner: presented.partner,
        scopes: wanted.map_or_else(ScopeSet::default, |wanted| wanted.scopes),
        any_scopes: wanted.map_or_else(ScopeSet::default, |wanted| wanted.any_scopes),
        client,
    })
}

/// What the server behind the gateway is told, as [`IDENTITY_HEADERS`] has it.
pub fn identity(realm: &MirroredRealm, key: Option<&KeyFacts>) -> [(&'static str, String); 6] {
    let told = key.map_or_else(Default::default, |key| {
        let scopes = realm.ladder.names(key.effective(&realm.ladder));
        [
            key.id.to_string(),
            key.realm.to_string(),
            key.partner.id.to_string(),
            key.project
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            key.environment.to_string(),
            scopes.map(ScopeName::as_str).collect::<Vec<_>>().join(" "),
        ]
    });
    let mut told = told.into_iter();
    IDENTITY_HEADERS.map(|name| (name, told.next().unwrap_or_default()))
}

/// How a denial of this realm is told.
pub fn denial(realm: &MirroredRealm, class: DenialClass) -> Denial {
    let told = realm.definition.denials.get(&class);
    told.cloned().unwrap_or_else(|| Denial::plain(class))
}

impl Reason {
    /// Its name, for bodies and for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "NO_ROUTE",
            Self::Verdict(verdict) => verdict.as_str(),
        }
    }
}
