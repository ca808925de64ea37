//! What a caller may do.

use std::net::IpAddr;

use crate::domain::access::ScopeHierarchy;
use crate::domain::event::Actor;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Digest, Key};
use crate::domain::realm::{Realm, scopes};
use crate::domain::time::Timestamp;

/// The caller is known but may not do this. The text says what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden(pub &'static str);

/// The refusal of a key that is good but administers nothing.
pub const NO_ROLE: Forbidden = Forbidden(
    "the caller's key administers nothing: use a key of the built-in realm, or a key that holds its realm's admin_scope",
);

/// The refusal of everything that only operators may do.
pub(super) const OPERATORS_ONLY: Forbidden = Forbidden("only an operator key may do this");

const MANAGERS_ONLY: Forbidden =
    Forbidden("only an operator key, or a key that holds \"manage\" for this realm, may do this");

const BEYOND_PARTNER: Forbidden = Forbidden(
    "the caller's key administers only the keys of its own partner and environment: name these, or use an operator key",
);

const BEYOND_PROJECT: Forbidden = Forbidden(
    "the caller's key administers only the keys of its own project and environment: name these, or use an operator key",
);

/// Who proved which secret, and from where.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The proven key.
    pub key: KeyId,
    /// The digest of the secret that was presented.
    pub secret: Digest,
    /// The network address of the caller.
    pub peer: Option<IpAddr>,
}

/// A principal whose key administers something.
#[derive(Clone, Debug)]
pub struct AuthorizedCaller {
    /// The principal.
    pub principal: Principal,
    /// The role of its key at the time of the proof.
    pub role: Role,
}

/// What a key allows its principal to administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, in every realm.
    Operator,
    /// Something in one realm, by a key of the built-in one.
    Realm {
        /// The realm that the key serves.
        realm: RealmId,
        /// Whether that is its administration.
        manage: bool,
    },
    /// The keys beside its own, by a partner's key that holds its realm's `admin_scope`.
    Delegate(Delegate),
}

/// The keys that a partner's own key may administer: those of the same owner in the same environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Their realm.
    pub realm: RealmId,
    /// Their owner.
    pub partner: PartnerId,
    /// The project that they are bound to; for a partner key any, or none.
    pub project: Option<ProjectId>,
    /// The environment that they live in.
    pub environment: EnvironmentName,
}

impl Principal {
    /// The principal as the audit trail names it.
    pub fn actor(&self) -> Actor {
        Actor {
            key: Some(self.key),
            peer: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        }
    }

    /// Whether the key still has the proven secret. A rotation may have replaced it since the proof.
    pub fn still_holds(&self, key: &Key, now: Timestamp) -> bool {
        key.secrets
            .iter()
            .any(|secret| secret.digest == self.secret && !secret.expires_at.is_over(now))
    }
}

impl Role {
    /// The role of a key of this realm that is so bound and holds the scopes for which `holds` is true.
    pub fn new(
        realm: &Realm,
        partner: &PartnerId,
        project: Option<&ProjectId>,
        environment: &EnvironmentName,
        holds: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        if !realm.id.is_built_in() {
            let admin = realm.admin_scope.as_ref()?;
            return holds(admin.as_str()).then(|| {
                Self::Delegate(Delegate {
                    realm: realm.id.clone(),
                    partner: partner.clone(),
                    project: project.cloned(),
                    environment: environment.clone(),
                })
            });
        }
        if partner.is_nobody() {
            return holds(scopes::OPERATOR).then_some(Self::Operator);
        }
        Some(Self::Realm {
            realm: RealmId::parse(partner.as_str()).ok()?,
            manage: holds(scopes::MANAGE),
        })
    }

    /// The role of a stored key of this realm.
    pub fn of(key: &Key, realm: &Realm) -> Option<Self> {
        let hierarchy = ScopeHierarchy::new(&realm.scopes, None);
        let held = hierarchy.effective_access(&key.access);
        Self::new(
            realm,
            &key.partner,
            key.level.project(),
            &key.environment,
            |scope| {
                hierarchy
                    .index_of(scope)
                    .is_some_and(|index| held.contains(index))
            },
        )
    }

