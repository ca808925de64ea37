//! From a presented API key to the key and the role of its holder.

use std::net::IpAddr;
use std::sync::Arc;

use super::role::{
    AuthorizedCaller, Forbidden, NO_ROLE, OPERATORS_ONLY, Principal, Role, may_verify,
};
use crate::domain::access::ScopeSet;
use crate::domain::clock::Clock;
use crate::domain::ids::{EnvironmentName, PartnerId, RealmId};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::hashing::Peppers;
use crate::mirror::{KeyFacts, Mirror, MirroredRealm, MirroredSecret, View};
use crate::usage::UsageRecorder;
use crate::verify::{Proof, Question, Target, VerifyError, decide, prove};

/// Authenticates callers from the mirror.
#[derive(Clone)]
pub struct Authenticator {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    recorder: Arc<UsageRecorder>,
}

/// A key that was just proven, with its realm.
pub struct AuthenticatedKey<'v> {
    key: &'v KeyFacts,
    secret: &'v MirroredSecret,
    realm: &'v MirroredRealm,
}

/// Why a caller is refused. It says nothing about the key that the caller asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The mirror has not been loaded yet.
    Starting,
    /// The caller did not prove a key that is good.
    Unauthenticated(&'static str),
    /// The caller proved its key, but the key does not allow this.
    Forbidden(Forbidden),
    /// The caller's own key cannot be decided.
    Verify(VerifyError),
    /// The built-in realm is missing from the store.
    NoBuiltInRealm,
}

impl From<Forbidden> for AuthError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Forbidden(forbidden)
    }
}

const UNKNOWN_KEY: &str =
    "the caller's key is not a key of this authority: check which key is sent";

const NOT_OF_BUILT_IN_REALM: &str = "the caller's key is not a key of the realm \"claviger\": issue one there with the scope \"verify\"";

impl Authenticator {
    /// Callers are compared with this mirror. The recorder notes the use of their keys.
    pub fn new(
        mirror: Arc<Mirror>,
        peppers: Arc<Peppers>,
        clock: Clock,
        recorder: Arc<UsageRecorder>,
    ) -> Self {
        Self {
            mirror,
            peppers,
            clock,
            recorder,
        }
    }

    /// The caller of an administrative request. Its key may belong to any realm.
    pub fn administrator(
        &self,
        plain_key: &str,
        peer: Option<IpAddr>,
    ) -> Result<AuthorizedCaller, AuthError> {
        let index = self.mirror.index();
        let view = index.view();
        let (key, _) = self.proven(&view, plain_key)?;
        let realm = view
            .realm(key.realm().as_str())
            .ok_or(AuthError::NoBuiltInRealm)?;
        let caller = self.authenticate_in(
            &view,
            realm,
            key.environment(),
            plain_key,
            peer,
            self.clock.now(),
        )?;
        Ok(AuthorizedCaller {
            principal: principal(caller.key, caller.secret, peer),
            role: caller.role().ok_or(NO_ROLE)?,
        })
    }

    /// The holder of a key and the owner of that key, whatever the key is good for.
    pub fn principal(
        &self,
        plain_key: &str,
        peer: Option<IpAddr>,
    ) -> Result<(Principal, RealmId, PartnerId), AuthError> {
        let index = self.mirror.index();
        let view = index.view();
        let (key, secret) = self.proven(&view, plain_key)?;
        Ok((
            principal(key, secret, peer),
            key.realm().clone(),
            key.partner.id.clone(),
        ))
    }

    fn proven<'v>(
        &self,
        view: &'v View<'_>,
        plain_key: &str,
    ) -> Result<(&'v KeyFacts, &'v MirroredSecret), AuthError> {
        if !view.is_loaded() {
            return Err(AuthError::Starting);
        }
        match prove(plain_key, view, &self.peppers).map_err(AuthError::Verify)? {
            Proof::Of(key, secret) => Ok((key, secret)),
            Proof::OfNothing | Proof::Malformed => Err(AuthError::Unauthenticated(UNKNOWN_KEY)),
        }
    }

    /// The caller of a verification. Its key must belong to the built-in realm.
    pub fn authenticate<'v>(
        &self,
        view: &'v View<'_>,
        plain_key: &str,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<AuthenticatedKey<'v>, AuthError> {
        if !view.is_loaded() {
            return Err(AuthError::Starting);
        }
        let realm = view
            .realm(RealmId::BUILT_IN)
            .ok_or(AuthError::NoBuiltInRealm)?;
        let environment = &realm.definition.environments[0];
        self.authenticate_in(view, realm, &environment.name, plain_key, peer, now)
    }

    fn authenticate_in<'v>(
        &self,
        view: &'v View<'_>,
        realm: &'v MirroredRealm,
        environment: &EnvironmentName,
        plain_key: &str,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<AuthenticatedKey<'v>, AuthError> {
        let question = Question {
            plain_key,
            realm,
            environment,
            target: Target::Any,
            projects: &[],
            partner: "",
            scopes: ScopeSet::default(),
            any_scopes: ScopeSet::default(),
            client: peer,
        };
        let decision = decide(&question, view, &self.peppers, now).map_err(AuthError::Verify)?;
        if let Some((key, secret)) = decision.proven {
            self.recorder.note_use(key, secret, now);
        }
        match (decision.verdict, decision.proven) {
            (Verdict::Allowed, Some((key, secret))) => Ok(AuthenticatedKey { key, secret, realm }),
            (Verdict::AddressDenied, _) => Err(AuthError::Forbidden(Forbidden(
                "the caller's key may not be used from this address: see its allowed_cidrs",
            ))),
            (Verdict::PartnerSuspended, _) => Err(AuthError::Forbidden(Forbidden(
                "the partner that owns the caller's key is suspended: ask the operators",
            ))),
            (verdict, Some(_)) => Err(AuthError::Unauthenticated(match verdict {
                Verdict::Revoked => "the caller's key is revoked: use another key",
                Verdict::Disabled => "the caller's key is disabled: enable it, or use another key",
                _ => "the caller's key has expired: use another key",
            })),
            (_, None) if realm.definition.id.is_built_in() => {
                Err(AuthError::Unauthenticated(NOT_OF_BUILT_IN_REALM))
            }
            (_, None) => Err(AuthError::Unauthenticated(UNKNOWN_KEY)),
        }
    }
}

fn principal(key: &KeyFacts, secret: &MirroredSecret, peer: Option<IpAddr>) -> Principal {
    Principal {
        key: key.id,
        secret: secret.digest,
        peer: peer.map(|peer| peer.to_canonical()),
    }
}

impl AuthenticatedKey<'_> {
    fn holds(&self, scope: &str) -> bool {
        let hierarchy = &self.realm.hierarchy;
        hierarchy
            .index_of(scope)
            .is_some_and(|index| self.key.effective(hierarchy).contains(index))
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

    /// Whether the caller may verify keys of this realm.
    pub fn may_verify(&self, realm: &str) -> Result<(), Forbidden> {
        if may_verify(&self.key.partner.id, |scope| self.holds(scope), realm) {
            Ok(())
        } else {
            Err(Forbidden(
                "only an operator key, or a key that holds \"verify\" for this realm, may do this",
            ))
        }
    }

    /// Whether the caller may see how an answer came about.
    pub fn may_operate(&self) -> Result<(), Forbidden> {
        match self.role() {
            Some(Role::Operator) => Ok(()),
            _ => Err(OPERATORS_ONLY),
        }
    }
}
