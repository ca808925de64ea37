//! Who calls: the key that a call carries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::status;
use crate::authority::{ALLOWS_NOTHING, Caller, Role, may_verify};
use crate::domain::access::ScopeSet;
use crate::domain::clock::Clock;
use crate::domain::ids::RealmId;
use crate::domain::key_text;
use crate::domain::realm::Environment;
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::hashing::Peppers;
use crate::mirror::{KeyFacts, Mirror, MirroredRealm, View};
use crate::verify::{Question, Target, Undecided, decide};

const NOT_A_KEY: &str =
    "the caller's key, in the metadata \"authorization: Bearer KEY\", is not one of this authority";

const NOT_A_GATEWAYS_KEY: &str = "the caller's key, in the metadata \"authorization: Bearer KEY\", is not one of this authority's own realm";

/// Proves callers, from the mirror.
#[derive(Clone)]
pub struct Callers {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
}

/// A key that was just proven, with its realm.
pub(super) struct Proven<'v> {
    key: &'v KeyFacts,
    realm: &'v MirroredRealm,
}

impl Callers {
    /// Callers are proven by what this mirror knows.
    pub fn new(mirror: Arc<Mirror>, peppers: Arc<Peppers>, clock: Clock) -> Self {
        Self {
            mirror,
            peppers,
            clock,
        }
    }

    /// Who makes this call of administration, with a key of whichever realm.
    pub(super) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = request.remote_addr();
        let index = self.mirror.index();
        let view = index.view();
        if !view.is_loaded() {
            return Err(status::starting());
        }
        let text = bearer(request.metadata())?;
        let (realm, environment) = key_text::parse(text)
            .ok()
            .and_then(|text| {
                let realm = view.realm_of_prefix(text.prefix)?;
                Some((realm, realm.definition.environment_of_tag(text.tag)?))
            })
            .ok_or_else(|| status::unauthenticated(NOT_A_KEY))?;
        let proven = self.prove_in(&view, realm, environment, text, peer, self.clock.now())?;
        Ok(Caller {
            key: proven.key.id,
            role: proven
                .role()
                .ok_or_else(|| status::forbidden(ALLOWS_NOTHING))?,
            peer: peer.map(|peer| peer.ip().to_canonical()),
        })
    }

    /// The key of the built-in realm with which this question is asked.
    pub(super) fn prove<'v>(
        &self,
        view: &'v View<'_>,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<Proven<'v>, Status> {
        if !view.is_loaded() {
            return Err(status::starting());
        }
        let realm = view.realm(RealmId::BUILT_IN).ok_or_else(status::internal)?;
        let environment = &realm.definition.environments[0];
        self.prove_in(view, realm, environment, bearer(metadata)?, peer, now)
    }

    fn prove_in<'v>(
        &self,
        view: &'v View<'_>,
        realm: &'v MirroredRealm,
        environment: &Environment,
        text: &str,
        peer: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<Proven<'v>, Status> {
        let question = Question {
            text,
            realm,
            environment: &environment.name,
            target: Target::Any,
            partner: "",
            scopes: ScopeSet::default(),
            any_scopes: ScopeSet::default(),
            client: peer.map(|peer| peer.ip()),
        };
        let decision =
            decide(&question, view, &self.peppers, now).map_err(|undecided| match undecided {
                Undecided::Corrupt => status::internal(),
                Undecided::PepperMissing => status::pepper_missing(),
            })?;
        match (decision.verdict, decision.proven) {
            (Verdict::Allowed, Some((key, _))) => Ok(Proven { key, realm }),
            (Verdict::AddressDenied, _) => Err(status::forbidden(
                "the caller's key may not be used from this address",
            )),
            (Verdict::PartnerSuspended, _) => Err(status::forbidden(
                "the partner that the caller's key belongs to is suspended",
            )),
            (verdict, Some(_)) => Err(status::unauthenticated(match verdict {
                Verdict::Revoked => "the caller's key is revoked",
                Verdict::Disabled => "the caller's key is disabled",
                _ => "the caller's key has expired",
            })),
            (_, None) => Err(status::unauthenticated(
                if realm.definition.id.is_built_in() {
                    NOT_A_GATEWAYS_KEY
                } else {
                    NOT_A_KEY
                },
            )),
        }
    }
}

impl Proven<'_> {
    fn holds(&self, scope: &str) -> bool {
        let ladder = &self.realm.ladder;
        ladder
            .rank(scope)
            .is_some_and(|rank| self.key.effective(ladder).contains(rank))
    }

    fn role(&self) -> Option<Role> {
        Role::new(
            &self.realm.definition,
            &self.key.partner.id,
            self.key.project.as_ref(),
            self.key.environment(),
            |scope| self.holds(scope),
        )
    }

    /// Whether the caller may ask about keys of this realm.
    pub(super) fn may_verify(&self, realm: &str) -> Result<(), Status> {
        if may_verify(&self.key.partner.id, |scope| self.holds(scope), realm) {
            Ok(())
        } else {
            Err(status::forbidden(
                "this takes an operator key, or a key that holds \"verify\" for the realm in question",
            ))
        }
    }
}

/// The key in `authorization: Bearer KEY` (RFC 6750), which must stand there once.
fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(status::unauthenticated(
            "the call must carry one key of the caller's own, in the metadata \"authorization: Bearer KEY\"",
        ));
    };
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key)
        .ok_or_else(|| {
            status::unauthenticated("the metadata \"authorization\" must read \"Bearer KEY\"")
        })
}

/// An address as the end client's, or a sentence that says what it should be.
pub(super) fn client_ip(text: &str) -> Result<Option<IpAddr>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "must be an IP address such as 192.0.2.7 or 2001:db8::7")
}
