//! Authentication of callers by their API key, in two steps.
//!
//! First [`Authenticator::prove`] compares the secret. This needs only the headers of a call, so that nobody without an API key of
//! this authority can make the server decode a body. Then the proven key is judged when the call's question is decided, by the
//! facts and the time of that moment: expiry, revocation, suspension and scopes. So no time passes between the check of what a
//! caller may do and its use.

use std::net::IpAddr;
use std::sync::Arc;

use super::refused_key::{KeyObjection, RefusedKey};
use super::role::{
    AuthorizedCaller, Forbidden, NO_ROLE, OPERATORS_ONLY, Principal, Role, may_verify,
};
use super::{CallerGroup, KeyHolder};
use crate::domain::access::ScopeSet;
use crate::domain::clock::Clock;
use crate::domain::ids::{EnvironmentName, RealmId};
use crate::domain::time::Timestamp;
use crate::hashing::Peppers;
use crate::mirror::{Entry, KeyFacts, Mirror, MirroredRealm, MirroredSecret, View};
use crate::usage::UsageRecorder;
use crate::verify::{Moment, Proof, Question, Target, VerifyError, judge, prove};

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
    key: KeyFacts<'v>,
    secret: MirroredSecret,
    realm: &'v MirroredRealm,
}

/// The reason why a caller is not accepted. It is about the caller's own key, never about the key that a Verify asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The mirror is not loaded yet.
    Starting,
    /// The caller presented no valid key. Contains the message for the caller.
    Unauthenticated(&'static str),
    /// The caller proved a key that is not accepted. In a box, because an error must not make the results of all calls
    /// large.
    Refused(Box<RefusedKey>),
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
    "this authority does not know the caller's key: check that it is the right one";

/// The key is proven, so the caller is known: it is not allowed to verify.
const NOT_OF_BUILT_IN_REALM: Forbidden = Forbidden(
    "the caller's key is not a key of the realm \"claviger\": issue a key of this realm with the scope \"verify\"",
);

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

    /// Returns what a caller's API key proves. The key may be expired, disabled or revoked: whoever uses the result must still
    /// judge it.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn prove(&self, plain_key: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError> {
        let moment = Moment::read(&self.clock, self.mirror.lease());
        let index = self.mirror.index();
        let view = index.view();
        if !view.is_loaded() {
            return Err(AuthError::Starting);
        }
        match prove(plain_key, &view, &self.peppers).map_err(AuthError::Verify)? {
            Proof::Key(key, secret) => Ok(Principal {
                key: key.id(),
                secret: secret.digest,
                peer: peer.map(|peer| peer.to_canonical()),
                answer_by: None,
            }),
            Proof::Unknown | Proof::Malformed => {
                // The key may have been issued since the lease has lapsed.
                moment.check_lease().map_err(AuthError::Verify)?;
                Err(AuthError::Unauthenticated(UNKNOWN_KEY))
            }
        }
    }

    /// Authenticates the caller of an administrative request. The key may belong to any realm.
    ///
    /// # Errors
    /// See [`AuthError`]. [`NO_ROLE`] if the key administers nothing.
    pub fn authenticate_administrator(
        &self,
        principal: &Principal,
    ) -> Result<AuthorizedCaller, AuthError> {
        let role = self.accept(principal, |caller| caller.role().ok_or(NO_ROLE))??;
        Ok(AuthorizedCaller {
            principal: principal.clone(),
            role,
        })
    }

    /// Authenticates a caller that uses its key for itself only. The key may belong to any realm, and needs no role.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn authenticate_holder(&self, principal: &Principal) -> Result<KeyHolder, AuthError> {
        let group = self.accept(principal, |caller| group(caller.key))?;
        Ok(KeyHolder {
            principal: principal.clone(),
            group,
        })
    }

    /// Returns the holder of a key that may be expired, disabled or revoked.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn holder_of_any_key(&self, principal: &Principal) -> Result<KeyHolder, AuthError> {
        let index = self.mirror.index();
        let view = index.view();
        let (key, _) = proven(&view, principal)?;
        Ok(KeyHolder {
            principal: principal.clone(),
            group: group(key),
        })
    }

    /// Checks that nothing stands against a principal's key, which may belong to any realm. Returns what `of` tells of the key.
    fn accept<T>(
        &self,
        principal: &Principal,
        of: impl FnOnce(&AuthenticatedKey<'_>) -> T,
    ) -> Result<T, AuthError> {
        let moment = Moment::read(&self.clock, self.mirror.lease());
        let index = self.mirror.index();
        let view = index.view();
        let (key, secret) = proven(&view, principal)?;
        let realm = view
            .realm(key.realm().as_str())
            .ok_or(AuthError::Verify(VerifyError::Corrupt))?;
        let caller = AuthenticatedKey { key, secret, realm };
        self.judge(&caller, key.environment(), principal, moment)?;
        Ok(of(&caller))
    }

    /// Authenticates the caller of a verification. The key must belong to the built-in realm.
    ///
    /// The lease does not matter here, because it decides on the key that the caller asks about.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn authenticate_gateway<'v>(
        &self,
        view: &'v View<'_>,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<AuthenticatedKey<'v>, AuthError> {
        let (key, secret) = proven(view, principal)?;
        if !key.realm().is_built_in() {
            return Err(NOT_OF_BUILT_IN_REALM.into());
        }
        let realm = view
            .realm(RealmId::BUILT_IN)
            .ok_or(AuthError::NoBuiltInRealm)?;
        let caller = AuthenticatedKey { key, secret, realm };
        self.judge(
            &caller,
            &realm.definition.environments[0].name,
            principal,
            Moment::at(now),
        )?;
        Ok(caller)
    }

    /// Checks that nothing stands against a caller's key, and records its use.
    fn judge(
        &self,
        caller: &AuthenticatedKey<'_>,
        environment: &EnvironmentName,
        principal: &Principal,
        moment: Moment,
    ) -> Result<(), AuthError> {
        let AuthenticatedKey { key, secret, realm } = *caller;
        let question = Question {
            realm,
            environment,
            target: Target::Any,
            projects: &[],
            partner: "",
            scopes: ScopeSet::default(),
            any_scopes: ScopeSet::default(),
            client: principal.peer,
        };
        let now = moment.now();
        self.recorder.record_use(&question, key, &secret, now);
        let decision = judge(&question, key, secret, moment).map_err(AuthError::Verify)?;
        match KeyObjection::of(decision.verdict, key, secret, now) {
            None => Ok(()),
            Some(objection) => Err(AuthError::Refused(Box::new(RefusedKey::new(
                key, objection,
            )))),
        }
    }
}