    /// Whether it may administer this realm.
    ///
    /// # Errors
    /// The same whether or not there is such a realm.
    pub fn may_manage(&self, wanted: &RealmId) -> Result<(), Forbidden> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm {
                realm,
                manage: true,
            } if realm == wanted => Ok(()),
            Self::Realm { .. } | Self::Delegate(_) => Err(MANAGERS_ONLY),
        }
    }

    /// Whether it may read something of some realm, of which what it may not know of stays hidden.
    pub fn may_manage_something(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm { realm, .. } | Self::Delegate(Delegate { realm, .. }) => {
                self.may_manage(realm)
            }
        }
    }

    /// Whether it may administer any keys, of which those it does not reach stay hidden.
    pub fn may_administer_keys(&self) -> Result<(), Forbidden> {
        match self {
            Self::Delegate(_) => Ok(()),
            Self::Operator | Self::Realm { .. } => self.may_manage_something(),
        }
    }

    /// Whether it may do what only operators may.
    pub fn may_operate(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm { .. } | Self::Delegate(_) => Err(OPERATORS_ONLY),
        }
    }

    /// Whether it may administer keys that are bound like this one: look at them, and take from them. What it may give is
    /// bounded further, by the privilege-escalation check of `authority::grants`.
    pub fn reaches(&self, key: &Key) -> bool {
        self.reaches_keys_of(
            &key.realm,
            &key.partner,
            key.level.project(),
            &key.environment,
        )
    }

    /// [`Role::reaches`] for a key that is described by its owner, so also for a deleted one.
    pub fn reaches_keys_of(
        &self,
        realm: &RealmId,
        partner: &PartnerId,
        project: Option<&ProjectId>,
        environment: &EnvironmentName,
    ) -> bool {
        match self {
            Self::Delegate(delegate) => {
                delegate.reaches(realm, Some(partner), project, Some(environment))
            }
            Self::Operator | Self::Realm { .. } => self.may_manage(realm).is_ok(),
        }
    }

    /// Whether it reaches a key that is still to be made. An environment that is not named is looked at when it is known.
    ///
    /// # Errors
    /// The same whether or not there are such a realm, partner and project.
    pub fn may_issue(
        &self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        project: Option<&ProjectId>,
        environment: Option<&EnvironmentName>,
    ) -> Result<(), Forbidden> {
        match self {
            Self::Delegate(delegate) if delegate.reaches(realm, partner, project, environment) => {
                Ok(())
            }
            Self::Delegate(delegate) => Err(delegate.beyond_reach()),
            Self::Operator | Self::Realm { .. } => self.may_manage(realm),
        }
    }
}

impl Delegate {
    /// Whether the delegate administers keys that are bound like this. An unnamed environment is not compared.
    pub fn reaches(
        &self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        project: Option<&ProjectId>,
        environment: Option<&EnvironmentName>,
    ) -> bool {
        *realm == self.realm
            && partner == Some(&self.partner)
            && (self.project.is_none() || project == self.project.as_ref())
            && environment.is_none_or(|environment| *environment == self.environment)
    }

    /// The refusal of a request that goes beyond the delegate's reach, whether or not the thing it names exists.
    pub fn beyond_reach(&self) -> Forbidden {
        if self.project.is_some() {
            BEYOND_PROJECT
        } else {
            BEYOND_PARTNER
        }
    }
}

/// Whether a key of the built-in realm with this owner, which holds the scopes for which `holds` is true, may ask about the
/// keys of the realm `wanted`. Asked on every request, so it makes no [`Role`].
pub(super) fn may_verify(partner: &PartnerId, holds: impl Fn(&str) -> bool, wanted: &str) -> bool {
    if partner.is_nobody() {
        holds(scopes::OPERATOR)
    } else {
        partner.as_str() == wanted && holds(scopes::VERIFY)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::access::Access;
    use crate::domain::ids::ScopeName;
    use crate::domain::key::tests::sample;

    fn role(partner: &str, granted: &[&str]) -> Option<Role> {
        let partner = match partner {
            "" => PartnerId::nobody(),
            partner => PartnerId::parse(partner).unwrap(),
        };
        let granted = granted.iter().map(|scope| ScopeName::parse(scope).unwrap());
        let key = Key {
            realm: RealmId::built_in(),
            partner,
            access: Access::Scopes(granted.collect::<BTreeSet<_>>()),
            ..sample()
        };
        Role::of(&key, &Realm::built_in())
    }

    fn realm(id: &str) -> RealmId {
        RealmId::parse(id).unwrap()
    }

    #[test]
    fn an_operator_may_do_everything_everywhere() {
        let operator = role("", &["operator"]).unwrap();
        assert!(operator.may_manage(&realm("demo")).is_ok());
        assert!(operator.may_operate().is_ok());
    }

    #[test]
    fn each_other_role_is_held_to_its_realm_and_its_scope() {
        let gateway = role("demo", &["verify"]).unwrap();
        assert!(gateway.may_manage(&realm("demo")).is_err());
        assert!(gateway.may_manage_something().is_err());

        let manager = role("demo", &["manage"]).unwrap();
        assert!(manager.may_manage(&realm("demo")).is_ok());
        assert!(manager.may_manage(&realm("other")).is_err());
        assert!(manager.may_operate().is_err());
    }

    #[test]
    fn asking_takes_the_scope_and_the_realm() {
        let demo = PartnerId::parse("demo").unwrap();
        assert!(may_verify(&demo, |scope| scope == "verify", "demo"));
        assert!(!may_verify(&demo, |scope| scope == "verify", "other"));
        assert!(!may_verify(&demo, |scope| scope == "manage", "demo"));
        assert!(!may_verify(&demo, |scope| scope == "operator", "other"));
        assert!(may_verify(
            &PartnerId::nobody(),
            |scope| scope == "operator",
            "other"
        ));
        assert!(!may_verify(
            &PartnerId::nobody(),
            |scope| scope == "verify",
            "other"
        ));
    }

    #[test]
    fn a_key_without_a_realm_is_an_operators_or_nothing() {
        assert_eq!(role("", &["manage", "verify"]), None);
        assert_eq!(role("", &[]), None);
    }

    #[test]
    fn the_word_operator_gives_nothing_beyond_the_realm_that_the_key_serves() {
        let role = role("demo", &["operator"]).unwrap();
        assert!(role.may_operate().is_err());
        assert!(role.may_manage(&realm("other")).is_err());
    }
}
