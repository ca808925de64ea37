//! Authentication of callers by their API key.

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

/// Authenticates callers against the mirror.
#[derive(Clone)]
pub struct Authenticator {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    recorder: Arc<UsageRecorder>,
}

/// An authenticated caller's key, with its realm.
pub struct AuthenticatedKey<'v> {
    key: &'v KeyFacts,
    secret: &'v MirroredSecret,
    realm: &'v MirroredRealm,
}

/// The reason why a caller is not accepted. It is about the caller's own key, never about the key that a Verify asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The mirror is not loaded yet.
    Starting,
    /// The caller presented no valid key. Contains the message for the caller.
    Unauthenticated(&'static str),
    /// The caller's key is valid, but does not allow the call.
    Forbidden(Forbidden),
    /// There is no verdict on the caller's own key.
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
    "this authority does not know the caller's key: check which key the client sends";

const NOT_OF_BUILT_IN_REALM: &str = "the caller's key is not a key of the realm \"claviger\": issue a key of this realm with \
                                     the scope \"verify\"";

impl Authenticator {
    /// Creates an authenticator. `recorder` records the use of the callers' keys.
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

    /// Authenticates the caller of an administrative request. The key may belong to any realm.
    ///
    /// # Errors
    /// See [`AuthError`]. [`NO_ROLE`] if the key administers nothing.
    pub fn authenticate_administrator(
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

    /// Returns the principal that proves a secret, with the owner of its key. The key may be expired, disabled or revoked.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn authenticate_principal(
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
            Proof::Key(key, secret) => Ok((key, secret)),
            Proof::Unknown | Proof::Malformed => Err(AuthError::Unauthenticated(UNKNOWN_KEY)),
        }
    }

    /// Authenticates the caller of a verification. The key must belong to the built-in realm.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn authenticate_gateway<'v>(
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
            self.recorder.record_use(key, secret, now);
        }
        match (decision.verdict, decision.proven) {
            (Verdict::Allowed, Some((key, secret))) => Ok(AuthenticatedKey { key, secret, realm }),
            (Verdict::AddressDenied, _) => Err(AuthError::Forbidden(Forbidden(
                "the caller's key may not be used from this address: check the `allowed_cidrs` of the key",
            ))),
            (Verdict::PartnerSuspended, _) => Err(AuthError::Forbidden(Forbidden(
                "the partner that owns the caller's key is suspended: ask an operator to restore the partner",
            ))),
            (verdict, Some(_)) => Err(AuthError::Unauthenticated(match verdict {
                Verdict::Revoked => "the caller's key is revoked: use another key",
                Verdict::Disabled => "the caller's key is disabled: enable it, or use another key",
                _ => {
                    "the caller's key or its old secret has expired: use the new secret, or another key"
                }
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

    /// Checks that the caller may verify keys of this realm.
    ///
    /// # Errors
    /// The same whether or not the realm exists.
    pub fn may_verify(&self, realm: &str) -> Result<(), Forbidden> {
        if may_verify(&self.key.partner.id, |scope| self.holds(scope), realm) {
            Ok(())
        } else if realm == RealmId::BUILT_IN {
            Err(OPERATORS_ONLY)
        } else {
            Err(Forbidden(
                "the caller's key may not do this: use an operator key, or a key with the scope \"verify\" for this realm",
            ))
        }
    }

    /// Checks that the caller is an operator.
    ///
    /// # Errors
    /// The caller has another role, or none.
    pub fn may_operate(&self) -> Result<(), Forbidden> {
        match self.role() {
            Some(Role::Operator) => Ok(()),
            _ => Err(OPERATORS_ONLY),
        }
    }
}