/// Returns the group of the holders of a key.
fn group(key: KeyFacts<'_>) -> CallerGroup {
    CallerGroup::Holders(key.realm().clone(), key.partner().id.clone())
}

/// Returns the key and the secret that a principal proved, as they are now.
fn proven<'v>(
    view: &'v View<'_>,
    principal: &Principal,
) -> Result<(KeyFacts<'v>, MirroredSecret), AuthError> {
    match view.key(principal.key) {
        Some(Entry::Key(key)) => key
            .secrets()
            .find(|secret| secret.digest == principal.secret)
            .map(|secret| (key, secret))
            .ok_or(AuthError::Unauthenticated(UNKNOWN_KEY)),
        Some(Entry::Corrupt) => Err(AuthError::Verify(VerifyError::Corrupt)),
        None => Err(AuthError::Unauthenticated(UNKNOWN_KEY)),
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
            &self.key.partner().id,
            self.key.project(),
            self.key.environment(),
            |scope| self.holds(scope),
        )
    }

    /// Checks that the caller may verify keys of this realm.
    ///
    /// # Errors
    /// The same whether or not the realm exists.
    pub fn may_verify(&self, realm: &str) -> Result<(), Forbidden> {
        if may_verify(&self.key.partner().id, |scope| self.holds(scope), realm) {
            Ok(())
        } else if realm == RealmId::BUILT_IN {
            Err(OPERATORS_ONLY)
        } else {
            Err(Forbidden(
                "the caller's key may not verify keys of this realm: use a key with the scope \"verify\" for it",
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
